//! Rewrite rules of plans, logical and physical. Each leaves a plan that runs as it is on one node, and whose answer is
//! that of the plan it was given.

mod segment_aggregate;

use std::sync::Arc;

use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::combine_partial_final_agg::CombinePartialFinalAggregate;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

pub use segment_aggregate::SegmentAggregateRule;

/// Our physical rules. They belong right before DataFusion's `CombinePartialFinalAggregate`, which would otherwise merge
/// the two aggregations that they look for; [`all_physical_rules`] puts them there.
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    vec![Arc::new(SegmentAggregateRule)]
}

/// DataFusion's physical rules with ours among them.
pub fn all_physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    with_ours(PhysicalOptimizer::new().rules)
}

/// `rules` with ours among them: at their place in DataFusion's list, else at the end.
pub fn with_ours(
    mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    rules.retain(|rule| physical_rules().iter().all(|ours| ours.name() != rule.name()));
    let before = CombinePartialFinalAggregate::new();
    let at = rules.iter().position(|rule| rule.name() == before.name()).unwrap_or(rules.len());
    rules.splice(at..at, physical_rules());
    rules
}
