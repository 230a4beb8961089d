//! `ARRAY(SELECT …)`: the rows of a query as an array, in their order.

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArgumentClause, FunctionArguments, Ident, OrderBy, OrderByExpr, OrderByKind, Query,
    SelectItem, SetExpr, TableAliasColumnDef, TableFactor, Value,
};

use super::{call, query_of_one, rows, select_of, subquery};
use crate::error::{Error, Result};
use crate::function::array::OR_EMPTY;

/// Whether a call is the parser's form of `ARRAY(SELECT …)`.
pub(super) fn is_of_query(function: &Function) -> bool {
    matches!(function.args, FunctionArguments::Subquery(_)) && rows::name_of(&function.name) == "array"
}

/// The aggregate of all rows in its place. A query without rows gives an empty array, and so does one that is asked for a row
/// of the outer query that finds none: so that is said outside.
pub(super) fn of_query(function: &mut Function, state: &SessionState) -> Result<Expr> {
    let FunctionArguments::Subquery(query) = &mut function.args else { return Ok(Expr::value(Value::Null)) };
    let order = match query.order_by.take() {
        Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) => by,
        _ => Vec::new(),
    };
    let aggregated = match aggregated_in_place(query, &order, state) {
        Some(query) => query,
        None => aggregated_around(query, order)?,
    };
    Ok(call(OR_EMPTY, vec![Expr::Subquery(Box::new(aggregated))]))
}

/// Of a query that only filters.
fn aggregated_in_place(query: &Query, order: &[OrderByExpr], state: &SessionState) -> Option<Query> {
    let mut query = query.clone();
    let select = subquery::plain(&mut query, state)?;
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
    else {
        return None;
    };
    if select.distinct.is_some() {
        return None;
    }
    let order = order.iter().map(|by| key(by, item, None)).collect();
    select.projection = vec![SelectItem::UnnamedExpr(collected(item.clone(), order))];
    Some(query)
}

/// What to sort by: the item itself, if its place or its name is meant.
fn key(by: &OrderByExpr, item: &Expr, name: Option<&Ident>) -> OrderByExpr {
    let is_item = match &by.expr {
        Expr::Value(value) => matches!(&value.value, Value::Number(place, _) if place == "1"),
        Expr::Identifier(wanted) => name.is_some_and(|name| name.value.eq_ignore_ascii_case(&wanted.value)),
        _ => false,
    };
    OrderByExpr { expr: if is_item { item.clone() } else { by.expr.clone() }, ..by.clone() }
}

fn collected(item: Expr, order: Vec<OrderByExpr>) -> Expr {
    let mut all = call("array_agg", vec![item]);
    if let Expr::Function(function) = &mut all
        && let FunctionArguments::List(list) = &mut function.args
        && !order.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    all
}

/// Of any query: of its rows as a table. What they are sorted by stands beside them, if it is not the item itself.
fn aggregated_around(query: &mut Query, mut order: Vec<OrderByExpr>) -> Result<Query> {
    let mut inner = query.clone();
    let mut names = vec![Ident::new("henge_item")];
    let value = Expr::Identifier(names[0].clone());
    let mut outer_order = Vec::new();
    if let SetExpr::Select(select) = inner.body.as_mut()
        && let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
            select.projection.as_slice()
    {
        let item = item.clone();
        let name = match &select.projection[0] {
            SelectItem::ExprWithAlias { alias, .. } => Some(alias.clone()),
            _ => None,
        };
        for (at, by) in order.iter().enumerate() {
            let by = key(by, &item, name.as_ref());
            if by.expr == item {
                outer_order.push(OrderByExpr { expr: value.clone(), ..by });
                continue;
            }
            if select.distinct.is_some() {
                let message = "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
                return Err(Error::invalid_input(message).with_sqlstate("42P10"));
            }
            let name = Ident::new(format!("henge_key_{at}"));
            select.projection.push(SelectItem::ExprWithAlias { expr: by.expr.clone(), alias: name.clone() });
            names.push(name.clone());
            outer_order.push(OrderByExpr { expr: Expr::Identifier(name), ..by });
        }
    } else {
        outer_order = order.iter().map(|by| OrderByExpr { expr: value.clone(), ..by.clone() }).collect();
    }
    if !order.is_empty() {
        // A limit counts rows in this order.
        let kind = OrderByKind::Expressions(std::mem::take(&mut order));
        inner.order_by = Some(OrderBy { kind, interpolate: None });
    }
    let defensive = || Error::defensive("a query of our own cannot be read");
    let mut body = select_of("SELECT 1 FROM (SELECT 1) AS henge_array").ok_or_else(defensive)?;
    let SetExpr::Select(select) = &mut body else { return Err(defensive()) };
    select.projection = vec![SelectItem::UnnamedExpr(collected(value, outer_order))];
    let Some(TableFactor::Derived { subquery, alias: Some(alias), .. }) =
        select.from.first_mut().map(|from| &mut from.relation)
    else {
        return Err(defensive());
    };
    alias.columns = names.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }).collect();
    **subquery = inner;
    Ok(Query { body: Box::new(body), ..query_of_one().ok_or_else(defensive)? })
}
