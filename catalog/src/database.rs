//! The embedded database: engine, metadata store and deep storage put together in one process and one directory.
//!
//! ```text
//! henge.lock         who has the directory, and where it can be reached
//! metadata.sqlite    what is published, unless a database elsewhere holds that
//! segments/          deep storage, unless that is elsewhere: one file a segment, never changed
//! realtime/          of each data source that is pushed to, its spec and its write-ahead log
//! segment-cache/     segments fetched from elsewhere; can be removed while nobody has the directory
//! node-id            names this directory where others can see it
//! tmp/               work in progress, spilled queries; emptied at every start
//! ```
//!
//! Invariants: one process at a time, and of all processes on one metadata database one that writes; a task publishes all of its segments or none, whenever the process is killed or
//! the power goes; a file is removed only if nothing published refers to it and no query reads it.

mod by_hand;
mod compact;
mod import;
mod ingest;
mod kill;
mod lock;
mod open;
mod realtime;
mod sink;
mod supervisor;
mod watch;
mod work;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use futures::TryStreamExt;
use henge_engine::ingest::stream::StreamConnector;
use henge_engine::ingest::{Cancellation, StoreOptions};
use henge_engine::model::{Interval, SegmentId, Timestamp};
use henge_engine::session::{Runtime, SCHEMA, Session, SessionOptions, Statement, error_from_datafusion};
use henge_engine::storage::DeepStorage;
use henge_engine::table::DataSourceTable;
use henge_engine::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

pub use compact::{AutoCompaction, CompactionReport, CompactionSpec, SkippedGranule};
pub use import::ImportedDataSource;
pub use ingest::{Existing, IngestRun};
pub use kill::KillReport;
pub use lock::Holder;
pub use open::{DatabaseBuilder, Opening};
pub use realtime::HandOff;
pub use sink::RealtimeOptions;
pub use supervisor::Submitted;
pub use work::TaskWork;

use self::lock::DirectoryLock;
use crate::clock::Clock;
use crate::provider::{ClusterServers, DruidSchema, HengeCatalog, SYS, ServerAddress, SysSchema, ThisServer};
use crate::realtime::supervisor::Supervisors;
use crate::realtime::{Streams, Tails};
use crate::store::{Lease, MetadataStore, SegmentRecord, Standing, TaskRecord, UserRecord};
use crate::view::{DataSourceView, Problems, View, no_data_source};

/// A database in a directory of this machine. Clones are the same database.
#[derive(Clone, Debug)]
pub struct Database {
    inner: Arc<Inner>,
    /// What sessions run on.
    runtime: Arc<Runtime>,
    /// Asks the queries of [`Database::sql`], and remembers their plans.
    asking: Arc<OnceLock<Session>>,
}

/// What a database is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Publishes, and serves what is published, all by itself.
    Alone,
    /// Publishes for a cluster, whose historicals serve: what is published is dormant until they do.
    Leader,
    /// Shows what others publish, and writes nothing.
    Follower,
    /// Takes rows for a cluster, and publishes them; others load and serve what is published.
    Realtime,
    /// Runs tasks of a cluster, one at a time, and publishes what they make for it.
    Worker,
}

impl Mode {
    /// Whether what is published here is served by others.
    fn is_served_by_others(self) -> bool {
        matches!(self, Self::Leader | Self::Realtime | Self::Worker)
    }
}

#[derive(Debug)]
struct Inner {
    mode: Mode,
    tmp_dir: PathBuf,
    /// `None` once closed.
    lock: Mutex<Option<DirectoryLock>>,
    store: Arc<dyn MetadataStore>,
    /// The right to write to a metadata database that others reach too; `None` if nobody else does.
    lease: Mutex<Option<Lease>>,
    storage: DeepStorage,
    view: Arc<View>,
    /// Rows written by hand that cannot be served.
    problems: Arc<Problems>,
    runtime: Arc<Runtime>,
    server: Arc<ThisServer>,
    /// Once this is known to be one of several servers.
    cluster: Arc<OnceLock<Arc<dyn ClusterServers>>>,
    clock: Arc<dyn Clock>,
    ingest_threads: NonZeroUsize,
    ingest_bytes: usize,
    store_options: StoreOptions,
    /// One ingestion at a time: it uses all cores by itself.
    ingesting: Semaphore,
    /// One compaction at a time. It goes on beside ingestions.
    compacting: Semaphore,
    /// What is compacted without being asked.
    auto_compaction: Vec<AutoCompaction>,
    /// Held from a commit until the view shows it, so that commits are shown in their order.
    publishing: tokio::sync::Mutex<()>,
    tasks: Mutex<JoinSet<()>>,
    running: Mutex<HashMap<String, Cancellation>>,
    /// What rows are pushed to.
    streams: Arc<Streams>,
    /// Who hands off the rows of each.
    hand_offs: Mutex<HashMap<String, mpsc::Sender<realtime::HandOffAnswer>>>,
    /// What keeps streams flowing, and who looks after each.
    supervisors: Arc<Supervisors>,
    keepers: Mutex<HashMap<String, mpsc::Sender<supervisor::Order>>>,
    /// Reaches streams; none where supervisors do not run.
    connector: Option<Arc<dyn StreamConnector>>,
    /// One stream is declared at a time.
    declaring: tokio::sync::Mutex<()>,
    /// Of a realtime process of a cluster: what brokers read here.
    served: Option<sink::Served>,
    /// What looks after the metadata database while this is open.
    watching: Mutex<JoinSet<()>>,
}

/// A thread of ours ended without an answer: it panicked, or the runtime is shutting down.
fn lost(error: JoinError) -> Error {
    Error::runtime_failure("a background thread ended without an answer").with_source(error)
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.streams.forget_all();
    }
}

impl Inner {
    /// Whether queries ask at once for what is published here.
    fn standing(&self) -> Standing {
        if self.mode.is_served_by_others() { Standing::Dormant } else { Standing::Active }
    }

    /// Shows a change that was just committed. If others committed before it what is not shown yet, shows that too.
    async fn show(&self, data_source: &str, rev: u64, added: Vec<SegmentRecord>, removed: &[SegmentId]) -> Result<()> {
        // What a realtime process changes is not in the segments alone.
        if self.view.rev(data_source) + 1 == rev && self.mode != Mode::Realtime {
            return self.view.apply(data_source, rev, added, removed);
        }
        let state = self.store.state(data_source).await?;
        self.view.replace(data_source, state)
    }
}

impl Database {
    /// Opens the database in a directory, which is made when missing. Fails with `Conflict` if another process has it.
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(dir).open().await
    }

    /// Opens it otherwise than by default.
    pub fn builder(dir: impl Into<PathBuf>) -> DatabaseBuilder {
        DatabaseBuilder::new(dir.into())
    }

    /// A session of its own, with its own settings.
    pub fn session(&self, options: SessionOptions) -> Session {
        self.session_over(self.catalog(), options)
    }

    /// A session over a catalog that was added to.
    pub fn session_over(&self, catalog: HengeCatalog, options: SessionOptions) -> Session {
        Session::new(&self.runtime, Arc::new(catalog), options)
    }

    /// The same database, with sessions that run on another runtime.
    #[must_use]
    pub fn with_runtime(self, runtime: Arc<Runtime>) -> Self {
        Self { runtime, asking: Arc::default(), ..self }
    }

    /// The schemas `druid`, `sys` and `information_schema`. It shows what is published at the time of each query, so it
    /// may be registered once, in a session context of one's own too.
    pub fn catalog(&self) -> HengeCatalog {
        let Inner { view, store, server, problems, cluster, streams, supervisors, .. } = self.inner.as_ref();
        let sys = SysSchema {
            cluster: Arc::clone(cluster),
            view: Arc::clone(view),
            store: Arc::clone(store),
            server: Arc::clone(server),
            problems: Arc::clone(problems),
            streams: Arc::clone(streams),
            supervisors: Arc::clone(supervisors),
        };
        HengeCatalog::new()
            .with_schema(SCHEMA, Arc::new(DruidSchema::new(Arc::clone(view))))
            .with_schema(SYS, Arc::new(sys.schema()))
    }

    /// The answer to one statement.
    pub async fn sql(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let session = self.asking.get_or_init(|| self.session(SessionOptions::default()));
        let mut statements = session.parse(sql)?;
        if !matches!(statements.as_slice(), [Statement::Query(_)]) {
            // What it sets or makes ends with it.
            let frame = self.session(SessionOptions::default()).sql(sql).await?;
            return frame.collect().await.map_err(error_from_datafusion);
        }
        let plan = session.plan(statements.remove(0)).await?;
        session.execute(plan).await?.try_collect().await.map_err(error_from_datafusion)
    }

    /// A data source as a table, with the segments of this moment. Fails with `NotFound` if it has none.
    pub fn table(&self, data_source: &str) -> Result<Arc<dyn TableProvider>> {
        let view = self.data_source(data_source)?;
        Ok(Arc::new(DataSourceTable::new(data_source, view)))
    }

    /// A data source as it is now. Fails with `NotFound` if nothing of it is visible.
    pub fn data_source(&self, name: &str) -> Result<Arc<DataSourceView>> {
        self.inner.view.data_source(name).ok_or_else(|| no_data_source(name))
    }

    /// All data sources as they are now, in the order of their names.
    pub fn data_sources(&self) -> Vec<Arc<DataSourceView>> {
        self.inner.view.data_sources()
    }

    /// All used segments, and what of them is visible.
    pub fn view(&self) -> &Arc<View> {
        &self.inner.view
    }

    /// What is published, in its database.
    pub fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.inner.store
    }

    /// Rows written by hand that cannot be served.
    pub fn problems(&self) -> &Arc<Problems> {
        &self.inner.problems
    }

    fn check_writes(&self) -> Result<()> {
        match self.inner.mode {
            Mode::Follower => Err(Error::unsupported(
                "this server only answers queries; send what is to be written to the coordinator of the cluster",
            )),
            Mode::Realtime => Err(Error::unsupported(
                "this server takes rows that are pushed; send other things to be written to the coordinator of the cluster",
            )),
            Mode::Alone | Mode::Leader | Mode::Worker => Ok(()),
        }
    }

    /// What brokers read of a realtime process of a cluster.
    pub fn tails(&self) -> Option<Tails> {
        self.inner.served.as_ref().map(|served| served.tails.clone())
    }

    /// What is recorded of a task.
    pub async fn task(&self, id: &str) -> Result<Option<TaskRecord>> {
        self.inner.store.task(id).await
    }

    /// The latest tasks, newest first.
    pub async fn tasks(&self, limit: usize) -> Result<Vec<TaskRecord>> {
        self.inner.store.tasks(limit).await
    }

    /// Who may log in, in the order of their names. A door asks whoever enters it for a password once there is one.
    pub async fn users(&self) -> Result<Vec<UserRecord>> {
        self.inner.store.users().await
    }

    /// Records a user, in place of what was recorded under the name before.
    pub async fn save_user(&self, user: &UserRecord) -> Result<()> {
        self.inner.store.save_user(user).await
    }

    /// Forgets a user; `false` if there is none of that name.
    pub async fn remove_user(&self, name: &str) -> Result<bool> {
        self.inner.store.remove_user(name).await
    }

    /// Marks unused all segments of a data source that lie within `within`: they vanish from queries; their files stay
    /// until [`Database::kill`]. Returns how many there were.
    pub async fn mark_unused(&self, data_source: &str, within: Interval) -> Result<usize> {
        self.check_writes()?;
        let _in_order = self.inner.publishing.lock().await;
        let marked = self.inner.store.mark_unused(data_source, within, self.now()).await?;
        if !marked.segments.is_empty() {
            self.inner.show(data_source, marked.rev, Vec::new(), &marked.segments).await?;
        }
        Ok(marked.segments.len())
    }

    /// Marks these segments of a data source unused.
    pub async fn mark_segments_unused(&self, data_source: &str, ids: &[SegmentId]) -> Result<()> {
        self.check_writes()?;
        let _in_order = self.inner.publishing.lock().await;
        let marked = self.inner.store.mark_segments_unused(data_source, ids, self.now()).await?;
        self.inner.show(data_source, marked.rev, Vec::new(), &marked.segments).await
    }

    /// Marks unused segments of a data source used again: those that lie within `within`, or, of these, `ids`. What has
    /// been killed, or is about to be, stays unused. Returns how many there were; what cannot be served is among the
    /// [problems](Database::problems).
    pub async fn mark_used(&self, data_source: &str, within: Interval, ids: Option<&[SegmentId]>) -> Result<u64> {
        self.check_writes()?;
        let marked = self.inner.store.mark_used(data_source, within, ids).await?;
        self.inner.catch_up().await?;
        Ok(marked)
    }

    /// Has queries ask for segments of a data source, or not, all of them at once.
    pub async fn set_standing(&self, data_source: &str, ids: &[SegmentId], standing: Standing) -> Result<()> {
        self.check_writes()?;
        let _in_order = self.inner.publishing.lock().await;
        self.inner.store.set_standing(data_source, ids, standing, self.now()).await?;
        let state = self.inner.store.state(data_source).await?;
        self.inner.view.replace(data_source, state)
    }

    /// Shows what others have changed in the metadata database by now.
    pub async fn catch_up(&self) -> Result<()> {
        self.inner.catch_up().await
    }

    /// Says, in the lock file and in `sys.servers`, where this process can be reached.
    pub fn announce(&self, address: ServerAddress) -> Result<()> {
        if let Some(lock) = self.inner.lock.lock().as_ref() {
            lock.write(&address)?;
        }
        self.inner.server.set_address(address);
        Ok(())
    }

    /// Has the system tables show the servers of a cluster. The first call counts.
    pub fn show_cluster(&self, servers: Arc<dyn ClusterServers>) {
        let _ = self.inner.cluster.set(servers);
    }

    /// What this process is called in `sys.servers`: `host:port`.
    pub fn server_name(&self) -> String {
        self.inner.server.name()
    }

    /// Memory and spilled files, shared by all sessions.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Cancels what is being ingested, waits for it to end, and lets go of the directory. Whatever was published stays.
    pub async fn close(&self) {
        for cancel in self.inner.running.lock().values() {
            cancel.cancel();
        }
        self.inner.ingesting.close();
        self.inner.compacting.close();
        let mut watching = std::mem::take(&mut *self.inner.watching.lock());
        watching.shutdown().await;
        self.inner.let_go_of_all().await;
        self.inner.hand_offs.lock().clear();
        self.inner.keepers.lock().clear();
        let streams = Arc::clone(&self.inner.streams);
        let closed = tokio::task::spawn_blocking(move || {
            streams.all().iter().for_each(|stream| streams.close(stream.name()));
        });
        if closed.await.is_err() {
            tracing::error!("a stream could not be closed");
        }
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        while tasks.join_next().await.is_some() {}
        self.inner.release().await;
        self.inner.store.close().await;
        self.inner.lock.lock().take();
    }
}

#[cfg(test)]
mod tests;
