//! `TIME_EXTRACT(timestamp [, unit [, time zone]])`: one field of the calendar, counted as Druid does.

use arrow::datatypes::DataType;
use chrono::{Datelike, NaiveDateTime, Timelike};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};
use crate::error::Error;

const NAME: &str = "time_extract";

pub(super) fn time_extract() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimeExtract { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeExtract {
    signature: Signature,
}

impl ScalarUDFImpl for TimeExtract {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 1, &[TIME, DataType::Utf8, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let unit = argument::constant(NAME, &args.args, 1)?.unwrap_or("EPOCH").to_uppercase();
        let zone = argument::zone(NAME, &args.args, 2)?;
        if unit == "EPOCH" {
            return argument::map_long(&args, |instant| Ok(instant.millis().div_euclid(1000)));
        }
        let field = field(&unit)?;
        argument::map_long(&args, |instant| Ok(field(argument::local(instant, zone)?)))
    }
}

type Field = fn(NaiveDateTime) -> i64;

fn field(unit: &str) -> Result<Field> {
    Ok(match unit {
        "MILLISECOND" => |local| i64::from(local.and_utc().timestamp_subsec_millis()),
        "SECOND" => |local| i64::from(local.second()),
        "MINUTE" => |local| i64::from(local.minute()),
        "HOUR" => |local| i64::from(local.hour()),
        "DAY" => |local| i64::from(local.day()),
        "DOW" | "ISODOW" => |local| i64::from(local.weekday().number_from_monday()),
        "DOY" => |local| i64::from(local.ordinal()),
        "WEEK" => |local| i64::from(local.iso_week().week()),
        "MONTH" => |local| i64::from(local.month()),
        "QUARTER" => |local| i64::from(local.month0() / 3 + 1),
        "YEAR" => |local| i64::from(local.year()),
        "ISOYEAR" => |local| i64::from(local.iso_week().year()),
        "DECADE" => |local| i64::from(local.year().div_euclid(10)),
        other => {
            let message = format!(
                "`TIME_EXTRACT` knows no unit `{other}`; it knows EPOCH, MILLISECOND, SECOND, MINUTE, HOUR, DAY, DOW, \
                 ISODOW, DOY, WEEK, MONTH, QUARTER, YEAR, ISOYEAR and DECADE"
            );
            return Err(Error::invalid_input(message).with_sqlstate("22023").into());
        }
    })
}
