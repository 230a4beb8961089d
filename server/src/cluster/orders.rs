use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_catalog::coordination::{Decisions, Step};
use henge_catalog::historical::Orders;
use henge_catalog::inventory::{Health, Position};
use henge_catalog::store::SegmentRecord;
use henge_catalog::view::ViewedSegment;
use henge_engine::Result;
use henge_engine::error::Category;
use henge_engine::model::SegmentUid;

use super::brokers;
use super::coordinator::Inner;
use super::peers::Shown;

/// Drops that brokers have not seen coming by then are planned anew.
const GIVE_UP: Duration = Duration::from_secs(60);

impl Inner {
    /// Has historicals do what was decided. Drops wait until all brokers have seen what makes them possible.
    pub(super) fn order(self: &Arc<Self>, decisions: Decisions) {
        for (server, segments) in decisions.loads {
            self.note(&server, segments.iter().map(|segment| segment.record.uid), Step::Loading);
            self.send_loads(server, segments);
        }
        if decisions.drops.is_empty() {
            return;
        }
        for (server, uids) in &decisions.drops {
            self.note(server, uids.iter().copied(), Step::Dropping);
        }
        let seen = Shown { revs: self.database.view().revs(), positions: self.alive_positions() };
        let inner = Arc::clone(self);
        self.spawn(async move {
            if brokers::have_seen(&inner.watcher, &inner.peers, &seen, GIVE_UP).await {
                for (server, uids) in decisions.drops {
                    inner.send_drops(server, uids);
                }
                return;
            }
            tracing::warn!("brokers do not follow; nothing is dropped until they do");
            for (server, uids) in decisions.drops {
                inner.unnote(&server, uids);
            }
        });
    }

    /// What each server that answers had told last: drops count on those only.
    fn alive_positions(&self) -> BTreeMap<String, Position> {
        let (inventory, now) = (self.watcher.inventory(), Instant::now());
        let alive = inventory.servers().filter(|view| view.health(now) == Health::Alive);
        alive.map(|view| (view.server.name.clone(), view.position())).collect()
    }

    fn note(&self, server: &Arc<str>, uids: impl Iterator<Item = SegmentUid>, step: Step) {
        let mut state = self.state.lock();
        for uid in uids {
            state.under_way.insert((Arc::clone(server), uid), (step, Instant::now()));
        }
    }

    fn unnote(&self, server: &Arc<str>, uids: Vec<SegmentUid>) {
        let mut state = self.state.lock();
        for uid in uids {
            state.under_way.remove(&(Arc::clone(server), uid));
        }
    }

    fn send_loads(self: &Arc<Self>, server: Arc<str>, segments: Vec<Arc<ViewedSegment>>) {
        let inner = Arc::clone(self);
        self.spawn(async move {
            let load: Vec<SegmentRecord> = segments.iter().map(|segment| segment.record.clone()).collect();
            let uids = load.iter().map(|record| record.uid).collect();
            tracing::info!(%server, segments = load.len(), "ordered to load");
            let orders = Orders { epoch: inner.lease.epoch, load, drop: Vec::new() };
            if inner.send(&server, &orders).await.is_err() {
                inner.unnote(&server, uids);
            }
        });
    }

    pub(super) fn send_drops(self: &Arc<Self>, server: Arc<str>, uids: Vec<SegmentUid>) {
        let inner = Arc::clone(self);
        self.spawn(async move {
            tracing::info!(%server, segments = uids.len(), "ordered to drop");
            let orders = Orders { epoch: inner.lease.epoch, load: Vec::new(), drop: uids.clone() };
            if inner.send(&server, &orders).await.is_err() {
                inner.unnote(&server, uids);
            }
        });
    }

    async fn send(&self, name: &str, orders: &Orders) -> Result<()> {
        let server = self.watcher.inventory().server(name).map(|view| view.server.clone());
        let Some(server) = server else { return Ok(()) };
        let sent = self.peers.order(&server, orders).await;
        if let Err(error) = &sent {
            tracing::warn!(%error, "orders were not taken");
            if error.category() == Category::Conflict {
                // Somebody else leads since.
                self.lost.cancel();
            }
        }
        sent
    }
}
