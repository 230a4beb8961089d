//! The text of a client's message to statements, and what each asks of the connection.
//!
//! Queries go to the session, whose parser decides what they mean. What is about the connection itself (transactions,
//! settings, cursors, prepared statements, COPY) is recognised here by its first words, since only the connection can
//! do it.

mod copy;
mod reader;

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use henge_engine::error::Position;
use henge_engine::{Error, Result};

use self::copy::copy;
use self::reader::{Places, Reader};

/// One statement of a text.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) sql: String,
    /// Characters before it in the text it came in.
    pub(super) offset: usize,
    pub(super) command: Command,
}

/// What a statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A query, or something that the session refuses.
    Session,
    Begin,
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    /// Accepted, and without effect here: `SET TRANSACTION …`, `LISTEN`, `UNLISTEN`.
    Accept(&'static str),
    Show(String),
    Reset(Option<String>),
    Discard(&'static str),
    Deallocate(Option<String>),
    Prepare {
        name: String,
        types: Vec<String>,
        sql: String,
    },
    Execute {
        name: String,
        arguments: String,
    },
    Declare {
        name: String,
        hold: bool,
        sql: String,
    },
    Fetch {
        name: String,
        count: Count,
        moves: bool,
    },
    Close(Option<String>),
    Copy(Copy),
    CopyIn(CopyIn),
}

/// How far a cursor moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    All,
    Rows(usize),
}

/// `COPY … FROM STDIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopyIn {
    /// A query of the columns that are copied, in their order.
    pub(super) query: String,
    pub(super) table: String,
    pub(super) format: CopyFormat,
    pub(super) header: bool,
    pub(super) delimiter: u8,
    pub(super) null: String,
}

/// `COPY … TO STDOUT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) query: String,
    pub(super) format: CopyFormat,
    pub(super) header: bool,
    pub(super) delimiter: u8,
    pub(super) null: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// The statements of `text`, in order. Comments and empty statements give none.
pub(super) fn split(text: &str) -> Result<Vec<Piece>> {
    let tokens = tokens(text)?;
    let mut places = Places::new(text);
    let mut pieces = Vec::new();
    for group in tokens.split(|token| token.token == Token::SemiColon) {
        let [first, .., last] = group else {
            if let [only] = group {
                pieces.push(piece(text, group, places.range(only.span.start, only.span.end))?);
            }
            continue;
        };
        let range = places.range(first.span.start, last.span.end);
        pieces.push(piece(text, group, range)?);
    }
    Ok(pieces)
}

fn tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().map_err(|error| {
        Error::invalid_input(format!("syntax error: {}", error.message))
            .with_sqlstate("42601")
            .at(Position { line: error.location.line, column: error.location.column })
    })?;
    Ok(tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect())
}

fn piece(text: &str, tokens: &[TokenWithSpan], range: Range<(usize, usize)>) -> Result<Piece> {
    let (start, end) = (range.start, range.end);
    let sql = text[start.0..end.0].to_string();
    let reader = Reader { text, tokens, at: 0 };
    Ok(Piece { sql, offset: start.1, command: command(reader)? })
}

fn command(mut reader: Reader<'_>) -> Result<Command> {
    let Some(Token::Word(first)) = reader.next() else { return Ok(Command::Session) };
    if first.quote_style.is_some() {
        return Ok(Command::Session);
    }
    Ok(match first.value.to_ascii_uppercase().as_str() {
        "BEGIN" | "START" => Command::Begin,
        "COMMIT" | "END" => Command::Commit { chain: chained(&mut reader) },
        "ABORT" => Command::Rollback { chain: chained(&mut reader) },
        "ROLLBACK" => rollback(&mut reader)?,
        "SAVEPOINT" => Command::Savepoint(reader.name()?),
        "RELEASE" => {
            reader.eat("SAVEPOINT");
            Command::Release(reader.name()?)
        }
        "SET" => set(&mut reader)?,
        "SHOW" => show(&mut reader)?,
        "RESET" => reset(&mut reader)?,
        "DISCARD" => discard(&mut reader)?,
        "DEALLOCATE" => {
            reader.eat("PREPARE");
            Command::Deallocate(if reader.eat("ALL") { None } else { Some(reader.name()?) })
        }
        "PREPARE" => prepare(&mut reader)?,
        "EXECUTE" => execute(&mut reader)?,
        "LISTEN" => Command::Accept("LISTEN"),
        "UNLISTEN" => Command::Accept("UNLISTEN"),
        "NOTIFY" => Command::Accept("NOTIFY"),
        "DECLARE" => declare(&mut reader)?,
        "FETCH" => fetch(&mut reader, false)?,
        "MOVE" => fetch(&mut reader, true)?,
        "CLOSE" => Command::Close(if reader.eat("ALL") { None } else { Some(reader.name()?) }),
        "COPY" => copy(&mut reader)?,
        _ => Command::Session,
    })
}

fn chained(reader: &mut Reader<'_>) -> bool {
    reader.eat_any(&["WORK", "TRANSACTION"]);
    reader.eat("AND") && !reader.is("NO")
}

fn rollback(reader: &mut Reader<'_>) -> Result<Command> {
    reader.eat_any(&["WORK", "TRANSACTION"]);
    if !reader.eat("TO") {
        return Ok(Command::Rollback { chain: chained(reader) });
    }
    reader.eat("SAVEPOINT");
    Ok(Command::RollbackTo(reader.name()?))
}

fn set(reader: &mut Reader<'_>) -> Result<Command> {
    let session = reader.eat("SESSION");
    let local = !session && reader.eat("LOCAL");
    if reader.eat_any(&["TRANSACTION", "CONSTRAINTS", "ROLE"]) || (session && reader.eat("CHARACTERISTICS")) {
        return Ok(Command::Accept("SET"));
    }
    let name = if reader.eat("TIME") {
        reader.eat("ZONE");
        "timezone".to_string()
    } else if reader.eat("NAMES") {
        "client_encoding".to_string()
    } else {
        let name = reader.dotted_name()?;
        if !reader.eat("TO") && reader.next() != Some(&Token::Eq) {
            return Err(reader.syntax_error());
        }
        name
    };
    let mut values = Vec::new();
    while let Some(token) = reader.next() {
        match token {
            Token::Comma => {}
            Token::Minus => values.push(format!("-{}", reader.next().map(text_of).unwrap_or_default())),
            token => values.push(text_of(token)),
        }
    }
    match values.as_slice() {
        [] => Err(reader.syntax_error()),
        [only] if only.eq_ignore_ascii_case("default") => Ok(Command::Set { name, value: None, local }),
        values => Ok(Command::Set { name, value: Some(values.join(", ")), local }),
    }
}

fn text_of(token: &Token) -> String {
    match token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
        Token::Word(word) => word.value.clone(),
        token => token.to_string(),
    }
}

fn show(reader: &mut Reader<'_>) -> Result<Command> {
    if reader.eat("TIME") {
        return Ok(Command::Show("timezone".to_string()));
    }
    if reader.eat("TRANSACTION") {
        return Ok(Command::Show("transaction_isolation".to_string()));
    }
    // SHOW TABLES and the like are the session's.
    match reader.tokens.len() {
        2 | 4 | 6 => Ok(Command::Show(reader.dotted_name()?)),
        _ => Ok(Command::Session),
    }
}

fn reset(reader: &mut Reader<'_>) -> Result<Command> {
    if reader.eat("ALL") {
        return Ok(Command::Reset(None));
    }
    if reader.eat("SESSION") || reader.eat("ROLE") {
        return Ok(Command::Accept("RESET"));
    }
    if reader.eat("TIME") {
        return Ok(Command::Reset(Some("timezone".to_string())));
    }
    Ok(Command::Reset(Some(reader.dotted_name()?)))
}

fn discard(reader: &mut Reader<'_>) -> Result<Command> {
    let tags = [
        ("ALL", "DISCARD ALL"),
        ("PLANS", "DISCARD PLANS"),
        ("SEQUENCES", "DISCARD SEQUENCES"),
        ("TEMP", "DISCARD TEMP"),
        ("TEMPORARY", "DISCARD TEMP"),
    ];
    match tags.iter().find(|(word, _)| reader.eat(word)) {
        Some((_, tag)) => Ok(Command::Discard(tag)),
        None => Err(reader.syntax_error()),
    }
}

fn prepare(reader: &mut Reader<'_>) -> Result<Command> {
    let name = reader.name()?;
    let types = match reader.peek() {
        Some(Token::LParen) => reader.bracketed()?.split(',').map(|name| name.trim().to_lowercase()).collect(),
        _ => Vec::new(),
    };
    if !reader.eat("AS") {
        return Err(reader.syntax_error());
    }
    Ok(Command::Prepare { name, types, sql: reader.rest() })
}

fn execute(reader: &mut Reader<'_>) -> Result<Command> {
    let name = reader.name()?;
    let arguments = if reader.peek() == Some(&Token::LParen) { reader.bracketed()? } else { String::new() };
    Ok(Command::Execute { name, arguments })
}

fn declare(reader: &mut Reader<'_>) -> Result<Command> {
    let name = reader.name()?;
    let mut hold = false;
    while !reader.eat("FOR") {
        if reader.eat("WITH") {
            hold = true;
        } else if reader.eat("WITHOUT") {
            reader.eat("HOLD");
        } else if !reader.eat_any(&["BINARY", "INSENSITIVE", "ASENSITIVE", "NO", "SCROLL", "CURSOR", "HOLD"]) {
            reader.at += 1;
            return Err(reader.syntax_error());
        }
    }
    Ok(Command::Declare { name, hold, sql: reader.rest() })
}

fn fetch(reader: &mut Reader<'_>, moves: bool) -> Result<Command> {
    let mut count = Count::Rows(1);
    if reader.eat_any(&["PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD"]) {
        return Err(Error::unsupported("cursors only go forward").with_sqlstate("0A000"));
    }
    if reader.eat("FORWARD")
        || reader.eat("NEXT")
        || matches!(reader.peek(), Some(Token::Number(..)))
        || reader.is("ALL")
    {
        if let Some(Token::Number(number, _)) = reader.peek() {
            reader.at += 1;
            count = Count::Rows(number.parse().map_err(|_| reader.syntax_error())?);
        } else if reader.eat("ALL") {
            count = Count::All;
        }
    }
    reader.eat_any(&["FROM", "IN"]);
    Ok(Command::Fetch { name: reader.name()?, count, moves })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<Command> {
        split(text).unwrap().into_iter().map(|piece| piece.command).collect()
    }

    #[test]
    fn semicolons_in_strings_and_comments_do_not_split() {
        let pieces = split("select ';' ; -- no; \n ; select $$a;b$$").unwrap();
        let texts: Vec<_> = pieces.iter().map(|piece| (piece.sql.as_str(), piece.offset)).collect();
        assert_eq!(texts, [("select ';'", 0), ("select $$a;b$$", 24)]);
        assert!(split("/* nothing */ ;; ").unwrap().is_empty());
    }

    #[test]
    fn offsets_count_characters_not_bytes() {
        assert_eq!(split("select 'äö'; select 2").unwrap()[1].offset, 13);
    }

    #[test]
    fn settings_keep_their_value_as_written() {
        let set = |name: &str, value: Option<&str>| Command::Set {
            name: name.into(),
            value: value.map(Into::into),
            local: false,
        };
        assert_eq!(commands("SET statement_timeout = '2min'"), [set("statement_timeout", Some("2min"))]);
        assert_eq!(commands("set search_path to a, b"), [set("search_path", Some("a, b"))]);
        assert_eq!(commands("set time zone 'UTC'"), [set("timezone", Some("UTC"))]);
        assert_eq!(commands("set extra_float_digits = -1"), [set("extra_float_digits", Some("-1"))]);
        assert_eq!(commands("set x = default"), [set("x", None)]);
        assert_eq!(commands("set session characteristics as transaction read only"), [Command::Accept("SET")]);
    }

    #[test]
    fn cursors_are_recognised_in_all_spellings() {
        let fetch = |count| Command::Fetch { name: "c".into(), count, moves: false };
        assert_eq!(
            commands("fetch c; fetch 5 from c; fetch all c; fetch forward 3 in c"),
            [fetch(Count::Rows(1)), fetch(Count::Rows(5)), fetch(Count::All), fetch(Count::Rows(3)),]
        );
        let declared = Command::Declare { name: "c".into(), hold: true, sql: "select 1".into() };
        assert_eq!(commands("declare c no scroll cursor with hold for select 1"), [declared]);
    }

    #[test]
    fn prepared_statements_carry_types_and_arguments() {
        let types = vec!["bigint".to_string(), "timestamp".to_string()];
        assert_eq!(
            commands("prepare q(bigint, timestamp) as select $1, $2"),
            [Command::Prepare { name: "q".into(), types, sql: "select $1, $2".into() },]
        );
        let executed = Command::Execute { name: "q".into(), arguments: "f(1), 'x'".into() };
        assert_eq!(commands("execute q(f(1), 'x')"), [executed]);
    }

    #[test]
    fn copy_to_a_file_is_refused_and_to_stdout_understood() {
        assert_eq!(crate::error::sqlstate(&split("copy (select 1) to '/tmp/x'").unwrap_err()), "42501");
        let Command::Copy(copy) = commands("copy w (a, b) to stdout csv header").remove(0) else { panic!("no copy") };
        assert_eq!((copy.query.as_str(), copy.format, copy.header), ("SELECT a, b FROM w", CopyFormat::Csv, true));
        let Command::Copy(copy) =
            commands("copy (select 1) to stdout with (format csv, delimiter '|', null 'NULL')").remove(0)
        else {
            panic!("no copy")
        };
        assert_eq!((copy.delimiter, copy.null.as_str(), copy.header), (b'|', "NULL", false));
    }

    #[test]
    fn transactions_are_recognised() {
        assert_eq!(
            commands("rollback to savepoint a; rollback; end; commit and chain; savepoint B; release savepoint \"B\""),
            [
                Command::RollbackTo("a".into()),
                Command::Rollback { chain: false },
                Command::Commit { chain: false },
                Command::Commit { chain: true },
                Command::Savepoint("b".into()),
                Command::Release("B".into()),
            ]
        );
    }
}
