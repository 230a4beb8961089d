//! Queries that PostgreSQL's tools send about the catalogue, made into ones that DataFusion plans.
//!
//! Everywhere: the prefix `pg_catalog.` of functions and types is dropped, casts to `regclass` and its like become
//! functions, `OPERATOR(pg_catalog.~)` becomes `~`. Only in queries over `pg_…` tables: a SELECT over a table that is
//! always empty gives no rows whatever else it says, so nothing else of it is planned; COLLATE is dropped, since all
//! our text compares alike; and a scalar subquery, which here looks one row up by its key, is told to give one row.

mod empty;
mod spelling;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, Ident, ObjectName, SelectItem, SetExpr, Statement, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use henge_engine::Result;
use henge_engine::session::StatementRewriter;

use self::empty::{EmptyTables, aggregates};
use self::spelling::Spelling;
use super::{SCHEMA, column};

#[derive(Debug)]
pub(super) struct CatalogQueries;

impl StatementRewriter for CatalogQueries {
    fn rewrite(&self, mut statement: Statement) -> Result<Statement> {
        if asks_for_types(&statement) {
            statement = parse(TYPES_ASKED)?;
        }
        let in_catalog = reads_catalog(&statement);
        // Never breaks.
        if in_catalog {
            let _ = VisitMut::visit(&mut statement, &mut EmptyTables);
            let _ = VisitMut::visit(&mut statement, &mut Lookups);
        }
        let _ = VisitMut::visit(&mut statement, &mut Spelling { in_catalog });
        Ok(statement)
    }
}

/// asyncpg's question for the types that it does not know: a recursive one, over composite types, domains and ranges, none
/// of which there are here. What is left of it is the types and their elements. No column of the answer is an array: asyncpg
/// would ask for its type with the same question.
fn asks_for_types(statement: &Statement) -> bool {
    let Statement::Query(query) = statement else { return false };
    let tables = query.with.iter().flat_map(|with| &with.cte_tables);
    tables.into_iter().any(|table| table.alias.name.value.eq_ignore_ascii_case("typeinfo_tree"))
}

const TYPES_ASKED: &str = "\
    SELECT t.oid, 'pg_catalog' AS ns, t.typname AS name, t.typtype AS kind, NULL::oid AS basetype, \
           CASE WHEN t.typcategory = 'A' THEN t.typelem END AS elemtype, \
           CASE WHEN t.typcategory = 'A' THEN t.typdelim END AS elemdelim, NULL::oid AS range_subtype, \
           NULL::text AS attrtypoids, NULL::text AS attrnames, 0 AS depth, NULL::text AS basetype_name, \
           CASE WHEN t.typcategory = 'A' THEN t.typelem::regtype::text END AS elemtype_name, NULL::text AS range_subtype_name \
    FROM pg_catalog.pg_type t WHERE t.oid = ANY($1::oid[]) \
    UNION ALL \
    SELECT t.oid, 'pg_catalog', t.typname, t.typtype, NULL::oid, NULL::oid, NULL::text, NULL::oid, NULL::text, NULL::text, \
           1, NULL::text, NULL::text, NULL::text \
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_type a ON a.typelem = t.oid AND a.typcategory = 'A' \
    WHERE a.oid = ANY($1::oid[]) \
    ORDER BY depth DESC";

fn parse(sql: &str) -> Result<Statement> {
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql);
    parsed
        .ok()
        .and_then(|mut statements| statements.pop())
        .ok_or_else(|| henge_engine::Error::defensive("a query of our own is no SQL"))
}

fn is_catalog_table(name: &ObjectName) -> bool {
    let parts: Vec<&str> = name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
    match parts.as_slice() {
        [.., schema, _] if schema.eq_ignore_ascii_case(SCHEMA) => true,
        [name] => column::table_names().any(|known| known.eq_ignore_ascii_case(name)),
        _ => false,
    }
}

fn reads_catalog(statement: &Statement) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            if is_catalog_table(name) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    statement.visit(&mut Finder).is_break()
}

fn last_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn label(expr: &Expr) -> Ident {
    match expr {
        Expr::Identifier(name) => name.clone(),
        Expr::CompoundIdentifier(names) => names.last().cloned().unwrap_or_else(|| Ident::new("?column?")),
        Expr::Function(function) => Ident::new(last_name(&function.name)),
        Expr::Cast { expr, .. } => label(expr),
        _ => Ident::with_quote('"', "?column?"),
    }
}

/// Scalar subqueries give one row.
struct Lookups;

impl VisitorMut for Lookups {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Subquery(query) = expr
            && let SetExpr::Select(select) = query.body.as_mut()
            && query.limit_clause.is_none()
            && matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty())
            && let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
                select.projection.as_mut_slice()
            && !select.from.is_empty()
        {
            let item = SelectItem::UnnamedExpr(value.clone());
            if !aggregates(&item) {
                *value = call("min", value.clone());
            }
        }
        ControlFlow::Continue(())
    }
}

fn call(name: &str, argument: Expr) -> Expr {
    use datafusion::sql::sqlparser::ast::{Function, FunctionArg, FunctionArgExpr, FunctionArgumentList};
    let arguments = FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))],
        clauses: Vec::new(),
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(arguments),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        CatalogQueries.rewrite(statement).unwrap().to_string()
    }

    #[test]
    fn a_query_over_an_empty_table_keeps_only_its_labels() {
        assert_eq!(
            rewritten(
                "SELECT pol.polname, f(pol.x) AS y FROM pg_catalog.pg_policy pol WHERE pol.polrelid = 1 ORDER BY 1"
            ),
            "SELECT NULL AS polname, NULL AS y WHERE false"
        );
    }

    #[test]
    fn subqueries_over_empty_tables_are_null_false_and_empty() {
        assert_eq!(
            rewritten("SELECT (SELECT d.adbin FROM pg_attrdef d), EXISTS (SELECT 1 FROM pg_index) FROM pg_class"),
            "SELECT NULL, false FROM pg_class"
        );
    }

    #[test]
    fn an_aggregate_over_an_empty_table_still_gives_its_row() {
        let sql = "SELECT count(*) FROM pg_index";
        assert_eq!(rewritten(sql), sql);
    }

    #[test]
    fn an_aggregate_within_a_subquery_does_not_keep_an_empty_table() {
        let sql = "SELECT (SELECT string_agg(attname, ',') FROM pg_attribute) AS a FROM pg_publication AS p";
        assert_eq!(rewritten(sql), "SELECT NULL AS a WHERE false");
    }

    #[test]
    fn an_outer_join_with_an_empty_table_keeps_the_other_side() {
        let sql = "SELECT c.relname FROM pg_class AS c LEFT JOIN pg_index AS i ON c.oid = i.indrelid";
        assert_eq!(rewritten(sql), sql);
    }

    #[test]
    fn operators_collations_and_prefixes_become_plain() {
        assert_eq!(
            rewritten(
                "SELECT pg_catalog.f(c.oid) FROM pg_class c WHERE c.relname OPERATOR(pg_catalog.~) 'x' COLLATE pg_catalog.default"
            ),
            "SELECT f(c.oid) FROM pg_class c WHERE c.relname ~ 'x'"
        );
    }

    #[test]
    fn object_casts_are_names_where_shown_and_numbers_where_compared() {
        assert_eq!(
            rewritten("SELECT c.oid::regclass FROM pg_class c WHERE c.oid = 'w'::regclass"),
            "SELECT henge_regclass_name(c.oid) AS oid FROM pg_class c WHERE c.oid = henge_regclass('w')"
        );
        assert_eq!(rewritten("SELECT 'w'::regclass::pg_catalog.text"), "SELECT henge_regclass_name('w')");
    }

    #[test]
    fn queries_on_data_keep_what_only_looks_like_the_catalogue() {
        let sql = "SELECT page FROM wikipedia WHERE page = (SELECT page FROM other)";
        assert_eq!(rewritten(sql), sql);
    }
}
