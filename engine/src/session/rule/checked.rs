//! Puts arithmetic that fails in place of arithmetic that wraps, and rounds casts to integers as PostgreSQL does.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRewriter};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
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
                let mut rewriter = Rewriter { schema: &schema, dialect, open: Vec::new() };
                let rewritten = expr.rewrite(&mut rewriter)?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(plan.data)
    }
}

/// Rewrites from the leaves up. It remembers the types of what it has been through: asked for at every level of a long sum,
/// they would be found out from its leaves each time.
struct Rewriter<'a> {
    schema: &'a DFSchema,
    dialect: SqlDialect,
    /// For each expression around, the types of its parts so far; `None` where they have to be asked for.
    open: Vec<Vec<Option<DataType>>>,
}

impl TreeNodeRewriter for Rewriter<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        self.open.push(Vec::new());
        Ok(Transformed::no(expr))
    }

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let parts = self.open.pop().unwrap_or_default();
        let (rewritten, data_type) = self.rewrite(expr, parts)?;
        if let Some(around) = self.open.last_mut() {
            around.push(data_type);
        }
        Ok(rewritten)
    }
}

impl Rewriter<'_> {
    /// The expression, and its type if that was found.
    fn rewrite(&self, expr: Expr, parts: Vec<Option<DataType>>) -> Result<(Transformed<Expr>, Option<DataType>)> {
        let mut parts = parts.into_iter();
        let mut type_of = |part: &Expr| match parts.next().flatten() {
            Some(known) => Ok(known),
            None => part.get_type(self.schema),
        };
        match expr {
            Expr::BinaryExpr(binary) if binary.op.is_numerical_operators() => {
                let (left, right) = (type_of(&binary.left)?, type_of(&binary.right)?);
                // Of two numbers alike comes one of their kind.
                let result = (left == right && (left.is_integer() || left.is_floating())).then_some(left);
                let function = result.as_ref().and_then(|number| arithmetic::checked(binary.op, number));
                Ok(match function {
                    Some(function) => (Transformed::yes(call(function, vec![*binary.left, *binary.right])), result),
                    None => (Transformed::no(Expr::BinaryExpr(binary)), result),
                })
            }
            Expr::Negative(inner) => {
                let number = type_of(&inner)?;
                Ok(match arithmetic::checked_negation(&number) {
                    Some(function) => (Transformed::yes(call(function, vec![*inner])), Some(number)),
                    None => (Transformed::no(Expr::Negative(inner)), Some(number)),
                })
            }
            Expr::Cast(cast) => {
                let result = Some(cast.field.data_type().clone());
                if self.dialect != SqlDialect::PostgreSql || !rounds(&cast, type_of)? {
                    return Ok((Transformed::no(Expr::Cast(cast)), result));
                }
                let rounded = call(round_whole::round_whole(), vec![*cast.expr]);
                let cast = Expr::Cast(Cast { expr: Box::new(rounded), field: cast.field });
                Ok((Transformed::yes(cast), result))
            }
            other => Ok((Transformed::no(other), None)),
        }
    }
}

fn rounds(cast: &Cast, mut type_of: impl FnMut(&Expr) -> Result<DataType>) -> Result<bool> {
    if !cast.field.data_type().is_integer() {
        return Ok(false);
    }
    let rounded = matches!(cast.expr.as_ref(), Expr::ScalarFunction(call) if call.name() == "round_whole");
    let from = type_of(&cast.expr)?;
    let fractional = from.is_floating() || matches!(from, DataType::Decimal128(_, scale) if scale > 0);
    Ok(fractional && !rounded)
}

fn call(function: datafusion::logical_expr::ScalarUDF, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), args))
}
