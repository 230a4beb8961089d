//! Aggregates over segments, folded over dictionary codes and block statistics: partial ones, and whole ones.

mod accumulator;
mod derived;
mod distinct;
mod fold;
mod grouping;
mod input;
mod interner;
mod key;
mod loops;
mod run;
mod stream;
mod table;
mod time_key;
mod whole;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

pub use self::fold::{Argument, Fold, FoldKind};
use self::stream::{AggregateStream, Plan};
pub use self::time_key::TimeKey;
pub(crate) use self::time_key::is_integral;
pub use self::whole::{SegmentGroupExec, Top};
use super::SegmentScanExec;
use super::computed::{Computed, Evaluated};
use crate::error::Error;

/// What rows are grouped by.
#[derive(Clone, Debug)]
pub enum GroupKey {
    /// A string column with one value a row, or a Long column: its index in the data source's columns.
    Column(usize),
    /// A function of `__time`.
    Time(TimeKey),
    /// A function of one string column with one value a row, and no other. Only in a whole aggregation.
    Derived(Computed),
}

impl GroupKey {
    /// What a segment's own codes are grouped by for this key: a function of a dimension has no codes of its own there.
    fn of_segment(&self) -> Self {
        match self {
            Self::Derived(computed) => Self::Column(computed.columns.first().copied().unwrap_or(usize::MAX)),
            key => key.clone(),
        }
    }
}

/// Whether values of a type can be folded, when they are computed.
pub(crate) fn foldable(data_type: &DataType) -> bool {
    Evaluated::takes(data_type)
}

/// Whether a function of a dimension can be a key, when it gives this type.
pub(crate) fn groupable(data_type: &DataType) -> bool {
    derived::DerivedCodes::takes(data_type)
}

/// Stands in for DataFusion's partial aggregation over a [`SegmentScanExec`]: the same schema, group keys and then the
/// states of each aggregate, for the final aggregation above it.
///
/// A group may come more than once, also from one output partition: each segment's groups are given out by themselves,
/// and earlier when memory is short.
#[derive(Debug)]
pub struct SegmentAggregateExec {
    /// A [`SegmentScanExec`]. It says what is read; it is not run itself.
    scan: Arc<dyn ExecutionPlan>,
    keys: Vec<GroupKey>,
    folds: Vec<Fold>,
    /// What selected rows must fulfil besides.
    condition: Option<Computed>,
    /// How many states each fold has in the schema.
    state_counts: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SegmentAggregateExec {
    /// `schema` has a field a key, then those of each fold's states, so many as `state_counts` says. Fails if `scan` is
    /// no [`SegmentScanExec`].
    pub fn new(
        scan: Arc<dyn ExecutionPlan>,
        keys: Vec<GroupKey>,
        folds: Vec<(Fold, usize)>,
        condition: Option<Computed>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let partitions = scan_of(&scan)?.num_partitions();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let (folds, state_counts) = folds.into_iter().unzip();
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { scan, keys, folds, condition, state_counts, properties: Arc::new(properties), metrics })
    }

    fn over(&self, scan: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let folds = self.folds.iter().cloned().zip(self.state_counts.iter().copied()).collect();
        Self::new(scan, self.keys.clone(), folds, self.condition.clone(), self.schema())
    }
}

fn scan_of(plan: &Arc<dyn ExecutionPlan>) -> Result<&SegmentScanExec> {
    let scan = plan.downcast_ref::<SegmentScanExec>();
    scan.ok_or_else(|| Error::defensive(format!("{} cannot stand under SegmentAggregateExec", plan.name())).into())
}

/// Keys and folds, for people.
fn described(schema: &SchemaRef, num_keys: usize, folds: &[Fold], scan: &Arc<dyn ExecutionPlan>) -> (String, String) {
    let keys = schema.fields().iter().take(num_keys).map(|field| field.name().as_str());
    let columns = scan_of(scan).map(|scan| Arc::clone(&scan.source().columns)).ok();
    let folds = folds.iter().map(|fold| fold.describe(columns.as_deref()));
    (keys.collect::<Vec<_>>().join(", "), folds.collect::<Vec<_>>().join(", "))
}

fn apply_to_all(
    keys: &[GroupKey],
    folds: &[Fold],
    condition: Option<&Computed>,
    f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
) -> Result<TreeNodeRecursion> {
    let of_keys = keys.iter().filter_map(|key| match key {
        GroupKey::Column(_) => None,
        GroupKey::Time(key) => Some(&key.expr),
        GroupKey::Derived(computed) => Some(&computed.expr),
    });
    let of_folds = folds.iter().flat_map(|fold| {
        let argument = match &fold.argument {
            Some(Argument::Computed(computed)) => Some(computed),
            Some(Argument::Column(_)) | None => None,
        };
        argument.into_iter().chain(&fold.filter).map(|computed| &computed.expr)
    });
    for expr in of_keys.chain(of_folds).chain(condition.map(|condition| &condition.expr)) {
        if f(expr)? == TreeNodeRecursion::Stop {
            return Ok(TreeNodeRecursion::Stop);
        }
    }
    Ok(TreeNodeRecursion::Continue)
}

impl DisplayAs for SegmentAggregateExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, folds) = described(&self.schema(), self.keys.len(), &self.folds, &self.scan);
        match format {
            DisplayFormatType::TreeRender => write!(f, "gby={keys}\naggr={folds}")?,
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "SegmentAggregateExec: gby=[{keys}], aggr=[{folds}]")?;
            }
        }
        self.condition.as_ref().map_or(Ok(()), |condition| write!(f, ", filter=[{}]", condition.expr))
    }
}

impl ExecutionPlan for SegmentAggregateExec {
    fn name(&self) -> &str {
        "SegmentAggregateExec"
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
        let Some(scan) = children.pop() else {
            return Err(Error::defensive("SegmentAggregateExec needs its scan").into());
        };
        Ok(Arc::new(self.over(scan)?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(recompute))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = Arc::clone(&self.scan).reset_state()?;
        Ok(Arc::new(self.over(scan)?))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_to_all(&self.keys, &self.folds, self.condition.as_ref(), f)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = scan_of(&self.scan)?;
        let work = scan.begin(partition, &context)?;
        let plan = Plan {
            source: Arc::clone(scan.source()),
            keys: self.keys.clone(),
            folds: self.folds.clone(),
            condition: self.condition.clone(),
            schema: self.schema(),
            state_counts: self.state_counts.clone(),
            batch_size: context.session_config().batch_size(),
        };
        let consumer = MemoryConsumer::new(format!("SegmentAggregateExec[{partition}]"));
        let reservation = consumer.with_can_spill(true).register(context.memory_pool());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let stream = AggregateStream::new(Arc::new(plan), work, reservation, metrics);
        let batches = futures::stream::try_unfold(stream, |mut stream| async move {
            Ok(stream.next().await?.map(|batch| (batch, stream)))
        });
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema(), batches.boxed()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
