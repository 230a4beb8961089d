//! How fast rows are pushed: `cargo bench --bench ingest -- live [seconds=N] [queries=N]`.
//!
//! One client pushes requests of 1,000 rows to a database in this process, each durable before the next is sent, while
//! queries come at a steady rate; by numbers of dimensions and metrics, as in the paper on Druid (2014), which has 800,000
//! events a second and core with a timestamp alone, and 22,914 with 30 dimensions and 19 metrics. A core is one second
//! of processor time of the whole process: parsing, log, index, hand-off and queries.
//!
//! Another client sends one row five times a second and asks until an answer has it: `seen` is from sending it to having
//! that answer. `memory` is what rows take that are not published, `process` all that the process has.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use henge::Database;
use henge::ingest::InputFormat;
use henge::ingest::source::wikipedia::{Options, Shape, Wikipedia};
use henge::realtime::{OnError, Payload, Push, PushSpec, Pushed};

const REQUEST_ROWS: u64 = 1_000;
/// Requests that are made before the clock starts, and sent over and over.
const REQUESTS: u64 = 64;

/// What rows look like.
enum Rows {
    /// So many dimensions of a hundred values each, and so many metrics.
    Made {
        dimensions: usize,
        metrics: usize,
    },
    Wikiticker,
}

pub(crate) fn run(seconds: u64, queries_a_second: u64) -> Result<(), Box<dyn Error>> {
    println!(
        "{:<26} {:>10} {:>13} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "rows", "rows/s", "rows/s a core", "query p50", "query p99", "seen p50", "seen p99", "memory MB", "process MB"
    );
    for rows in [
        Rows::Made { dimensions: 0, metrics: 0 },
        Rows::Made { dimensions: 5, metrics: 3 },
        Rows::Made { dimensions: 30, metrics: 19 },
        Rows::Wikiticker,
    ] {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        println!("{}", runtime.block_on(measure(&rows, seconds, queries_a_second))?);
    }
    println!("Druid's paper (2014), a core: 800,000 with a timestamp alone, 22,914 with 30 dimensions and 19 metrics");
    Ok(())
}

async fn measure(rows: &Rows, seconds: u64, queries_a_second: u64) -> Result<String, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let database = Database::open(dir.path()).await?;
    let (name, spec, requests) = rows.make()?;
    database.declare_push(spec).await?;
    push(&database, &requests[0]).await?;
    let done = Arc::new(AtomicBool::new(false));
    let asking = tokio::task::JoinSet::from_iter([ask(database.clone(), Arc::clone(&done), queries_a_second)]);
    let noticing = tokio::task::JoinSet::from_iter([notice(database.clone(), Arc::clone(&done), rows.mark())]);
    let (began, cpu) = (Instant::now(), processor_seconds()?);
    let mut sent = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        push(&database, &requests[(sent % REQUESTS) as usize]).await?;
        sent += 1;
    }
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), processor_seconds()? - cpu);
    let memory: u64 = database.stream_statuses().iter().map(|status| status.memory_bytes).sum();
    done.store(true, Ordering::Release);
    let [queries, seen] = [asking, noticing].map(|task| async {
        let mut times = task.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        times.sort_unstable();
        times
    });
    let (queries, seen) = (queries.await, seen.await);
    let process = memory_bytes()?;
    database.close().await;
    let count = (sent * REQUEST_ROWS) as f64;
    Ok(format!(
        "{name:<26} {:>10.0} {:>13.0} {:>10.1?} {:>10.1?} {:>10.1?} {:>10.1?} {:>10.1} {:>10.1}",
        count / elapsed,
        count / cpu,
        at(&queries, 0.5),
        at(&queries, 0.99),
        at(&seen, 0.5),
        at(&seen, 0.99),
        memory as f64 / 1e6,
        process as f64 / 1e6,
    ))
}

/// The time that a share of all does not exceed.
fn at(times: &[Duration], share: f64) -> Duration {
    times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default()
}

/// Sends a row now and then, later than all before, and asks until it is seen.
async fn notice(database: Database, done: Arc<AtomicBool>, mark: fn(u64) -> String) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    for number in 0.. {
        ticks.tick().await;
        if done.load(Ordering::Acquire) {
            break;
        }
        let began = Instant::now();
        let is_taken = push(&database, &bytes::Bytes::from(mark(number))).await.is_ok();
        assert!(is_taken, "a row was refused");
        let sql =
            format!("SELECT 1 FROM live WHERE __time >= TIMESTAMP '2037-01-01' + INTERVAL '{number} milliseconds'");
        while !done.load(Ordering::Acquire) {
            match database.sql(&sql).await {
                Ok(batches) if batches.iter().any(|batch| batch.num_rows() > 0) => {
                    times.push(began.elapsed());
                    break;
                }
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    times
}

async fn push(database: &Database, text: &bytes::Bytes) -> Result<(), Box<dyn Error>> {
    loop {
        let payload = Payload::Text { format: InputFormat::named("json")?, text: text.clone() };
        let push = Push { payload, key: None, on_error: OnError::Fail, max_row_bytes: 1 << 20 };
        match database.push("live", push).await? {
            Pushed::Taken { .. } => return Ok(()),
            Pushed::Busy { retry_after } => tokio::time::sleep(retry_after.min(Duration::from_millis(50))).await,
            other => return Err(format!("{other:?}").into()),
        }
    }
}

async fn ask(database: Database, done: Arc<AtomicBool>, a_second: u64) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(1_000 / a_second.max(1)));
    while !done.load(Ordering::Acquire) {
        ticks.tick().await;
        let began = Instant::now();
        let answer = database.sql("SELECT FLOOR(__time TO HOUR), COUNT(*) FROM live GROUP BY 1").await;
        assert!(answer.is_ok(), "{answer:?}");
        latencies.push(began.elapsed());
    }
    latencies
}

impl Rows {
    /// A row of 2037, each a millisecond after the one before.
    fn mark(&self) -> fn(u64) -> String {
        match self {
            Self::Wikiticker => |number| {
                format!("{{\"time\":\"2037-01-01T00:00:{:02}.{:03}Z\"}}\n", number / 1_000 % 60, number % 1_000)
            },
            Self::Made { .. } => |number| format!("{{\"t\":{}}}\n", 2_114_380_800_000 + number),
        }
    }

    fn make(&self) -> Result<(String, PushSpec, Vec<bytes::Bytes>), Box<dyn Error>> {
        let granularity = r#""granularitySpec": {"segmentGranularity": "HOUR", "rollup": false}"#;
        match self {
            Self::Wikiticker => {
                let spec = format!(
                    r#"{{"dataSchema": {{"dataSource": "live", "timestampSpec": {{"column": "time"}},
                        "dimensionsSpec": {{"useSchemaDiscovery": true}}, {granularity}}}}}"#
                );
                let wikipedia = Wikipedia::new(Options::new(Shape::Wikiticker, REQUESTS * REQUEST_ROWS))?;
                let requests = (0..REQUESTS).map(|request| {
                    let mut text = Vec::new();
                    wikipedia.write_json(request * REQUEST_ROWS..(request + 1) * REQUEST_ROWS, &mut text)?;
                    Ok(text.into())
                });
                Ok((
                    "wikiticker".to_owned(),
                    PushSpec::from_json(&spec)?,
                    requests.collect::<Result<_, Box<dyn Error>>>()?,
                ))
            }
            Self::Made { dimensions, metrics } => {
                let names = (0..*dimensions).map(|n| format!("\"d{n}\"")).collect::<Vec<_>>().join(",");
                let sums =
                    (0..*metrics).map(|n| format!(r#"{{"type": "longSum", "name": "m{n}", "fieldName": "m{n}"}}"#));
                let sums = sums.collect::<Vec<_>>().join(",");
                let dimensions_spec = match dimensions {
                    0 => r#"{"dimensionExclusions": [], "useSchemaDiscovery": true}"#.to_owned(),
                    _ => format!("{{\"dimensions\": [{names}]}}"),
                };
                let spec = format!(
                    r#"{{"dataSchema": {{"dataSource": "live", "timestampSpec": {{"column": "t"}},
                        "dimensionsSpec": {dimensions_spec}, "metricsSpec": [{sums}], {granularity}}}}}"#
                );
                let requests = (0..REQUESTS).map(|request| {
                    let mut text = String::new();
                    for row in request * REQUEST_ROWS..(request + 1) * REQUEST_ROWS {
                        let _ = write!(text, "{{\"t\":{}", 1_375_315_200_000 + row * 50);
                        for n in 0..*dimensions as u64 {
                            let _ = write!(text, ",\"d{n}\":\"value {}\"", (row * 31 + n * 17) % 100);
                        }
                        for n in 0..*metrics as u64 {
                            let _ = write!(text, ",\"m{n}\":{}", (row * 7 + n) % 1_000);
                        }
                        text.push_str("}\n");
                    }
                    text.into()
                });
                let name = format!("{dimensions} dimensions, {metrics} metrics");
                Ok((name, PushSpec::from_json(&spec)?, requests.collect()))
            }
        }
    }
}

/// What this process has in memory, by what Linux says.
fn memory_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Of this process, by what Linux says.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().collect::<Vec<_>>();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // `utime` and `stime`, in hundredths of a second.
    Ok((ticks(11) + ticks(12)) / 100.0)
}
