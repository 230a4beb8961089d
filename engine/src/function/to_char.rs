//! `to_char(timestamp, template)`: a time as text, by PostgreSQL's templates. DataFusion's own takes `strftime` patterns and
//! copies what it does not know, which answers wrongly in silence.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::DateTime;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument;
use super::pattern::{NumberTemplate, Pattern};
use crate::error::Error;

const NAME: &str = "to_char";
const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(super) fn to_char() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToChar { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    signature: Signature,
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null, _] => {
                Ok(vec![MICROS, DataType::Utf8])
            }
            [given, _] if given.is_integer() => Ok(vec![DataType::Int64, DataType::Utf8]),
            [given, _] if given.is_floating() => Ok(vec![DataType::Float64, DataType::Utf8]),
            [DataType::Decimal128(precision, scale), _] => {
                Ok(vec![DataType::Decimal128(*precision, *scale), DataType::Utf8])
            }
            [other, _] => {
                let message = format!("`to_char` of {other} is not supported; it writes numbers, dates and timestamps");
                Err(Error::unsupported(message).with_sqlstate("0A000").into())
            }
            _ => argument::coerce(NAME, arg_types, 2, &[MICROS, DataType::Utf8]),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(template) = argument::constant(NAME, &args.args, 1)? else {
            return argument::null(&DataType::Utf8View);
        };
        if args.args[0].data_type() != MICROS {
            return numbers(&args.args[0], args.number_rows, &NumberTemplate::parse(template)?);
        }
        let pattern = Pattern::template(template)?;
        argument::map_primitive::<TimestampMicrosecondType>(&args.args[0], |times| {
            let text = |micros: i64| match DateTime::from_timestamp_micros(micros) {
                Some(instant) => Ok(pattern.format(instant.naive_utc(), 0)),
                None => Err(Error::invalid_input("timestamp out of range").with_sqlstate("22008").into()),
            };
            let texts = times.iter().map(|micros| micros.map(text).transpose());
            Ok(Arc::new(texts.collect::<Result<StringViewArray>>()?) as ArrayRef)
        })
    }
}

fn numbers(numbers: &ColumnarValue, rows: usize, template: &NumberTemplate) -> Result<ColumnarValue> {
    let constant = matches!(numbers, ColumnarValue::Scalar(_));
    let array = numbers.to_array(if constant { 1 } else { rows })?;
    let text = |row: usize| -> Result<Option<String>> {
        let value = ScalarValue::try_from_array(&array, row)?;
        let Some((negative, digits)) = digits(&value, template.decimals())? else { return Ok(None) };
        Ok(Some(template.format(negative, &digits)))
    };
    let texts: StringViewArray = (0..array.len()).map(text).collect::<Result<_>>()?;
    match constant {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&texts, 0)?)),
        false => Ok(ColumnarValue::Array(Arc::new(texts) as ArrayRef)),
    }
}

/// Significant digits of a double, beyond which PostgreSQL writes none.
const DOUBLE_DIGITS: usize = 15;

/// The sign of a number, and its digits rounded to so many decimals. Nothing for null.
fn digits(value: &ScalarValue, decimals: usize) -> Result<Option<(bool, String)>> {
    let zeros = |whole: String| match decimals {
        0 => whole,
        decimals => format!("{whole}.{}", "0".repeat(decimals)),
    };
    Ok(match value {
        ScalarValue::Int64(Some(number)) => Some((*number < 0, zeros(number.unsigned_abs().to_string()))),
        ScalarValue::Decimal128(Some(number), _, scale) => {
            let digits = decimal_digits(number.unsigned_abs(), *scale, decimals);
            // What is rounded to zero has no sign.
            Some((*number < 0 && digits.bytes().any(|digit| (b'1'..=b'9').contains(&digit)), digits))
        }
        ScalarValue::Float64(Some(number)) if number.is_finite() => {
            let whole = format!("{:.0}", number.abs()).len();
            let decimals = decimals.min(DOUBLE_DIGITS.saturating_sub(whole));
            Some((*number < 0.0, format!("{:.decimals$}", number.abs())))
        }
        ScalarValue::Float64(Some(number)) => {
            let message = format!("`to_char` of {number} is not supported");
            return Err(Error::unsupported(message).with_sqlstate("0A000").into());
        }
        _ => None,
    })
}

/// Rounded half away from zero.
fn decimal_digits(number: u128, scale: i8, decimals: usize) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let number = match scale > decimals {
        true => {
            let unit = 10_u128.pow((scale - decimals) as u32);
            (number / unit) + u128::from(number % unit >= unit / 2)
        }
        false => number,
    };
    let kept = scale.min(decimals);
    let mut digits = format!("{number:0width$}", width = kept + 1);
    let fraction = digits.split_off(digits.len() - kept);
    match decimals {
        0 => digits,
        _ => format!("{digits}.{fraction}{}", "0".repeat(decimals - kept)),
    }
}
