//! `make_timestamp(year, month, day, hour, minute, second)`.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::NaiveDate;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;

use super::argument;
use super::by_row::{by_row, double, long};
use crate::error::Error;

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(super) fn make_timestamp() -> ScalarUDF {
    let coerce = |name: &str, given: &[DataType]| {
        let mut wanted = vec![DataType::Int64; 5];
        wanted.push(DataType::Float64);
        argument::coerce(name, given, 6, &wanted)
    };
    by_row("make_timestamp", coerce, MICROS, || Box::new(made))
}

fn made(values: &[ScalarValue]) -> Result<ScalarValue> {
    let part = |at: usize| u32::try_from(long(&values[at])).ok();
    let micros = (double(&values[5]) * 1e6).round();
    let built = || {
        let year = i32::try_from(long(&values[0])).ok()?;
        let date = NaiveDate::from_ymd_opt(year, part(1)?, part(2)?)?;
        let minute = date.and_hms_opt(part(3)?, part(4)?, 0)?;
        (0.0..=60e6).contains(&micros).then(|| minute.and_utc().timestamp_micros() + micros as i64)
    };
    let micros =
        built().ok_or_else(|| Error::invalid_input("date or time field value out of range").with_sqlstate("22008"))?;
    Ok(ScalarValue::TimestampMicrosecond(Some(micros), None))
}
