//! `henge ingest`.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use henge_catalog::database::{IngestRun, Opening};
use henge_engine::ingest::{Cancellation, IngestReport, IngestionSpec, Progress, SimpleIngestion};
use henge_engine::model::Granularity;
use henge_engine::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::remote::Login;
use super::{Interruption, Runtimes, open, remote, say};
use crate::config::{Config, Options};

/// Bad rows shown in the summary.
const SHOWN_BAD_ROWS: usize = 5;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  henge ingest edits.json.gz --data-source wikipedia --time-column time
  henge ingest 2024/*.csv --data-source sales --time-column day --metrics count --metrics doubleSum:price \\
      --dimensions shop --dimensions article --rollup --query-granularity hour
  henge ingest --spec wikipedia-index.json")]
pub(super) struct Ingest {
    /// Files, directories, patterns or URLs (s3://, gs://, az://, https://) of JSON, CSV, TSV or Parquet, plain or compressed
    #[arg(required_unless_present = "spec", conflicts_with = "spec")]
    files: Vec<String>,
    /// Table to load into; what was there for the same days is replaced
    #[arg(long, value_name = "NAME", required_unless_present = "spec", conflicts_with = "spec")]
    data_source: Option<String>,
    /// Column with the time of each row
    #[arg(long, value_name = "COLUMN", required_unless_present = "spec", conflicts_with = "spec")]
    time_column: Option<String>,
    /// How the time is written: auto, iso, posix, millis, micro, nano or a pattern such as yyyy-MM-dd
    #[arg(long, value_name = "FORMAT", conflicts_with = "spec")]
    time_format: Option<String>,
    /// json, csv, tsv or parquet; told from the file names unless given
    #[arg(long, conflicts_with = "spec")]
    format: Option<String>,
    /// Column to keep as a dimension, NAME or NAME:TYPE; may be repeated. All columns unless given
    #[arg(long, value_name = "NAME[:TYPE]", value_delimiter = ',', conflicts_with = "spec")]
    dimensions: Vec<String>,
    /// Metric to compute: count, or TYPE:FIELD such as longSum:added; NAME= before either names it; may be repeated
    #[arg(long, value_name = "[NAME=]TYPE[:FIELD]", value_delimiter = ',', conflicts_with = "spec")]
    metrics: Vec<String>,
    /// Span of one segment [default: day]
    #[arg(long, value_name = "GRANULARITY", conflicts_with = "spec")]
    segment_granularity: Option<String>,
    /// What times are rounded down to [default: none]
    #[arg(long, value_name = "GRANULARITY", conflicts_with = "spec")]
    query_granularity: Option<String>,
    /// Combine rows with the same time and dimensions
    #[arg(long, conflicts_with = "spec")]
    rollup: bool,
    /// Add to what is there instead of replacing it
    #[arg(long, conflicts_with = "spec")]
    append: bool,
    /// Rows in one segment at most
    #[arg(long, value_name = "N", conflicts_with = "spec")]
    max_rows_per_segment: Option<u64>,
    /// Fail after so many bad rows; they are counted and passed over unless given
    #[arg(long, value_name = "N", conflicts_with = "spec")]
    max_parse_exceptions: Option<u64>,
    /// Ingestion spec in Druid's JSON, instead of files and flags
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Keep the rows that could not be read in this file
    #[arg(long, value_name = "FILE")]
    bad_rows: Option<PathBuf>,
    /// Have a cluster ingest: any of its brokers or coordinators, by its HTTP port. Files are read by the coordinator
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "bad_rows")]
    server: Option<String>,
    /// Name to log in with at the server
    #[arg(long, value_name = "NAME", requires = "server")]
    user: Option<String>,
    #[arg(long, env = "HENGE_PASSWORD", hide = true, hide_env_values = true)]
    password: Option<String>,
    #[command(flatten)]
    options: Options,
}

impl Ingest {
    pub(super) fn run(self) -> Result<()> {
        let spec = self.ingestion_spec()?;
        let bad_rows = self.bad_rows.clone();
        if let Some(server) = &self.server {
            let login = Login::of(self.user.clone(), self.password.clone());
            let runtimes = Runtimes::new(1)?;
            let work = async { remote::ingest(&remote::leader(server, &login).await?, &login, &absolute(spec)?).await };
            let report = runtimes.wire.block_on(work);
            runtimes.end();
            return say(&summary(&report?));
        }
        let config = self.options.resolve()?;
        let runtimes = Runtimes::new(config.threads.get())?;
        let report = runtimes.wire.block_on(ingest(&config, spec, bad_rows));
        runtimes.end();
        say(&summary(&report?))
    }

    fn ingestion_spec(&self) -> Result<IngestionSpec> {
        if let Some(path) = &self.spec {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Error::invalid_input(format!("spec `{}` cannot be read", path.display())).with_source(error)
            })?;
            return from_task(&text);
        }
        let granularity = |text: &Option<String>| text.as_deref().map(granularity).transpose();
        IngestionSpec::simple(&SimpleIngestion {
            files: self.files.clone(),
            data_source: self.data_source.clone().unwrap_or_default(),
            time_column: self.time_column.clone().unwrap_or_default(),
            time_format: self.time_format.clone(),
            format: self.format.clone(),
            dimensions: self.dimensions.clone(),
            metrics: self.metrics.clone(),
            segment_granularity: granularity(&self.segment_granularity)?,
            query_granularity: granularity(&self.query_granularity)?,
            rollup: self.rollup,
            append: self.append,
            max_rows_per_segment: self.max_rows_per_segment,
            max_parse_exceptions: self.max_parse_exceptions,
        })
    }
}

/// A spec alone, or within a task as Druid takes it.
fn from_task(text: &str) -> Result<IngestionSpec> {
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Error::invalid_input("the spec is not JSON").with_source(error))?;
    match json.get("spec") {
        Some(spec) => IngestionSpec::from_json(&spec.to_string()),
        None => IngestionSpec::from_json(text),
    }
}

fn granularity(text: &str) -> Result<Granularity> {
    serde_json::from_value(text.into())
        .map_err(|error| Error::invalid_input(format!("`{text}` is no granularity: {error}")))
}

async fn ingest(config: &Config, spec: IngestionSpec, bad_rows: Option<PathBuf>) -> Result<IngestReport> {
    let mut interruption = Interruption::listen()?;
    let database = match open(config).await? {
        Opening::Opened(database) => database,
        Opening::Held(_) if bad_rows.is_some() => {
            return Err(Error::unsupported(
                "`--bad-rows` cannot be used while a server runs on the data directory; leave it out, or stop the server",
            ));
        }
        Opening::Held(holder) => {
            return remote::ingest(&remote::http_address(config, &holder)?, &Login::local(config), &absolute(spec)?)
                .await;
        }
    };
    let cancel = Cancellation::default();
    let progress = Arc::new(Bar::new());
    let watched: Arc<dyn Progress> = Arc::clone(&progress) as _;
    let run = IngestRun { progress: watched, cancel: cancel.clone(), bad_rows, ..IngestRun::default() };
    let work = database.ingest(spec, run);
    tokio::pin!(work);
    let report = tokio::select! {
        report = &mut work => report,
        () = interruption.wait() => {
            cancel.cancel();
            tokio::select! {
                report = &mut work => report,
                // It waits for its input, and who asks again does not want to wait for that.
                () = interruption.wait() => return Err(Error::canceled("interrupted; the ingestion was given up")),
            }
        }
    };
    progress.bar.finish_and_clear();
    database.close().await;
    report
}

/// A server has a working directory of its own.
fn absolute(spec: IngestionSpec) -> Result<IngestionSpec> {
    use henge_engine::ingest::InputSource;
    let mut spec = spec;
    if let InputSource::Local { files, base_dir, .. } = &mut spec.io_config.input_source {
        let absolute = |path: &str| -> Result<String> {
            let path = std::path::absolute(path)
                .map_err(|error| Error::invalid_input(format!("`{path}` is no path")).with_source(error))?;
            Ok(path.display().to_string())
        };
        for file in files.iter_mut() {
            *file = absolute(file)?;
        }
        if let Some(dir) = base_dir {
            *dir = absolute(dir)?;
        }
    }
    Ok(spec)
}

/// Progress on a terminal: bytes read of all, rows, rows a second, time left. Nothing where there is no terminal.
#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    rows: std::sync::atomic::AtomicU64,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        Self { bar, rows: std::sync::atomic::AtomicU64::new(0) }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Bar {
    fn reading(&self, total_bytes: Option<u64>) {
        match total_bytes {
            Some(bytes) => {
                self.bar.set_length(bytes);
                self.bar.set_style(style("reading {bar:30} {bytes}/{total_bytes}, {msg}, {eta} left"));
            }
            None => self.bar.set_style(style("reading {spinner} {bytes}, {msg}")),
        }
    }

    fn advanced(&self, rows: u64, bytes: u64) {
        let rows = self.rows.fetch_add(rows, std::sync::atomic::Ordering::Relaxed) + rows;
        let seconds = self.bar.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!("{rows} rows, {:.0} rows/s", rows as f64 / seconds));
        self.bar.inc(bytes);
    }

    fn writing(&self, granules: usize) {
        self.bar.set_style(style(&format!("writing {granules} granules {{spinner}} {{msg}}")));
    }
}

fn summary(report: &IngestReport) -> String {
    let seconds = (report.duration_ms as f64 / 1000.0).max(0.001);
    let mut text = format!(
        "Read {} rows in {seconds:.1} s ({:.0} rows/s); wrote {} rows in {} {} of `{}` ({} bytes).",
        report.rows_read(),
        report.rows_read() as f64 / seconds,
        report.rows_written,
        report.segments_written,
        if report.segments_written == 1 { "segment" } else { "segments" },
        report.data_source,
        report.segment_bytes,
    );
    // Writing to a string cannot fail.
    for (reason, rows) in &report.reasons {
        let _ = write!(text, "\n{rows} rows: {reason}");
    }
    for bad in report.unparseable_events.iter().take(SHOWN_BAD_ROWS) {
        let _ = write!(text, "\n  {bad}");
    }
    for note in &report.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    text
}
