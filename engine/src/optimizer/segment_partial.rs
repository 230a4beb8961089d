use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

use super::below::Below;
use super::folding::{fold, group_key};
use super::segment_aggregate::partials;
use crate::exec::{HengeOptions, SegmentGroupExec};

/// On a worker, puts our operators in place of a partial aggregation right over a segment scan: of all its segments
/// each group leaves once, since what leaves goes over a network. Otherwise the plan stays.
#[derive(Debug)]
pub struct SegmentPartialRule;

impl PhysicalOptimizerRule for SegmentPartialRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let options = HengeOptions::of(config);
        if !options.segment_aggregate {
            return Ok(plan);
        }
        if !options.segment_group {
            return partials(plan);
        }
        let replaced = plan.transform_down(|plan| match plan.downcast_ref::<AggregateExec>() {
            Some(aggregate) if *aggregate.mode() == AggregateMode::Partial => match rewrite(&plan, aggregate)? {
                Some(new) => Ok(Transformed::new(new, true, TreeNodeRecursion::Jump)),
                None => Ok(Transformed::no(partials(plan)?)),
            },
            _ => Ok(Transformed::no(plan)),
        });
        replaced.data()
    }

    fn name(&self) -> &str {
        "segment_partial"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn rewrite(plan: &Arc<dyn ExecutionPlan>, aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if aggregate.group_expr().has_grouping_set() || aggregate.limit_options().is_some() {
        return Ok(None);
    }
    let Some(below) = Below::of(aggregate.input())? else { return Ok(None) };
    let Some(condition) = below.condition()? else { return Ok(None) };
    let mut keys = Vec::new();
    for (expr, _) in aggregate.group_expr().expr() {
        let Some(key) = group_key(expr, &below)? else { return Ok(None) };
        keys.push(key);
    }
    let mut folds = Vec::new();
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let Some(fold) = fold(function, filter.as_ref(), &below)? else { return Ok(None) };
        folds.push((fold, function.state_fields()?.len()));
    }
    let states = folds.iter().map(|(_, states)| states).sum::<usize>();
    if aggregate.schema().fields().len() != keys.len() + states {
        return Ok(None);
    }
    let otherwise = partials(Arc::clone(plan))?;
    let group = SegmentGroupExec::partial(Arc::clone(below.plan()), keys, folds, condition, otherwise)?;
    Ok(Some(Arc::new(group)))
}
