//! Analyzer rules: what the dialect asks of expressions once their types are settled.

pub(super) mod checked;

use std::sync::Arc;

use datafusion::optimizer::AnalyzerRule;

/// In the order in which they run, after DataFusion's own.
pub(super) fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    vec![Arc::new(checked::CheckedArithmetic)]
}
