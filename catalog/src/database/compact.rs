//! Small and late partitions merged into few: a task of its own, beside whatever else goes on.

mod spec;

use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryConsumer;
use henge_engine::ingest::{self, Cancellation, FinishedSegment, IngestOptions};
use henge_engine::model::{ColumnRole, Interval, SegmentSchema, Timestamp};
use henge_engine::segment::{PromotedSegment, Rollup, Segment};
use henge_engine::{Error, Result};
use serde::Serialize;
use tokio::sync::oneshot;

pub use spec::{AutoCompaction, CompactionSpec};

use super::ingest::{WorkDir, new_uid};
use super::{Database, Inner, Mode, lost};
use crate::publish::{Compacted, PublishMode};
use crate::store::{TaskRecord, TaskStatus};
use crate::view::{DataSourceView, ViewedSegment, union};

/// What a row takes while it is merged: its place in the order, its hash, its codes.
const BYTES_A_ROW: usize = 64;
/// And a merge at the least.
const LEAST_BYTES: usize = 16 << 20;
/// How often a granule is merged anew, because something happened to it meanwhile.
const ATTEMPTS: u32 = 3;

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompactionReport {
    pub data_source: String,
    /// Granules that were merged.
    pub num_granules: usize,
    pub segments_before: usize,
    pub segments_after: usize,
    pub rows_before: u64,
    pub rows_after: u64,
    /// Granules that would have been merged and could not be, and why.
    pub skipped: Vec<SkippedGranule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedGranule {
    pub interval: Interval,
    pub reason: String,
}

/// The segments of a part of time, as of one moment.
struct Granule {
    interval: Interval,
    since_rev: u64,
    segments: Vec<Arc<ViewedSegment>>,
}

impl Granule {
    fn num_rows(&self) -> u64 {
        self.segments.iter().map(|segment| segment.record.num_rows).sum()
    }
}

/// Whether segments of so many rows become fewer.
fn is_worthwhile(rows: &[u64], max_rows: u64) -> bool {
    rows.len() as u64 > rows.iter().sum::<u64>().div_ceil(max_rows.max(1)).max(1)
}

/// What is to be merged, in the order of time.
fn granules(view: &DataSourceView, spec: &CompactionSpec) -> Vec<Granule> {
    let groups =
        view.whole_groups().filter(|group| spec.interval.is_none_or(|i| i.contains_interval(&group.interval())));
    let granules = groups.map(|group| Granule {
        interval: group.interval(),
        since_rev: view.rev(),
        segments: group.partitions().iter().map(|(_, segment)| Arc::clone(segment)).collect(),
    });
    let is_wanted = |granule: &Granule| {
        let rows = granule.segments.iter().map(|segment| segment.record.num_rows).collect::<Vec<_>>();
        is_worthwhile(&rows, spec.max_rows_per_segment)
    };
    granules.filter(is_wanted).collect()
}

impl Database {
    /// Merges the partitions of each granule of a data source into as few as can be, where that makes them fewer: the same
    /// rows under a new version, checked before they are published. Appends go on meanwhile, and none is lost; a granule
    /// that was replaced meanwhile is left to what replaced it. Recorded as a task; who stops waiting does not end it.
    pub async fn compact(
        &self,
        spec: CompactionSpec,
        task_id: Option<String>,
        cancel: Cancellation,
    ) -> Result<CompactionReport> {
        if self.inner.mode != Mode::Alone {
            return Err(Error::unsupported("in a cluster a compaction is handed in as a task, like other ingestion"));
        }
        let now = self.now();
        let id = task_id.unwrap_or_else(|| format!("compact_{}_{}", spec.data_source, new_uid(now)));
        self.data_source(&spec.data_source)?;
        if self.inner.running.lock().contains_key(&id) || self.inner.store.task(&id).await?.is_some() {
            return Err(Error::conflict(format!("there is a task `{id}` already; give this one another id")));
        }
        let record = TaskRecord {
            id: id.clone(),
            task_type: "compact".to_owned(),
            data_source: spec.data_source.clone(),
            created: now,
            status: TaskStatus::Waiting,
            duration_ms: None,
            error: None,
            payload: spec.to_json().to_string(),
            report: None,
        };
        self.inner.store.save_task(&record).await?;
        self.inner.running.lock().insert(id, cancel.clone());
        let (answer, answered) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        {
            let mut tasks = self.inner.tasks.lock();
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                // Who does not wait for the answer does not want it.
                let _ = answer.send(inner.compact_recorded(record, &spec, &cancel).await);
            });
        }
        answered.await.map_err(|_| Error::canceled("the database was closed before the compaction was done"))?
    }
}

impl Inner {
    async fn compact_recorded(
        &self,
        mut record: TaskRecord,
        spec: &CompactionSpec,
        cancel: &Cancellation,
    ) -> Result<CompactionReport> {
        let result = self.compact_in_turn(&mut record, spec, cancel).await;
        self.record_end(record, &result).await;
        result
    }

    pub(super) async fn compact_in_turn(
        &self,
        record: &mut TaskRecord,
        spec: &CompactionSpec,
        cancel: &Cancellation,
    ) -> Result<CompactionReport> {
        let closed = |_| Error::canceled("the database is being closed");
        let _turn = self.compacting.acquire().await.map_err(closed)?;
        cancel.check()?;
        record.status = TaskStatus::Running;
        self.store.save_task(record).await?;
        let mut report = CompactionReport { data_source: spec.data_source.clone(), ..CompactionReport::default() };
        let Some(view) = self.view.data_source(&spec.data_source) else { return Ok(report) };
        let intervals = granules(&view, spec).iter().map(|granule| granule.interval).collect::<Vec<_>>();
        drop(view);
        // The task may have been begun before, and have published some of its granules.
        let run = new_uid(self.clock.now());
        for (number, interval) in intervals.into_iter().enumerate() {
            let publish_id = format!("{}_{run}_{number}", record.id);
            match self.compact_interval(&publish_id, spec, interval, cancel, &mut report).await {
                Ok(()) => {}
                Err(error) if cancel.check().is_err() => return Err(error),
                Err(error) => report.skipped.push(SkippedGranule { interval, reason: error.to_string() }),
            }
        }
        Ok(report)
    }

    /// Merges what is in an interval, as it is now; again, if something happened to it meanwhile.
    async fn compact_interval(
        &self,
        publish_id: &str,
        spec: &CompactionSpec,
        interval: Interval,
        cancel: &Cancellation,
        report: &mut CompactionReport,
    ) -> Result<()> {
        let mut attempt = 1;
        loop {
            cancel.check()?;
            let Some(view) = self.view.data_source(&spec.data_source) else { return Ok(()) };
            let within = CompactionSpec { interval: Some(interval), ..spec.clone() };
            let Some(granule) = granules(&view, &within).into_iter().find(|granule| granule.interval == interval)
            else {
                return Ok(());
            };
            drop(view);
            let (segments_before, rows_before) = (granule.segments.len(), granule.num_rows());
            match self.compact_granule(&format!("{publish_id}_{attempt}"), spec, granule, cancel).await {
                Ok((segments, rows)) => {
                    report.num_granules += 1;
                    report.segments_before += segments_before;
                    report.rows_before += rows_before;
                    report.segments_after += segments;
                    report.rows_after += rows;
                    return Ok(());
                }
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                    tracing::info!(%error, %interval, "a granule is merged anew");
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns how many segments and rows there are now.
    async fn compact_granule(
        &self,
        publish_id: &str,
        spec: &CompactionSpec,
        granule: Granule,
        cancel: &Cancellation,
    ) -> Result<(usize, u64)> {
        let rows = usize::try_from(granule.num_rows()).unwrap_or(usize::MAX);
        let bytes = rows.saturating_mul(BYTES_A_ROW).max(LEAST_BYTES);
        let memory = MemoryConsumer::new("compaction").register(&self.runtime.environment().memory_pool);
        memory.try_grow(bytes).map_err(|error| {
            Error::capacity_exceeded(format!(
                "to merge {rows} rows takes {bytes} bytes of memory, which are not there just now; raise `memory_limit`"
            ))
            .with_source(error)
        })?;
        let work_dir = WorkDir::create(self.tmp_dir.join(new_uid(self.clock.now()).to_string()))?;
        let options = IngestOptions { cancel: cancel.clone(), ..IngestOptions::new(work_dir.path()) };
        let compacted = Compacted {
            interval: granule.interval,
            inputs: granule.segments.iter().map(|segment| segment.record.id.clone()).collect(),
            since_rev: granule.since_rev,
        };
        let (max_rows, rollup) = (spec.max_rows_per_segment, spec.rollup);
        let merge = move || merge(granule, max_rows, rollup, &options);
        let finished = tokio::task::spawn_blocking(merge).await.map_err(lost)??;
        cancel.check()?;
        let (segments, rows) = (finished.len(), finished.iter().map(|segment| segment.summary.num_rows as u64).sum());
        self.push_and_publish(publish_id, &spec.data_source, PublishMode::Compact(compacted), finished).await?;
        Ok((segments, rows))
    }

    /// What a schedule asks to be compacted now: granules that end so long before the data source's latest row, in the
    /// data sources named.
    pub(super) fn due_compactions(&self) -> Vec<CompactionSpec> {
        let views = self.view.data_sources();
        let due = views.iter().filter_map(|view| {
            let auto = self.auto_compaction.iter().find(|auto| auto.is_for(view.name()))?;
            let last =
                view.segments().iter().filter_map(|segment| segment.record.time_range).map(|(_, last)| last).max()?;
            let until = auto.skip_latest.add_to(last, -1, henge_engine::model::TimeZone::Utc)?;
            let mut spec = CompactionSpec::new(view.name());
            let until = until.min(Timestamp::from_millis(Interval::ETERNITY.end().millis() - 1));
            spec.interval = Some(Interval::new(Interval::ETERNITY.start(), until).ok()?);
            (!granules(view, &spec).is_empty()).then_some(spec)
        });
        due.collect()
    }
}

/// Writes a granule's rows into as few segments as can be. Blocks.
fn merge(
    granule: Granule,
    max_rows: u64,
    rollup: Option<bool>,
    options: &IngestOptions,
) -> Result<Vec<FinishedSegment>> {
    let Granule { interval, segments, .. } = granule;
    let mut schemas = segments.iter().map(|segment| segment.segment.schema().as_ref()).collect::<Vec<_>>();
    schemas.dedup();
    let schema = Arc::new(union(schemas.iter().copied())?);
    let mut all_rolled_up = true;
    for segment in &segments {
        all_rolled_up &= segment.segment.file()?.is_rolled_up();
    }
    let are_alike = schemas.iter().all(|one| dimensions(one).eq(dimensions(&schema)));
    let rollup = match (rollup, all_rolled_up && are_alike) {
        (Some(true), false) => {
            return Err(Error::unsupported(
                "rows can be combined only where all segments were rolled up, by the same dimensions in the same order",
            ));
        }
        (None | Some(true), true) => Rollup::On,
        (None | Some(false), _) => Rollup::Off,
    };
    let inputs = segments.iter().map(|segment| as_rows_of(segment, &schema)).collect::<Result<Vec<_>>>()?;
    let max_rows_per_segment = usize::try_from(max_rows).unwrap_or(usize::MAX);
    let compaction = ingest::Compaction { inputs, interval, schema, rollup, max_rows_per_segment };
    ingest::compact(&compaction, options)
}

fn dimensions(schema: &SegmentSchema) -> impl Iterator<Item = (&str, henge_engine::model::ColumnType, bool)> {
    let dimensions = schema.columns().iter().filter(|column| column.role == ColumnRole::Dimension);
    dimensions.map(|column| (column.name.as_str(), column.column_type, column.multi_value))
}

/// A segment with the types that its columns have in all.
fn as_rows_of(segment: &ViewedSegment, schema: &Arc<SegmentSchema>) -> Result<Arc<dyn Segment>> {
    let segment: Arc<dyn Segment> = Arc::clone(&segment.segment) as _;
    if PromotedSegment::fits(segment.schema(), schema) {
        return Ok(segment);
    }
    if schema.columns().iter().any(|column| column.role == ColumnRole::EventTime) {
        return Err(Error::unsupported(
            "a column has another type in one segment than in another, and there are metrics of first and last values",
        ));
    }
    Ok(Arc::new(PromotedSegment::new(segment, schema)?))
}

#[cfg(test)]
mod tests;
