use std::borrow::Cow;

use super::expression::{Expression, Operator};
use super::function::Function;
use crate::error::{Error, Result};
use crate::ingest::row::Value;

/// Parses an expression of Druid's language. Fails with what is not known, by name.
pub(super) fn expression(text: &str) -> Result<Expression> {
    let mut parser = Parser { text, tokens: tokens(text)?, at: 0, depth: 0 };
    let expression = parser.binary(0)?;
    match parser.tokens.get(parser.at) {
        None => Ok(expression),
        Some(token) => Err(parser.unexpected(token)),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    /// In double quotes: never a function or a word.
    Quoted(String),
    Text(String),
    Long(i64),
    Double(f64),
    Mark(&'static str),
}

const MARKS: [&str; 19] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "^", "!", "(", ")", ",", "="];

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '\'' | '"' => quoted(rest, first, text)?,
            '0'..='9' | '.' => number(rest, text)?,
            _ if first.is_alphabetic() || first == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
                let end = end.unwrap_or(rest.len());
                (Token::Name(rest[..end].to_owned()), end)
            }
            _ => match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
                Some(mark) => (Token::Mark(mark), mark.len()),
                None => return Err(fault(text, &format!("has `{first}`, which is not known here"))),
            },
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn fault(text: &str, message: &str) -> Error {
    Error::invalid_input(format!("expression `{text}` {message}"))
}

fn quoted(rest: &str, quote: char, text: &str) -> Result<(Token, usize)> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, c)) => out.push(c),
                None => break,
            },
            _ if c == quote => {
                let token = if quote == '"' { Token::Quoted(out) } else { Token::Text(out) };
                return Ok((token, at + 1));
            }
            _ => out.push(c),
        }
    }
    Err(fault(text, "has a quote that is not closed"))
}

fn number(rest: &str, text: &str) -> Result<(Token, usize)> {
    let bytes = rest.as_bytes();
    let mut end = 0;
    while let Some(byte) = bytes.get(end) {
        let sign = end > 0 && matches!(byte, b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E');
        if !(byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || sign) {
            break;
        }
        end += 1;
    }
    let number = &rest[..end];
    let token = match (number.parse(), number.parse()) {
        (Ok(number), _) => Token::Long(number),
        (_, Ok(number)) => Token::Double(number),
        _ => return Err(fault(text, &format!("has `{number}`, which is no number"))),
    };
    Ok((token, end))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

/// Deeper expressions are refused, so that none can exhaust the stack.
const MAX_DEPTH: usize = 100;

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn take(&mut self, mark: &'static str) -> bool {
        let there = self.tokens.get(self.at) == Some(&Token::Mark(mark));
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, mark: &'static str) -> Result<()> {
        match self.take(mark) {
            true => Ok(()),
            false => Err(fault(self.text, &format!("lacks a `{mark}`"))),
        }
    }

    fn unexpected(&self, token: &Token) -> Error {
        let shown = match token {
            Token::Name(text) | Token::Quoted(text) | Token::Text(text) => text.clone(),
            Token::Long(number) => number.to_string(),
            Token::Double(number) => number.to_string(),
            Token::Mark(mark) => (*mark).to_owned(),
        };
        fault(self.text, &format!("has `{shown}` where it does not belong"))
    }

    /// Operators that bind at least as tightly as `least`.
    fn binary(&mut self, least: u8) -> Result<Expression> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fault(self.text, "is nested too deeply"));
        }
        let mut left = self.unary()?;
        while let Some((operator, binding)) = self.operator().filter(|(_, binding)| *binding >= least) {
            self.at += 1;
            // Powers group to the right, the others to the left.
            let right = self.binary(if operator == Operator::Power { binding } else { binding + 1 })?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<(Operator, u8)> {
        let Some(Token::Mark(mark)) = self.tokens.get(self.at) else { return None };
        Some(match *mark {
            "||" => (Operator::Or, 1),
            "&&" => (Operator::And, 2),
            "==" | "=" => (Operator::Equal, 3),
            "!=" => (Operator::NotEqual, 3),
            "<" => (Operator::Less, 4),
            "<=" => (Operator::LessOrEqual, 4),
            ">" => (Operator::Greater, 4),
            ">=" => (Operator::GreaterOrEqual, 4),
            "+" => (Operator::Add, 5),
            "-" => (Operator::Subtract, 5),
            "*" => (Operator::Multiply, 6),
            "/" => (Operator::Divide, 6),
            "%" => (Operator::Modulo, 6),
            "^" => (Operator::Power, 7),
            _ => return None,
        })
    }

    fn unary(&mut self) -> Result<Expression> {
        if self.take("!") {
            return Ok(Expression::Not(Box::new(self.binary(8)?)));
        }
        if self.take("-") {
            return Ok(Expression::Negate(Box::new(self.binary(8)?)));
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expression> {
        let token = self.next().ok_or_else(|| fault(self.text, "lacks something at its end"))?;
        Ok(match token {
            Token::Mark("(") => {
                let inner = self.binary(0)?;
                self.expect(")")?;
                inner
            }
            Token::Name(name) if self.take("(") => {
                let arguments = self.arguments()?;
                let function = Function::new(&name, &arguments).map_err(|e| e.context("expression", self.text))?;
                Expression::Call(function, arguments)
            }
            Token::Name(name) if name.eq_ignore_ascii_case("null") => Expression::Literal(Value::Null),
            Token::Name(name) if name.eq_ignore_ascii_case("true") => Expression::Literal(Value::Long(1)),
            Token::Name(name) if name.eq_ignore_ascii_case("false") => Expression::Literal(Value::Long(0)),
            Token::Name(name) | Token::Quoted(name) => Expression::Field(name),
            Token::Text(text) => Expression::Literal(Value::Text(Cow::Owned(text))),
            Token::Long(number) => Expression::Literal(Value::Long(number)),
            Token::Double(number) => Expression::Literal(Value::Double(number)),
            token @ Token::Mark(_) => return Err(self.unexpected(&token)),
        })
    }

    fn arguments(&mut self) -> Result<Vec<Expression>> {
        let mut arguments = Vec::new();
        if self.take(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.binary(0)?);
            if self.take(")") {
                return Ok(arguments);
            }
            self.expect(",")?;
        }
    }
}
