//! The operators of `json` and `jsonb`, as the functions that do their work. Which operator is meant follows from the types of
//! its sides, so it is decided where they are known.

use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::Error;
use crate::function::json::{self, JsonKind, operator};

#[derive(Debug)]
pub(super) struct Documents;

impl ExprPlanner for Documents {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let plain = match expr.op {
            BinaryOperator::Arrow => Some(operator::GET),
            BinaryOperator::LongArrow => Some(operator::GET_TEXT),
            BinaryOperator::HashArrow => Some(operator::GET_PATH),
            BinaryOperator::HashLongArrow => Some(operator::GET_PATH_TEXT),
            BinaryOperator::Question => Some(operator::HAS),
            BinaryOperator::QuestionPipe => Some(operator::HAS_ANY),
            BinaryOperator::QuestionAnd => Some(operator::HAS_ALL),
            BinaryOperator::HashMinus => Some(operator::DELETE_PATH),
            _ => None,
        };
        if let Some(name) = plain {
            return Ok(PlannerResult::Planned(call(name, vec![expr.left, expr.right])));
        }
        let kinds = (kind(&expr.left, schema), kind(&expr.right, schema));
        let kind = match kinds {
            (None, None) => return Ok(PlannerResult::Original(expr)),
            (Some(JsonKind::Json), _) | (_, Some(JsonKind::Json)) => JsonKind::Json,
            _ => JsonKind::Jsonb,
        };
        of_documents(expr, kind, kinds)
    }
}

/// What a side is, as far as it says so. Of a parameter nothing is known yet.
fn kind(expr: &Expr, schema: &DFSchema) -> Option<JsonKind> {
    // What DataFusion's operators give is no document. To ask would be to name it, at every level of a long sum.
    if matches!(expr, Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::Not(_) | Expr::Like(_) | Expr::Between(_)) {
        return None;
    }
    expr.to_field(schema).ok().and_then(|(_, field)| JsonKind::of(&field))
}

/// An operator of which a side at least is a document.
fn of_documents(
    expr: RawBinaryExpr,
    kind: JsonKind,
    kinds: (Option<JsonKind>, Option<JsonKind>),
) -> Result<PlannerResult<RawBinaryExpr>> {
    let comparison = match expr.op {
        BinaryOperator::Eq => Some(Operator::Eq),
        BinaryOperator::NotEq => Some(Operator::NotEq),
        _ => None,
    };
    if let Some(comparison) = comparison
        && kind == JsonKind::Jsonb
    {
        let side = |expr| Box::new(call(operator::COMPARABLE, vec![expr]));
        let equal = BinaryExpr::new(side(expr.left), comparison, side(expr.right));
        return Ok(PlannerResult::Planned(Expr::BinaryExpr(equal)));
    }
    let is_literal = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Utf8(_), _));
    let both = kinds.0.is_some() && kinds.1.is_some() || is_literal(&expr.left) || is_literal(&expr.right);
    let planned = match &expr.op {
        BinaryOperator::AtArrow => call(operator::CONTAINS, vec![expr.left, expr.right]),
        BinaryOperator::ArrowAt => call(operator::CONTAINS, vec![expr.right, expr.left]),
        BinaryOperator::Minus => call(operator::DELETE, vec![expr.left, expr.right]),
        // With a text, and of `json`, it joins texts.
        BinaryOperator::StringConcat if kind == JsonKind::Jsonb && both => {
            call(operator::CONCAT, vec![expr.left, expr.right])
        }
        BinaryOperator::StringConcat | BinaryOperator::And | BinaryOperator::Or => {
            return Ok(PlannerResult::Original(expr));
        }
        BinaryOperator::Eq
        | BinaryOperator::NotEq
        | BinaryOperator::Lt
        | BinaryOperator::LtEq
        | BinaryOperator::Gt
        | BinaryOperator::GtEq
        | BinaryOperator::AtQuestion
        | BinaryOperator::AtAt => return Err(no_operator(&expr.op, kind).into()),
        _ => return Ok(PlannerResult::Original(expr)),
    };
    Ok(PlannerResult::Planned(planned))
}

fn no_operator(op: &BinaryOperator, kind: JsonKind) -> Error {
    match kind {
        JsonKind::Json => {
            let message = format!("operator does not exist: json {op} json; cast to `jsonb` or `text`");
            Error::invalid_input(message).with_sqlstate("42883")
        }
        JsonKind::Jsonb => {
            let message = format!("`{op}` of `jsonb` is not supported; compare a part of it: `(x ->> 'key')::int`");
            Error::unsupported(message).with_sqlstate("0A000")
        }
    }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(json::named(name), arguments))
}
