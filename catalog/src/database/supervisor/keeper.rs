use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use henge_engine::ingest::stream::{RecordSupplier, StreamConnector, Survey};
use henge_engine::{Error, Result};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::database::realtime::{PASS_ON, not_passed_on};
use crate::database::sink::{Passage, Stage, TakenOver};
use crate::database::{HandOff, Inner, lost};
use crate::realtime::Reached;
use crate::realtime::supervisor::{
    ClosedRows, Ending, Gap, Kept, Known, Positions, Reader, ResetTo, Supervisor, SupervisorState, after_reset,
    before_reading, share, source_from_json, source_to_json, while_reading,
};
use crate::store::StreamRecord;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// How often the stream is looked at: whether it is the same, how far it is, which partitions it has.
const SURVEY: Duration = Duration::from_secs(5);
/// The same while brokers are waited for.
const SHORT_TICK: Duration = Duration::from_millis(100);
/// What failed is tried again after a while, and after twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a supervisor is asked to do.
pub(in crate::database) enum Order {
    Suspend(oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
    Reset(ResetTo, oneshot::Sender<Result<Positions>>),
    HandOff(oneshot::Sender<Result<HandOff>>),
    /// Hands off and ends; on failure it goes on.
    End(oneshot::Sender<Result<HandOff>>),
    /// Ends, since another process reads the stream now: what was read and not published is not shown any more.
    Abandon,
}

/// A look at the stream that is under way, with where reading was when it began.
type Surveying = JoinHandle<(Result<Survey>, Option<Box<dyn RecordSupplier>>)>;

/// Looks after a supervisor: starts and ends its readers, looks at the stream, hands off what was read.
pub(super) struct Keeper {
    inner: Weak<Inner>,
    connector: Arc<dyn StreamConnector>,
    kept: Kept,
    readers: Vec<Reader>,
    ended: UnboundedSender<Ending>,
    ends: UnboundedReceiver<Ending>,
    surveyor: Option<Box<dyn RecordSupplier>>,
    surveying: Option<(Positions, Surveying)>,
    survey_at: Instant,
    gaps: Vec<Gap>,
    /// In a cluster: what was published and brokers read here yet.
    passing: Option<Passing>,
    /// When it was looked last whether rows have columns that brokers do not know.
    columns_at: Option<Instant>,
    /// In a cluster: what has to be read before brokers may read here.
    catching_up: Option<CatchingUp>,
    /// When a hand-off that failed, or readers that did, may be tried again, and how long the next pause is.
    hand_off: Pause,
    begin: Pause,
}

/// Rows that are published and not read from segments yet: those after one position of the sink, up to another.
struct Passing {
    from: u64,
    to: u64,
    stage: Stage,
    /// `None` if an earlier holder of the lease had them.
    closed: Option<Arc<ClosedRows>>,
}

/// An earlier holder of the lease may have shown rows that are not published: no answer has fewer than one before.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CatchingUp {
    /// The stream was not reached yet.
    Unknown,
    /// Up to where the stream was when it was taken over.
    To(Positions),
}

/// Between attempts that fail.
struct Pause {
    not_before: Instant,
    next: Duration,
}

impl Pause {
    fn none() -> Self {
        Self { not_before: Instant::now(), next: TICK }
    }

    fn failed(&mut self) {
        self.not_before = Instant::now() + self.next;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }
}

enum Event {
    Tick,
    Order(Order),
    Ended(Ending),
    Surveyed(Result<Survey>),
    /// Nobody gives orders any more.
    Over,
}

impl Keeper {
    /// `taken` is what is recorded of its rows where brokers see it.
    pub(super) fn new(
        inner: Weak<Inner>,
        connector: Arc<dyn StreamConnector>,
        kept: Kept,
        taken: Option<TakenOver>,
    ) -> Self {
        let (ended, ends) = mpsc::unbounded_channel();
        let reached = taken.map(|taken| taken.reached).filter(|reached| reached.settled != reached.published);
        let passing = reached.map(|Reached { settled, published }| Passing {
            from: settled,
            to: published,
            stage: Stage::Published,
            closed: None,
        });
        Self {
            inner,
            connector,
            kept,
            readers: Vec::new(),
            ended,
            ends,
            surveyor: None,
            surveying: None,
            survey_at: Instant::now(),
            gaps: Vec::new(),
            passing,
            columns_at: None,
            catching_up: taken
                .map(|taken| if taken.had_rows { CatchingUp::Unknown } else { CatchingUp::To(Positions::new()) }),
            hand_off: Pause::none(),
            begin: Pause::none(),
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            self.look();
            let event = self.event(&mut orders).await;
            let Some(inner) = self.inner.upgrade() else { return };
            match event {
                Event::Over => return self.stop_reading().await,
                Event::Order(Order::Abandon) => return self.abandon(&inner).await,
                Event::Order(Order::End(answer)) => {
                    let done = self.end(&inner).await;
                    let is_over = done.is_ok();
                    let _ = answer.send(done);
                    if is_over {
                        return;
                    }
                }
                Event::Order(order) => self.obey(&inner, order).await,
                Event::Ended(ending) => self.reader_ended(ending).await,
                Event::Surveyed(survey) => self.surveyed(&inner, survey).await,
                Event::Tick => {}
            }
            self.make_room(&inner).await;
            if let Err(error) = self.look_after_sink(&inner).await {
                tracing::warn!(supervisor = self.supervisor().spec().id, %error, "what brokers see is recorded later");
                self.supervisor().failed(&error, false);
            }
            let is_due = self.kept.waiting.lock().is_some() || self.supervisor().is_due();
            // One after the other: what is published next is not read from segments before this is.
            if is_due && self.passing.is_none() && Instant::now() >= self.hand_off.not_before {
                // What failed is noted there.
                let _ = self.hand_off(&inner).await;
            }
        }
    }

    fn supervisor(&self) -> &Arc<Supervisor> {
        &self.kept.supervisor
    }

    async fn event(&mut self, orders: &mut mpsc::Receiver<Order>) -> Event {
        let surveyed = async {
            match &mut self.surveying {
                Some((_, surveying)) => surveying.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv() => order.map_or(Event::Over, Event::Order),
            // A sender of it is kept here.
            ending = self.ends.recv() => ending.map_or(Event::Over, Event::Ended),
            surveyed = surveyed => match surveyed {
                Ok((survey, surveyor)) => {
                    self.surveyor = surveyor;
                    Event::Surveyed(survey)
                }
                Err(error) => Event::Surveyed(Err(lost(error))),
            },
            () = self.kept.supervisor.woken() => Event::Tick,
            () = tokio::time::sleep(if self.passing.is_some() { SHORT_TICK } else { TICK }) => Event::Tick,
        }
    }

    /// Begins to look at the stream, if it is time.
    fn look(&mut self) {
        let idle = matches!(
            self.supervisor().state(),
            SupervisorState::Suspended
                | SupervisorState::Stopping
                | SupervisorState::TooManyParseExceptions
                | SupervisorState::Unsupported(_)
        );
        let now = Instant::now();
        if idle || self.surveying.is_some() || now < self.survey_at || now < self.begin.not_before {
            return;
        }
        self.survey_at = now + SURVEY;
        let reached = self.supervisor().reached();
        self.surveying = Some((reached, self.survey()));
    }

    fn survey(&mut self) -> Surveying {
        let (connector, surveyor) = (Arc::clone(&self.connector), self.surveyor.take());
        let place = self.supervisor().spec().place();
        tokio::task::spawn_blocking(move || {
            let surveyor = match surveyor {
                Some(surveyor) => Ok(surveyor),
                None => place.and_then(|place| connector.connect(&place)),
            };
            match surveyor {
                Ok(mut surveyor) => (surveyor.survey(), Some(surveyor)),
                Err(error) => (Err(error), None),
            }
        })
    }

    /// A look at the stream, waited for.
    async fn survey_now(&mut self) -> Result<Survey> {
        let surveying = match self.surveying.take() {
            Some((_, surveying)) => surveying,
            None => self.survey(),
        };
        // One that was under way already may be from before readers ended.
        let (_, surveyor) = surveying.await.map_err(lost)?;
        self.surveyor = surveyor;
        let (survey, surveyor) = self.survey().await.map_err(lost)?;
        self.surveyor = surveyor;
        survey
    }

    async fn surveyed(&mut self, inner: &Inner, survey: Result<Survey>) {
        let before = self.surveying.take().map(|(before, _)| before).unwrap_or_default();
        let survey = match survey {
            Ok(survey) => survey,
            Err(error) => return self.supervisor().lost_contact(&error),
        };
        if self.readers.is_empty() {
            if let Err(error) = self.begin_reading(inner, survey).await {
                self.supervisor().failed(&error, false);
                self.begin.failed();
            }
            return;
        }
        let known = Known { source: self.supervisor().source(), positions: before };
        let mut verdict = while_reading(&survey, &known);
        verdict.keep_gaps(&self.gaps);
        if verdict.gaps.len() > self.gaps.len() || !verdict.begin.is_empty() {
            // Looked at once more, when nobody reads meanwhile.
            self.stop_reading().await;
            self.survey_at = Instant::now();
            return;
        }
        self.supervisor().surveyed(survey, known.source);
        if self.gaps.is_empty() {
            self.supervisor().set_state(SupervisorState::Running);
        }
    }

    /// Starts readers from where reading was, or else from where it was published, of all partitions without a gap.
    async fn begin_reading(&mut self, inner: &Inner, survey: Survey) -> Result<()> {
        let supervisor = Arc::clone(self.supervisor());
        let (spec, stream) = (supervisor.spec(), supervisor.spec().stream_name());
        let mut known = Known { source: supervisor.source(), positions: supervisor.reached() };
        if known.positions.is_empty() {
            known = recorded(inner.store.stream(&stream).await?)?;
        }
        let mut verdict = before_reading(&survey, &known, spec.io_config.use_earliest_offset);
        // Only a person closes a gap, also where the topic has grown over it meanwhile.
        verdict.keep_gaps(&self.gaps);
        let source = if known.source == Default::default() { survey.source.clone() } else { known.source };
        if verdict.gaps.iter().all(|gap| gap.partition().is_some()) {
            let begun = StreamRecord { source: Some(source_to_json(&source)), positions: verdict.begin.clone() };
            let stands = inner.store.begin_stream(&stream, &begun).await?;
            for partition in verdict.begin.keys() {
                known.positions.extend(stands.positions.get(partition).map(|offset| (*partition, *offset)));
            }
        }
        supervisor.begin(&known.positions);
        supervisor.surveyed(survey, source);
        let mut readable = known.positions;
        readable.retain(|partition, _| verdict.allows(*partition));
        let readers = usize::try_from(spec.io_config.task_count).unwrap_or(1).min(readable.len());
        for reader in 0..readers {
            let supplier = self.connector.connect(&spec.place()?)?;
            let from = share(&readable, reader, readers);
            self.readers.push(Reader::start(Arc::clone(&supervisor), supplier, from, self.ended.clone())?);
        }
        if self.catching_up == Some(CatchingUp::Unknown) {
            let ends = supervisor.ends();
            self.catching_up =
                Some(CatchingUp::To(readable.keys().filter_map(|p| Some((*p, *ends.get(p)?))).collect()));
        }
        self.gaps = verdict.gaps.clone();
        supervisor.set_state(match verdict.gaps {
            gaps if gaps.is_empty() => SupervisorState::Running,
            gaps => SupervisorState::NeedsDecision(gaps),
        });
        Ok(())
    }

    async fn stop_reading(&mut self) {
        let readers = std::mem::take(&mut self.readers);
        readers.iter().for_each(Reader::tell_to_stop);
        let joined = tokio::task::spawn_blocking(move || readers.into_iter().for_each(Reader::join)).await;
        if let Err(error) = joined {
            tracing::error!(%error, "readers could not be waited for");
        }
        // How those ended that were told to, or what the next ones find again.
        while self.ends.try_recv().is_ok() {}
    }

    async fn reader_ended(&mut self, ending: Ending) {
        let supervisor = Arc::clone(self.supervisor());
        match &ending {
            Ending::Stopped => return,
            Ending::OutOfRange => {
                tracing::warn!(supervisor = supervisor.spec().id, "an offset is not there");
                // Looked at again soon, and not at once, should the stream contradict itself.
                self.begin.failed();
            }
            Ending::TooManyParseExceptions(rows) => {
                let rows = rows.join("; ");
                let error = Error::invalid_input(format!(
                    "more rows than `maxParseExceptions` could not be parsed; reading goes on where it was once the \
                     supervisor is resumed: {rows}"
                ));
                supervisor.failed(&error, false);
                supervisor.set_state(SupervisorState::TooManyParseExceptions);
            }
            Ending::Failed(error) => {
                tracing::warn!(supervisor = supervisor.spec().id, %error, "reading begins again");
                supervisor.failed(error, false);
                self.begin.failed();
            }
        }
        self.stop_reading().await;
        self.survey_at = Instant::now();
    }

    async fn obey(&mut self, inner: &Inner, order: Order) {
        // Who does not wait for an answer does not want it.
        match order {
            Order::Suspend(answer) => {
                self.stop_reading().await;
                self.supervisor().set_state(SupervisorState::Suspended);
                let _ = answer.send(());
            }
            Order::Resume(answer) => {
                self.read_on();
                let _ = answer.send(());
            }
            Order::Reset(to, answer) => {
                let was_suspended = self.supervisor().state() == SupervisorState::Suspended;
                self.stop_reading().await;
                let reset = self.reset(inner, &to).await;
                if was_suspended {
                    self.supervisor().set_state(SupervisorState::Suspended);
                } else {
                    self.read_on();
                }
                let _ = answer.send(reset);
            }
            Order::HandOff(answer) | Order::End(answer) => {
                let _ = answer.send(self.hand_off(inner).await);
            }
            // Obeyed where orders come in.
            Order::Abandon => {}
        }
    }

    fn read_on(&mut self) {
        self.supervisor().forgive();
        if self.readers.is_empty() {
            self.supervisor().set_state(SupervisorState::Connecting);
        }
        (self.begin, self.survey_at) = (Pause::none(), Instant::now());
    }

    async fn reset(&mut self, inner: &Inner, to: &ResetTo) -> Result<Positions> {
        self.hand_off(inner).await?;
        self.passed_on(inner).await?;
        let survey = self.survey_now().await?;
        let stream = self.supervisor().spec().stream_name();
        let known = recorded(inner.store.stream(&stream).await?)?;
        let positions = after_reset(&survey, &known, to)?;
        let record = StreamRecord { source: Some(source_to_json(&survey.source)), positions: positions.clone() };
        inner.store.reset_stream(&stream, &record).await?;
        tracing::warn!(supervisor = self.supervisor().spec().id, ?to, ?positions, "reading goes on from elsewhere");
        self.forget(inner);
        self.gaps.clear();
        Ok(positions)
    }

    async fn end(&mut self, inner: &Inner) -> Result<HandOff> {
        let was = self.supervisor().state();
        self.stop_reading().await;
        let done = self.hand_off(inner).await;
        let done = match self.passed_on(inner).await {
            Ok(()) => done,
            Err(error) => done.and(Err(error)),
        };
        match &done {
            Ok(_) => {
                self.supervisor().set_state(SupervisorState::Stopping);
                match self.supervisor().sink().record() {
                    Some(record) => {
                        let generation = self.supervisor().generation();
                        inner.retire(self.supervisor().sink(), record.published, Some(&generation));
                    }
                    None => self.supervisor().close(),
                }
            }
            Err(_) if was == SupervisorState::Suspended => {}
            Err(_) => self.read_on(),
        }
        done
    }

    /// Publishes what waits, and then what was read since.
    async fn hand_off(&mut self, inner: &Inner) -> Result<HandOff> {
        let done = self.try_hand_off(inner).await;
        match &done {
            Ok(_) => self.hand_off = Pause::none(),
            Err(error) => {
                let supervisor = self.supervisor();
                tracing::warn!(supervisor = supervisor.spec().id, %error, "rows are handed off later; they are shown");
                supervisor.failed(error, false);
                self.hand_off.failed();
            }
        }
        done
    }

    async fn try_hand_off(&mut self, inner: &Inner) -> Result<HandOff> {
        let mut all = HandOff::default();
        loop {
            self.passed_on(inner).await?;
            let waiting = self.kept.waiting.lock().clone();
            let is_last = waiting.is_none();
            let closed: Option<Arc<ClosedRows>> = match waiting {
                Some(closed) => Some(closed),
                None => self.supervisor().rotate()?.map(Arc::new),
            };
            let Some(closed) = closed else { return Ok(all) };
            *self.kept.waiting.lock() = Some(Arc::clone(&closed));
            let (began, supervisor) = (Instant::now(), Arc::clone(self.supervisor()));
            if let (None, Some(record)) = (&self.catching_up, supervisor.sink().record()) {
                inner.serve_after(supervisor.sink(), record.published + 1, &supervisor.generation());
            }
            let Some(HandOff { rows, segments }) = inner.publish_read(self.supervisor(), &closed).await? else {
                return Err(self.give_up(inner, &closed).await);
            };
            supervisor.published(began.elapsed(), rows);
            *self.kept.waiting.lock() = None;
            self.passing = supervisor.sink().record().map(|record| Passing {
                from: record.settled,
                to: record.published,
                stage: Stage::Published,
                closed: Some(closed),
            });
            all.rows += rows;
            all.segments.extend(segments);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Drops rows that are not to be published, since the stream was published from elsewhere, and reads again from where
    /// that ended.
    async fn give_up(&mut self, inner: &Inner, closed: &ClosedRows) -> Error {
        self.stop_reading().await;
        *self.kept.waiting.lock() = None;
        inner.view.close_generation(&closed.generation.data_source, closed.generation.number);
        self.forget(inner);
        self.survey_at = Instant::now();
        Error::conflict(format!(
            "stream `{}` was published by another process meanwhile; it is read again from where that ended",
            self.supervisor().spec().stream_name()
        ))
    }

    /// In a cluster: records what brokers need to know, and lets go of what they read elsewhere.
    async fn look_after_sink(&mut self, inner: &Inner) -> Result<()> {
        let supervisor = Arc::clone(self.supervisor());
        let sink = supervisor.sink();
        if sink.record().is_none() {
            return Ok(());
        }
        self.serve_once_caught_up(inner);
        if self.columns_at.is_none_or(|at| at.elapsed() >= TICK) {
            inner.record_columns(sink, &supervisor.spec().data_schema).await?;
            self.columns_at = Some(Instant::now());
        }
        let Some(Passing { from, to, stage, closed }) = &mut self.passing else { return Ok(()) };
        if *stage == Stage::Published
            && let Passage::Recorded(rev) = inner.pass_on(sink, *to).await?
        {
            *stage = Stage::PassedOn(rev);
        }
        if let Stage::PassedOn(rev) = *stage
            && inner.brokers_have_seen(sink, rev).await
        {
            inner.retire(sink, *from, closed.as_ref().map(|closed| closed.generation.as_ref()));
            self.passing = None;
        }
        Ok(())
    }

    fn serve_once_caught_up(&mut self, inner: &Inner) {
        let supervisor = Arc::clone(self.supervisor());
        let is_there = match &self.catching_up {
            None => return,
            // Nothing is read; what was read before was handed off.
            Some(CatchingUp::Unknown) => supervisor.state() == SupervisorState::Suspended,
            Some(CatchingUp::To(ends)) => {
                let reached = supervisor.reached();
                ends.iter().all(|(partition, end)| reached.get(partition).is_none_or(|offset| offset >= end))
            }
        };
        if let (true, Some(record)) = (is_there, supervisor.sink().record()) {
            inner.serve_after(supervisor.sink(), record.published, &supervisor.generation());
            self.catching_up = None;
        }
    }

    /// Waits until queries read from segments all that was published.
    async fn passed_on(&mut self, inner: &Inner) -> Result<()> {
        let began = Instant::now();
        while self.passing.is_some() {
            self.look_after_sink(inner).await?;
            if self.passing.is_some() {
                if began.elapsed() > PASS_ON {
                    return Err(not_passed_on());
                }
                tokio::time::sleep(SHORT_TICK).await;
            }
        }
        Ok(())
    }

    /// Reads again from where it is published.
    fn forget(&self, inner: &Inner) {
        let supervisor = self.supervisor();
        supervisor.forget(|generation| {
            if let (None, Some(record)) = (&self.catching_up, supervisor.sink().record()) {
                inner.serve_after(supervisor.sink(), record.published, generation);
            }
        });
    }

    /// Shows nothing any more of what was read: another process reads it.
    async fn abandon(&mut self, inner: &Inner) {
        self.stop_reading().await;
        let supervisor = Arc::clone(self.supervisor());
        tracing::warn!(supervisor = supervisor.spec().id, "another realtime process has taken it over");
        inner.withdraw_sink(supervisor.sink());
        let waiting = self.kept.waiting.lock().take();
        let passing = self.passing.take().and_then(|passing| passing.closed);
        for closed in waiting.into_iter().chain(passing) {
            inner.view.close_generation(&closed.generation.data_source, closed.generation.number);
        }
        supervisor.close();
    }

    async fn make_room(&self, inner: &Inner) {
        let waiting = self.kept.waiting.lock().clone();
        let passing = self.passing.as_ref().and_then(|passing| passing.closed.clone());
        let generations = waiting.iter().chain(&passing).map(|closed| Arc::clone(&closed.generation));
        match inner.make_room(generations.chain([self.supervisor().generation()]).collect()).await {
            Ok(moved) => self.supervisor().persisted(moved),
            Err(error) => {
                tracing::warn!(supervisor = self.supervisor().spec().id, %error, "rows stay in memory");
                self.supervisor().failed(&error, false);
            }
        }
    }
}

fn recorded(record: StreamRecord) -> Result<Known> {
    let source = record.source.as_deref().map(source_from_json).transpose()?.unwrap_or_default();
    Ok(Known { source, positions: record.positions })
}
