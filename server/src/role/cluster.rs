//! One server of a cluster: a process with one of its roles, or several.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use henge_catalog::historical::{Historical, HistoricalOptions};
use henge_catalog::store::{MetadataStore, MetadataUrl, ServerRecord};
use henge_catalog::view::Druids;
use henge_catalog::{Clock, Database, DatabaseBuilder, SystemClock};
use henge_engine::distributed::{BrokerParts, LocalSegments, MemorySegments, PLAN_VERSION, QueryWorker, WorkerUrl};
use henge_engine::model::SegmentUid;
use henge_engine::session::{Runtime, RuntimeOptions};
use henge_engine::storage::{DeepStorage, DeepStorageUrl};
use henge_engine::{Error, Result};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::all::{bind, local};
use super::{broker, coordinator, indexer, realtime};
use crate::auth::peer::PeerTls;
use crate::auth::tls::Tls;
use crate::cluster::{CoordinatorOptions, Peers, Registration, ServedPlacement, ServedSegments, ServedTails, Watcher};
use crate::config::{Config, Role};
use crate::grpc::{self, PeerSecurity, PeerTls as PeerPem};
use crate::http::{self, Encryption, Node};

/// A metadata database that cannot be reached is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// While this server ends, it is looked this often whether queries still run.
const LOOK: Duration = Duration::from_millis(20);

/// A running server of a cluster. Dropping it without [`ClusterServer::stop`] ends it like a crash would.
#[derive(Debug)]
pub struct ClusterServer {
    pub http: SocketAddr,
    pub pg: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    node: Arc<Node>,
    worker: Option<Arc<QueryWorker>>,
    historical: Option<Historical>,
    watcher: Option<Watcher>,
    broker: Option<Database>,
    realtime: Option<Database>,
    registering: JoinSet<Registration>,
    working: JoinSet<()>,
    doors: JoinSet<()>,
    /// Ends with this.
    following: JoinSet<()>,
    /// Ends what works, and then the doors.
    shutdown: (CancellationToken, CancellationToken),
}

/// Starts the roles that `config` names. Queries run on `queries`, the rest where this is called.
pub async fn start(config: &Config, queries: &Handle) -> Result<ClusterServer> {
    let metadata = config.metadata.clone().ok_or_else(|| Error::defensive("a cluster without a metadata database"))?;
    let cluster = &config.cluster;
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let peer_tls = cluster.tls.as_ref().map(PeerTls::load).transpose()?;
    let encryption = Encryption { people: tls.clone(), peers: peer_tls.clone() };
    let http = bind(config.host, config.http_port, "--http-port", false).await?;
    let mut server = record(config, local(&http)?.port());
    let historical = match cluster.has(Role::Historical) {
        true => Some(open_historical(config).await?),
        false => None,
    };
    let pg = match cluster.has(Role::Broker) {
        true => Some(bind(config.host, config.pg_port, "--pg-port", false).await?),
        false => None,
    };
    server.pg_port = pg.as_ref().map(local).transpose()?.map(|address| address.port());
    let grpc = match [Role::Historical, Role::Realtime, Role::Broker].iter().any(|role| cluster.has(*role)) {
        true => Some(bind(config.host, config.grpc_port, "--grpc-port", false).await?),
        false => None,
    };
    server.grpc_port = grpc.as_ref().map(local).transpose()?.map(|address| address.port());
    let peers = Peers::new(cluster.secret.clone(), peer_tls.as_ref())?;
    // A historical serves what it has while the metadata database is away; the others need it.
    let store = match cluster.roles == [Role::Historical] {
        true => None,
        false => Some(until_open(&metadata).await?),
    };
    let watcher = store.as_ref().map(|store| Watcher::start(Arc::clone(store), peers.clone()));
    let known_by = (cluster.secret.clone(), encryption.clone());
    let node = Node::new(server.clone(), cluster.roles.clone(), known_by, historical.clone(), watcher.clone());
    let mut this = ClusterServer {
        http: local(&http)?,
        pg: pg.as_ref().map(local).transpose()?,
        grpc: grpc.as_ref().map(local).transpose()?,
        node: Arc::clone(&node),
        worker: None,
        historical,
        watcher,
        broker: None,
        realtime: None,
        registering: JoinSet::new(),
        working: JoinSet::new(),
        doors: JoinSet::new(),
        following: JoinSet::new(),
        shutdown: (CancellationToken::new(), CancellationToken::new()),
    };
    this.doors.spawn(http::serve_node(http, encryption, Arc::clone(&node), this.shutdown.1.clone()));
    let channels = grpc::Peers::new(
        PeerSecurity {
            secret: cluster.secret.as_ref().map(|secret| secret.text().to_owned()),
            tls: peer_tls.map(|tls| PeerPem {
                authority: tls.authority.to_vec(),
                certificate: tls.certificate.to_vec(),
                key: tls.key.to_vec(),
            }),
        },
        Handle::current(),
    )?;
    let mut broker = match cluster.has(Role::Broker) {
        true => Some(broker::open(builder(config, "broker")).await?),
        false => None,
    };
    if let (true, Some(watcher)) = (cluster.has(Role::Realtime), &this.watcher) {
        let builder = builder(config, "realtime");
        this.realtime = Some(realtime::open(config, builder, &server.name, (watcher, &peers)).await?);
    }
    if let (Some(listener), Some(address)) = (grpc, this.grpc) {
        let runtime = match broker.as_ref().or(this.realtime.as_ref()) {
            Some(database) => Arc::clone(database.runtime()),
            None => worker_runtime(config)?,
        };
        let tails = this.realtime.as_ref().and_then(Database::tails);
        let segments: Arc<dyn LocalSegments> = match (&this.historical, tails) {
            (Some(historical), _) => Arc::new(ServedSegments(historical.clone())),
            (None, Some(tails)) => Arc::new(ServedTails(tails)),
            (None, None) => Arc::new(MemorySegments::default()),
        };
        let worker = QueryWorker::new(&runtime, segments, Arc::clone(&channels) as _);
        if let (Some(database), Some(watcher)) = (broker.take(), &this.watcher) {
            let parts = BrokerParts {
                placement: Arc::new(ServedPlacement(watcher.clone())),
                channels: Arc::clone(&channels) as _,
                worker: Arc::clone(&worker),
                url: url(&server, address)?,
            };
            let runtime = database.runtime().broker(parts, rand::random())?;
            broker = Some(database.with_runtime(runtime));
        }
        let serving = (Arc::clone(&worker), queries.clone(), this.shutdown.1.clone());
        this.doors.spawn(async move {
            let (worker, queries, shutdown) = serving;
            if let Err(error) = grpc::serve(listener, worker, channels, &queries, shutdown).await {
                tracing::error!(%error, "the gRPC door closed");
            }
        });
        node.compute(Arc::clone(&worker));
        this.worker = Some(worker);
    }
    if let Some(database) = &this.realtime {
        realtime::start(config, database, &node, queries).await?;
    }
    if let (Some(pg), Some(address), Some(database)) = (pg, this.pg, broker) {
        let (work, shutdown) = ((queries, &mut this.doors), (tls.clone(), this.shutdown.1.clone()));
        broker::start(config, (&database, &peers), &node, (pg, address), work, shutdown).await?;
        if let Some(watcher) = &this.watcher {
            database.show_cluster(Arc::new(watcher.clone()));
        }
        this.broker = Some(database);
    }
    if let (true, Some(store), Some(watcher)) = (cluster.has(Role::Coordinator), &store, &this.watcher) {
        let config = config.clone();
        let options =
            CoordinatorOptions { replace_after: cluster.replace_after, kill_unused_after: cluster.kill_unused_after };
        this.working.spawn(coordinator::run(coordinator::Parts {
            trusts: config.trusts,
            builder: Box::new(move || builder(&config, "coordinator")),
            store: Arc::clone(store),
            node: Arc::clone(&node),
            watcher: watcher.clone(),
            peers,
            options,
            queries: queries.clone(),
            shutdown: this.shutdown.0.clone(),
        }));
    }
    if let Some(parts) = indexer(config, &node, this.watcher.as_ref(), &this.shutdown.0) {
        this.working.spawn(indexer::run(parts));
    }
    if let Some(store) = &store {
        let watcher = this.watcher.clone();
        this.following.spawn(follow_leader(Arc::clone(store), Arc::clone(&node), watcher));
    }
    this.registering.spawn(register(store, metadata, server));
    Ok(this)
}

/// Who runs tasks in this process: an indexer, or the coordinator that leads where there is none.
fn indexer(
    config: &Config,
    node: &Arc<Node>,
    watcher: Option<&Watcher>,
    shutdown: &CancellationToken,
) -> Option<indexer::Parts> {
    let is_indexer = config.cluster.has(Role::Indexer);
    if !is_indexer && !config.cluster.has(Role::Coordinator) {
        return None;
    }
    let (leading, watcher) = (Arc::clone(node), watcher.cloned());
    let stands_in =
        move || leading.leads() && watcher.as_ref().is_some_and(|watcher| watcher.servers("indexer").is_empty());
    let config = config.clone();
    Some(indexer::Parts {
        // What it fetches to merge is of use to that task alone.
        builder: Box::new(move || builder(&config, "indexer").cache_limit_bytes(0)),
        holder: format!("{}/{}", node.server.name, node.server.incarnation),
        is_wanted: if is_indexer { Box::new(|| true) } else { Box::new(stands_in) },
        shutdown: shutdown.clone(),
    })
}

impl ClusterServer {
    /// Says that it is about to end, lets what runs come to its end, and ends. What is served stays registered, so that
    /// nobody fetches it elsewhere while this server starts anew.
    pub async fn stop(mut self, drain_timeout: Duration) {
        self.node.leave();
        if let Some(Ok(registration)) = self.registering.try_join_next() {
            match self.historical.is_some() || self.realtime.is_some() {
                true => registration.pause().await,
                false => registration.end().await,
            }
        }
        self.shutdown.0.cancel();
        if let Some(historical) = &self.historical {
            historical.leave().await;
        }
        if let Some(tails) = self.realtime.as_ref().and_then(Database::tails) {
            tails.leave().await;
        }
        if let Some(worker) = &self.worker {
            let idle = async {
                while worker.num_running() > 0 {
                    tokio::time::sleep(LOOK).await;
                }
            };
            if tokio::time::timeout(drain_timeout, idle).await.is_err() {
                tracing::warn!("queries still run; they end with the process");
            }
        }
        while self.working.join_next().await.is_some() {}
        self.shutdown.1.cancel();
        while self.doors.join_next().await.is_some() {}
        for database in self.broker.iter().chain(&self.realtime) {
            database.close().await;
        }
        if let Some(watcher) = &self.watcher {
            watcher.stop().await;
        }
        if let Some(historical) = &self.historical {
            historical.close().await;
        }
    }
}

/// Where other servers send parts of queries to.
fn url(server: &ServerRecord, address: SocketAddr) -> Result<WorkerUrl> {
    let host = server.name.rsplit_once(':').map_or(server.name.as_str(), |(host, _)| host);
    let scheme = if server.is_encrypted { "https" } else { "http" };
    let url = format!("{scheme}://{host}:{}", address.port());
    url.parse().map_err(|error| {
        Error::invalid_input(format!("`{url}` is no address; see `--advertise-host`")).with_source(error)
    })
}

/// What a historical computes with.
fn worker_runtime(config: &Config) -> Result<Arc<Runtime>> {
    let tmp = config.data_dir.join("historical/tmp");
    let failed =
        |error: std::io::Error| Error::runtime_failure(format!("could not use `{}`", tmp.display())).with_source(error);
    match std::fs::remove_dir_all(&tmp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => std::fs::create_dir_all(&tmp).map_err(failed)?,
    }
    Runtime::new(RuntimeOptions {
        memory_limit_bytes: config.memory_limit_bytes,
        spill_dir: Some(tmp),
        target_partitions: Some(config.threads),
        ..RuntimeOptions::default()
    })
}

fn record(config: &Config, http_port: u16) -> ServerRecord {
    let now = SystemClock.now();
    let cluster = &config.cluster;
    let is_historical = cluster.has(Role::Historical);
    ServerRecord {
        name: format!("{}:{http_port}", cluster.advertise_host),
        incarnation: SegmentUid::new(now, rand::random()).to_string(),
        roles: cluster.roles.iter().map(ToString::to_string).collect(),
        pg_port: None,
        grpc_port: None,
        is_encrypted: cluster.tls.is_some(),
        tier: cluster.tier.clone(),
        zone: cluster.zone.clone(),
        max_bytes: match is_historical {
            true => cluster.cache.iter().fold(0, |sum, location| sum.saturating_add(location.max_bytes)),
            false => 0,
        },
        plan_version: PLAN_VERSION.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: now,
    }
}

async fn open_historical(config: &Config) -> Result<Historical> {
    let url = config.deep_storage.as_ref().ok_or_else(|| Error::defensive("a historical without a deep storage"))?;
    let options = config.store_options.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Historical::open(HistoricalOptions {
        dir: config.data_dir.join("historical"),
        storage: DeepStorage::caching(url, config.cluster.cache.clone(), options)?,
        druids: Druids { empty_is_null: config.empty_is_null.clone(), convert: Vec::new() },
        drop_delay: config.cluster.drop_delay,
    })
    .await
}

/// The database of one role; each has a directory of its own in the process's.
fn builder(config: &Config, role: &str) -> DatabaseBuilder {
    let dir: PathBuf = config.data_dir.join(role);
    // A broker reads nothing of a deep storage.
    let deep_storage = config.deep_storage.clone().unwrap_or_else(|| DeepStorageUrl::Local(dir.join("none")));
    let mut builder = Database::builder(dir)
        .threads(config.threads)
        .store_options(config.store_options.clone())
        .empty_is_null(config.empty_is_null.clone())
        .auto_compaction(config.auto_compaction.clone())
        .deep_storage(deep_storage);
    if let Some(url) = &config.metadata {
        builder = builder.metadata(url.clone());
    }
    if let Some(bytes) = config.memory_limit_bytes {
        builder = builder.memory_limit_bytes(bytes);
    }
    builder
}

/// Opens the metadata database, as soon as it can be reached.
async fn until_open(url: &MetadataUrl) -> Result<Arc<dyn MetadataStore>> {
    let mut was_told = false;
    loop {
        match url.open().await {
            Err(error) if error.is_retryable() => {
                if !was_told {
                    tracing::warn!(%error, "waiting for the metadata database");
                }
                was_told = true;
            }
            outcome => return outcome,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn register(store: Option<Arc<dyn MetadataStore>>, url: MetadataUrl, server: ServerRecord) -> Registration {
    let store = match store {
        Some(store) => store,
        None => loop {
            match until_open(&url).await {
                Ok(store) => break store,
                Err(error) => tracing::error!(%error, "the metadata database cannot be used; nobody finds this server"),
            }
            tokio::time::sleep(AGAIN * 10).await;
        },
    };
    Registration::start(store, server)
}

/// Knows who leads, for clients that ask the wrong server.
async fn follow_leader(store: Arc<dyn MetadataStore>, node: Arc<Node>, watcher: Option<Watcher>) {
    loop {
        if let Ok(holder) = store.lease_holder(henge_catalog::lease::COORDINATOR).await {
            let holder = holder.map(|holder| holder.split('/').next().unwrap_or_default().to_owned());
            // What does everything by itself has no address there.
            let leader = holder.filter(|name| name.contains(':'));
            if let Some(watcher) = &watcher {
                watcher.set_leader(leader.clone());
            }
            node.set_leader(leader);
        }
        tokio::time::sleep(AGAIN).await;
    }
}
