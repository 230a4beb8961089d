//! Who serves which segment, as a broker sees it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use parking_lot::RwLock;
use url::Url;

use super::PLAN_VERSION;
use crate::model::SegmentUid;

/// Where a worker is reached: `http://host:port`, or `https` where processes speak TLS among themselves.
pub type WorkerUrl = Url;

/// What kind of process serves a segment. Of the same rows, a historical's are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServedBy {
    Historical,
    Realtime,
    /// By a realtime process that will soon let go of it.
    RetiringRealtime,
}

/// A served copy of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub worker: WorkerUrl,
    pub served_by: ServedBy,
}

/// Who serves which segment now. Fulfilled by the catalog from what historicals and realtime processes announce, and by
/// [`MemoryPlacement`] in tests.
///
/// Which segments a query has to read is not asked here: that is a [`SegmentSource`](crate::table::SegmentSource)'s
/// answer, made of what is published. A segment that it names and nobody serves fails the query.
pub trait SegmentPlacement: Debug + Send + Sync {
    /// For each of `segments`, in that order, its replicas as of one moment, in any order. Only those of workers that
    /// were heard of lately and announce our [`PLAN_VERSION`]; also those of workers that were [suspected](Self::suspect).
    fn replicas(&self, segments: &[SegmentUid]) -> Vec<Vec<Replica>>;

    /// All workers that were heard of lately and announce our [`PLAN_VERSION`], in the order of their addresses. Stages
    /// that read no segment may run on any of them.
    fn workers(&self) -> Vec<WorkerUrl>;

    /// A query found a worker dead or hung. Whoever plans avoids it for some seconds by itself; this is for who watches
    /// over workers, to look after it sooner.
    fn suspect(&self, worker: &WorkerUrl);
}

/// A placement that is told who serves what.
#[derive(Debug, Default)]
pub struct MemoryPlacement {
    workers: RwLock<BTreeMap<WorkerUrl, Announced>>,
}

#[derive(Debug)]
struct Announced {
    served_by: ServedBy,
    plan_version: String,
    segments: Vec<SegmentUid>,
}

impl MemoryPlacement {
    /// What a worker serves from now on, in place of what it announced before.
    pub fn announce(&self, worker: WorkerUrl, served_by: ServedBy, segments: Vec<SegmentUid>) {
        self.announce_version(worker, served_by, segments, PLAN_VERSION);
    }

    /// The same, of a worker of another version.
    pub fn announce_version(
        &self,
        worker: WorkerUrl,
        served_by: ServedBy,
        segments: Vec<SegmentUid>,
        plan_version: &str,
    ) {
        let plan_version = plan_version.to_owned();
        self.workers.write().insert(worker, Announced { served_by, plan_version, segments });
    }

    /// Forgets a worker.
    pub fn leave(&self, worker: &WorkerUrl) {
        self.workers.write().remove(worker);
    }
}

impl SegmentPlacement for MemoryPlacement {
    fn replicas(&self, segments: &[SegmentUid]) -> Vec<Vec<Replica>> {
        let workers = self.workers.read();
        let ours = || workers.iter().filter(|(_, announced)| announced.plan_version == PLAN_VERSION);
        let of = |uid: &SegmentUid| {
            let serving = ours().filter(|(_, announced)| announced.segments.contains(uid));
            serving
                .map(|(worker, announced)| Replica { worker: worker.clone(), served_by: announced.served_by })
                .collect()
        };
        segments.iter().map(of).collect()
    }

    fn workers(&self) -> Vec<WorkerUrl> {
        let workers = self.workers.read();
        let ours = workers.iter().filter(|(_, announced)| announced.plan_version == PLAN_VERSION);
        ours.map(|(worker, _)| worker.clone()).collect()
    }

    fn suspect(&self, _: &WorkerUrl) {}
}
