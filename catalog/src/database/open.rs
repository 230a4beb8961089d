use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_engine::ingest::StoreOptions;
use henge_engine::ingest::stream::StreamConnector;
use henge_engine::model::Timestamp;
use henge_engine::session::{Runtime, RuntimeOptions};
use henge_engine::storage::{DeepStorage, DeepStorageUrl, Disk, LocalDisk};
use henge_engine::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ingest::{new_uid, remove};
use super::lock::{DirectoryLock, Holder, Locking};
use super::sink::{RealtimeOptions, Served};
use super::{AutoCompaction, Database, Inner, Mode, watch};
use crate::clock::{Clock, SystemClock};
use crate::lease;
use crate::provider::ThisServer;
use crate::store::{Lease, MetadataStore, MetadataUrl, Pushes, TaskRecord, TaskStatus};
use crate::view::{Druids, Reads, RemoteRows, View};

const METADATA_FILE: &str = "metadata.sqlite";
const SEGMENTS_DIR: &str = "segments";
const CACHE_DIR: &str = "segment-cache";
const NODE_FILE: &str = "node-id";
const TMP_DIR: &str = "tmp";
/// Below [`TMP_DIR`]: what queries spill.
const SPILL_DIR: &str = "spill";
/// An ingestion's share of the memory limit; queries have what no ingestion has reserved.
const INGEST_SHARE: usize = 4;
/// An ingestion's memory if there is no limit.
const INGEST_BYTES: usize = 1 << 30;
/// How many of the latest tasks are looked at for ones that a process left behind.
const RECENT_TASKS: usize = 1_000;

/// How a database is opened.
#[derive(Debug)]
pub struct DatabaseBuilder {
    dir: PathBuf,
    memory_limit_bytes: Option<usize>,
    threads: Option<NonZeroUsize>,
    store_options: StoreOptions,
    metadata: Option<MetadataUrl>,
    deep_storage: Option<DeepStorageUrl>,
    druids: Druids,
    cache_limit_bytes: Option<u64>,
    auto_compaction: Vec<AutoCompaction>,
    clock: Arc<dyn Clock>,
    connector: Option<Arc<dyn StreamConnector>>,
    mode: Mode,
    /// Of a leader.
    lease: Option<Lease>,
    /// Of a realtime process of a cluster.
    realtime: Option<RealtimeOptions>,
}

/// What opening a data directory gave.
#[derive(Debug)]
pub enum Opening {
    Opened(Database),
    /// Another process has it.
    Held(Holder),
}

impl DatabaseBuilder {
    pub(super) fn new(dir: PathBuf) -> Self {
        let store_options = StoreOptions::default();
        Self {
            dir,
            memory_limit_bytes: None,
            threads: None,
            store_options,
            metadata: None,
            deep_storage: None,
            druids: Druids::default(),
            cache_limit_bytes: None,
            auto_compaction: Vec::new(),
            clock: Arc::new(SystemClock),
            connector: None,
            mode: Mode::Alone,
            lease: None,
            realtime: None,
        }
    }

    /// How much memory queries and ingestion may use together. Without it there is no limit for queries, and an
    /// ingestion spills beyond 1 GiB.
    #[must_use]
    pub fn memory_limit_bytes(mut self, bytes: usize) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    /// How many cores a query, or an ingestion, uses. All unless said.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Where it is kept what is published: a SQLite file in the directory unless said. A database that others reach too
    /// has one process at a time that writes to it.
    #[must_use]
    pub fn metadata(mut self, url: MetadataUrl) -> Self {
        self.metadata = Some(url);
        self
    }

    /// Where segments stay for ever: in the directory unless said.
    #[must_use]
    pub fn deep_storage(mut self, url: DeepStorageUrl) -> Self {
        self.deep_storage = Some(url);
        self
    }

    /// The data sources whose segments of Druid's have an empty text where they mean null, as Druid wrote them by default
    /// until version 28; `*` is all of them. None unless said.
    #[must_use]
    pub fn empty_is_null(mut self, data_sources: impl IntoIterator<Item = String>) -> Self {
        self.druids.empty_is_null = data_sources.into_iter().collect();
        self
    }

    /// The data sources whose segments of Druid's are written in Henge's format once they are on this machine, compared
    /// row for row, and served from that; `*` is all of them. None unless said. Deep storage is left as it is.
    #[must_use]
    pub fn convert_druids(mut self, data_sources: impl IntoIterator<Item = String>) -> Self {
        self.druids.convert = data_sources.into_iter().collect();
        self
    }

    /// How many bytes the segments may take that are fetched from elsewhere and kept in the directory. What was read
    /// longest ago goes first; what queries need at one time is kept beyond the limit. No limit unless said.
    #[must_use]
    pub fn cache_limit_bytes(mut self, bytes: u64) -> Self {
        self.cache_limit_bytes = Some(bytes);
        self
    }

    /// What is compacted without being asked; the first that names a data source is for it. Nothing unless said.
    #[must_use]
    pub fn auto_compaction(mut self, auto: impl IntoIterator<Item = AutoCompaction>) -> Self {
        self.auto_compaction = auto.into_iter().collect();
        self
    }

    /// What object stores need to know: credentials, regions, endpoints. Nothing unless said: a
    /// library does not read the environment.
    #[must_use]
    pub fn store_options(mut self, options: StoreOptions) -> Self {
        self.store_options = options;
        self
    }

    /// The clock that versions are taken from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Runs supervisors, which reach their streams with this. Without it they do not run.
    #[must_use]
    pub fn streams(mut self, connector: Arc<dyn StreamConnector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Publishes for a cluster, under this lease, which the caller renews.
    #[must_use]
    pub fn lead(mut self, lease: Lease) -> Self {
        (self.mode, self.lease) = (Mode::Leader, Some(lease));
        self
    }

    /// Shows what others publish, and writes nothing.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.mode = Mode::Follower;
        self
    }

    /// Takes rows for a cluster.
    #[must_use]
    pub fn realtime(mut self, options: RealtimeOptions) -> Self {
        (self.mode, self.realtime) = (Mode::Realtime, Some(options));
        self
    }

    /// Runs tasks of a cluster; see [`Database::work`].
    #[must_use]
    pub fn work(mut self) -> Self {
        self.mode = Mode::Worker;
        self
    }

    fn metadata_url(&self) -> MetadataUrl {
        self.metadata.clone().unwrap_or_else(|| MetadataUrl::Sqlite(self.dir.join(METADATA_FILE)))
    }

    /// Opens the metadata alone, also while another process has the directory: the metadata database itself keeps its
    /// writers apart. For what is no part of the data: who may log in.
    pub async fn open_metadata(&self) -> Result<Arc<dyn MetadataStore>> {
        LocalDisk.create_dir_durably(&self.dir).map_err(|error| cannot_use(&self.dir, error))?;
        self.metadata_url().open().await
    }

    /// Opens the database; the directory and what belongs in it are made when missing. Fails with `Conflict` if another
    /// process has it.
    pub async fn open(self) -> Result<Database> {
        let dir = self.dir.clone();
        match self.try_open().await? {
            Opening::Opened(database) => Ok(database),
            Opening::Held(holder) => Err(Error::conflict(format!(
                "data directory `{}` is in use by {holder}; end that process, or use another directory",
                dir.display()
            ))),
        }
    }

    /// The same, but that another process has the directory is an outcome, so that one can talk to it instead.
    pub async fn try_open(self) -> Result<Opening> {
        let dir = self.dir.clone();
        let lock = tokio::task::spawn_blocking(move || prepare(&dir)).await.map_err(super::lost)??;
        let lock = match lock {
            Locking::Locked(lock) => lock,
            Locking::Held(holder) => return Ok(Opening::Held(holder)),
        };
        let store = self.metadata_url().open().await?;
        let lease = match (self.mode, &self.metadata) {
            (Mode::Leader, _) => self.lease,
            // Of a realtime process nobody else writes the streams; where each of them is, is checked with every commit.
            (Mode::Follower | Mode::Realtime | Mode::Worker, _) | (Mode::Alone, None) => None,
            // Others may have been told the same URL.
            (Mode::Alone, Some(_)) => {
                Some(lease::take(store.as_ref(), lease::COORDINATOR, &node_id(&self.dir, self.clock.now())?).await?)
            }
        };
        store.act_under(lease.clone());
        let deep_storage =
            self.deep_storage.clone().unwrap_or_else(|| DeepStorageUrl::Local(self.dir.join(SEGMENTS_DIR)));
        let options = self.store_options.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let storage = DeepStorage::open(&deep_storage, self.dir.join(CACHE_DIR), options)?;
        let now = self.clock.now();
        match self.mode {
            Mode::Alone => {
                sweep(store.as_ref(), &storage, Pushes::All).await?;
                fail_interrupted_tasks(store.as_ref(), now).await?;
                store.wake_all(now).await?;
            }
            Mode::Leader => {
                // Others run tasks, or will, and take rows; what is left of theirs they remove.
                let tasks = store.unfinished_tasks().await?.into_iter().map(|task| task.id);
                let spared = tasks.chain([super::realtime::PUBLICATIONS.to_owned()]).collect::<Vec<_>>();
                sweep(store.as_ref(), &storage, Pushes::AllBut(&spared)).await?;
            }
            Mode::Follower | Mode::Realtime | Mode::Worker => {}
        }
        let snapshot = store.snapshot().await?;
        let reads = match self.mode {
            // A worker reads what it merges.
            Mode::Alone | Mode::Worker => Reads::Here,
            Mode::Leader | Mode::Follower | Mode::Realtime => Reads::Elsewhere,
        };
        storage.retain_cached(&snapshot.segments.iter().map(|segment| segment.uid).collect())?;
        // Only a broker plans for others.
        let remote_rows = if self.mode == Mode::Follower { RemoteRows::Asked } else { RemoteRows::Refused };
        let view = View::new(storage.clone(), self.druids, reads, remote_rows, self.cache_limit_bytes, snapshot)?;
        let view = Arc::new(view);
        let runtime = Runtime::new(RuntimeOptions {
            memory_limit_bytes: self.memory_limit_bytes,
            spill_dir: Some(self.dir.join(TMP_DIR).join(SPILL_DIR)),
            target_partitions: self.threads,
            ..RuntimeOptions::default()
        })?;
        let available = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (threads, tmp_dir) = (self.threads.unwrap_or(available).get(), self.dir.join(TMP_DIR));
        let limits = super::realtime::limits(self.memory_limit_bytes, threads, tmp_dir);
        let streams = super::realtime::streams(&self.dir, &view, &self.clock, limits)?;
        if self.mode == Mode::Realtime {
            let begun =
                streams.find()?.iter().map(|found| super::realtime::publications_of(&found.id)).collect::<Vec<_>>();
            sweep(store.as_ref(), &storage, Pushes::BegunBy(&begun)).await?;
        }
        let served = self.realtime.map(|options| Served::new(options, Arc::clone(&view), new_uid(now)));
        let inner = Arc::new(Inner {
            mode: self.mode,
            tmp_dir: self.dir.join(TMP_DIR),
            lock: Mutex::new(Some(lock)),
            store,
            lease: Mutex::new(lease),
            storage,
            view,
            problems: Arc::default(),
            runtime,
            server: Arc::new(ThisServer::new(now)),
            cluster: Arc::default(),
            clock: self.clock,
            ingest_threads: self.threads.unwrap_or(available),
            ingest_bytes: self.memory_limit_bytes.map_or(INGEST_BYTES, |bytes| bytes / INGEST_SHARE),
            store_options: self.store_options,
            ingesting: Semaphore::new(1),
            compacting: Semaphore::new(1),
            auto_compaction: self.auto_compaction,
            publishing: tokio::sync::Mutex::default(),
            tasks: Mutex::new(JoinSet::new()),
            running: Mutex::default(),
            streams,
            hand_offs: Mutex::default(),
            supervisors: Arc::default(),
            keepers: Mutex::default(),
            connector: self.connector,
            declaring: tokio::sync::Mutex::default(),
            served,
            watching: Mutex::new(JoinSet::new()),
        });
        inner.open_streams().await?;
        inner.open_supervisors().await?;
        if let Err(error) = inner.catch_up().await {
            tracing::warn!(%error, "what was changed by hand is looked at again");
        }
        watch::start(&inner);
        let runtime = Arc::clone(&inner.runtime);
        Ok(Opening::Opened(Database { inner, runtime, asking: Arc::default() }))
    }
}

fn cannot_use(path: &Path, error: std::io::Error) -> Error {
    Error::runtime_failure(format!("could not use `{}` as data directory", path.display())).with_source(error)
}

/// Makes the directory, locks it, and clears away what an earlier process was in the middle of.
fn prepare(dir: &Path) -> Result<Locking> {
    let failed = cannot_use;
    LocalDisk.create_dir_durably(dir).map_err(|error| failed(dir, error))?;
    let locking = DirectoryLock::try_lock(dir)?;
    if let Locking::Locked(_) = &locking {
        let tmp = dir.join(TMP_DIR);
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).map_err(|error| failed(&tmp, error))?;
        }
        LocalDisk.create_dir_durably(&tmp.join(SPILL_DIR)).map_err(|error| failed(&tmp, error))?;
    }
    Ok(locking)
}

/// Names a data directory for ever, where others can see it.
fn node_id(dir: &Path, now: Timestamp) -> Result<String> {
    let path = dir.join(NODE_FILE);
    let failed = |error: std::io::Error| {
        Error::runtime_failure(format!("could not use `{}`", path.display())).with_source(error)
    };
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => {
            let id = new_uid(now).to_string();
            std::fs::write(&path, &id).map_err(failed)?;
            Ok(id)
        }
    }
}

/// Removes the files that were put into deep storage, or were about to be, by a process that did not publish them: none
/// of them will be published any more.
async fn sweep(store: &dyn MetadataStore, storage: &DeepStorage, pushes: Pushes<'_>) -> Result<()> {
    let orphans = store.doom_pushes(pushes).await?;
    if orphans.is_empty() {
        return Ok(());
    }
    match remove(storage, store, &orphans).await {
        Ok(()) => tracing::info!(files = orphans.len(), "removed files that were never published"),
        // Deep storage may be down: what is cached can be served all the same.
        Err(error) => tracing::warn!(%error, "files that were never published are removed at the next start"),
    }
    Ok(())
}

/// A task that an earlier process did not end will not end.
async fn fail_interrupted_tasks(store: &dyn MetadataStore, now: Timestamp) -> Result<()> {
    let tasks = store.tasks(RECENT_TASKS).await?;
    for task in tasks.into_iter().filter(|task| !task.status.is_complete()) {
        let duration_ms = u64::try_from(now.millis() - task.created.millis()).unwrap_or(0);
        let error = "the process ended before the task did; nothing of it was published".to_owned();
        let failed =
            TaskRecord { status: TaskStatus::Failed, duration_ms: Some(duration_ms), error: Some(error), ..task };
        store.save_task(&failed).await?;
    }
    Ok(())
}
