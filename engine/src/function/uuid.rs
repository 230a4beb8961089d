//! What stands for a cast to `uuid`: the text of one in PostgreSQL's form, so that equal ones are equal texts.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ScalarUDF;

use super::argument;
use super::by_row::{by_row, text};
use crate::error::{Error, Result};

pub(crate) const UUID: &str = "henge_uuid";

pub(super) fn uuid() -> ScalarUDF {
    let coerce = |name: &str, given: &[DataType]| argument::coerce(name, given, 1, &[DataType::Utf8]);
    by_row(UUID, coerce, DataType::Utf8, || Box::new(|values| Ok(ScalarValue::Utf8(Some(read(text(&values[0]))?)))))
}

/// 32 hexadecimal digits, with a hyphen after any four and braces around all, as PostgreSQL reads them.
fn read(given: &str) -> Result<String> {
    let wrong =
        || Error::invalid_input(format!("invalid input syntax for type uuid: \"{given}\"")).with_sqlstate("22P02");
    let within = match given.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(wrong)?,
        None => given,
    };
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    let mut may_divide = false;
    for char in within.chars() {
        if char == '-' && may_divide {
            may_divide = false;
            continue;
        }
        if !char.is_ascii_hexdigit() || count == 32 {
            return Err(wrong());
        }
        if matches!(count, 8 | 12 | 16 | 20) {
            digits.push('-');
        }
        digits.push(char.to_ascii_lowercase());
        count += 1;
        may_divide = count % 4 == 0 && count < 32;
    }
    if count == 32 { Ok(digits) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_postgresql_reads_is_one() {
        let plain = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for given in [
            plain,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(read(given).unwrap(), plain, "{given}");
        }
        for given in ["", "a0eebc99", "{a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0e-ebc999c0b4ef8bb6d6bb9bd380a11", "-"] {
            assert_eq!(read(given).unwrap_err().sqlstate(), Some("22P02"), "{given}");
        }
        assert!(read(&format!("{plain}-")).is_err() && read(&format!("{plain}0")).is_err());
    }
}
