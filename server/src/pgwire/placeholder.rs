//! Types of parameters that the planner cannot know: those that follow from where a parameter stands in the syntax.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, LimitClause, Query, Statement, Value, Visit, Visitor};

use super::parameter::type_oid;

const BIGINT: u32 = 20;
const TEXT_ARRAY: u32 = 1009;

/// The parameters of a statement (numbers from 1), with the type their place asks for, if it asks for one.
pub(super) fn find(statement: &Statement) -> BTreeMap<usize, Option<u32>> {
    let mut found = Found::default();
    // Never breaks.
    let _ = statement.visit(&mut found);
    found.0
}

#[derive(Default)]
struct Found(BTreeMap<usize, Option<u32>>);

impl Found {
    fn note(&mut self, expr: &Expr, oid: u32) {
        if let Some(number) = number(expr) {
            self.0.insert(number, Some(oid));
        }
    }
}

fn number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
            _ => None,
        },
        Expr::Nested(inner) => number(inner),
        _ => None,
    }
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                limit.iter().chain(offset.iter().map(|offset| &offset.value)).for_each(|expr| self.note(expr, BIGINT));
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                [offset, limit].into_iter().for_each(|expr| self.note(expr, BIGINT));
            }
            None => {}
        }
        if let Some(quantity) = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref()) {
            self.note(quantity, BIGINT);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } = expr {
            self.note(right, TEXT_ARRAY);
        }
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Ok(oid) = type_oid(&data_type.to_string().to_lowercase())
        {
            self.note(inner, oid);
        }
        if let Some(number) = number(expr) {
            self.0.entry(number).or_insert(None);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn limits_are_bigint_and_lists_are_arrays() {
        let sql = "SELECT $1, $6::int, $7::oid[] FROM t WHERE a = ANY($2) AND b > $3 LIMIT $4 OFFSET $5";
        let statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        let types: Vec<_> = find(&statement).into_iter().collect();
        assert_eq!(
            types,
            [(1, None), (2, Some(1009)), (3, None), (4, Some(20)), (5, Some(20)), (6, Some(23)), (7, Some(1028))]
        );
    }
}
