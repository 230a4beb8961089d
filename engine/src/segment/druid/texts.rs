//! Columns that have no dictionary of texts of their own, as one that is made when the column is opened: documents,
//! complex metrics, values of several types.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::StringViewBuilder;

use super::MemoryUse;
use crate::error::{Error, Result};
use crate::segment::Column;
use crate::segment::memory::{self, MemoryColumn};

/// What such a column may take.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// Collects one text a row.
#[derive(Debug, Default)]
pub(super) struct TextBuilder {
    codes: Vec<u32>,
    /// By value; codes in the order of their first row.
    known: HashMap<Option<Box<str>>, u32>,
    text_bytes: usize,
}

impl TextBuilder {
    pub(super) fn push(&mut self, text: Option<&str>) -> Result<()> {
        let code = self.code_of(text)?;
        self.codes.push(code);
        Ok(())
    }

    /// The code of a value, new if it was not there. A row has it only when it is pushed.
    pub(super) fn code_of(&mut self, text: Option<&str>) -> Result<u32> {
        let text = text.map(Box::<str>::from);
        if let Some(code) = self.known.get(&text) {
            return Ok(*code);
        }
        self.text_bytes += text.as_ref().map_or(0, |text| text.len());
        if self.text_bytes > MAX_TEXT_BYTES {
            return Err(Error::capacity_exceeded(
                "the column is made into text as a whole, and has more than 1 GiB; convert the segment without it",
            ));
        }
        let code = self.known.len() as u32;
        self.known.insert(text, code);
        Ok(code)
    }

    pub(super) fn push_code(&mut self, code: u32) {
        self.codes.push(code);
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    pub(super) fn describe(&self) -> String {
        format!("{} values made into text", self.known.len())
    }

    /// The column, its dictionary sorted.
    pub(super) fn finish(self) -> (Column, Kept) {
        let mut entries = self.known.into_iter().collect::<Vec<_>>();
        entries.sort_unstable();
        let has_null = entries.first().is_some_and(|(text, _)| text.is_none());
        let mut sorted = vec![0; entries.len()];
        let mut values = StringViewBuilder::with_capacity(entries.len());
        for ((text, code), position) in entries.into_iter().zip(0..) {
            sorted[code as usize] = position;
            values.append_option(text);
        }
        let codes = self.codes.into_iter().map(|code| sorted[code as usize]).collect();
        let values = Arc::new(values.finish());
        let (column, bytes) = memory::open_column(MemoryColumn::String { values, has_null, sorted: true, codes });
        (column, Kept(bytes))
    }
}

/// Memory that does not change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept(pub(super) usize);

impl MemoryUse for Kept {
    fn memory_bytes(&self) -> usize {
        self.0
    }
}
