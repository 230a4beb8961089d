//! `width_bucket(value, low, high, count)`: the bucket of a histogram of equal widths that a value falls into.

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;

use super::argument;
use super::by_row::{by_row, double, long};
use crate::error::Error;

pub(super) fn width_bucket() -> ScalarUDF {
    let coerce = |name: &str, given: &[DataType]| {
        let numbers = [DataType::Float64, DataType::Float64, DataType::Float64, DataType::Int64];
        argument::coerce(name, given, 4, &numbers)
    };
    by_row("width_bucket", coerce, DataType::Int32, || Box::new(bucket))
}

fn bucket(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (value, low, high, count) = (double(&values[0]), double(&values[1]), double(&values[2]), long(&values[3]));
    let wrong = |message: &str| Error::invalid_input(message.to_string()).with_sqlstate("2201G");
    let Some(count) = i32::try_from(count).ok().filter(|count| *count > 0 && *count < i32::MAX) else {
        return Err(wrong("`width_bucket` needs a count of buckets greater than zero").into());
    };
    if low == high || ![value, low, high].into_iter().all(f64::is_finite) {
        return Err(wrong("`width_bucket` needs finite numbers, and bounds that differ").into());
    }
    let (below, beyond) = if low < high { (value < low, value >= high) } else { (value > low, value <= high) };
    let within = || ((value - low) / (high - low) * f64::from(count)) as i32 + 1;
    Ok(ScalarValue::Int32(Some(if below {
        0
    } else if beyond {
        count + 1
    } else {
        within().min(count)
    })))
}
