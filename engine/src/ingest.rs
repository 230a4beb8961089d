//! Rows in, finished segments out.
//!
//! Owns input sources and formats, the trait behind which streams are, transforms, rollup, and the way from rows to
//! segment files. Never publishes, and
//! knows no catalog: [`run`] leaves files in a work directory and says what they are.
//!
//! Invariants: every row read is counted, as taken or under a reason; memory stays within the limit however large the
//! input is, by writing sorted runs out and merging them; what is in the segments does not depend on the number of
//! threads, nor on how often memory was written out.

mod buffer;
mod compact;
mod format;
pub mod live;
mod merge;
mod plan;
mod report;
mod row;
mod run;
pub mod source;
mod spec;
pub mod stream;
#[cfg(test)]
mod tests;
mod timestamp;
mod transform;
mod worker;

use std::fmt::{self, Debug};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::RecordBatch;
use parking_lot::Mutex;

pub use compact::{Compaction, compact};
pub use report::{BadRow, IngestReport, Reason, RowStats};
pub use spec::{
    DelimitedOptions, FlattenField, FlattenSpec, IngestionSpec, InputFormat, InputSource, IoConfig, PartitionsSpec,
    SimpleIngestion, TuningConfig,
};
pub use worker::Window;

use crate::error::{Error, Result};
use crate::model::Interval;
use crate::segment::SegmentSummary;
use plan::Plan;
use report::BadRows;
use source::{Content, Input, Inputs, LineOptions};

/// Is told how far an ingestion is. Called from several threads, about once a megabyte.
pub trait Progress: Debug + Send + Sync {
    /// Reading begins; `total_bytes` as stored, where it is known.
    fn reading(&self, _total_bytes: Option<u64>) {}

    /// So many more rows were read, and so many more bytes as stored.
    fn advanced(&self, _rows: u64, _bytes: u64) {}

    /// All rows are read, and so many granules are to be written.
    fn writing(&self, _granules: usize) {}

    /// A segment of so many rows was written.
    fn wrote(&self, _rows: u64) {}
}

/// Nobody looks.
#[derive(Debug)]
pub struct NoProgress;

impl Progress for NoProgress {}

/// Ends an ingestion from outside. Clones cancel the same one.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Fails once it was canceled.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::canceled("the ingestion was canceled")),
            false => Ok(()),
        }
    }
}

/// What object stores need to know, by the names of their environment variables: `AWS_REGION`, `GOOGLE_SERVICE_ACCOUNT`.
/// This crate reads no environment. Shown without the values, of which some are secret.
#[derive(Clone, Default)]
pub struct StoreOptions(Vec<(String, String)>);

impl StoreOptions {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for StoreOptions {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(options: I) -> Self {
        Self(options.into_iter().collect())
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// The means of an ingestion.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// For spilled runs and finished segments; must be there. Whoever gives it cleans it up.
    pub work_dir: PathBuf,
    /// For all threads together.
    pub memory_limit_bytes: usize,
    pub threads: usize,
    pub progress: Arc<dyn Progress>,
    pub cancel: Cancellation,
    /// Where all bad rows are written to, as JSON lines.
    pub bad_rows: Option<PathBuf>,
    pub store_options: StoreOptions,
}

impl IngestOptions {
    /// With 1 GiB of memory and one thread, unless more is said.
    pub fn new(work_dir: impl Into<PathBuf>) -> Self {
        Self {
            work_dir: work_dir.into(),
            memory_limit_bytes: 1 << 30,
            threads: 1,
            progress: Arc::new(NoProgress),
            cancel: Cancellation::default(),
            bad_rows: None,
            store_options: StoreOptions::default(),
        }
    }
}

/// What an ingestion made.
#[derive(Debug)]
pub struct IngestOutcome {
    /// In the order of their intervals and partitions. An interval is a segment granule.
    pub segments: Vec<FinishedSegment>,
    pub report: IngestReport,
}

/// A segment file in the work directory.
#[derive(Debug)]
pub struct FinishedSegment {
    pub interval: Interval,
    /// From 0.
    pub partition: u32,
    /// How many the interval was divided into.
    pub partitions: u32,
    pub path: PathBuf,
    pub summary: SegmentSummary,
}

/// The least memory that an ingestion is run with.
const MIN_MEMORY_BYTES: usize = 16 << 20;

/// Reads what the spec says and writes segments into the work directory. Blocks; uses its own threads.
///
/// Fails without having published anything: with a spec that is wrong, an input that cannot be read, more bad rows than
/// allowed, or when canceled.
pub fn run(spec: &IngestionSpec, options: &IngestOptions) -> Result<IngestOutcome> {
    let format = spec.io_config.input_format.as_ref();
    let notes = spec.check()?;
    let inputs = source::list(&spec.io_config.input_source, format, &options.store_options)?;
    ingest(spec, notes, inputs, options)
}

/// Like [`run`], but the rows are those of Arrow batches; the spec's input source and format are not looked at.
///
/// Columns are fields of the same name; a time column of a timestamp type needs no format.
pub fn run_batches(
    spec: &IngestionSpec,
    batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
    options: &IngestOptions,
) -> Result<IngestOutcome> {
    let input = Input {
        name: "batches".into(),
        format: InputFormat::Parquet { binary_as_string: None },
        size_bytes: None,
        content: Content::Batches(Box::new(batches)),
    };
    ingest(spec, spec.check()?, vec![input], options)
}

/// Like [`run`], but the rows come from a reader, compressed or not; the spec must say in what format.
pub fn run_reader(
    spec: &IngestionSpec,
    name: &str,
    reader: impl std::io::Read + Send + 'static,
    options: &IngestOptions,
) -> Result<IngestOutcome> {
    let format = spec.io_config.input_format.clone();
    let format = format.ok_or_else(|| Error::invalid_input(format!("the format of `{name}` must be said")))?;
    let content = Content::Open(Box::new(|| Ok(Box::new(reader))));
    let input = Input { name: name.into(), format, size_bytes: None, content };
    ingest(spec, spec.check()?, vec![input], options)
}

fn ingest(
    spec: &IngestionSpec,
    notes: Vec<String>,
    inputs: Vec<Input>,
    options: &IngestOptions,
) -> Result<IngestOutcome> {
    let (memory, threads) = (memory_limit(spec, options), options.threads.max(1));
    let limits = Limits {
        lines: line_options(memory, threads),
        // What is left is for sorting a buffer into a run and writing it.
        buffer_bytes: memory / threads / 3,
    };
    ingest_within(spec, notes, inputs, options, limits)
}

/// How memory is divided.
struct Limits {
    lines: LineOptions,
    /// Of each thread.
    buffer_bytes: usize,
}

fn ingest_within(
    spec: &IngestionSpec,
    notes: Vec<String>,
    inputs: Vec<Input>,
    options: &IngestOptions,
    limits: Limits,
) -> Result<IngestOutcome> {
    let started = Instant::now();
    let tuning = &spec.tuning_config;
    let threads = options.threads.max(1);
    let dir = |name: &str| {
        let path = options.work_dir.join(name);
        std::fs::create_dir_all(&path).map(|()| path).map_err(|e| {
            Error::runtime_failure(format!("work directory `{}` cannot be used", options.work_dir.display()))
                .with_source(e)
        })
    };
    let kept = tuning.max_saved_parse_exceptions.unwrap_or(10);
    let bad_rows = options.bad_rows.as_deref();
    let total_bytes = inputs.iter().map(|input| input.size_bytes).sum();
    options.progress.reading(total_bytes);
    let shared = worker::Shared {
        plan: Arc::new(Plan::new(&spec.data_schema)?),
        inputs: Inputs::new(inputs, limits.lines),
        bad_rows: BadRows::new(kept, tuning.max_parse_exceptions(), bad_rows, tuning.log_parse_exceptions)?,
        progress: options.progress.as_ref(),
        cancel: &options.cancel,
        run_dir: dir("runs")?,
        buffer_bytes: limits.buffer_bytes,
        runs: Mutex::default(),
        spills: AtomicU64::default(),
        stats: Mutex::default(),
        window: worker::Window::default(),
        max_row_bytes: limits.lines.max_row_bytes,
    };
    parallel(threads, || shared.work())?;
    let merge = merge::Merge {
        plan: &shared.plan,
        segment_dir: dir("segments")?,
        max_rows: usize::try_from(tuning.max_rows_per_segment()).unwrap_or(usize::MAX),
        threads,
        progress: options.progress.as_ref(),
        cancel: &options.cancel,
    };
    let segments = merge.write(shared.runs.into_inner())?;
    let mut row_stats = shared.stats.into_inner();
    row_stats.processed_bytes = shared.inputs.bytes_read();
    let (reasons, unparseable_events) = shared.bad_rows.finish()?;
    let report = IngestReport {
        data_source: spec.data_schema.data_source.clone(),
        row_stats,
        reasons,
        unparseable_events,
        rows_written: segments.iter().map(|segment| segment.summary.num_rows as u64).sum(),
        segments_written: segments.len() as u64,
        segment_bytes: segments.iter().map(|segment| segment.summary.size_bytes).sum(),
        spills: shared.spills.into_inner(),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        notes,
    };
    report.check_some_taken()?;
    Ok(IngestOutcome { segments, report })
}

fn memory_limit(spec: &IngestionSpec, options: &IngestOptions) -> usize {
    let asked = spec.tuning_config.max_bytes_in_memory.and_then(|bytes| usize::try_from(bytes).ok());
    let asked = asked.filter(|bytes| *bytes > 0).unwrap_or(usize::MAX);
    options.memory_limit_bytes.min(asked).max(MIN_MEMORY_BYTES)
}

/// A thread holds one chunk, and an input begins the next one: together an eighth of memory at most.
fn line_options(memory: usize, threads: usize) -> LineOptions {
    LineOptions {
        chunk_bytes: (memory / threads / 16).clamp(64 << 10, 1 << 20),
        max_row_bytes: (memory / threads / 16).clamp(64 << 10, 64 << 20),
    }
}

/// Runs `work` on so many threads, until all are done; the first error wins.
fn parallel(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    if threads == 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let handles = (0..threads).map(|_| scope.spawn(&work)).collect::<Vec<_>>();
        let results = handles.into_iter().map(|handle| match handle.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are joined before the first error goes up.
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Writes a file through a buffer; fails soon after a cancellation. It is not synced: who publishes it does that.
fn write_file<T>(path: &Path, cancel: &Cancellation, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    let failed = |e| Error::runtime_failure(format!("`{}` cannot be written", path.display())).with_source(e);
    let file = File::create(path).map_err(failed)?;
    let mut out = Cancelable { out: BufWriter::with_capacity(256 << 10, file), cancel };
    let result = write(&mut out);
    // What the writer says of a canceled write is less clear than this.
    cancel.check()?;
    let result = result?;
    out.flush().map_err(failed)?;
    Ok(result)
}

struct Cancelable<'a> {
    out: BufWriter<File>,
    cancel: &'a Cancellation,
}

impl Write for Cancelable<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.cancel.check().map_err(std::io::Error::other)?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
