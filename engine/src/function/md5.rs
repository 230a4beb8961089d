//! `md5(text)`, in hexadecimal digits.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ScalarUDF;
use md5::{Digest, Md5};

use super::argument;
use super::by_row::{by_row, text};

pub(super) fn md5() -> ScalarUDF {
    let coerce = |name: &str, given: &[DataType]| argument::coerce(name, given, 1, &[DataType::Utf8]);
    by_row("md5", coerce, DataType::Utf8, || {
        Box::new(|values| {
            let digest = Md5::digest(text(&values[0]).as_bytes());
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(ScalarValue::Utf8(Some(hex)))
        })
    })
}
