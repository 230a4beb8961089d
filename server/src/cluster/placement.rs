//! What the planner of distributed queries asks, answered from what historicals tell.

use std::sync::Arc;
use std::time::Instant;

use henge_catalog::historical::Historical;
use henge_catalog::inventory::{Health, ServerView};
use henge_engine::Result;
use henge_engine::distributed::{LocalSegments, PLAN_VERSION, Replica, SegmentPlacement, ServedBy, WorkerUrl};
use henge_engine::model::SegmentUid;
use henge_engine::segment::Segment;

use super::Watcher;

/// The segments that a historical serves.
#[derive(Clone, Debug)]
pub struct ServedSegments(pub Historical);

impl LocalSegments for ServedSegments {
    fn segment(&self, uid: SegmentUid) -> Result<Option<Arc<dyn Segment>>> {
        Ok(self.0.segment(uid))
    }
}

/// Who serves which segment, as a broker has heard.
#[derive(Clone, Debug)]
pub struct ServedPlacement(pub Watcher);

impl SegmentPlacement for ServedPlacement {
    fn replicas(&self, segments: &[SegmentUid]) -> Vec<Vec<Replica>> {
        let (inventory, now) = (self.0.inventory(), Instant::now());
        let of = |uid: &SegmentUid| {
            let servers = inventory.holders(*uid).iter().filter_map(|name| inventory.server(name));
            let mut found = servers.filter_map(|view| Some((rank(view, now)?, worker(view)?))).collect::<Vec<_>>();
            // Who does not answer, or is about to leave, is asked only if nobody else can be.
            let best = found.iter().map(|(rank, _)| *rank).min();
            found.retain(|(rank, _)| Some(*rank) == best);
            let replica = |(_, worker)| Replica { worker, served_by: ServedBy::Historical };
            found.into_iter().map(replica).collect()
        };
        segments.iter().map(of).collect()
    }

    fn workers(&self) -> Vec<WorkerUrl> {
        let (inventory, now) = (self.0.inventory(), Instant::now());
        let servers = inventory.servers().filter(|view| rank(view, now) == Some(0));
        let mut workers = servers.filter_map(worker).collect::<Vec<_>>();
        workers.sort();
        workers
    }

    fn suspect(&self, worker: &WorkerUrl) {
        let name = {
            let inventory = self.0.inventory();
            inventory.servers().find(|view| self::worker(view).as_ref() == Some(worker)).map(|v| v.server.name.clone())
        };
        if let Some(name) = name {
            self.0.suspect(&name);
        }
    }
}

/// In which order servers are asked; `None` for those that are not.
fn rank(view: &ServerView, now: Instant) -> Option<u8> {
    if view.server.plan_version != PLAN_VERSION {
        return None;
    }
    match (view.health(now), view.is_leaving) {
        (Health::Alive, false) => Some(0),
        (Health::Alive, true) => Some(1),
        (Health::Suspect, _) => Some(2),
        (Health::Dead, _) => None,
    }
}

fn worker(view: &ServerView) -> Option<WorkerUrl> {
    let (host, _) = view.server.name.rsplit_once(':')?;
    let scheme = if view.server.is_encrypted { "https" } else { "http" };
    format!("{scheme}://{host}:{}", view.server.grpc_port?).parse().ok()
}
