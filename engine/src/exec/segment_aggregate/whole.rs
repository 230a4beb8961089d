//! A whole aggregation over segments in one operator: each group is found, folded and given out once.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, SchedulingType, reset_plan_states,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, execute_stream};
use futures::{Stream, StreamExt, TryStreamExt};

use super::run::{Folded, Outcome, Run};
use super::stream::Plan;
use super::{Fold, GroupKey, described, scan_of};
use crate::error::Error;
use crate::exec::computed::Computed;
use crate::exec::reader::Values;
use crate::exec::scan_work::Executions;

/// Only groups that may be among the first are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// Groups are ordered by the result of this fold first.
    pub fold: usize,
    pub descending: bool,
    /// How many groups are wanted. Ties with the last of them are given out too.
    pub limit: usize,
}

/// Stands in for a partial and a final aggregation over a [`super::SegmentScanExec`]: the same schema and the same rows.
///
/// All output partitions share one table of groups, of which each gives a part out. Where the groups do not fit in
/// memory, or are so few that numbering values would cost more, DataFusion's aggregation is run instead.
#[derive(Debug)]
pub struct SegmentGroupExec {
    /// A `SegmentScanExec`. It says what is read; it is not run itself.
    scan: Arc<dyn ExecutionPlan>,
    keys: Vec<GroupKey>,
    folds: Vec<Fold>,
    /// What selected rows must fulfil besides.
    condition: Option<Computed>,
    /// DataFusion's plan for the same, over the same scan.
    otherwise: Arc<dyn ExecutionPlan>,
    /// How many states each fold has in the schema; empty where results are given out.
    state_counts: Vec<usize>,
    top: Option<Top>,
    properties: Arc<PlanProperties>,
    executions: Executions<Run>,
    metrics: ExecutionPlanMetricsSet,
}

impl SegmentGroupExec {
    /// `otherwise` is the plan that this one stands in for, and has its schema: the keys, then a field a fold. Fails if
    /// `scan` is no `SegmentScanExec`.
    pub fn new(
        scan: Arc<dyn ExecutionPlan>,
        keys: Vec<GroupKey>,
        folds: Vec<Fold>,
        condition: Option<Computed>,
        otherwise: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        let partitions = if keys.is_empty() { 1 } else { scan_of(&scan)?.num_partitions() };
        Self::on(partitions, scan, keys, folds, condition, otherwise)
    }

    /// Stands in for a partial aggregation alone: of all that is scanned here, each group comes once, with its states.
    /// `folds` are with how many states each has; none of them counts distinct values.
    pub fn partial(
        scan: Arc<dyn ExecutionPlan>,
        keys: Vec<GroupKey>,
        folds: Vec<(Fold, usize)>,
        condition: Option<Computed>,
        otherwise: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        let partitions = otherwise.properties().partitioning.partition_count();
        let (folds, state_counts) = folds.into_iter().unzip();
        let group = Self::on(partitions, scan, keys, folds, condition, otherwise)?;
        Ok(Self { state_counts, ..group })
    }

    fn on(
        partitions: usize,
        scan: Arc<dyn ExecutionPlan>,
        keys: Vec<GroupKey>,
        folds: Vec<Fold>,
        condition: Option<Computed>,
        otherwise: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        scan_of(&scan)?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(otherwise.schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self {
            scan,
            keys,
            folds,
            condition,
            otherwise,
            state_counts: Vec::new(),
            top: None,
            properties: Arc::new(properties),
            executions: Executions::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The same, but only groups that may be among the first are given out.
    pub fn with_top(&self, top: Top) -> Result<Self> {
        let same = self.over(Arc::clone(&self.scan), Arc::clone(&self.otherwise))?;
        Ok(Self { top: Some(top), ..same })
    }

    pub fn scan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.scan
    }

    pub fn keys(&self) -> &[GroupKey] {
        &self.keys
    }

    pub fn folds(&self) -> &[Fold] {
        &self.folds
    }

    pub fn condition(&self) -> Option<&Computed> {
        self.condition.as_ref()
    }

    fn over(&self, scan: Arc<dyn ExecutionPlan>, otherwise: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let partitions = match self.state_counts.is_empty() {
            true if self.keys.is_empty() => 1,
            true => scan_of(&scan)?.num_partitions(),
            false => otherwise.properties().partitioning.partition_count(),
        };
        let (keys, folds, condition) = (self.keys.clone(), self.folds.clone(), self.condition.clone());
        let same = Self::on(partitions, scan, keys, folds, condition, otherwise)?;
        Ok(Self { top: self.top, state_counts: self.state_counts.clone(), ..same })
    }
}

impl DisplayAs for SegmentGroupExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, folds) = described(&self.schema(), self.keys.len(), &self.folds, &self.scan);
        match format {
            DisplayFormatType::TreeRender => write!(f, "gby={keys}\naggr={folds}")?,
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "SegmentGroupExec: gby=[{keys}], aggr=[{folds}]")?;
            }
        }
        if let Some(condition) = &self.condition {
            write!(f, ", filter=[{}]", condition.expr)?;
        }
        if let Some(top) = &self.top {
            let direction = if top.descending { "greatest" } else { "least" };
            let field = self.schema().field(self.keys.len() + top.fold).name().clone();
            write!(f, ", top=[{} {direction} {field}]", top.limit)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SegmentGroupExec {
    fn name(&self) -> &str {
        "SegmentGroupExec"
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
        let Some(scan) = children.pop() else { return Err(Error::defensive("SegmentGroupExec needs its scan").into()) };
        scan_of(&scan)?;
        let replaced = Arc::clone(&self.otherwise).transform_down(|plan| {
            Ok(match plan.name() == scan.name() {
                true => Transformed::yes(Arc::clone(&scan)),
                false => Transformed::no(plan),
            })
        });
        Ok(Arc::new(self.over(Arc::clone(&scan), replaced.data()?)?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = Arc::clone(&self.scan).reset_state()?;
        let otherwise = reset_plan_states(Arc::clone(&self.otherwise))?;
        Ok(Arc::new(self.over(scan, otherwise)?))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        super::apply_to_all(&self.keys, &self.folds, self.condition.as_ref(), f)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = scan_of(&self.scan)?;
        let partitions = self.properties.partitioning.partition_count();
        let plan = Arc::new(Plan {
            source: Arc::clone(scan.source()),
            keys: self.keys.clone(),
            folds: self.folds.clone(),
            condition: self.condition.clone(),
            schema: self.schema(),
            state_counts: self.state_counts.clone(),
            batch_size: context.session_config().batch_size(),
        });
        let run = self.executions.begin(partition, partitions, &context, Run::default)?;
        let part = Part { partition, partitions, top: self.top, plan: Arc::clone(&plan) };
        let (scan, otherwise) = (Arc::clone(&self.scan), Arc::clone(&self.otherwise));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = async move {
            Ok::<_, datafusion::error::DataFusionError>(match run.outcome(&plan, &scan, &context).await? {
                Outcome::Folded(folded) => part.batches(folded, metrics).boxed(),
                Outcome::Otherwise if partition == 0 => execute_stream(otherwise, context)?.boxed(),
                Outcome::Otherwise => futures::stream::empty().boxed(),
            })
        };
        let batches = futures::stream::once(batches).try_flatten().boxed();
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema(), batches))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// What one output partition gives out.
struct Part {
    partition: usize,
    partitions: usize,
    top: Option<Top>,
    plan: Arc<Plan>,
}

impl Part {
    fn batches(
        self,
        folded: Arc<Folded>,
        metrics: BaselineMetrics,
    ) -> impl Stream<Item = Result<arrow::array::RecordBatch>> + Send {
        let groups = self.groups(&folded);
        let state = (self, folded, groups, 0, Vec::<Values>::new(), metrics);
        futures::stream::try_unfold(state, |(part, folded, groups, given, mut decoders, metrics)| async move {
            if given == groups.len() {
                return Ok(None);
            }
            let end = (given + part.plan.batch_size).min(groups.len());
            let timer = metrics.elapsed_compute().timer();
            let batch = part.batch(&folded, &groups[given..end], &mut decoders)?;
            drop(timer);
            metrics.record_output(batch.num_rows());
            Ok(Some((batch, (part, folded, groups, end, decoders, metrics))))
        })
    }

    fn batch(&self, folded: &Folded, groups: &[u32], decoders: &mut Vec<Values>) -> Result<arrow::array::RecordBatch> {
        match self.plan.state_counts.is_empty() {
            true => folded.table.results(&self.plan, groups, decoders),
            false => folded.table.states(&self.plan, groups, decoders),
        }
    }

    fn groups(&self, folded: &Folded) -> Vec<u32> {
        let num_groups = folded.table.num_groups();
        let start = num_groups * self.partition / self.partitions;
        let groups = folded.table.groups_in(start..num_groups * (self.partition + 1) / self.partitions);
        let Some(top) = self.top.filter(|top| top.limit < groups.len()) else { return groups };
        match folded.table.order_keys(top.fold, &groups) {
            Some(keys) => first(top, groups, keys),
            None => groups,
        }
    }
}

/// The groups that may be among the first: those not behind the last one wanted.
fn first(top: Top, groups: Vec<u32>, mut keys: Vec<i64>) -> Vec<u32> {
    let Some(last) = top.limit.checked_sub(1) else { return Vec::new() };
    if top.descending {
        // Turns the order round, without overflow.
        keys.iter_mut().for_each(|key| *key = !*key);
    }
    let mut sorted = keys.clone();
    let (_, bound, _) = sorted.select_nth_unstable(last);
    let bound = *bound;
    groups.into_iter().zip(keys).filter(|(_, key)| *key <= bound).map(|(group, _)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_come_with_their_ties() {
        let keys = vec![5, 1, 5, i64::MIN, 9, 5, i64::MAX];
        let top = |descending, limit| first(Top { fold: 0, descending, limit }, (0..7).collect(), keys.clone());
        assert_eq!(top(true, 2), [4, 6]);
        assert_eq!(top(true, 3), [0, 2, 4, 5, 6]);
        assert_eq!(top(false, 2), [1, 3]);
        assert_eq!(top(false, 0), [] as [u32; 0]);
    }
}
