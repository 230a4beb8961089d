//! A date and an interval make a timestamp, as in PostgreSQL; DataFusion's would be a date, without the hours.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

#[derive(Debug)]
pub(super) struct DateAndInterval;

impl ExprPlanner for DateAndInterval {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !matches!(expr.op, BinaryOperator::Plus | BinaryOperator::Minus) {
            return Ok(PlannerResult::Original(expr));
        }
        // What a long sum is, is asked for only if its last summand says that it may matter: that is to ask all of it, each time.
        let (sum, last) = match expr.right {
            Expr::BinaryExpr(_) => (&expr.right, &expr.left),
            _ => (&expr.left, &expr.right),
        };
        let may_be = |data_type: &DataType| matches!(data_type, DataType::Date32 | DataType::Interval(_));
        if matches!(sum, Expr::BinaryExpr(_)) && !last.get_type(schema).is_ok_and(|data_type| may_be(&data_type)) {
            return Ok(PlannerResult::Original(expr));
        }
        // Of a parameter nothing is known yet.
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let time = |date: Expr| cast(date, DataType::Timestamp(TimeUnit::Microsecond, None));
        let RawBinaryExpr { op, left: first, right: second } = expr;
        let (first, second) = match (left, right) {
            (DataType::Date32, DataType::Interval(_)) => (time(first), second),
            (DataType::Interval(_), DataType::Date32) if op == BinaryOperator::Plus => (first, time(second)),
            _ => (first, second),
        };
        // The operator is left to the planners that come after.
        Ok(PlannerResult::Original(RawBinaryExpr { op, left: first, right: second }))
    }
}
