//! Records as text that the row parser reads.
//!
//! Each record ends with a line end, so that many are parsed at once and yet a broken one spoils no other: line ends
//! within a JSON value become returns, which JSON takes for the same space, and CSV with quotes that do not close is
//! parsed apart.

use std::io::Write;

use henge_engine::ingest::stream::{Partition, Record};
use henge_engine::ingest::{BadRow, InputFormat};

use super::judge::Positions;
use super::spec::{Envelope, RecordFormat};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Records that came one after another.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    places: Vec<Place>,
    /// Records without a value, of which there is no row.
    pub(super) empty: u64,
    lines: u64,
}

/// Where a record is in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    partition: Partition,
    offset: u64,
    /// Where it begins.
    byte: usize,
    line: u64,
    is_empty: bool,
}

impl Text {
    pub(super) fn num_records(&self) -> usize {
        self.places.len()
    }

    /// Of each partition, the offset after the last.
    pub(super) fn reached(&self) -> Positions {
        self.places.iter().map(|place| (place.partition, place.offset + 1)).collect()
    }

    /// The first half and the second.
    pub(super) fn halves(self) -> (Self, Self) {
        let at = self.places.len() / 2;
        let (byte, line) = self.places.get(at).map_or((self.bytes.len(), self.lines), |place| (place.byte, place.line));
        let (first, second) = self.places.split_at(at);
        let empty = |places: &[Place]| places.iter().filter(|place| place.is_empty).count() as u64;
        let moved = |place: &Place| Place { byte: place.byte - byte, line: place.line - line, ..*place };
        let second = Self {
            bytes: self.bytes[byte..].to_vec(),
            empty: empty(second),
            places: second.iter().map(moved).collect(),
            lines: self.lines - line,
        };
        let mut bytes = self.bytes;
        bytes.truncate(byte);
        (Self { bytes, empty: empty(first), places: first.to_vec(), lines: line }, second)
    }

    /// A bad row by the record that it came in.
    pub(super) fn told(&self, topic: &str, bad: &BadRow) -> String {
        let line = bad.line.saturating_sub(1);
        let after = self.places.partition_point(|place| place.line <= line);
        let place = after.checked_sub(1).and_then(|at| self.places.get(at));
        let (partition, offset) = place.map_or((0, 0), |place| (place.partition, place.offset));
        format!("`{topic}`, partition {partition}, offset {offset}: row {}: {}", bad.reason, bad.message)
    }
}

/// Makes text of records.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    format: &'a RecordFormat,
    topic: &'a str,
    /// More than one only where some records are parsed apart.
    pub(super) texts: Vec<Text>,
    is_apart: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(format: &'a RecordFormat, topic: &'a str) -> Self {
        Self { format, topic, texts: vec![Text::default()], is_apart: false }
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.texts.iter().map(|text| text.bytes.len()).sum()
    }

    pub(super) fn num_records(&self) -> usize {
        self.texts.iter().map(Text::num_records).sum()
    }

    pub(super) fn add(&mut self, record: &Record<'_>) {
        let value = record.value.unwrap_or_default();
        let value = value.strip_prefix(BYTE_ORDER_MARK).unwrap_or(value);
        let apart = matches!(self.format, RecordFormat::Value(InputFormat::Csv { .. })) && has_open_quote(value);
        if (apart || self.is_apart) && self.texts.last().is_some_and(|text| text.num_records() > 0) {
            self.texts.push(Text::default());
        }
        self.is_apart = apart;
        let Some(text) = self.texts.last_mut() else { return };
        let (byte, line) = (text.bytes.len(), text.lines);
        match self.format {
            RecordFormat::Envelope(envelope) => add_envelope(&mut text.bytes, envelope, self.topic, record, value),
            RecordFormat::Value(InputFormat::Json { .. }) => {
                each_json(value, |row| {
                    add_line(&mut text.bytes, row);
                });
            }
            RecordFormat::Value(_) => text.bytes.extend_from_slice(value),
        }
        if text.bytes.len() > byte && text.bytes.last() != Some(&b'\n') {
            text.bytes.push(b'\n');
        }
        let is_empty = text.bytes[byte..].trim_ascii().is_empty();
        if is_empty {
            text.bytes.truncate(byte);
            text.empty += 1;
        }
        text.lines += text.bytes[byte..].iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        let Record { partition, offset, .. } = record;
        text.places.push(Place { partition: *partition, offset: *offset, byte, line, is_empty });
    }
}

/// Whether a quote that opens a value is not closed: then what follows would be taken for a part of it.
fn has_open_quote(value: &[u8]) -> bool {
    value.iter().filter(|byte| **byte == b'"').count() % 2 == 1
}

/// The objects of a value: one, also where it has several lines, or one a line.
fn each_json<'v>(value: &'v [u8], mut take: impl FnMut(&'v [u8])) {
    if !value.contains(&b'\n') {
        return take(value);
    }
    let lines = || value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    match lines().all(|line| line.starts_with(b"{") && line.ends_with(b"}")) {
        true => lines().for_each(take),
        false => take(value),
    }
}

/// Adds a value as one line.
fn add_line(to: &mut Vec<u8>, value: &[u8]) {
    let start = to.len();
    to.extend_from_slice(value);
    if value.contains(&b'\n') {
        to[start..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b'\r');
    }
    to.push(b'\n');
}

/// Adds the objects of a value with the fields of its record before their own, which win where they have the same name.
fn add_envelope(to: &mut Vec<u8>, envelope: &Envelope, topic: &str, record: &Record<'_>, value: &[u8]) {
    let mut fields = Vec::new();
    let mut field = |name: &str, value: serde_json::Value| {
        let comma = if fields.is_empty() { "" } else { "," };
        // Memory takes all that is written.
        let _ = write!(fields, "{comma}{}:{value}", serde_json::Value::from(name));
    };
    let text = |bytes: &[u8]| serde_json::Value::from(String::from_utf8_lossy(bytes));
    if let Some(timestamp) = record.timestamp {
        field(&envelope.timestamp_column_name, timestamp.into());
    }
    field(&envelope.topic_column_name, topic.into());
    if let (Some(name), Some(key)) = (envelope.key_column(), record.key) {
        field(name, text(key));
    }
    if envelope.header_format.is_some() {
        for (name, value) in &record.headers {
            let name = format!("{}{name}", envelope.header_column_prefix);
            field(&name, value.map_or(serde_json::Value::Null, text));
        }
    }
    let mut add = |value: &[u8]| match value.trim_ascii().strip_prefix(b"{") {
        // No object: it is told as what it is.
        None => add_line(to, value),
        Some(rest) => {
            to.push(b'{');
            to.extend_from_slice(&fields);
            if !rest.trim_ascii_start().starts_with(b"}") {
                to.push(b',');
            }
            add_line(to, rest);
        }
    };
    match value.is_empty() {
        true => add(b"{}"),
        false => each_json(value, add),
    }
}

#[cfg(test)]
mod tests {
    use henge_engine::ingest::Reason;

    use super::*;

    fn record<'a>(offset: u64, value: Option<&'a [u8]>) -> Record<'a> {
        Record {
            partition: 1,
            offset,
            timestamp: Some(77),
            key: Some(b"k\"1"),
            value,
            headers: vec![("h", Some(b"x"))],
        }
    }

    fn texts(format: serde_json::Value, values: &[Option<&[u8]>]) -> Vec<Text> {
        let format = super::super::spec::tests_format(&format);
        let mut writer = Writer::new(&format, "t");
        for (offset, value) in (5..).zip(values) {
            writer.add(&record(offset, *value));
        }
        writer.texts
    }

    fn shown(text: &Text) -> &str {
        std::str::from_utf8(&text.bytes).unwrap()
    }

    #[test]
    fn a_record_is_a_line_or_several_and_one_without_a_value_is_counted() {
        let json = serde_json::json!({"type": "json"});
        let texts = texts(
            json,
            &[Some(b"{\"a\":1}"), None, Some(b"{\n \"a\":2\n}"), Some(b"{\"a\":3}\n{\"a\":4}\n"), Some(b" ")],
        );
        let [text] = texts.as_slice() else { panic!("{texts:?}") };
        assert_eq!(shown(text), "{\"a\":1}\n{\r \"a\":2\r}\n{\"a\":3}\n{\"a\":4}\n");
        assert_eq!((text.empty, text.num_records(), text.reached()), (2, 5, Positions::from([(1, 10)])));
        let bad = |line| BadRow {
            file: "t".into(),
            line,
            column: None,
            reason: Reason::Unparseable,
            message: "m".to_owned(),
            row: String::new(),
        };
        for (line, offset) in [(1, 5), (2, 7), (3, 8), (4, 8)] {
            assert!(text.told("t", &bad(line)).contains(&format!("partition 1, offset {offset}:")), "{line}");
        }
    }

    #[test]
    fn halves_have_all_records_between_them() {
        let json = serde_json::json!({"type": "json"});
        let mut texts = texts(json, &[Some(b"{\"a\":1}"), None, Some(b"{\"a\":2}"), Some(b"{\"a\":3}")]);
        let (first, second) = texts.remove(0).halves();
        assert_eq!((shown(&first), first.empty, first.reached()), ("{\"a\":1}\n", 1, Positions::from([(1, 7)])));
        assert_eq!(shown(&second), "{\"a\":2}\n{\"a\":3}\n");
        assert_eq!((second.empty, second.num_records(), second.reached()), (0, 2, Positions::from([(1, 9)])));
        let (third, fourth) = second.halves();
        assert_eq!((shown(&third), shown(&fourth)), ("{\"a\":2}\n", "{\"a\":3}\n"));
    }

    #[test]
    fn csv_with_a_quote_that_does_not_close_spoils_no_other_record() {
        let csv = serde_json::json!({"type": "csv", "columns": ["a", "b"]});
        let texts = texts(csv, &[Some(b"1,x"), Some(b"2,\"y"), Some(b"3,z"), Some(b"4,\"w\nw\"")]);
        assert_eq!(texts.iter().map(shown).collect::<Vec<_>>(), ["1,x\n", "2,\"y\n", "3,z\n4,\"w\nw\"\n"]);
    }

    #[test]
    fn an_envelope_adds_fields_that_the_value_may_overrule() {
        let format = serde_json::json!({
            "type": "kafka", "valueFormat": {"type": "json"}, "headerFormat": {"type": "string"},
            "keyFormat": {"type": "tsv", "findColumnsFromHeader": false, "columns": ["k"]}
        });
        let texts = texts(format, &[Some(b" {\"a\":1}"), Some(b"{ }"), None, Some(b"7")]);
        let fields = r#""kafka.timestamp":77,"kafka.topic":"t","kafka.key":"k\"1","kafka.header.h":"x""#;
        let expected = [
            format!("{{{fields},\"a\":1}}\n"),
            format!("{{{fields} }}\n"),
            format!("{{{fields}}}\n"),
            "7\n".to_owned(),
        ];
        assert_eq!(shown(&texts[0]), expected.concat());
        assert_eq!(texts[0].empty, 0);
    }
}
