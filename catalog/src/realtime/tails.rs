//! What a realtime process of a cluster serves to brokers: of each stream, the rows after a position.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use henge_engine::Result;
use henge_engine::model::SegmentUid;
use henge_engine::segment::Segment;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::inventory::{Feed, FeedPage, Position};
use crate::store::ServerRecord;
use crate::view::{Generation, View};

/// Whoever has an open question hears at once; this is for those who are just asking again.
const LEAVE: Duration = Duration::from_millis(500);

/// The brokers of a cluster, as a realtime process asks after them.
#[async_trait]
pub trait Brokers: Debug + Send + Sync {
    /// Whether every broker that is there shows a data source as of `rev`, or later. Waits a moment for those that do
    /// not; one that does not answer for long is not waited for.
    async fn have_seen(&self, data_source: &str, rev: u64) -> bool;
}

/// The rows that brokers read here. Clones are the same.
///
/// A tail is named by [`tail_uid`](crate::store::tail_uid). It is served from before any broker asks for it until after
/// the last one could.
#[derive(Clone, Debug)]
pub struct Tails {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: Arc<View>,
    state: Mutex<State>,
    /// Counts the changes of the feed.
    changed: watch::Sender<u64>,
    is_leaving: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    feed: Feed,
    served: HashMap<SegmentUid, Place>,
}

/// Where a tail begins.
#[derive(Clone, Debug)]
struct Place {
    data_source: String,
    stream: SegmentUid,
    /// The number of its first generation: all later ones of the stream belong to it too.
    first: u64,
}

impl Tails {
    pub fn new(view: Arc<View>) -> Self {
        let (state, changed, is_leaving) = (Mutex::default(), watch::Sender::new(0), AtomicBool::new(false));
        Self { inner: Arc::new(Inner { view, state, changed, is_leaving }) }
    }

    /// Serves a tail from here on: the rows of a generation, which is shown, and of all later ones of its stream.
    pub fn serve(&self, uid: SegmentUid, first: &Generation) {
        let Generation { data_source, stream, number, .. } = first;
        {
            let mut state = self.inner.state.lock();
            state.served.insert(uid, Place { data_source: data_source.clone(), stream: *stream, first: *number });
            state.feed.announce(uid);
        }
        self.tell();
    }

    /// Serves it no more. Whoever reads it already reads on.
    pub fn withdraw(&self, uid: SegmentUid) {
        {
            let mut state = self.inner.state.lock();
            state.served.remove(&uid);
            state.feed.withdraw(uid);
        }
        self.tell();
    }

    /// Serves no tail of a stream any more, whoever reads it.
    pub fn withdraw_all(&self, stream: SegmentUid) {
        {
            let mut state = self.inner.state.lock();
            let State { feed, served } = &mut *state;
            served.retain(|uid, place| {
                let stays = place.stream != stream;
                if !stays {
                    feed.withdraw(*uid);
                }
                stays
            });
        }
        self.tell();
    }

    /// The rows of a tail as of now. `None` if it is not served here, or no more.
    pub fn segments(&self, uid: SegmentUid) -> Result<Option<Vec<Arc<dyn Segment>>>> {
        let place = self.inner.state.lock().served.get(&uid).cloned();
        let Some(Place { data_source, stream, first }) = place else { return Ok(None) };
        // Rows are added to the last of these only; those before it ended before it began.
        let mut generations = self.inner.view.generations_of(&data_source);
        generations.retain(|generation| generation.stream == stream);
        if !generations.iter().any(|generation| generation.number == first) {
            return Ok(None);
        }
        let mut segments = Vec::new();
        for generation in generations.iter().filter(|generation| generation.number >= first) {
            let snapshot = generation.index.snapshot()?;
            segments.extend(snapshot.segments.iter().map(|chunk| Arc::clone(&chunk.segment)));
        }
        Ok(Some(segments))
    }

    /// What a listener that is at `known` has not heard yet: at once if there is something, else after a while, empty.
    pub async fn feed(&self, server: &ServerRecord, known: &Position, wait: Duration) -> FeedPage {
        let inner = &self.inner;
        let mut changed = inner.changed.subscribe();
        let began_leaving = inner.is_leaving.load(Ordering::Relaxed);
        let is_current = || {
            let is_leaving = inner.is_leaving.load(Ordering::Relaxed);
            is_leaving == began_leaving && inner.state.lock().feed.is_current(&server.incarnation, known)
        };
        let _ = tokio::time::timeout(wait, async { while is_current() && changed.changed().await.is_ok() {} }).await;
        let generations = inner.view.generations();
        let used_bytes: usize = generations.iter().map(|generation| generation.index.memory_bytes()).sum();
        let page = inner.state.lock().feed.page(server, known, used_bytes as u64, 0);
        FeedPage { is_leaving: inner.is_leaving.load(Ordering::Relaxed), ..page }
    }

    /// Tells all who listen that this server is about to end, and waits until they had the time to hear it.
    pub async fn leave(&self) {
        self.inner.is_leaving.store(true, Ordering::Relaxed);
        self.tell();
        tokio::time::sleep(LEAVE).await;
    }

    /// How many are announced.
    pub fn num_served(&self) -> usize {
        self.inner.state.lock().feed.len()
    }

    fn tell(&self) {
        self.inner.changed.send_modify(|changed| *changed += 1);
    }
}
