use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use henge_engine::ingest::{
    self, Cancellation, FinishedSegment, IngestOptions, IngestOutcome, IngestReport, IngestionSpec, InputSource,
    NoProgress, Progress,
};
use henge_engine::model::{
    ColumnRole, DataSchema, DimensionSchema, DimensionsSpec, GranularitySpec, MetricCombine, MetricSpec,
    MultiValueHandling, SegmentId, SegmentSchema, SegmentUid, TIME_COLUMN, Timestamp, TimestampSpec, TransformSpec,
};
use henge_engine::storage::{DeepStorage, LoadSpec, crash_point};
use henge_engine::table::SegmentSource;
use henge_engine::{Error, Result};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{Database, Inner, lost};
use crate::publish::{NewSegment, PublishMode, PublishRequest, publish};
use crate::store::{MetadataStore, Publish, Pushes, SegmentRecord, TaskRecord, TaskStatus};

/// How an ingestion is watched and kept account of.
#[derive(Clone, Debug)]
pub struct IngestRun {
    /// Under which id it is recorded; one is made if there is none. A second task of the same id publishes nothing.
    pub task_id: Option<String>,
    pub progress: Arc<dyn Progress>,
    pub cancel: Cancellation,
    /// Where all bad rows are written to, as JSON lines.
    pub bad_rows: Option<PathBuf>,
}

impl Default for IngestRun {
    fn default() -> Self {
        Self { task_id: None, progress: Arc::new(NoProgress), cancel: Cancellation::default(), bad_rows: None }
    }
}

/// What becomes of rows that are there already in the chunks of time that new rows fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They stay, beside the new ones.
    Keep,
    /// The new ones take their place.
    Replace,
}

/// Makes segments, on a thread that may block.
pub(super) type Work = Box<dyn FnOnce(&IngestionSpec, &IngestOptions) -> Result<IngestOutcome> + Send>;

/// One run of a spec.
struct Task {
    record: TaskRecord,
    spec: IngestionSpec,
    run: IngestRun,
    work: Work,
}

impl Database {
    /// Reads what the spec says, and publishes it: when this returns, queries see all of it and it survives a power
    /// loss; when it fails, or the process is killed, nothing was published. Ingestions wait for one another.
    ///
    /// Dropping the future cancels the ingestion.
    pub async fn ingest(&self, spec: IngestionSpec, run: IngestRun) -> Result<IngestReport> {
        self.run_task(spec, run, Box::new(ingest::run)).await
    }

    /// The same for rows that are there already. Columns are fields; a time column of a timestamp type needs no format.
    /// Without listed dimensions every column but the metrics' becomes one, with its own type.
    pub async fn ingest_batches<B>(
        &self,
        mut data_schema: DataSchema,
        existing: Existing,
        batches: B,
        run: IngestRun,
    ) -> Result<IngestReport>
    where
        B: IntoIterator<Item = RecordBatch>,
        B::IntoIter: Send + 'static,
    {
        if data_schema.dimensions_spec.dimensions.is_empty() {
            data_schema.dimensions_spec.use_schema_discovery = true;
        }
        let mut spec = IngestionSpec::new(data_schema, InputSource::Inline { data: String::new() });
        spec.io_config.append_to_existing = existing == Existing::Keep;
        let batches = batches.into_iter().map(Ok);
        self.run_task(spec, run, Box::new(|spec, options| ingest::run_batches(spec, batches, options))).await
    }

    /// Adds rows to a data source, in its own columns: all of them or, if one of `rows` is an error, none, and the error is
    /// given back. What is a metric stays one. Fails with `NotFound` if there is no such data source.
    pub async fn append<B>(&self, data_source: &str, rows: B, run: IngestRun) -> Result<IngestReport>
    where
        B: Iterator<Item = Result<RecordBatch>> + Send + 'static,
    {
        let schema = self.data_source(data_source)?.schema();
        let mut spec =
            IngestionSpec::new(schema_to_append(data_source, &schema)?, InputSource::Inline { data: String::new() });
        spec.io_config.append_to_existing = true;
        spec.tuning_config.max_parse_exceptions = Some(0);
        self.run_task(spec, run, Box::new(|spec, options| ingest::run_batches(spec, rows, options))).await
    }

    /// The same for rows from a reader, called `name` in reports; the spec must say in what format they are.
    pub async fn ingest_reader(
        &self,
        spec: IngestionSpec,
        name: &str,
        reader: impl Read + Send + 'static,
        run: IngestRun,
    ) -> Result<IngestReport> {
        let name = name.to_owned();
        let work =
            move |spec: &IngestionSpec, options: &IngestOptions| ingest::run_reader(spec, &name, reader, options);
        self.run_task(spec, run, Box::new(work)).await
    }

    /// Cancels a task that is waiting or running. Returns whether there was one.
    pub fn cancel_task(&self, id: &str) -> bool {
        let running = self.inner.running.lock();
        running.get(id).map(Cancellation::cancel).is_some()
    }

    /// Runs a task to its end, whatever becomes of the caller: who stops waiting cancels it, and its end is recorded.
    async fn run_task(&self, spec: IngestionSpec, mut run: IngestRun, work: Work) -> Result<IngestReport> {
        let now = self.now();
        let uid = new_uid(now);
        let id = run.task_id.take().unwrap_or_else(|| format!("index_parallel_{}_{uid}", spec.data_schema.data_source));
        let record = TaskRecord {
            id: id.clone(),
            task_type: "index_parallel".to_owned(),
            data_source: spec.data_schema.data_source.clone(),
            created: now,
            status: TaskStatus::Waiting,
            duration_ms: None,
            error: None,
            payload: serde_json::to_string(&spec)
                .map_err(|error| Error::defensive("a spec is not JSON").with_source(error))?,
            report: None,
        };
        self.check_writes()?;
        if self.inner.running.lock().contains_key(&id) || self.inner.store.task(&id).await?.is_some() {
            return Err(Error::conflict(format!("there is a task `{id}` already; give this one another id")));
        }
        self.inner.store.save_task(&record).await?;
        let _canceled_if_dropped = CancelOnDrop(run.cancel.clone());
        self.inner.running.lock().insert(id, run.cancel.clone());
        let (answer, answered) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        let task = Task { record, spec, run, work };
        {
            let mut tasks = self.inner.tasks.lock();
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                // Who does not wait for the answer does not want it.
                let _ = answer.send(inner.run_recorded(task).await);
            });
        }
        answered.await.map_err(|_| Error::canceled("the database was closed before the ingestion was done"))?
    }
}

/// How rows that have the columns of a data source become more of it, one by one.
fn schema_to_append(data_source: &str, schema: &SegmentSchema) -> Result<DataSchema> {
    let mut dimensions = DimensionsSpec::default();
    let mut metrics = Vec::new();
    for column in schema.columns() {
        match column.role {
            ColumnRole::Time | ColumnRole::EventTime => {}
            ColumnRole::Dimension => {
                let mut dimension = DimensionSchema::new(&column.name, Some(column.column_type));
                dimension.multi_value_handling = MultiValueHandling::Array;
                dimensions.dimensions.push(dimension);
            }
            ColumnRole::Metric(MetricCombine::First | MetricCombine::Last) => {
                return Err(Error::unsupported(format!(
                    "metric `{}` of `{data_source}` keeps the first or last of events, whose times rows do not say; \
                     use `henge ingest`",
                    column.name
                )));
            }
            ColumnRole::Metric(combine) => metrics.push(MetricSpec {
                name: column.name.clone(),
                field: Some(column.name.clone()),
                column_type: column.column_type,
                combine,
            }),
        }
    }
    Ok(DataSchema {
        data_source: data_source.to_owned(),
        timestamp_spec: TimestampSpec { column: TIME_COLUMN.to_owned(), ..TimestampSpec::default() },
        dimensions_spec: dimensions,
        metrics_spec: metrics,
        granularity_spec: GranularitySpec { rollup: Some(false), ..GranularitySpec::default() },
        transform_spec: TransformSpec::default(),
        other: serde_json::Map::new(),
    })
}

struct CancelOnDrop(Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(super) fn new_uid(now: Timestamp) -> SegmentUid {
    SegmentUid::new(now, rand::random())
}

impl Inner {
    async fn run_recorded(&self, task: Task) -> Result<IngestReport> {
        let Task { mut record, spec, run, work } = task;
        let result = self.run(&mut record, spec, run, work).await;
        self.record_end(record, &result).await;
        result
    }

    /// Records how a task ended, and that it runs no longer. What it did stands, whether that can be recorded or not.
    pub(super) async fn record_end<R: Serialize + Sync>(&self, mut record: TaskRecord, result: &Result<R>) {
        let elapsed = self.clock.now().millis() - record.created.millis();
        record.duration_ms = Some(u64::try_from(elapsed).unwrap_or(0));
        match result {
            Ok(report) => {
                record.status = TaskStatus::Success;
                record.report = serde_json::to_string(report).ok();
            }
            Err(error) => {
                record.status = TaskStatus::Failed;
                record.error = Some(error.to_string());
            }
        }
        if let Err(error) = self.store.save_task(&record).await {
            tracing::error!(%error, task = record.id, "the end of a task could not be recorded");
        }
        self.running.lock().remove(&record.id);
    }

    pub(super) async fn run(
        &self,
        record: &mut TaskRecord,
        spec: IngestionSpec,
        run: IngestRun,
        work: Work,
    ) -> Result<IngestReport> {
        let closed = |_| Error::canceled("the database is being closed");
        let _turn = self.ingesting.acquire().await.map_err(closed)?;
        run.cancel.check()?;
        record.status = TaskStatus::Running;
        self.store.save_task(record).await?;
        let _memory = self.reserve_memory()?;
        let since_rev = self.store.rev(&record.data_source).await?;
        let work_dir = WorkDir::create(self.tmp_dir.join(new_uid(record.created).to_string()))?;
        let options = IngestOptions {
            memory_limit_bytes: self.ingest_bytes,
            threads: self.ingest_threads.get(),
            progress: run.progress,
            cancel: run.cancel.clone(),
            bad_rows: run.bad_rows,
            store_options: self.store_options.clone(),
            ..IngestOptions::new(work_dir.path())
        };
        let work = move || work(&spec, &options).map(|outcome| (outcome, spec));
        let (outcome, spec) = tokio::task::spawn_blocking(work).await.map_err(lost)??;
        run.cancel.check()?;
        let mode = publish_mode(&spec, since_rev);
        self.push_and_publish(&record.id, &record.data_source, mode, outcome.segments).await?;
        Ok(outcome.report)
    }

    /// Takes the ingestion's share out of what queries may use.
    pub(super) fn reserve_memory(&self) -> Result<MemoryReservation> {
        let pool = &self.runtime.environment().memory_pool;
        let reservation = MemoryConsumer::new("ingestion").register(pool);
        reservation.try_grow(self.ingest_bytes).map_err(|error| {
            Error::capacity_exceeded(
                "queries leave no memory for an ingestion just now; try again, or raise `memory_limit`",
            )
            .with_source(error)
        })?;
        Ok(reservation)
    }

    pub(super) async fn push_and_publish(
        &self,
        publish_id: &str,
        data_source: &str,
        mode: PublishMode,
        finished: Vec<FinishedSegment>,
    ) -> Result<()> {
        let replaces_nothing = !matches!(&mode, PublishMode::Replace { intervals, .. } if !intervals.is_empty());
        if finished.is_empty() && replaces_nothing {
            return Ok(());
        }
        let now = self.clock.now();
        let named = finished.into_iter().map(|segment| (new_uid(now), segment)).collect::<Vec<_>>();
        let load_specs =
            named.iter().map(|(uid, segment)| self.storage.load_spec(&named_id(data_source, segment), *uid));
        let load_specs = load_specs.collect::<Vec<_>>();
        self.store.intend_pushes(publish_id, &load_specs).await?;
        let published = async {
            let segments = self.push(data_source, named).await?;
            let request = PublishRequest {
                publish_id: publish_id.to_owned(),
                data_source: data_source.to_owned(),
                mode,
                segments,
                now,
                intended_pushes: load_specs.len() as u64,
                advances: Vec::new(),
                sink: None,
                tombstone_uids: new_uid,
                standing: self.standing(),
            };
            self.commit(&request).await.map(drop)
        };
        let result = published.await;
        if result.is_err() {
            self.remove_unpublished(publish_id).await;
        }
        result
    }

    pub(super) async fn push(
        &self,
        data_source: &str,
        named: Vec<(SegmentUid, FinishedSegment)>,
    ) -> Result<Vec<NewSegment>> {
        let mut segments = Vec::with_capacity(named.len());
        for (uid, segment) in named {
            let pushed = self.storage.push(&segment.path, &named_id(data_source, &segment), uid).await?;
            if self.mode.is_served_by_others() {
                // It is others who serve it.
                self.storage.forget(uid)?;
            }
            crash_point("segment.pushed");
            segments.push(NewSegment {
                interval: segment.interval,
                uid,
                pushed,
                schema: segment.summary.schema,
                num_rows: segment.summary.num_rows as u64,
                time_range: segment.summary.time_range,
            });
        }
        Ok(segments)
    }

    /// Publishes, shows it, and returns the segments that were added.
    pub(super) async fn commit(&self, request: &PublishRequest) -> Result<Vec<SegmentRecord>> {
        let _in_order = self.publishing.lock().await;
        crash_point("segments.pushed");
        match publish(self.store.as_ref(), request).await? {
            Publish::Done(done) => {
                crash_point("publication.committed");
                let added = done.added.clone();
                let shown = self.show(&request.data_source, done.rev, done.added, &done.marked_unused).await;
                if let Err(error) = shown {
                    // It is published all the same; who watches the database shows it once that can be read again.
                    tracing::warn!(%error, publish_id = request.publish_id, "published, and not shown yet");
                }
                Ok(added)
            }
            Publish::DoneBefore { .. } => {
                Err(Error::conflict(format!("task `{}` was published before", request.publish_id)))
            }
        }
    }

    /// What cannot be removed now is removed at the next start: it stays on the list of intended pushes.
    pub(super) async fn remove_unpublished(&self, publish_id: &str) {
        // A commit whose answer was lost may have happened all the same: then nothing of it is on the list. If it did
        // not, it never will from here on.
        let removed = match self.store.doom_pushes(Pushes::Of(publish_id)).await {
            Ok(doomed) => remove(&self.storage, self.store.as_ref(), &doomed).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "files that were not published are removed at the next start");
        }
    }
}

/// Removes files that will never be published, and takes them off the list.
pub(super) async fn remove(storage: &DeepStorage, store: &dyn MetadataStore, doomed: &[LoadSpec]) -> Result<()> {
    for load_spec in doomed {
        storage.delete(load_spec).await?;
    }
    store.forget_pushes(doomed).await
}

/// What a finished segment's file is named after; its version and partition number are not known yet.
pub(super) fn named_id(data_source: &str, segment: &FinishedSegment) -> SegmentId {
    SegmentId {
        data_source: data_source.to_owned(),
        interval: segment.interval,
        version: String::new(),
        partition: segment.partition,
    }
}

/// `appendToExisting` appends. Otherwise the chunks that have rows are replaced; with `dropExisting`, all of the
/// spec's intervals are.
fn publish_mode(spec: &IngestionSpec, since_rev: u64) -> PublishMode {
    if spec.io_config.append_to_existing {
        return PublishMode::Append;
    }
    let intervals =
        if spec.io_config.drop_existing { spec.data_schema.granularity_spec.intervals.clone() } else { Vec::new() };
    PublishMode::Replace { intervals, since_rev }
}

/// A directory for work in progress, removed with all that is in it.
pub(super) struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn create(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path).map_err(|error| failed(&path, error))?;
        Ok(Self { path })
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::runtime_failure(format!("could not create `{}`", path.display())).with_source(error)
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "work in progress is removed at the next start");
        }
    }
}
