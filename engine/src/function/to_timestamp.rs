//! `to_timestamp(text, template)` and `to_timestamp(seconds)`: an instant, as PostgreSQL reads it. Text without a template
//! is read as ISO-8601.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use chrono::NaiveDateTime;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument;
use super::pattern::Pattern;
use crate::error::Error;
use crate::model::Timestamp;

const NAME: &str = "to_timestamp";

pub(super) fn to_timestamp() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToTimestamp { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToTimestamp {
    signature: Signature,
}

/// The local time and offset that `text` says by `pattern`, as microseconds of UTC, or the error that it does not fit.
pub(super) fn by_template(pattern: &Pattern, text: &str, template: &str) -> Result<NaiveDateTime> {
    let read = pattern
        .parse_local(text)
        .and_then(|(local, minutes)| local.checked_sub_signed(chrono::TimeDelta::minutes(minutes.unwrap_or(0))));
    read.ok_or_else(|| {
        let message = format!("`{text}` does not fit the template `{template}`");
        Error::invalid_input(message).with_sqlstate("22007").into()
    })
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [first] if first.is_numeric() => Ok(vec![DataType::Float64]),
            [first] if first.is_temporal() => Ok(vec![self.return_type(&[])?]),
            _ => argument::coerce(NAME, arg_types, 1, &[DataType::Utf8View, DataType::Utf8]),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let instants = |values: &ArrayRef| -> Result<ArrayRef> {
            let instants = match values.data_type() {
                DataType::Float64 => values
                    .as_primitive::<Float64Type>()
                    .iter()
                    .map(|value| value.map(seconds).transpose())
                    .collect::<Result<TimestampMicrosecondArray>>()?,
                DataType::Timestamp(..) => return Ok(Arc::clone(values)),
                _ => texts(values, &args)?,
            };
            Ok(Arc::new(instants.with_timezone("+00:00")))
        };
        match &args.args[0] {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(instants(values)?)),
            ColumnarValue::Scalar(value) => {
                let instant = instants(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&instant, 0)?))
            }
        }
    }
}

fn seconds(seconds: f64) -> Result<i64> {
    let micros = (seconds * 1e6).round_ties_even();
    if micros.abs() < 9e18 {
        return Ok(micros as i64);
    }
    Err(Error::invalid_input(format!("timestamp out of range: {seconds} seconds")).with_sqlstate("22008").into())
}

fn texts(values: &ArrayRef, args: &ScalarFunctionArgs) -> Result<TimestampMicrosecondArray> {
    let template = argument::constant(NAME, &args.args, 1)?;
    if template.is_none() && args.args.len() > 1 {
        return Ok(TimestampMicrosecondArray::new_null(values.len()));
    }
    let pattern = template.map(Pattern::template).transpose()?;
    let read = |text: &str| -> Result<i64> {
        match (&pattern, template) {
            (Some(pattern), Some(template)) => Ok(by_template(pattern, text, template)?.and_utc().timestamp_micros()),
            _ => Ok(text.trim().parse::<Timestamp>()?.millis() * 1000),
        }
    };
    values.as_string_view().iter().map(|text| text.map(read).transpose()).collect()
}
