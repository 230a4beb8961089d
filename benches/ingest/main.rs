//! How fast rows become segments: `cargo bench --bench ingest -- [FILE] [threads=N] [memory_mb=N] [rollup]`.
//!
//! Without a FILE of wikiticker-like JSON, a million generated edits are written to a temporary one first. Prints rows
//! and megabytes a second, in all and a core, from the first byte read to the last segment written; nothing is
//! asserted. With `live`, rows are pushed instead: see `live.rs`.
#![allow(clippy::print_stdout)]

mod live;

use std::error::Error;
use std::path::PathBuf;

use henge_engine::ingest::source::wikipedia::{Options, Shape, Wikipedia};
use henge_engine::ingest::{IngestOptions, IngestionSpec, SimpleIngestion, run};

const ROWS: u64 = 1_000_000;

struct Arguments {
    file: Option<String>,
    threads: usize,
    memory_mb: usize,
    rollup: bool,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments { file: None, threads: 1, memory_mb: 1024, rollup: false };
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("threads", number)) => arguments.threads = number.parse()?,
            Some(("memory_mb", number)) => arguments.memory_mb = number.parse()?,
            None if argument == "rollup" => arguments.rollup = true,
            // What `cargo bench` adds by itself.
            _ if argument.starts_with("--") => {}
            _ => arguments.file = Some(argument),
        }
    }
    Ok(arguments)
}

fn main() -> Result<(), Box<dyn Error>> {
    // What `cargo test --all-targets` runs is built without optimisation: nothing to measure there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let numbers = |name: &str, default| {
        let given = std::env::args().find_map(|argument| argument.strip_prefix(name)?.parse().ok());
        given.unwrap_or(default)
    };
    if std::env::args().any(|argument| argument == "live") {
        return live::run(numbers("seconds=", 20), numbers("queries=", 10));
    }
    let arguments = arguments()?;
    let dir = tempfile::tempdir()?;
    let file = match &arguments.file {
        Some(file) => PathBuf::from(file),
        None => generated(dir.path())?,
    };
    let bytes = std::fs::metadata(&file)?.len();
    let mut simple = SimpleIngestion {
        files: vec![file.to_string_lossy().into_owned()],
        data_source: "wikiticker".to_owned(),
        time_column: "time".to_owned(),
        format: Some("json".to_owned()),
        ..SimpleIngestion::default()
    };
    if arguments.rollup {
        simple.dimensions = ["channel", "namespace", "isRobot", "user"].map(str::to_owned).to_vec();
        simple.metrics = ["count", "longSum:added", "longSum:deleted"].map(str::to_owned).to_vec();
        simple.query_granularity = Some("minute".parse()?);
        simple.rollup = true;
    }
    let options = IngestOptions {
        threads: arguments.threads,
        memory_limit_bytes: arguments.memory_mb << 20,
        ..IngestOptions::new(dir.path())
    };
    let started = std::time::Instant::now();
    let report = run(&IngestionSpec::simple(&simple)?, &options)?.report;
    let seconds = started.elapsed().as_secs_f64();
    let rate = report.rows_read() as f64 / seconds;
    let cores = arguments.threads as f64;
    println!(
        "{} rows in {seconds:.2} s: {rate:.0} rows/s, {:.0} rows/s a core, {:.0} MB/s a core",
        report.rows_read(),
        rate / cores,
        bytes as f64 / 1e6 / seconds / cores,
    );
    println!(
        "{} segments, {} rows, {:.1} MB; {} spills; {}",
        report.segments_written,
        report.rows_written,
        report.segment_bytes as f64 / 1e6,
        report.spills,
        peak_memory(),
    );
    Ok(())
}

fn generated(dir: &std::path::Path) -> Result<PathBuf, Box<dyn Error>> {
    let path = dir.join("edits.json");
    let edits = Wikipedia::new(Options::new(Shape::Wikiticker, ROWS))?;
    edits.write_json(0..ROWS, &mut std::io::BufWriter::new(std::fs::File::create(&path)?))?;
    Ok(path)
}

/// The most memory this process ever held, as Linux tells it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or_else(String::new, |peak| format!("peak memory {}", peak.trim()))
}
