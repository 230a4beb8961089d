use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::RecordBatch;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ingest::buffer::RowBuffer;
use crate::ingest::plan::Plan;
use crate::ingest::report::BadRows;
use crate::ingest::source::{Content, Input, Inputs, LineOptions};
use crate::ingest::worker::{Shared, Window};
use crate::ingest::{BadRow, Cancellation, InputFormat, NoProgress, Reason, RowStats};
use crate::model::{DataSchema, Granularity, Interval, Timestamp};

/// Text is cut into chunks of whole rows of about so many bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Makes rows of what comes, as the spec of a data source says. Used by many threads at once.
#[derive(Debug)]
pub struct RowParser {
    pub(super) plan: Arc<Plan>,
}

/// What rows are taken.
#[derive(Clone, Debug)]
pub struct ParseOptions {
    pub window: Window,
    /// A longer row is a bad one.
    pub max_row_bytes: usize,
    /// How many bad rows are told about.
    pub bad_rows_kept: usize,
}

impl Default for ParseOptions {
    /// All of time, rows up to 1 MiB, and the first 100 bad rows.
    fn default() -> Self {
        Self { window: Window::default(), max_row_bytes: 1 << 20, bad_rows_kept: 100 }
    }
}

/// Rows that were read and not shown yet.
#[derive(Debug)]
pub struct StagedRows {
    pub(super) buffer: RowBuffer,
    pub(super) granules: BTreeMap<Interval, u64>,
    pub stats: RowStats,
    /// Rows (for bad numbers: values) that were not taken, by reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// The first of those that are wrong, in the order of their lines.
    pub bad_rows: Vec<BadRow>,
}

impl StagedRows {
    pub fn num_rows(&self) -> usize {
        self.buffer.num_rows()
    }

    /// How many rows lie in each segment granule.
    pub fn granules(&self) -> &BTreeMap<Interval, u64> {
        &self.granules
    }
}

impl RowParser {
    /// Fails with a schema that cannot be used.
    pub fn new(schema: &DataSchema) -> Result<Self> {
        Ok(Self { plan: Arc::new(Plan::new(schema)?) })
    }

    /// Reads rows of text, called `name` in messages. Whether bad rows are a failure is for the caller to decide.
    pub fn parse(&self, name: &str, format: &InputFormat, text: Bytes, options: &ParseOptions) -> Result<StagedRows> {
        let lines = LineOptions {
            chunk_bytes: CHUNK_BYTES.min(text.len().max(4096)),
            max_row_bytes: options.max_row_bytes.max(1),
        };
        let content = Content::Open(Box::new(move || Ok(Box::new(Cursor::new(text)))));
        self.stage(Input { name: name.into(), format: format.clone(), size_bytes: None, content }, lines, options)
    }

    /// Takes the rows of Arrow batches; columns are fields of the same name.
    pub fn take(&self, name: &str, batches: Vec<RecordBatch>, options: &ParseOptions) -> Result<StagedRows> {
        let lines = LineOptions { chunk_bytes: CHUNK_BYTES, max_row_bytes: options.max_row_bytes };
        let format = InputFormat::Parquet { binary_as_string: None };
        let content = Content::Batches(Box::new(batches.into_iter().map(Ok)));
        self.stage(Input { name: name.into(), format, size_bytes: None, content }, lines, options)
    }

    fn stage(&self, input: Input, lines: LineOptions, options: &ParseOptions) -> Result<StagedRows> {
        let shared = Shared {
            plan: Arc::clone(&self.plan),
            inputs: Inputs::new(vec![input], lines),
            bad_rows: BadRows::new(options.bad_rows_kept, None, None, false)?,
            progress: &NoProgress,
            cancel: &Cancellation::default(),
            run_dir: PathBuf::new(),
            buffer_bytes: usize::MAX,
            runs: Mutex::default(),
            spills: AtomicU64::default(),
            stats: Mutex::default(),
            window: options.window,
            max_row_bytes: options.max_row_bytes,
        };
        let buffer = shared.collect()?;
        let (reasons, bad_rows) = shared.bad_rows.finish()?;
        let granules = count_granules(&self.plan.segment_granularity, buffer.times());
        Ok(StagedRows { buffer, granules, stats: shared.stats.into_inner(), reasons, bad_rows })
    }
}

fn count_granules(granularity: &Granularity, times: &[i64]) -> BTreeMap<Interval, u64> {
    let mut counts = BTreeMap::new();
    let mut current: Option<(Interval, u64)> = None;
    for time in times {
        let time = Timestamp::from_millis(*time);
        match &mut current {
            Some((granule, count)) if granule.contains(time) => *count += 1,
            _ => {
                if let Some((granule, count)) = current.replace((granularity.bucket(time), 1)) {
                    *counts.entry(granule).or_insert(0) += count;
                }
            }
        }
    }
    if let Some((granule, count)) = current {
        *counts.entry(granule).or_insert(0) += count;
    }
    counts
}

/// The elements of a JSON array, one a line, for who reads a value a line. `None` if it is no array at all. Whether the
/// elements are JSON is not looked at.
pub fn split_array(text: &[u8]) -> Option<Result<Vec<u8>>> {
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
    (text[start] == b'[').then(|| lines_of_array(&text[start + 1..]))
}

fn lines_of_array(text: &[u8]) -> Result<Vec<u8>> {
    let mut lines = Vec::with_capacity(text.len());
    let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if in_string => {
                in_string = escaped || *byte != b'"';
                escaped = !escaped && *byte == b'\\';
            }
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b']' if depth == 0 => {
                return match text[at + 1..].trim_ascii().is_empty() {
                    true => Ok(lines),
                    false => Err(Error::invalid_input("there is more text after the JSON array")),
                };
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                lines.push(b'\n');
                continue;
            }
            _ => {}
        }
        // A line end within a string is no JSON, and has to stay a fault.
        lines.push(if *byte == b'\n' && !in_string { b' ' } else { *byte });
    }
    Err(Error::invalid_input("the JSON array has no end"))
}
