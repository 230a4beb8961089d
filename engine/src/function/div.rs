//! `div(a, b)`: the whole part of a quotient.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ScalarUDF;

use super::argument;
use super::by_row::{by_row, long};
use crate::error::Error;

pub(super) fn div() -> ScalarUDF {
    let coerce = |name: &str, given: &[DataType]| {
        if given.iter().any(|given| !given.is_integer() && !given.is_null()) {
            let message = "`div` of other than integers is not supported; use `trunc(a / b)`";
            return Err(Error::unsupported(message).with_sqlstate("0A000").into());
        }
        argument::coerce(name, given, 2, &[DataType::Int64, DataType::Int64])
    };
    by_row("div", coerce, DataType::Int64, || {
        Box::new(|values| match (long(&values[0]), long(&values[1])) {
            (_, 0) => Err(Error::invalid_input("division by zero").with_sqlstate("22012").into()),
            (a, b) => match a.checked_div(b) {
                Some(quotient) => Ok(ScalarValue::Int64(Some(quotient))),
                None => Err(Error::invalid_input("bigint out of range").with_sqlstate("22003").into()),
            },
        })
    })
}
