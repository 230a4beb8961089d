//! `COPY`: what is copied, and how it is written.

use datafusion::sql::sqlparser::tokenizer::Token;
use henge_engine::{Error, Result};

use super::reader::Reader;
use super::{Command, Copy, CopyFormat, CopyIn, text_of};

pub(super) fn copy(reader: &mut Reader<'_>) -> Result<Command> {
    let (query, table) = match reader.peek() {
        Some(Token::LParen) => (reader.bracketed()?, String::new()),
        _ => copied_table(reader)?,
    };
    if reader.eat("FROM") {
        return copy_from(reader, query, table);
    }
    if !reader.eat("TO") {
        reader.at += 1;
        return Err(reader.syntax_error());
    }
    if !reader.eat("STDOUT") {
        return Err(Error::new(
            henge_engine::error::Category::Forbidden,
            henge_engine::error::Persona::User,
            "COPY TO a file or program is not allowed: it would write on the server; use COPY … TO STDOUT, or \\copy in psql",
        ));
    }
    copy_options(reader, query)
}

fn copy_from(reader: &mut Reader<'_>, query: String, table: String) -> Result<Command> {
    if table.is_empty() {
        return Err(Error::invalid_input("COPY FROM takes a table, not a query").with_sqlstate("42601"));
    }
    if !reader.eat("STDIN") {
        return Err(Error::new(
            henge_engine::error::Category::Forbidden,
            henge_engine::error::Persona::User,
            "COPY FROM a file or program is not allowed: it would read on the server; use COPY … FROM STDIN, or \\copy in psql",
        ));
    }
    let Command::Copy(Copy { query, format, header, delimiter, null }) = copy_options(reader, query)? else {
        return Err(reader.syntax_error());
    };
    Ok(Command::CopyIn(CopyIn { query, table, format, header, delimiter, null }))
}

/// The query of what is copied, and the table's name as it was written.
fn copied_table(reader: &mut Reader<'_>) -> Result<(String, String)> {
    let start = reader.at;
    reader.dotted_name()?;
    let name = Reader { text: reader.text, tokens: &reader.tokens[start..reader.at], at: 0 }.rest();
    let columns = if reader.peek() == Some(&Token::LParen) { reader.bracketed()? } else { "*".to_string() };
    Ok((format!("SELECT {columns} FROM {name}"), name))
}

fn copy_options(reader: &mut Reader<'_>, query: String) -> Result<Command> {
    let mut copy = Copy { query, format: CopyFormat::Text, header: false, delimiter: 0, null: String::new() };
    let mut null = None;
    while let Some(token) = reader.next() {
        let Token::Word(word) = token else { continue };
        match word.value.to_ascii_uppercase().as_str() {
            "CSV" => copy.format = CopyFormat::Csv,
            "BINARY" => copy.format = CopyFormat::Binary,
            "HEADER" => copy.header = !reader.eat_any(&["FALSE", "OFF"]),
            "DELIMITER" => {
                reader.eat("AS");
                copy.delimiter = single_byte(reader)?;
            }
            "NULL" => {
                reader.eat("AS");
                null = reader.next().map(text_of);
            }
            // Those that are in use anyhow.
            "QUOTE" | "ESCAPE" => only(reader, &word.value, &["\""])?,
            "ENCODING" => only(reader, &word.value, &["UTF8", "UTF-8", "UNICODE"])?,
            "WITH" | "FORMAT" | "TEXT" | "TRUE" | "ON" => {}
            other => {
                return Err(Error::unsupported(format!("COPY has no option `{other}` here")).with_sqlstate("0A000"));
            }
        }
    }
    if copy.format == CopyFormat::Binary && (copy.header || copy.delimiter != 0 || null.is_some()) {
        return Err(Error::invalid_input("COPY in binary has no HEADER, DELIMITER or NULL").with_sqlstate("42601"));
    }
    let csv = copy.format == CopyFormat::Csv;
    if copy.delimiter == 0 {
        copy.delimiter = if csv { b',' } else { b'\t' };
    }
    copy.null = null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_string() });
    Ok(Command::Copy(copy))
}

fn single_byte(reader: &mut Reader<'_>) -> Result<u8> {
    match reader.next().map(text_of).as_deref() {
        Some("\\t") => Ok(b'\t'),
        Some(text) if text.len() == 1 => Ok(text.as_bytes()[0]),
        _ => Err(Error::invalid_input("the COPY delimiter must be one single-byte character").with_sqlstate("22023")),
    }
}

/// An option that takes these values alone.
fn only(reader: &mut Reader<'_>, option: &str, values: &[&str]) -> Result<()> {
    reader.eat("AS");
    let given = reader.next().map(text_of).unwrap_or_default();
    if values.iter().any(|value| value.eq_ignore_ascii_case(&given)) {
        return Ok(());
    }
    let message = format!("COPY takes {option} {} only, not `{given}`", values[0]);
    Err(Error::unsupported(message).with_sqlstate("0A000"))
}
