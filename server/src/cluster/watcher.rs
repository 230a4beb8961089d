use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use henge_catalog::inventory::{Applied, FeedPage, Inventory};
use henge_catalog::provider::{ClusterServer, ClusterServers};
use henge_catalog::realtime::supervisor::SupervisorStatus;
use henge_catalog::store::{MetadataStore, Registered, ServerRecord};
use henge_engine::model::SegmentUid;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::Peers;

const REALTIME: &str = "realtime";
/// How often the registered servers are looked at.
const LIST: Duration = Duration::from_secs(1);
/// A server that did not answer is asked again after this long.
const AGAIN: Duration = Duration::from_millis(200);
/// A server that has not said for this long that it is there is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// A coordinator or broker that has not said so for this long is not counted on.
const GONE: Duration = Duration::from_secs(60);

/// Watches the servers of a cluster: lists them from the metadata database, and follows what each historical and each
/// realtime process serves. Clones are the same.
#[derive(Clone, Debug)]
pub struct Watcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    peers: Peers,
    inventory: RwLock<Inventory>,
    /// The same of realtime processes: nobody gives them anything to load.
    realtimes: RwLock<Inventory>,
    servers: RwLock<Option<Vec<Registered>>>,
    leader: RwLock<Option<String>>,
    /// Counts what changes.
    changes: watch::Sender<u64>,
    /// Who is followed, and whether it was asked at least once, whatever came of it.
    following: Mutex<HashMap<String, Follower>>,
    working: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Follower {
    task: AbortHandle,
    was_asked: bool,
}

impl Watcher {
    pub fn start(store: Arc<dyn MetadataStore>, peers: Peers) -> Self {
        let inner = Arc::new(Inner {
            peers,
            inventory: RwLock::default(),
            realtimes: RwLock::default(),
            servers: RwLock::default(),
            leader: RwLock::default(),
            changes: watch::Sender::new(0),
            following: Mutex::default(),
            working: Mutex::default(),
        });
        let listing = Arc::clone(&inner);
        inner.working.lock().spawn(async move { listing.list(store).await });
        Self { inner }
    }

    /// Which historical serves what.
    pub fn inventory(&self) -> RwLockReadGuard<'_, Inventory> {
        self.inner.inventory.read()
    }

    /// Which realtime process serves what.
    pub fn realtimes(&self) -> RwLockReadGuard<'_, Inventory> {
        self.inner.realtimes.read()
    }

    /// The servers of a role that are counted on.
    pub fn servers(&self, role: &str) -> Vec<ServerRecord> {
        let servers = self.inner.servers.read();
        let of_role = servers.iter().flatten().filter(|registered| registered.server.has_role(role));
        of_role.filter(|registered| registered.age < GONE).map(|registered| registered.server.clone()).collect()
    }

    /// All registered servers.
    pub fn registered(&self) -> Vec<Registered> {
        self.inner.servers.read().clone().unwrap_or_default()
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Whether the servers are known.
    pub fn is_listed(&self) -> bool {
        self.inner.servers.read().is_some()
    }

    /// Whether the servers are known, and each that serves something was asked what it serves.
    pub fn is_ready(&self) -> bool {
        let is_listed = self.inner.servers.read().is_some();
        is_listed && self.inner.following.lock().values().all(|follower| follower.was_asked)
    }

    /// Somebody found that a server does not answer.
    pub fn suspect(&self, name: &str) {
        if self.inner.broke(name) {
            self.inner.tell();
        }
    }

    /// A load failed, as a historical told, and was taken note of.
    pub fn forget_failure(&self, name: &str, uid: SegmentUid) {
        self.inner.inventory.write().forget_failure(name, uid);
    }

    /// Who leads, as somebody has heard who asks the metadata database.
    pub fn set_leader(&self, leader: Option<String>) {
        *self.inner.leader.write() = leader;
    }

    pub async fn stop(&self) {
        let mut working = std::mem::take(&mut *self.inner.working.lock());
        working.shutdown().await;
    }
}

#[async_trait]
impl ClusterServers for Watcher {
    fn servers(&self) -> Vec<ClusterServer> {
        let (inventory, realtimes, leader) = (self.inventory(), self.realtimes(), self.inner.leader.read().clone());
        let server = |Registered { server, .. }| ClusterServer {
            used_bytes: [&inventory, &realtimes]
                .iter()
                .find_map(|i| i.server(&server.name))
                .map(|view| view.used_bytes),
            is_leader: leader.as_ref() == Some(&server.name),
            server,
        };
        self.registered().into_iter().map(server).collect()
    }

    fn holders(&self, segments: &[SegmentUid]) -> Vec<Vec<String>> {
        let (inventory, realtimes) = (self.inventory(), self.realtimes());
        let names = |uid: &SegmentUid| {
            inventory.holders(*uid).iter().chain(realtimes.holders(*uid)).map(ToString::to_string).collect()
        };
        segments.iter().map(names).collect()
    }

    async fn supervisors(&self) -> Vec<SupervisorStatus> {
        let servers = self.servers(REALTIME);
        let asked = servers.iter().map(|server| self.inner.peers.supervisors(server));
        let mut all = Vec::new();
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(statuses) => all.extend(statuses),
                Err(error) => tracing::debug!(%error, "a realtime process does not say how its supervisors are"),
            }
        }
        all
    }
}

impl Inner {
    fn tell(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    async fn list(self: Arc<Self>, store: Arc<dyn MetadataStore>) {
        loop {
            match store.servers().await {
                Ok(servers) => self.take_in(servers),
                // Those known before are asked on.
                Err(error) => tracing::debug!(%error, "the servers are not listed"),
            }
            tokio::time::sleep(LIST).await;
        }
    }

    fn take_in(self: &Arc<Self>, mut servers: Vec<Registered>) {
        servers.retain(|registered| registered.age < FORGOTTEN);
        let mut following = self.following.lock();
        let serves = |server: &ServerRecord| server.has_role("historical") || server.has_role(REALTIME);
        for registered in servers.iter().filter(|registered| serves(&registered.server)) {
            let server = registered.server.clone();
            if !following.contains_key(&server.name) {
                let inner = Arc::clone(self);
                let name = server.name.clone();
                let task = self.working.lock().spawn(async move { inner.follow(server).await });
                following.insert(name, Follower { task, was_asked: false });
            }
        }
        following.retain(|name, follower| {
            let is_there = servers.iter().any(|registered| registered.server.name == *name);
            if !is_there {
                follower.task.abort();
                self.inventory.write().remove(name);
                self.realtimes.write().remove(name);
                self.tell();
            }
            is_there
        });
        drop(following);
        let names = |servers: &[Registered]| servers.iter().map(|r| r.server.incarnation.clone()).collect::<Vec<_>>();
        let mut known = self.servers.write();
        let changed = known.as_deref().is_none_or(|known| names(known) != names(&servers));
        *known = Some(servers);
        drop(known);
        if changed {
            self.tell();
        }
    }

    /// Where a server is known that told something.
    fn of(&self, server: &ServerRecord) -> &RwLock<Inventory> {
        if server.has_role(REALTIME) { &self.realtimes } else { &self.inventory }
    }

    /// The connection to a server broke. Returns whether that is news.
    fn broke(&self, name: &str) -> bool {
        let [historical, realtime] = [&self.inventory, &self.realtimes].map(|known| known.write().broke(name));
        historical || realtime
    }

    /// Asks a server, again and again, what it serves.
    async fn follow(self: Arc<Self>, server: ServerRecord) {
        let name = server.name.clone();
        // Also one that never answered is told of: its certificate or secret may be another cluster's.
        let mut was_told = false;
        loop {
            let known = self.of(&server).read().position(&name);
            let answered = self.peers.feed(&server, &known).await;
            let is_well = answered.is_ok();
            match answered {
                Ok(page) => self.apply(page),
                Err(error) => {
                    let is_news = self.broke(&name);
                    if is_news || !was_told {
                        tracing::warn!(%error, "a server does not answer");
                    }
                    if is_news {
                        self.tell();
                    }
                }
            }
            was_told = !is_well;
            if let Some(follower) = self.following.lock().get_mut(&name) {
                follower.was_asked = true;
            }
            if !is_well {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    fn apply(&self, page: FeedPage) {
        let name = page.server.name.clone();
        let known = self.of(&page.server);
        // What listens there now may be of another kind than before.
        let other = if std::ptr::eq(known, &self.inventory) { &self.realtimes } else { &self.inventory };
        if other.read().server(&name).is_some() {
            other.write().remove(&name);
        }
        match known.write().apply(page, Instant::now()) {
            Applied::Done(false) => {}
            Applied::Done(true) => self.tell(),
            Applied::Gap => {
                tracing::info!(server = name, "what a server serves is asked for anew");
                self.tell();
            }
        }
    }
}
