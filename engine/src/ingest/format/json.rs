//! A JSON object a line, read straight into a row's slots.
//!
//! The scanner accepts what RFC 8259 accepts (a test compares it with `serde_json`), borrows texts without escapes from
//! the line, and guesses each key from the row before, so that a known key costs one comparison.

use crate::ingest::row::{Row, Slot, Span};

/// What is wrong with a line, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Byte of the line, from 0.
    pub(super) position: usize,
    pub(super) message: &'static str,
}

type Scan<T> = Result<T, Fault>;

const MAX_DEPTH: usize = 128;

/// Reads the object in `line` into `row`, which must have been cleared.
pub(super) fn read(line: &str, row: &mut Row) -> Scan<()> {
    let mut scanner = Scanner { line, bytes: line.as_bytes(), at: 0 };
    scanner.space();
    scanner.expect(b'{', "a row must be a JSON object")?;
    scanner.space();
    if !scanner.take(b'}') {
        loop {
            let field = scanner.key(row)?;
            let value = scanner.value(row)?;
            row.set(field, value);
            scanner.space();
            if scanner.take(b'}') {
                break;
            }
            scanner.expect(b',', "expected `,` or `}`")?;
            scanner.space();
        }
    }
    scanner.space();
    match scanner.at == line.len() {
        true => Ok(()),
        false => Err(scanner.fault("text after the object; a line must hold one object")),
    }
}

struct Scanner<'a> {
    line: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn fault(&self, message: &'static str) -> Fault {
        let message = match self.at >= self.bytes.len() {
            true => "the line ends within the object; an object must stand on one line",
            false => message,
        };
        Fault { position: self.at, message }
    }

    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, message: &'static str) -> Scan<()> {
        if self.take(byte) { Ok(()) } else { Err(self.fault(message)) }
    }

    /// Reads a key and its colon.
    fn key(&mut self, row: &mut Row) -> Scan<usize> {
        let field = match self.guessed_key(row) {
            Some(field) => field,
            None => {
                if self.peek() != b'"' {
                    return Err(self.fault("expected a key in quotes"));
                }
                let slot = self.text(row)?;
                let name = row.text(self.line, slot).unwrap_or_default().to_owned();
                row.fields.number(&name)
            }
        };
        self.space();
        self.expect(b':', "expected `:` after a key")?;
        self.space();
        Ok(field)
    }

    /// The key the row before had here, if this row has it too. Only keys that need no escape are guessed.
    fn guessed_key(&mut self, row: &Row) -> Option<usize> {
        let field = row.guess(row.len())?;
        let name = row.fields.name(field).as_bytes();
        let rest = self.bytes.get(self.at..)?.strip_prefix(b"\"")?.strip_prefix(name)?;
        if rest.first() != Some(&b'"') || name.contains(&b'\\') {
            return None;
        }
        self.at += name.len() + 2;
        Some(field)
    }

    fn value(&mut self, row: &mut Row) -> Scan<Slot> {
        match self.peek() {
            b'"' => self.text(row),
            b'[' => self.list(row),
            b'{' => self.nested(),
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Scan<Slot> {
        match self.peek() {
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", Slot::Bool(true)),
            b'f' => self.word("false", Slot::Bool(false)),
            b'n' => self.word("null", Slot::Null),
            _ => Err(self.fault("expected a value")),
        }
    }

    fn word(&mut self, word: &str, slot: Slot) -> Scan<Slot> {
        match self.bytes[self.at..].starts_with(word.as_bytes()) {
            true => {
                self.at += word.len();
                Ok(slot)
            }
            false => Err(self.fault("expected `true`, `false` or `null`")),
        }
    }

    /// Passes over digits. Returns how many, and the number that they are, which is right for up to 18 of them.
    fn digits(&mut self) -> (usize, i64) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (mut count, mut number) = (0, 0_i64);
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
            count += 1;
        }
        self.at += count;
        (count, number)
    }

    fn number(&mut self) -> Scan<Slot> {
        let start = self.at;
        let is_negative = self.take(b'-');
        let first = self.at;
        let (digits, number) = self.digits();
        if digits == 0 || (digits > 1 && self.bytes[first] == b'0') {
            self.at = first;
            return Err(self.fault("not a number"));
        }
        let mut whole = true;
        if self.take(b'.') {
            whole = false;
            if self.digits().0 == 0 {
                return Err(self.fault("expected digits after `.`"));
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            whole = false;
            self.at += 1;
            let _ = self.take(b'-') || self.take(b'+');
            if self.digits().0 == 0 {
                return Err(self.fault("expected digits of an exponent"));
            }
        }
        if whole && digits <= 18 {
            return Ok(Slot::Long(if is_negative { -number } else { number }));
        }
        let text = &self.line[start..self.at];
        if whole && let Ok(number) = text.parse() {
            return Ok(Slot::Long(number));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Slot::Double(number)),
            _ => Err(Fault { position: start, message: "the number is too large" }),
        }
    }

    /// Reads a text; the quote is next.
    fn text(&mut self, row: &mut Row) -> Scan<Slot> {
        self.at += 1;
        let start = self.at;
        self.at = plain_end(self.bytes, start);
        if self.take(b'"') {
            return Ok(Slot::Line(Span { start, end: self.at - 1 }));
        }
        let kept = row.scratch.len();
        row.scratch.push_str(&self.line[start..self.at]);
        loop {
            match self.peek() {
                b'"' if self.at < self.bytes.len() => {
                    self.at += 1;
                    return Ok(Slot::Scratch(Span { start: kept, end: row.scratch.len() }));
                }
                b'\\' => self.escape(&mut row.scratch)?,
                _ if self.at >= self.bytes.len() => return Err(self.fault("")),
                byte if byte < 0x20 => return Err(self.fault("a control character within a text must be escaped")),
                _ => {
                    let end = plain_end(self.bytes, self.at);
                    row.scratch.push_str(&self.line[self.at..end]);
                    self.at = end;
                }
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Scan<()> {
        self.at += 1;
        let byte = self.peek();
        let plain = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                out.push(self.unicode()?);
                return Ok(());
            }
            _ => return Err(self.fault("unknown escape")),
        };
        self.at += 1;
        out.push(plain);
        Ok(())
    }

    /// `uXXXX`, and the second half of a pair.
    fn unicode(&mut self) -> Scan<char> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.fault("half of a surrogate pair"));
        }
        if !(self.take(b'\\') && self.peek() == b'u') {
            return Err(self.fault("half of a surrogate pair"));
        }
        let second = self.hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(self.fault("half of a surrogate pair"));
        }
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).ok_or_else(|| self.fault("half of a surrogate pair"))
    }

    fn hex(&mut self) -> Scan<u32> {
        self.at += 1;
        let digits = self.bytes.get(self.at..self.at + 4).unwrap_or_default();
        let mut code = 0;
        for digit in digits {
            code = code * 16 + char::from(*digit).to_digit(16).ok_or_else(|| self.fault("expected four hex digits"))?;
        }
        if digits.len() < 4 {
            return Err(self.fault("expected four hex digits"));
        }
        self.at += 4;
        Ok(code)
    }

    /// A list of scalars, or if it holds anything else, its text.
    fn list(&mut self, row: &mut Row) -> Scan<Slot> {
        let (start, first) = (self.at, row.items.len());
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(Slot::List(Span { start: first, end: first }));
        }
        loop {
            if matches!(self.peek(), b'[' | b'{') {
                row.items.truncate(first);
                self.at = start;
                return self.nested();
            }
            let item = if self.peek() == b'"' { self.text(row)? } else { self.scalar()? };
            row.items.push(item);
            self.space();
            if self.take(b']') {
                return Ok(Slot::List(Span { start: first, end: row.items.len() }));
            }
            self.expect(b',', "expected `,` or `]`")?;
            self.space();
        }
    }

    fn nested(&mut self) -> Scan<Slot> {
        let start = self.at;
        self.skip(0)?;
        Ok(Slot::Nested(Span { start, end: self.at }))
    }

    fn skip(&mut self, depth: usize) -> Scan<()> {
        let close = match self.peek() {
            b'{' => b'}',
            b'[' => b']',
            b'"' => return self.skip_text(),
            _ => return self.scalar().map(|_| ()),
        };
        if depth >= MAX_DEPTH {
            return Err(self.fault("nested too deeply"));
        }
        self.at += 1;
        self.space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            if close == b'}' {
                if self.peek() != b'"' {
                    return Err(self.fault("expected a key in quotes"));
                }
                self.skip_text()?;
                self.space();
                self.expect(b':', "expected `:` after a key")?;
                self.space();
            }
            self.skip(depth + 1)?;
            self.space();
            if self.take(close) {
                return Ok(());
            }
            self.expect(b',', "expected `,` or the end of a nested value")?;
            self.space();
        }
    }

    fn skip_text(&mut self) -> Scan<()> {
        let mut ignored = String::new();
        self.at += 1;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape(&mut ignored)?,
                _ => return Err(self.fault("a control character within a text must be escaped")),
            }
        }
    }
}

/// Where the run of plain bytes from `at` ends: at a quote, a backslash, a control character or the end.
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let quote = zero_bytes(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_bytes(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = quote | backslash | control;
        if found != 0 {
            // The lowest bit found is exact; higher ones may be false, from borrows below them.
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn as_json(row: &Row, line: &str, slot: Slot) -> Value {
        match slot {
            Slot::Missing | Slot::Null => Value::Null,
            Slot::Bool(value) => Value::Bool(value),
            Slot::Long(value) => value.into(),
            Slot::Double(value) => value.into(),
            Slot::Nested(_) => serde_json::from_str(row.text(line, slot).unwrap()).unwrap(),
            Slot::List(span) => row.list(span).iter().map(|item| as_json(row, line, *item)).collect(),
            _ => row.text(line, slot).unwrap().into(),
        }
    }

    fn parsed(line: &str, row: &mut Row) -> Option<Value> {
        row.clear();
        read(line, row).ok()?;
        let fields =
            row.order().iter().map(|field| (row.fields.name(*field).to_owned(), as_json(row, line, row.get(*field))));
        Some(Value::Object(fields.collect()))
    }

    #[test]
    fn faults_are_placed() {
        for (line, position) in [
            (r#"{"a":1"#, 6),
            (r#"{"a":01}"#, 5),
            (r#"{"a":1} {"#, 8),
            (r#"[1]"#, 0),
            (r#"{"a":tru}"#, 5),
            ("{\"a\":\"x\ty\"}", 7),
            (r#"{"a":"\x"}"#, 7),
            (r#"{"a":"\ud800x"}"#, 12),
        ] {
            let fault = read(line, &mut Row::default()).expect_err(line);
            assert_eq!(fault.position, position, "{line} {}", fault.message);
        }
    }

    #[test]
    fn rows_with_other_keys_than_the_row_before_are_read() {
        let mut row = Row::default();
        for line in [
            r#"{"a":1,"b":"x\né","c":[1,"é",null],"d":{"e":[{}]},"f":true}"#,
            r#"{"a":1,"b":"x\né","c":[1,"é",null],"d":{"e":[{}]},"f":true}"#,
            r#"{"b":1.5,"a":null,"aa":-1,"a\"":[[1]],"z":""}"#,
            r#"{"a\"":1,"aa":"\ud83d\ude00 abcdefghijklmnop\\"}"#,
            "{}",
        ] {
            assert_eq!(parsed(line, &mut row), serde_json::from_str(line).ok(), "{line}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // serde_json rounds some longer ones differently from the nearest double.
            (-1e6_f64..1e6).prop_map(|v| Value::from((v * 1000.0).round() / 1000.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c\"\\\\é]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_read_alike(rows in prop::collection::vec(prop::collection::hash_map("[a-d\"\\\\]{0,3}", json(), 0..5), 1..4)) {
            let mut row = Row::default();
            for map in rows {
                let value = Value::Object(map.into_iter().collect());
                let line = value.to_string();
                prop_assert_eq!(parsed(&line, &mut row), serde_json::from_str::<Value>(&line).ok());
            }
        }

        #[test]
        fn what_serde_refuses_is_refused(
            value in prop::collection::hash_map("[a-d]{0,3}", json(), 0..4),
            cut in any::<prop::sample::Index>(),
            byte in prop::sample::select(vec!['"', '\\', '{', '}', '[', ']', ',', ':', '0', '1', '.', 'e', '-', ' ', 'n', '\u{1}']),
            insert in any::<bool>(),
        ) {
            let mut line = Value::Object(value.into_iter().collect()).to_string().chars().collect::<Vec<_>>();
            let at = cut.index(line.len());
            if insert { line.insert(at, byte) } else { line.remove(at); }
            let line = line.into_iter().collect::<String>();
            let expected = serde_json::from_str::<Value>(&line).ok().filter(Value::is_object);
            prop_assert_eq!(parsed(&line, &mut Row::default()).is_some(), expected.is_some(), "{}", line);
        }
    }
}
