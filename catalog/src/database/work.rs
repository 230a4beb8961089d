//! Tasks of a cluster: handed in to its metadata database, and run by whichever of its servers takes them.
//!
//! Who runs a task holds a lease of its own for it, and writes under that: a server that hangs, and goes on after another
//! has taken its task over, publishes nothing. A task publishes under its id, so that it does so once, however often it is
//! begun. Tasks of one data source are run one after the other, in the order in which they were handed in.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use henge_engine::ingest::{self, Cancellation, IngestionSpec, Progress};
use henge_engine::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{CompactionReport, CompactionSpec, Database, IngestRun, Inner, Mode};
use crate::lease::{self, Renewal};
use crate::store::{Lease, LeaseOutcome, MetadataStore, TaskRecord, TaskStatus};

/// A task is begun so often at most. Whoever ran it was killed each time: it may well be the task that does it.
const ATTEMPTS: u64 = 5;
/// What a task may be called, in bytes: its lease, and its publications, are named after it.
const MAX_ID_BYTES: usize = 200;

/// What a task does.
#[derive(Clone, Debug)]
pub enum TaskWork {
    Ingest(Box<IngestionSpec>),
    Compact(CompactionSpec),
}

impl TaskWork {
    /// `{"type": …, "spec": {…}}`, or the spec of an ingestion alone.
    pub fn from_json(task: &Value) -> Result<Self> {
        match task.get("type").and_then(Value::as_str) {
            Some("compact") => CompactionSpec::from_json(task).map(Self::Compact),
            None | Some("index" | "index_parallel") => {
                let spec = IngestionSpec::from_json(&task.get("spec").unwrap_or(task).to_string())?;
                Ok(Self::Ingest(Box::new(spec)))
            }
            Some(other) => Err(Error::unsupported(format!(
                "tasks of type `{other}` are not supported; use `index_parallel` or `compact`"
            ))),
        }
    }

    fn of(record: &TaskRecord) -> Result<Self> {
        let broken =
            |error| Error::corrupt(format!("what task `{}` is to do is no JSON", record.id)).with_source(error);
        match record.task_type.as_str() {
            "compact" => Self::from_json(&serde_json::from_str(&record.payload).map_err(broken)?),
            _ => Ok(Self::Ingest(Box::new(IngestionSpec::from_json(&record.payload)?))),
        }
    }

    pub fn task_type(&self) -> &'static str {
        match self {
            Self::Ingest(_) => "index_parallel",
            Self::Compact(_) => "compact",
        }
    }

    pub fn data_source(&self) -> &str {
        match self {
            Self::Ingest(spec) => &spec.data_schema.data_source,
            Self::Compact(spec) => &spec.data_source,
        }
    }

    fn payload(&self) -> Result<String> {
        match self {
            Self::Ingest(spec) => {
                serde_json::to_string(spec).map_err(|error| Error::defensive("a spec is not JSON").with_source(error))
            }
            Self::Compact(spec) => Ok(spec.to_json().to_string()),
        }
    }
}

/// A task that this process may run.
struct Claimed {
    record: TaskRecord,
    lease: Lease,
}

impl Database {
    /// Records a task, for a server of the cluster to run. What it does is checked here as far as it can be.
    pub async fn hand_in(&self, id: &str, work: &TaskWork) -> Result<()> {
        self.check_writes()?;
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(Error::invalid_input(format!("a task's id has 1 to {MAX_ID_BYTES} bytes")));
        }
        if self.inner.store.task(id).await?.is_some() {
            return Err(Error::conflict(format!("there is a task `{id}` already; give this one another id")));
        }
        let record = TaskRecord {
            id: id.to_owned(),
            task_type: work.task_type().to_owned(),
            data_source: work.data_source().to_owned(),
            created: self.now(),
            status: TaskStatus::Waiting,
            duration_ms: None,
            error: None,
            payload: work.payload()?,
            report: None,
        };
        self.inner.store.save_task(&record).await
    }

    /// Ends a task that was handed in, wherever it runs. Returns whether it had not ended by itself.
    pub async fn call_off(&self, id: &str) -> Result<bool> {
        let (store, role) = (&self.inner.store, TaskRecord::lease_role(id));
        // From here on, whoever runs it publishes nothing.
        store.seize_lease(&role, "called off", lease::TTL).await?;
        let record = store.task(id).await?.filter(|record| !record.status.is_complete());
        let is_ended = match record {
            Some(record) => {
                let published = store.published(id).await?.is_some();
                let result = if published { Ok(Value::Null) } else { Err(Error::canceled("the task was canceled")) };
                self.inner.record_end(record, &result).await;
                !published
            }
            None => false,
        };
        store.remove_lease(&role).await?;
        Ok(is_ended)
    }

    /// Runs the oldest task that nobody runs and that waits for no other, to its end, as `holder`. Returns its id, or
    /// `None` if there is none. Once the database is closed, what was begun is handed back.
    pub async fn work(&self, holder: &str) -> Result<Option<String>> {
        if self.inner.mode != Mode::Worker {
            return Err(Error::defensive("tasks of a cluster are run by a database that was opened for that"));
        }
        let Some(claimed) = self.inner.claim(holder).await? else { return Ok(None) };
        let id = claimed.record.id.clone();
        tracing::info!(task = id, attempt = claimed.lease.epoch, "a task begins");
        let (inner, (ended, wait)) = (Arc::clone(&self.inner), oneshot::channel());
        {
            let mut tasks = self.inner.tasks.lock();
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                inner.store.act_under(Some(claimed.lease.clone()));
                inner.run_claimed(claimed).await;
                inner.store.act_under(None);
                if let Err(error) = inner.view.trim_cache() {
                    tracing::warn!(%error, "what a task fetched stays");
                }
                let _ = ended.send(());
            });
        }
        wait.await.map_err(|_| Error::canceled("the server ends"))?;
        Ok(Some(id))
    }
}

impl Inner {
    async fn claim(&self, holder: &str) -> Result<Option<Claimed>> {
        let mut busy = HashSet::new();
        for task in self.store.unfinished_tasks().await? {
            let role = TaskRecord::lease_role(&task.id);
            if !busy.insert(task.data_source) || self.store.lease_holder(&role).await?.is_some() {
                continue;
            }
            let LeaseOutcome::Held(lease) = self.store.acquire_lease(&role, holder, lease::TTL).await? else {
                continue;
            };
            // It may have ended since it was listed.
            match self.store.task(&task.id).await?.filter(|record| !record.status.is_complete()) {
                Some(record) => return Ok(Some(Claimed { record, lease })),
                None => self.store.remove_lease(&role).await?,
            }
        }
        Ok(None)
    }

    async fn run_claimed(self: &Arc<Self>, Claimed { mut record, lease }: Claimed) {
        let cancel = Cancellation::default();
        self.running.lock().insert(record.id.clone(), cancel.clone());
        let progress = Arc::new(Counted::default());
        let mut keeping = JoinSet::new();
        let kept = Keeping {
            store: Arc::clone(&self.store),
            lease: lease.clone(),
            task: record.id.clone(),
            cancel: cancel.clone(),
            progress: Arc::clone(&progress),
        };
        keeping.spawn(kept.keep(Instant::now()));
        let result = self.run_once(&mut record, lease.epoch, cancel, progress).await;
        keeping.shutdown().await;
        if result.is_err() && self.ingesting.is_closed() {
            self.hand_back(record, &lease).await;
            return;
        }
        if let Err(error) = &result {
            tracing::warn!(task = record.id, %error, "a task failed");
        }
        self.record_end(record, &result).await;
        // Nobody asks for it any more. If it was lost, so be it.
        if let Err(error) = self.store.remove_lease(&lease.role).await {
            tracing::debug!(%error, "the lease of a task stays");
        }
    }

    /// What it did, as JSON.
    async fn run_once(
        &self,
        record: &mut TaskRecord,
        attempt: u64,
        cancel: Cancellation,
        progress: Arc<Counted>,
    ) -> Result<Value> {
        if self.store.published(&record.id).await?.is_some() {
            return Ok(
                json!({ "note": "published by an earlier attempt, which ended before it could say what it did" }),
            );
        }
        if attempt > ATTEMPTS {
            return Err(Error::runtime_failure(format!(
                "it was begun {ATTEMPTS} times, and whoever ran it ended before it did; see the logs of these servers"
            )));
        }
        // What an earlier attempt left behind.
        self.remove_unpublished(&record.id).await;
        match TaskWork::of(record)? {
            TaskWork::Ingest(spec) => {
                let run = IngestRun { progress, cancel, ..IngestRun::default() };
                as_json(self.run(record, *spec, run, Box::new(ingest::run)).await?)
            }
            TaskWork::Compact(spec) => {
                self.catch_up().await?;
                let report: CompactionReport = self.compact_in_turn(record, &spec, &cancel).await?;
                as_json(report)
            }
        }
    }

    /// This process ends: another one takes the task.
    async fn hand_back(&self, record: TaskRecord, lease: &Lease) {
        self.remove_unpublished(&record.id).await;
        self.running.lock().remove(&record.id);
        let waiting = TaskRecord { status: TaskStatus::Waiting, report: None, ..record };
        let handed_back = async {
            self.store.save_task(&waiting).await?;
            self.store.release_lease(lease).await
        };
        match handed_back.await {
            Ok(()) => tracing::info!(task = waiting.id, "handed back, since this server ends"),
            Err(error) => tracing::warn!(task = waiting.id, %error, "others take it when its lease has run out"),
        }
    }
}

fn as_json(report: impl Serialize) -> Result<Value> {
    serde_json::to_value(report).map_err(|error| Error::defensive("a report is not JSON").with_source(error))
}

/// Keeps the lease of a task while it runs, and says how far it is.
struct Keeping {
    store: Arc<dyn MetadataStore>,
    lease: Lease,
    task: String,
    cancel: Cancellation,
    progress: Arc<Counted>,
}

impl Keeping {
    async fn keep(self, asked: Instant) {
        let mut renewal = Renewal::new(Arc::clone(&self.store), self.lease, asked);
        while renewal.next().await {
            if let Err(error) = self.store.note_progress(&self.task, &self.progress.to_json()).await {
                tracing::debug!(%error, "how far a task is cannot be said");
            }
        }
        tracing::warn!(task = self.task, "its lease is lost: another server runs it, or it was called off");
        self.cancel.cancel();
    }
}

/// How far an ingestion is.
#[derive(Debug, Default)]
struct Counted {
    rows: AtomicU64,
    bytes: AtomicU64,
    total_bytes: AtomicU64,
    granules: AtomicU64,
}

impl Counted {
    fn to_json(&self) -> String {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let total = Some(get(&self.total_bytes)).filter(|total| *total > 0);
        let state = if get(&self.granules) == 0 { "BUILD_SEGMENTS" } else { "WRITE_SEGMENTS" };
        json!({
            "ingestionState": state,
            "rowsRead": get(&self.rows),
            "bytesRead": get(&self.bytes),
            "bytesTotal": total,
        })
        .to_string()
    }
}

impl Progress for Counted {
    fn reading(&self, total_bytes: Option<u64>) {
        self.total_bytes.store(total_bytes.unwrap_or(0), Ordering::Relaxed);
    }

    fn advanced(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn writing(&self, granules: usize) {
        self.granules.store(granules as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
