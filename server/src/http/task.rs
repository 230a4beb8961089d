//! `/druid/indexer/v1`: ingestion as tasks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use henge_catalog::Database;
use henge_catalog::database::{CompactionSpec, IngestRun};
use henge_catalog::store::{TaskRecord, TaskStatus};
use henge_engine::Error;
use henge_engine::ingest::{Cancellation, IngestionSpec};
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

/// What a task does.
enum Work {
    Ingest(Box<IngestionSpec>),
    Compact(CompactionSpec),
}

impl Work {
    /// `{"type": …, "spec": {…}}`, or the spec of an ingestion alone.
    fn from_json(body: &Value) -> henge_engine::Result<Self> {
        match body.get("type").and_then(Value::as_str) {
            Some("compact") => CompactionSpec::from_json(body).map(Self::Compact),
            None | Some("index" | "index_parallel") => {
                let spec = IngestionSpec::from_json(&body.get("spec").unwrap_or(body).to_string())?;
                Ok(Self::Ingest(Box::new(spec)))
            }
            Some(other) => Err(Error::unsupported(format!(
                "tasks of type `{other}` are not supported; use `index_parallel` or `compact`"
            ))),
        }
    }

    fn new_id(&self) -> String {
        let (kind, data_source) = match self {
            Self::Ingest(spec) => ("index_parallel", &spec.data_schema.data_source),
            Self::Compact(spec) => ("compact", &spec.data_source),
        };
        format!("{kind}_{data_source}_{:016x}", rand::random::<u64>())
    }

    /// How it ended is recorded; what it did is in its report.
    async fn run(self, database: &Database, id: String) -> henge_engine::Result<()> {
        match self {
            Self::Ingest(spec) => {
                database.ingest(*spec, IngestRun { task_id: Some(id), ..IngestRun::default() }).await.map(drop)
            }
            Self::Compact(spec) => database.compact(spec, Some(id), Cancellation::default()).await.map(drop),
        }
    }
}

/// Starts a task, and answers with its id once it is recorded.
pub(super) async fn submit(State(api): State<Arc<Api>>, JsonBody(body): JsonBody<Value>) -> Answer<Json<Value>> {
    let work = Work::from_json(&body)?;
    let id = body.get("id").and_then(Value::as_str).map_or_else(|| work.new_id(), str::to_string);
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
            let _ = ended.send(work.run(&database, running).await);
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
