//! Pushed rows: declared, taken, and handed off.

mod insert;
mod keeper;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use henge_engine::error::{Category, Persona};
use henge_engine::ingest::live::SealOptions;
use henge_engine::ingest::{Cancellation, FinishedSegment};
use henge_engine::model::{
    ColumnRole, ColumnType, DataSchema, DimensionSchema, Granularity, Interval, MetricCombine, MetricSpec,
    MultiValueHandling, Period, SegmentSchema, TimeZone, TimestampSpec,
};
use henge_engine::storage::{LocalDisk, crash_point};
use henge_engine::table::SegmentSource;
use henge_engine::{Error, Result};
use tokio::sync::oneshot;

use self::keeper::Keeper;
use super::ingest::{WorkDir, named_id, new_uid};
use super::{Database, Inner, Mode, lost};
use crate::publish::{PublishMode, PublishRequest};
use crate::realtime::{Closed, Limits, Push, PushSpec, Pushed, Reached, Stream, StreamStatus, Streams};
use crate::store::{SinkRecord, StreamAdvance};
use crate::view::Generation;

pub(super) const REALTIME_DIR: &str = "realtime";
/// Share of the memory limit that rows have before they are moved to files.
const MEMORY_SHARE: usize = 8;
const MEMORY_BYTES: usize = 512 << 20;
const WAL_BYTES: u64 = 4 << 30;
const PENDING_BYTES: usize = 256 << 20;
/// Granules that rows of one hand-off lie in, at most.
const GRANULES: usize = 1_000;
/// Historicals have so long to load what was handed off, before who asks for more is told; and it is looked this often.
pub(super) const PASS_ON: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// Data sources that may be pushed to: each has a thread.
const MAX_STREAMS: usize = 1_000;

/// What was handed off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandOff {
    pub rows: u64,
    pub segments: Vec<String>,
}

/// The answer to who asked for a hand-off.
pub(super) type HandOffAnswer = oneshot::Sender<Result<HandOff>>;

pub(super) fn limits(memory_limit_bytes: Option<usize>, threads: usize, spill_dir: PathBuf) -> Limits {
    Limits {
        memory_bytes: memory_limit_bytes.map_or(MEMORY_BYTES, |bytes| bytes / MEMORY_SHARE),
        wal_bytes: WAL_BYTES,
        pending_bytes: PENDING_BYTES,
        granules: GRANULES,
        threads,
        spill_dir,
    }
}

pub(super) fn stream_name(id: &str) -> String {
    format!("push/{id}")
}

impl Database {
    /// Takes rows for a data source that is pushed to. Fails with `NotFound` if it was never declared.
    pub async fn push(&self, data_source: &str, push: Push) -> Result<Pushed> {
        let stream = self.inner.streams.get(data_source).ok_or_else(|| not_declared(data_source))?;
        stream.push(push).await
    }

    /// Whether a data source that nobody declared is made of the first rows that are pushed to it, unless they say
    /// otherwise. In a cluster somebody declares it.
    pub fn discovers(&self) -> bool {
        self.inner.mode == Mode::Alone
    }

    /// Whether rows can be pushed to a data source.
    pub fn is_pushed_to(&self, data_source: &str) -> bool {
        self.inner.streams.get(data_source).is_some()
    }

    /// The spec by which rows are taken.
    pub fn push_spec(&self, data_source: &str) -> Option<PushSpec> {
        self.inner.streams.get(data_source).map(|stream| stream.spec().clone())
    }

    /// How all streams are, in the order of their names.
    pub fn stream_statuses(&self) -> Vec<StreamStatus> {
        self.inner.streams.all().iter().map(|stream| stream.status()).collect()
    }

    /// Says how rows that are pushed are taken. In place of another spec: rows taken by that are handed off first.
    pub async fn declare_push(&self, spec: PushSpec) -> Result<()> {
        spec.check()?;
        let _in_turn = self.inner.declaring.lock().await;
        let name = spec.data_schema.data_source.clone();
        match self.inner.streams.get(&name) {
            Some(stream) if *stream.spec() == spec => Ok(()),
            Some(stream) => self.inner.redeclare(&stream, spec).await,
            None => self.inner.declare(spec).await,
        }
    }

    /// Declares a data source by what is known of it, unless it was declared: its columns if it has some, and in any case
    /// those that rows will have. `time_column` is where their time is. Returns the spec that was made.
    pub async fn discover_push(&self, data_source: &str, time_column: &str) -> Result<Option<PushSpec>> {
        let _in_turn = self.inner.declaring.lock().await;
        if self.inner.streams.get(data_source).is_some() {
            return Ok(None);
        }
        let known = self.data_source(data_source).ok();
        let schema = known.as_ref().map(|view| view.schema());
        let spec =
            PushSpec::new(discovered(data_source, time_column, schema.as_deref(), self.granularity(data_source))?);
        spec.check()?;
        self.inner.declare(spec.clone()).await?;
        Ok(Some(spec))
    }

    /// The granularity of what a data source has, or days.
    fn granularity(&self, data_source: &str) -> Granularity {
        let latest = self.inner.view.latest_interval(data_source);
        let fits = |granularity: &Granularity| latest.is_some_and(|l| granularity.bucket(l.start()) == l);
        finer_first().into_iter().find(fits).unwrap_or(Granularity::DAY)
    }

    /// Hands all rows of a data source off that were taken so far, and waits until they are published. Where part of the
    /// log cannot be read, only `accept_loss` lets it go on without.
    pub async fn hand_off(&self, data_source: &str, accept_loss: bool) -> Result<HandOff> {
        let stream = self.inner.streams.get(data_source).ok_or_else(|| not_declared(data_source))?;
        if stream.is_quarantined() && !accept_loss {
            return Err(Error::conflict(
                "part of the write-ahead log cannot be read; with `acceptLoss=true` what is left is handed off, and the \
                 rest is given up",
            ));
        }
        let done = self.inner.ask_hand_off(&stream).await?;
        if accept_loss {
            stream.accept_loss();
        }
        Ok(done)
    }
}

pub(super) fn not_passed_on() -> Error {
    let message = "what was handed off before is not done yet (in a cluster: historicals have not loaded it); rows are kept \
                   and shown meanwhile, try again in a while";
    Error::new(Category::ServiceUnavailable, Persona::User, message).retryable(true)
}

fn not_declared(data_source: &str) -> Error {
    Error::not_found(format!(
        "nobody said how rows are pushed to `{data_source}`; declare it with `PUT /v1/push/{data_source}/spec`, or push \
         with `create=true`"
    ))
}

/// What rows of a data source become if nobody said so.
fn discovered(
    data_source: &str,
    time_column: &str,
    known: Option<&SegmentSchema>,
    granularity: Granularity,
) -> Result<DataSchema> {
    let mut schema = DataSchema::new(data_source, time_column);
    schema.timestamp_spec = TimestampSpec { column: time_column.to_owned(), ..TimestampSpec::default() };
    schema.dimensions_spec.use_schema_discovery = true;
    schema.granularity_spec.segment_granularity = granularity;
    schema.granularity_spec.rollup = Some(false);
    for column in known.map(SegmentSchema::columns).unwrap_or_default() {
        match column.role {
            ColumnRole::Time | ColumnRole::EventTime => {}
            ColumnRole::Dimension => {
                let mut dimension = DimensionSchema::new(&column.name, Some(column.column_type));
                dimension.multi_value_handling = MultiValueHandling::Array;
                schema.dimensions_spec.dimensions.push(dimension);
            }
            ColumnRole::Metric(MetricCombine::First | MetricCombine::Last) => {
                return Err(Error::conflict(format!(
                    "metric `{}` of `{data_source}` keeps the first or last of events: say how rows become it with \
                     `PUT /v1/push/{data_source}/spec`",
                    column.name
                )));
            }
            // By its usual name; a row has no field that says how many it is.
            ColumnRole::Metric(MetricCombine::Sum)
                if column.name == "count" && column.column_type == ColumnType::Long =>
            {
                schema.metrics_spec.push(MetricSpec::of_kind("count", "count", None)?);
            }
            ColumnRole::Metric(combine) => schema.metrics_spec.push(MetricSpec {
                name: column.name.clone(),
                field: Some(column.name.clone()),
                column_type: column.column_type,
                combine,
            }),
        }
    }
    Ok(schema)
}

/// Segment granularities that are tried, from the finest.
fn finer_first() -> Vec<Granularity> {
    let millis = [1_000, 60_000, 900_000, 3_600_000, 21_600_000].map(Period::millis);
    let periods = millis.into_iter().chain([Period::days(1), Period::months(1), Period::months(12)]);
    periods.filter_map(|period| Granularity::of(period, None, TimeZone::Utc).ok()).collect()
}

impl Inner {
    /// Opens all streams that were declared. What is not published of them is shown again.
    pub(super) async fn open_streams(self: &Arc<Self>) -> Result<()> {
        for found in self.streams.find()? {
            let (reached, known) = self.reached(&found).await?;
            let streams = Arc::clone(&self.streams);
            let opened = tokio::task::spawn_blocking(move || streams.open_from(found, reached)).await;
            let (stream, before) = opened.map_err(lost)??;
            self.serve_sink(&stream, known, before.as_ref(), reached).await?;
            self.keep(&stream, before);
        }
        Ok(())
    }

    async fn declare(self: &Arc<Self>, spec: PushSpec) -> Result<()> {
        if self.streams.all().len() >= MAX_STREAMS {
            return Err(Error::capacity_exceeded(format!("rows can be pushed to {MAX_STREAMS} data sources at most")));
        }
        let (streams, uid) = (Arc::clone(&self.streams), new_uid(self.clock.now()));
        let found = tokio::task::spawn_blocking(move || streams.write(&uid, &spec)).await.map_err(lost)??;
        let known = match self.record_new_sink(&found).await {
            Ok(known) => known,
            Err(error) => {
                // Nobody was told that it is there.
                self.streams.unwrite(&found)?;
                return Err(error);
            }
        };
        let streams = Arc::clone(&self.streams);
        let stream = tokio::task::spawn_blocking(move || streams.open(found, 0)).await.map_err(lost)??;
        self.serve_sink(&stream, known, None, Reached { settled: 0, published: 0 }).await?;
        self.keep(&stream, None);
        Ok(())
    }

    async fn redeclare(self: &Arc<Self>, stream: &Arc<Stream>, spec: PushSpec) -> Result<()> {
        if stream.is_quarantined() {
            return Err(Error::conflict(
                "part of the write-ahead log cannot be read: hand off what is left with `acceptLoss=true` first",
            ));
        }
        stream.pause(true);
        let handed_off = match self.ask_hand_off(stream).await {
            Ok(_) => self.passed_on(stream).await,
            Err(error) => Err(error),
        };
        if let Err(error) = handed_off {
            stream.pause(false);
            return Err(error);
        }
        let (streams, old) = (Arc::clone(&self.streams), Arc::clone(stream));
        let opened = tokio::task::spawn_blocking(move || streams.redeclare(&old, &spec)).await.map_err(lost)??;
        if let Some(sink) = stream.sink().record() {
            let reached = Reached { settled: sink.settled, published: sink.published };
            self.serve_sink(&opened, Some(sink), None, reached).await?;
        }
        self.keep(&opened, None);
        Ok(())
    }

    /// Waits until queries read from segments all that a stream has published.
    async fn passed_on(&self, stream: &Stream) -> Result<()> {
        let began = std::time::Instant::now();
        while stream.sink().record().is_some_and(|sink| sink.settled < sink.published) || !stream.is_empty() {
            if began.elapsed() > PASS_ON {
                return Err(not_passed_on());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Hands a stream's rows off whenever they are due, for as long as it is open.
    fn keep(self: &Arc<Self>, stream: &Arc<Stream>, before: Option<Closed>) {
        let (asked, asking) = tokio::sync::mpsc::channel(16);
        self.hand_offs.lock().insert(stream.name().to_owned(), asked);
        let keeper = Keeper::new(Arc::downgrade(self), Arc::clone(stream), before);
        self.watching.lock().spawn(keeper.run(asking));
    }

    async fn ask_hand_off(&self, stream: &Stream) -> Result<HandOff> {
        let closing = || Error::canceled("the database is being closed");
        let asked = self.hand_offs.lock().get(stream.name()).cloned().ok_or_else(closing)?;
        let (answer, answered) = oneshot::channel();
        asked.send(answer).await.map_err(|_| closing())?;
        answered.await.map_err(|_| closing())?
    }

    /// Publishes a generation, unless that was done already. The rows are shown throughout, and once.
    async fn publish_generation(&self, stream: &Stream, closed: &Closed) -> Result<HandOff> {
        let name = stream_name(stream.id());
        let reached = self.store.stream_position(&name, 0).await?;
        if reached >= closed.to {
            // An attempt whose answer was lost.
            self.reread_sink(stream.sink()).await?;
            self.catch_up().await?;
        } else if reached != closed.from {
            return Err(Error::conflict(format!(
                "stream `{name}` is published up to {reached}, not {}: another process works on it",
                closed.from
            )));
        } else {
            self.attempt(stream, closed).await?;
        }
        let generation = &closed.generation;
        if generation.index.num_rows() == 0 && self.served.is_none() {
            self.view.close_generation(&generation.data_source, generation.number);
        }
        let segments = generation.segments.lock().clone();
        Ok(HandOff { rows: generation.index.num_rows(), segments })
    }

    async fn attempt(&self, stream: &Stream, closed: &Closed) -> Result<()> {
        let advance = StreamAdvance { stream: stream_name(stream.id()), part: 0, from: closed.from, to: closed.to };
        let publishing = Publishing {
            generation: &closed.generation,
            name: format!("{}{}", publications_of(stream.id()), closed.to),
            advances: vec![advance],
            sink: stream.sink().record().map(|sink| SinkRecord { published: closed.to, ..sink }),
            max_rows_per_segment: stream.spec().tuning_config.max_rows_per_segment,
        };
        self.publish_rows(publishing).await?.into_iter().for_each(|record| stream.sink().set(record));
        Ok(())
    }

    /// Makes segments of a generation and publishes them, together with how far its stream is then. Returns what was
    /// recorded of its rows, if queries of others read them.
    pub(super) async fn publish_rows(&self, publishing: Publishing<'_>) -> Result<Option<SinkRecord>> {
        let Publishing { generation, name, advances, .. } = &publishing;
        let data_source = generation.data_source.as_str();
        let work_dir = WorkDir::create(self.tmp_dir.join(new_uid(self.clock.now()).to_string()))?;
        let finished = self.seal(&publishing, work_dir.path()).await?;
        crash_point("segments.sealed");
        let now = self.clock.now();
        let publish_id = format!("{name}_{}", new_uid(now));
        let named = finished.into_iter().map(|segment| (new_uid(now), segment)).collect::<Vec<_>>();
        let pending = named.iter().map(|(uid, _)| *uid).collect();
        let sink = publishing.sink.clone().map(|sink| SinkRecord { pending, ..sink });
        if sink.is_none() {
            // From here on whoever shows one of them shows the generation no longer.
            generation.publishes_as(named.iter().map(|(uid, _)| *uid));
        }
        let load_specs =
            named.iter().map(|(uid, segment)| self.storage.load_spec(&named_id(data_source, segment), *uid));
        let load_specs = load_specs.collect::<Vec<_>>();
        self.store.intend_pushes(&publish_id, &load_specs).await?;
        crash_point("pushes.intended");
        let published = async {
            let request = PublishRequest {
                publish_id: publish_id.clone(),
                data_source: data_source.to_owned(),
                mode: PublishMode::Append,
                segments: self.push(data_source, named).await?,
                now,
                intended_pushes: load_specs.len() as u64,
                advances: advances.clone(),
                sink: sink.clone(),
                tombstone_uids: new_uid,
                standing: self.standing(),
            };
            self.commit(&request).await
        };
        match published.await {
            Ok(added) => {
                crash_point("publication.shown");
                *generation.segments.lock() = added.iter().map(|record| record.id.to_string()).collect();
                Ok(sink)
            }
            Err(error) => {
                self.remove_unpublished(&publish_id).await;
                Err(error)
            }
        }
    }

    async fn seal(&self, publishing: &Publishing<'_>, work_dir: &Path) -> Result<Vec<FinishedSegment>> {
        let options = SealOptions {
            work_dir: work_dir.to_owned(),
            threads: 1,
            max_rows_per_segment: usize::try_from(publishing.max_rows_per_segment).unwrap_or(usize::MAX),
            granularity: self.fitting_granularity(publishing.generation)?,
            cancel: Cancellation::default(),
        };
        let generation = Arc::clone(publishing.generation);
        tokio::task::spawn_blocking(move || generation.index.seal(&options)).await.map_err(lost)?
    }

    /// A granularity whose segments can be appended to what is there: the spec's, or else the coarsest finer one. `None`
    /// is the spec's.
    fn fitting_granularity(&self, generation: &Generation) -> Result<Option<Granularity>> {
        let granules = generation.index.granules().into_keys().collect::<Vec<_>>();
        let fits =
            |granules: &[Interval]| granules.iter().all(|g| self.view.takes_appended(&generation.data_source, *g));
        if fits(&granules) {
            return Ok(None);
        }
        let finer = finer_first().into_iter().rev().find(|finer| {
            let parts = granules.iter().flat_map(|granule| finer.buckets(*granule)).collect::<BTreeSet<_>>();
            let parts = parts.into_iter().collect::<Vec<_>>();
            // Those that reach out of a granule are not finer.
            parts.iter().all(|part| granules.iter().any(|granule| granule.contains_interval(part))) && fits(&parts)
        });
        Ok(finer)
    }

    /// Moves rows of these generations to files until half of the room is free, if memory is short. Returns how many
    /// chunks were moved.
    pub(super) async fn make_room(&self, generations: Vec<Arc<Generation>>) -> Result<u64> {
        if !self.streams.is_short_of_memory() {
            return Ok(0);
        }
        let streams = Arc::clone(&self.streams);
        let spill = move || -> Result<u64> {
            let is_enough = || streams.memory_bytes() <= streams.limits().memory_bytes / 2;
            let mut moved = 0;
            for generation in generations {
                moved += streams.spill(&generation, is_enough)?;
            }
            Ok(moved)
        };
        tokio::task::spawn_blocking(spill).await.map_err(lost)?
    }
}

/// Publications of all streams are called so.
pub(super) const PUBLICATIONS: &str = "push_";

/// What the ids of a stream's publications begin with.
pub(super) fn publications_of(stream_id: &str) -> String {
    format!("{PUBLICATIONS}{stream_id}_")
}

/// A generation that is to be published.
pub(super) struct Publishing<'a> {
    pub(super) generation: &'a Arc<Generation>,
    /// What the publication is called, but for what tells an attempt from others.
    pub(super) name: String,
    pub(super) advances: Vec<StreamAdvance>,
    /// What is recorded with it, but for the segments that it becomes, if queries of others read its rows.
    pub(super) sink: Option<SinkRecord>,
    pub(super) max_rows_per_segment: u64,
}

/// The streams of a database in a directory.
pub(super) fn streams(
    dir: &Path,
    view: &Arc<crate::view::View>,
    clock: &Arc<dyn crate::clock::Clock>,
    limits: Limits,
) -> Result<Arc<Streams>> {
    Streams::new(dir.join(REALTIME_DIR), Arc::new(LocalDisk), Arc::clone(view), Arc::clone(clock), limits)
}

#[cfg(test)]
mod tests;
