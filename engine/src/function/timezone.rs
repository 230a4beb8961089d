//! `timezone(zone, time)`, which is what `time AT TIME ZONE zone` means: of an instant, what the clock of the zone shows; of
//! what a clock shows, the instant.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument;
use crate::error::Error;
use crate::model::{TimeZone, Timestamp};

const NAME: &str = "timezone";
const DAY_MS: i64 = 86_400_000;

pub(super) fn timezone() -> ScalarUDF {
    ScalarUDF::new_from_impl(AtTimeZone { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

fn utc() -> Option<Arc<str>> {
    Some("+00:00".into())
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let time = match arg_types {
            [_, DataType::Timestamp(TimeUnit::Millisecond, zone)] => {
                DataType::Timestamp(TimeUnit::Millisecond, zone.as_ref().and_then(|_| utc()))
            }
            [_, DataType::Timestamp(_, zone)] => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().and_then(|_| utc()))
            }
            // A date, or a text, is an instant here, as PostgreSQL has it.
            [_, given] if given.is_temporal() || given.is_null() || argument::is_string(given) => {
                DataType::Timestamp(TimeUnit::Microsecond, utc())
            }
            _ => {
                let message = "`AT TIME ZONE` takes a timestamp and the name of a zone";
                return Err(Error::invalid_input(message).with_sqlstate("42883").into());
            }
        };
        Ok(vec![DataType::Utf8, time])
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [_, DataType::Timestamp(unit, None)] => Ok(DataType::Timestamp(*unit, utc())),
            [_, DataType::Timestamp(unit, Some(_))] => Ok(DataType::Timestamp(*unit, None)),
            _ => Ok(DataType::Timestamp(TimeUnit::Microsecond, None)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let returns = args.return_type().clone();
        let Some(name) = argument::constant(NAME, &args.args, 0)? else { return argument::null(&returns) };
        let zone = TimeZone::from_str(name)?;
        let convert = |times: &ArrayRef| -> Result<ArrayRef> {
            let DataType::Timestamp(unit, given) = times.data_type().clone() else {
                return Ok(arrow::array::new_null_array(&returns, times.len()));
            };
            let ticks = if unit == TimeUnit::Millisecond { 1 } else { 1_000 };
            let moved = |value: i64| {
                let millis = value.div_euclid(ticks);
                let offset = match given.is_some() {
                    true => zone.offset_millis(Timestamp::from_millis(millis)),
                    false => -offset_of_local(zone, millis),
                };
                value.saturating_add(offset * ticks)
            };
            let numbers = cast(times, &DataType::Int64)?;
            let moved: PrimitiveArray<Int64Type> = numbers.as_primitive::<Int64Type>().unary(moved);
            Ok(cast(&moved, &returns)?)
        };
        match &args.args[1] {
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(convert(times)?)),
            ColumnarValue::Scalar(time) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&convert(&time.to_array()?)?, 0)?))
            }
        }
    }
}

/// How far what a clock shows is ahead of UTC. Where it shows it twice, the later one counts; where it skips it, the clock
/// goes on as it was before. So PostgreSQL has it.
fn offset_of_local(zone: TimeZone, local: i64) -> i64 {
    let at = |millis: i64| zone.offset_millis(Timestamp::from_millis(millis));
    let (before, after) = (at(local - DAY_MS), at(local + DAY_MS));
    if before == after {
        return before;
    }
    let fits = |offset: i64| at(local - offset) == offset;
    match (fits(before), fits(after)) {
        (true, true) => before.min(after),
        (false, true) => after,
        _ => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_put_forward_or_back_are_read_as_in_postgresql() {
        let zone = TimeZone::from_str("America/New_York").unwrap();
        let hours = |text: &str| {
            let local: Timestamp = text.parse().unwrap();
            offset_of_local(zone, local.millis()) / 3_600_000
        };
        assert_eq!(hours("2013-08-01T12:00:00Z"), -4);
        assert_eq!(hours("2013-11-03T01:30:00Z"), -5);
        assert_eq!(hours("2013-03-10T02:30:00Z"), -5);
        assert_eq!(hours("2013-03-10T03:00:00Z"), -4);
    }
}
