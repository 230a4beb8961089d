//! Errors and notices as a client gets them.

use bytes::BytesMut;
use henge_engine::Error;
use henge_engine::error::Position;
use henge_engine::error::{Category, Persona};
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

use crate::error::{public_message, sqlstate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    /// The connection ends with it.
    Fatal,
}

/// Where a statement stands in the text that the client sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) sql: &'a str,
    /// Characters before it.
    pub(super) offset: usize,
}

pub(super) fn put_error(error: &Error, severity: Severity, origin: Option<Origin<'_>>, out: &mut BytesMut) {
    let severity = if severity == Severity::Fatal { "FATAL" } else { "ERROR" };
    let code = sqlstate(error);
    let mut fields = fields(severity, code, familiar(code, public_message(error)));
    if let Some(hint) = error.hint() {
        fields.push((b'H', hint.to_string()));
    }
    if let (Some(position), Some(origin)) = (error.position(), origin) {
        fields.push((b'P', (character(position, origin.sql) + origin.offset).to_string()));
    }
    if ErrorResponse::new(fields).encode(out).is_err() {
        // Only a message of megabytes is too long to send.
        let short = self::fields(severity, sqlstate(error), "the error message is too long to send".to_string());
        let _ = ErrorResponse::new(short).encode(out);
    }
}

/// About names and syntax the words that PostgreSQL has for it: tools look for them, and for names in double quotes.
fn familiar(sqlstate: &str, message: String) -> String {
    match sqlstate {
        "42P01" => message.replacen("table `", "relation `", 1).replace('`', "\""),
        "42601" | "42701" | "42702" | "42703" | "42803" | "42883" | "42P07" => message.replace('`', "\""),
        _ => message,
    }
}

pub(super) fn put_notice(severity: &str, sqlstate: &str, message: &str, out: &mut BytesMut) {
    // Cannot fail: the messages are short.
    let _ = NoticeResponse::new(fields(severity, sqlstate, message.to_string())).encode(out);
}

fn fields(severity: &str, sqlstate: &str, message: String) -> Vec<(u8, String)> {
    let message = message.replace('\0', "");
    vec![(b'S', severity.to_string()), (b'V', severity.to_string()), (b'C', sqlstate.to_string()), (b'M', message)]
}

/// The character (from 1) at a line and column.
fn character(position: Position, sql: &str) -> usize {
    let before = sql.split_inclusive('\n').take(position.line.saturating_sub(1) as usize);
    before.map(|line| line.chars().count()).sum::<usize>() + position.column as usize
}

pub(super) fn protocol_violation(words: &str) -> Error {
    Error::invalid_input(words.to_string()).with_sqlstate("08P01")
}

pub(super) fn canceled() -> Error {
    Error::canceled("canceling statement due to user request").with_sqlstate("57014")
}

pub(super) fn timed_out() -> Error {
    Error::new(Category::Timeout, Persona::User, "canceling statement due to statement timeout").with_sqlstate("57014")
}

pub(super) fn failed_transaction() -> Error {
    Error::conflict("current transaction is aborted, commands ignored until end of transaction block")
        .with_sqlstate("25P02")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_as_tools_look_for_them() {
        let cases = [
            ("42P01", "table `t` does not exist", "relation \"t\" does not exist"),
            ("42703", "column `c` does not exist", "column \"c\" does not exist"),
            ("22023", "`x` is no zone", "`x` is no zone"),
        ];
        for (code, ours, theirs) in cases {
            assert_eq!(familiar(code, ours.to_string()), theirs);
        }
    }

    #[test]
    fn positions_count_characters_over_lines_and_earlier_statements() {
        let error = Error::invalid_input("x").at(Position { line: 2, column: 3 });
        let mut out = BytesMut::new();
        put_error(&error, Severity::Error, Some(Origin { sql: "sé\n  nope", offset: 10 }), &mut out);
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("P16\0"), "{text:?}");
    }
}
