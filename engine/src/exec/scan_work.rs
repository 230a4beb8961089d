//! One execution of a scan: its queue of work, and each segment's predicate, bound once for all partitions.

use std::sync::{Arc, Weak};

use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::VisibleSegment;
use super::cancel::Cancel;
use super::morsel::{Direction, Morsel, WorkQueue};
use super::predicate::{Predicate, TimeRanges};
use super::predicate_cache::PredicateCache;
use super::selection::{Bound, Remembering};
use crate::error::Error;
use crate::model::SegmentSchema;

/// What the output partitions of one execution share.
#[derive(Debug)]
pub(super) struct ScanWork {
    queue: WorkQueue,
    cancel: Arc<Cancel>,
    bound: Vec<OnceCell<Bound>>,
    remembered: Remembering,
    /// For what is bound.
    reservation: MemoryReservation,
}

impl ScanWork {
    pub(super) fn new(segments: &[VisibleSegment], direction: Direction, context: &TaskContext) -> Self {
        let num_rows = segments.iter().map(|visible| visible.segment.num_rows());
        Self {
            queue: WorkQueue::new(num_rows, direction),
            cancel: Cancel::of(context),
            bound: segments.iter().map(|_| OnceCell::new()).collect(),
            remembered: Remembering { cache: PredicateCache::of(context), pool: Arc::clone(context.memory_pool()) },
            reservation: MemoryConsumer::new("SegmentScanExec").register(context.memory_pool()),
        }
    }

    /// Fails once the query is canceled or out of time.
    pub(super) fn check(&self) -> Result<()> {
        Ok(self.cancel.check()?)
    }

    /// As [`WorkQueue::next`]. Fails once the query is canceled or out of time.
    pub(super) fn next(&self, current: Option<usize>) -> Result<Option<Morsel>> {
        self.cancel.check()?;
        Ok(self.queue.next(current))
    }

    /// As [`WorkQueue::skip`].
    pub(super) fn skip(&self, segment: usize) {
        self.queue.skip(segment);
    }

    /// The predicate bound to segment `index`; the first to ask binds it, the others wait for it. Fails when the sets
    /// of codes and rows that it takes do not fit the memory limit.
    pub(super) async fn bound(
        &self,
        index: usize,
        visible: &VisibleSegment,
        predicate: Option<&Predicate>,
        columns: &SegmentSchema,
    ) -> Result<&Bound> {
        let clip = TimeRanges::between(visible.clip.start().millis(), visible.clip.end().millis());
        let bind = async || {
            let bound = Bound::of(predicate, &clip, &visible.segment, columns, &self.remembered).await?;
            self.reservation.try_grow(bound.memory_bytes())?;
            Ok(bound)
        };
        self.bound[index].get_or_try_init(bind).await
    }
}

/// What the output partitions of each execution of a plan share, for the executions that have not been begun by all of
/// them.
///
/// A plan may be executed again, also while it still runs. The partitions of one execution are told by their task
/// context, and by none of them beginning twice.
#[derive(Debug)]
pub(super) struct Executions<S>(Mutex<Vec<Execution<S>>>);

impl<S> Default for Executions<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[derive(Debug)]
struct Execution<S> {
    /// Held weakly: it keeps the address from being used again.
    context: Weak<TaskContext>,
    begun: Vec<bool>,
    shared: Arc<S>,
}

impl<S> Executions<S> {
    /// What `partition` of `partitions` shares with the others; the first to begin makes it.
    pub(super) fn begin(
        &self,
        partition: usize,
        partitions: usize,
        context: &Arc<TaskContext>,
        make: impl FnOnce() -> S,
    ) -> Result<Arc<S>> {
        if partition >= partitions {
            return Err(Error::defensive(format!("there is no partition {partition} among {partitions}")).into());
        }
        let mut executions = self.0.lock();
        executions.retain(|execution| execution.context.strong_count() > 0);
        let this = Arc::downgrade(context);
        let found = executions.iter().position(|other| other.context.ptr_eq(&this) && !other.begun[partition]);
        let at = found.unwrap_or_else(|| {
            executions.push(Execution { context: this, begun: vec![false; partitions], shared: Arc::new(make()) });
            executions.len() - 1
        });
        executions[at].begun[partition] = true;
        let shared = Arc::clone(&executions[at].shared);
        if executions[at].begun.iter().all(|begun| *begun) {
            executions.swap_remove(at);
        }
        Ok(shared)
    }
}
