//! A coordinator: waits for the lease, leads while it has it, and waits again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_catalog::database::Opening;
use henge_catalog::lease::{self, COORDINATOR, Renewal};
use henge_catalog::store::{Lease, LeaseOutcome, MetadataStore};
use henge_catalog::{Database, DatabaseBuilder};
use henge_engine::{Error, Result};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::all::DatabaseUsers;
use crate::auth::Auth;
use crate::cluster::{Coordinator, CoordinatorOptions, Peers, Watcher};
use crate::http::{Api, Node};

/// How often a coordinator that does not lead looks whether it can.
const LOOK: Duration = Duration::from_secs(1);

/// What a coordinator is made of.
pub(super) struct Parts {
    pub(super) builder: Box<dyn Fn() -> DatabaseBuilder + Send + Sync>,
    pub(super) store: Arc<dyn MetadataStore>,
    pub(super) node: Arc<Node>,
    pub(super) watcher: Watcher,
    pub(super) peers: Peers,
    pub(super) options: CoordinatorOptions,
    pub(super) trusts: bool,
    pub(super) queries: Handle,
    pub(super) shutdown: CancellationToken,
}

/// Waits for the lease and leads, again and again, until the process ends.
pub(super) async fn run(parts: Parts) {
    let holder = format!("{}/{}", parts.node.server.name, parts.node.server.incarnation);
    while !parts.shutdown.is_cancelled() {
        let asked = Instant::now();
        match parts.store.acquire_lease(COORDINATOR, &holder, lease::TTL).await {
            Ok(LeaseOutcome::Held(lease)) => {
                if let Err(error) = lead(&parts, lease, asked).await {
                    tracing::error!(%error, "this coordinator cannot lead");
                }
                parts.node.lead(None);
            }
            Ok(LeaseOutcome::HeldBy { holder, .. }) => {
                // The name of a server, and which of its starts.
                parts.node.set_leader(holder.split('/').next().map(str::to_owned));
            }
            Err(error) => tracing::debug!(%error, "the lease cannot be asked for"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = parts.shutdown.cancelled() => {}
        }
    }
}

async fn lead(parts: &Parts, lease: Lease, asked: Instant) -> Result<()> {
    tracing::warn!(epoch = lease.epoch, "this coordinator leads");
    let lost = parts.shutdown.child_token();
    let mut renewing = tokio::task::JoinSet::new();
    renewing.spawn(renew(Renewal::new(Arc::clone(&parts.store), lease.clone(), asked), lost.clone()));
    let database = match (parts.builder)().lead(lease.clone()).try_open().await? {
        Opening::Opened(database) => database,
        Opening::Held(holder) => {
            let _ = parts.store.release_lease(&lease).await;
            return Err(Error::conflict(format!("the data directory of this coordinator is in use by {holder}")));
        }
    };
    database.show_cluster(Arc::new(parts.watcher.clone()));
    let coordinator = Coordinator::new(
        database.clone(),
        parts.watcher.clone(),
        parts.peers.clone(),
        lease,
        parts.options.clone(),
        lost.clone(),
    );
    let api = api(parts, &database, &coordinator)?;
    parts.node.lead(Some(api));
    coordinator.lead().await;
    tracing::warn!("this coordinator does not lead any more");
    parts.node.lead(None);
    renewing.shutdown().await;
    // Tasks that run end, and publish nothing: what they write is fenced.
    database.close().await;
    Ok(())
}

fn api(parts: &Parts, database: &Database, coordinator: &Coordinator) -> Result<Arc<Api>> {
    let auth = Arc::new(Auth::new(Arc::new(DatabaseUsers(database.clone())), parts.trusts)?);
    Ok(Api::of_coordinator(database.clone(), parts.queries.clone(), auth, coordinator.clone()))
}

/// Renews a lease until it is lost; then nobody acts under it any more.
async fn renew(mut renewal: Renewal, lost: CancellationToken) {
    while renewal.next().await {}
    lost.cancel();
}
