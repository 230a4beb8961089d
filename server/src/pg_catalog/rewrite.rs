//! Queries that PostgreSQL's tools send about the catalogue, made into ones that DataFusion plans.
//!
//! Everywhere: the prefix `pg_catalog.` of functions and types is dropped, casts to `regclass` and its like become
//! functions, `OPERATOR(pg_catalog.~)` becomes `~`. Only in queries over `pg_…` tables: a SELECT over a table that is
//! always empty gives no rows whatever else it says, so nothing else of it is planned; COLLATE is dropped, since all
//! our text compares alike; and a scalar subquery, which here looks one row up by its key, is told to give one row.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, FunctionArguments, GroupByExpr, Ident,
    JoinOperator, ObjectName, ObjectNamePart, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableFactor,
    TableWithJoins, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use henge_engine::Result;
use henge_engine::session::StatementRewriter;

use super::{SCHEMA, column, function, row};

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

fn last_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase()).unwrap_or_default()
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
fn aggregates(item: &SelectItem) -> bool {
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

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn is_empty_query(query: &Query) -> bool {
    query.with.is_none() && matches!(query.body.as_ref(), SetExpr::Select(select) if is_empty(select))
}

/// What reads always-empty tables, without reading them.
struct EmptyTables;

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

fn label(expr: &Expr) -> Ident {
    match expr {
        Expr::Identifier(name) => name.clone(),
        Expr::CompoundIdentifier(names) => names.last().cloned().unwrap_or_else(|| Ident::new("?column?")),
        Expr::Function(function) => Ident::new(last_name(&function.name)),
        Expr::Cast { expr, .. } => label(expr),
        _ => Ident::with_quote('"', "?column?"),
    }
}

fn empty_array() -> Expr {
    let array = Expr::Array(Array { elem: Vec::new(), named: true });
    let text = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None));
    Expr::Cast { kind: CastKind::DoubleColon, expr: Box::new(array), data_type: text, array: false, format: None }
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

/// The spelling of names, types and operators.
struct Spelling {
    in_catalog: bool,
}

impl VisitorMut for Spelling {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        // What a `regclass` shows as is its name.
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(name) = maybe_name(expr)
            {
                // Shown as what it is called, so set aside from what is compared by number.
                let alias = label(expr);
                let shown = call(name, argument(expr));
                *item = SelectItem::ExprWithAlias { expr: shown, alias };
            } else if let SelectItem::ExprWithAlias { expr, .. } = item
                && let Some(name) = maybe_name(expr)
            {
                *expr = call(name, argument(expr));
            }
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                && let Expr::Cast { expr: inner, data_type, .. } = expr
                && let Some((name, _)) = object_cast(data_type)
            {
                let alias = match inner.as_ref() {
                    Expr::Value(_) => Ident::new(type_name(data_type).unwrap_or_default()),
                    inner => label(inner),
                };
                *expr = call(name, inner.as_ref().clone());
                if let SelectItem::UnnamedExpr(expr) = item {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => {
                drop_schema(&mut function.name);
                number_of_maybe(function);
            }
            Expr::BinaryOp { left, op, right } if self.in_catalog && compares(op) => {
                routine_literal(left, right);
                routine_literal(right, left);
            }
            Expr::Collate { expr: inner, .. } if self.in_catalog => *expr = inner.as_ref().clone(),
            Expr::BinaryOp { op, .. } => plain_operator(op),
            Expr::Cast { .. } => cast(expr),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args, .. } = factor
            && args.is_some()
        {
            drop_schema(name);
            // A table here, since it is the same always.
            if last_name(name) == "pg_get_keywords" {
                *args = None;
            }
        }
        ControlFlow::Continue(())
    }
}

/// `to_regclass(x)` and `to_regtype(x)` by name, if it is one of them.
fn maybe_name(expr: &Expr) -> Option<&'static str> {
    let Expr::Function(function) = expr else { return None };
    match last_name(&function.name).as_str() {
        "to_regclass" => Some(function::TO_REGCLASS_NAME),
        "to_regtype" => Some(function::TO_REGTYPE_NAME),
        _ => None,
    }
}

fn argument(expr: &Expr) -> Expr {
    use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr};
    match expr {
        Expr::Function(function) => match &function.args {
            FunctionArguments::List(list) => match list.args.first() {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) => argument.clone(),
                _ => null(),
            },
            _ => null(),
        },
        _ => null(),
    }
}

/// Elsewhere than in a select list they are numbers.
fn number_of_maybe(function: &mut datafusion::sql::sqlparser::ast::Function) {
    let number = match last_name(&function.name).as_str() {
        "to_regclass" => function::REGCLASS_OID,
        "to_regtype" => function::REGTYPE_OID,
        _ => return,
    };
    function.name = ObjectName::from(vec![Ident::new(number)]);
}

fn compares(operator: &BinaryOperator) -> bool {
    matches!(operator, BinaryOperator::Eq | BinaryOperator::NotEq)
}

/// Columns of type `regproc`, which are numbers and shown by name.
const ROUTINES: &[&str] = &["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"];

fn is_routine(expr: &Expr) -> bool {
    let name = match expr {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(names) => match names.last() {
            Some(name) => name,
            None => return false,
        },
        _ => return false,
    };
    ROUTINES.iter().any(|known| known.eq_ignore_ascii_case(&name.value))
}

/// `typinput = 'array_in'` compares numbers.
fn routine_literal(column: &Expr, literal: &mut Expr) {
    if is_routine(column)
        && let Expr::Value(value) = &*literal
        && matches!(value.value, Value::SingleQuotedString(_))
    {
        *literal = call(function::REGPROC_OID, literal.clone());
    }
}

fn drop_schema(name: &mut ObjectName) {
    if let [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(_)] = name.0.as_slice()
        && schema.value.eq_ignore_ascii_case(SCHEMA)
    {
        name.0.remove(0);
    }
}

fn plain_operator(operator: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(parts) = operator else { return };
    let plain = match parts.last().map(String::as_str) {
        Some("~") => BinaryOperator::PGRegexMatch,
        Some("!~") => BinaryOperator::PGRegexNotMatch,
        Some("~*") => BinaryOperator::PGRegexIMatch,
        Some("!~*") => BinaryOperator::PGRegexNotIMatch,
        Some("~~") => BinaryOperator::PGLikeMatch,
        Some("!~~") => BinaryOperator::PGNotLikeMatch,
        Some("=") => BinaryOperator::Eq,
        Some("<>") => BinaryOperator::NotEq,
        Some("||") => BinaryOperator::StringConcat,
        _ => return,
    };
    *operator = plain;
}

/// The functions behind a cast to a kind of object: to its name, and to its number.
fn object_cast(data_type: &DataType) -> Option<(&'static str, &'static str)> {
    match type_name(data_type)?.as_str() {
        "regclass" => Some((function::REGCLASS_NAME, function::REGCLASS_OID)),
        "regtype" => Some((function::REGTYPE_NAME, function::REGTYPE_OID)),
        "regnamespace" => Some((function::REGNAMESPACE_NAME, function::REGNAMESPACE_NAME)),
        "regproc" | "regprocedure" => Some((function::REGPROC_NAME, function::REGPROC_OID)),
        _ => None,
    }
}

fn type_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Regclass => Some("regclass".to_string()),
        DataType::Custom(name, _) => Some(last_name(name)),
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(_))
        || type_name(data_type).is_some_and(|name| matches!(name.as_str(), "text" | "name" | "varchar"))
}

/// `x::regclass::text` is a name, `x::regclass` elsewhere a number; other types of the catalogue are text or numbers.
fn cast(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    if is_text(data_type)
        && let Expr::Cast { expr: object, data_type: kind, .. } = inner.as_ref()
        && let Some((name, _)) = object_cast(kind)
    {
        *expr = call(name, object.as_ref().clone());
        return;
    }
    if is_text(data_type) && is_routine(inner) {
        *expr = call(function::REGPROC_NAME, inner.as_ref().clone());
        return;
    }
    if is_text(data_type)
        && let Some(name) = maybe_name(inner)
    {
        *expr = Expr::Nested(Box::new(call(name, argument(inner))));
        return;
    }
    if let Some((_, number)) = object_cast(data_type) {
        *expr = call(number, inner.as_ref().clone());
        return;
    }
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(item, _)) = data_type
        && type_name(item).is_some_and(|name| matches!(name.as_str(), "oid" | "regclass" | "regtype" | "xid"))
    {
        **item = DataType::BigInt(None);
        return;
    }
    let plain = match type_name(data_type).as_deref() {
        Some("oid" | "xid" | "int8") => DataType::BigInt(None),
        Some("int4") => DataType::Int(None),
        Some("int2") => DataType::SmallInt(None),
        Some("bool") => DataType::Boolean,
        Some("text" | "name" | "char" | "regoper" | "regrole" | "cstring" | "varchar") => DataType::Text,
        _ => return,
    };
    *data_type = plain;
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
