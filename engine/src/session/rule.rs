//! Analyzer rules: what the dialect asks of expressions once their types are settled.

pub(super) mod checked;
mod lateral;
pub(super) mod time;

use std::sync::Arc;

use datafusion::optimizer::Analyzer;

/// Puts our rules around DataFusion's own, which settle types in between.
pub(super) fn add(analyzer: &mut Analyzer) {
    analyzer.rules.insert(0, Arc::new(time::TimeComparison));
    analyzer.rules.insert(0, Arc::new(lateral::Lateral));
    analyzer.rules.push(Arc::new(checked::CheckedArithmetic));
}
