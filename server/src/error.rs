//! Categories of errors to HTTP statuses and SQLSTATEs: the only such table.
//!
//! Also decides what a stranger gets to read: the messages for users and admins as they are; of the others an id, by
//! which an operator finds the message in the log.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use henge_engine::error::Persona;
pub use henge_engine::error::{Category, Error, Result};

/// HTTP status and SQLSTATE of a category, where the error itself knows no narrower code.
const CODES: &[(Category, u16, &str)] = &[
    (Category::InvalidInput, 400, "22023"),
    (Category::Unauthorized, 401, "28000"),
    (Category::Forbidden, 403, "42501"),
    (Category::NotFound, 404, "42704"),
    (Category::Conflict, 409, "55006"),
    (Category::CapacityExceeded, 429, "53000"),
    (Category::Canceled, 499, "57014"),
    (Category::Timeout, 504, "57014"),
    (Category::ServiceUnavailable, 503, "57P03"),
    (Category::Unsupported, 501, "0A000"),
    (Category::RuntimeFailure, 500, "58000"),
    (Category::Defensive, 500, "XX000"),
];

fn codes(category: Category) -> (u16, &'static str) {
    CODES.iter().find(|(listed, ..)| *listed == category).map_or((500, "XX000"), |(_, http, state)| (*http, *state))
}

pub fn http_status(error: &Error) -> u16 {
    codes(error.category()).0
}

pub fn sqlstate(error: &Error) -> &str {
    error.sqlstate().unwrap_or_else(|| codes(error.category()).1)
}

/// What a client is told. A message that is not for it is logged here, under the id it gets instead.
pub fn public_message(error: &Error) -> String {
    if matches!(error.persona(), Persona::User | Persona::Admin) {
        return with_context(error);
    }
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    tracing::error!(id, "{error}");
    format!("the server could not do this; its log says why (error {id})")
}

/// Message and places, without the position and the hint, which travel in fields of their own.
fn with_context(error: &Error) -> String {
    let mut text = error.message().to_string();
    for (i, (key, value)) in error.contexts().enumerate() {
        let _ = write!(text, "{}{key} `{value}`", if i == 0 { " (" } else { ", " });
    }
    if error.contexts().next().is_some() {
        text.push(')');
    }
    if let Some(source) = std::error::Error::source(error) {
        let _ = write!(text, ": {source}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_code_wins_over_the_category() {
        assert_eq!(sqlstate(&Error::invalid_input("x")), "22023");
        assert_eq!(sqlstate(&Error::invalid_input("x").with_sqlstate("42703")), "42703");
    }

    #[test]
    fn what_is_for_the_operator_stays_in_the_log() {
        let told = public_message(&Error::runtime_failure("cannot read /secret/path"));
        assert!(!told.contains("secret"), "{told}");
        assert_eq!(public_message(&Error::not_found("no `x`").context("in", "y")), "no `x` (in `y`)");
    }
}
