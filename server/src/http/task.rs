//! `/druid/indexer/v1`: ingestion as tasks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use henge_catalog::database::IngestRun;
use henge_catalog::store::{TaskRecord, TaskStatus};
use henge_engine::Error;
use henge_engine::ingest::IngestionSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{JsonBody, Parameters};
use super::{Answer, Api};

/// Tasks listed unless said.
const LISTED: usize = 100;

#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    max: Option<usize>,
}

/// Starts a task, and answers with its id once it is recorded.
pub(super) async fn submit(State(api): State<Arc<Api>>, JsonBody(body): JsonBody<Value>) -> Answer<Json<Value>> {
    let id = body.get("id").and_then(Value::as_str).map(str::to_string);
    let spec = spec(&body)?;
    let id =
        id.unwrap_or_else(|| format!("index_parallel_{}_{:016x}", spec.data_schema.data_source, rand::random::<u64>()));
    if api.database.task(&id).await?.is_some() {
        return Err(Error::conflict(format!("there is a task `{id}` already; give this one another id")).into());
    }
    let run = IngestRun { task_id: Some(id.clone()), ..IngestRun::default() };
    let database = api.database.clone();
    let (recorded, started) = (api.database.clone(), id.clone());
    let task = {
        let mut tasks = api.tasks.lock();
        while tasks.try_join_next().is_some() {}
        let (ended, wait) = tokio::sync::oneshot::channel();
        tasks.spawn(async move {
            // How it ended is recorded; who asked may not be there any more.
            let _ = ended.send(database.ingest(spec, run).await);
        });
        wait
    };
    // It may fail before it is recorded at all.
    tokio::select! {
        ended = task => match ended {
            Ok(Err(error)) if recorded.task(&started).await?.is_none() => return Err(error.into()),
            _ => {}
        },
        found = until_recorded(&recorded, &started) => found?,
    }
    Ok(Json(json!({ "task": id })))
}

async fn until_recorded(database: &henge_catalog::Database, id: &str) -> henge_engine::Result<()> {
    while database.task(id).await?.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The spec of a task: `{"type": …, "spec": {…}}`, or the spec alone.
fn spec(body: &Value) -> henge_engine::Result<IngestionSpec> {
    match body.get("type").and_then(Value::as_str) {
        None | Some("index" | "index_parallel") => {}
        Some(other) => {
            return Err(Error::unsupported(format!("tasks of type `{other}` are not supported; use `index_parallel`")));
        }
    }
    IngestionSpec::from_json(&body.get("spec").unwrap_or(body).to_string())
}

async fn record(api: &Api, id: &str) -> henge_engine::Result<TaskRecord> {
    api.database.task(id).await?.ok_or_else(|| Error::not_found(format!("there is no task `{id}`")))
}

pub(super) async fn list(State(api): State<Arc<Api>>, Parameters(listing): Parameters<Listing>) -> Answer<Json<Value>> {
    let records = api.database.tasks(listing.max.unwrap_or(LISTED)).await?;
    Ok(Json(records.iter().map(described).collect()))
}

pub(super) async fn payload(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let record = record(&api, &id).await?;
    // It was recorded as a task: `{"type": …, "spec": …}`.
    let payload: Value = serde_json::from_str(&record.payload).unwrap_or(Value::Null);
    Ok(Json(json!({ "task": id, "payload": payload })))
}

pub(super) async fn status(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let record = record(&api, &id).await?;
    Ok(Json(json!({ "task": id, "status": described(&record) })))
}

pub(super) async fn reports(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let record = record(&api, &id).await?;
    let Some(report) = record.report.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Err(Error::not_found(format!("task `{id}` has no report yet")).into());
    };
    Ok(Json(json!({
        "ingestionStatsAndErrors": { "taskId": id, "type": "ingestionStatsAndErrors", "payload": report }
    })))
}

pub(super) async fn shutdown(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    record(&api, &id).await?;
    if !api.database.cancel_task(&id) {
        return Err(Error::conflict(format!("task `{id}` is not running")).into());
    }
    Ok(Json(json!({ "task": id })))
}

fn described(record: &TaskRecord) -> Value {
    let code = match record.status {
        TaskStatus::Waiting | TaskStatus::Running => "RUNNING",
        TaskStatus::Success => "SUCCESS",
        TaskStatus::Failed => "FAILED",
    };
    json!({
        "id": record.id,
        "type": record.task_type,
        "dataSource": record.data_source,
        "createdTime": record.created.to_string(),
        "statusCode": code,
        "status": code,
        "duration": record.duration_ms,
        "errorMsg": record.error,
    })
}
