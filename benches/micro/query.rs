//! Queries over segments beside DataFusion's own operators over the same rows in memory.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, measurement::WallTime};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use henge_engine::ingest::source::wikipedia::{Options, Shape, Wikipedia};
use henge_engine::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema, TIME_COLUMN};
use henge_engine::segment::Segment;
use henge_engine::segment::memory::MemorySegment;
use henge_engine::table::{DataSourceTable, FixedSource};

const SEGMENTS: usize = 4;
const SEGMENT_ROWS: usize = 250_000;

const QUERIES: &[(&str, &str)] = &[
    ("aggregate/total", "SELECT sum(added), sum(deleted), min(delta), max(delta) FROM wikipedia"),
    ("aggregate/hour", "SELECT date_trunc('hour', __time) AS t, count(*), sum(added) FROM wikipedia GROUP BY t"),
    ("aggregate/channel", "SELECT channel, count(*), sum(added) FROM wikipedia GROUP BY channel"),
    (
        "aggregate/hour_channel",
        "SELECT date_trunc('hour', __time) AS t, channel, count(*), sum(added) FROM wikipedia GROUP BY t, channel",
    ),
    ("aggregate/channel_user", "SELECT channel, \"user\", count(*) FROM wikipedia GROUP BY channel, \"user\""),
    ("aggregate/page", "SELECT page, count(*) AS n FROM wikipedia GROUP BY page ORDER BY n DESC, page LIMIT 10"),
    ("filter/equal", "SELECT count(*), sum(added) FROM wikipedia WHERE channel = '#de.wikipedia'"),
    ("filter/prefix", "SELECT count(*), sum(added) FROM wikipedia WHERE page LIKE 'User talk:%'"),
    ("filter/regex", "SELECT count(*) FROM wikipedia WHERE page ~ '(Bridge|Castle) of [KLM]'"),
    (
        "filter/or",
        "SELECT count(*), sum(added) FROM wikipedia WHERE channel = '#de.wikipedia' OR \"cityName\" LIKE 'San%'",
    ),
    ("scan/all", "SELECT __time, channel, page, added FROM wikipedia"),
    ("scan/selected", "SELECT __time, page, added FROM wikipedia WHERE channel = '#de.wikipedia'"),
    ("scan/latest", "SELECT * FROM wikipedia ORDER BY __time DESC LIMIT 100"),
];

fn schema() -> henge_engine::Result<Arc<SegmentSchema>> {
    let dimensions = ["channel", "cityName", "countryName", "isRobot", "namespace", "page", "user"];
    let dimensions = dimensions.map(|name| ColumnSchema::dimension(name, ColumnType::String));
    let metrics = ["added", "deleted", "delta"];
    let metrics = metrics.map(|name| ColumnSchema::metric(name, ColumnType::Long, MetricCombine::Sum));
    Ok(Arc::new(SegmentSchema::new(dimensions.into_iter().chain(metrics))?))
}

/// The same rows as segments, and as DataFusion's table.
fn tables() -> Result<(Arc<dyn TableProvider>, Arc<dyn TableProvider>)> {
    let schema = schema()?;
    let mut options = Options::new(Shape::Wikiticker, (SEGMENTS * SEGMENT_ROWS) as u64);
    options.days = 30;
    let wikipedia = Wikipedia::new(options)?;
    let mut segments: Vec<Arc<dyn Segment>> = Vec::new();
    let mut rows = Vec::new();
    for batch in wikipedia.batches(SEGMENT_ROWS) {
        let batch = renamed(&batch?)?;
        segments.push(Arc::new(MemorySegment::from_batches(Arc::clone(&schema), std::slice::from_ref(&batch))?));
        rows.push(batch);
    }
    let ours = DataSourceTable::new("wikipedia", Arc::new(FixedSource::of("wikipedia", segments)?));
    let table_schema = ours.schema();
    let conform = |batch: &RecordBatch| {
        let columns = table_schema
            .fields()
            .iter()
            .filter_map(|field| batch.column_by_name(field.name()).map(|column| Ok(cast(column, field.data_type())?)));
        Ok(RecordBatch::try_new(Arc::clone(&table_schema), columns.collect::<Result<Vec<ArrayRef>>>()?)?)
    };
    let rows = rows.iter().map(conform).collect::<Result<Vec<_>>>()?;
    let sliced = rows.iter().flat_map(|batch| {
        (0..batch.num_rows()).step_by(8192).map(|start| batch.slice(start, 8192.min(batch.num_rows() - start)))
    });
    let stock = MemTable::try_new(Arc::clone(&table_schema), vec![sliced.collect()])?;
    Ok((Arc::new(ours), Arc::new(stock)))
}

fn renamed(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| if field.name() == "time" { TIME_COLUMN } else { field.name() });
    Ok(RecordBatch::try_from_iter_with_nullable(
        names.zip(batch.columns()).map(|(name, column)| (name, Arc::clone(column), name != TIME_COLUMN)),
    )?)
}

fn session(table: Arc<dyn TableProvider>) -> Result<SessionContext> {
    let config = SessionConfig::new().with_target_partitions(2);
    let builder = SessionStateBuilder::new_with_default_features().with_config(config);
    let context = SessionContext::new_with_state(henge_engine::install(builder).build());
    context.register_table("wikipedia", table)?;
    Ok(context)
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, sql: &str, engine: &str, context: &SessionContext) {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build() else { return };
    group.bench_function(format!("{name}/{engine}"), |bencher| {
        bencher.to_async(&runtime).iter(|| async { context.sql(sql).await?.collect().await });
    });
}

fn query(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("query");
    group.throughput(Throughput::Elements((SEGMENTS * SEGMENT_ROWS) as u64));
    let sessions = tables().and_then(|(ours, stock)| Ok((session(ours)?, session(stock)?)));
    let Ok((ours, stock)) = sessions else { return };
    for (name, sql) in QUERIES {
        measure(&mut group, name, sql, "henge", &ours);
        measure(&mut group, name, sql, "datafusion", &stock);
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = query
}
