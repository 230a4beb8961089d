//! A historical: the segments that one server of a cluster serves.
//!
//! ```text
//! historical/segment-cache/   segment files, unless `--segment-cache` names other places
//! historical/segment-info/    what is recorded of each: one file a segment's bytes
//! historical/leader-epoch     the greatest epoch of a coordinator that gave orders here
//! ```
//!
//! Invariants: what is announced is on this machine, whole and verified, or, of a historical that reads on demand, in deep
//! storage with the footer that was published; a segment whose record is in `segment-info` is
//! announced again after a restart without being fetched; orders of a coordinator that is not the leader any more are
//! refused, also after a restart; the cache never holds more than it may.
//!
//! A segment is fetched, verified, synced and named; then its record is written and synced; then it is announced. One
//! that is dropped is withdrawn at once, and stays readable for a while, for queries that were planned before.

mod cold;
mod info;
mod verify;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use henge_engine::model::SegmentUid;
use henge_engine::segment::Segment;
use henge_engine::storage::DeepStorage;
use henge_engine::{Error, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub use self::cold::ColdFigures;
use self::cold::{ColdRoom, ColdSegment};
use self::info::InfoDir;
use crate::inventory::{Feed, FeedPage, Position};
use crate::store::{SegmentRecord, ServerRecord};
use crate::view::{Druids, LazySegment, Reads};

/// Segments fetched at one time.
const LOADERS: usize = 4;
/// Loads that wait; a coordinator keeps far fewer on their way.
const QUEUED: usize = 20_000;

/// Whoever has an open question hears at once; this is for those who are just asking again.
const LEAVE: Duration = Duration::from_millis(500);

/// How a historical is opened.
#[derive(Clone, Debug)]
pub struct HistoricalOptions {
    pub dir: PathBuf,
    pub storage: DeepStorage,
    /// What is to be converted is served as Druid wrote it nevertheless.
    pub druids: Druids,
    /// How long a dropped segment stays readable.
    pub drop_delay: Duration,
    /// Whether segments are served that are not here: what queries ask for of them is read when they do.
    pub on_demand: bool,
}

/// What a coordinator orders.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orders {
    /// Of the coordinator's lease.
    pub epoch: u64,
    /// The most urgent first.
    #[serde(default)]
    pub load: Vec<SegmentRecord>,
    #[serde(default)]
    pub drop: Vec<SegmentUid>,
}

/// The segments that this server serves. Clones are the same.
#[derive(Clone, Debug)]
pub struct Historical {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: HistoricalOptions,
    info: InfoDir,
    /// Where segments are served that are not here.
    cold: Option<Arc<ColdRoom>>,
    /// Held for as long as this lives, so that no other process has the directory.
    _lock: std::fs::File,
    state: Mutex<State>,
    /// The greatest epoch that gave orders.
    epoch: Mutex<u64>,
    /// Counts the changes of the feed.
    changed: watch::Sender<u64>,
    queued: Notify,
    is_leaving: AtomicBool,
    working: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct State {
    feed: Feed,
    here: HashMap<SegmentUid, Here>,
    queue: VecDeque<SegmentRecord>,
    /// What is queued or being fetched; taken out by whoever cancels it.
    loading: HashSet<SegmentUid>,
    /// Of the segments that are here, as they were published.
    bytes: u64,
}

/// A segment that is served here.
#[derive(Clone, Debug)]
struct Here {
    segment: Served,
    record: SegmentRecord,
    is_leaving: bool,
}

#[derive(Clone, Debug)]
enum Served {
    /// On this machine.
    Whole(Arc<LazySegment>),
    OnDemand(Arc<ColdSegment>),
}

impl Served {
    /// Reads its bytes, and fails unless they are those that were published. What is read on demand is always checked.
    fn verify(&self) -> Result<()> {
        match self {
            Self::Whole(segment) => segment.verify(),
            Self::OnDemand(_) => Ok(()),
        }
    }
}

impl Historical {
    /// Opens the directory and announces what it has from before.
    pub async fn open(options: HistoricalOptions) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || Inner::open(options)).await;
        let lost = |error| Error::runtime_failure("a background thread ended without an answer").with_source(error);
        let this = Self { inner: Arc::new(opened.map_err(lost)??) };
        let mut working = this.inner.working.lock();
        for _ in 0..LOADERS {
            let inner = Arc::clone(&this.inner);
            working.spawn(async move { inner.load_queued().await });
        }
        let inner = Arc::clone(&this.inner);
        working.spawn(async move { inner.verify_cached().await });
        drop(working);
        Ok(this)
    }

    /// Does what a coordinator orders, or rather begins to; the feed tells what became of it. Fails with `Conflict` if
    /// another one has led since.
    pub async fn order(&self, orders: Orders) -> Result<()> {
        self.inner.check_epoch(orders.epoch)?;
        for uid in orders.drop {
            self.inner.drop_segment(uid)?;
        }
        self.inner.queue(orders.load)
    }

    /// A segment to read: one that is announced, or was until a moment ago.
    pub fn segment(&self, uid: SegmentUid) -> Option<Arc<dyn Segment>> {
        self.inner.state.lock().here.get(&uid).map(|here| match &here.segment {
            Served::Whole(segment) => Arc::clone(segment) as _,
            Served::OnDemand(segment) => Arc::clone(segment) as _,
        })
    }

    /// What was read on demand. `None` where segments are fetched as a whole.
    pub fn cold_figures(&self) -> Option<ColdFigures> {
        self.inner.cold.as_ref().map(|cold| cold.figures())
    }

    /// Looks at a segment's bytes again, because reading it failed. One that is damaged is withdrawn and fetched anew.
    pub fn doubt(&self, uid: SegmentUid) {
        let inner = Arc::clone(&self.inner);
        self.inner.spawn(async move { inner.verify_one(uid).await });
    }

    /// What has changed since a listener asked last: at once if there is something, else after a while, empty.
    pub async fn feed(&self, server: &ServerRecord, known: &Position, wait: Duration) -> FeedPage {
        let mut changed = self.inner.changed.subscribe();
        let began_leaving = self.inner.is_leaving.load(Ordering::Relaxed);
        let is_current = || {
            let is_leaving = self.inner.is_leaving.load(Ordering::Relaxed);
            is_leaving == began_leaving && self.inner.state.lock().feed.is_current(&server.incarnation, known)
        };
        let _ = tokio::time::timeout(wait, async { while is_current() && changed.changed().await.is_ok() {} }).await;
        let (cached_bytes, _) = self.inner.options.storage.cached_bytes();
        let is_leaving = self.inner.is_leaving.load(Ordering::Relaxed);
        let state = self.inner.state.lock();
        // A coordinator counts what it gave out, wherever it is.
        let used_bytes = if self.inner.cold.is_some() { state.bytes } else { cached_bytes };
        let page = state.feed.page(server, known, used_bytes, state.loading.len() as u64);
        FeedPage { is_leaving, ..page }
    }

    /// Tells all who listen that this server is about to end, and waits until they had the time to hear it.
    pub async fn leave(&self) {
        self.inner.is_leaving.store(true, Ordering::Relaxed);
        self.inner.tell();
        tokio::time::sleep(LEAVE).await;
    }

    /// How many segments are announced.
    pub fn num_served(&self) -> usize {
        self.inner.state.lock().feed.len()
    }

    /// What is on its way here.
    pub fn num_loading(&self) -> usize {
        self.inner.state.lock().loading.len()
    }

    /// Stops fetching. What is here can be read on.
    pub async fn close(&self) {
        let mut working = std::mem::take(&mut *self.inner.working.lock());
        working.shutdown().await;
    }
}

impl Inner {
    fn open(options: HistoricalOptions) -> Result<Self> {
        let info = InfoDir::open(options.dir.join("segment-info"))?;
        let lock = info::lock(&options.dir)?;
        let epoch = info::read_epoch(&options.dir)?;
        let mut state = State::default();
        let cold = options.on_demand.then(|| ColdRoom::new(options.storage.clone()));
        for record in info.read_all(&options.storage, cold.is_some())? {
            let segment = options.served(&record, cold.as_ref());
            state.put(record, segment);
        }
        options.storage.retain_cached(&state.here.keys().copied().collect())?;
        Ok(Self {
            options,
            info,
            cold,
            _lock: lock,
            state: Mutex::new(state),
            epoch: Mutex::new(epoch),
            changed: watch::Sender::new(0),
            queued: Notify::new(),
            is_leaving: AtomicBool::new(false),
            working: Mutex::new(JoinSet::new()),
        })
    }

    fn check_epoch(&self, epoch: u64) -> Result<()> {
        let mut greatest = self.epoch.lock();
        if epoch < *greatest {
            return Err(Error::conflict(format!(
                "orders of epoch {epoch} come too late: a coordinator of epoch {greatest} leads since"
            )));
        }
        if epoch > *greatest {
            info::write_epoch(&self.options.dir, epoch)?;
            *greatest = epoch;
        }
        Ok(())
    }

    /// Takes loads into the queue. What is here is announced again if it was about to leave.
    fn queue(&self, records: Vec<SegmentRecord>) -> Result<()> {
        let mut refused = 0;
        for record in records {
            let mut state = self.state.lock();
            if let Some(here) = state.here.get_mut(&record.uid) {
                if std::mem::take(&mut here.is_leaving) {
                    self.info.add(&here.record)?;
                    state.feed.announce(record.uid);
                }
                continue;
            }
            if state.queue.len() >= QUEUED {
                refused += 1;
            } else if state.loading.insert(record.uid) {
                state.queue.push_back(record);
                self.queued.notify_one();
            }
        }
        self.tell();
        match refused {
            0 => Ok(()),
            refused => Err(Error::capacity_exceeded(format!("{refused} loads too many: {QUEUED} wait already"))),
        }
    }

    /// Withdraws a segment, and removes it later.
    fn drop_segment(self: &Arc<Self>, uid: SegmentUid) -> Result<()> {
        let mut state = self.state.lock();
        if state.loading.remove(&uid) {
            state.queue.retain(|queued| queued.uid != uid);
        }
        let Some(here) = state.here.get_mut(&uid) else { return Ok(()) };
        if std::mem::replace(&mut here.is_leaving, true) {
            return Ok(());
        }
        state.feed.withdraw(uid);
        drop(state);
        self.tell();
        self.info.remove(uid)?;
        let inner = Arc::clone(self);
        self.spawn(async move {
            tokio::time::sleep(inner.options.drop_delay).await;
            inner.remove(uid);
        });
        Ok(())
    }

    /// Removes a segment unless it was ordered again meanwhile.
    fn remove(&self, uid: SegmentUid) {
        let mut state = self.state.lock();
        if state.here.get(&uid).is_some_and(|here| here.is_leaving) {
            state.take(uid);
            // The lock is held, so that nobody fetches it meanwhile.
            self.forget(uid);
        }
    }

    fn forget(&self, uid: SegmentUid) {
        if let Err(error) = self.options.storage.forget(uid) {
            tracing::warn!(%error, %uid, "a dropped segment is removed at the next start");
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut working = self.working.lock();
        while working.try_join_next().is_some() {}
        working.spawn(work);
    }

    fn tell(&self) {
        self.changed.send_modify(|changed| *changed += 1);
    }

    async fn load_queued(self: &Arc<Self>) {
        loop {
            let next = self.state.lock().queue.pop_front();
            match next {
                Some(record) => self.load(record).await,
                None => self.queued.notified().await,
            }
        }
    }

    async fn load(self: &Arc<Self>, record: SegmentRecord) {
        let loaded = self.fetch(&record).await;
        {
            let mut state = self.state.lock();
            // Who dropped it meanwhile does not want it.
            let is_wanted = state.loading.remove(&record.uid);
            match loaded {
                Ok(segment) if is_wanted => state.put(record, segment),
                Ok(_) => {
                    self.forget(record.uid);
                    if let Err(error) = self.info.remove(record.uid) {
                        tracing::warn!(%error, "a dropped segment may be announced after the next start");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, segment = %record.id, "a segment cannot be loaded");
                    state.feed.fail(record.uid, error.to_string());
                }
            }
        }
        self.tell();
    }

    /// The segment, on this machine, verified and recorded.
    async fn fetch(self: &Arc<Self>, record: &SegmentRecord) -> Result<Served> {
        let storage = &self.options.storage;
        let segment = match self.options.served(record, self.cold.as_ref()) {
            Served::Whole(segment) => segment,
            Served::OnDemand(segment) => return self.look_at(segment, record).await,
        };
        if record.kind() == crate::timeline::GroupKind::Tombstone {
            return Ok(Served::Whole(segment));
        }
        let was_here = segment.is_here();
        if let Some(cold) = self.cold.as_ref().filter(|_| !was_here) {
            cold.make_anywhere(record.size_bytes);
        }
        segment.fetch().await?;
        let (this, read, record) = (Arc::clone(self), Arc::clone(&segment), record.clone());
        let uid = record.uid;
        // What was fetched just now was verified on its way; then it is enough to open it.
        let checked = move || {
            if was_here {
                read.verify()?
            } else {
                read.file().map(drop)?
            }
            this.info.add(&record)
        };
        let lost = |error| Error::runtime_failure("a background thread ended without an answer").with_source(error);
        if let Err(error) = tokio::task::spawn_blocking(checked).await.map_err(lost)? {
            storage.forget(uid)?;
            return Err(error);
        }
        Ok(Served::Whole(segment))
    }

    /// A segment that stays where it is: its footer is read, so that what is announced is known to be there.
    async fn look_at(self: &Arc<Self>, segment: Arc<ColdSegment>, record: &SegmentRecord) -> Result<Served> {
        let (this, looked_at, record) = (Arc::clone(self), Arc::clone(&segment), record.clone());
        let look = move || looked_at.look().and_then(|()| this.info.add(&record));
        let lost = |error| Error::runtime_failure("a background thread ended without an answer").with_source(error);
        tokio::task::spawn_blocking(look).await.map_err(lost)??;
        Ok(Served::OnDemand(segment))
    }
}

impl HistoricalOptions {
    /// How a segment is served: what is not ours is always fetched as a whole.
    fn served(&self, record: &SegmentRecord, cold: Option<&Arc<ColdRoom>>) -> Served {
        match cold.filter(|_| record.load_spec.is_ours()) {
            Some(cold) => Served::OnDemand(ColdSegment::new(cold, record)),
            None => {
                let nulls = self.druids.nulls(&record.id.data_source);
                Served::Whole(LazySegment::alone(self.storage.clone(), record, nulls, Reads::Here))
            }
        }
    }
}

impl State {
    /// Has a segment from here on, and announces it.
    fn put(&mut self, record: SegmentRecord, segment: Served) {
        self.feed.announce(record.uid);
        self.bytes += record.size_bytes;
        let before = self.here.insert(record.uid, Here { segment, record, is_leaving: false });
        self.bytes -= before.map_or(0, |before| before.record.size_bytes);
    }

    /// Has it no more.
    fn take(&mut self, uid: SegmentUid) -> Option<Here> {
        self.feed.withdraw(uid);
        let taken = self.here.remove(&uid);
        self.bytes -= taken.as_ref().map_or(0, |here| here.record.size_bytes);
        taken
    }
}

#[cfg(test)]
mod tests;
