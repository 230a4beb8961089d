//! CSV and TSV: values in the order of the columns.

use super::RowEnd;
use crate::ingest::row::{Row, Slot, Span};

/// How values are set apart.
#[derive(Clone, Debug)]
pub(crate) struct Delimited {
    delimiter: char,
    quotes: Quotes,
    /// Splits a value into a list.
    list_delimiter: Option<String>,
}

/// Whether a value may stand in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotes {
    /// As in RFC 4180: `"a, ""b"""` is `a, "b"`.
    Rfc4180,
    None,
}

impl Delimited {
    pub(super) fn new(delimiter: char, quotes: Quotes, list_delimiter: Option<String>) -> Self {
        Self { delimiter, quotes, list_delimiter: list_delimiter.filter(|text| !text.is_empty()) }
    }

    /// Where a row ends.
    pub(super) fn row_end(&self) -> RowEnd {
        match self.quotes {
            Quotes::Rfc4180 => RowEnd::Quoted { delimiter: b',' },
            Quotes::None => RowEnd::Line,
        }
    }

    /// Reads the values of `line` (one row, without its end) into the fields, in order. An empty value without quotes
    /// is null. Fails when there are more values than fields, or quotes that do not fit.
    pub(super) fn read(&self, line: &str, fields: &[usize], row: &mut Row) -> Result<(), (usize, String)> {
        row.untyped_text = true;
        let mut at = 0;
        let mut place = 0;
        loop {
            let (value, end) = self.value(line, at, row)?;
            let Some(field) = fields.get(place) else {
                return Err((at, format!("more values than the {} columns", fields.len())));
            };
            let value = self.split(line, value, row);
            row.set(*field, value);
            place += 1;
            if end == line.len() {
                return Ok(());
            }
            at = end + self.delimiter.len_utf8();
        }
    }

    /// The values of a header.
    pub(super) fn header(&self, line: &str) -> Result<Vec<String>, (usize, String)> {
        let mut row = Row::default();
        let mut names = Vec::new();
        let mut at = 0;
        loop {
            let (value, end) = self.value(line, at, &mut row)?;
            let name = row.text(line, value).unwrap_or_default().trim();
            // A column without a name is called by its place, as in Druid.
            names.push(if name.is_empty() { format!("column_{}", names.len() + 1) } else { name.to_owned() });
            if end == line.len() {
                return Ok(names);
            }
            at = end + self.delimiter.len_utf8();
        }
    }

    /// The value that begins at `at`, and where it ends: at a delimiter or the line's end.
    fn value(&self, line: &str, at: usize, row: &mut Row) -> Result<(Slot, usize), (usize, String)> {
        let rest = &line[at..];
        if self.quotes == Quotes::Rfc4180 && rest.starts_with('"') {
            return self.quoted(line, at, row);
        }
        let length = rest.find(self.delimiter).unwrap_or(rest.len());
        let value = if length == 0 { Slot::Null } else { Slot::Line(Span { start: at, end: at + length }) };
        Ok((value, at + length))
    }

    fn quoted(&self, line: &str, at: usize, row: &mut Row) -> Result<(Slot, usize), (usize, String)> {
        let kept = row.scratch.len();
        let mut from = at + 1;
        let mut doubled = false;
        let end = loop {
            let quote = line[from..].find('"').ok_or_else(|| (at, "a quote that is not closed".to_owned()))? + from;
            if !line[quote + 1..].starts_with('"') {
                break quote;
            }
            row.scratch.push_str(&line[from..=quote]);
            doubled = true;
            from = quote + 2;
        };
        let value = match doubled {
            true => {
                row.scratch.push_str(&line[from..end]);
                Slot::Scratch(Span { start: kept, end: row.scratch.len() })
            }
            false => Slot::Line(Span { start: at + 1, end }),
        };
        match end + 1 == line.len() || line[end + 1..].starts_with(self.delimiter) {
            true => Ok((value, end + 1)),
            false => Err((end + 1, "text after a closing quote".to_owned())),
        }
    }

    fn split(&self, line: &str, value: Slot, row: &mut Row) -> Slot {
        let Some(delimiter) = &self.list_delimiter else { return value };
        let (text, base) = match value {
            Slot::Line(span) => (&line[span.start..span.end], span.start),
            Slot::Scratch(span) => (&row.scratch[span.start..span.end], span.start),
            _ => return value,
        };
        if !text.contains(delimiter.as_str()) {
            return value;
        }
        let start = row.items.len();
        let in_line = matches!(value, Slot::Line(_));
        let mut at = base;
        for part in text.split(delimiter.as_str()) {
            let span = Span { start: at, end: at + part.len() };
            at = span.end + delimiter.len();
            row.items.push(if in_line { Slot::Line(span) } else { Slot::Scratch(span) });
        }
        Slot::List(Span { start, end: row.items.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::row::Value;

    fn values(format: &Delimited, line: &str) -> Result<Vec<String>, (usize, String)> {
        let mut row = Row::default();
        let fields = (0..4).map(|n| row.fields.number(&n.to_string())).collect::<Vec<_>>();
        format.read(line, &fields, &mut row)?;
        let show = |value: Value<'_>| match value {
            Value::Null => "null".to_owned(),
            Value::Text(text) => text.into_owned(),
            Value::List(items) => format!("{items:?}").replace("Text", ""),
            other => format!("{other:?}"),
        };
        Ok(row.order().iter().map(|field| show(row.value(line, row.get(*field)))).collect())
    }

    #[test]
    fn csv_is_read_as_rfc_4180_says() {
        let csv = Delimited::new(',', Quotes::Rfc4180, Some("|".to_owned()));
        assert_eq!(values(&csv, r#"a,"b, ""c""",,"#).unwrap(), ["a", "b, \"c\"", "null", "null"]);
        assert_eq!(values(&csv, "a,\"b").map_err(|e| e.0), Err(2));
        assert_eq!(values(&csv, "\"\",x|y").unwrap(), ["", r#"[("x"), ("y")]"#]);
        assert_eq!(values(&csv, "1,2,3,4,5"), Err((8, "more values than the 4 columns".to_owned())));
        assert_eq!(values(&csv, "\"a\"b"), Err((3, "text after a closing quote".to_owned())));
        assert_eq!(csv.header("time,\"user, name\",").unwrap(), ["time", "user, name", "column_3"]);
    }

    #[test]
    fn tsv_knows_no_quotes() {
        let tsv = Delimited::new('\t', Quotes::None, None);
        assert_eq!(values(&tsv, "\"a\tb\"\t").unwrap(), ["\"a", "b\"", "null"]);
    }
}
