//! One connection: its state, and the loop that takes a message and answers it.
//!
//! Every wait for a query also watches for a cancel request, for the statement's deadline and for the client leaving.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use datafusion::logical_expr::LogicalPlan;
use henge_engine::Error;
use henge_engine::error::{Category, Persona};
use henge_engine::session::{Cancel, Session, Statement};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::command::{self, Command};
use super::encode::{begin_message, end_message, put_cstring};
use super::error::{Origin, Severity, canceled, failed_transaction, protocol_violation, put_error, timed_out};
use super::extended::{Portal, Prepared};
use super::frontend::{Message, decode};
use super::listener::Front;
use super::registry::Ticket;
use super::running::Task;
use super::setting::Settings;
use super::startup::put_parameter;

/// Bytes written before they are sent without waiting for the end of the answer.
const OUTPUT_BYTES: usize = 64 << 10;
/// Bytes read ahead of the message being answered; a client that pipelines more waits.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// A statement that is parsed in well under a millisecond.
const SHORT_STATEMENT_BYTES: usize = 8 << 10;
/// How long a client may take to read its last message when the server stops.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a connection is spoken over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The client is gone, or does not speak the protocol.
#[derive(Debug)]
pub(super) struct Lost;

/// Why an answer was not finished.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(Error),
    Lost,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl From<Lost> for Stop {
    fn from(_: Lost) -> Self {
        Stop::Lost
    }
}

/// The socket with what was read and not yet understood, and what was written and not yet sent.
#[derive(Debug)]
pub(super) struct Wire<S> {
    pub(super) stream: S,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Reads what has arrived. Loses nothing when dropped.
    pub(super) async fn read(&mut self) -> Result<(), Lost> {
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(Lost),
            Ok(_) => Ok(()),
        }
    }

    /// Sends what was written. What is sent is taken off, so it may be dropped and called again.
    pub(super) async fn flush(&mut self) -> Result<(), Lost> {
        while self.output.has_remaining() {
            match self.stream.write_buf(&mut self.output).await {
                Ok(0) | Err(_) => return Err(Lost),
                Ok(_) => {}
            }
        }
        self.stream.flush().await.map_err(|_| Lost)
    }
}

/// A transaction block, which has no effect but on what is allowed and said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transaction {
    None,
    Open,
    Failed,
}

#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) wire: Wire<S>,
    pub(super) front: Arc<Front>,
    pub(super) session: Arc<Session>,
    ticket: Ticket,
    pub(super) settings: Settings,
    pub(super) transaction: Transaction,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    pub(super) deadline: Option<Instant>,
    /// After an error in the extended protocol, messages are passed over until Sync.
    skipping: bool,
    shutdown: CancellationToken,
}

impl<S: Stream> Connection<S> {
    pub(super) fn new(
        wire: Wire<S>,
        front: Arc<Front>,
        session: Arc<Session>,
        ticket: Ticket,
        settings: Settings,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            wire,
            front,
            session,
            ticket,
            settings,
            transaction: Transaction::None,
            statements: HashMap::new(),
            portals: HashMap::new(),
            deadline: None,
            skipping: false,
            shutdown,
        }
    }

    /// Answers messages until the client leaves.
    pub(super) async fn run(mut self) {
        self.put_ready();
        while let Ok(Some(message)) = self.next_message().await {
            if self.answer(message).await.is_err() {
                break;
            }
        }
        let _ = tokio::time::timeout(GOODBYE, self.wire.flush()).await;
    }

    /// The next message; `None` when the connection is to be closed.
    async fn next_message(&mut self) -> Result<Option<Message>, Lost> {
        loop {
            match decode(&mut self.wire.input) {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(violation) => {
                    put_error(&protocol_violation(&violation.0), Severity::Fatal, None, &mut self.wire.output);
                    return Ok(None);
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => {
                    self.put_end_of_server();
                    return Ok(None);
                }
                more = async {
                    self.wire.flush().await?;
                    self.wire.read().await
                } => more?,
            }
        }
    }

    fn put_end_of_server(&mut self) {
        let words = "terminating connection due to administrator command";
        let error = Error::new(Category::ServiceUnavailable, Persona::User, words).with_sqlstate("57P01");
        put_error(&error, Severity::Fatal, None, &mut self.wire.output);
    }

    async fn answer(&mut self, message: Message) -> Result<(), Lost> {
        if self.skipping && !matches!(message, Message::Sync | Message::Terminate) {
            return Ok(());
        }
        match message {
            Message::Query(text) => self.simple_query(&text).await,
            Message::Sync => {
                self.skipping = false;
                self.end_of_pipeline();
                self.put_ready();
                self.wire.flush().await
            }
            Message::Flush => self.wire.flush().await,
            Message::Terminate => Err(Lost),
            // Late, from a client whose COPY failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => Ok(()),
            Message::Unexpected(kind) => {
                let words = format!("unexpected message type {:?}", char::from(kind));
                put_error(&protocol_violation(&words), Severity::Fatal, None, &mut self.wire.output);
                let _ = self.wire.flush().await;
                Err(Lost)
            }
            message => self.extended_message(message).await,
        }
    }

    async fn extended_message(&mut self, message: Message) -> Result<(), Lost> {
        let parsed = match &message {
            Message::Parse { sql, .. } => Some(sql.clone()),
            _ => None,
        };
        match self.extended(message).await {
            Ok(()) => Ok(()),
            Err(Stop::Lost) => Err(Lost),
            Err(Stop::Failed(error)) => {
                // A statement is planned without what stands before it, comments and blanks.
                let start = |sql: &String| command::split(sql).ok().and_then(|pieces| Some(pieces.first()?.offset));
                let offset = parsed.as_ref().and_then(start).unwrap_or(0);
                let sql = parsed.as_deref().map(|sql| sql.char_indices().nth(offset).map_or("", |(at, _)| &sql[at..]));
                self.fail(&error, sql.map(|sql| Origin { sql, offset }));
                self.skipping = true;
                Ok(())
            }
        }
    }

    /// Outside a transaction block, portals live until Sync.
    fn end_of_pipeline(&mut self) {
        if self.transaction == Transaction::None {
            self.portals.retain(|_, portal| portal.hold);
            self.end_of_tables();
        }
    }

    /// Tells the client of an error; a transaction block fails with it.
    pub(super) fn fail(&mut self, error: &Error, origin: Option<Origin<'_>>) {
        put_error(error, Severity::Error, origin, &mut self.wire.output);
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
    }

    /// Starts the clock of a statement; cancel requests from before do not count.
    pub(super) fn begin_statement(&mut self, sql: &str) {
        self.ticket.cancels.mark_unchanged();
        self.ticket.runs(sql, self.front.door.clock.now());
        self.deadline = self.settings.statement_timeout().map(|timeout| Instant::now() + timeout);
    }

    /// In a failed transaction block only its end is allowed.
    pub(super) fn check_transaction(&self, command: &Command) -> Result<(), Stop> {
        let ends = matches!(command, Command::Commit { .. } | Command::Rollback { .. } | Command::RollbackTo(_));
        if self.transaction == Transaction::Failed && !ends { Err(failed_transaction().into()) } else { Ok(()) }
    }

    /// Waits for `work`, unless the client cancels, runs out of time or leaves, or the server ends.
    pub(super) async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(work);
        let deadline = self.deadline;
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.ticket.cancels.changed() => return Err(canceled().into()),
                () = async { tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => {
                    return Err(timed_out().into());
                }
                () = self.shutdown.cancelled() => {
                    self.put_end_of_server();
                    return Err(Stop::Lost);
                }
                done = &mut work => return Ok(done),
                read = self.wire.read(), if self.wire.input.len() < READ_AHEAD_BYTES => read?,
            }
        }
    }

    /// The next message of a client that copies in; `None` once `ended` says that nobody takes its rows any more.
    pub(super) async fn copy_message(&mut self, ended: impl Future<Output = ()>) -> Result<Option<Message>, Stop> {
        tokio::pin!(ended);
        loop {
            match decode(&mut self.wire.input) {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(violation) => return Err(protocol_violation(&violation.0).into()),
            }
            let deadline = self.deadline;
            tokio::select! {
                biased;
                Ok(()) = self.ticket.cancels.changed() => return Err(canceled().into()),
                () = async { tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => {
                    return Err(timed_out().into());
                }
                () = self.shutdown.cancelled() => {
                    self.put_end_of_server();
                    return Err(Stop::Lost);
                }
                () = &mut ended => return Ok(None),
                read = self.wire.read() => read?,
            }
        }
    }

    /// Sends what was written once it is a lot; a client that does not read can still cancel.
    pub(super) async fn flush_if_full(&mut self) -> Result<(), Stop> {
        if self.wire.output.len() < OUTPUT_BYTES {
            return Ok(());
        }
        let deadline = self.deadline;
        tokio::select! {
            biased;
            Ok(()) = self.ticket.cancels.changed() => Err(canceled().into()),
            () = async { tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => {
                Err(timed_out().into())
            }
            sent = self.wire.flush() => Ok(sent?),
        }
    }

    /// Parses a long text on the runtime for queries, so that other connections do not wait for it.
    pub(super) async fn parse(&mut self, sql: &str) -> Result<Vec<Statement>, Stop> {
        if sql.len() <= SHORT_STATEMENT_BYTES {
            return Ok(self.session.parse(sql)?);
        }
        let (session, text) = (Arc::clone(&self.session), sql.to_owned());
        let task = Task::spawn(&self.front.queries, async move { session.parse(&text) });
        Ok(self.wait(task.result()).await???)
    }

    /// Plans on the runtime for queries.
    pub(super) async fn plan(&mut self, statement: Statement) -> Result<LogicalPlan, Stop> {
        let session = Arc::clone(&self.session);
        let cancel = Cancel::until(self.deadline.map(Instant::into_std));
        // Planning gives control back too seldom for an abort to end it.
        let _given_up = cancel.on_drop();
        let task = Task::spawn(&self.front.queries, async move { session.plan_until(statement, &cancel).await });
        Ok(self.wait(task.result()).await???)
    }

    pub(super) fn put_ready(&mut self) {
        for (name, value) in self.settings.changes() {
            put_parameter(&name, &value, &mut self.wire.output);
        }
        let state = match self.transaction {
            Transaction::None => "idle",
            Transaction::Open => "idle in transaction",
            Transaction::Failed => "idle in transaction (aborted)",
        };
        let name = self.settings.get("application_name").unwrap_or_default();
        self.ticket.waits(state, &name, self.front.door.clock.now());
        let start = begin_message(&mut self.wire.output, b'Z');
        self.wire.output.put_u8(match self.transaction {
            Transaction::None => b'I',
            Transaction::Open => b'T',
            Transaction::Failed => b'E',
        });
        end_message(&mut self.wire.output, start);
    }

    /// A message without a body.
    pub(super) fn put_empty(&mut self, kind: u8) {
        let start = begin_message(&mut self.wire.output, kind);
        end_message(&mut self.wire.output, start);
    }

    pub(super) fn put_tag(&mut self, tag: &str) {
        let start = begin_message(&mut self.wire.output, b'C');
        put_cstring(&mut self.wire.output, tag);
        end_message(&mut self.wire.output, start);
    }
}
