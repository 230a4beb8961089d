//! SQL functions, one file each.
//!
//! Owns scalar functions and the analyzer rules that put checked arithmetic in place of DataFusion's. Invariants: a
//! function of `__time` gives `__time`'s type, `Timestamp(Millisecond, None)`; a pattern or unit that is not known is an
//! error, never a wrong answer.

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;
use datafusion::optimizer::AnalyzerRule;

/// Every scalar function of Henge. Some replace DataFusion's of the same name.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    Vec::new()
}

/// Rules that run after DataFusion has settled types.
pub fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    Vec::new()
}
