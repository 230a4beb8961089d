//! From the bytes of a line to a row's slots.

mod delimited;
mod flatten;
mod json;

pub(super) use flatten::Flatten;

use delimited::{Delimited, Quotes};

use super::row::Row;
use super::spec::{DelimitedOptions, InputFormat};
use crate::error::{Error, Result};

/// A format of lines, made ready.
#[derive(Debug)]
pub(super) enum LineFormat {
    Json(Option<Flatten>),
    Delimited { format: Delimited, options: DelimitedOptions, columns: Vec<String> },
}

/// What is wrong with a line, and from which byte on.
#[derive(Debug)]
pub(super) struct Unparseable {
    pub(super) position: usize,
    pub(super) message: String,
}

impl LineFormat {
    /// Fails with what a format of lines cannot be.
    pub(super) fn new(format: &InputFormat) -> Result<Self> {
        match format {
            InputFormat::Json { flatten_spec, .. } => {
                Ok(Self::Json(flatten_spec.as_ref().map(Flatten::new).transpose()?))
            }
            InputFormat::Csv { options } => Ok(Self::delimited(',', Quotes::Rfc4180, options)),
            InputFormat::Tsv { delimiter, options } => {
                let mut characters = delimiter.as_deref().unwrap_or("\t").chars();
                match (characters.next(), characters.next()) {
                    (Some(delimiter), None) => Ok(Self::delimited(delimiter, Quotes::None, options)),
                    _ => Err(Error::invalid_input("the `delimiter` of TSV must be one character")),
                }
            }
            InputFormat::Parquet { .. } => Err(Error::defensive("Parquet has no lines")),
        }
    }

    fn delimited(delimiter: char, quotes: Quotes, options: &DelimitedOptions) -> Self {
        let format = Delimited::new(delimiter, quotes, options.list_delimiter.clone());
        Self::Delimited { format, options: options.clone(), columns: options.columns.clone().unwrap_or_default() }
    }

    /// The format with the columns of a file's header.
    pub(super) fn with_header(format: &InputFormat, header: &str) -> Result<Self> {
        let mut made = Self::new(format)?;
        if let Self::Delimited { format, columns, .. } = &mut made {
            let header = header.trim_end_matches(['\n', '\r']);
            let names = format.header(header);
            *columns = names.map_err(|(_, message)| Error::invalid_input(format!("the header has {message}")))?;
            let mut seen = std::collections::HashSet::new();
            if let Some(twice) = columns.iter().find(|name| !seen.insert(name.as_str())) {
                return Err(Error::invalid_input(format!("the header has `{twice}` twice")));
            }
        }
        Ok(made)
    }

    pub(super) fn skip_rows(&self) -> u64 {
        match self {
            Self::Json(_) => 0,
            Self::Delimited { options, .. } => options.skip_header_rows,
        }
    }

    pub(super) fn has_header(&self) -> bool {
        match self {
            Self::Json(_) => false,
            Self::Delimited { options, .. } => options.has_header(),
        }
    }

    /// The fields of the columns, for [`LineFormat::read`].
    pub(super) fn fields(&self, row: &mut Row) -> Vec<usize> {
        match self {
            Self::Json(_) => Vec::new(),
            Self::Delimited { columns, .. } => columns.iter().map(|name| row.fields.number(name)).collect(),
        }
    }

    /// Reads a row, without its line end, into `row`.
    pub(super) fn read(&self, line: &str, fields: &[usize], row: &mut Row) -> Result<(), Unparseable> {
        row.clear();
        match self {
            Self::Json(flatten) => {
                row.untyped_text = false;
                json::read(line, row)
                    .map_err(|fault| Unparseable { position: fault.position, message: fault.message.to_owned() })?;
                if let Some(flatten) = flatten {
                    flatten.apply(line, row);
                }
                Ok(())
            }
            Self::Delimited { format, .. } => {
                format.read(line, fields, row).map_err(|(position, message)| Unparseable { position, message })
            }
        }
    }

    pub(super) fn row_end(&self) -> RowEnd {
        match self {
            Self::Delimited { format, .. } => format.row_end(),
            Self::Json(_) => RowEnd::Line,
        }
    }
}

#[cfg(test)]
pub(super) fn read_json(line: &str, row: &mut Row) -> Result<(), String> {
    json::read(line, row).map_err(|fault| fault.message.to_owned())
}

/// Where rows end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowEnd {
    /// At every line end.
    Line,
    /// At line ends outside of quotes; a quote opens only at the start of a value.
    Quoted { delimiter: u8 },
}

impl RowEnd {
    pub(super) fn of(format: &InputFormat) -> Self {
        match format {
            InputFormat::Csv { .. } => Self::Quoted { delimiter: b',' },
            _ => Self::Line,
        }
    }

    /// Where the first row of `bytes` ends, behind its line end; `None` when it goes on.
    pub(super) fn first(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Line => line_end(bytes),
            Self::Quoted { delimiter } => quoted_row_end(bytes, delimiter),
        }
    }

    /// Where the last whole row of `bytes` ends.
    pub(super) fn last(self, bytes: &[u8]) -> Option<usize> {
        if self == Self::Line {
            return bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        }
        let mut end = 0;
        while let Some(length) = self.first(&bytes[end..]) {
            end += length;
        }
        (end > 0).then_some(end)
    }
}

/// Eight bytes at a time.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'\n'));
        let found = word.wrapping_sub(ONES) & !word & HIGH;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8 + 1);
        }
    }
    let rest = words.len() * 8;
    bytes[rest..].iter().position(|byte| *byte == b'\n').map(|at| rest + at + 1)
}

fn quoted_row_end(bytes: &[u8], delimiter: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        if bytes.get(at) == Some(&b'"') {
            // To the closing quote; a doubled one closes and opens again.
            at += 1;
            loop {
                at += bytes.get(at..)?.iter().position(|byte| *byte == b'"')? + 1;
                if bytes.get(at) != Some(&b'"') {
                    break;
                }
                at += 1;
            }
        }
        at += bytes.get(at..)?.iter().position(|byte| *byte == delimiter || *byte == b'\n')? + 1;
        if bytes[at - 1] == b'\n' {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_at_line_ends_outside_of_quotes() {
        let csv = RowEnd::Quoted { delimiter: b',' };
        assert_eq!(csv.first(b"a,\"b\n\"\"c\"\nd"), Some(10));
        assert_eq!(csv.first(b"a,5\" pipe\nd"), Some(10));
        assert_eq!(csv.first(b"a,\"b\nc"), None);
        assert_eq!(csv.last(b"a\nb\n\"c\n"), Some(4));
        assert_eq!(RowEnd::Line.first(b"0123456789\n\n"), Some(11));
        assert_eq!(RowEnd::Line.last(b"a\nb"), Some(2));
        assert_eq!(RowEnd::Line.first(b"\x0b\n"), Some(2));
    }
}
