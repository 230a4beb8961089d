//! Keeps limits where they are applied once.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

/// Puts a limit of its own in place of the fetch of a join's collected side.
///
/// `datafusion-distributed` sends the rows below such a fetch to every task and applies the fetch in each: every task
/// then joins with other rows (its issue 708, open in 4.0.0). A limit that is an operator of its own stays below what
/// is sent.
#[derive(Debug)]
pub(super) struct LimitOnce;

impl PhysicalOptimizerRule for LimitOnce {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let replaced = plan.transform_up(|node| {
            let collects = node.is::<HashJoinExec>() || node.is::<NestedLoopJoinExec>() || node.is::<CrossJoinExec>();
            let mut children = node.children().into_iter().cloned().collect::<Vec<_>>();
            let fetch = children.first().and_then(|left| left.downcast_ref::<CoalescePartitionsExec>()?.fetch());
            let (true, Some(fetch), Some(left)) = (collects, fetch, children.first_mut()) else {
                return Ok(Transformed::no(node));
            };
            *left = Arc::new(GlobalLimitExec::new(Arc::clone(left), 0, Some(fetch)));
            Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
        });
        replaced.data()
    }

    fn name(&self) -> &str {
        "limit_once"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
