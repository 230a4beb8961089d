//! Planning that ends when its query is canceled. It does not give control back, so it asks by itself: at every operator that
//! is read, and between the rules that a plan goes through.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::optimizer::{Analyzer, AnalyzerRule, ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};

use crate::exec::Cancel;

/// Asks whether the query is still wanted, and changes nothing.
#[derive(Debug)]
struct Asks(Cancel);

/// Has a state ask at every operator of the text that it plans.
pub(super) fn watch(state: &mut SessionState, cancel: &Cancel) -> Result<()> {
    state.register_expr_planner(Arc::new(Asks(cancel.clone())))
}

/// What [`SessionState::optimize`] gives, unless the query is canceled before.
pub(super) fn optimize(query: &LogicalPlan, state: &SessionState, cancel: &Cancel) -> Result<LogicalPlan> {
    if matches!(query, LogicalPlan::Explain(_)) {
        // It shows what each rule does, and takes an error for what the rule had to say.
        return state.optimize(query);
    }
    let asks = Arc::new(Asks(cancel.clone()));
    let theirs = state.analyzer();
    let rules = theirs.rules.iter().flat_map(|rule| [Arc::clone(&asks) as _, Arc::clone(rule)]).collect();
    let analyzer = Analyzer { function_rewrites: theirs.function_rewrites.clone(), rules };
    let analyzed = analyzer.execute_and_check(query.clone(), state.config_options(), |_, _| {})?;
    let rules = state.optimizers().iter().flat_map(|rule| [Arc::clone(&asks) as _, Arc::clone(rule)]).collect();
    Optimizer::with_rules(rules).optimize(analyzed, state, |_, _| {})
}

impl ExprPlanner for Asks {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        self.0.check()?;
        Ok(PlannerResult::Original(expr))
    }
}

impl AnalyzerRule for Asks {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        self.0.check()?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        "asks_whether_canceled"
    }
}

impl OptimizerRule for Asks {
    fn name(&self) -> &str {
        "asks_whether_canceled"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        self.0.check()?;
        Ok(Transformed::no(plan))
    }
}
