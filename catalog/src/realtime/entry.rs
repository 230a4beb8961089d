//! What stands in the log: one request a row of it.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use henge_engine::ingest::InputFormat;
use henge_engine::model::Timestamp;
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// By what a request is known if it comes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PushKey {
    Idempotency(String),
    /// Requests of one producer come one after another, each with a greater sequence number.
    Producer {
        producer: String,
        sequence: u64,
    },
}

/// What becomes of a request that has bad rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnError {
    /// None of its rows is taken.
    #[default]
    Fail,
    /// All others are taken.
    Skip,
}

/// All of a request but its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) received: Timestamp,
    pub(super) key: Option<PushKey>,
    pub(super) on_error: OnError,
    /// `None` is a stream of Arrow.
    pub(super) format: Option<InputFormat>,
    pub(super) max_row_bytes: usize,
}

/// The bytes of an entry: the length of the head, the head as JSON, and the rows as they came.
pub(super) fn encode(head: &Head, rows: &[u8]) -> Result<Vec<u8>> {
    let head = serde_json::to_vec(head).map_err(|error| Error::defensive("a request is no JSON").with_source(error))?;
    let length = u32::try_from(head.len()).map_err(|_| Error::invalid_input("the key of the request is too long"))?;
    let mut bytes = Vec::with_capacity(4 + head.len() + rows.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(rows);
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Result<(Head, &[u8])> {
    let damaged = || Error::corrupt("an entry of a write-ahead log is not what this version writes");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (head, rows) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
    let head = serde_json::from_slice(head).map_err(|error| damaged().with_source(error))?;
    Ok((head, rows))
}

/// Batches as a stream of Arrow.
pub fn to_arrow(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let failed = |error| Error::defensive("rows cannot be written as Arrow").with_source(error);
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let mut writer = StreamWriter::try_new(Vec::new(), &first.schema()).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

/// Reads them back.
pub fn from_arrow(bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let failed = |error| Error::corrupt("rows that were written as Arrow cannot be read").with_source(error);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let reader = StreamReader::try_new(std::io::Cursor::new(bytes), None).map_err(failed)?;
    reader.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)
}
