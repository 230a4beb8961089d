//! Who serves which segment: what each historical tells, and what listeners make of it.
//!
//! A historical keeps a [`Feed`]: the set of segments it serves, and its latest changes, numbered. A coordinator or a
//! broker keeps an [`Inventory`] of all historicals, by asking each for the changes since the last number it knows. Pure:
//! who asks whom, and when, is not known here.
//!
//! Invariants: an inventory has of each server exactly what that server served at one of its numbers, or knows nothing
//! of it; a gap, another incarnation or a digest that differs leads to the whole set being asked for again. Whether a
//! server is there is an opinion, which changes nothing but who is asked first.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_engine::model::SegmentUid;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::store::ServerRecord;

/// Changes that a historical remembers; who is further behind gets the whole set.
const REMEMBERED: usize = 10_000;
/// Changes in one answer; the rest comes with the next one.
const PAGE: usize = 10_000;
/// Failed loads that a listener remembers of one server.
const FAILURES: usize = 1_000;

/// A server that has not answered for this long is asked after all others.
pub const SUSPECT: Duration = Duration::from_millis(2_500);
/// One that has not answered for this long is not asked any more.
pub const DEAD: Duration = Duration::from_secs(20);

/// What became of a segment on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FeedChange {
    Served(SegmentUid),
    Gone(SegmentUid),
    /// It could not be loaded.
    Failed(SegmentUid, String),
}

/// A part of what a historical tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedPage {
    pub server: ServerRecord,
    /// The number of the last change in it.
    pub seq: u64,
    /// Whether `changes` is all it serves, in place of whatever was known.
    pub is_whole: bool,
    pub changes: Vec<FeedChange>,
    /// Of all it serves as of `seq`; `None` in the middle of many changes.
    #[serde(default)]
    pub digest: Option<u64>,
    pub used_bytes: u64,
    /// Segments on their way to it.
    pub num_loading: u64,
    /// Whether it is about to end.
    #[serde(default)]
    pub is_leaving: bool,
}

/// What a listener knows already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    pub incarnation: String,
    pub seq: u64,
}

/// What a historical serves, and how that changed lately.
#[derive(Debug, Default)]
pub struct Feed {
    seq: u64,
    served: HashSet<SegmentUid>,
    digest: u64,
    /// The latest changes with their numbers.
    changes: VecDeque<(u64, FeedChange)>,
}

impl Feed {
    pub fn serves(&self, uid: SegmentUid) -> bool {
        self.served.contains(&uid)
    }

    pub fn len(&self) -> usize {
        self.served.len()
    }

    pub fn is_empty(&self) -> bool {
        self.served.is_empty()
    }

    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Serves a segment from here on.
    pub fn announce(&mut self, uid: SegmentUid) {
        if self.served.insert(uid) {
            self.digest ^= hash(uid);
            self.push(FeedChange::Served(uid));
        }
    }

    /// Serves it no more.
    pub fn withdraw(&mut self, uid: SegmentUid) {
        if self.served.remove(&uid) {
            self.digest ^= hash(uid);
            self.push(FeedChange::Gone(uid));
        }
    }

    pub fn fail(&mut self, uid: SegmentUid, reason: String) {
        self.push(FeedChange::Failed(uid, reason));
    }

    fn push(&mut self, change: FeedChange) {
        self.seq += 1;
        self.changes.push_back((self.seq, change));
        if self.changes.len() > REMEMBERED {
            self.changes.pop_front();
        }
    }

    /// What has changed since `known`, or everything: the number reached, whether it is everything, and the changes.
    fn since(&self, known: Option<u64>) -> (u64, bool, Vec<FeedChange>) {
        let first = self.changes.front().map_or(self.seq + 1, |(seq, _)| *seq);
        match known.filter(|known| *known + 1 >= first && *known <= self.seq) {
            Some(known) => {
                let skip = usize::try_from(known + 1 - first).unwrap_or(usize::MAX);
                let page = self.changes.iter().skip(skip).take(PAGE).collect::<Vec<_>>();
                let seq = page.last().map_or(known, |(seq, _)| *seq);
                (seq, false, page.into_iter().map(|(_, change)| change.clone()).collect())
            }
            None => (self.seq, true, self.served.iter().copied().map(FeedChange::Served).collect()),
        }
    }

    /// The answer to a listener that is at `known`.
    pub fn page(&self, server: &ServerRecord, known: &Position, used_bytes: u64, num_loading: u64) -> FeedPage {
        let known = (known.incarnation == server.incarnation).then_some(known.seq);
        let (seq, is_whole, changes) = self.since(known);
        let digest = (seq == self.seq).then_some(self.digest);
        FeedPage { server: server.clone(), seq, is_whole, changes, digest, used_bytes, num_loading, is_leaving: false }
    }

    /// Whether there is nothing new for a listener that is at `known`.
    pub fn is_current(&self, incarnation: &str, known: &Position) -> bool {
        known.incarnation == incarnation && known.seq == self.seq
    }
}

/// The same in every process and every version; sets that differ in a few do not cancel out.
fn hash(uid: SegmentUid) -> u64 {
    let value = u128::from_be_bytes(uid.to_bytes());
    let mut hash = ((value >> 64) as u64 ^ (value as u64).rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Whether a server is there, as far as one can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Alive,
    /// Has not answered in time, or its connection broke.
    Suspect,
    Dead,
}

/// A server as a listener knows it.
#[derive(Clone, Debug)]
pub struct ServerView {
    pub server: ServerRecord,
    pub used_bytes: u64,
    pub num_loading: u64,
    pub is_leaving: bool,
    seq: u64,
    served: HashSet<SegmentUid>,
    digest: u64,
    heard: Instant,
    is_broken: bool,
    failures: BTreeMap<SegmentUid, String>,
}

impl ServerView {
    /// All it serves.
    pub fn served(&self) -> impl ExactSizeIterator<Item = SegmentUid> {
        self.served.iter().copied()
    }

    /// Why segments could not be loaded by it, for those that are not loaded since.
    pub fn failures(&self) -> &BTreeMap<SegmentUid, String> {
        &self.failures
    }

    pub fn health(&self, now: Instant) -> Health {
        match now.saturating_duration_since(self.heard) {
            silence if silence >= DEAD => Health::Dead,
            silence if silence >= SUSPECT || self.is_broken => Health::Suspect,
            _ => Health::Alive,
        }
    }

    /// For how long it has not answered.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    pub fn position(&self) -> Position {
        Position { incarnation: self.server.incarnation.clone(), seq: self.seq }
    }
}

/// Whether an answer could be made use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// With whether anything changed.
    Done(bool),
    /// It does not fit what is known: everything is to be asked for.
    Gap,
}

/// All historicals, and who serves what.
#[derive(Debug, Default)]
pub struct Inventory {
    servers: BTreeMap<String, ServerView>,
    holders: HashMap<SegmentUid, SmallVec<[Arc<str>; 2]>>,
}

impl Inventory {
    /// Where to go on with a server; the beginning if nothing of it is known.
    pub fn position(&self, name: &str) -> Position {
        self.servers.get(name).map(ServerView::position).unwrap_or_default()
    }

    /// Takes an answer in.
    pub fn apply(&mut self, page: FeedPage, now: Instant) -> Applied {
        let name = page.server.name.clone();
        let fits = self.servers.get(&name).is_some_and(|known| known.server.incarnation == page.server.incarnation);
        if !fits && !page.is_whole {
            return Applied::Gap;
        }
        let mut changed = !fits;
        if page.is_whole {
            changed |= self.forget(&name) > 0 || !page.changes.is_empty();
        }
        let view = self.servers.entry(name.clone()).or_insert_with(|| ServerView {
            server: page.server.clone(),
            used_bytes: 0,
            num_loading: 0,
            is_leaving: false,
            seq: page.seq,
            served: HashSet::new(),
            digest: 0,
            heard: now,
            is_broken: false,
            failures: BTreeMap::new(),
        });
        changed |= view.is_broken || view.is_leaving != page.is_leaving || view.server != page.server;
        view.is_leaving = page.is_leaving;
        (view.server, view.heard, view.is_broken) = (page.server, now, false);
        (view.used_bytes, view.num_loading) = (page.used_bytes, page.num_loading);
        view.seq = page.seq;
        let name: Arc<str> = name.into();
        for change in page.changes {
            changed = true;
            view.change(change, &name, &mut self.holders);
        }
        if page.digest.is_some_and(|digest| digest != view.digest) {
            self.remove(&name);
            return Applied::Gap;
        }
        Applied::Done(changed)
    }

    /// The connection to a server broke. Returns whether that is news.
    pub fn broke(&mut self, name: &str) -> bool {
        match self.servers.get_mut(name) {
            Some(view) => !std::mem::replace(&mut view.is_broken, true),
            None => false,
        }
    }

    /// A failed load was taken note of.
    pub fn forget_failure(&mut self, name: &str, uid: SegmentUid) {
        if let Some(view) = self.servers.get_mut(name) {
            view.failures.remove(&uid);
        }
    }

    /// Forgets a server that is not registered any more.
    pub fn remove(&mut self, name: &str) {
        self.forget(name);
        self.servers.remove(name);
    }

    /// Forgets all that a server serves. Returns how much that was.
    fn forget(&mut self, name: &str) -> usize {
        let Some(view) = self.servers.get_mut(name) else { return 0 };
        view.digest = 0;
        let served = std::mem::take(&mut view.served);
        for uid in &served {
            release(&mut self.holders, *uid, name);
        }
        served.len()
    }

    pub fn servers(&self) -> impl Iterator<Item = &ServerView> {
        self.servers.values()
    }

    pub fn server(&self, name: &str) -> Option<&ServerView> {
        self.servers.get(name)
    }

    /// The names of the servers that serve a segment, whatever their health.
    pub fn holders(&self, uid: SegmentUid) -> &[Arc<str>] {
        self.holders.get(&uid).map_or(&[], |names| names.as_slice())
    }

    /// What each server had told last.
    pub fn positions(&self) -> BTreeMap<String, Position> {
        self.servers.iter().map(|(name, view)| (name.clone(), view.position())).collect()
    }
}

impl ServerView {
    fn change(
        &mut self,
        change: FeedChange,
        name: &Arc<str>,
        holders: &mut HashMap<SegmentUid, SmallVec<[Arc<str>; 2]>>,
    ) {
        match change {
            FeedChange::Served(uid) => {
                self.failures.remove(&uid);
                if self.served.insert(uid) {
                    self.digest ^= hash(uid);
                    holders.entry(uid).or_default().push(Arc::clone(name));
                }
            }
            FeedChange::Gone(uid) => {
                if self.served.remove(&uid) {
                    self.digest ^= hash(uid);
                    release(holders, uid, name);
                }
            }
            FeedChange::Failed(uid, reason) => {
                if self.failures.len() >= FAILURES {
                    self.failures.pop_first();
                }
                self.failures.insert(uid, reason);
            }
        }
    }
}

fn release(holders: &mut HashMap<SegmentUid, SmallVec<[Arc<str>; 2]>>, uid: SegmentUid, name: &str) {
    if let Some(names) = holders.get_mut(&uid) {
        names.retain(|known| known.as_ref() != name);
        if names.is_empty() {
            holders.remove(&uid);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
