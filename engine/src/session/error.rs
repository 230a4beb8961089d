//! DataFusion's errors to ours, and back.

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;

use crate::error::{Category, Error, Persona, Position};

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

/// Gets our own error back that went through DataFusion, or classifies one of theirs.
///
/// [`Error::sqlstate`], [`Error::position`] and [`Error::hint`] are filled in where they are known.
pub fn error_from_datafusion(error: DataFusionError) -> Error {
    if is_of_a_full_disk(&error) {
        return full_disk();
    }
    let position = position_of(&error);
    let classified = classify(error);
    match (classified.position(), position) {
        (None, Some(position)) => classified.at(position),
        _ => classified,
    }
}

/// Whether something could not be written for want of room. What fails so in the engine is what queries spill: reports of
/// ours say themselves what was written.
fn is_of_a_full_disk(error: &DataFusionError) -> bool {
    let mut below: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = below {
        if current.is::<Error>() {
            return false;
        }
        if current.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) {
            return true;
        }
        below = current.source();
    }
    false
}

fn full_disk() -> Error {
    Error::capacity_exceeded(
        "the disk for spilled data is full: the query needs more memory than it may have, and more room than there is in \
         the data directory",
    )
    .with_sqlstate("53100")
    .with_hint("make room, raise `--memory-limit`, or ask for less at one time")
}

fn classify(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(source) => external(source),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => classify(*inner),
        DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => classify(inner),
            Err(shared) => copy_of(&shared),
        },
        DataFusionError::Collection(mut errors) if !errors.is_empty() => classify(errors.swap_remove(0)),
        DataFusionError::SQL(error, _) => syntax_error(*error),
        DataFusionError::ArrowError(error, _) => arrow(*error),
        DataFusionError::SchemaError(error, _) => schema(&error),
        DataFusionError::Plan(message) => plan(message),
        DataFusionError::NotImplemented(message) => Error::unsupported(message).with_sqlstate("0A000"),
        DataFusionError::Configuration(message) => Error::invalid_input(message).with_sqlstate("22023"),
        DataFusionError::Execution(message) => execution(message),
        DataFusionError::ResourcesExhausted(message) => exhausted(&message),
        DataFusionError::IoError(error) => Error::runtime_failure("reading or writing failed").with_source(error),
        DataFusionError::ObjectStore(error) => {
            Error::runtime_failure("deep storage could not be read").with_source(*error)
        }
        DataFusionError::Internal(message) => {
            Error::new(Category::Defensive, Persona::Developer, format!("the query engine failed: {message}"))
        }
        other => {
            let message = other.strip_backtrace();
            unmatched(&message).unwrap_or_else(|| Error::runtime_failure(message))
        }
    }
}

/// A call whose arguments no form of the function takes. DataFusion lists what each form wants, type by type.
fn unmatched(message: &str) -> Option<Error> {
    let (_, rest) = message.split_once("Function '")?;
    let (name, rest) = rest.split_once('\'')?;
    let given = rest.split_once("but received ").map(|(_, rest)| rest);
    let given = given.and_then(|rest| rest.split([' ', '(', ',']).next()).unwrap_or("these types").to_lowercase();
    let message = format!("function `{name}` does not take an argument of type {given}; cast it to another");
    rest.contains("failed to match any signature").then(|| Error::invalid_input(message).with_sqlstate("42883"))
}

/// Ours as it was; Arrow's and DataFusion's, wrapped once more, classified; anything else as a failure.
fn external(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match source.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(source) => match source.downcast::<DataFusionError>() {
            Ok(theirs) => error_from_datafusion(*theirs),
            Err(source) => match source.downcast::<ArrowError>() {
                Ok(arrow_error) => arrow(*arrow_error),
                // Of several versions of several crates, which have these words in common.
                Err(source) if source.to_string().starts_with("regex parse error") => {
                    let first = source.to_string().lines().last().unwrap_or_default().to_string();
                    Error::invalid_input(format!("invalid regular expression: {}", first.trim_start_matches("error: ")))
                        .with_sqlstate("2201B")
                }
                Err(source) => Error::runtime_failure("the query failed").with_source(source),
            },
        },
    }
}

/// Of an error that several readers share, a report with the same words. Ours, below, is found by its type.
fn copy_of(error: &DataFusionError) -> Error {
    let mut below: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = below {
        if let Some(ours) = current.downcast_ref::<Error>() {
            return ours.duplicate();
        }
        below = current.source();
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => exhausted(message),
        DataFusionError::Execution(message) => execution(message.clone()),
        DataFusionError::Plan(message) => plan(message.clone()),
        DataFusionError::NotImplemented(message) => Error::unsupported(message.clone()).with_sqlstate("0A000"),
        DataFusionError::ArrowError(error, _) => arrow_copy(error),
        other => Error::runtime_failure(other.strip_backtrace()),
    }
}

fn arrow_copy(error: &ArrowError) -> Error {
    match error {
        ArrowError::DivideByZero => arrow(ArrowError::DivideByZero),
        ArrowError::ArithmeticOverflow(message) => arrow(ArrowError::ArithmeticOverflow(message.clone())),
        ArrowError::CastError(message) => arrow(ArrowError::CastError(message.clone())),
        ArrowError::ParseError(message) => arrow(ArrowError::ParseError(message.clone())),
        other => Error::runtime_failure(other.to_string()),
    }
}

fn arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::DivideByZero => Error::invalid_input("division by zero").with_sqlstate("22012"),
        ArrowError::ArithmeticOverflow(message) => out_of_range(message),
        ArrowError::CastError(message) | ArrowError::ParseError(message) => cast(message),
        ArrowError::ExternalError(source) => external(source),
        ArrowError::NotYetImplemented(message) => Error::unsupported(message).with_sqlstate("0A000"),
        ArrowError::InvalidArgumentError(message) | ArrowError::ComputeError(message) => execution(message),
        ArrowError::OffsetOverflowError(_) => {
            Error::capacity_exceeded("a batch of strings is larger than 2 GB").with_sqlstate("54000")
        }
        other => Error::runtime_failure(other.to_string()),
    }
}

/// `ArithmeticOverflow`'s words are `Overflow happened on: 9223372036854775807 + 1`.
fn out_of_range(message: String) -> Error {
    let what = message.strip_prefix("Overflow happened on: ").map_or(message.clone(), str::to_string);
    Error::invalid_input(format!("number out of range: {what}")).with_sqlstate("22003")
}

/// A cast that did not fit is out of range; one whose text could not be read is invalid text.
fn cast(message: String) -> Error {
    let range = message.starts_with("Can't cast value")
        || message.contains("out of range")
        || message.contains("too large to store")
        || message.contains("Overflow");
    let timestamp = message.contains("timestamp") || message.contains("Timestamp") || message.contains("Date");
    let sqlstate = match (range, timestamp) {
        (true, false) => "22003",
        (true, true) => "22008",
        (false, true) => "22007",
        (false, false) => "22P02",
    };
    Error::invalid_input(lower_first(message)).with_sqlstate(sqlstate)
}

fn schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error =
                Error::invalid_input(format!("column `{}` does not exist", field.flat_name())).with_sqlstate("42703");
            let names = valid_fields.iter().map(|column| column.name.as_str());
            match super::bind::nearest(&field.name, names) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::invalid_input(format!("column `{}` is ambiguous; put its table's name before it", field.name))
                .with_sqlstate("42702")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::invalid_input(format!("two columns are called `{name}`; give one another name with `AS`"))
                .with_sqlstate("42701")
        }
    }
}

/// DataFusion's planning errors carry no code: their words are all there is to go by.
fn plan(message: String) -> Error {
    if let Some(error) = unmatched(&message) {
        return error;
    }
    let lower = message.to_ascii_lowercase();
    let has = |words: &str| lower.contains(words);
    let sqlstate = if lower.starts_with("table") && has("not found") || has("failed to resolve schema") {
        "42P01"
    } else if has("cannot coerce arithmetic expression") || has("for comparison operation") {
        // PostgreSQL says that there is no such operator.
        "42883"
    } else if has("invalid function") || has("no function matches") || has("table function") && has("not found") {
        "42883"
    } else if has("must be in the group by") || has("must appear in the group by") || has("not in group by") {
        "42803"
    } else if has("cannot coerce") || has("cannot infer common") || has("failed to coerce") || has("does not support") {
        "42804"
    } else if has("ambiguous") {
        "42702"
    } else {
        "42000"
    };
    Error::invalid_input(lower_first(first_line(message))).with_sqlstate(sqlstate)
}

fn execution(message: String) -> Error {
    let lower = message.to_ascii_lowercase();
    let sqlstate = if lower.contains("overflow") || lower.contains("out of range") {
        "22003"
    } else if lower.contains("divide by zero") || lower.contains("division by zero") {
        "22012"
    } else if lower.contains("timestamp") || lower.contains("parsing") && lower.contains("date") {
        "22007"
    } else if lower.contains("regular expression") || lower.contains("regex") {
        "2201B"
    } else {
        "22000"
    };
    Error::invalid_input(lower_first(message)).with_sqlstate(sqlstate)
}

fn exhausted(message: &str) -> Error {
    let disk = message.contains("disk") || message.contains("temp");
    let (what, sqlstate) = if disk { ("disk space to spill to", "53100") } else { ("memory", "53200") };
    Error::capacity_exceeded(format!("the query needs more {what} than it may use: {message}")).with_sqlstate(sqlstate)
}

/// The parser's words end in ` at Line: 1, Column: 8`, which becomes the error's position.
pub(super) fn syntax_error(error: ParserError) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return Error::invalid_input("the statement nests too deeply").with_sqlstate("54001");
        }
    };
    let (words, position) = split_position(&message);
    let error = Error::invalid_input(syntax_words(words)).with_sqlstate("42601");
    match position {
        Some(position) => error.at(position),
        None => error,
    }
}

/// `Expected: x, found: y` as PostgreSQL begins it, which tools read.
fn syntax_words(words: &str) -> String {
    let parts = words.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: "));
    match parts {
        Some((expected, "EOF")) => format!("syntax error at end of input: expected {expected}"),
        Some((expected, found)) => format!("syntax error at or near `{found}`: expected {expected}"),
        None => format!("syntax error: {}", lower_first(words.to_string())),
    }
}

fn split_position(message: &str) -> (&str, Option<Position>) {
    let Some((words, place)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (message, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (words, Some(Position { line, column })),
        _ => (message, None),
    }
}

fn position_of(error: &DataFusionError) -> Option<Position> {
    let span = error.diagnostic()?.span?;
    (span.start.line > 0).then_some(Position { line: span.start.line, column: span.start.column })
}

fn first_line(message: String) -> String {
    message.lines().next().map(str::to_string).unwrap_or(message)
}

fn lower_first(message: String) -> String {
    let mut letters = message.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(std::iter::once(second)).chain(letters).collect()
        }
        _ => message,
    }
}
