use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use henge_engine::ingest::live::{ParseOptions, RowParser, StagedRows};
use henge_engine::ingest::{BadRow, InputFormat, Reason};
use henge_engine::model::Timestamp;
use henge_engine::storage::LogItem;
use henge_engine::{Error, Result};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use super::committer::{Append, Closed, Command, Committer};
use super::entry::{Head, OnError, PushKey, decode};
use super::sink::Sink;
use super::spec::PushSpec;
use super::status::{Counts, StreamState, StreamStatus, add, get};
use super::streams::{Found, Reached, Room, Streams};
use super::window::{Added, Window};
use crate::view::Generation;

const LOG_DIR: &str = "wal";
/// Requests that wait for the log.
const QUEUE: usize = 1_024;
/// After so long a request that found no room may be sent again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Rows for a data source.
#[derive(Debug)]
pub struct Push {
    pub payload: Payload,
    pub key: Option<PushKey>,
    pub on_error: OnError,
    pub max_row_bytes: usize,
}

#[derive(Debug)]
pub enum Payload {
    Text { format: InputFormat, text: Bytes },
    Batches(Vec<RecordBatch>),
}

/// What became of a request.
#[derive(Debug)]
pub enum Pushed {
    /// Its rows are durable, and shown.
    Taken {
        rows: u64,
        unparseable: u64,
        thrown_away: u64,
        /// The number of its entry in the log.
        position: u64,
        /// It had been taken before, under its key: these are the numbers of then.
        duplicate: bool,
        reasons: BTreeMap<Reason, u64>,
        bad_rows: Vec<BadRow>,
    },
    /// It has bad rows, and nothing was taken.
    Refused { reasons: BTreeMap<Reason, u64>, bad_rows: Vec<BadRow> },
    /// There is no room just now.
    Busy { retry_after: Duration },
    /// There is no room until rows are published.
    Full { message: String },
}

/// A data source that rows are pushed to.
#[derive(Debug)]
pub struct Stream {
    pub(super) core: Arc<Core>,
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a stream's thread shares with who pushes.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) streams: Arc<Streams>,
    pub(super) id: String,
    pub(super) spec: PushSpec,
    pub(super) parser: RowParser,
    pub(super) counts: Counts,
    pub(super) paused: AtomicBool,
    pub(super) quarantine: Mutex<Option<String>>,
    /// That rows are added to.
    pub(super) generation: RwLock<Arc<Generation>>,
    pub(super) wal_bytes: AtomicU64,
    pub(super) wal_position: AtomicU64,
    pub(super) published_position: AtomicU64,
    /// What is recorded of it where brokers see it.
    pub(super) sink: Sink,
    /// Wakes who hands off.
    pub(super) wake: Notify,
}

impl Core {
    pub(super) fn name(&self) -> &str {
        &self.spec.data_schema.data_source
    }

    pub(super) fn new_generation(&self) -> Arc<Generation> {
        self.streams.open_generation(&self.sink, &self.parser)
    }

    fn parse_options(&self, head: &Head) -> ParseOptions {
        let window = self.spec.window(head.received);
        ParseOptions { window, max_row_bytes: head.max_row_bytes, ..ParseOptions::default() }
    }

    /// The rows of a request, the same whenever it is read.
    fn stage(&self, head: &Head, rows: Bytes) -> Result<StagedRows> {
        let options = self.parse_options(head);
        match &head.format {
            Some(format) => self.parser.parse("the request", format, rows, &options),
            None => self.parser.take("the request", super::entry::from_arrow(&rows)?, &options),
        }
    }

    /// What is wrong with a request whose rows are all to be taken.
    pub(super) fn is_refused(head: &Head, staged: &StagedRows) -> bool {
        head.on_error == OnError::Fail && (staged.stats.unparseable > 0 || staged.stats.processed_with_error > 0)
    }
}

impl Stream {
    pub(super) fn open(streams: Arc<Streams>, found: Found, reached: Reached) -> Result<(Arc<Self>, Option<Closed>)> {
        let Reached { settled, published } = reached;
        let parser = RowParser::new(&found.spec.data_schema)?;
        let sink = Sink::new(found.id.parse()?, &found.spec.data_schema.data_source);
        let open_generation = || streams.open_generation(&sink, &parser);
        let before = (settled < published).then(open_generation);
        let generation = open_generation();
        let (disk, dir) = (Arc::clone(&streams.disk), streams.dir.join(&found.id).join(LOG_DIR));
        let core = Core {
            streams,
            id: found.id,
            spec: found.spec,
            parser,
            counts: Counts::default(),
            paused: AtomicBool::new(false),
            quarantine: Mutex::default(),
            generation: RwLock::new(Arc::clone(&generation)),
            wal_bytes: AtomicU64::new(0),
            wal_position: AtomicU64::new(0),
            published_position: AtomicU64::new(settled),
            sink,
            wake: Notify::new(),
        };
        let core = Arc::new(core);
        let mut window = Window::default();
        let recovered = henge_engine::storage::Log::recover(disk, dir, settled + 1, |item| {
            match item {
                LogItem::Preamble(bytes) => window = Window::from_bytes(bytes)?,
                LogItem::Entry { number, bytes } => {
                    let into = match number {
                        _ if number > published => Some(&generation),
                        _ if number > settled => before.as_ref(),
                        _ => None,
                    };
                    replay(&core, into.map(Arc::as_ref), &mut window, (number, bytes))?;
                }
            }
            Ok(())
        })?;
        if recovered.torn_bytes > 0 {
            tracing::warn!(
                stream = core.name(),
                bytes = recovered.torn_bytes,
                "the end of the log was torn: it was not acknowledged, and is left out"
            );
        }
        if let Some(damage) = recovered.damage {
            tracing::error!(stream = core.name(), "{}", damage.message);
            *core.quarantine.lock() = Some(damage.message);
        }
        if let Some(before) = &before {
            before.index.close()?;
            core.streams.view.open_generation(Arc::clone(before));
        }
        core.streams.view.open_generation(generation);
        let (commands, coming) = sync_channel(QUEUE);
        let committer = Committer::new(Arc::clone(&core), recovered.log, window, published);
        let thread = run(committer, coming)?;
        let before = before.map(|generation| Closed { generation, from: settled, to: published });
        Ok((Arc::new(Self { core, commands, thread: Mutex::new(Some(thread)) }), before))
    }

    /// Its rows as brokers see them.
    pub fn sink(&self) -> &Sink {
        &self.core.sink
    }

    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// By what its positions are known in the metadata store.
    pub fn id(&self) -> &str {
        &self.core.id
    }

    pub fn spec(&self) -> &PushSpec {
        &self.core.spec
    }

    /// Takes rows: they are durable and shown when this returns that they are taken. Fails with `ServiceUnavailable` or a
    /// like category where the log cannot be written; then they may be sent again.
    pub async fn push(&self, push: Push) -> Result<Pushed> {
        if let Some(turned_away) = self.turn_away(&push)? {
            return Ok(turned_away);
        }
        let bytes = push.payload.size_bytes();
        let room = Room::take(Arc::clone(&self.core.streams), bytes);
        let Some(room) = room else {
            add(&self.core.counts.busy, 1);
            return Ok(Pushed::Busy { retry_after: RETRY_AFTER });
        };
        let closed = |_| ended();
        let turn = self.core.streams.parsing.acquire().await.map_err(closed)?;
        let core = Arc::clone(&self.core);
        let prepared = tokio::task::spawn_blocking(move || prepare(&core, push)).await;
        let (head, rows, staged) =
            prepared.map_err(|error| Error::runtime_failure("rows could not be parsed").with_source(error))??;
        drop(turn);
        let (reasons, bad_rows) = (staged.reasons.clone(), staged.bad_rows.clone());
        if Core::is_refused(&head, &staged) {
            add(&self.core.counts.refused, 1);
            self.core.counts.not_taken(&reasons);
            return Ok(Pushed::Refused { reasons, bad_rows });
        }
        let (answer, answered) = oneshot::channel();
        self.send(Command::Append(Box::new(Append { head, rows, staged, answer, _room: room }))).await?;
        let (added, duplicate) = answered.await.map_err(|_| ended())??;
        let Added { number, rows, unparseable, thrown_away } = added;
        if !duplicate {
            self.core.counts.not_taken(&reasons);
        }
        Ok(Pushed::Taken { rows, unparseable, thrown_away, position: number, duplicate, reasons, bad_rows })
    }

    fn turn_away(&self, push: &Push) -> Result<Option<Pushed>> {
        let core = &self.core;
        if let Some(message) = core.quarantine.lock().as_ref() {
            return Ok(Some(Pushed::Full {
                message: format!("{message}; hand off what is left with `acceptLoss=true` to go on without them"),
            }));
        }
        if let Some(PushKey::Idempotency(key)) | Some(PushKey::Producer { producer: key, .. }) = &push.key
            && (key.is_empty() || key.len() > 255)
        {
            return Err(Error::invalid_input("the key of a request, or its producer, has 1 to 255 bytes"));
        }
        if core.wal_bytes.load(Ordering::Relaxed) > core.streams.limits.wal_bytes {
            core.wake.notify_one();
            return Ok(Some(Pushed::Full {
                message: format!("the write-ahead log of `{}` is full until its rows are published", core.name()),
            }));
        }
        let short = core.streams.memory_bytes() > core.streams.limits.memory_bytes.saturating_mul(2);
        if short || core.paused.load(Ordering::Relaxed) {
            core.wake.notify_one();
            add(&core.counts.busy, 1);
            return Ok(Some(Pushed::Busy { retry_after: RETRY_AFTER }));
        }
        Ok(None)
    }

    /// The queue is long; when it is full, who sends waits.
    async fn send(&self, mut command: Command) -> Result<()> {
        use std::sync::mpsc::TrySendError;
        loop {
            match self.commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(ended()),
                Err(TrySendError::Full(back)) => command = back,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the generation that rows are added to, and begins another. `None` if there is nothing to publish.
    pub async fn rotate(&self) -> Result<Option<Closed>> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Rotate(answer)).await?;
        answered.await.map_err(|_| ended())?
    }

    /// Says how far the stream is published: the log need not keep it.
    pub async fn published(&self, position: u64, took: Duration, rows: u64) -> Result<()> {
        let counts = &self.core.counts;
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        add(&counts.hand_offs, 1);
        add(&counts.hand_off_ms, took);
        add(&counts.handed_off_rows, rows);
        counts.last_hand_off_ms.store(took, Ordering::Relaxed);
        *counts.last_error.lock() = None;
        let (answer, answered) = oneshot::channel();
        self.send(Command::Published(position, answer)).await?;
        answered.await.map_err(|_| ended())
    }

    /// Notes what went wrong last.
    pub fn failed(&self, error: &Error) {
        *self.core.counts.last_error.lock() = Some(error.to_string());
    }

    /// Whether rows are to be handed off now.
    pub fn is_due(&self) -> bool {
        let core = &self.core;
        let generation = Arc::clone(&core.generation.read());
        let (rows, granules) = (generation.index.num_rows(), generation.index.num_granules());
        let is_long = core.wal_bytes.load(Ordering::Relaxed) > core.streams.limits.wal_bytes / 2;
        if rows == 0 {
            return is_long;
        }
        let opened = generation.first_row.lock().unwrap_or(generation.opened);
        is_long
            || rows >= core.spec.tuning_config.max_total_rows
            || granules >= core.streams.limits.granules
            || core.spec.is_due(opened, core.streams.clock.now())
    }

    /// Whether all of its log is published, and read from segments.
    pub fn is_empty(&self) -> bool {
        self.core.wal_position.load(Ordering::Relaxed) <= self.core.published_position.load(Ordering::Relaxed)
    }

    /// Waits until something may be due earlier than by time.
    pub async fn woken(&self) {
        self.core.wake.notified().await;
    }

    /// Counts chunks that were moved to files.
    pub fn persisted(&self, chunks: u64) {
        add(&self.core.counts.persists, chunks);
    }

    pub fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.core.generation.read())
    }

    pub fn is_quarantined(&self) -> bool {
        self.core.quarantine.lock().is_some()
    }

    /// Goes on without what was lost.
    pub fn accept_loss(&self) {
        *self.core.quarantine.lock() = None;
    }

    /// Sends requests away for a while, or takes them again.
    pub fn pause(&self, paused: bool) {
        self.core.paused.store(paused, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        // It may have ended by itself.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!(stream = self.name(), "the thread of a stream panicked");
        }
    }

    pub fn status(&self) -> StreamStatus {
        let core = &self.core;
        let counts = &core.counts;
        let generations = core.streams.view.generations();
        let ours = generations.iter().filter(|generation| generation.data_source == core.name()).collect::<Vec<_>>();
        let first = ours.iter().filter_map(|generation| *generation.first_row.lock()).min();
        let state = match (self.is_quarantined(), core.paused.load(Ordering::Relaxed)) {
            (true, _) => StreamState::Quarantined,
            (_, true) => StreamState::Paused,
            _ => StreamState::Running,
        };
        StreamStatus {
            data_source: core.name().to_owned(),
            state,
            live_rows: ours.iter().map(|generation| generation.index.num_rows()).sum(),
            live_granules: ours.iter().map(|generation| generation.index.num_granules() as u64).sum(),
            live_since: first,
            memory_bytes: ours.iter().map(|generation| generation.index.memory_bytes() as u64).sum(),
            wal_bytes: get(&core.wal_bytes),
            wal_position: get(&core.wal_position),
            published_position: get(&core.published_position),
            requests: get(&counts.requests),
            duplicates: get(&counts.duplicates),
            refused: get(&counts.refused),
            busy: get(&counts.busy),
            rows: get(&counts.rows),
            replayed_rows: get(&counts.replayed_rows),
            bytes: get(&counts.bytes),
            syncs: get(&counts.syncs),
            hand_offs: get(&counts.hand_offs),
            hand_off_ms: get(&counts.hand_off_ms),
            last_hand_off_ms: get(&counts.last_hand_off_ms),
            handed_off_rows: get(&counts.handed_off_rows),
            persists: get(&counts.persists),
            reasons: counts.reasons.lock().clone(),
            last_error: counts.last_error.lock().clone(),
        }
    }
}

/// Shows an entry of the log again; without a generation, only notes by what it is known.
fn replay(
    core: &Core,
    generation: Option<&Generation>,
    window: &mut Window,
    (number, bytes): (u64, &[u8]),
) -> Result<()> {
    let (head, rows) = decode(bytes)?;
    let staged = core.stage(&head, Bytes::copy_from_slice(rows)).map_err(|error| error.context("entry", number))?;
    if let Some(key) = &head.key {
        window.add(key, added(number, &staged));
    }
    let Some(generation) = generation else { return Ok(()) };
    if Core::is_refused(&head, &staged) {
        return Err(
            Error::corrupt("rows that were acknowledged are not read as they were then").context("entry", number)
        );
    }
    add(&core.counts.replayed_rows, staged.num_rows() as u64);
    generation.append(&staged, number, core.streams.clock.now())?;
    make_room(core, generation)
}

/// A log may have more rows than there is memory for. They are not among those that are shown yet.
fn make_room(core: &Core, generation: &Generation) -> Result<()> {
    let (streams, limit) = (&core.streams, core.streams.limits.memory_bytes);
    let taken = || streams.memory_bytes() + generation.index.memory_bytes();
    if taken() > limit {
        let moved = streams.spill(generation, || taken() <= limit / 2)?;
        add(&core.counts.persists, moved);
    }
    Ok(())
}

pub(super) fn added(number: u64, staged: &StagedRows) -> Added {
    let stats = &staged.stats;
    Added { number, rows: staged.num_rows() as u64, unparseable: stats.unparseable, thrown_away: stats.thrown_away }
}

fn prepare(core: &Core, push: Push) -> Result<(Head, Bytes, StagedRows)> {
    let Push { payload, key, on_error, max_row_bytes } = push;
    let received = core.streams.clock.now();
    let (format, rows) = match payload {
        Payload::Text { format, text } => (Some(format), text),
        Payload::Batches(batches) => (None, super::entry::to_arrow(&batches)?.into()),
    };
    let head = Head { received, key, on_error, format, max_row_bytes };
    let staged = core.stage(&head, rows.clone())?;
    let granules = staged.granules().len();
    if granules > core.streams.limits.granules {
        return Err(Error::invalid_input(format!(
            "the rows lie in {granules} granules of `{}`, more than the {} that are taken at once: is their time right? \
             Send fewer, or use `henge ingest`",
            core.spec.data_schema.granularity_spec.segment_granularity, core.streams.limits.granules
        )));
    }
    Ok((head, rows, staged))
}

impl Payload {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Text { text, .. } => text.len(),
            Self::Batches(batches) => batches.iter().map(RecordBatch::get_array_memory_size).sum(),
        }
    }
}

fn run(committer: Committer, commands: Receiver<Command>) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("henge-log".to_owned())
        .spawn(move || committer.run(&commands))
        .map_err(|error| Error::runtime_failure("the thread of a stream cannot be started").with_source(error))
}

fn ended() -> Error {
    Error::canceled("the stream ended before it answered: whether the rows were taken is not known")
}

impl Generation {
    /// Shows rows that are durable.
    pub(super) fn append(&self, staged: &StagedRows, number: u64, now: Timestamp) -> Result<()> {
        if staged.num_rows() > 0 {
            self.first_row.lock().get_or_insert(now);
        }
        self.index.append(staged, number)
    }
}
