//! Whether a value is sent as text or in binary.

use henge_engine::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Format {
    fn from_code(code: i16) -> Result<Format> {
        match code {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            _ => Err(Error::invalid_input(format!("format code {code} is neither text (0) nor binary (1)"))),
        }
    }
}

/// Gives each of `count` values its format, from the list of a Bind: none (all text), one for all, or one each.
pub(crate) fn formats(codes: &[i16], count: usize) -> Result<Vec<Format>> {
    match codes {
        [] => Ok(vec![Format::Text; count]),
        [one] => Ok(vec![Format::from_code(*one)?; count]),
        codes if codes.len() == count => codes.iter().map(|code| Format::from_code(*code)).collect(),
        codes => Err(Error::invalid_input(format!("{} format codes for {count} values", codes.len()))),
    }
}
