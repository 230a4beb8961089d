//! Of the rows of a scan those that are the first in an order: only what they are ordered by is read of the others.

mod best;
mod key;
mod stream;

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use parking_lot::Mutex;

use self::key::Rank;
pub use self::key::TopKey;
use self::stream::TopStream;
use super::SegmentScanExec;
use super::scan_work::{Executions, ScanWork};
use crate::error::Error;

/// Leaves of the rows of a [`SegmentScanExec`] those that may be among the first of an order, in no order themselves;
/// what orders them stands above. At most `limit` rows leave each output partition.
///
/// Of the rows that are left out only what they are ordered by is read, and no text of that but where rows of several
/// segments have to be compared by it.
#[derive(Debug)]
pub struct SegmentTopExec {
    /// A [`SegmentScanExec`]. It says what is read; it is not run itself.
    scan: Arc<dyn ExecutionPlan>,
    keys: Vec<TopKey>,
    limit: usize,
    properties: Arc<PlanProperties>,
    executions: Executions<Shared>,
    metrics: ExecutionPlanMetricsSet,
}

/// What the output partitions of one execution share.
#[derive(Debug)]
struct Shared {
    work: ScanWork,
    /// Some partition has as many rows as are wanted, none of which has a greater rank by the first key. Only where ranks
    /// are the same in all segments.
    bound: Mutex<Option<Rank>>,
}

impl SegmentTopExec {
    /// The first `limit` rows by `keys`, of which there is at least one. Fails if `scan` is no [`SegmentScanExec`].
    pub fn new(scan: Arc<dyn ExecutionPlan>, keys: Vec<TopKey>, limit: usize) -> Result<Self> {
        let partitions = scan_of(&scan)?.num_partitions();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(scan.schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let (executions, metrics) = (Executions::default(), ExecutionPlanMetricsSet::new());
        Ok(Self { scan, keys, limit, properties: Arc::new(properties), executions, metrics })
    }
}

fn scan_of(plan: &Arc<dyn ExecutionPlan>) -> Result<&SegmentScanExec> {
    let scan = plan.downcast_ref::<SegmentScanExec>();
    scan.ok_or_else(|| Error::defensive(format!("{} cannot stand under SegmentTopExec", plan.name())).into())
}

impl DisplayAs for SegmentTopExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = scan_of(&self.scan).map(|scan| Arc::clone(&scan.source().columns)).ok();
        let keys = self.keys.iter().map(|key| key.describe(columns.as_deref())).collect::<Vec<_>>().join(", ");
        match format {
            DisplayFormatType::TreeRender => write!(f, "limit={}\nby={keys}", self.limit),
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "SegmentTopExec: limit={}, by=[{keys}]", self.limit)
            }
        }
    }
}

impl ExecutionPlan for SegmentTopExec {
    fn name(&self) -> &str {
        "SegmentTopExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.scan]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(scan) = children.pop() else { return Err(Error::defensive("SegmentTopExec needs its scan").into()) };
        Ok(Arc::new(Self::new(scan, self.keys.clone(), self.limit)?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = Arc::clone(&self.scan).reset_state()?;
        Ok(Arc::new(Self::new(scan, self.keys.clone(), self.limit)?))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = scan_of(&self.scan)?;
        let begin = || Shared { work: scan.work(&context), bound: Mutex::default() };
        let shared = self.executions.begin(partition, scan.num_partitions(), &context, begin)?;
        let reservation = MemoryConsumer::new(format!("SegmentTopExec[{partition}]")).register(context.memory_pool());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let stream = TopStream::new(scan, &self.keys, self.limit, shared, reservation, metrics)?;
        let batches = futures::stream::try_unfold(stream, |mut stream| async move {
            Ok(stream.next().await?.map(|batch| (batch, stream)))
        });
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema(), batches.boxed()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
