//! Topics that flow into data sources: read from where they were last published, shown at once, handed off as segments.
//!
//! A [`Supervisor`] has the rows of one topic that are read and not published. Its readers, threads of their own, take
//! records from a [`RecordSupplier`](henge_engine::ingest::stream::RecordSupplier) and append their rows together with
//! the offsets they came from; whoever keeps it publishes the two in one transaction.
//!
//! Invariants: the rows that are shown and not published are exactly those of the records between the published offsets
//! and the reached ones, but for those that were counted as not taken; there is no log: after a restart they are read
//! again; an offset that is missing is never replaced by another one but by a person.

mod judge;
mod reader;
mod spec;
mod status;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use henge_engine::ingest::live::{ParseOptions, RowParser, StagedRows};
use henge_engine::ingest::stream::{Partition, StreamSource, Survey};
use henge_engine::model::{SegmentUid, Timestamp};
use henge_engine::{Error, Result};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

pub use self::judge::{
    Gap, Known, Positions, ResetTo, Verdict, after_reset, before_reading, share, source_from_json, source_to_json,
    while_reading,
};
pub use self::reader::{Ending, Reader};
pub use self::spec::{StreamIoConfig, StreamTuning, SupervisorSpec};
pub use self::status::{SupervisorError, SupervisorState, SupervisorStatus};

use self::spec::RecordFormat;
use self::status::{Counts, Health};
use self::text::Text;
use super::sink::Sink;
use super::status::{add, get};
use super::streams::Streams;
use crate::view::Generation;

/// The longest record that is read: what a broker takes at most is seldom more than a hundredth of it.
const MAX_ROW_BYTES: usize = 64 << 20;
/// Bad rows of a batch that are told.
const BAD_ROWS_KEPT: usize = 10;

/// Rows that are read from a topic and not published, and how far that is.
#[derive(Debug)]
pub struct Supervisor {
    streams: Arc<Streams>,
    spec: SupervisorSpec,
    format: RecordFormat,
    parser: RowParser,
    sink: Sink,
    started: Timestamp,
    open: Mutex<Open>,
    counts: Counts,
    health: Mutex<Health>,
    /// Rows wait for others to be handed off.
    crowded: AtomicBool,
    wake: Notify,
}

/// What rows are added to.
#[derive(Debug)]
struct Open {
    generation: Arc<Generation>,
    /// Of all partitions that are read: where the generation begins, and where it ends so far.
    began: Positions,
    reached: Positions,
    batches: u64,
}

/// A generation that nothing is added to any more, and the offsets whose rows it has.
#[derive(Debug)]
pub struct ClosedRows {
    pub generation: Arc<Generation>,
    /// From the first, up to but without the second.
    pub stretches: BTreeMap<Partition, (u64, u64)>,
}

/// What became of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Appended {
    Taken,
    /// Others have to be handed off before.
    NoRoom,
}

impl Supervisor {
    /// Reads nothing yet.
    pub fn new(streams: Arc<Streams>, spec: SupervisorSpec) -> Result<Arc<Self>> {
        let parser = RowParser::new(&spec.data_schema)?;
        let format = spec.format()?;
        let sink = Sink::new(sink_uid(&spec.id), spec.data_source());
        let generation = streams.open_generation(&sink, &parser);
        streams.view.open_generation(Arc::clone(&generation));
        let open = Open { generation, began: Positions::new(), reached: Positions::new(), batches: 0 };
        Ok(Arc::new(Self {
            started: streams.clock.now(),
            streams,
            spec,
            format,
            parser,
            sink,
            open: Mutex::new(open),
            counts: Counts::default(),
            health: Mutex::default(),
            crowded: AtomicBool::new(false),
            wake: Notify::new(),
        }))
    }

    pub fn spec(&self) -> &SupervisorSpec {
        &self.spec
    }

    /// Its rows as brokers see them.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Takes places to read from that were not known before: those that are published.
    pub fn begin(&self, positions: &Positions) {
        let mut open = self.open.lock();
        for (partition, offset) in positions {
            open.began.entry(*partition).or_insert(*offset);
            open.reached.entry(*partition).or_insert(*offset);
        }
    }

    /// Where reading is, of all partitions.
    pub fn reached(&self) -> Positions {
        self.open.lock().reached.clone()
    }

    /// Forgets where reading was, and the rows that are not published, which are read again. They are exchanged for those
    /// of a generation that is empty, once `serve` has it.
    pub fn forget(&self, serve: impl FnOnce(&Generation)) {
        let mut open = self.open.lock();
        let generation = self.streams.open_generation(&self.sink, &self.parser);
        self.streams.view.open_generation(Arc::clone(&generation));
        serve(&generation);
        self.streams.view.close_generation(self.spec.data_source(), open.generation.number);
        *open = Open { generation, began: Positions::new(), reached: Positions::new(), batches: 0 };
    }

    /// Ends the generation that rows are added to, and begins another. `None` if nothing was read.
    pub fn rotate(&self) -> Result<Option<ClosedRows>> {
        let mut open = self.open.lock();
        let moved = open.reached.iter().filter_map(|(partition, to)| {
            let from = open.began.get(partition).copied().unwrap_or(*to);
            (from != *to).then_some((*partition, (from, *to)))
        });
        let stretches = moved.collect::<BTreeMap<_, _>>();
        if stretches.is_empty() {
            return Ok(None);
        }
        open.generation.index.close()?;
        let fresh = self.streams.open_generation(&self.sink, &self.parser);
        self.streams.view.open_generation(Arc::clone(&fresh));
        let generation = std::mem::replace(&mut open.generation, fresh);
        open.began = open.reached.clone();
        open.batches = 0;
        self.crowded.store(false, Ordering::Relaxed);
        Ok(Some(ClosedRows { generation, stretches }))
    }

    /// No longer shows what rows are added to; there are none.
    pub fn close(&self) {
        let number = self.open.lock().generation.number;
        self.streams.view.close_generation(self.spec.data_source(), number);
    }

    pub fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.open.lock().generation)
    }

    /// Whether something was read that is not closed.
    pub fn has_read(&self) -> bool {
        let open = self.open.lock();
        open.began != open.reached
    }

    /// Whether that is to be handed off now.
    pub fn is_due(&self) -> bool {
        if !self.has_read() {
            return false;
        }
        let generation = self.generation();
        let (rows, granules) = (generation.index.num_rows(), generation.index.num_granules());
        let opened = generation.first_row.lock().unwrap_or(generation.opened);
        rows >= self.spec.max_total_rows()
            || granules >= self.streams.limits.granules
            || self.crowded.load(Ordering::Relaxed)
            || self.health.lock().state.is_final()
            || self.spec.is_due(opened, self.streams.clock.now())
    }

    /// Has what was read handed off, because there is no room for more.
    fn hand_off_early(&self) {
        self.crowded.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Waits until something may be due earlier than by time.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    fn parse(&self, text: &Text) -> Result<StagedRows> {
        let options = ParseOptions {
            window: self.spec.window(self.streams.clock.now()),
            max_row_bytes: MAX_ROW_BYTES,
            bad_rows_kept: BAD_ROWS_KEPT,
        };
        // It is copied once more as it is read; what costs is the parsing.
        let bytes = bytes::Bytes::copy_from_slice(&text.bytes);
        self.parser.parse(&self.spec.io_config.topic, self.format.lines(), bytes, &options)
    }

    /// Shows rows, and says from which records they are, both at once.
    fn append(&self, staged: &StagedRows, reached: &Positions) -> Result<Appended> {
        let mut open = self.open.lock();
        let index = &open.generation.index;
        let is_first = index.num_rows() == 0;
        let crowded =
            index.would_exceed(staged, self.streams.limits.granules) || index.would_have_too_many_columns(staged);
        if crowded && !is_first {
            return Ok(Appended::NoRoom);
        }
        let number = open.batches + 1;
        open.generation.append(staged, number, self.streams.clock.now())?;
        open.batches = number;
        for (partition, offset) in reached {
            open.reached.insert(*partition, *offset);
        }
        let is_full = open.generation.index.num_rows() >= self.spec.max_total_rows();
        drop(open);
        if is_full || self.streams.is_short_of_memory() {
            self.wake.notify_one();
        }
        Ok(Appended::Taken)
    }

    fn count(&self, text: &Text, staged: &StagedRows) {
        let (counts, stats) = (&self.counts, &staged.stats);
        add(&counts.records, text.num_records() as u64);
        add(&counts.bytes, text.bytes.len() as u64);
        add(&counts.rows, stats.processed + stats.processed_with_error);
        add(&counts.rows_with_error, stats.processed_with_error);
        add(&counts.thrown_away, stats.thrown_away);
        add(&counts.unparseable, stats.unparseable);
        add(&counts.empty, text.empty);
        add(&counts.exceptions, stats.unparseable + stats.processed_with_error);
        if staged.reasons.is_empty() {
            return;
        }
        let mut reasons = counts.reasons.lock();
        for (reason, count) in &staged.reasons {
            *reasons.entry(*reason).or_default() += count;
        }
        drop(reasons);
        let mut health = self.health.lock();
        for bad in &staged.bad_rows {
            health.add_bad_row(text.told(&self.spec.io_config.topic, bad));
        }
    }

    /// Whether more rows cannot be parsed than may be, with these.
    fn would_be_too_bad(&self, staged: &StagedRows) -> bool {
        let bad = staged.stats.unparseable + staged.stats.processed_with_error;
        let limit = self.spec.max_parse_exceptions();
        bad > 0 && limit.is_some_and(|limit| get(&self.counts.exceptions) + bad > limit)
    }

    /// How it is from now on.
    pub fn set_state(&self, state: SupervisorState) {
        let mut health = self.health.lock();
        if health.state == state {
            return;
        }
        let name = &self.spec.id;
        match &state {
            SupervisorState::NeedsDecision(gaps) => {
                let gaps = gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!(
                    supervisor = name,
                    "{gaps}; say from where reading goes on with \
                     `POST /druid/indexer/v1/supervisor/{name}/reset?confirm=true`"
                );
                health.add_error(SupervisorError { time: self.streams.clock.now(), message: gaps, of_stream: true });
            }
            SupervisorState::Running => health.was_reached = true,
            _ => {}
        }
        tracing::info!(supervisor = name, state = %state, "supervisor");
        health.state = state;
    }

    pub fn state(&self) -> SupervisorState {
        self.health.lock().state.clone()
    }

    /// Begins to count parse exceptions anew.
    pub fn forgive(&self) {
        self.counts.exceptions.store(0, Ordering::Relaxed);
    }

    /// What was found of the stream.
    pub fn surveyed(&self, survey: Survey, source: StreamSource) {
        let mut health = self.health.lock();
        health.survey = Some((self.streams.clock.now(), survey));
        health.source = source;
    }

    /// Of each partition the offset that was next there when the stream was last looked at.
    pub fn ends(&self) -> Positions {
        let health = self.health.lock();
        let survey = health.survey.iter().flat_map(|(_, survey)| &survey.partitions);
        survey.map(|(partition, there)| (*partition, there.end)).collect()
    }

    /// Where the stream comes from that is read.
    pub fn source(&self) -> StreamSource {
        self.health.lock().source.clone()
    }

    /// The stream cannot be reached just now.
    pub fn lost_contact(&self, error: &Error) {
        let was_reached = self.health.lock().was_reached;
        self.failed(error, true);
        let state = if was_reached { SupervisorState::LostContact } else { SupervisorState::UnableToConnect };
        if matches!(
            self.state(),
            SupervisorState::Connecting
                | SupervisorState::Running
                | SupervisorState::LostContact
                | SupervisorState::UnableToConnect
        ) {
            self.set_state(state);
        }
    }

    /// Notes what went wrong.
    pub fn failed(&self, error: &Error, of_stream: bool) {
        let error = SupervisorError { time: self.streams.clock.now(), message: error.to_string(), of_stream };
        self.health.lock().add_error(error);
    }

    /// Notes what was handed off.
    pub fn published(&self, took: Duration, rows: u64) {
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        add(&self.counts.hand_offs, 1);
        add(&self.counts.hand_off_ms, took);
        add(&self.counts.handed_off_rows, rows);
        self.counts.last_hand_off_ms.store(took, Ordering::Relaxed);
    }

    /// Counts chunks that were moved to files.
    pub fn persisted(&self, chunks: u64) {
        add(&self.counts.persists, chunks);
    }

    /// How it is, with the rows of `waiting` that are closed and not published yet.
    pub fn status(&self, waiting: Option<&ClosedRows>) -> SupervisorStatus {
        let (generation, mut published, reached) = {
            let open = self.open.lock();
            (Arc::clone(&open.generation), open.began.clone(), open.reached.clone())
        };
        for (partition, (from, _)) in waiting.iter().flat_map(|closed| &closed.stretches) {
            published.insert(*partition, *from);
        }
        let generations = [Some(&generation), waiting.map(|closed| &closed.generation)];
        let generations = generations.into_iter().flatten().collect::<Vec<_>>();
        let live_since = generations.iter().filter_map(|generation| *generation.first_row.lock()).min();
        let now = self.streams.clock.now();
        let due =
            live_since.map(|since| self.spec.task_duration_seconds(since) - (now.millis() - since.millis()) / 1000);
        let health = self.health.lock();
        let survey = health.survey.as_ref();
        let ends = |survey: &Survey| survey.partitions.iter().map(|(p, there)| (*p, there.end)).collect();
        let counts = &self.counts;
        SupervisorStatus {
            id: self.spec.id.clone(),
            kind: self.spec.kind.clone(),
            data_source: self.spec.data_source().to_owned(),
            topic: self.spec.io_config.topic.clone(),
            task_count: self.spec.io_config.task_count,
            state: health.state.clone(),
            spec: self.spec.shown(),
            started: self.started,
            published,
            latest: survey.map_or_else(Positions::new, |(_, survey)| ends(survey)),
            surveyed: survey.map(|(time, _)| *time),
            lag: survey.map_or_else(BTreeMap::new, |(_, survey)| judge::lag(survey, &reached)),
            reached,
            live_rows: generations.iter().map(|generation| generation.index.num_rows()).sum(),
            live_since,
            hand_off_due_seconds: due.map(|seconds| seconds.max(0)),
            duration_seconds: self.spec.task_duration_seconds(now),
            records: get(&counts.records),
            bytes: get(&counts.bytes),
            rows: get(&counts.rows),
            rows_with_error: get(&counts.rows_with_error),
            thrown_away: get(&counts.thrown_away),
            unparseable: get(&counts.unparseable),
            empty: get(&counts.empty),
            hand_offs: get(&counts.hand_offs),
            hand_off_ms: get(&counts.hand_off_ms),
            last_hand_off_ms: get(&counts.last_hand_off_ms),
            handed_off_rows: get(&counts.handed_off_rows),
            persists: get(&counts.persists),
            reasons: counts.reasons.lock().clone(),
            errors: health.errors.iter().cloned().collect(),
            bad_rows: health.bad_rows.iter().cloned().collect(),
        }
    }
}

/// Names the stream of a supervisor: the same in every process. FNV-1a with 128 bits.
fn sink_uid(id: &str) -> SegmentUid {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let name = b"supervisor/".iter().chain(id.as_bytes());
    let hash = name.fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    SegmentUid::from_bytes(hash.to_be_bytes())
}

/// The supervisors of a process, with what of their rows waits to be published.
#[derive(Debug, Default)]
pub struct Supervisors {
    by_id: RwLock<BTreeMap<String, Kept>>,
}

/// A supervisor, and the rows that its keeper publishes just now.
#[derive(Clone, Debug)]
pub struct Kept {
    pub supervisor: Arc<Supervisor>,
    pub waiting: Arc<Mutex<Option<Arc<ClosedRows>>>>,
}

impl Kept {
    pub fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor, waiting: Arc::default() }
    }

    pub fn status(&self) -> SupervisorStatus {
        let waiting = self.waiting.lock().clone();
        self.supervisor.status(waiting.as_deref())
    }
}

impl Supervisors {
    pub fn get(&self, id: &str) -> Option<Kept> {
        self.by_id.read().get(id).cloned()
    }

    /// In the order of their ids.
    pub fn all(&self) -> Vec<Kept> {
        self.by_id.read().values().cloned().collect()
    }

    pub fn insert(&self, kept: Kept) {
        self.by_id.write().insert(kept.supervisor.spec.id.clone(), kept);
    }

    pub fn remove(&self, id: &str) -> Option<Kept> {
        self.by_id.write().remove(id)
    }
}
