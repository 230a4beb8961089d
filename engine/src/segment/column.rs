//! The columns of a file: each opened from its directory, its pages read when first asked for.

pub(super) mod number;
pub(super) mod string;

use std::sync::Arc;

use super::encoding::Encoding;
use super::footer::ColumnEntry;
use super::holes::WHOLE_COLUMN_BYTES;
use super::page::{FileBytes, Pages, checksum};
use super::wire::Reader;
use crate::error::{Error, Result};

/// Where a column is, and what it must fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnSource<'a> {
    pub(super) file: &'a Arc<FileBytes>,
    pub(super) entry: &'a ColumnEntry,
    /// Offset of the column in the file.
    pub(super) start: usize,
    pub(super) num_rows: usize,
}

impl<'a> ColumnSource<'a> {
    /// The directory, checked against the checksum in the footer.
    fn directory(&self) -> Result<Reader<'a>> {
        let end = self.start + self.entry.sections.total() as usize;
        let start = end - self.entry.sections.directory as usize;
        let check = |directory: &[u8]| match checksum(directory) == self.entry.directory_checksum {
            true => Ok(()),
            false => Err(Error::corrupt("the directory of the column is damaged: its checksum differs")),
        };
        // What comes with the directory is checked when it is read.
        let from = if end - self.start <= WHOLE_COLUMN_BYTES { self.start } else { start };
        self.file.need(from..end, &|bytes| check(&bytes[start - from..]))?;
        let directory = &self.file.bytes()[start..end];
        check(directory)?;
        Ok(Reader::new(directory, "the directory of the column"))
    }

    /// Fails unless the pages end where the directory starts.
    fn check_end(&self, end: usize) -> Result<()> {
        let total = self.entry.sections.total() - self.entry.sections.directory;
        if end == self.start + total as usize {
            Ok(())
        } else {
            Err(Error::corrupt("the pages of the column do not account for its bytes"))
        }
    }

    fn name(&self) -> Arc<str> {
        self.entry.schema.name.as_str().into()
    }
}

/// How many blocks have which encoding, most frequent first. Reads a byte of each block.
fn count_encodings(pages: &Pages, encoding_of: impl Fn(&[u8]) -> Option<u8>) -> Result<Vec<(Encoding, usize)>> {
    let mut counts = Vec::<(Encoding, usize)>::new();
    for block in 0..pages.len() {
        let encoding = encoding_of(pages.get(block)?).and_then(Encoding::from_byte);
        let Some(encoding) = encoding else {
            return Err(pages.locate(block, Error::corrupt("a block has an unknown encoding")));
        };
        match counts.iter_mut().find(|(known, _)| *known == encoding) {
            Some((_, count)) => *count += 1,
            None => counts.push((encoding, 1)),
        }
    }
    counts.sort_by_key(|(encoding, count)| (std::cmp::Reverse(*count), *encoding));
    Ok(counts)
}

#[derive(Debug)]
pub(super) enum OpenColumn {
    String(Arc<string::FileStringColumn>),
    MultiString(Arc<string::FileMultiStringColumn>),
    Long(Arc<number::FileNumericColumn<i64>>),
    Float(Arc<number::FileNumericColumn<f32>>),
    Double(Arc<number::FileNumericColumn<f64>>),
}

impl OpenColumn {
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::String(column) => column.strings().memory_bytes(),
            Self::MultiString(column) => column.strings().memory_bytes(),
            Self::Long(column) => column.memory_bytes(),
            Self::Float(column) => column.memory_bytes(),
            Self::Double(column) => column.memory_bytes(),
        }
    }

    /// Whether somebody has it beside the file.
    pub(super) fn is_held(&self) -> bool {
        let holders = match self {
            Self::String(column) => Arc::strong_count(column),
            Self::MultiString(column) => Arc::strong_count(column),
            Self::Long(column) => Arc::strong_count(column),
            Self::Float(column) => Arc::strong_count(column),
            Self::Double(column) => Arc::strong_count(column),
        };
        holders > 1
    }

    /// Reads everything, and checks it against what else says the same.
    pub(super) fn verify(&self) -> Result<()> {
        match self {
            Self::String(column) => column.verify(),
            Self::MultiString(column) => column.verify(),
            Self::Long(column) => column.verify(),
            Self::Float(column) => column.verify(),
            Self::Double(column) => column.verify(),
        }
    }

    pub(super) fn encodings(&self) -> Result<Vec<(Encoding, usize)>> {
        match self {
            Self::String(column) => column.strings().encodings(),
            Self::MultiString(column) => column.strings().encodings(),
            Self::Long(column) => column.encodings(),
            Self::Float(column) => column.encodings(),
            Self::Double(column) => column.encodings(),
        }
    }
}
