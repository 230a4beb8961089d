//! `FETCH FIRST n ROWS WITH TIES`: rows by their rank, since those that sort alike share one.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Function, Ident, LimitClause, OrderBy, OrderByExpr, OrderByKind, Query, Select,
    SelectItem, SetExpr, Value, WindowSpec, WindowType,
};

use super::{call, take};
use crate::error::{Error, Result};

/// `… ORDER BY x OFFSET m FETCH FIRST n ROWS WITH TIES` is `… QUALIFY rank() OVER (ORDER BY x) <= m + n AND row_number() OVER
/// (ORDER BY x) > m ORDER BY x`.
pub(super) fn keep(query: &mut Query, rows: Expr) -> Result<()> {
    let offset = match query.limit_clause.take() {
        None => None,
        Some(LimitClause::LimitOffset { limit: None, offset, .. }) => offset.map(|offset| offset.value),
        Some(_) => {
            return Err(Error::invalid_input("a query takes `LIMIT` or `FETCH`, not both").with_sqlstate("42601"));
        }
    };
    let Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) = &query.order_by else {
        return Err(
            Error::invalid_input("WITH TIES cannot be specified without ORDER BY clause").with_sqlstate("42601")
        );
    };
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(unsupported("of `UNION` and the like")) };
    if matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))) {
        return Err(unsupported("of `SELECT DISTINCT`"));
    }
    let order = by.iter().map(|item| meant(item, select)).collect::<Result<Vec<_>>>()?;
    let ranked = |name: &str| over(name, order.clone());
    let mut condition = match &offset {
        None => compare(ranked("rank"), BinaryOperator::LtEq, nested(rows)),
        Some(offset) => {
            let last = compare(nested(rows), BinaryOperator::Plus, nested(offset.clone()));
            compare(ranked("rank"), BinaryOperator::LtEq, nested(last))
        }
    };
    if let Some(offset) = offset {
        let later = compare(ranked("row_number"), BinaryOperator::Gt, nested(offset));
        condition = compare(condition, BinaryOperator::And, later);
    }
    select.qualify = Some(match select.qualify.take() {
        Some(before) => compare(nested(before), BinaryOperator::And, condition),
        None => condition,
    });
    Ok(())
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("`FETCH FIRST … WITH TIES` {what} is not supported; put the query in a subquery"))
        .with_sqlstate("0A000")
}

/// What an item of `ORDER BY` sorts by: a window knows neither places nor names of the select list.
fn meant(item: &OrderByExpr, select: &Select) -> Result<OrderByExpr> {
    let listed = |at: usize| match select.projection.get(at) {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => Some(expr.clone()),
        _ => None,
    };
    let expr = match &item.expr {
        Expr::Value(value) => match &value.value {
            Value::Number(place, _) => {
                let place = place.parse::<usize>().ok().and_then(|place| place.checked_sub(1));
                Some(place.and_then(listed).ok_or_else(|| unsupported("by a place of a select list with `*`"))?)
            }
            _ => None,
        },
        Expr::Identifier(name) => select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.value.eq_ignore_ascii_case(&name.value) => {
                Some(expr.clone())
            }
            _ => None,
        }),
        _ => None,
    };
    Ok(OrderByExpr { expr: expr.unwrap_or_else(|| item.expr.clone()), ..item.clone() })
}

fn over(name: &str, order_by: Vec<OrderByExpr>) -> Expr {
    let mut function = call(name, Vec::new());
    if let Expr::Function(Function { over, .. }) = &mut function {
        let window = WindowSpec { window_name: None::<Ident>, partition_by: Vec::new(), order_by, window_frame: None };
        *over = Some(WindowType::WindowSpec(window));
    }
    take(&mut function)
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn compare(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}
