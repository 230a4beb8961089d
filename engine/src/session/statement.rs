//! Text to statements, and which statements a session plans.

use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use std::ops::ControlFlow;

use super::depth;
use super::dialect::Postgres;
use super::error::syntax_error;
use crate::error::{Category, Error, Persona, Result};

/// How deep expressions and queries may nest.
const RECURSION_LIMIT: usize = 128;

/// The statements of a text.
pub(super) fn parse(sql: &str) -> Result<Vec<Statement>> {
    let dialect = Postgres;
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| syntax_error(error.into()))?;
    depth::check(tokens.iter().map(|token| &token.token))?;
    Parser::new(&dialect)
        .with_recursion_limit(RECURSION_LIMIT)
        .with_tokens_with_locations(without_plan_for(tokens))
        .parse_statements()
        .map_err(syntax_error)
}

/// Druid's `EXPLAIN PLAN FOR …` is PostgreSQL's `EXPLAIN …`.
fn without_plan_for(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let words: Vec<usize> =
        (0..tokens.len()).filter(|&i| !matches!(tokens[i].token, Token::Whitespace(_))).take(3).collect();
    let is = |i: usize, keyword: &str| matches!(&tokens[i].token, Token::Word(word) if word.value.eq_ignore_ascii_case(keyword));
    if let [explain, plan, for_] = words[..]
        && matches!(&tokens[explain].token, Token::Word(word) if word.keyword == Keyword::EXPLAIN)
        && is(plan, "plan")
        && is(for_, "for")
    {
        tokens.drain(plan..=for_);
    }
    tokens
}

/// Refuses what is not a query or its explanation, unless it is about the session's `own` tables and views.
pub(super) fn check(statement: &Statement, own: bool) -> Result<()> {
    match statement {
        _ if own => check_queries(statement),
        Statement::Query(_) => check_queries(statement),
        Statement::Explain { statement, .. } => check(statement, false),
        Statement::ExplainTable { .. } => Ok(()),
        Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint { .. }
        | Statement::ReleaseSavepoint { .. } => Err(Error::unsupported("there are no transactions here")),
        other => Err(refused(&verb(other))),
    }
}

/// Finds statements that write where a query is expected, as in `WITH gone AS (DELETE …) SELECT …`.
fn check_queries(statement: &Statement) -> Result<()> {
    struct Writes;
    impl Visitor for Writes {
        type Break = String;

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
            match query.body.as_ref() {
                SetExpr::Insert(write) | SetExpr::Update(write) | SetExpr::Delete(write) | SetExpr::Merge(write) => {
                    ControlFlow::Break(verb(write))
                }
                SetExpr::Select(select) if select.into.is_some() => ControlFlow::Break("SELECT INTO".to_string()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match statement.visit(&mut Writes) {
        ControlFlow::Break(verb) => Err(refused(&verb)),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn verb(statement: &Statement) -> String {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    match words.as_slice() {
        [first @ ("CREATE" | "ALTER" | "DROP" | "INSERT" | "DELETE"), second] => format!("{first} {second}"),
        [first, ..] => (*first).to_string(),
        [] => "this".to_string(),
    }
}

fn refused(verb: &str) -> Error {
    Error::new(
        Category::Forbidden,
        Persona::User,
        format!(
            "`{verb}` is not allowed here: SQL reads data sources and, on the PostgreSQL port, adds rows to them by `INSERT` \
             and `COPY`; for all else there are `henge ingest` and the HTTP interface"
        ),
    )
    .with_sqlstate("0A000")
}
