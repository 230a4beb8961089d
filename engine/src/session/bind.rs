//! Names to columns, tables and aliases: the exact name first, then a unique one that differs only in case.
//!
//! Walks the syntax tree with real scopes (`FROM`, correlated subqueries, `WITH`, aliases of the select list) and writes
//! every name as its column, table or alias is spelled, quoted, so that the planner has nothing left to guess. Columns are
//! written with their table's name, so that an alias of the select list never catches one by accident. A word of SQL that
//! is a column in scope (`user`) becomes that column. Expressions without an alias get PostgreSQL's label,
//! or Druid's.
//!
//! Invariant: what a relation of unknown columns may hold (a table function) is left as typed, never refused here.

mod expression;
mod label;
mod otherwise;
mod query;
mod relation;
mod scope;
mod table;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{CreateTable, CreateView, Ident, Insert, Statement};
use datafusion::sql::sqlparser::tokenizer::Span;

use self::query::Binder;
use self::table::Tables;
use super::{HengeOptions, SessionOptions};
use crate::error::{Error, Position, Result};

/// Binds every name of a statement. Answers what the columns of a query are called, where that is known.
pub(super) async fn bind(
    statement: &mut Statement,
    state: &SessionState,
    options: &SessionOptions,
) -> Result<Option<Vec<String>>> {
    let tables = Tables::look_up(statement, state, options).await?;
    let dialect = HengeOptions::of(state.config_options()).dialect;
    let mut binder = Binder::new(&tables, &options.user, dialect);
    match statement {
        Statement::Query(query) => {
            let outputs = binder.query(query)?;
            Ok(outputs.map(|outputs| outputs.into_iter().map(|output| output.label).collect()))
        }
        Statement::Explain { statement, .. } => {
            if let Statement::Query(query) = statement.as_mut() {
                binder.query(query)?;
            }
            Ok(None)
        }
        Statement::ExplainTable { table_name, .. } => {
            binder.table_name(table_name)?;
            Ok(None)
        }
        // Of the session's own tables and views only the queries that fill them hold names to bind.
        Statement::CreateTable(CreateTable { query: Some(query), .. })
        | Statement::CreateView(CreateView { query, .. })
        | Statement::Insert(Insert { source: Some(query), .. }) => {
            binder.query(query)?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// What a name was found to be among some candidates.
pub(super) enum Match<T> {
    One(T),
    Many(Vec<T>),
    None,
}

/// The candidates whose name is `wanted`, or else those whose name differs from it only in case.
pub(super) fn find<T>(
    wanted: &str,
    candidates: impl Iterator<Item = T> + Clone,
    name: impl Fn(&T) -> &str,
) -> Match<T> {
    let mut found: Vec<T> = candidates.clone().filter(|candidate| name(candidate) == wanted).collect();
    if found.is_empty() {
        let folded = wanted.to_lowercase();
        found = candidates.filter(|candidate| name(candidate).to_lowercase() == folded).collect();
    }
    match found.len() {
        0 => Match::None,
        1 => Match::One(found.swap_remove(0)),
        _ => Match::Many(found),
    }
}

/// A name as it is spelled, where another was written.
fn spelled(name: &str, written: &Ident) -> Ident {
    Ident { value: name.to_string(), quote_style: Some('"'), span: written.span }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn position(span: Span) -> Option<Position> {
    (span.start.line > 0).then_some(Position { line: span.start.line, column: span.start.column })
}

/// `error`, pointing at `ident`.
fn at(error: Error, ident: &Ident) -> Error {
    match position(ident.span) {
        Some(position) => error.at(position),
        None => error,
    }
}

/// The name that `wanted` is most likely a slip of.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    names
        .map(|name| {
            let folded = name.to_lowercase();
            (datafusion::common::utils::datafusion_strsim::levenshtein(&wanted, &folded), name)
        })
        .filter(|(distance, name)| *distance <= name.len().max(wanted.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name)
}
