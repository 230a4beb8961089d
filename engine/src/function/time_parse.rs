//! `TIME_PARSE(string [, pattern [, time zone]])`: text as a time, by a Joda pattern; ISO-8601 without one. Text that does
//! not fit is null, as in Druid.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};
use super::pattern::Pattern;
use crate::model::{TimeZone, Timestamp};

const NAME: &str = "time_parse";

pub(super) fn time_parse() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimeParse { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeParse {
    signature: Signature,
}

impl ScalarUDFImpl for TimeParse {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 1, &[DataType::Utf8View, DataType::Utf8, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let pattern = argument::constant(NAME, &args.args, 1)?.map(Pattern::joda).transpose()?;
        let zone = argument::zone(NAME, &args.args, 2)?;
        let parse = |text: &str| match &pattern {
            Some(pattern) => pattern.parse(text, zone),
            None => iso(text, zone),
        };
        let parse_all = |texts: &ArrayRef| -> TimestampMillisecondArray {
            texts.as_string_view().iter().map(|text| text.and_then(parse).map(Timestamp::millis)).collect()
        };
        match &args.args[0] {
            ColumnarValue::Array(texts) => Ok(ColumnarValue::Array(Arc::new(parse_all(texts)))),
            ColumnarValue::Scalar(text) => {
                let times = parse_all(&text.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&times, 0)?))
            }
        }
    }
}

/// ISO-8601; a text without a zone of its own is of `zone`.
fn iso(text: &str, zone: TimeZone) -> Option<Timestamp> {
    let instant = Timestamp::from_str(text.trim()).ok()?;
    let time = text.split_once(['T', ' ']).map_or("", |(_, time)| time);
    if zone.is_utc() || time.contains(['Z', '+', '-']) {
        return Some(instant);
    }
    Some(zone.to_instant(TimeZone::Utc.to_local(instant)?))
}
