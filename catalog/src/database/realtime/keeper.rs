use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use henge_engine::Result;
use tokio::sync::mpsc;

use super::{HandOff, HandOffAnswer};
use crate::database::Inner;
use crate::realtime::{Closed, Stream};

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// A hand-off that failed is tried again after a while, and after twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Looks after a stream: hands its rows off, and moves them to files when memory is short.
pub(super) struct Keeper {
    inner: Weak<Inner>,
    stream: Arc<Stream>,
    /// What was closed and is not published yet.
    waiting: Option<Closed>,
}

impl Keeper {
    pub(super) fn new(inner: Weak<Inner>, stream: Arc<Stream>) -> Self {
        Self { inner, stream, waiting: None }
    }

    pub(super) async fn run(mut self, mut asking: mpsc::Receiver<HandOffAnswer>) {
        let (mut pause, mut not_before) = (TICK, Instant::now());
        loop {
            let asked = tokio::select! {
                asked = asking.recv() => match asked {
                    Some(answer) => Some(answer),
                    // Nobody can ask any more: the stream was declared anew, or closed.
                    None => return,
                },
                () = self.stream.woken() => None,
                () = tokio::time::sleep(TICK) => None,
            };
            let Some(inner) = self.inner.upgrade() else { return };
            self.make_room(&inner).await;
            let is_due = self.waiting.is_some() || self.stream.is_due();
            // Where something was lost, a person decides whether to go on without it.
            let waits = !is_due || Instant::now() < not_before || self.stream.is_quarantined();
            if asked.is_none() && waits {
                continue;
            }
            let done = self.hand_off(&inner).await;
            match &done {
                Ok(_) => pause = TICK,
                Err(error) => {
                    tracing::warn!(stream = self.stream.name(), %error, "rows are handed off later; they are shown and kept");
                    self.stream.failed(error);
                    not_before = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if let Some(answer) = asked {
                let _ = answer.send(done);
            }
        }
    }

    /// Publishes what waits, and then what came since.
    async fn hand_off(&mut self, inner: &Inner) -> Result<HandOff> {
        let mut all = HandOff::default();
        loop {
            let is_last = self.waiting.is_none();
            if is_last {
                self.waiting = self.stream.rotate().await?;
            }
            let Some(closed) = &self.waiting else { return Ok(all) };
            let began = Instant::now();
            let HandOff { rows, segments } = inner.publish_generation(&self.stream, closed).await?;
            self.stream.published(closed.to, began.elapsed(), rows).await?;
            all.rows += rows;
            all.segments.extend(segments);
            self.waiting = None;
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Moves rows to files when memory is short.
    async fn make_room(&self, inner: &Inner) {
        let waiting = self.waiting.as_ref().map(|closed| Arc::clone(&closed.generation));
        match inner.make_room(waiting.into_iter().chain([self.stream.generation()]).collect()).await {
            Ok(moved) => self.stream.persisted(moved),
            Err(error) => {
                tracing::warn!(stream = self.stream.name(), %error, "rows stay in memory");
                self.stream.failed(&error);
            }
        }
    }
}
