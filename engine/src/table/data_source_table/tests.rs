use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

use super::*;
use crate::exec::OrdinalCache;
use crate::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema};
use crate::segment::memory::MemorySegment;
use crate::segment::{Column as SegmentColumn, Segment};
use crate::table::FixedSource;

const DAY: i64 = 86_400_000;

/// Counts how often its columns are opened.
#[derive(Debug)]
struct Watched {
    inner: MemorySegment,
    opened: AtomicUsize,
}

impl Segment for Watched {
    fn schema(&self) -> &Arc<SegmentSchema> {
        self.inner.schema()
    }

    fn num_rows(&self) -> usize {
        self.inner.num_rows()
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.inner.time_range()
    }

    fn column(&self, index: usize) -> crate::Result<SegmentColumn> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.inner.column(index)
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes()
    }
}

/// A segment a day, each of `num_rows` rows.
fn days(days: i64, num_rows: i64) -> Vec<Arc<Watched>> {
    let columns = [
        ColumnSchema::dimension("name", ColumnType::String),
        ColumnSchema::metric("added", ColumnType::Long, MetricCombine::Sum),
    ];
    let schema = Arc::new(SegmentSchema::new(columns).unwrap());
    let segment = |day: i64| {
        let time = (0..num_rows).map(|row| day * DAY + row * DAY / num_rows);
        let name = (0..num_rows).map(|row| format!("day {day} row {}", row % 7));
        let batch = RecordBatch::try_from_iter([
            ("__time", Arc::new(TimestampMillisecondArray::from_iter_values(time)) as ArrayRef),
            ("name", Arc::new(StringArray::from_iter_values(name))),
            ("added", Arc::new(Int64Array::from_iter_values(0..num_rows))),
        ]);
        let inner = MemorySegment::from_batches(Arc::clone(&schema), &[batch.unwrap()]).unwrap();
        Arc::new(Watched { inner, opened: AtomicUsize::new(0) })
    };
    (0..days).map(segment).collect()
}

fn session(segments: &[Arc<Watched>], partitions: usize) -> SessionContext {
    let segments = segments.iter().map(|segment| Arc::clone(segment) as Arc<dyn Segment>).collect();
    let source = FixedSource::of("t", segments).unwrap();
    let config = SessionConfig::new().with_target_partitions(partitions);
    let builder = SessionStateBuilder::new_with_default_features().with_config(config);
    let context = SessionContext::new_with_state(crate::session::install(builder).build());
    context.register_table("t", Arc::new(DataSourceTable::new("t", Arc::new(source)))).unwrap();
    context
}

fn opened(segments: &[Arc<Watched>]) -> Vec<bool> {
    segments.iter().map(|segment| segment.opened.load(Ordering::Relaxed) > 0).collect()
}

fn shown(batches: &[RecordBatch]) -> String {
    datafusion::common::test_util::batches_to_sort_string(batches)
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn segments_outside_the_interval_are_not_touched_and_those_inside_not_while_planning() {
    let segments = days(4, 10);
    let context = session(&segments, 2);
    let sql = "SELECT name, sum(added) FROM t \
        WHERE __time >= TIMESTAMP '1970-01-02' AND __time < TIMESTAMP '1970-01-03T12:00:00' GROUP BY name";
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    assert_eq!(opened(&segments), [false; 4]);
    let batches = collect(plan, context.task_ctx()).await.unwrap();
    assert_eq!(rows(&batches), 7 + 5);
    assert_eq!(opened(&segments), [false, true, true, false]);
}

#[tokio::test]
async fn the_number_of_rows_and_their_times_need_no_column() {
    let segments = days(3, 10);
    let context = session(&segments, 2);
    let batches =
        context.sql("SELECT count(*), min(__time), max(__time) FROM t").await.unwrap().collect().await.unwrap();
    assert_eq!(rows(&batches), 1);
    assert_eq!(opened(&segments), [false; 3]);
}

#[tokio::test]
async fn the_latest_rows_are_found_without_reading_older_segments() {
    let segments = days(5, 1000);
    let context = session(&segments, 1);
    let frame = context.sql("SELECT * FROM t ORDER BY __time DESC LIMIT 10").await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let explained = displayable(plan.as_ref()).indent(false).to_string();
    assert!(explained.contains("latest_first") && explained.contains("SegmentTopExec"), "{explained}");
    let batches = collect(plan, context.task_ctx()).await.unwrap();
    assert_eq!(rows(&batches), 10);
    assert_eq!(opened(&segments), [false, false, false, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_can_be_run_again_also_while_it_runs() {
    let segments = days(3, 9_000);
    let context = session(&segments, 2);
    // Both without a RepartitionExec, which cannot run twice.
    for sql in ["SELECT * FROM t WHERE added > 5", "SELECT sum(added) FROM t"] {
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let once = shown(&collect(Arc::clone(&plan), context.task_ctx()).await.unwrap());
        let (a, b) = futures::join!(
            collect(Arc::clone(&plan), context.task_ctx()),
            collect(Arc::clone(&plan), context.task_ctx())
        );
        assert!(shown(&a.unwrap()) == once, "{sql}");
        assert!(shown(&b.unwrap()) == once, "{sql}");
    }
}

#[tokio::test]
async fn a_scan_that_is_dropped_gives_back_its_memory() {
    let segments = days(2, 20_000);
    let context = session(&segments, 1);
    // The ordinals of names are kept for the next query.
    context.sql("SELECT name, count(*) FROM t GROUP BY name").await.unwrap().collect().await.unwrap();
    let kept = context.task_ctx().session_config().get_extension::<OrdinalCache>().unwrap().memory_bytes();
    assert_eq!(context.runtime_env().memory_pool.reserved(), kept);
    let frame = context.sql("SELECT name, added, count(*) FROM t GROUP BY name, added").await.unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    assert!(stream.next().await.is_some_and(|batch| batch.is_ok()));
    drop(stream);
    assert_eq!(context.runtime_env().memory_pool.reserved(), kept);
}
