//! Queries on a segment in Druid's format beside the same rows in ours: `cargo bench --bench druid -- [rows=2000000]`.
//!
//! The segment in Druid's format is made by the test builder, as Druid writes one today: LZ4, roaring bitmaps. One
//! thread. Nothing is asserted but that both answer alike.
#![allow(clippy::print_stdout)]

#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../tests/druid_builder/builder.rs"]
mod builder;
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../tests/druid_builder/encode.rs"]
mod encode;
#[path = "../rows.rs"]
mod rows;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use henge_engine::ingest::source::wikipedia::{Options, Shape, Wikipedia};
use henge_engine::model::{Interval, SegmentId, SegmentUid};
use henge_engine::segment::druid::{DruidSegment, Nulls};
use henge_engine::segment::{MergeInput, Rollup, RowOrder, Segment, SegmentFile, WriteOptions, write_segment};
use henge_engine::table::{DataSourceTable, FixedSource, VisibleSegment};
use tokio::runtime::Runtime;

use builder::Style;
use rows::{Done, median, memory};

const REPEATS: usize = 7;

const QUERIES: [&str; 9] = [
    "SELECT count(*) FROM t",
    "SELECT sum(added), min(delta), max(delta) FROM t",
    "SELECT channel, count(*), sum(added) FROM t GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
    "SELECT page, sum(added) FROM t GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
    "SELECT date_trunc('hour', __time), count(*) FROM t GROUP BY 1 ORDER BY 1 LIMIT 5",
    "SELECT count(*), sum(delta) FROM t WHERE channel = '#en.wikipedia'",
    "SELECT count(*), sum(delta) FROM t WHERE \"user\" < 'B'",
    "SELECT count(*) FROM t WHERE page LIKE '%the%'",
    "SELECT __time, page FROM t WHERE added > 1000 ORDER BY __time DESC, page LIMIT 10",
];

fn main() -> Done {
    // What `cargo test --all-targets` runs is built without optimisation: nothing to measure there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let given = std::env::args().find_map(|argument| argument.strip_prefix("rows=").map(str::to_owned));
    let num_rows: usize = given.map_or(Ok(2_000_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let (ours, druids) = write_both(num_rows, dir.path())?;
    let size = |path: &Path| -> Done<f64> {
        Ok(if path.is_dir() { dir_bytes(path)? } else { path.metadata()?.len() } as f64 / 1e6)
    };
    println!("{num_rows} rows: {:.1} MB in our format, {:.1} MB in Druid's", size(&ours)?, size(&druids)?);
    let opened = |open: &dyn Fn() -> Done<Arc<dyn Segment>>| median(REPEATS, || open().map(drop));
    let open_ours = || -> Done<Arc<dyn Segment>> { Ok(Arc::new(SegmentFile::open(&ours)?)) };
    let open_druids = || -> Done<Arc<dyn Segment>> { Ok(Arc::new(DruidSegment::open(&druids, Nulls::AsStored)?)) };
    println!("opening: ours {:.2} ms, Druid's {:.2} ms", opened(&open_ours)?, opened(&open_druids)?);
    let runtime = Runtime::new()?;
    let (ours, druids) = (session(open_ours()?)?, session(open_druids()?)?);
    println!("\n| query | ours, ms | Druid's, ms |\n|---|---:|---:|");
    for query in QUERIES {
        let answers = [answer(&runtime, &ours, query)?, answer(&runtime, &druids, query)?];
        if answers[0] != answers[1] {
            return Err(format!("answers differ to {query}:\n{}\n{}", answers[0], answers[1]).into());
        }
        let time = |context| median(REPEATS, || answer(&runtime, context, query).map(drop));
        println!("| `{query}` | {:.2} | {:.2} |", time(&ours)?, time(&druids)?);
    }
    Ok(())
}

fn dir_bytes(dir: &Path) -> Done<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn write_both(rows: usize, dir: &Path) -> Done<(std::path::PathBuf, std::path::PathBuf)> {
    let wikipedia = Wikipedia::new(Options::new(Shape::Wikiticker, rows as u64))?;
    let batch = wikipedia.batches(rows).next().ok_or("no rows")??;
    let segment = Arc::new(memory(&batch)?);
    let (ours, druids) = (dir.join("ours.henge"), dir.join("druids"));
    fs::create_dir(&druids)?;
    for (name, bytes) in builder::encode(segment.as_ref(), &Style::TODAY) {
        fs::write(druids.join(name), bytes)?;
    }
    let schema = Arc::clone(segment.schema());
    let order = RowOrder::of(vec![MergeInput { segment, rows: 0..rows }], &schema, Rollup::Off)?;
    write_segment(&order, 0..rows, &WriteOptions::default(), &mut File::create(&ours)?)?;
    Ok((ours, druids))
}

/// A session whose table `t` is one segment.
fn session(segment: Arc<dyn Segment>) -> Done<SessionContext> {
    let schema = Arc::clone(segment.schema());
    let id = SegmentId { data_source: "t".into(), interval: Interval::ETERNITY, version: "1".into(), partition: 0 };
    let uid = SegmentUid::numbered(0);
    let visible = VisibleSegment { id: Arc::new(id), uid, clip: Interval::ETERNITY, segment };
    let table = DataSourceTable::new("t", Arc::new(FixedSource::new(schema, vec![visible])));
    let config = SessionConfig::new().with_target_partitions(1);
    let state = henge_engine::install(SessionStateBuilder::new_with_default_features().with_config(config)).build();
    let context = SessionContext::new_with_state(state);
    context.register_table("t", Arc::new(table))?;
    Ok(context)
}

fn answer(runtime: &Runtime, context: &SessionContext, query: &str) -> Done<String> {
    let batches = runtime.block_on(async { context.sql(query).await?.collect().await })?;
    Ok(pretty_format_batches(&batches)?.to_string())
}
