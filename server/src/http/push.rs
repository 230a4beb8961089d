//! `/v1/push`: rows into a data source as they come, acknowledged once they are durable and shown.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use henge_catalog::realtime::{OnError, Payload, Push, PushKey, PushSpec, Pushed};
use henge_engine::ingest::live::split_array;
use henge_engine::ingest::{BadRow, DelimitedOptions, InputFormat};
use henge_engine::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{JsonBody, Parameters};
use super::{Answer, Api};

/// Of a body as it is sent.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Of a body once it is decompressed.
const MAX_TEXT_BYTES: usize = 256 << 20;
/// How many times as long a body may become.
const MAX_EXPANSION: usize = 50;
/// A small body may expand to this whatever its ratio.
const ALWAYS_EXPANDED: usize = 1 << 20;
const MAX_ROW_BYTES: usize = 1 << 20;
/// A body of which nothing more comes for so long is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bad rows that are told.
const ERRORS_TOLD: usize = 100;
/// Where rows may say their time, unless the request says where.
const TIME_COLUMNS: [&str; 12] = [
    "__time",
    "timestamp",
    "time",
    "ts",
    "event_time",
    "eventTime",
    "datetime",
    "date",
    "created_at",
    "createdAt",
    "@timestamp",
    "t",
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct PushParameters {
    /// Whether a data source that is not there is made; unless said, it is where one server does everything.
    create: Option<bool>,
    time_column: Option<String>,
    on_error: Option<OnError>,
    producer: Option<String>,
    sequence: Option<u64>,
    /// Names of the columns of CSV or TSV without a header, with commas between them.
    columns: Option<String>,
    list_delimiter: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct HandOffParameters {
    accept_loss: bool,
}

/// Takes rows.
pub(super) async fn push(
    State(api): State<Arc<Api>>,
    Path(data_source): Path<String>,
    Parameters(parameters): Parameters<PushParameters>,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let format = format(&headers, &parameters)?;
    let key = key(&headers, &parameters)?;
    let text = match read(&headers, body).await? {
        Ok(text) => text,
        Err(refusal) => return Ok(refusal),
    };
    let text = lines(&format, text)?;
    let created = match api.database.is_pushed_to(&data_source) {
        false if parameters.create.unwrap_or_else(|| api.database.discovers()) => {
            let time_column = match &parameters.time_column {
                Some(column) => column.clone(),
                None => find_time_column(&format, &text)?,
            };
            api.database.discover_push(&data_source, &time_column).await?
        }
        _ => None,
    };
    let has_key = key.is_some();
    let push = Push {
        payload: Payload::Text { format, text },
        key,
        on_error: parameters.on_error.unwrap_or_default(),
        max_row_bytes: MAX_ROW_BYTES,
    };
    let pushed = api.database.push(&data_source, push).await?;
    Ok(answer(&data_source, pushed, has_key, created.as_ref()))
}

fn answer(data_source: &str, pushed: Pushed, has_key: bool, created: Option<&PushSpec>) -> Response {
    match pushed {
        Pushed::Taken { rows, unparseable, thrown_away, position, duplicate, reasons, bad_rows } => {
            let mut body = json!({
                "dataSource": data_source,
                "rows": rows,
                "rejected": unparseable,
                "ignored": thrown_away,
                "position": position,
                "duplicate": duplicate,
                "delivery": if has_key { "exactly_once" } else { "at_least_once" },
            });
            if !reasons.is_empty() {
                body["reasons"] = json!(reasons);
            }
            if !bad_rows.is_empty() {
                body["errors"] = bad_rows.iter().take(ERRORS_TOLD).map(told).collect();
            }
            if let Some(spec) = created {
                body["created"] = json!(spec);
            }
            Json(body).into_response()
        }
        Pushed::Refused { reasons, bad_rows } => {
            let first = bad_rows.first().map_or_else(|| "its rows are wrong".to_owned(), line_of);
            let message = format!(
                "nothing was taken: {first}; mend the rows, or send them with `onError=skip` to take all others"
            );
            let mut body = problem("InvalidInput", message);
            body["reasons"] = json!(reasons);
            body["errors"] = bad_rows.iter().take(ERRORS_TOLD).map(told).collect();
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
        Pushed::Busy { retry_after } => {
            let body =
                problem("CapacityExceeded", "there is no room for more rows just now; send them again".to_owned());
            let mut response = (StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
            response
        }
        Pushed::Full { message } => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(problem("ServiceUnavailable", message))).into_response()
        }
    }
}

fn problem(category: &str, message: String) -> Value {
    json!({
        "error": "druidException",
        "errorCode": category,
        "persona": "USER",
        "category": category,
        "errorMessage": message,
    })
}

fn told(bad: &BadRow) -> Value {
    json!({ "line": bad.line, "column": bad.column, "reason": bad.reason, "message": line_of(bad), "row": bad.row })
}

fn line_of(bad: &BadRow) -> String {
    match bad.column {
        Some(column) => format!("line {}, byte {column}: {}: {}", bad.line, bad.reason, bad.message),
        None => format!("line {}: {}: {}", bad.line, bad.reason, bad.message),
    }
}

/// The format that the content type names. A web page can make a browser send no other but forms and plain text.
fn format(headers: &HeaderMap, parameters: &PushParameters) -> Result<InputFormat> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let options = || DelimitedOptions {
        columns: parameters.columns.as_ref().map(|names| names.split(',').map(|name| name.trim().to_owned()).collect()),
        list_delimiter: parameters.list_delimiter.clone(),
        ..DelimitedOptions::default()
    };
    match kind.as_str() {
        "application/json"
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/json-lines" => InputFormat::named("json"),
        "text/csv" | "application/csv" => Ok(InputFormat::Csv { options: options() }),
        "text/tab-separated-values" => Ok(InputFormat::Tsv { delimiter: None, options: options() }),
        _ => Err(Error::invalid_input(
            "the header `content-type` must say what is sent: `application/json` (an array, or an object a line), \
             `application/x-ndjson`, `text/csv` or `text/tab-separated-values`",
        )),
    }
}

fn key(headers: &HeaderMap, parameters: &PushParameters) -> Result<Option<PushKey>> {
    let header = headers.get("idempotency-key").map(|value| value.to_str().map(str::to_owned)).transpose();
    let header = header.map_err(|_| Error::invalid_input("the header `idempotency-key` must be plain text"))?;
    match (header, &parameters.producer, parameters.sequence) {
        (Some(key), None, None) => Ok(Some(PushKey::Idempotency(key))),
        (None, Some(producer), Some(sequence)) => Ok(Some(PushKey::Producer { producer: producer.clone(), sequence })),
        (None, None, None) => Ok(None),
        (Some(_), ..) => {
            Err(Error::invalid_input("give an `idempotency-key`, or a `producer` with its `sequence`, not both"))
        }
        _ => Err(Error::invalid_input("`producer` and `sequence` are given together or not at all")),
    }
}

/// The body as it is meant, or how it is refused.
async fn read(headers: &HeaderMap, body: Body) -> Result<std::result::Result<Bytes, Response>> {
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    loop {
        let next = match tokio::time::timeout(BODY_TIMEOUT, stream.next()).await {
            Ok(next) => next,
            Err(_) => {
                let message = "the body did not come in time".to_owned();
                return Ok(Err((StatusCode::REQUEST_TIMEOUT, Json(problem("Timeout", message))).into_response()));
            }
        };
        let Some(piece) = next else { break };
        let piece = piece.map_err(|error| Error::invalid_input("the body cannot be read").with_source(error))?;
        if bytes.len() + piece.len() > MAX_BODY_BYTES {
            return Ok(Err(too_large(format!(
                "the body is longer than {MAX_BODY_BYTES} bytes; send the rows in parts"
            ))));
        }
        bytes.extend_from_slice(&piece);
    }
    let encoding = headers.get(CONTENT_ENCODING).map_or(Ok("identity"), |value| value.to_str()).unwrap_or_default();
    let bytes = bytes.freeze();
    let limit = MAX_TEXT_BYTES.min(bytes.len().saturating_mul(MAX_EXPANSION).max(ALWAYS_EXPANDED));
    let expanded = match encoding.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => return Ok(Ok(bytes)),
        "gzip" | "x-gzip" => expand(move || Ok(MultiGzDecoder::new(std::io::Cursor::new(bytes))), limit).await?,
        "zstd" => expand(move || zstd::Decoder::new(std::io::Cursor::new(bytes)), limit).await?,
        other => {
            return Err(Error::invalid_input(format!(
                "a content encoding of `{other}` is not known; use gzip or zstd"
            )));
        }
    };
    Ok(expanded
        .ok_or_else(|| too_large(format!("the body expands to more than {limit} bytes; send the rows in parts"))))
}

/// `None` if there is more than the limit.
async fn expand<R: Read>(
    open: impl FnOnce() -> std::io::Result<R> + Send + 'static,
    limit: usize,
) -> Result<Option<Bytes>> {
    let work = move || -> std::io::Result<Option<Bytes>> {
        let mut text = Vec::new();
        open()?.take(limit as u64 + 1).read_to_end(&mut text)?;
        Ok((text.len() <= limit).then(|| text.into()))
    };
    let expanded = tokio::task::spawn_blocking(work).await;
    expanded.map_err(|error| Error::runtime_failure("the body could not be decompressed").with_source(error))?.map_err(
        |error| Error::invalid_input("the body is not compressed as its content encoding says").with_source(error),
    )
}

fn too_large(message: String) -> Response {
    (StatusCode::PAYLOAD_TOO_LARGE, Json(problem("CapacityExceeded", message))).into_response()
}

/// A row a line. What is compressed once more is not looked into: its size would be anybody's guess.
fn lines(format: &InputFormat, text: Bytes) -> Result<Bytes> {
    if text.starts_with(&[0x1f, 0x8b]) || text.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err(Error::invalid_input("the body is compressed; say so with the header `content-encoding`"));
    }
    match format {
        InputFormat::Json { .. } => match split_array(&text) {
            Some(lines) => lines.map(Bytes::from),
            None => Ok(text),
        },
        _ => Ok(text),
    }
}

/// The first of the usual names that the first row has.
fn find_time_column(format: &InputFormat, text: &[u8]) -> Result<String> {
    let first = text.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let names: Vec<String> = match format {
        InputFormat::Json { .. } => match serde_json::from_slice::<Value>(first) {
            Ok(Value::Object(fields)) => fields.keys().cloned().collect(),
            _ => return Err(Error::invalid_input("the first row is not a JSON object")),
        },
        InputFormat::Csv { options } | InputFormat::Tsv { options, .. } => match &options.columns {
            Some(columns) => columns.clone(),
            None => {
                let separators = [',', '\t'];
                let header = String::from_utf8_lossy(first);
                header.split(separators).map(|name| name.trim().trim_matches('"').to_owned()).collect()
            }
        },
        InputFormat::Parquet { .. } => Vec::new(),
    };
    let found = TIME_COLUMNS.iter().find_map(|usual| names.iter().find(|name| name.eq_ignore_ascii_case(usual)));
    found.cloned().ok_or_else(|| {
        let names = names.iter().take(12).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Error::invalid_input(format!(
            "which field says when a row happened? Name it with `timeColumn=`; there is {names}"
        ))
    })
}

/// How a data source takes rows, and how it is.
pub(super) async fn status(State(api): State<Arc<Api>>, Path(data_source): Path<String>) -> Answer<Json<Value>> {
    let statuses = api.database.stream_statuses();
    let status = statuses.into_iter().find(|status| status.data_source == data_source);
    let status = status.ok_or_else(|| Error::not_found(format!("nothing is pushed to `{data_source}`")))?;
    Ok(Json(json!({
        "dataSource": status.data_source,
        "state": status.state.to_string(),
        "liveRows": status.live_rows,
        "liveGranules": status.live_granules,
        "memoryBytes": status.memory_bytes,
        "walBytes": status.wal_bytes,
        "walPosition": status.wal_position,
        "publishedPosition": status.published_position,
        "requests": status.requests,
        "duplicates": status.duplicates,
        "rows": status.rows,
        "reasons": status.reasons,
        "handOffs": status.hand_offs,
        "lastError": status.last_error,
    })))
}

pub(super) async fn spec(State(api): State<Arc<Api>>, Path(data_source): Path<String>) -> Answer<Json<Value>> {
    let spec = api.database.push_spec(&data_source);
    let spec = spec.ok_or_else(|| Error::not_found(format!("nothing is pushed to `{data_source}`")))?;
    Ok(Json(json!({ "type": "push", "spec": spec })))
}

/// Declares how rows are taken.
pub(super) async fn declare(
    State(api): State<Arc<Api>>,
    Path(data_source): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Answer<Json<Value>> {
    let spec = PushSpec::from_json(&body.to_string())?;
    let named = &spec.data_schema.data_source;
    if *named != data_source {
        return Err(Error::invalid_input(format!("the spec is of `{named}`, the path of `{data_source}`")).into());
    }
    api.database.declare_push(spec).await?;
    Ok(Json(json!({ "id": data_source })))
}

/// Publishes what was taken so far.
pub(super) async fn hand_off(
    State(api): State<Arc<Api>>,
    Path(data_source): Path<String>,
    Parameters(parameters): Parameters<HandOffParameters>,
) -> Answer<Json<Value>> {
    let done = api.database.hand_off(&data_source, parameters.accept_loss).await?;
    Ok(Json(json!({ "dataSource": data_source, "rows": done.rows, "segments": done.segments })))
}
