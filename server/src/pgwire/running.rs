//! A query that runs: a task on the runtime for queries that encodes rows as they are asked for.
//!
//! The connection asks for a number of rows and gets chunks of encoded bytes until there are that many or no more. In
//! between the task waits, so a suspended portal costs no work. Dropping a [`Running`] aborts the task, and with it
//! every operator of the query.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::BytesMut;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use henge_engine::session::{Cancel, Session, error_from_datafusion};
use henge_engine::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::copy::CopyWriter;
use super::encode::Columns;

/// Rows encoded into one chunk.
const CHUNK_ROWS: usize = 512;
/// Chunks that may wait for a slow client.
const CHUNKS_AHEAD: usize = 4;

/// A task that ends when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(runtime.spawn(work))
    }

    /// What it gives; an error if it panicked.
    pub(super) async fn result(mut self) -> Result<T> {
        let failed = |error: JoinError| Error::runtime_failure("the query stopped unexpectedly").with_source(error);
        (&mut self.0).await.map_err(failed)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How the rows leave.
#[derive(Debug)]
pub(super) enum Form {
    Rows(Columns),
    Copy(CopyWriter),
    /// Counted only, for MOVE.
    Nothing,
}

/// What the task answers.
#[derive(Debug)]
pub(super) enum Chunk {
    Rows {
        bytes: BytesMut,
        rows: usize,
    },
    /// As many rows as asked for were sent; there may be more.
    Suspended,
    Complete,
    Failed(Error),
}

/// What to run.
#[derive(Debug)]
pub(super) enum Source {
    Plan(Box<LogicalPlan>),
    /// Rows that are there already.
    Batch(RecordBatch),
}

#[derive(Debug)]
pub(super) struct Running {
    requests: mpsc::Sender<Request>,
    chunks: mpsc::Receiver<Chunk>,
    _task: Task<()>,
    cancel: Cancel,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[derive(Debug)]
struct Request {
    rows: Option<usize>,
    form: Arc<Form>,
}

impl Running {
    /// A query that ends by itself at `deadline`, wherever it runs.
    pub(super) fn start(session: &Arc<Session>, source: Source, queries: &Handle, deadline: Option<Instant>) -> Self {
        let (requests, asked) = mpsc::channel(1);
        let (answers, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let cancel = Cancel::until(deadline.map(Instant::into_std));
        let task = Task::spawn(queries, run(Arc::clone(session), source, cancel.clone(), asked, answers));
        Self { requests, chunks, _task: task, cancel }
    }

    /// Asks for the next `rows` (`None`: all that are left). Chunks follow until one that holds no rows.
    pub(super) async fn ask(&self, rows: Option<usize>, form: &Arc<Form>) {
        // A task that failed to begin does not listen any more; why is in its chunk.
        let _ = self.requests.send(Request { rows, form: Arc::clone(form) }).await;
    }

    pub(super) async fn next(&mut self) -> Chunk {
        self.chunks.recv().await.unwrap_or_else(|| Chunk::Failed(gone()))
    }
}

/// The task ended without an answer: it panicked, and the panic is in the log.
fn gone() -> Error {
    Error::runtime_failure("the query stopped unexpectedly")
}

async fn run(
    session: Arc<Session>,
    source: Source,
    cancel: Cancel,
    mut requests: mpsc::Receiver<Request>,
    chunks: mpsc::Sender<Chunk>,
) {
    let mut rows = match open(&session, source, &cancel).await {
        Ok(rows) => rows,
        Err(error) => {
            let _ = chunks.send(Chunk::Failed(error)).await;
            return;
        }
    };
    while let Some(request) = requests.recv().await {
        let last = rows.answer(request, &chunks).await.unwrap_or_else(Chunk::Failed);
        let failed = matches!(last, Chunk::Failed(_));
        if chunks.send(last).await.is_err() || failed {
            return;
        }
    }
}

async fn open(session: &Session, source: Source, cancel: &Cancel) -> Result<Rows> {
    Ok(match source {
        Source::Plan(plan) => Rows { stream: Some(session.execute_until(*plan, cancel).await?), batch: None },
        Source::Batch(batch) => Rows { stream: None, batch: Some((batch, 0)) },
    })
}

struct Rows {
    stream: Option<SendableRecordBatchStream>,
    /// The batch being sent, and how many of its rows have been.
    batch: Option<(RecordBatch, usize)>,
}

impl Rows {
    /// Sends the rows asked for; gives the chunk that ends them.
    async fn answer(&mut self, request: Request, chunks: &mpsc::Sender<Chunk>) -> Result<Chunk> {
        let mut left = request.rows.unwrap_or(usize::MAX);
        while left > 0 {
            let Some((batch, sent)) = self.current().await? else { return Ok(Chunk::Complete) };
            let rows = CHUNK_ROWS.min(batch.num_rows() - *sent).min(left);
            let bytes = encode(&request.form, batch, *sent..*sent + rows)?;
            *sent += rows;
            left -= rows;
            if chunks.send(Chunk::Rows { bytes, rows }).await.is_err() {
                return Ok(Chunk::Complete);
            }
        }
        Ok(Chunk::Suspended)
    }

    /// The batch that still has rows to send.
    async fn current(&mut self) -> Result<Option<&mut (RecordBatch, usize)>> {
        while self.batch.as_ref().is_none_or(|(batch, sent)| *sent == batch.num_rows()) {
            let Some(stream) = &mut self.stream else { return Ok(None) };
            match stream.next().await {
                Some(batch) => self.batch = Some((batch.map_err(error_from_datafusion)?, 0)),
                None => {
                    self.stream = None;
                    self.batch = None;
                    return Ok(None);
                }
            }
        }
        Ok(self.batch.as_mut())
    }
}

fn encode(form: &Form, batch: &RecordBatch, rows: std::ops::Range<usize>) -> Result<BytesMut> {
    let mut bytes = BytesMut::with_capacity(rows.len() * batch.num_columns() * 12);
    match form {
        Form::Rows(columns) => columns.put_rows(batch, rows, &mut bytes)?,
        Form::Copy(writer) => writer.put_rows(batch, rows, &mut bytes)?,
        Form::Nothing => {}
    }
    Ok(bytes)
}
