use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use henge_engine::Result;
use henge_engine::storage::crash_point;
use tokio::sync::mpsc;

use super::{HandOff, HandOffAnswer, PASS_ON, not_passed_on};
use crate::database::Inner;
use crate::database::sink::{Passage, Stage};
use crate::realtime::{Closed, Stream};

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// The same while brokers are waited for.
const SHORT_TICK: Duration = Duration::from_millis(100);
/// A hand-off that failed is tried again after a while, and after twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Looks after a stream: hands its rows off, and moves them to files when memory is short.
pub(super) struct Keeper {
    inner: Weak<Inner>,
    stream: Arc<Stream>,
    /// What was closed and is still shown here.
    waiting: Option<Waiting>,
    /// Who wants all rows handed off that were taken before.
    askers: Vec<HandOffAnswer>,
    /// When it was looked last whether rows have columns that brokers do not know.
    columns_at: Option<Instant>,
}

/// Rows that nothing is added to any more.
struct Waiting {
    closed: Closed,
    stage: Stage,
    since: Instant,
}

impl Waiting {
    /// Whether who asks for more is not to wait for it.
    fn is_old(&self) -> bool {
        self.since.elapsed() > PASS_ON
    }
}

impl Keeper {
    /// `before` is what an earlier process published and had not let go of.
    pub(super) fn new(inner: Weak<Inner>, stream: Arc<Stream>, before: Option<Closed>) -> Self {
        let waiting = before.map(|closed| Waiting { closed, stage: Stage::Published, since: Instant::now() });
        Self { inner, stream, waiting, askers: Vec::new(), columns_at: None }
    }

    pub(super) async fn run(mut self, mut asking: mpsc::Receiver<HandOffAnswer>) {
        let (mut pause, mut not_before) = (TICK, Instant::now());
        loop {
            tokio::select! {
                asked = asking.recv() => match asked {
                    Some(answer) => self.askers.push(answer),
                    // Nobody can ask any more: the stream was declared anew, or closed.
                    None => return,
                },
                () = self.stream.woken() => {}
                () = tokio::time::sleep(self.tick()) => {}
            }
            let Some(inner) = self.inner.upgrade() else { return };
            self.make_room(&inner).await;
            if let Err(error) = self.look_after_sink(&inner).await {
                tracing::warn!(stream = self.stream.name(), %error, "what brokers see of a stream is recorded later");
                self.stream.failed(&error);
            }
            if self.waiting.as_ref().is_some_and(|waiting| waiting.stage != Stage::Closed && waiting.is_old()) {
                self.answer(Err(not_passed_on()));
            }
            if !self.is_due(not_before) {
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
            self.answer(done);
        }
    }

    /// Whether something is to be published now.
    fn is_due(&self, not_before: Instant) -> bool {
        match self.waiting.as_ref().map(|waiting| waiting.stage) {
            // One after the other: what is published next is not read from segments before this is.
            Some(Stage::Published | Stage::PassedOn(_)) => false,
            // Where something was lost, a person decides whether to go on without it.
            stage => {
                let is_due = stage.is_some() || self.stream.is_due();
                let may_be = Instant::now() >= not_before && !self.stream.is_quarantined();
                !self.askers.is_empty() || (is_due && may_be)
            }
        }
    }

    /// How long nothing need be looked at.
    fn tick(&self) -> Duration {
        match &self.waiting {
            Some(Waiting { stage: Stage::Published | Stage::PassedOn(_), .. }) => SHORT_TICK,
            _ => TICK,
        }
    }

    fn answer(&mut self, done: Result<Option<HandOff>>) {
        let done = match done {
            // What they ask for comes next.
            Ok(None) => return,
            Ok(Some(done)) => Ok(done),
            Err(error) => Err(error),
        };
        for asker in self.askers.drain(..) {
            // Who does not wait for an answer does not want it.
            let _ = asker.send(match &done {
                Ok(done) => Ok(done.clone()),
                Err(error) => Err(error.duplicate()),
            });
        }
    }

    /// Publishes what waits, and then what came since. `None` if that has to wait until queries read from segments what
    /// was published just now.
    async fn hand_off(&mut self, inner: &Inner) -> Result<Option<HandOff>> {
        let mut all = HandOff::default();
        loop {
            let is_last = self.waiting.is_none();
            if is_last {
                let Some(closed) = self.stream.rotate().await? else { return Ok(Some(all)) };
                inner.serve_after(self.stream.sink(), closed.to, &self.stream.generation());
                self.waiting = Some(Waiting { closed, stage: Stage::Closed, since: Instant::now() });
            }
            let Some(Waiting { closed, stage: stage @ Stage::Closed, since }) = &mut self.waiting else {
                return Ok(None);
            };
            let HandOff { rows, segments } = inner.publish_generation(&self.stream, closed).await?;
            if inner.served.is_some() {
                *stage = Stage::Published;
            } else {
                self.stream.published(closed.to, since.elapsed(), rows).await?;
                self.waiting = None;
            }
            all.rows += rows;
            all.segments.extend(segments);
            if is_last {
                return Ok(Some(all));
            }
        }
    }

    /// In a cluster: records what brokers need to know, and lets go of what they read elsewhere.
    async fn look_after_sink(&mut self, inner: &Inner) -> Result<()> {
        if inner.served.is_none() {
            return Ok(());
        }
        if self.columns_at.is_none_or(|at| at.elapsed() >= TICK) {
            inner.record_columns(self.stream.sink(), &self.stream.spec().data_schema).await?;
            self.columns_at = Some(Instant::now());
        }
        let Some(Waiting { closed, stage, since }) = &mut self.waiting else { return Ok(()) };
        if *stage == Stage::Published
            && let Passage::Recorded(rev) = inner.pass_on(self.stream.sink(), closed.to).await?
        {
            crash_point("sink.settled");
            *stage = Stage::PassedOn(rev);
        }
        if let Stage::PassedOn(rev) = *stage
            && inner.brokers_have_seen(self.stream.sink(), rev).await
        {
            crash_point("brokers.seen");
            self.stream.published(closed.to, since.elapsed(), closed.generation.index.num_rows()).await?;
            inner.retire(self.stream.sink(), closed.from, Some(&closed.generation));
            self.waiting = None;
        }
        Ok(())
    }

    /// Moves rows to files when memory is short.
    async fn make_room(&self, inner: &Inner) {
        let waiting = self.waiting.as_ref().map(|waiting| Arc::clone(&waiting.closed.generation));
        match inner.make_room(waiting.into_iter().chain([self.stream.generation()]).collect()).await {
            Ok(moved) => self.stream.persisted(moved),
            Err(error) => {
                tracing::warn!(stream = self.stream.name(), %error, "rows stay in memory");
                self.stream.failed(&error);
            }
        }
    }
}
