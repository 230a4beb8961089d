//! What the benchmarks of segments share: generated rows as a segment in memory, and a median. Included with `#[path]`.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use henge_engine::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema, TIME_COLUMN};
use henge_engine::segment::memory::MemorySegment;

pub(crate) type Done<T = ()> = Result<T, Box<dyn Error>>;

const METRICS: [&str; 3] = ["added", "deleted", "delta"];

/// All columns of a batch of generated edits, as ingestion without rollup keeps them.
pub(crate) fn memory(batch: &RecordBatch) -> Done<MemorySegment> {
    let fields = batch.schema();
    let names = fields.fields().iter().enumerate().map(|(i, f)| if i == 0 { TIME_COLUMN } else { f.name() });
    let columns = names.zip(batch.columns()).map(|(name, column)| (name, Arc::clone(column), name != TIME_COLUMN));
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    let columns = fields.fields().iter().skip(1).map(|field| match field.name().as_str() {
        name if METRICS.contains(&name) => ColumnSchema::metric(name, ColumnType::Long, MetricCombine::Sum),
        name @ "metroCode" => ColumnSchema::dimension(name, ColumnType::Long),
        name => ColumnSchema::dimension(name, ColumnType::String),
    });
    let (metrics, dimensions): (Vec<_>, Vec<_>) = columns.partition(|column| METRICS.contains(&column.name.as_str()));
    let schema = Arc::new(SegmentSchema::new(dimensions.into_iter().chain(metrics))?);
    Ok(MemorySegment::from_batches(schema, &[batch])?)
}

/// The median of so many runs, in milliseconds.
pub(crate) fn median(repeats: usize, mut work: impl FnMut() -> Done) -> Done<f64> {
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[repeats / 2])
}
