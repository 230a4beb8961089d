use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

use super::below::Below;
use super::folding::{fold, group_key};
use crate::exec::{GroupKey, HengeOptions, SegmentAggregateExec};

/// Puts `SegmentAggregateExec` in place of a partial aggregation right over a segment scan, if it can do all of it:
/// every key and every aggregate. Otherwise the plan stays.
#[derive(Debug)]
pub struct SegmentAggregateRule;

impl PhysicalOptimizerRule for SegmentAggregateRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !HengeOptions::of(config).segment_aggregate {
            return Ok(plan);
        }
        partials(plan)
    }

    fn name(&self) -> &str {
        "segment_aggregate"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `plan` with every partial aggregation replaced that can be.
pub(super) fn partials(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let replaced =
        plan.transform_down(|plan| match plan.downcast_ref::<AggregateExec>().map(rewrite).transpose()?.flatten() {
            Some(new) => Ok(Transformed::new(new, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(plan)),
        });
    replaced.data()
}

fn rewrite(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if aggregate.group_expr().has_grouping_set() {
        return Ok(None);
    }
    let Some(below) = Below::of(aggregate.input())? else { return Ok(None) };
    match aggregate.mode() {
        AggregateMode::Partial => partial(aggregate, &below),
        // A scan on one output partition is aggregated in one step: make two of it.
        AggregateMode::Single if below.plan().properties().partitioning.partition_count() == 1 => {
            let partial_aggregate = AggregateExec::try_new(
                AggregateMode::Partial,
                aggregate.group_expr().clone(),
                aggregate.aggr_expr().to_vec(),
                aggregate.filter_expr().to_vec(),
                Arc::clone(aggregate.input()),
                aggregate.input_schema(),
            )?;
            let Some(partial) = partial(&partial_aggregate, &below)? else { return Ok(None) };
            Ok(Some(Arc::new(AggregateExec::try_new(
                AggregateMode::Final,
                aggregate.group_expr().as_final(),
                aggregate.aggr_expr().to_vec(),
                aggregate.filter_expr().to_vec(),
                partial,
                aggregate.input_schema(),
            )?)))
        }
        _ => Ok(None),
    }
}

fn partial(aggregate: &AggregateExec, below: &Below) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(condition) = below.condition()? else { return Ok(None) };
    let mut keys = Vec::new();
    for (expr, _) in aggregate.group_expr().expr() {
        match group_key(expr, below)? {
            Some(GroupKey::Derived(_)) | None => return Ok(None),
            Some(key) => keys.push(key),
        }
    }
    let mut folds = Vec::new();
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let Some(fold) = fold(function, filter.as_ref(), below)? else { return Ok(None) };
        folds.push((fold, function.state_fields()?.len()));
    }
    let schema = aggregate.schema();
    let states = folds.iter().map(|(_, states)| states).sum::<usize>();
    if schema.fields().len() != keys.len() + states {
        return Ok(None);
    }
    Ok(Some(Arc::new(SegmentAggregateExec::new(Arc::clone(below.plan()), keys, folds, condition, schema)?)))
}
