use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

use super::below::Below;
use super::folding::{fold, group_key, is_text, own_filter};
use super::segment_aggregate::partials;
use crate::aggregate::approx_count_distinct;
use crate::exec::{Computed, Fold, FoldKind, GroupKey, HengeOptions, SegmentGroupExec, SegmentScanExec, Top};

/// Longer lists of first groups are sorted by DataFusion alone.
const LONGEST_TOP: usize = 10_000;

/// Puts `SegmentGroupExec` in place of a partial and a final aggregation right over a segment scan, if it can do every
/// key and every aggregate; in place of the two that DataFusion makes of a count of distinct values; and tells it when
/// only the first groups of an order are wanted. Otherwise the plan stays.
#[derive(Debug)]
pub struct SegmentGroupRule;

impl PhysicalOptimizerRule for SegmentGroupRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let options = HengeOptions::of(config);
        if !options.segment_aggregate || !options.segment_group {
            return Ok(plan);
        }
        let replaced = plan.transform_up(|plan| match rewrite(&plan)? {
            Some(new) => Ok(Transformed::yes(new)),
            None => Ok(Transformed::no(plan)),
        });
        replaced.data()
    }

    fn name(&self) -> &str {
        "segment_group"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn rewrite(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return top(sort);
    }
    let Some(last) = plan.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(first) = first_of(last) else { return Ok(None) };
    let is_plain =
        |aggregate: &AggregateExec| !aggregate.group_expr().has_grouping_set() && aggregate.limit_options().is_none();
    if !is_plain(last) || !is_plain(first) {
        return Ok(None);
    }
    if let Some(distinct) = first.input().downcast_ref::<SegmentGroupExec>() {
        return counts_of_distinct(plan, last, first, distinct);
    }
    match Below::of(first.input())? {
        Some(below) => whole(plan, last, first, &below),
        None => Ok(None),
    }
}

/// The aggregation that sees the rows, of which `last` gives the results: itself, or a partial one.
fn first_of(last: &AggregateExec) -> Option<&AggregateExec> {
    match last.mode() {
        AggregateMode::Single | AggregateMode::SinglePartitioned => Some(last),
        AggregateMode::Final | AggregateMode::FinalPartitioned => {
            let partial = last.input().downcast_ref::<AggregateExec>()?;
            (*partial.mode() == AggregateMode::Partial).then_some(partial)
        }
        _ => None,
    }
}

/// The aggregation as DataFusion does it, for when ours cannot: our partial ones, and theirs over the groups of all.
fn otherwise(plan: &Arc<dyn ExecutionPlan>, last: &AggregateExec) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = partials(Arc::clone(plan))?;
    if matches!(last.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned) {
        return Ok(plan);
    }
    let children = plan.children();
    let [input] = children.as_slice() else { return Ok(plan) };
    let keys = last.group_expr().input_exprs();
    let partitions = input.properties().partitioning.partition_count();
    // Rules that come later would see to it, but do not see this plan.
    let together: Arc<dyn ExecutionPlan> = match *last.mode() == AggregateMode::FinalPartitioned && !keys.is_empty() {
        true => Arc::new(RepartitionExec::try_new(Arc::clone(input), Partitioning::Hash(keys, partitions))?),
        false => Arc::new(CoalescePartitionsExec::new(Arc::clone(input))),
    };
    replace_children_if_necessary(Arc::clone(&plan), vec![together])
}

fn whole(
    plan: &Arc<dyn ExecutionPlan>,
    last: &AggregateExec,
    first: &AggregateExec,
    below: &Below,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(condition) = below.condition()? else { return Ok(None) };
    let mut keys = Vec::new();
    for (expr, _) in first.group_expr().expr() {
        let Some(key) = group_key(expr, below)? else { return Ok(None) };
        keys.push(key);
    }
    let mut folds = Vec::new();
    for (function, filter) in first.aggr_expr().iter().zip(first.filter_expr()) {
        let found = match distinct(function, filter.as_ref(), below)? {
            Some(fold) => Some(fold),
            None => fold(function, filter.as_ref(), below)?,
        };
        let Some(fold) = found else { return Ok(None) };
        folds.push(fold);
    }
    group(plan, last, Arc::clone(below.plan()), keys, folds, condition)
}

/// A count of the distinct values of one string column, or an estimate of it.
fn distinct(
    function: &AggregateFunctionExpr,
    filter: Option<&Arc<dyn PhysicalExpr>>,
    below: &Below,
) -> Result<Option<Fold>> {
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else { return Ok(None) };
    let kind = match (function.fun().name(), function.is_distinct()) {
        ("count", true) => FoldKind::CountDistinct,
        (approx_count_distinct::NAME, _) => FoldKind::EstimateDistinct,
        _ => return Ok(None),
    };
    let Some((column, described)) = below.column_of(argument)? else { return Ok(None) };
    let Some(filter) = own_filter(filter, below)? else { return Ok(None) };
    let fold = Fold { filter, ..Fold::of_column(kind, column) };
    Ok((function.order_bys().is_empty() && is_text(described)).then_some(fold))
}

fn group(
    plan: &Arc<dyn ExecutionPlan>,
    last: &AggregateExec,
    scan: Arc<dyn ExecutionPlan>,
    keys: Vec<GroupKey>,
    folds: Vec<Fold>,
    condition: Option<Computed>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let schema = last.schema();
    let results = schema.fields().iter().skip(keys.len()).map(|field| field.data_type());
    let fits = schema.fields().len() == keys.len() + folds.len()
        && folds.iter().zip(results).all(|(fold, data_type)| gives(fold.kind, data_type));
    if !fits {
        return Ok(None);
    }
    Ok(Some(Arc::new(SegmentGroupExec::new(scan, keys, folds, condition, otherwise(plan, last)?)?)))
}

/// Whether the results of a fold are of this type. Of sums and ends, the states were compared already.
fn gives(kind: FoldKind, data_type: &DataType) -> bool {
    match kind {
        FoldKind::Count | FoldKind::CountDistinct | FoldKind::EstimateDistinct => *data_type == DataType::Int64,
        FoldKind::Average => *data_type == DataType::Float64,
        FoldKind::Sum => matches!(data_type, DataType::Int64 | DataType::Float64),
        FoldKind::Min | FoldKind::Max => true,
    }
}

/// DataFusion counts distinct values by grouping twice: by the keys and the value, then by the keys. Both become one.
fn counts_of_distinct(
    plan: &Arc<dyn ExecutionPlan>,
    last: &AggregateExec,
    first: &AggregateExec,
    distinct: &SegmentGroupExec,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = distinct.scan().downcast_ref::<SegmentScanExec>() else { return Ok(None) };
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    let outer = first.group_expr().expr().iter().map(|(expr, _)| column(expr)).collect::<Option<Vec<_>>>();
    let Some(outer) = outer else { return Ok(None) };
    let inner = distinct.keys();
    let Some(counted) = (0..inner.len()).find(|key| !outer.contains(key)) else { return Ok(None) };
    let mut sorted = outer.clone();
    sorted.push(counted);
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..inner.len()) || first.filter_expr().iter().any(Option::is_some) {
        return Ok(None);
    }
    let folds = first.aggr_expr().iter().map(|function| twice(function, distinct, counted, scan));
    let Some(folds) = folds.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let keys = outer.iter().map(|&key| inner[key].clone()).collect();
    group(plan, last, Arc::clone(distinct.scan()), keys, folds, distinct.condition().cloned())
}

/// What an aggregate of groups amounts to, of the rows.
fn twice(
    function: &AggregateFunctionExpr,
    distinct: &SegmentGroupExec,
    counted: usize,
    scan: &SegmentScanExec,
) -> Option<Fold> {
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else { return None };
    let argument = match argument.downcast_ref::<CastExpr>() {
        Some(cast) if *cast.cast_type() == DataType::Float64 => cast.expr(),
        _ => argument,
    };
    let index = argument.downcast_ref::<Column>()?.index();
    let name = function.fun().name();
    if function.is_distinct() || !function.order_bys().is_empty() {
        return None;
    }
    if index < distinct.keys().len() {
        let GroupKey::Column(column) = distinct.keys()[index] else { return None };
        let described = scan.source().columns.column(column)?;
        let counts = index == counted && name == "count" && is_text(described);
        return counts.then(|| Fold::of_column(FoldKind::CountDistinct, column));
    }
    let fold = distinct.folds().get(index - distinct.keys().len())?;
    let same = matches!((name, fold.kind), ("sum", FoldKind::Sum) | ("min", FoldKind::Min) | ("max", FoldKind::Max));
    same.then(|| fold.clone())
}

/// A sort of which only the first rows are wanted, over groups or a projection of them.
fn top(sort: &SortExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(limit) = sort.fetch().filter(|fetch| *fetch <= LONGEST_TOP) else { return Ok(None) };
    let first = sort.expr().first();
    let Some(input) = with_top(sort.input(), &first.expr, first.options.descending, limit)? else { return Ok(None) };
    let sorted = SortExec::new(sort.expr().clone(), input)
        .with_fetch(sort.fetch())
        .with_preserve_partitioning(sort.preserve_partitioning());
    Ok(Some(Arc::new(sorted)))
}

fn with_top(
    plan: &Arc<dyn ExecutionPlan>,
    by: &Arc<dyn PhysicalExpr>,
    descending: bool,
    limit: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(column) = by.downcast_ref::<Column>() else { return Ok(None) };
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let Some(projected) = projection.expr().get(column.index()) else { return Ok(None) };
        let Some(input) = with_top(projection.input(), &projected.expr, descending, limit)? else { return Ok(None) };
        return Ok(Some(replace_children_if_necessary(Arc::clone(plan), vec![input])?));
    }
    let Some(group) = plan.downcast_ref::<SegmentGroupExec>() else { return Ok(None) };
    match column.index().checked_sub(group.keys().len()) {
        Some(fold) => Ok(Some(Arc::new(group.with_top(Top { fold, descending, limit })?))),
        None => Ok(None),
    }
}
