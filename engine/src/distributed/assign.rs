//! Gives each segment of a query to one worker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use foldhash::fast::FixedState;

use super::attempt::Attempt;
use super::leaf::{SegmentLeafExec, Slot};
use super::{Replica, WorkerUrl};
use crate::exec::SegmentScanExec;
use crate::model::SegmentUid;

/// Picks a replica of every segment that the query reads, once for all of its scans, and puts [`SegmentLeafExec`] in
/// place of each scan. Fails with the list of missing intervals when a segment is served nowhere, unless the session
/// allows partial results.
#[derive(Debug)]
pub(super) struct AssignReplicas;

impl PhysicalOptimizerRule for AssignReplicas {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut wanted = BTreeMap::new();
        let mut scans = 0;
        plan.apply(|node| {
            if let Some(scan) = node.downcast_ref::<SegmentScanExec>() {
                scans += 1;
                wanted.extend(scan.source().segments.iter().map(|visible| (visible.uid, visible.clone())));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if scans == 0 {
            return Ok(plan);
        }
        let attempt = Attempt::of(config)?;
        let chosen = attempt.choose(&wanted)?;
        let workers = chosen.values().collect::<BTreeSet<_>>();
        let replaced = plan.transform_up(|node| match node.downcast_ref::<SegmentScanExec>() {
            // Nobody has to be asked about no rows.
            Some(scan) if workers.is_empty() => {
                let partitions = node.properties().partitioning.partition_count();
                Ok(Transformed::yes(Arc::new(EmptyExec::new(scan.schema()).with_partitions(partitions))))
            }
            Some(scan) => Ok(Transformed::yes(Arc::new(leaf(scan, &workers, &chosen)))),
            None => Ok(Transformed::no(node)),
        });
        replaced.data()
    }

    fn name(&self) -> &str {
        "assign_replicas"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

type Chosen = HashMap<SegmentUid, WorkerUrl>;

/// The scan of those of its segments that are served.
fn leaf(scan: &SegmentScanExec, workers: &BTreeSet<&WorkerUrl>, chosen: &Chosen) -> SegmentLeafExec {
    let slots = workers.iter().map(|&worker| {
        let segments = scan.source().segments.iter().enumerate();
        let here = segments.filter(|(_, visible)| chosen.get(&visible.uid) == Some(worker)).map(|(index, _)| index);
        Slot { worker: worker.clone(), segments: here.collect() }
    });
    let slots = slots.collect();
    SegmentLeafExec::new(Arc::new(scan.again()), slots)
}

/// A segment that wants a worker, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) uid: SegmentUid,
    pub(super) num_rows: usize,
    /// Best first are those that serve it best: see [`preferred`].
    pub(super) replicas: Vec<Replica>,
}

/// Gives each segment to one of its replicas. Of the same kind of process, two are picked by the segment's name, so that
/// it goes to the same ones each time and finds its ordinals there; of these the one with less to do takes it, counting
/// the rows of this query and of those that run. `load` is in rows. Segments that nobody serves are left out.
pub(super) fn choose(mut wanted: Vec<Wanted>, load: &HashMap<WorkerUrl, usize>) -> Chosen {
    let mut given: HashMap<WorkerUrl, usize> = load.clone();
    let mut chosen = HashMap::with_capacity(wanted.len());
    // Those first that have no choice, and of the others the largest: they are the hardest to place.
    wanted.sort_by_key(|segment| (segment.replicas.len(), std::cmp::Reverse(segment.num_rows), segment.uid));
    for segment in wanted {
        let candidates = preferred(&segment);
        let least = candidates.iter().take(2).min_by_key(|worker| given.get(*worker).copied().unwrap_or(0));
        let Some(worker) = least else { continue };
        *given.entry((*worker).clone()).or_default() += segment.num_rows.max(1);
        chosen.insert(segment.uid, (*worker).clone());
    }
    chosen
}

/// The replicas of the best kind that there is, in an order that the segment's name decides.
fn preferred(segment: &Wanted) -> Vec<&WorkerUrl> {
    let Some(best) = segment.replicas.iter().map(|replica| replica.served_by).min() else { return Vec::new() };
    let of_best = segment.replicas.iter().filter(|replica| replica.served_by == best);
    let mut workers = of_best.map(|replica| &replica.worker).collect::<Vec<_>>();
    workers.sort_by_cached_key(|worker| {
        let mut hasher = FixedState::default().build_hasher();
        segment.uid.hash(&mut hasher);
        worker.as_str().hash(&mut hasher);
        hasher.finish()
    });
    workers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distributed::ServedBy;

    fn worker(number: usize) -> WorkerUrl {
        format!("http://127.0.0.1:{}", 7100 + number).parse().unwrap()
    }

    fn wanted(number: u32, num_rows: usize, replicas: &[(usize, ServedBy)]) -> Wanted {
        let replica = |&(number, served_by): &(usize, ServedBy)| Replica { worker: worker(number), served_by };
        Wanted { uid: SegmentUid::numbered(number), num_rows, replicas: replicas.iter().map(replica).collect() }
    }

    #[test]
    fn a_historical_is_asked_before_a_realtime_that_has_the_same_rows() {
        let replicas = [(0, ServedBy::RetiringRealtime), (1, ServedBy::Historical), (2, ServedBy::Realtime)];
        for number in 0..20 {
            let chosen = choose(vec![wanted(number, 10, &replicas)], &HashMap::new());
            assert_eq!(chosen[&SegmentUid::numbered(number)], worker(1));
        }
    }

    #[test]
    fn a_busy_worker_gets_less() {
        let replicas = [(0, ServedBy::Historical), (1, ServedBy::Historical)];
        let all = || (0..10).map(|number| wanted(number, 100, &replicas)).collect::<Vec<_>>();
        let on_first = |load: usize| {
            let chosen = choose(all(), &HashMap::from([(worker(0), load)]));
            chosen.values().filter(|chosen| **chosen == worker(0)).count()
        };
        assert_eq!(on_first(0), 5);
        assert_eq!(on_first(400), 3);
        assert_eq!(on_first(10_000), 0);
    }

    proptest! {
        #[test]
        fn every_served_segment_goes_to_one_that_serves_it(
            served in prop::collection::vec((1..1000_usize, prop::collection::vec(0..6_usize, 0..4)), 0..40)
        ) {
            let segments = served.iter().zip(0..).map(|((rows, replicas), number)| {
                let replicas = replicas.iter().map(|&replica| (replica, ServedBy::Historical)).collect::<Vec<_>>();
                wanted(number, *rows, &replicas)
            });
            let chosen = choose(segments.collect(), &HashMap::new());
            for ((_, replicas), number) in served.iter().zip(0..) {
                let found = chosen.get(&SegmentUid::numbered(number));
                prop_assert_eq!(found.is_some(), !replicas.is_empty());
                prop_assert!(found.is_none_or(|found| replicas.iter().any(|&replica| worker(replica) == *found)));
            }
        }
    }
}
