//! Where rows come from.
//!
//! An input is opened by the first thread that has nothing else to do and read in chunks of whole rows; other threads
//! help with its chunks when there are no inputs left. Reading and decompressing happen under the input's lock, parsing
//! does not.

pub mod batches;
mod compression;
mod lines;
mod list;
mod object;
mod parquet;
mod share;
pub mod wikipedia;

pub(super) use lines::LineOptions;
pub(super) use list::list;
pub(super) use share::Inputs;

use std::fmt::Debug;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::spec::InputFormat;
use crate::error::Result;

/// Something to be read from its beginning to its end.
pub(super) struct Input {
    /// As people know it: a path or a URL.
    pub(super) name: Arc<str>,
    pub(super) format: InputFormat,
    /// As stored, compressed or not; `None` where that is not known before.
    pub(super) size_bytes: Option<u64>,
    pub(super) content: Content,
}

/// How an input's bytes or rows are got.
pub(super) enum Content {
    File(PathBuf),
    /// Opened when its turn comes.
    Open(Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>),
    Batches(Box<dyn Iterator<Item = Result<RecordBatch>> + Send>),
}

impl Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("name", &self.name).field("format", &self.format).finish_non_exhaustive()
    }
}

/// Some rows of an input.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Number of the input, in the order they are listed.
    pub(super) input: usize,
    pub(super) name: Arc<str>,
    /// Of the first row, from 1.
    pub(super) line: u64,
    pub(super) rows: Rows,
}

#[derive(Debug)]
pub(super) enum Rows {
    Lines {
        bytes: Vec<u8>,
        format: Arc<super::format::LineFormat>,
    },
    /// A row that is longer than a row may be: how it begins.
    TooLong(String),
    Batch(RecordBatch),
}
