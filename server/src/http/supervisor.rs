//! `/druid/indexer/v1/supervisor`: what keeps streams flowing into data sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use henge_catalog::Database;
use henge_catalog::provider::ClusterServers;
use henge_catalog::realtime::supervisor::{Positions, ResetTo, SupervisorStatus};
use henge_engine::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{JsonBody, Parameters};
use super::login::Login;
use super::{Answer, Api};

pub(super) const PATH: &str = "/druid/indexer/v1/supervisor";

/// Entries of a history unless said.
const ENTRIES: usize = 100;

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(list).post(submit))
        .route("/history", get(history))
        .route("/suspendAll", post(suspend_all))
        .route("/resumeAll", post(resume_all))
        .route("/terminateAll", post(terminate_all))
        .route("/{id}", get(spec))
        .route("/{id}/status", get(status))
        .route("/{id}/health", get(health))
        .route("/{id}/stats", get(stats))
        .route("/{id}/parseErrors", get(parse_errors))
        .route("/{id}/history", get(history_of))
        .route("/{id}/suspend", post(suspend))
        .route("/{id}/resume", post(resume))
        .route("/{id}/reset", post(reset))
        .route("/{id}/resetOffsets", post(reset_offsets))
        .route("/{id}/terminate", post(terminate))
        .route("/{id}/shutdown", post(terminate))
        .route("/{id}/taskGroups/handoff", post(hand_off))
}

/// Who asks: a name that was proved, or else one that was said.
fn author(headers: &HeaderMap, login: Option<Extension<Login>>) -> String {
    let said = || headers.get("x-druid-author").and_then(|value| value.to_str().ok()).map(str::to_owned);
    login.map(|Extension(Login(name))| name).or_else(said).unwrap_or_default()
}

pub(super) async fn submit(
    State(api): State<Arc<Api>>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Value>,
) -> Answer<Json<Value>> {
    let submitted = api.database.submit_supervisor(&body, &author(&headers, login)).await?;
    Ok(Json(match submitted.notes.is_empty() {
        true => json!({ "id": submitted.id }),
        false => json!({ "id": submitted.id, "warnings": submitted.notes }),
    }))
}

/// What of each is listed: nothing but ids unless asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listing {
    full: Option<String>,
    state: Option<String>,
    system: Option<String>,
}

/// Whether a flag of a path is set: `?full` is.
fn is_set(flag: Option<&String>) -> bool {
    flag.is_some_and(|value| value.is_empty() || value.eq_ignore_ascii_case("true"))
}

pub(super) async fn list(State(api): State<Arc<Api>>, Parameters(listing): Parameters<Listing>) -> Answer<Json<Value>> {
    let full = is_set(listing.full.as_ref());
    let with_state = full || is_set(listing.state.as_ref()) || is_set(listing.system.as_ref());
    let shown = |status: &SupervisorStatus| {
        if !with_state {
            return json!(status.id);
        }
        let mut shown = json!({
            "id": status.id,
            "dataSource": status.data_source,
            "state": status.state.basic(),
            "detailedState": status.state.to_string(),
            "healthy": status.state.is_healthy(),
            "type": status.kind,
            "source": status.topic,
            "suspended": status.is_suspended(),
        });
        if full {
            shown["spec"] = shown_spec(status);
        }
        shown
    };
    Ok(Json(statuses(&api).await?.iter().map(shown).collect()))
}

/// How all are: of this process, or, where a coordinator is asked, of its cluster.
async fn statuses(api: &Api) -> Result<Vec<SupervisorStatus>> {
    match &api.coordinator {
        None => Ok(api.database.supervisors()),
        Some(coordinator) => {
            let records = api.database.store().supervisors().await?;
            Ok(SupervisorStatus::of_cluster(&records, coordinator.watcher().supervisors().await))
        }
    }
}

fn shown_spec(status: &SupervisorStatus) -> Value {
    let mut spec = status.spec.clone();
    spec["suspended"] = json!(status.is_suspended());
    spec
}

pub(super) async fn spec(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(shown_spec(&api.database.supervisor(&id)?)))
}

pub(super) async fn status(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let status = api.database.supervisor(&id)?;
    Ok(Json(described(&status, &api.database.now().to_string())))
}

/// Numbers by partition; JSON has texts for keys.
fn by_partition(numbers: &BTreeMap<u32, u64>) -> Value {
    numbers.iter().map(|(partition, number)| (partition.to_string(), json!(number))).collect::<Value>()
}

/// In the shape of Druid's, with counts of ours.
fn described(status: &SupervisorStatus, now: &str) -> Value {
    let errors = status.errors.iter().map(|error| {
        json!({
            "timestamp": error.time.to_string(),
            "exceptionClass": if error.of_stream { "StreamException" } else { "Exception" },
            "message": error.message,
            "streamException": error.of_stream,
        })
    });
    let task = json!({
        "id": format!("index_{}_{}", status.kind, status.id),
        "startingOffsets": by_partition(&status.published),
        "startTime": status.started.to_string(),
        "remainingSeconds": status.hand_off_due_seconds,
        "type": "ACTIVE",
        "currentOffsets": by_partition(&status.reached),
        "lag": by_partition(&status.lag),
    });
    let is_active = status.state.is_healthy() && !status.is_suspended();
    json!({
        "id": status.id,
        "generationTime": now,
        "payload": {
            "id": status.id,
            "dataSource": status.data_source,
            "stream": status.topic,
            "partitions": status.latest.len(),
            "replicas": 1,
            "taskCount": status.task_count,
            "durationSeconds": status.duration_seconds,
            "activeTasks": if is_active { vec![task] } else { Vec::new() },
            "publishingTasks": [],
            "publishedOffsets": by_partition(&status.published),
            "currentOffsets": by_partition(&status.reached),
            "latestOffsets": by_partition(&status.latest),
            "minimumLag": by_partition(&status.lag),
            "aggregateLag": status.aggregate_lag(),
            "offsetsLastUpdated": status.surveyed.map(|time| time.to_string()),
            "suspended": status.is_suspended(),
            "healthy": status.state.is_healthy(),
            "state": status.state.basic(),
            "detailedState": status.state.to_string(),
            "recentErrors": errors.collect::<Vec<_>>(),
            "liveRows": status.live_rows,
            "records": status.records,
            "rows": status.rows,
            "emptyRecords": status.empty,
            "reasons": status.reasons,
            "handOffs": status.hand_offs,
            "handedOffRows": status.handed_off_rows,
        }
    })
}

pub(super) async fn health(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Response> {
    let healthy = api.database.supervisor(&id)?.state.is_healthy();
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, Json(json!({ "healthy": healthy }))).into_response())
}

pub(super) async fn stats(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let status = api.database.supervisor(&id)?;
    let task = format!("index_{}_{}", status.kind, status.id);
    Ok(Json(json!({ "0": { task: { "totals": { "buildSegments": {
        "processed": status.rows - status.rows_with_error,
        "processedBytes": status.bytes,
        "processedWithError": status.rows_with_error,
        "thrownAway": status.thrown_away,
        "unparseable": status.unparseable,
    } } } } })))
}

pub(super) async fn parse_errors(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(json!(api.database.supervisor(&id)?.bad_rows)))
}

#[derive(Debug, Deserialize)]
pub(super) struct Count {
    count: Option<usize>,
}

async fn entries(api: &Api, id: Option<&str>, count: Option<usize>) -> Answer<Json<Value>> {
    let entries = api.database.store().audit("supervisor", id, count.unwrap_or(ENTRIES)).await?;
    Ok(Json(json!(entries)))
}

pub(super) async fn history(State(api): State<Arc<Api>>, Parameters(count): Parameters<Count>) -> Answer<Json<Value>> {
    entries(&api, None, count.count).await
}

pub(super) async fn history_of(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Parameters(count): Parameters<Count>,
) -> Answer<Json<Value>> {
    entries(&api, Some(&id), count.count).await
}

pub(super) async fn suspend(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    Ok(Json(shown_spec(&api.database.suspend_supervisor(&id, &author(&headers, login)).await?)))
}

pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    Ok(Json(shown_spec(&api.database.resume_supervisor(&id, &author(&headers, login)).await?)))
}

pub(super) async fn terminate(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    api.database.terminate_supervisor(&id, &author(&headers, login)).await?;
    Ok(Json(json!({ "id": id })))
}

/// What can be done with all supervisors at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForAll {
    Suspend,
    Resume,
    Terminate,
}

impl ForAll {
    /// As the last part of a path.
    fn path(self) -> &'static str {
        match self {
            Self::Suspend => "suspendAll",
            Self::Resume => "resumeAll",
            Self::Terminate => "terminateAll",
        }
    }

    pub(super) fn of_path(path: &str) -> Result<Self> {
        let all = [Self::Suspend, Self::Resume, Self::Terminate];
        all.into_iter()
            .find(|action| action.path() == path)
            .ok_or_else(|| Error::not_found("there is nothing at this path"))
    }

    /// Does it with those that run in this process.
    pub(super) async fn obey(self, database: &Database, by: &str) -> Result<()> {
        for status in database.supervisors() {
            match self {
                Self::Suspend if !status.is_suspended() => drop(database.suspend_supervisor(&status.id, by).await?),
                Self::Resume if status.is_suspended() => drop(database.resume_supervisor(&status.id, by).await?),
                Self::Terminate => database.terminate_supervisor(&status.id, by).await?,
                Self::Suspend | Self::Resume => {}
            }
        }
        Ok(())
    }

    async fn done(self, api: &Api, by: &str) -> Answer<Json<Value>> {
        match &api.coordinator {
            None => self.obey(&api.database, by).await?,
            Some(coordinator) => {
                for server in coordinator.watcher().servers("realtime") {
                    coordinator.peers().all_supervisors(&server, self.path(), by).await?;
                }
            }
        }
        Ok(Json(json!({ "status": "success" })))
    }
}

pub(super) async fn suspend_all(
    State(api): State<Arc<Api>>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    ForAll::Suspend.done(&api, &author(&headers, login)).await
}

pub(super) async fn resume_all(
    State(api): State<Arc<Api>>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    ForAll::Resume.done(&api, &author(&headers, login)).await
}

pub(super) async fn terminate_all(
    State(api): State<Arc<Api>>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    ForAll::Terminate.done(&api, &author(&headers, login)).await
}

/// From where reading is to go on, and that it is known what that does.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Reset {
    confirm: bool,
    to: Option<String>,
}

impl Reset {
    fn check_confirmed(&self, id: &str) -> Result<()> {
        match self.confirm {
            true => Ok(()),
            false => Err(Error::invalid_input(format!(
                "after a reset of `{id}` records may be missing, or be there twice: look at its status, and say that it \
                 is meant with `confirm=true`"
            ))),
        }
    }
}

pub(super) async fn reset(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Parameters(reset): Parameters<Reset>,
) -> Answer<Json<Value>> {
    api.database.supervisor(&id)?;
    reset.check_confirmed(&id)?;
    let to = match reset.to.as_deref() {
        None => ResetTo::Gaps,
        Some("earliest") => ResetTo::Earliest,
        Some("latest") => ResetTo::Latest,
        Some(other) => {
            let message = format!("`to` is `earliest` or `latest`, not `{other}`; without it, gaps are passed over");
            return Err(Error::invalid_input(message).into());
        }
    };
    let positions = api.database.reset_supervisor(&id, to).await?;
    Ok(Json(json!({ "id": id, "offsets": by_partition(&positions) })))
}

pub(super) async fn reset_offsets(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Parameters(reset): Parameters<Reset>,
    JsonBody(body): JsonBody<Value>,
) -> Answer<Json<Value>> {
    let topic = api.database.supervisor(&id)?.topic;
    reset.check_confirmed(&id)?;
    let positions = api.database.reset_supervisor(&id, ResetTo::Offsets(offsets(&body, &topic)?)).await?;
    Ok(Json(json!({ "id": id, "offsets": by_partition(&positions) })))
}

/// Druid's `{"type": "kafka", "partitions": {"type": "end", "stream": …, "partitionOffsetMap": {"0": 5}}}`.
fn offsets(body: &Value, topic: &str) -> Result<Positions> {
    let wrong = || {
        Error::invalid_input(
            "the body is `{\"type\": \"kafka\", \"partitions\": {\"type\": \"end\", \"stream\": TOPIC, \
             \"partitionOffsetMap\": {PARTITION: OFFSET}}}`",
        )
    };
    let partitions = body.get("partitions").ok_or_else(wrong)?;
    if let Some(stream) = partitions.get("stream").and_then(Value::as_str)
        && stream != topic
    {
        return Err(Error::invalid_input(format!("offsets of `{stream}` for a supervisor that reads `{topic}`")));
    }
    let map = partitions.get("partitionOffsetMap").and_then(Value::as_object).ok_or_else(wrong)?;
    let entry = |(partition, offset): (&String, &Value)| Some((partition.parse().ok()?, offset.as_u64()?));
    let positions = map.iter().map(entry).collect::<Option<Positions>>().ok_or_else(wrong)?;
    if positions.is_empty() { Err(wrong()) } else { Ok(positions) }
}

/// Publishes what was read so far. Druid names groups of tasks in the body; here all are one.
pub(super) async fn hand_off(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let done = api.database.hand_off_supervisor(&id).await?;
    Ok(Json(json!({ "id": id, "rows": done.rows, "segments": done.segments })))
}
