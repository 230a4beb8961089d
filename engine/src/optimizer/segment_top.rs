use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

use crate::exec::{HengeOptions, SegmentScanExec, SegmentTopExec, TopKey};

/// Longer lists of first rows are found by DataFusion's sort.
const LONGEST: usize = 10_000;

/// Puts `SegmentTopExec` between a sort of which only the first rows are wanted and the scan that it sorts, if it sorts by
/// columns. The sort stays.
#[derive(Debug)]
pub struct SegmentTopRule;

impl PhysicalOptimizerRule for SegmentTopRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !HengeOptions::of(config).segment_top {
            return Ok(plan);
        }
        let replaced = plan.transform_down(|plan| match plan.downcast_ref::<SortExec>().map(rewrite).transpose()? {
            Some(Some(new)) => Ok(Transformed::yes(new)),
            _ => Ok(Transformed::no(plan)),
        });
        replaced.data()
    }

    fn name(&self) -> &str {
        "segment_top"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// An expression that is sorted by, and how.
type By = (Arc<dyn PhysicalExpr>, SortOptions);

fn rewrite(sort: &SortExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(limit) = sort.fetch().filter(|fetch| *fetch <= LONGEST) else { return Ok(None) };
    let by = sort.expr().iter().map(|key| (Arc::clone(&key.expr), key.options)).collect();
    let Some(input) = with_top(sort.input(), by, limit)? else { return Ok(None) };
    let sorted = SortExec::new(sort.expr().clone(), input)
        .with_fetch(sort.fetch())
        .with_preserve_partitioning(sort.preserve_partitioning());
    Ok(Some(Arc::new(sorted)))
}

/// The plan with the operator right over its scan. `None` where something stands between that does more than to project
/// rows and to pass them on.
fn with_top(plan: &Arc<dyn ExecutionPlan>, by: Vec<By>, limit: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<SegmentScanExec>() {
        let keys = by.iter().map(|by| key(scan, by)).collect::<Option<Vec<_>>>();
        let Some(keys) = keys.filter(|_| scan.fetch().is_none()) else { return Ok(None) };
        return Ok(Some(Arc::new(SegmentTopExec::new(Arc::clone(plan), keys, limit)?)));
    }
    let (input, by) = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let below = |(expr, options): By| {
            let column = expr.downcast_ref::<Column>()?;
            Some((Arc::clone(&projection.expr().get(column.index())?.expr), options))
        };
        let Some(by) = by.into_iter().map(below).collect::<Option<Vec<_>>>() else { return Ok(None) };
        (projection.input(), by)
    } else if let Some(cooperative) = plan.downcast_ref::<CooperativeExec>() {
        (cooperative.input(), by)
    } else if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        if !matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_)) {
            return Ok(None);
        }
        (repartition.input(), by)
    } else {
        return Ok(None);
    };
    let Some(input) = with_top(input, by, limit)? else { return Ok(None) };
    Ok(Some(replace_children_if_necessary(Arc::clone(plan), vec![input])?))
}

fn key(scan: &SegmentScanExec, (expr, options): &By) -> Option<TopKey> {
    let column = *scan.projection().get(expr.downcast_ref::<Column>()?.index())?;
    let described = scan.source().columns.column(column)?;
    let key = TopKey { column, descending: options.descending, nulls_first: options.nulls_first };
    (!described.multi_value).then_some(key)
}
