//! Queries over tables that are always empty give no rows whatever else they say.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, FunctionArguments, GroupByExpr, JoinOperator,
    OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Value, Visit, Visitor, VisitorMut,
};

use super::{is_catalog_table, label, last_name, null};
use crate::pg_catalog::row;

/// A table of the catalogue that never has rows; or the items of an array that a row of it would hold.
fn is_empty_table(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } if is_catalog_table(name) => {
            let last = name.0.last().and_then(|part| part.as_ident());
            last.is_some_and(|name| !row::FILLED.iter().any(|filled| filled.eq_ignore_ascii_case(&name.value)))
        }
        // `unnest(c.reloptions)` and the like: options and privileges are null here.
        TableFactor::Table { name, args: Some(_), .. } => last_name(name) == "unnest",
        TableFactor::UNNEST { .. } => true,
        TableFactor::NestedJoin { table_with_joins, .. } => joins_empty(table_with_joins),
        TableFactor::Derived { subquery, .. } => {
            matches!(subquery.body.as_ref(), SetExpr::Select(select) if is_empty(select))
        }
        _ => false,
    }
}

/// Whether a join has no rows: outer joins keep those of their other side.
fn joins_empty(from: &TableWithJoins) -> bool {
    let outer = |operator: &JoinOperator| {
        matches!(operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_))
    };
    let inner = |operator: &JoinOperator| {
        matches!(operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
    };
    let first = is_empty_table(&from.relation) && !from.joins.iter().any(|join| outer(&join.join_operator));
    first || from.joins.iter().any(|join| inner(&join.join_operator) && is_empty_table(&join.relation))
}

/// Whether a SELECT gives no rows whatever is in the filled tables. Without GROUP BY an aggregate gives one.
fn is_empty(select: &Select) -> bool {
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let nothing = select.from.iter().any(joins_empty) || select.selection.as_ref().is_some_and(wants_privileges);
    nothing && !(ungrouped && select.projection.iter().any(aggregates))
}

/// Whether a condition holds only where privileges are listed, which they are not: everybody may read everything.
fn wants_privileges(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => wants_privileges(left) || wants_privileges(right),
        Expr::IsNotNull(column) => match column.as_ref() {
            Expr::Identifier(name) => name.value.ends_with("acl"),
            Expr::CompoundIdentifier(names) => names.last().is_some_and(|name| name.value.ends_with("acl")),
            _ => false,
        },
        _ => false,
    }
}

/// Whether an item of a SELECT list aggregates; what a subquery in it does is the subquery's affair.
pub(super) fn aggregates(item: &SelectItem) -> bool {
    const NAMES: &[&str] = &["count", "sum", "min", "max", "avg", "string_agg", "array_agg", "bool_or", "bool_and"];
    #[derive(Default)]
    struct Finder {
        depth: usize,
    }
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function) if self.depth == 0 && NAMES.contains(&last_name(&function.name).as_str()) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    item.visit(&mut Finder::default()).is_break()
}

pub(super) fn is_empty_query(query: &Query) -> bool {
    query.with.is_none() && matches!(query.body.as_ref(), SetExpr::Select(select) if is_empty(select))
}

/// What reads always-empty tables, without reading them.
pub(super) struct EmptyTables;

impl VisitorMut for EmptyTables {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(query) if is_empty_query(query) => *expr = null(),
            Expr::Exists { subquery, negated } if is_empty_query(subquery) => {
                *expr = Expr::value(Value::Boolean(*negated));
            }
            Expr::Function(function) if last_name(&function.name) == "array" => {
                if let FunctionArguments::Subquery(query) = &function.args
                    && is_empty_query(query)
                {
                    *expr = empty_array();
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if is_empty_query(query) {
            // It may order by what is no longer there.
            query.order_by = None;
        } else if matches!(query.body.as_ref(), SetExpr::SetOperation { .. })
            && query
                .order_by
                .as_ref()
                .is_some_and(|by| matches!(&by.kind, OrderByKind::Expressions(by) if by.is_empty()))
        {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if is_empty(select) {
            make_empty(select);
        }
        ControlFlow::Continue(())
    }
}

/// Keeps the names of the columns; each is null, and there is no row.
fn make_empty(select: &mut Select) {
    for item in &mut select.projection {
        let alias = match item {
            SelectItem::UnnamedExpr(expr) => label(expr),
            SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
            // The columns of a table that is always empty would have to be listed; `*` keeps it.
            _ => return,
        };
        *item = SelectItem::ExprWithAlias { expr: null(), alias };
    }
    select.from.clear();
    select.lateral_views.clear();
    select.selection = Some(Expr::value(Value::Boolean(false)));
    select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
    select.having = None;
    select.distinct = None;
}

fn empty_array() -> Expr {
    let array = Expr::Array(Array { elem: Vec::new(), named: true });
    let text = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None));
    Expr::Cast { kind: CastKind::DoubleColon, expr: Box::new(array), data_type: text, array: false, format: None }
}
