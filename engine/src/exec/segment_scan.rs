//! Reads selected rows of segments.

mod stream;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, DynamicFilterTracking};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr, conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;

use self::stream::ScanStream;
use super::VisibleSegment;
use super::computed::Computed;
use super::morsel::{self, Direction};
use super::options::HengeOptions;
use super::predicate::{Predicate, TimeRanges};
use super::reader::arrow_field;
use super::scan_work::{Executions, ScanWork};
use crate::model::{SegmentSchema, TIME_COLUMN};

/// What a scan reads: the segments of a data source that the planner left, and what they have in common.
#[derive(Debug)]
pub struct ScanSource {
    pub data_source: String,
    /// The data source's columns; a segment may lack some.
    pub columns: Arc<SegmentSchema>,
    pub segments: Vec<VisibleSegment>,
    /// How many segments are visible over all of time.
    pub considered: usize,
    /// What rows are selected; `None` for all.
    pub predicate: Option<Predicate>,
}

/// Which rows of a scan come first, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the segments are listed, and each from its beginning.
    Forward,
    /// As the segments are listed, and each from its end.
    Backward,
}

/// Reads selected rows of segments, some columns of them. Rows come in no order.
///
/// The output partitions share one queue of work, so all of them must be run, in one process, for all rows to come.
#[derive(Debug)]
pub struct SegmentScanExec {
    source: Arc<ScanSource>,
    /// Indexes into the source's columns.
    projection: Vec<usize>,
    fetch: Option<usize>,
    /// Over the output: what selected rows must fulfil besides.
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// Over the output; they may sharpen while the scan runs and are used to skip, not to select.
    dynamic_filters: Vec<Arc<dyn PhysicalExpr>>,
    direction: Direction,
    properties: Arc<PlanProperties>,
    executions: Executions<ScanWork>,
    metrics: ExecutionPlanMetricsSet,
}

impl SegmentScanExec {
    /// A scan of `projection`, indexes into the source's columns, on at most `target_partitions` output partitions.
    pub fn new(
        source: Arc<ScanSource>,
        projection: Vec<usize>,
        fetch: Option<usize>,
        target_partitions: usize,
    ) -> Self {
        let morsels = morsel::count(source.segments.iter().map(|visible| visible.segment.num_rows()));
        Self::with_partitions(source, projection, fetch, target_partitions.min(morsels).max(1))
    }

    /// The same on exactly so many output partitions, of which some may find nothing to do.
    pub fn with_partitions(
        source: Arc<ScanSource>,
        projection: Vec<usize>,
        fetch: Option<usize>,
        partitions: usize,
    ) -> Self {
        let fields = projection.iter().filter_map(|&index| source.columns.column(index)).map(arrow_field);
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            source,
            projection,
            fetch,
            condition: None,
            dynamic_filters: Vec::new(),
            direction: Direction::Forward,
            properties: Arc::new(properties),
            executions: Executions::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The same scan on two output partitions if it has one.
    #[must_use]
    pub fn spread_over_two(self) -> Self {
        match self.num_partitions() {
            1 => Self::with_partitions(self.source, self.projection, self.fetch, 2),
            _ => self,
        }
    }

    /// The same scan, not begun.
    pub(crate) fn again(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            projection: self.projection.clone(),
            fetch: self.fetch,
            condition: self.condition.clone(),
            dynamic_filters: self.dynamic_filters.clone(),
            direction: self.direction,
            properties: Arc::clone(&self.properties),
            executions: Executions::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    pub fn source(&self) -> &Arc<ScanSource> {
        &self.source
    }

    /// Indexes into the source's columns, in the order of the output.
    pub fn projection(&self) -> &[usize] {
        &self.projection
    }

    /// What selected rows must fulfil besides, over the output.
    pub fn condition(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.condition.as_ref()
    }

    /// Filters that sharpen while the query runs, over the output: rows may be skipped by them, and are filtered above.
    pub fn dynamic_filters(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.dynamic_filters
    }

    pub fn order(&self) -> Order {
        match self.direction {
            Direction::Forward => Order::Forward,
            Direction::Backward => Order::Backward,
        }
    }

    /// The same scan, with what else was pushed down to it.
    #[must_use]
    pub fn with_pushed_down(
        self,
        condition: Option<Arc<dyn PhysicalExpr>>,
        dynamic_filters: Vec<Arc<dyn PhysicalExpr>>,
        order: Order,
    ) -> Self {
        let direction = match order {
            Order::Forward => Direction::Forward,
            Order::Backward => Direction::Backward,
        };
        Self { condition, dynamic_filters, direction, ..self }
    }

    /// An expression over the output, over the source's columns.
    pub(super) fn computed(&self, expr: &Arc<dyn PhysicalExpr>, data_type: DataType) -> Result<Option<Computed>> {
        Computed::of(expr, data_type, |index| self.projection.get(index).copied())
    }

    pub(super) fn num_partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    /// The work that an output partition takes part in.
    pub(super) fn begin(&self, partition: usize, context: &Arc<TaskContext>) -> Result<Arc<ScanWork>> {
        self.executions.begin(partition, self.num_partitions(), context, || self.work(context))
    }

    /// All of the scan's work, not begun.
    pub(super) fn work(&self, context: &TaskContext) -> ScanWork {
        ScanWork::new(&self.source.segments, self.direction, context)
    }

    fn times(&self) -> TimeRanges {
        self.source.predicate.as_ref().map_or_else(TimeRanges::all, Predicate::times)
    }

    /// The number of rows before any fetch. Exact where nothing is selected and no segment is clipped.
    fn num_rows(&self) -> Precision<usize> {
        let rows = self.source.segments.iter().map(|visible| visible.segment.num_rows()).sum();
        let is_exact = |visible: &VisibleSegment| is_whole(visible) && visible.segment.is_final();
        if self.source.predicate.is_none() && self.condition.is_none() && self.source.segments.iter().all(is_exact) {
            Precision::Exact(rows)
        } else {
            Precision::Inexact(rows)
        }
    }

    fn time_statistics(&self, exact: bool) -> ColumnStatistics {
        let ranges = self.source.segments.iter().filter_map(|visible| visible.segment.time_range());
        let bounds = ranges.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        let precision = |millis: i64| {
            let value = ScalarValue::TimestampMillisecond(Some(millis), None);
            if exact { Precision::Exact(value) } else { Precision::Inexact(value) }
        };
        let mut statistics = ColumnStatistics::new_unknown();
        statistics.null_count = Precision::Exact(0);
        if let Some((least, greatest)) = bounds {
            statistics.min_value = precision(least.millis());
            statistics.max_value = precision(greatest.millis());
        }
        statistics
    }
}

/// Whether no row of a segment is clipped.
fn is_whole(visible: &VisibleSegment) -> bool {
    visible.segment.time_range().is_none_or(|(first, last)| visible.clip.contains(first) && visible.clip.contains(last))
}

impl DisplayAs for SegmentScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.source;
        let pruned = source.considered.saturating_sub(source.segments.len());
        let separator = match format {
            DisplayFormatType::TreeRender => "\n",
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "SegmentScanExec: ")?;
                ", "
            }
        };
        write!(
            f,
            "data_source={}{separator}segments={} considered/{pruned} pruned",
            source.data_source, source.considered
        )?;
        let names = self.projection.iter().filter_map(|&index| source.columns.column(index));
        let names = names.map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        write!(f, "{separator}interval={}{separator}projection=[{names}]", self.times())?;
        if let Some(predicate) = &source.predicate {
            write!(f, "{separator}filters=[{predicate}]")?;
        }
        if let Some(condition) = &self.condition {
            write!(f, "{separator}condition=[{condition}]")?;
        }
        if let Some(fetch) = self.fetch {
            write!(f, "{separator}limit={fetch}")?;
        }
        if self.direction == Direction::Backward {
            write!(f, "{separator}latest_first")?;
        }
        for filter in &self.dynamic_filters {
            write!(f, "{separator}skip_by=[{filter}]")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SegmentScanExec {
    fn name(&self) -> &str {
        "SegmentScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.again()))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for filter in self.condition.iter().chain(&self.dynamic_filters) {
            if f(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let work = self.begin(partition, &context)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let stream = ScanStream::new(self, work, context.session_config().batch_size(), metrics)?;
        let batches = futures::stream::try_unfold(stream, |mut stream| async move {
            Ok(stream.next().await?.map(|batch| (batch, stream)))
        });
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema(), batches.boxed()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        // Which rows a single partition will give is not known before it runs.
        let num_rows = match args.partition() {
            Some(_) => self.num_rows().to_inexact(),
            None => self.num_rows(),
        };
        let exact = matches!(num_rows, Precision::Exact(_)) && self.fetch.is_none();
        for (column, &index) in statistics.column_statistics.iter_mut().zip(&self.projection) {
            if index == 0 {
                *column = self.time_statistics(exact);
            }
        }
        statistics.num_rows = match (num_rows, self.fetch) {
            (Precision::Exact(rows), Some(fetch)) => Precision::Exact(rows.min(fetch)),
            (Precision::Inexact(rows), Some(fetch)) => Precision::Inexact(rows.min(fetch)),
            (rows, _) => rows,
        };
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { fetch: limit, ..self.again() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    /// Takes over conditions that must be checked row by row, before text is made of the rows; and keeps filters that
    /// sharpen while the query runs, to skip rows by, which are still filtered above.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let filters = result.parent_filters.into_iter().map(|parent| parent.filter).collect::<Vec<_>>();
        let is_dynamic =
            |filter: &Arc<dyn PhysicalExpr>| DynamicFilterTracking::classify(filter).contains_dynamic_filter();
        let is_taken = |filter: &Arc<dyn PhysicalExpr>| match phase {
            FilterPushdownPhase::Pre => {
                let settings = HengeOptions::of(config);
                settings.filter_pushdown && settings.travels(filter) && !is_dynamic(filter) && !is_volatile(filter)
            }
            FilterPushdownPhase::Post => is_dynamic(filter),
        };
        let taken = filters.iter().filter(|filter| is_taken(filter)).cloned().collect::<Vec<_>>();
        let answers = filters.iter().map(|filter| match is_taken(filter) && phase == FilterPushdownPhase::Pre {
            true => PushedDown::Yes,
            false => PushedDown::No,
        });
        let none = FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::No; filters.len()]);
        // With a fetch, leaving rows out would change which rows are among the first.
        if taken.is_empty() || self.fetch.is_some() {
            return Ok(none);
        }
        let propagation = FilterPushdownPropagation::with_parent_pushdown_result(answers.collect());
        let mut scan = self.again();
        match phase {
            FilterPushdownPhase::Pre => scan.condition = Some(conjunction(scan.condition.into_iter().chain(taken))),
            FilterPushdownPhase::Post => scan.dynamic_filters.extend(taken),
        }
        Ok(propagation.with_updated_node(Arc::new(scan)))
    }

    /// Cannot sort, but reads the latest rows first where they are wanted first, so that the filter of a TopK soon
    /// skips the rest.
    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let Some(first) = order.first() else { return Ok(SortOrderPushdownResult::Unsupported) };
        if first.expr.downcast_ref::<Column>().is_none_or(|column| column.name() != TIME_COLUMN) {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let mut scan = self.again();
        let mut source = ScanSource {
            data_source: self.source.data_source.clone(),
            columns: Arc::clone(&self.source.columns),
            segments: self.source.segments.clone(),
            considered: self.source.considered,
            predicate: self.source.predicate.clone(),
        };
        if first.options.descending {
            source
                .segments
                .sort_by_key(|visible| std::cmp::Reverse(visible.segment.time_range().map(|(_, last)| last)));
            scan.direction = Direction::Backward;
        } else {
            source.segments.sort_by_key(|visible| visible.segment.time_range().map(|(first, _)| first));
            scan.direction = Direction::Forward;
        }
        scan.source = Arc::new(source);
        Ok(SortOrderPushdownResult::Inexact { inner: Arc::new(scan) })
    }
}
