//! `/druid/indexer/v1`: ingestion as tasks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use henge_catalog::Database;
use henge_catalog::database::{IngestRun, TaskWork};
use henge_catalog::store::{TaskRecord, TaskStatus};
use henge_engine::Error;
use henge_engine::ingest::Cancellation;
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

fn new_id(work: &TaskWork) -> String {
    format!("{}_{}_{:016x}", work.task_type(), work.data_source(), rand::random::<u64>())
}

/// How it ended is recorded; what it did is in its report.
async fn run(work: TaskWork, database: &Database, id: String) -> henge_engine::Result<()> {
    match work {
        TaskWork::Ingest(spec) => {
            database.ingest(*spec, IngestRun { task_id: Some(id), ..IngestRun::default() }).await.map(drop)
        }
        TaskWork::Compact(spec) => database.compact(spec, Some(id), Cancellation::default()).await.map(drop),
    }
}

/// Starts a task, and answers with its id once it is recorded.
pub(super) async fn submit(State(api): State<Arc<Api>>, JsonBody(body): JsonBody<Value>) -> Answer<Json<Value>> {
    let work = TaskWork::from_json(&body)?;
    let id = body.get("id").and_then(Value::as_str).map_or_else(|| new_id(&work), str::to_string);
    if api.coordinator.is_some() {
        // A server of the cluster runs it.
        api.database.hand_in(&id, &work).await?;
        return Ok(Json(json!({ "task": id })));
    }
    if api.database.task(&id).await?.is_some() {
        return Err(Error::conflict(format!("there is a task `{id}` already; give this one another id")).into());
    }
    let database = api.database.clone();
    let (recorded, started, running) = (api.database.clone(), id.clone(), id.clone());
    let task = {
        let mut tasks = api.tasks.lock();
        while tasks.try_join_next().is_some() {}
        let (ended, wait) = tokio::sync::oneshot::channel();
        tasks.spawn(async move {
            // Who asked may not be there any more.
            let _ = ended.send(run(work, &database, running).await);
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

async fn until_recorded(database: &Database, id: &str) -> henge_engine::Result<()> {
    while database.task(id).await?.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn record(api: &Api, id: &str) -> henge_engine::Result<TaskRecord> {
    api.database.task(id).await?.ok_or_else(|| Error::not_found(format!("there is no task `{id}`")))
}

pub(super) async fn list(State(api): State<Arc<Api>>, Parameters(listing): Parameters<Listing>) -> Answer<Json<Value>> {
    let records = api.database.tasks(listing.max.unwrap_or(LISTED)).await?;
    let mut described = Vec::with_capacity(records.len());
    for record in &records {
        described.push(self::described(&api, record).await?);
    }
    Ok(Json(Value::Array(described)))
}

pub(super) async fn payload(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let record = record(&api, &id).await?;
    // It was recorded as a task: `{"type": …, "spec": …}`.
    let payload: Value = serde_json::from_str(&record.payload).unwrap_or(Value::Null);
    Ok(Json(json!({ "task": id, "payload": payload })))
}

pub(super) async fn status(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let record = record(&api, &id).await?;
    Ok(Json(json!({ "task": id, "status": described(&api, &record).await? })))
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
    let is_ended = match &api.coordinator {
        Some(_) => api.database.call_off(&id).await?,
        None => api.database.cancel_task(&id),
    };
    if !is_ended {
        return Err(Error::conflict(format!("task `{id}` is not running")).into());
    }
    Ok(Json(json!({ "task": id })))
}

/// Where a task runs: here, or, in a cluster, where its lease is held.
async fn location(api: &Api, record: &TaskRecord) -> henge_engine::Result<Value> {
    let nowhere = json!({ "host": null, "port": -1, "tlsPort": -1 });
    if record.status.is_complete() {
        return Ok(nowhere);
    }
    let holder = match &api.coordinator {
        Some(_) => api.database.store().lease_holder(&TaskRecord::lease_role(&record.id)).await?,
        None => Some(api.database.server_name()),
    };
    let name = holder.as_deref().and_then(|holder| holder.split('/').next()).unwrap_or_default();
    Ok(match name.rsplit_once(':') {
        Some((host, port)) => json!({ "host": host, "port": port.parse::<u16>().ok(), "tlsPort": -1 }),
        None => nowhere,
    })
}

async fn described(api: &Api, record: &TaskRecord) -> henge_engine::Result<Value> {
    let code = match record.status {
        TaskStatus::Waiting | TaskStatus::Running => "RUNNING",
        TaskStatus::Success => "SUCCESS",
        TaskStatus::Failed => "FAILED",
    };
    let runner = match record.status {
        TaskStatus::Waiting => "WAITING",
        TaskStatus::Running => "RUNNING",
        TaskStatus::Success | TaskStatus::Failed => "NONE",
    };
    Ok(json!({
        "id": record.id,
        "type": record.task_type,
        "dataSource": record.data_source,
        "createdTime": record.created.to_string(),
        "statusCode": code,
        "status": code,
        "runnerStatusCode": runner,
        "duration": record.duration_ms,
        "location": location(api, record).await?,
        "errorMsg": record.error,
    }))
}
