//! Columns that hold whole numbers as they were written in the statement: PostgreSQL calls them `integer`, while the engine computes
//! with `bigint` everywhere.
//!
//! Only what a column is said to be and the width of its binary values follow from this; the numbers stay as they are.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// For each column of a plan whether every value of it is a small whole number that the statement says.
pub(super) fn integers(plan: &LogicalPlan) -> Vec<bool> {
    (0..plan.schema().fields().len()).map(|at| column(plan, at)).collect()
}

fn column(plan: &LogicalPlan, at: usize) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.get(at).is_some_and(|expr| written(expr, &|name| named(&projection.input, name)))
        }
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| column(input, at)),
        LogicalPlan::Values(values) => {
            values.values.iter().all(|row| row.get(at).is_some_and(|value| written(value, &|_| false)))
        }
        LogicalPlan::SubqueryAlias(alias) => column(&alias.input, at),
        LogicalPlan::Sort(sort) => column(&sort.input, at),
        LogicalPlan::Limit(limit) => column(&limit.input, at),
        LogicalPlan::Filter(filter) => column(&filter.input, at),
        _ => false,
    }
}

fn named(plan: &LogicalPlan, name: &Column) -> bool {
    plan.schema().maybe_index_of_column(name).is_some_and(|at| column(plan, at))
}

fn written(expr: &Expr, column: &dyn Fn(&Column) -> bool) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => i32::try_from(*number).is_ok(),
        Expr::Negative(inner) => matches!(inner.as_ref(), Expr::Literal(..)) && written(inner, column),
        Expr::Alias(alias) => written(&alias.expr, column),
        Expr::Column(name) => column(name),
        Expr::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, result)| result).chain(&case.else_expr);
            let is_null = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if value.is_null());
            let mut any = false;
            for result in results.filter(|result| !is_null(result)) {
                if !written(result, column) {
                    return false;
                }
                any = true;
            }
            any
        }
        _ => false,
    }
}
