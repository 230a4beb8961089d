//! The error words of the whole workspace.
//!
//! An [`Error`] is a report to a person: it goes up with `?` and is not matched on. Outcomes that a caller acts on
//! are small enums of their own operation. The design, and the categories, follow Druid's `DruidException`
//! (`processing/src/main/java/org/apache/druid/error/DruidException.java`).
//!
//! Invariant: a message says what was wrong, where, and what to do, in lower case, without a full stop, names in
//! backquotes. No secrets, no `{:?}`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What every fallible function of the workspace returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure this is, for machines: the server maps it to an HTTP status and an SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Category {
    /// The request itself is wrong; sending it again will fail again.
    InvalidInput,
    /// It is not known who is asking.
    Unauthorized,
    /// It is known who is asking, and they may not.
    Forbidden,
    /// What the request names does not exist.
    NotFound,
    /// The request does not fit the present state, such as a data directory that another process holds.
    Conflict,
    /// A limit on memory, disk, connections or rows was reached.
    CapacityExceeded,
    /// The caller, or an administrator, ended it.
    Canceled,
    /// It took longer than it was allowed to.
    Timeout,
    /// Something that is needed cannot be reached just now.
    ServiceUnavailable,
    /// Henge cannot do this (yet).
    Unsupported,
    /// Something failed while it ran: a disk, a network, a corrupt file.
    RuntimeFailure,
    /// A bug of ours: a state that should be impossible.
    Defensive,
}

/// Whom the message is for. Clients see the messages for users and admins; of the others, an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Persona {
    User,
    Admin,
    Operator,
    Developer,
}

/// A place in the text of a statement, counted from 1 in lines and characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

/// A report to a person. Cheap to move: one pointer.
pub struct Error(Box<Report>);

struct Report {
    category: Category,
    persona: Persona,
    message: Cow<'static, str>,
    context: Vec<(Cow<'static, str>, String)>,
    retryable: bool,
    sqlstate: Option<Cow<'static, str>>,
    position: Option<Position>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A report of `category` for `persona`. The named constructors below read better and choose the usual persona.
    pub fn new(category: Category, persona: Persona, message: impl Into<Cow<'static, str>>) -> Self {
        let retryable =
            matches!(category, Category::ServiceUnavailable | Category::Timeout | Category::CapacityExceeded);
        Self(Box::new(Report {
            category,
            persona,
            message: message.into(),
            context: Vec::new(),
            retryable,
            sqlstate: None,
            position: None,
            hint: None,
            source: None,
        }))
    }

    /// The request is wrong.
    pub fn invalid_input(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::InvalidInput, Persona::User, message)
    }

    /// What the request names does not exist.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::NotFound, Persona::User, message)
    }

    /// The request does not fit the present state.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::Conflict, Persona::User, message)
    }

    /// Henge cannot do this (yet).
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::Unsupported, Persona::User, message)
    }

    /// A limit was reached; the message names it and how to raise it.
    pub fn capacity_exceeded(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::CapacityExceeded, Persona::User, message)
    }

    /// The caller ended it.
    pub fn canceled(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::Canceled, Persona::User, message)
    }

    /// Something failed while it ran, such as a disk or a network; for the operator.
    pub fn runtime_failure(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::RuntimeFailure, Persona::Operator, message)
    }

    /// Bytes that ought to be a segment are not what they say they are. The message names what and where.
    pub fn corrupt(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Category::RuntimeFailure, Persona::Admin, message)
    }

    /// A bug of ours. Panics under test, so that it is found.
    pub fn defensive(message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        if cfg!(test) {
            panic!("defensive: {message}");
        }
        Self::new(Category::Defensive, Persona::Developer, message)
    }

    /// Adds where it happened, such as `("file", path)`. Shown after the message, innermost first.
    #[must_use]
    pub fn context(mut self, key: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.0.context.push((key.into(), value.to_string()));
        self
    }

    /// Adds the failure underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says which of PostgreSQL's five-character codes fits better than the one its category stands for.
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: impl Into<Cow<'static, str>>) -> Self {
        self.0.sqlstate = Some(sqlstate.into());
        self
    }

    /// Says where in the statement's text.
    #[must_use]
    pub fn at(mut self, position: Position) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Says what the person may have meant or can do; a sentence without a full stop.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says for whom the message is.
    #[must_use]
    pub fn for_persona(mut self, persona: Persona) -> Self {
        self.0.persona = persona;
        self
    }

    /// Says whether trying again may help.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// The same report for another reader. The failure underneath is kept as words.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let report = &self.0;
        Self(Box::new(Report {
            category: report.category,
            persona: report.persona,
            message: report.message.clone(),
            context: report.context.clone(),
            retryable: report.retryable,
            sqlstate: report.sqlstate.clone(),
            position: report.position,
            hint: report.hint.clone(),
            source: report.source.as_ref().map(|source| source.to_string().into()),
        }))
    }

    pub fn category(&self) -> Category {
        self.0.category
    }

    pub fn persona(&self) -> Persona {
        self.0.persona
    }

    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The message alone, without context or source.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// PostgreSQL's code, where a narrower one is known than the category's.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// Where in the statement's text, if it is known.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// What the person may have meant or can do.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Where it happened, innermost first.
    pub fn contexts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.context.iter().map(|(key, value)| (key.as_ref(), value.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{key} `{value}`", if i == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        if let Some(Position { line, column }) = self.0.position {
            write!(f, " at line {line}, column {column}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}: {self}", self.0.category, self.0.persona)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_where_and_why() {
        let error = Error::invalid_input("row is not JSON")
            .context("line", 3)
            .context("file", "a.json")
            .with_source(std::io::Error::other("unexpected `}`"));
        assert_eq!(error.to_string(), "row is not JSON (line `3`, file `a.json`): unexpected `}`");
        assert_eq!(error.category(), Category::InvalidInput);
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_report_on_a_statement_points_into_its_text() {
        let error = Error::invalid_input("column `pag` does not exist")
            .with_sqlstate("42703")
            .at(Position { line: 2, column: 8 })
            .with_hint("did you mean `page`?");
        assert_eq!(error.to_string(), "column `pag` does not exist at line 2, column 8; did you mean `page`?");
        assert_eq!(error.sqlstate(), Some("42703"));
    }
}
