//! PostgreSQL's and Druid's spellings that DataFusion's planner does not take, rewritten in the syntax tree.

mod array;
mod rows;
mod subquery;
mod ties;

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, DuplicateTreatment, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, LimitClause, ObjectName,
    ObjectNamePart, OrderByExpr, OrderByOptions, Query, Select, SetExpr, Statement, TableFactor, UnaryOperator, Value,
    VisitMut, VisitorMut,
};

use super::{HengeOptions, SqlDialect};
use crate::error::{Error, Result};

/// Rewrites a statement of a session that knows the functions of `state`.
pub(super) fn rewrite(statement: &mut Statement, settings: &HengeOptions, state: &SessionState) -> Result<()> {
    match statement.visit(&mut Rewrite { settings, state }) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewrite<'a> {
    settings: &'a HengeOptions,
    state: &'a SessionState,
}

impl VisitorMut for Rewrite<'_> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Error>> {
        whole_table(query);
        subquery::in_order(query);
        match fetch_first(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Box<Error>> {
        match table {
            // The planner would pass it over, and the answer be of all rows.
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                let error = Error::unsupported("`TABLESAMPLE` is not supported; use `WHERE random() < 0.1`");
                ControlFlow::Break(Box::new(error.with_sqlstate("0A000")))
            }
            table => {
                rows::from_function(table, self.state);
                rows::values_of_columns(table);
                ControlFlow::Continue(())
            }
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Error>> {
        for item in &mut select.projection {
            rows::keep_label(item);
            subquery::in_list(item, self.state);
        }
        if let Some(condition) = &mut select.selection {
            subquery::in_cases(condition, self.state);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        match self.expression(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

impl Rewrite<'_> {
    fn expression(&self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Floor { expr: time, field: CeilFloorKind::DateTimeField(field) } => {
                if let Some(period) = period(field)? {
                    let args = vec![take(time), string(period)];
                    *expr = call("time_floor", args);
                }
            }
            Expr::Ceil { expr: time, field: CeilFloorKind::DateTimeField(field) } => {
                if let Some(period) = period(field)? {
                    let args = vec![take(time), string(period)];
                    *expr = call("time_ceil", args);
                }
            }
            // There is one collation: by code point.
            Expr::Collate { expr: inner, .. } => *expr = take(inner),
            Expr::BinaryOp { op, .. } => operator(op),
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. }
                if self.settings.dialect == SqlDialect::PostgreSql && is_integer(data_type) =>
            {
                round_literal(inner);
            }
            Expr::Cast { expr: inner, data_type: DataType::Bytea, .. } => hexadecimal(inner)?,
            Expr::Function(function) if array::is_of_query(function) => *expr = array::of_query(function, self.state)?,
            Expr::Function(function) if rows::is_set(function) => *expr = rows::unnested(function),
            Expr::Function(function) if self.settings.dialect == SqlDialect::PostgreSql => {
                match rows::seconds_of(function).cloned() {
                    Some(time) => *expr = rows::extract_seconds(time),
                    None => self.function(function)?,
                }
            }
            Expr::Function(function) => self.function(function)?,
            _ => {}
        }
        Ok(())
    }

    fn function(&self, function: &mut Function) -> Result<()> {
        function_call(function)?;
        if self.settings.approximate_count_distinct {
            count_approximately(function);
        }
        Ok(())
    }
}

/// `TABLE t` is `SELECT * FROM t`.
fn whole_table(query: &mut Query) {
    let SetExpr::Table(table) = query.body.as_ref() else { return };
    let names = [&table.schema_name, &table.table_name].into_iter().flatten();
    let names: Vec<String> = names.map(|name| Ident::with_quote('"', name).to_string()).collect();
    if let Some(select) = select_of(&format!("SELECT * FROM {}", names.join("."))) {
        *query.body = select;
    }
}

/// A query of our own as a syntax tree.
fn select_of(sql: &str) -> Option<SetExpr> {
    match super::statement::parse(sql).ok()?.pop()? {
        Statement::Query(query) => Some(*query.body),
        _ => None,
    }
}

/// A query to put another body into.
fn query_of_one() -> Option<Query> {
    match super::statement::parse("SELECT 1").ok()?.pop()? {
        Statement::Query(query) => Some(*query),
        _ => None,
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetch_first(query: &mut Query) -> Result<()> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.percent {
        return Err(Error::unsupported("`FETCH FIRST … PERCENT` is not supported").with_sqlstate("0A000"));
    }
    let rows = fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_string(), false)));
    if fetch.with_ties {
        return ties::keep(query, rows);
    }
    let rows = Some(rows);
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = rows,
        None => query.limit_clause = Some(LimitClause::LimitOffset { limit: rows, offset: None, limit_by: Vec::new() }),
        Some(_) => {
            return Err(Error::invalid_input("a query takes `LIMIT` or `FETCH`, not both").with_sqlstate("42601"));
        }
    }
    Ok(())
}

/// `HOUR` as the period of `TIME_FLOOR`; nothing for plain `FLOOR(x)`.
fn period(field: &DateTimeField) -> Result<Option<&'static str>> {
    Ok(Some(match field {
        DateTimeField::NoDateTime => return Ok(None),
        DateTimeField::Second => "PT1S",
        DateTimeField::Minute => "PT1M",
        DateTimeField::Hour => "PT1H",
        DateTimeField::Day => "P1D",
        DateTimeField::Week(None) => "P1W",
        DateTimeField::Month => "P1M",
        DateTimeField::Quarter => "P3M",
        DateTimeField::Year => "P1Y",
        other => {
            let message =
                format!("time cannot be cut to `{other}`; use SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR");
            return Err(Error::invalid_input(message).with_sqlstate("22023"));
        }
    }))
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn operator(op: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(path) = op else { return };
    let plain = match path.last().map(String::as_str) {
        Some("~") => BinaryOperator::PGRegexMatch,
        Some("~*") => BinaryOperator::PGRegexIMatch,
        Some("!~") => BinaryOperator::PGRegexNotMatch,
        Some("!~*") => BinaryOperator::PGRegexNotIMatch,
        Some("=") => BinaryOperator::Eq,
        Some("<>") => BinaryOperator::NotEq,
        Some("<") => BinaryOperator::Lt,
        Some("<=") => BinaryOperator::LtEq,
        Some(">") => BinaryOperator::Gt,
        Some(">=") => BinaryOperator::GtEq,
        Some("+") => BinaryOperator::Plus,
        Some("-") => BinaryOperator::Minus,
        Some("||") => BinaryOperator::StringConcat,
        _ => return,
    };
    *op = plain;
}

fn function_call(function: &mut Function) -> Result<()> {
    if let [schema, _] = function.name.0.as_slice()
        && schema.as_ident().is_some_and(|schema| schema.value.eq_ignore_ascii_case("pg_catalog"))
    {
        function.name.0.remove(0);
    }
    let name = function.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    for arg in &mut list.args {
        name_plainly(arg);
    }
    match name.as_str() {
        // Their first argument is a word, not a column.
        "timestampadd" | "timestampdiff" => {
            if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(unit))) = list.args.first_mut()
                && let Expr::Identifier(ident) = unit
            {
                *unit = string(&ident.value.clone());
            }
        }
        // Their second argument is Druid's limit of bytes for a string.
        "earliest" | "latest" if !list.args.is_empty() => {
            list.args.truncate(1);
            order_by(list, Expr::Identifier(Ident::new("__time")));
        }
        "earliest_by" | "latest_by" if list.args.len() >= 2 => {
            let time = list.args.swap_remove(1);
            list.args.truncate(1);
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(time)) = time {
                order_by(list, time);
            }
        }
        _ => {}
    }
    Ok(())
}

/// `COUNT(DISTINCT x)` is `APPROX_COUNT_DISTINCT(x)`.
fn count_approximately(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    let is_count = function.name.to_string().eq_ignore_ascii_case("count");
    if is_count && list.duplicate_treatment == Some(DuplicateTreatment::Distinct) && list.args.len() == 1 {
        list.duplicate_treatment = None;
        function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("approx_count_distinct"))]);
    }
}

/// `f(x ORDER BY time)`.
fn order_by(list: &mut FunctionArgumentList, time: Expr) {
    let options = OrderByOptions { asc: None, nulls_first: None };
    let item = OrderByExpr { expr: time, options, with_fill: None };
    list.clauses.push(FunctionArgumentClause::OrderBy(vec![item]));
}

/// `f(a => 1)`: `a` is a name, no column.
fn name_plainly(arg: &mut FunctionArg) {
    if let FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: value, operator } = arg {
        *arg = FunctionArg::Named { name: name.clone(), arg: value.clone(), operator: operator.clone() };
    }
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::BigInt(_)
            | DataType::Int8(_)
            | DataType::Int(_)
            | DataType::Integer(_)
            | DataType::Int4(_)
            | DataType::SmallInt(_)
            | DataType::Int2(_)
    )
}

/// A literal with a fraction is `numeric` to PostgreSQL, which rounds half away from zero; the planner takes it for
/// floating point, which is rounded half to even.
fn round_literal(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) | Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr: inner } => {
            round_literal(inner);
        }
        Expr::Value(value) => {
            if let Value::Number(text, _) = &mut value.value
                && let Some(rounded) = rounded(text)
            {
                *text = rounded;
            }
        }
        _ => {}
    }
}

/// `'\x6162'` as bytes is their hexadecimal form; the planner would take the letters themselves.
fn hexadecimal(expr: &mut Expr) -> Result<()> {
    let Expr::Value(value) = expr else { return Ok(()) };
    let Value::SingleQuotedString(text) = &value.value else { return Ok(()) };
    let Some(digits) = text.strip_prefix("\\x") else { return Ok(()) };
    if digits.len() % 2 != 0 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Error::invalid_input(format!("invalid hexadecimal data: `{text}`")).with_sqlstate("22023"));
    }
    value.value = Value::HexStringLiteral(digits.to_owned());
    Ok(())
}

fn rounded(text: &str) -> Option<String> {
    let (whole, fraction) = text.split_once('.')?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let up = fraction.as_bytes().first().is_some_and(|digit| *digit >= b'5');
    Some((whole + i128::from(up)).to_string())
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(Value::Null))
}

fn string(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.to_string()))
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
