//! The words of one statement, read from left to right.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use henge_engine::error::Position;
use henge_engine::{Error, Result};

/// Byte and character offsets of lines and columns; asked in ascending order, so each character is passed once.
pub(super) struct Places<'a> {
    rest: std::iter::Peekable<std::str::CharIndices<'a>>,
    length: usize,
    line: u64,
    column: u64,
    chars: usize,
}

impl<'a> Places<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text.char_indices().peekable(), length: text.len(), line: 1, column: 1, chars: 0 }
    }

    pub(super) fn range(&mut self, start: Location, end: Location) -> Range<(usize, usize)> {
        self.find(start)..self.find(end)
    }

    pub(super) fn find(&mut self, place: Location) -> (usize, usize) {
        while (self.line, self.column) < (place.line, place.column) {
            let Some((_, char)) = self.rest.next() else { break };
            self.chars += 1;
            (self.line, self.column) = if char == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        (self.rest.peek().map_or(self.length, |(byte, _)| *byte), self.chars)
    }
}

/// The words of one statement.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: &'a [TokenWithSpan],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).map(|token| &token.token)
    }

    pub(super) fn next(&mut self) -> Option<&'a Token> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
    }

    /// Steps over `word` if it is next.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        let found = self.is(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    /// A name, folded to lower case unless it is quoted.
    pub(super) fn name(&mut self) -> Result<String> {
        match self.next() {
            Some(Token::Word(word)) if word.quote_style.is_some() => Ok(word.value.clone()),
            Some(Token::Word(word)) => Ok(word.value.to_lowercase()),
            _ => Err(self.syntax_error()),
        }
    }

    /// A setting's name, such as `datafusion.execution.batch_size`.
    pub(super) fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.name()?;
        while self.peek() == Some(&Token::Period) {
            self.at += 1;
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    /// Everything from here on, as it was written.
    pub(super) fn rest(&self) -> String {
        let (Some(first), Some(last)) = (self.tokens.get(self.at), self.tokens.last()) else { return String::new() };
        let range = Places::new(self.text).range(first.span.start, last.span.end);
        self.text[range.start.0..range.end.0].to_string()
    }

    /// What is between the bracket that is next and the one that closes it.
    pub(super) fn bracketed(&mut self) -> Result<String> {
        let from = self.at + 1;
        let mut depth = 0;
        while let Some(token) = self.next() {
            depth += match token {
                Token::LParen => 1,
                Token::RParen => -1,
                _ => 0,
            };
            if depth == 0 {
                let inner = &self.tokens[from..self.at - 1];
                return Ok(Reader { text: self.text, tokens: inner, at: 0 }.rest());
            }
        }
        Err(self.syntax_error())
    }

    pub(super) fn syntax_error(&self) -> Error {
        let error = Error::invalid_input(match self.tokens.get(self.at.saturating_sub(1)) {
            Some(token) => format!("syntax error at or near \"{}\"", token.token),
            None => "syntax error at end of input".to_string(),
        });
        let place = self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last()).map(|token| token.span.start);
        match place {
            Some(place) => error.at(Position { line: place.line, column: place.column }).with_sqlstate("42601"),
            None => error.with_sqlstate("42601"),
        }
    }
}
