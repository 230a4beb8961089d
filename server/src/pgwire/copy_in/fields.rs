//! Bytes of PostgreSQL's text and csv formats into rows of fields.

use henge_engine::{Error, Result};

/// The longest row that is taken.
const ROW_LIMIT_BYTES: usize = 64 << 20;

/// Fields of a row; `None` is null.
pub(super) type Row = Vec<Option<Vec<u8>>>;

/// Takes bytes as they come, and gives rows as soon as they are whole.
#[derive(Debug)]
pub(super) struct Fields {
    csv: bool,
    delimiter: u8,
    null: Vec<u8>,
    buffer: Vec<u8>,
    /// What of the buffer was given out.
    taken: usize,
    finished: bool,
    /// The line `\.`, after which nothing counts.
    ended: bool,
}

impl Fields {
    pub(super) fn new(csv: bool, delimiter: u8, null: Vec<u8>) -> Self {
        Self { csv, delimiter, null, buffer: Vec::new(), taken: 0, finished: false, ended: false }
    }

    pub(super) fn feed(&mut self, data: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(data);
    }

    /// No more bytes will come. Whether there is nothing left to give out.
    pub(super) fn finish(&mut self) -> bool {
        self.finished = true;
        self.rest().is_empty() || self.ended
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// The next whole row.
    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        if self.ended || self.rest().is_empty() {
            return Ok(None);
        }
        let Some((end, next)) = self.line_end() else {
            if self.rest().len() > ROW_LIMIT_BYTES {
                return Err(Error::capacity_exceeded("a row of COPY is longer than 64 MB").with_sqlstate("54000"));
            }
            return Ok(None);
        };
        let line = self.rest()[..end].to_vec();
        self.taken += next;
        if line == b"\\." {
            self.ended = true;
            return Ok(None);
        }
        Ok(Some(if self.csv { self.csv_row(&line)? } else { self.text_row(&line) }))
    }

    /// Where the first line ends, and where the next one begins.
    fn line_end(&self) -> Option<(usize, usize)> {
        let rest = self.rest();
        let mut quoted = false;
        let mut escaped = false;
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'"' if self.csv => quoted = !quoted,
                b'\\' if !self.csv && !escaped => {
                    escaped = true;
                    continue;
                }
                b'\n' if !quoted && !escaped => {
                    let end = if at > 0 && rest[at - 1] == b'\r' { at - 1 } else { at };
                    return Some((end, at + 1));
                }
                _ => {}
            }
            escaped = false;
        }
        self.finished.then_some((rest.len(), rest.len()))
    }

    fn text_row(&self, line: &[u8]) -> Row {
        let mut row = Vec::new();
        let mut field = Vec::new();
        let mut start = 0;
        let mut at = 0;
        loop {
            match line.get(at) {
                Some(b'\\') if at + 1 < line.len() => {
                    at += unescape(&line[at..], &mut field);
                }
                Some(byte) if *byte != self.delimiter => {
                    field.push(*byte);
                    at += 1;
                }
                end => {
                    // Null is told by how it is written, before escapes are read.
                    let value = (line[start..at] != self.null[..]).then(|| std::mem::take(&mut field));
                    field.clear();
                    row.push(value);
                    at += 1;
                    start = at;
                    if end.is_none() {
                        return row;
                    }
                }
            }
        }
    }

    fn csv_row(&self, line: &[u8]) -> Result<Row> {
        let mut row = Vec::new();
        let mut field = Vec::new();
        let (mut quoted, mut in_quotes) = (false, false);
        let mut bytes = line.iter().copied().peekable();
        loop {
            match bytes.next() {
                Some(b'"') if in_quotes && bytes.peek() == Some(&b'"') => {
                    bytes.next();
                    field.push(b'"');
                }
                Some(b'"') => {
                    in_quotes = !in_quotes;
                    quoted = true;
                }
                Some(byte) if in_quotes || byte != self.delimiter => field.push(byte),
                None if in_quotes => {
                    return Err(Error::invalid_input("unterminated CSV quoted field").with_sqlstate("22P04"));
                }
                end => {
                    let is_null = !quoted && field == self.null;
                    row.push((!is_null).then(|| std::mem::take(&mut field)));
                    field.clear();
                    quoted = false;
                    if end.is_none() {
                        return Ok(row);
                    }
                }
            }
        }
    }
}

/// Reads what a backslash begins; says how long it is.
fn unescape(bytes: &[u8], field: &mut Vec<u8>) -> usize {
    let digits = |from: usize, most: usize, radix: u32| {
        bytes[from..].iter().take(most).take_while(|byte| char::from(**byte).is_digit(radix)).count()
    };
    let value = |from: usize, count: usize, radix: u32| {
        bytes[from..from + count]
            .iter()
            .fold(0_u32, |value, byte| value * radix + char::from(*byte).to_digit(radix).unwrap_or(0)) as u8
    };
    match bytes[1] {
        b'b' => field.push(8),
        b'f' => field.push(12),
        b'n' => field.push(b'\n'),
        b'r' => field.push(b'\r'),
        b't' => field.push(b'\t'),
        b'v' => field.push(11),
        b'0'..=b'7' => {
            let count = digits(1, 3, 8);
            field.push(value(1, count, 8));
            return 1 + count;
        }
        b'x' if digits(2, 2, 16) > 0 => {
            let count = digits(2, 2, 16);
            field.push(value(2, count, 16));
            return 2 + count;
        }
        other => field.push(other),
    }
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of `text`, fed byte by byte, with `NULL` for null.
    fn rows(csv: bool, null: &str, text: &str) -> Vec<Vec<String>> {
        let mut fields = Fields::new(csv, if csv { b',' } else { b'\t' }, null.as_bytes().to_vec());
        let mut rows = Vec::new();
        let mut take = |fields: &mut Fields| {
            while let Some(row) = fields.next().unwrap() {
                let shown =
                    |field: Option<Vec<u8>>| field.map_or("NULL".to_string(), |f| String::from_utf8(f).unwrap());
                rows.push(row.into_iter().map(shown).collect());
            }
        };
        for byte in text.bytes() {
            fields.feed(&[byte]);
            take(&mut fields);
        }
        fields.finish();
        take(&mut fields);
        rows
    }

    #[test]
    fn text_is_read_with_its_escapes_and_nulls() {
        assert_eq!(rows(false, "\\N", "a\\tb\t\\N\nc\\\\\t\\x41\\102\n"), [["a\tb", "NULL"], ["c\\", "AB"]]);
        assert_eq!(rows(false, "\\N", "a\\\nb\tc\r\n\\.\nx\ty\n"), [["a\nb", "c"]]);
        assert_eq!(rows(false, "", "a\t\n"), [["a", "NULL"]]);
        assert_eq!(rows(false, "\\N", "last\tone"), [["last", "one"]]);
    }

    #[test]
    fn csv_is_read_with_its_quotes_and_nulls() {
        assert_eq!(rows(true, "", "a,\"b,\"\"c\"\"\n\",\n"), [["a", "b,\"c\"\n", "NULL"]]);
        assert_eq!(rows(true, "", "\"\",x\n"), [["", "x"]]);
        assert_eq!(rows(true, "NULL", ",NULL\r\n"), [["", "NULL"]]);
    }

    #[test]
    fn a_quote_that_does_not_end_is_an_error() {
        let mut fields = Fields::new(true, b',', Vec::new());
        fields.feed(b"\"a\n");
        assert!(fields.next().unwrap().is_none());
        fields.finish();
        assert!(fields.next().is_err());
    }
}
