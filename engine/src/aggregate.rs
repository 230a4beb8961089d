//! Aggregators, one file each: what they keep while they run, and what a partial one hands to the final one.
//!
//! Invariants: an integer result that does not fit is an error, never a wrapped number; what keeps all values says what that
//! takes, so that the memory limit bounds it.

pub(crate) mod approx_count_distinct;
mod array_agg;
mod earliest;
mod string_agg;
pub mod sum;
mod weighed;

use std::sync::Arc;

pub(crate) use approx_count_distinct::estimate_of_texts;
use datafusion::functions_aggregate::variance::var_samp_udaf;
use datafusion::logical_expr::AggregateUDF;

/// Every aggregate function of Henge. Some replace DataFusion's of the same name.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    // PostgreSQL's other name of the sample's variance.
    let variance = var_samp_udaf().as_ref().clone().with_aliases(["var_sample", "variance"]);
    let all = [
        approx_count_distinct::approx_count_distinct(),
        array_agg::array_agg(),
        earliest::first(),
        earliest::last(),
        string_agg::string_agg(),
        sum::sum(),
        variance,
    ];
    all.into_iter().map(Arc::new).collect()
}
