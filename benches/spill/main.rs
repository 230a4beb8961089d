//! Ten million groups in 64 MB: `cargo bench --bench spill -- [rows=10000000] [memory_mb=64]`.
//!
//! Rows with keys that are nearly all different are loaded, and grouped by number, by text and by both. The answers are
//! checked; printed is whether the memory that the process takes for the queries is at most the limit and 15 %, beside what it held before.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
use arrow::util::display::array_value_to_string;
use henge::model::DataSchema;
use henge::{Database, Existing, IngestRun};

type Done<T = ()> = Result<T, Box<dyn Error>>;

const BATCH_ROWS: usize = 100_000;

/// Every so many rows, a key comes a second time.
const TWICE: usize = 100;

/// What may be taken beyond the limit, in hundredths: buffers of readers, and what the allocator has not given back.
const ALLOWANCE: usize = 15;

fn main() -> Done {
    // What `cargo test --all-targets` runs is built without optimisation: nothing to measure there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let (rows, memory_mb) = (given("rows=", 10_000_000)?, given("memory_mb=", 64)?);
    let dir = tempfile::tempdir()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        load(dir.path(), rows).await?;
        let database = Database::builder(dir.path()).memory_limit_bytes(memory_mb << 20).open().await?;
        let groups = rows - rows / TWICE;
        for keys in ["number", "text", "number, text"] {
            let sql = format!(
                "SELECT COUNT(*), SUM(n), SUM(s) FROM (SELECT {keys}, COUNT(*) AS n, SUM(value) AS s FROM keys GROUP BY {keys})"
            );
            let sum = (0..rows).map(|row| row % 7).sum::<usize>();
            let before = anonymous_bytes()?;
            let peak = Peak::watch();
            let started = Instant::now();
            let answer = database.sql(&sql).await?;
            let seconds = started.elapsed().as_secs_f64();
            let taken = peak.bytes().saturating_sub(before);
            let cells = (0..3).map(|column| array_value_to_string(answer[0].column(column), 0));
            let cells = cells.collect::<Result<Vec<_>, _>>()?.join(", ");
            let most = (memory_mb << 20) * (100 + ALLOWANCE) / 100;
            let verdict = if taken <= most { "within" } else { "more than" };
            println!(
                "by {keys}: {groups} groups in {seconds:.1} s, {} MB, {verdict} the limit and {ALLOWANCE} %",
                taken >> 20
            );
            assert_eq!(cells, format!("{groups}, {rows}, {sum}"), "by {keys}");
        }
        database.close().await;
        Ok(())
    })
}

fn given(name: &str, default: usize) -> Done<usize> {
    let given = std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
    Ok(given.map_or(Ok(default), |text| text.parse())?)
}

async fn load(dir: &std::path::Path, rows: usize) -> Done {
    let database = Database::open(dir).await?;
    let batches = (0..rows).step_by(BATCH_ROWS).map(move |start| batch(start..(start + BATCH_ROWS).min(rows)));
    database.ingest_batches(DataSchema::new("keys", "__time"), Existing::Keep, batches, IngestRun::default()).await?;
    database.close().await;
    Ok(())
}

/// The key of every row but each hundredth is one of its own; that one has the key of the row before.
fn batch(rows: std::ops::Range<usize>) -> RecordBatch {
    let key =
        |row: usize| (if row % TWICE == TWICE - 1 { row - 1 } else { row } as i64).wrapping_mul(0x5851_F42D_4C95_7F2D);
    let time = TimestampMillisecondArray::from_iter_values(rows.clone().map(|row| row as i64));
    let number = Int64Array::from_iter_values(rows.clone().map(key));
    let text = StringViewArray::from_iter_values(rows.clone().map(|row| format!("{:016x}", key(row))));
    let value = Int64Array::from_iter_values(rows.map(|row| (row % 7) as i64));
    let columns: [(&str, ArrayRef); 4] = [
        ("__time", Arc::new(time)),
        ("number", Arc::new(number)),
        ("text", Arc::new(text)),
        ("value", Arc::new(value)),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// Memory of this process that is no file's, as Linux tells it.
fn anonymous_bytes() -> Done<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("Linux does not tell RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Looks again and again how much memory is held, until dropped.
struct Peak {
    bytes: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Peak {
    fn watch() -> Self {
        let peak = Self { bytes: Arc::default(), ended: Arc::default() };
        let (bytes, ended) = (Arc::clone(&peak.bytes), Arc::clone(&peak.ended));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                bytes.fetch_max(anonymous_bytes().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        peak
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
