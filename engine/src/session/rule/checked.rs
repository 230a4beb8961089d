//! Puts arithmetic that fails in place of arithmetic that wraps, and rounds casts to integers as PostgreSQL does.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

use crate::function::{arithmetic, round_whole};
use crate::session::{HengeOptions, SqlDialect};

#[derive(Debug)]
pub(in crate::session) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let dialect = HengeOptions::of(config).dialect;
        let plan = plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| rewrite(expr, &schema, dialect))?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(plan.data)
    }
}

fn rewrite(expr: Expr, schema: &DFSchema, dialect: SqlDialect) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let function = match left.get_type(schema)? {
                data_type if data_type == right.get_type(schema)? => arithmetic::checked(op, &data_type),
                _ => None,
            };
            Ok(match function {
                Some(function) => Transformed::yes(call(function, vec![*left, *right])),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            })
        }
        Expr::Negative(inner) => Ok(match arithmetic::checked_negation(&inner.get_type(schema)?) {
            Some(function) => Transformed::yes(call(function, vec![*inner])),
            None => Transformed::no(Expr::Negative(inner)),
        }),
        Expr::Cast(cast) if dialect == SqlDialect::PostgreSql && rounds(&cast, schema)? => {
            let rounded = call(round_whole::round_whole(), vec![*cast.expr]);
            Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field: cast.field })))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn rounds(cast: &Cast, schema: &DFSchema) -> Result<bool> {
    if !cast.field.data_type().is_integer() {
        return Ok(false);
    }
    let rounded = matches!(cast.expr.as_ref(), Expr::ScalarFunction(call) if call.name() == "round_whole");
    let from = cast.expr.get_type(schema)?;
    let fractional =
        from.is_floating() || matches!(from, arrow::datatypes::DataType::Decimal128(_, scale) if scale > 0);
    Ok(fractional && !rounded)
}

fn call(function: datafusion::logical_expr::ScalarUDF, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), args))
}
