//! `/druid/v2/sql`: a query to JSON, as its batches come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::StructMode;
use arrow::json::writer::{JsonFormat, WriterBuilder};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use henge_engine::session::{Cancel, Session, SessionOptions, SqlDialect, error_from_datafusion, output_label};
use henge_engine::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::body::JsonBody;
use super::login::Login;
use super::{Answer, Api};
use crate::pg_catalog::DATABASE;

/// Says that an answer lacks something, because the query allowed that.
const PARTIAL: &str = "x-partial";
/// What it lacks, or another thing to know about the answer.
const NOTICE: &str = "x-henge-notice";
/// Pieces that may wait for a slow client.
const PIECES_AHEAD: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    query: String,
    #[serde(default)]
    result_format: ResultFormat,
    #[serde(default)]
    header: bool,
    #[serde(default)]
    types_header: bool,
    #[serde(default)]
    sql_types_header: bool,
    #[serde(default)]
    parameters: Vec<Value>,
    #[serde(default)]
    context: Context,
}

/// Of Druid's query context, what changes an answer. The rest is for Druid's own machinery.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Context {
    use_approximate_count_distinct: Option<bool>,
    sql_time_zone: Option<String>,
    /// Milliseconds until the query ends by itself; 0 is never.
    timeout: Option<u64>,
    /// Whether an answer may lack what nobody serves: then it says so.
    allow_partial_results: bool,
}

impl Request {
    /// Refuses what would be answered otherwise than asked.
    fn check(&self) -> Result<()> {
        if self.header && !self.result_format.is_array() {
            return Err(Error::unsupported("`header` is only supported with `array` and `arrayLines` so far"));
        }
        if self.types_header || self.sql_types_header {
            return Err(Error::unsupported("`typesHeader` and `sqlTypesHeader` are not supported yet"));
        }
        if !self.parameters.is_empty() {
            return Err(Error::unsupported(
                "`parameters` are not supported over HTTP yet; write values into the query",
            ));
        }
        match self.context.sql_time_zone.as_deref() {
            None | Some("UTC" | "Etc/UTC" | "Z" | "+00:00") => Ok(()),
            Some(zone) => Err(Error::unsupported(format!(
                "`sqlTimeZone` `{zone}` is not supported, only UTC; name the zone in the function, as in \
                 `TIME_FLOOR(__time, 'P1D', NULL, '{zone}')`"
            ))),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum ResultFormat {
    #[default]
    Object,
    Array,
    ObjectLines,
    ArrayLines,
}

impl ResultFormat {
    fn is_array(self) -> bool {
        matches!(self, Self::Array | Self::ArrayLines)
    }

    fn is_lines(self) -> bool {
        matches!(self, Self::ObjectLines | Self::ArrayLines)
    }
}

pub(super) async fn sql(
    State(api): State<Arc<Api>>,
    login: Option<Extension<Login>>,
    JsonBody(request): JsonBody<Request>,
) -> Answer<Response> {
    request.check()?;
    let format = request.result_format;
    let (pieces, answer) = mpsc::channel(PIECES_AHEAD);
    let (begun, notices) = oneshot::channel();
    let time = request.context.timeout.filter(|millis| *millis > 0).map(Duration::from_millis);
    let cancel = Cancel::until(time.and_then(|time| Instant::now().checked_add(time)));
    let session = api.database.session(SessionOptions {
        dialect: SqlDialect::Druid,
        approximate_count_distinct: request.context.use_approximate_count_distinct,
        temporary: false,
        user: login.map_or_else(|| DATABASE.to_string(), |Extension(login)| login.0),
        ..SessionOptions::default()
    });
    api.queries.spawn(async move {
        let ended = tokio::select! {
            ended = run(session, request, &cancel, begun, &pieces) => ended,
            // Nobody waits for the answer any more.
            () = pieces.closed() => {
                cancel.cancel();
                return;
            }
        };
        if let Err(error) = ended {
            let _ = pieces.send(Err(error)).await;
        }
    });
    respond(answer, notices, format).await
}

type Pieces = mpsc::Sender<Result<Bytes>>;

/// The status is decided when the first piece is there; an error after that breaks the answer off.
async fn respond(
    mut answer: mpsc::Receiver<Result<Bytes>>,
    mut notices: oneshot::Receiver<Vec<String>>,
    format: ResultFormat,
) -> Answer<Response> {
    let first = match answer.recv().await {
        Some(Ok(piece)) => piece,
        Some(Err(error)) => return Err(error.into()),
        None => return Err(Error::runtime_failure("the query stopped unexpectedly").into()),
    };
    let rest = futures::stream::unfold(answer, async |mut answer| Some((answer.recv().await?, answer)));
    let body = futures::stream::once(async { Ok(first) }).chain(rest);
    let kind = if format.is_lines() { "text/plain; charset=utf-8" } else { "application/json" };
    let mut response = ([(CONTENT_TYPE, kind)], Body::from_stream(body)).into_response();
    // They were sent before the first piece was.
    for notice in notices.try_recv().unwrap_or_default() {
        response.headers_mut().insert(PARTIAL, HeaderValue::from_static("true"));
        let notice = notice.replace(|char: char| char.is_control(), " ");
        if let Ok(notice) = HeaderValue::from_bytes(notice.as_bytes()) {
            response.headers_mut().append(NOTICE, notice);
        }
    }
    Ok(response)
}

/// Has a query answer with what there is.
async fn allow_partial_results(session: &Session) -> Result<()> {
    for statement in session.parse("SET henge.allow_partial_results = on")? {
        let plan = session.plan(statement).await?;
        session.execute(plan).await?;
    }
    Ok(())
}

async fn run(
    session: Session,
    request: Request,
    cancel: &Cancel,
    begun: oneshot::Sender<Vec<String>>,
    pieces: &Pieces,
) -> Result<()> {
    if request.context.allow_partial_results {
        allow_partial_results(&session).await?;
    }
    let mut statements = session.parse(&request.query)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(Error::invalid_input("`query` holds no statement, or more than one").with_sqlstate("42601"));
    };
    let plan = session.plan_until(statement, cancel).await?;
    let labels: Vec<String> = plan.schema().fields().iter().map(|field| output_label(field).to_string()).collect();
    let stream = session.execute_until(plan, cancel).await?;
    let mut notices = session.take_notices();
    // Each attempt at the query told its own.
    notices.dedup();
    let _ = begun.send(notices);
    let mut writer = Writer { format: request.result_format, started: false };
    writer.send_all(stream, &labels, request.header, pieces).await
}

struct Writer {
    format: ResultFormat,
    /// A row was written, so the next one needs a comma.
    started: bool,
}

impl Writer {
    async fn send_all(
        &mut self,
        mut stream: SendableRecordBatchStream,
        labels: &[String],
        header: bool,
        pieces: &Pieces,
    ) -> Result<()> {
        let schema = labelled(&stream.schema(), labels);
        let mut piece = Vec::new();
        if !self.format.is_lines() {
            piece.push(b'[');
        }
        if header {
            self.put_row(&serde_json::to_vec(labels).unwrap_or_default(), &mut piece);
        }
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(error_from_datafusion)?;
            let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).map_err(unwritable)?;
            self.put_batch(&batch, &mut piece)?;
            if pieces.send(Ok(std::mem::take(&mut piece).into())).await.is_err() {
                return Ok(());
            }
        }
        piece.extend_from_slice(if self.format.is_lines() { b"\n" } else { b"]" });
        // Nobody is there to be told of a client that left.
        let _ = pieces.send(Ok(piece.into())).await;
        Ok(())
    }

    fn put_row(&mut self, row: &[u8], out: &mut Vec<u8>) {
        if self.started && !self.format.is_lines() {
            out.push(b',');
        }
        self.started = true;
        out.extend_from_slice(row);
        if self.format.is_lines() {
            out.push(b'\n');
        }
    }

    fn put_batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let mode = if self.format.is_array() { StructMode::ListOnly } else { StructMode::ObjectOnly };
        let mut lines = Vec::new();
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .with_struct_mode(mode)
            .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.3fZ".to_string())
            .build::<_, Lines>(&mut lines);
        writer.write(batch).and_then(|()| writer.finish()).map_err(unwritable)?;
        drop(writer);
        lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).for_each(|line| self.put_row(line, out));
        Ok(())
    }
}

/// One row a line; a newline within a value is escaped in JSON.
#[derive(Debug, Default)]
struct Lines;

impl JsonFormat for Lines {
    fn end_row<W: std::io::Write>(&self, writer: &mut W) -> std::result::Result<(), arrow::error::ArrowError> {
        writer.write_all(b"\n")?;
        Ok(())
    }
}

fn labelled(schema: &SchemaRef, labels: &[String]) -> SchemaRef {
    let field = |(field, label): (&Arc<Field>, &String)| field.as_ref().clone().with_name(label).with_nullable(true);
    Arc::new(Schema::new(schema.fields().iter().zip(labels).map(field).collect::<Vec<_>>()))
}

fn unwritable(error: arrow::error::ArrowError) -> Error {
    Error::unsupported("the answer has a type that cannot be written as JSON").with_source(error)
}
