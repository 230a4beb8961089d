//! A scan on a broker: what is read where, and nothing that could be read here.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use super::WorkerUrl;
use crate::error::Error;
use crate::exec::SegmentScanExec;

/// A worker of a query, and what one scan reads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) worker: WorkerUrl,
    /// Indexes into the scan's segments.
    pub(super) segments: Vec<usize>,
}

/// Stands in for a [`SegmentScanExec`] whose segments were given to workers. All scans of a query have the same workers
/// in the same order, so that task `i` of any stage runs on worker `i`.
#[derive(Debug)]
pub struct SegmentLeafExec {
    scan: Arc<SegmentScanExec>,
    slots: Arc<[Slot]>,
    /// Which task this is for; `None` before there are tasks.
    task: Option<usize>,
}

impl SegmentLeafExec {
    pub(super) fn new(scan: Arc<SegmentScanExec>, slots: Vec<Slot>) -> Self {
        Self { scan, slots: slots.into(), task: None }
    }

    pub(super) fn scan(&self) -> &Arc<SegmentScanExec> {
        &self.scan
    }

    /// How many tasks the stage of this scan must have at least. A stage of one task would be moved to the broker, so
    /// that a second one, with nothing to read, goes to the same worker.
    pub(super) fn num_tasks(&self) -> usize {
        self.slots.len().max(2)
    }

    /// What task `task` reads.
    pub(super) fn variant(&self, task: usize) -> Self {
        Self { scan: Arc::clone(&self.scan), slots: Arc::clone(&self.slots), task: Some(task) }
    }

    /// Where this task reads, and what: indexes into the scan's segments.
    pub(super) fn assigned(&self) -> Option<(&WorkerUrl, &[usize])> {
        let task = self.task?;
        match self.slots.get(task) {
            Some(slot) => Some((&slot.worker, &slot.segments)),
            None => self.slots.first().map(|slot| (&slot.worker, [].as_slice())),
        }
    }
}

impl DisplayAs for SegmentLeafExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.assigned() {
            Some((worker, segments)) => {
                let all = self.scan.source().segments.len();
                write!(f, "SegmentScanExec: worker={worker}, segments={} of {all}", segments.len())
            }
            None => self.scan.fmt_as(format, f),
        }
    }
}

impl ExecutionPlan for SegmentLeafExec {
    fn name(&self) -> &str {
        "SegmentLeafExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.scan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.scan.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// Always fails: whatever moved a scan to the broker, the answer must not be short of its rows.
    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let name = &self.scan.source().data_source;
        Err(Error::defensive(format!("a scan of `{name}` was left on the broker, which serves no segments")).into())
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.scan.statistics_from_inputs(inputs, args)
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.fetch()
    }
}
