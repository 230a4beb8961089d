//! The table that DataFusion sees for a data source.
//!
//! Owns the mapping from segment columns to Arrow, and from SQL filters to pruned segments and index look-ups.
//! Knows no timeline: which segments are visible is asked of a [`SegmentSource`].

mod data_source_table;
mod filter;
mod fixed_source;
#[cfg(test)]
mod oracle;

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

pub use self::data_source_table::DataSourceTable;
pub use self::fixed_source::FixedSource;
use crate::error::Result;
use crate::exec::SegmentScanExec;
pub use crate::exec::VisibleSegment;
use crate::model::{Interval, SegmentSchema};

/// Answers which segments of one data source a query is to read. Fulfilled by the catalog's timeline, by the broker
/// and the historical, and by a fixed list in tests and in programs that embed the engine.
pub trait SegmentSource: Debug + Send + Sync {
    /// The columns of the data source: the union of its segments' columns. A segment that lacks one has nulls there.
    fn schema(&self) -> Arc<SegmentSchema>;

    /// One consistent set of visible segments, those whose clip overlaps `interval`, in the order of their ids.
    /// No two of them hold the same row, and together they hold every row of the data source within `interval`.
    fn visible(&self, interval: &Interval) -> Result<Vec<VisibleSegment>>;

    /// How many segments are visible over all of time, for `EXPLAIN`.
    fn num_visible(&self) -> usize;

    /// Keeps a plan over these segments for whoever made it and holds it weakly: not longer than the source itself lives,
    /// which shows the same segments all that time. By default nothing is kept.
    fn keep(&self, _plan: Arc<dyn ExecutionPlan>) {}
}

/// Plans over the segments of a source that never changes, the last of them that were made.
#[derive(Default)]
pub struct KeptPlans(Mutex<VecDeque<(usize, Arc<dyn ExecutionPlan>)>>);

impl KeptPlans {
    /// As many as some dozens of people have on their dashboards.
    const MOST: usize = 512;
    /// All plans together: a plan lists its segments.
    const MOST_SEGMENTS: usize = 1 << 16;

    /// Keeps a plan, in place of those kept longest if there are many.
    pub fn keep(&self, plan: Arc<dyn ExecutionPlan>) {
        let segments = num_segments(&plan);
        let mut plans = self.0.lock();
        plans.push_back((segments, plan));
        let mut all = plans.iter().map(|(segments, _)| segments).sum::<usize>();
        while plans.len() > Self::MOST || all > Self::MOST_SEGMENTS {
            let Some((segments, _)) = plans.pop_front() else { return };
            all -= segments;
        }
    }
}

/// How many segments the scans of a plan list.
fn num_segments(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.downcast_ref::<SegmentScanExec>().map_or(0, |scan| scan.source().segments.len());
    own + plan.children().into_iter().map(num_segments).sum::<usize>()
}

impl fmt::Debug for KeptPlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} plans", self.0.lock().len())
    }
}
