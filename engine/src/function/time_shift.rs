//! `TIME_SHIFT(timestamp, period, steps [, time zone])`: an instant moved by a period so many times, by the calendar.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{AsArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};
use crate::error::Error;
use crate::model::{Period, TimeZone, Timestamp};

const NAME: &str = "time_shift";

pub(super) fn time_shift() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimeShift { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeShift {
    signature: Signature,
}

impl ScalarUDFImpl for TimeShift {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 3, &[TIME, DataType::Utf8, DataType::Int64, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(period) = argument::constant(NAME, &args.args, 1)? else { return argument::null(&TIME) };
        let period = Period::from_str(period)?;
        let zone = argument::zone(NAME, &args.args, 3)?;
        if let ColumnarValue::Scalar(ScalarValue::Int64(steps)) = &args.args[2] {
            let Some(steps) = *steps else { return argument::null(&TIME) };
            return argument::map_time(&args, |instant| shift(instant, period, steps, zone));
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let times = arrays[0].as_primitive::<TimestampMillisecondType>();
        let steps = arrays[2].as_primitive::<Int64Type>();
        let shifted = times.iter().zip(steps).map(|(millis, steps)| match (millis, steps) {
            (Some(millis), Some(steps)) => {
                shift(Timestamp::from_millis(millis), period, steps, zone).map(|instant| Some(instant.millis()))
            }
            _ => Ok(None),
        });
        Ok(ColumnarValue::Array(Arc::new(shifted.collect::<Result<TimestampMillisecondArray>>()?)))
    }
}

fn shift(instant: Timestamp, period: Period, steps: i64, zone: TimeZone) -> Result<Timestamp> {
    period.add_to(instant, steps, zone).ok_or_else(|| {
        Error::invalid_input(format!("timestamp out of range: {instant} moved {steps} times"))
            .with_sqlstate("22008")
            .into()
    })
}
