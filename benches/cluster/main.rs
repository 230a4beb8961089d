//! What it costs to ask a broker: `cargo bench --bench cluster -- [rows=5000] [repeats=200] [rate=100] [seconds=20]`.
//!
//! The same small queries over the same segments in memory, to a session of one process, to a broker with one worker and
//! to a broker with two, all in this process, over sockets on the loopback. Nothing is asserted but that all agree.
//!
//! Then a dashboard: the same queries in turn, `rate` of them begun each second whether earlier ones are done or not, to
//! the broker with two workers. What a query waited before it was begun counts.
#![allow(clippy::print_stdout, unreachable_pub, dead_code)]

#[path = "../../tests/harness/cluster.rs"]
mod cluster;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use henge_engine::ingest::source::wikipedia::{Options, Shape, Wikipedia};
use henge_engine::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema, TIME_COLUMN};
use henge_engine::segment::Segment;
use henge_engine::segment::memory::MemorySegment;
use henge_engine::session::{Runtime, RuntimeOptions, Session, SessionOptions};
use henge_engine::table::{DataSourceTable, FixedSource};

use self::cluster::{Cluster, Served, answer};

type Done<T = ()> = Result<T, Box<dyn Error>>;

const NAME: &str = "wikiticker";
/// Segments that the rows are in.
const SEGMENTS: usize = 8;

const QUERIES: [(&str, &str); 8] = [
    ("count", "SELECT COUNT(*) FROM wikiticker WHERE channel = '#en.wikipedia'"),
    ("global", "SELECT COUNT(*), SUM(added), SUM(deleted) FROM wikiticker WHERE delta > 0"),
    ("top n", "SELECT channel, SUM(added) AS s FROM wikiticker GROUP BY channel ORDER BY s DESC LIMIT 5"),
    ("by hour", "SELECT date_trunc('hour', __time) AS h, COUNT(*) FROM wikiticker GROUP BY 1 ORDER BY 1"),
    ("count distinct", "SELECT COUNT(DISTINCT page) FROM wikiticker"),
    ("top pages", "SELECT page, COUNT(*) AS n FROM wikiticker GROUP BY page ORDER BY n DESC, page LIMIT 10"),
    ("latest rows", "SELECT __time, page, added FROM wikiticker ORDER BY __time DESC, page, added LIMIT 20"),
    (
        "join",
        "SELECT a.channel, a.n, b.s FROM (SELECT channel, COUNT(*) n FROM wikiticker GROUP BY 1) a JOIN \
              (SELECT channel, SUM(added) s FROM wikiticker GROUP BY 1) b ON a.channel = b.channel ORDER BY 1",
    ),
];

fn main() -> Done {
    // What `cargo test --all-targets` runs is built without optimisation: nothing to measure there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let given = |name: &str, usual: usize| -> Done<usize> {
        let found = std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
        Ok(found.map_or(Ok(usual), |text| text.parse())?)
    };
    let (rows, repeats) = (given("rows=", 5_000)?, given("repeats=", 200)?);
    let (rate, seconds) = (given("rate=", 100)?, given("seconds=", 20)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(rows, repeats, (rate, seconds)))
}

async fn measure(rows: usize, repeats: usize, (rate, seconds): (usize, usize)) -> Done {
    let (schema, segments) = segments(rows)?;
    let here = embedded(&segments)?;
    let served = || vec![Served { name: NAME, schema: Arc::clone(&schema), segments: segments.clone() }];
    let (one, two) = (Cluster::over(served(), 1), Cluster::over(served(), 2));
    let dashboard = &two;
    let (one, two) = (one.session(), two.session());
    println!("{rows} rows in {SEGMENTS} segments; milliseconds, median of {repeats}");
    println!("| query | one process | broker + 1 | more | broker + 2 |");
    println!("|---|---|---|---|---|");
    for (name, sql) in QUERIES {
        let expected = text(&here, sql).await?;
        for session in [&one, &two] {
            if text(session, sql).await? != expected {
                return Err(format!("{name}: answers differ").into());
            }
        }
        let mut medians = Vec::new();
        for session in [&here, &one, &two] {
            medians.push(median(session, sql, repeats).await?);
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (here, one, two) = (ms(medians[0]), ms(medians[1]), ms(medians[2]));
        println!("| {name} | {here:.2} | {one:.2} | {:.2} | {two:.2} |", one - here);
    }
    under_load(dashboard, rate, seconds).await
}

/// A mix of all queries, begun at a rate. Each has a session of its own, as a connection has.
async fn under_load(cluster: &Cluster, rate: usize, seconds: usize) -> Done {
    let begun = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..rate * seconds {
        let due = begun + Duration::from_secs_f64(number as f64 / rate as f64);
        let (session, (_, sql)) = (cluster.session(), QUERIES[number % QUERIES.len()]);
        asking.spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            answer(&session, sql).await.map(|_| due.elapsed())
        });
    }
    let mut taken = Vec::with_capacity(rate * seconds);
    while let Some(asked) = asking.join_next().await {
        taken.push(asked??);
    }
    taken.sort_unstable();
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{rate} queries/s for {seconds} s, broker + 2: median {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99));
    Ok(())
}

async fn text(session: &Session, sql: &str) -> Done<String> {
    let mut lines = pretty_format_batches(&answer(session, sql).await?.1)?.to_string();
    if !sql.contains("ORDER BY") {
        let mut sorted = lines.lines().collect::<Vec<_>>();
        sorted.sort_unstable();
        lines = sorted.join("\n");
    }
    Ok(lines)
}

async fn median(session: &Session, sql: &str, repeats: usize) -> Done<Duration> {
    for _ in 0..5 {
        answer(session, sql).await?;
    }
    let mut taken = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let begun = Instant::now();
        answer(session, sql).await?;
        taken.push(begun.elapsed());
    }
    taken.sort_unstable();
    Ok(taken[repeats / 2])
}

fn embedded(segments: &[Arc<dyn Segment>]) -> Done<Session> {
    let source = FixedSource::of(NAME, segments.to_vec())?;
    let tables = MemorySchemaProvider::new();
    tables.register_table(NAME.to_owned(), Arc::new(DataSourceTable::new(NAME, Arc::new(source))))?;
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("druid", Arc::new(tables))?;
    let options = RuntimeOptions { target_partitions: std::num::NonZeroUsize::new(2), ..RuntimeOptions::default() };
    Ok(Session::new(&Runtime::new(options)?, Arc::new(catalog), SessionOptions::default()))
}

type Segments = Vec<Arc<dyn Segment>>;

fn segments(rows: usize) -> Done<(Arc<SegmentSchema>, Segments)> {
    let wikipedia = Wikipedia::new(Options::new(Shape::Wikiticker, rows as u64))?;
    let mut batches = wikipedia.batches(rows.div_ceil(SEGMENTS)).collect::<Result<Vec<_>, _>>()?;
    let mut columns = Vec::new();
    for field in batches[0].schema().fields().iter().skip(1) {
        columns.push(match field.name().as_str() {
            name @ ("added" | "deleted" | "delta") => ColumnSchema::metric(name, ColumnType::Long, MetricCombine::Sum),
            name @ "metroCode" => ColumnSchema::dimension(name, ColumnType::Long),
            name => ColumnSchema::dimension(name, ColumnType::String),
        });
    }
    let (metrics, dimensions): (Vec<_>, Vec<_>) =
        columns.into_iter().partition(|column| ["added", "deleted", "delta"].contains(&column.name.as_str()));
    let schema = Arc::new(SegmentSchema::new(dimensions.into_iter().chain(metrics))?);
    let mut segments = Vec::new();
    for batch in &mut batches {
        let mut columns = batch.columns().to_vec();
        let mut names = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        names[0] = TIME_COLUMN.to_owned();
        for column in &mut columns[1..] {
            if *column.data_type() != arrow::datatypes::DataType::Int64 {
                *column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8View)?;
            }
        }
        let batch = arrow::array::RecordBatch::try_from_iter_with_nullable(
            names.into_iter().zip(columns).enumerate().map(|(i, (name, column))| (name, column, i > 0)),
        )?;
        let segment = MemorySegment::from_batches_with_row_index(Arc::clone(&schema), &[batch])?;
        segments.push(Arc::new(segment) as Arc<dyn Segment>);
    }
    Ok((schema, segments))
}
