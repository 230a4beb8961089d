//! What the planner of distributed queries asks, answered from what historicals tell.

use std::sync::Arc;
use std::time::Instant;

use henge_catalog::historical::Historical;
use henge_catalog::inventory::{Health, Inventory, ServerView};
use henge_catalog::realtime::Tails;
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
        Ok(self.0.segment(uid).map(|segment| segment as _))
    }
}

/// The rows that a realtime process serves.
#[derive(Clone, Debug)]
pub struct ServedTails(pub Tails);

impl LocalSegments for ServedTails {
    fn segment(&self, _: SegmentUid) -> Result<Option<Arc<dyn Segment>>> {
        // They are in as many segments as there are.
        Ok(None)
    }

    fn segments(&self, uid: SegmentUid) -> Result<Option<Vec<Arc<dyn Segment>>>> {
        self.0.segments(uid)
    }
}

/// Who serves which segment, as a broker has heard.
#[derive(Clone, Debug)]
pub struct ServedPlacement(pub Watcher);

impl SegmentPlacement for ServedPlacement {
    fn replicas(&self, segments: &[SegmentUid]) -> Vec<Vec<Replica>> {
        let (inventory, realtimes, now) = (self.0.inventory(), self.0.realtimes(), Instant::now());
        let of = |uid: &SegmentUid| {
            let found = holders(&inventory, *uid, ServedBy::Historical, now);
            // A realtime process has what nobody else has.
            let mut found = found.chain(holders(&realtimes, *uid, ServedBy::Realtime, now)).collect::<Vec<_>>();
            // Who does not answer, or is about to leave, is asked only if nobody else can be.
            let best = found.iter().map(|(rank, _)| *rank).min();
            found.retain(|(rank, _)| Some(*rank) == best);
            found.into_iter().map(|(_, replica)| replica).collect()
        };
        segments.iter().map(of).collect()
    }

    fn workers(&self) -> Vec<WorkerUrl> {
        let (inventory, realtimes, now) = (self.0.inventory(), self.0.realtimes(), Instant::now());
        let alive = |inventory: &Inventory| {
            let servers = inventory.servers().filter(|view| rank(view, now) == Some(0));
            servers.filter_map(worker).collect::<Vec<_>>()
        };
        let mut workers = alive(&inventory);
        if workers.is_empty() {
            workers = alive(&realtimes);
        }
        workers.sort();
        workers
    }

    fn suspect(&self, worker: &WorkerUrl) {
        let named = |inventory: &Inventory| {
            inventory.servers().find(|view| self::worker(view).as_ref() == Some(worker)).map(|v| v.server.name.clone())
        };
        let name = named(&self.0.inventory()).or_else(|| named(&self.0.realtimes()));
        if let Some(name) = name {
            self.0.suspect(&name);
        }
    }
}

/// Those who serve a segment and can be asked.
fn holders(
    inventory: &Inventory,
    uid: SegmentUid,
    served_by: ServedBy,
    now: Instant,
) -> impl Iterator<Item = (u8, Replica)> {
    let servers = inventory.holders(uid).iter().filter_map(|name| inventory.server(name));
    servers.filter_map(move |view| Some((rank(view, now)?, Replica { worker: worker(view)?, served_by })))
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
