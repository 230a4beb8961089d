//! `EXISTS (…)` and `x IN (SELECT …)` as values, in a select list.
//!
//! The planner knows them as conditions only. As values they are counts: `EXISTS (SELECT … FROM t WHERE c)` is
//! `(SELECT COUNT(*) > 0 FROM t WHERE c)`. `IN` has three answers: true if one is equal, unknown if none is but one might
//! be, since it or `x` is null, and false else.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, UnaryOperator, Value, Visit,
    VisitMut, Visitor, VisitorMut,
};

use super::{call, rows, take};

/// Rewrites those of an item of a select list, but not those of its subqueries, which are conditions there.
pub(super) fn in_list(item: &mut SelectItem, state: &SessionState) {
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return };
    // Never breaks.
    let _ = VisitMut::visit(expr, &mut Values { depth: 0, state });
}

/// Rewrites those within a `CASE` of a condition: they are values there too.
pub(super) fn in_cases(condition: &mut Expr, state: &SessionState) {
    // Never breaks.
    let _ = VisitMut::visit(condition, &mut Cases { depth: 0, state });
}

struct Cases<'a> {
    depth: usize,
    state: &'a SessionState,
}

impl VisitorMut for Cases<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Case { .. } if self.depth == 0 => VisitMut::visit(expr, &mut Values { depth: 0, state: self.state }),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// `SELECT a AS x FROM t ORDER BY b IN (SELECT …)` is `SELECT x FROM (SELECT a AS x, b IN (SELECT …) AS o FROM t) ORDER BY o`: the
/// planner knows such values in a select list, but not to sort by.
pub(super) fn in_order(query: &mut Query) {
    let Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) = &query.order_by else { return };
    let SetExpr::Select(select) = query.body.as_ref() else { return };
    let Some(names) = select.projection.iter().map(output).collect::<Option<Vec<Ident>>>() else { return };
    if select.distinct.is_some() || !by.iter().any(|item| tests(&item.expr)) {
        return;
    }
    let Some(mut outer) = super::select_of("SELECT 1 FROM (SELECT 1) AS henge_ordered") else { return };
    let SetExpr::Select(around) = &mut outer else { return };
    around.projection = names.into_iter().map(|name| SelectItem::UnnamedExpr(Expr::Identifier(name))).collect();
    let Some(TableFactor::Derived { subquery, .. }) = around.from.first_mut().map(|from| &mut from.relation) else {
        return;
    };
    std::mem::swap(&mut query.body, &mut subquery.body);
    subquery.with = None;
    let SetExpr::Select(inner) = subquery.body.as_mut() else { return };
    if let Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) = &mut query.order_by {
        for (at, item) in by.iter_mut().enumerate().filter(|(_, item)| tests(&item.expr)) {
            let alias = Ident::with_quote('"', format!("henge_order_{at}"));
            let expr = std::mem::replace(&mut item.expr, Expr::Identifier(alias.clone()));
            inner.projection.push(SelectItem::ExprWithAlias { expr, alias });
        }
    }
    *query.body = outer;
}

/// What a column of a select list is called, if that is plain to see.
fn output(item: &SelectItem) -> Option<Ident> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) | SelectItem::ExprWithAlias { alias: name, .. } => {
            Some(name.clone())
        }
        _ => None,
    }
}

/// Whether an expression asks whether something is in a query's rows.
fn tests(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::InSubquery { .. } | Expr::Exists { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finder).is_break()
}

struct Values<'a> {
    depth: usize,
    /// Says which functions give one value for one row.
    state: &'a SessionState,
}

impl VisitorMut for Values<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Some(value) = value_of(expr, self.state)
        {
            *expr = value;
        }
        ControlFlow::Continue(())
    }
}

fn value_of(expr: &Expr, state: &SessionState) -> Option<Expr> {
    match expr {
        Expr::Exists { subquery, negated } => exists(subquery, None, *negated, state),
        Expr::InSubquery { expr, subquery, negated } => {
            let is_in = contained(expr, subquery, state)?;
            Some(if *negated {
                Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(is_in))) }
            } else {
                is_in
            })
        }
        _ => None,
    }
}

/// Whether the query gives a row of which `condition` holds too; `None` of a query that is more than a filter.
fn exists(query: &Query, condition: Option<Expr>, negated: bool, state: &SessionState) -> Option<Expr> {
    let mut query = query.clone();
    query.order_by = None;
    let select = plain(&mut query, state)?;
    if let Some(condition) = condition {
        let both = match select.selection.take() {
            Some(before) => and(Expr::Nested(Box::new(before)), condition),
            None => condition,
        };
        select.selection = Some(both);
    }
    let op = if negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
    let star = FunctionArgExpr::Wildcard;
    let mut count = call("count", vec![Expr::value(Value::Null)]);
    if let Expr::Function(function) = &mut count
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.args = vec![FunctionArg::Unnamed(star)];
    }
    let zero = Expr::value(Value::Number("0".to_string(), false));
    let is_any = Expr::BinaryOp { left: Box::new(count), op, right: Box::new(zero) };
    select.projection = vec![SelectItem::UnnamedExpr(is_any)];
    select.distinct = None;
    Some(Expr::Subquery(Box::new(query)))
}

fn contained(expr: &Expr, query: &Query, state: &SessionState) -> Option<Expr> {
    let mut given = query.clone();
    let select = plain(&mut given, state)?;
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
    else {
        return None;
    };
    let item = take(item);
    if select.from.iter().all(is_of_functions) {
        return Some(in_few(expr, query, item));
    }
    let equal = Expr::BinaryOp {
        left: Box::new(Expr::Nested(Box::new(item.clone()))),
        op: BinaryOperator::Eq,
        right: Box::new(Expr::Nested(Box::new(expr.clone()))),
    };
    let null = || Expr::value(Value::Null);
    let when = |condition: Expr, result: Expr| CaseWhen { condition, result };
    let is_null = |expr: Expr| Expr::IsNull(Box::new(Expr::Nested(Box::new(expr))));
    Some(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(exists(query, Some(equal), false, state)?, Expr::value(Value::Boolean(true))),
            when(exists(query, Some(is_null(item)), false, state)?, null()),
            when(and(is_null(expr.clone()), exists(query, None, false, state)?), null()),
        ],
        else_result: Some(Box::new(Expr::value(Value::Boolean(false)))),
    })
}

/// Whether all rows of a `FROM` are made by functions: there are few of them, and none of the outer query's.
fn is_of_functions(from: &TableWithJoins) -> bool {
    matches!(from.relation, TableFactor::Table { args: Some(_), .. }) && from.joins.is_empty()
}

/// Whether something is among the few items of a query that asks for nothing around it: by a list of them.
fn in_few(expr: &Expr, query: &Query, item: Expr) -> Expr {
    let of = |value: Expr| {
        let mut query = query.clone();
        query.order_by = None;
        if let SetExpr::Select(select) = query.body.as_mut() {
            (select.projection, select.distinct) = (vec![SelectItem::UnnamedExpr(value)], None);
        }
        Expr::Subquery(Box::new(query))
    };
    let list = of(call("array_agg", vec![item.clone()]));
    let nulls = of(call("bool_or", vec![Expr::IsNull(Box::new(Expr::Nested(Box::new(item))))]));
    let when = |condition: Expr, result: Value| CaseWhen { condition, result: Expr::value(result) };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(Expr::IsNull(Box::new(list.clone())), Value::Boolean(false)),
            when(Expr::IsNull(Box::new(Expr::Nested(Box::new(expr.clone())))), Value::Null),
            when(call("array_has", vec![list, expr.clone()]), Value::Boolean(true)),
            when(nulls, Value::Null),
        ],
        else_result: Some(Box::new(Expr::value(Value::Boolean(false)))),
    }
}

/// The SELECT of a query that gives a row for each that its condition lets through.
pub(super) fn plain<'a>(query: &'a mut Query, state: &SessionState) -> Option<&'a mut Select> {
    if query.with.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let is_plain = ungrouped && select.having.is_none() && !select.from.is_empty() && select.qualify.is_none();
    (is_plain && !select.projection.iter().any(|item| may_aggregate(item, state))).then_some(select)
}

/// Whether an item calls a function that is not known to give a value for a row: an aggregate gives a row in any case, others
/// give many.
fn may_aggregate(item: &SelectItem, state: &SessionState) -> bool {
    struct Calls<'a>(&'a SessionState);
    impl Visitor for Calls<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function) if !gives_a_value(function, self.0) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    item.visit(&mut Calls(state)).is_break()
}

fn gives_a_value(function: &Function, state: &SessionState) -> bool {
    let name = rows::name_of(&function.name);
    let is_scalar = state.scalar_functions().contains_key(&name) && !state.table_functions().contains_key(&name);
    // `user` and its like, written without brackets.
    if matches!(function.args, FunctionArguments::None) {
        return true;
    }
    function.over.is_none() && is_scalar && !rows::is_set(function) && name != "unnest"
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}
