//! Rewrite rules of plans, logical and physical. Each leaves a plan that runs as it is on one node, and whose answer is
//! that of the plan it was given.

mod below;
mod folding;
mod segment_aggregate;
mod segment_group;
mod segment_partial;
mod segment_top;

use std::sync::Arc;

use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::combine_partial_final_agg::CombinePartialFinalAggregate;
use datafusion::physical_optimizer::ensure_coop::EnsureCooperative;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

pub use segment_aggregate::SegmentAggregateRule;
pub use segment_group::SegmentGroupRule;
pub use segment_partial::SegmentPartialRule;
pub use segment_top::SegmentTopRule;

type Rules = Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>;

/// Our physical rules. Each has its place in DataFusion's list, where [`all_physical_rules`] puts it.
pub fn physical_rules() -> Rules {
    vec![Arc::new(SegmentGroupRule), Arc::new(SegmentAggregateRule), Arc::new(SegmentTopRule)]
}

/// DataFusion's physical rules with ours among them.
pub fn all_physical_rules() -> Rules {
    with_ours(PhysicalOptimizer::new().rules)
}

/// `rules` with ours among them: at their places in DataFusion's list, else at the end.
pub fn with_ours(mut rules: Rules) -> Rules {
    rules.retain(|rule| physical_rules().iter().all(|ours| ours.name() != rule.name()));
    // The groups come partitioned in another way than those of a final aggregation: what others require of them is
    // looked after later.
    insert(&mut rules, Arc::new(SegmentGroupRule), EnsureRequirements::new().name());
    // It would merge the two aggregations, of which we want the first.
    insert(&mut rules, Arc::new(SegmentAggregateRule), CombinePartialFinalAggregate::new().name());
    // By then sorts know their limits, and scans from which end they are wanted.
    insert(&mut rules, Arc::new(SegmentTopRule), EnsureCooperative::new().name());
    rules
}

fn insert(rules: &mut Rules, rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>, before: &str) {
    let at = rules.iter().position(|rule| rule.name() == before).unwrap_or(rules.len());
    rules.insert(at, rule);
}
