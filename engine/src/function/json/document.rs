//! A document taken apart, and put together in PostgreSQL's form of `jsonb`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::malformed;
use crate::error::{Error, Result};

/// Exponents beyond which a number is refused, as PostgreSQL's `numeric` does; it goes further, to 131,072 digits.
const MOST_DIGITS: i64 = 10_000;

/// How deep a document may nest: it is read, written and compared level by level on one stack, and read anew for each.
const MOST_LEVELS: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Document {
    Null,
    Bool(bool),
    /// Without an exponent.
    Number(String),
    Text(String),
    List(Vec<Document>),
    Object(BTreeMap<Key, Document>),
}

/// A key of an object. Shorter ones come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) String);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), self.0.as_bytes()).cmp(&(other.0.len(), other.0.as_bytes()))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The keys and values of an object, as they are written.
pub(super) struct Pairs<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Checks that a text is a document, and gives it without the blanks around it.
pub(super) fn check(text: &str) -> Result<&RawValue> {
    serde_json::from_str(text).map_err(|error| malformed(text, &error))
}

impl Document {
    pub(super) fn read(text: &str) -> Result<Self> {
        Self::of(check(text)?, 0)
    }

    fn of(raw: &RawValue, depth: usize) -> Result<Self> {
        if depth > MOST_LEVELS {
            let message = format!("a JSON document nests deeper than {MOST_LEVELS} levels");
            return Err(Error::invalid_input(message).with_sqlstate("54001"));
        }
        let text = raw.get();
        let failed = |error: serde_json::Error| malformed(text, &error);
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let Pairs(pairs) = serde_json::from_str(text).map_err(failed)?;
                let read = |(key, value): (String, &RawValue)| Ok((Key(storable(key)?), Self::of(value, depth + 1)?));
                Self::Object(pairs.into_iter().map(read).collect::<Result<_>>()?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(failed)?;
                Self::List(items.into_iter().map(|item| Self::of(item, depth + 1)).collect::<Result<_>>()?)
            }
            Some(b'"') => Self::Text(storable(serde_json::from_str(text).map_err(failed)?)?),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') => Self::Null,
            _ => Self::Number(without_exponent(text)?),
        })
    }

    /// In PostgreSQL's form.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    /// A line for every key and item.
    pub(super) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out
    }

    fn write(&self, out: &mut String, indent: Option<usize>) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(number) => out.push_str(number),
            Self::Text(text) => put_quoted(text, out),
            Self::List(items) => {
                let write = |item: &Self, out: &mut String, indent| item.write(out, indent);
                put_all(items, ('[', ']'), out, indent, write);
            }
            Self::Object(pairs) => put_all(pairs, ('{', '}'), out, indent, |(key, value), out, indent| {
                put_quoted(&key.0, out);
                out.push_str(": ");
                value.write(out, indent);
            }),
        }
    }

    /// Whether all of `other` is in this, as `@>` asks. An item by itself is in a list that has it.
    pub(super) fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(items), Self::List(wanted)) => wanted.iter().all(|w| items.iter().any(|item| item.holds(w))),
            (Self::List(items), other) if !matches!(other, Self::Object(_)) => {
                items.iter().any(|item| item.holds(other))
            }
            _ => self.holds(other),
        }
    }

    fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(pairs), Self::Object(wanted)) => {
                wanted.iter().all(|(key, value)| pairs.get(key).is_some_and(|found| found.holds(value)))
            }
            (Self::List(items), Self::List(wanted)) => wanted.iter().all(|w| items.iter().any(|item| item.holds(w))),
            (Self::Number(a), Self::Number(b)) => shortest(a) == shortest(b),
            (a, b) => a == b,
        }
    }

    /// The same with numbers that are equal written alike, so that equal documents are equal texts.
    pub(super) fn comparable(self) -> Self {
        match self {
            Self::Number(number) => Self::Number(shortest(&number).to_owned()),
            Self::List(items) => Self::List(items.into_iter().map(Self::comparable).collect()),
            Self::Object(pairs) => {
                Self::Object(pairs.into_iter().map(|(key, value)| (key, value.comparable())).collect())
            }
            other => other,
        }
    }
}

fn put_all<T>(
    items: impl IntoIterator<Item = T>,
    (open, close): (char, char),
    out: &mut String,
    indent: Option<usize>,
    write: impl Fn(T, &mut String, Option<usize>),
) {
    let line = |out: &mut String, indent: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
    };
    let within = indent.map(|indent| indent + 4);
    let mut any = false;
    out.push(open);
    for item in items {
        match (any, within) {
            (true, None) => out.push_str(", "),
            (true, Some(indent)) => {
                out.push(',');
                line(out, indent);
            }
            (false, Some(indent)) => line(out, indent),
            (false, None) => {}
        }
        any = true;
        write(item, out, within);
    }
    if let Some(indent) = indent {
        line(out, indent);
    }
    out.push(close);
}

/// A text in quotes, with what must not stand in them escaped.
pub(super) fn put_quoted(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out.push('"');
}

fn storable(text: String) -> Result<String> {
    match text.contains('\0') {
        true => Err(Error::invalid_input("`\\u0000` cannot be converted to text").with_sqlstate("22P05")),
        false => Ok(text),
    }
}

/// `1.5e1` as `15`, with the digits after the point that PostgreSQL keeps.
fn without_exponent(text: &str) -> Result<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX);
    if exponent.abs() > MOST_DIGITS {
        return Err(Error::invalid_input(format!("value overflows numeric format: `{text}`")).with_sqlstate("22003"));
    }
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let scale = fraction.len() as i64 - exponent;
    if scale < 0 {
        digits.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
    }
    let scale = scale.max(0) as usize;
    if digits.len() <= scale {
        digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let zero = whole == "0" && fraction.bytes().all(|digit| digit == b'0');
    let sign = if negative && !zero { "-" } else { "" };
    Ok(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

fn shortest(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        Document::read(json).unwrap().text()
    }

    #[test]
    fn a_document_is_written_as_postgresql_writes_jsonb() {
        assert_eq!(
            text(r#" {"bb":1,"a":[1,2,{"x":null}],"bb":"é\u0041\n"} "#),
            r#"{"a": [1, 2, {"x": null}], "bb": "éA\n"}"#
        );
        assert_eq!(text("[]"), "[]");
        assert_eq!(text("{}"), "{}");
        assert_eq!(
            text("[1.50, 1e2, 1.50e1, -1E-3, -0, 0.10, 123456789012345678901234567890]"),
            "[1.50, 100, 15.0, -0.001, 0, 0.10, 123456789012345678901234567890]"
        );
    }

    #[test]
    fn what_is_no_document_is_an_error_and_never_a_panic() {
        for wrong in ["", "{", "{\"a\"}", "[1,]", "01", "nul", "\"\\x\"", "1 2", "\"a", "1e99999999999999999999"] {
            assert!(Document::read(wrong).is_err(), "{wrong}");
        }
        assert!(Document::read(&"[".repeat(100_000)).is_err());
        let deep = |levels: usize| Document::read(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        assert!(deep(100).is_ok());
        assert_eq!(deep(100_000).unwrap_err().sqlstate(), Some("54001"));
        assert_eq!(Document::read(r#"["\u0000"]"#).unwrap_err().sqlstate(), Some("22P05"));
    }

    #[test]
    fn containment_looks_for_parts() {
        let holds = |whole: &str, part: &str| Document::read(whole).unwrap().contains(&Document::read(part).unwrap());
        assert!(holds(r#"{"a":1,"b":[1,2,{"c":3}]}"#, r#"{"b":[{"c":3.0},1]}"#));
        assert!(holds("[1,2]", "2"));
        assert!(!holds("[[1,2]]", "1"));
        assert!(!holds(r#"[{"a":1}]"#, r#"{"a":1}"#));
        assert!(!holds(r#"{"a":1}"#, r#"{"a":2}"#));
    }

    #[test]
    fn pretty_documents_have_a_line_for_each_item() {
        assert_eq!(
            Document::read(r#"{"a":[1,{}],"b":[]}"#).unwrap().pretty(),
            "{\n    \"a\": [\n        1,\n        {\n        }\n    ],\n    \"b\": [\n    ]\n}"
        );
    }
}
