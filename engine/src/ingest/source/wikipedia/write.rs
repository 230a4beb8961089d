//! Edits as files and as Arrow: NDJSON, CSV, Parquet, record batches.

use std::borrow::Borrow;
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Int64Builder, RecordBatch, StringBuilder, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::column::{Column, Precision, Value, columns};
use super::{DAY_MS, Edit, Wikipedia};
use crate::error::{Error, Result};
use crate::model::Timestamp;

/// Bytes gathered before they are handed on.
const BUFFER_BYTES: usize = 1 << 18;
const PARQUET_BATCH_ROWS: usize = 8192;

/// What kind of file to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line; what is not known is `null`.
    Json,
    /// With a header; what is not known is empty.
    Csv,
    /// Compressed with zstd.
    Parquet,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::invalid_input(format!("`{text}` cannot be generated; use `json`, `csv` or `parquet`"))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        })
    }
}

impl Wikipedia {
    /// Writes all rows. Fails only if `out` does.
    pub fn write(&self, format: Format, out: &mut (dyn Write + Send)) -> Result<()> {
        match format {
            Format::Json => self.write_json(0..self.options.rows, out),
            Format::Csv => self.write_csv(0..self.options.rows, out),
            Format::Parquet => self.write_parquet(out),
        }
    }

    /// Writes `rows` as NDJSON; the files of neighbouring spans, put together, are the file of the whole.
    pub fn write_json(&self, rows: Range<u64>, out: &mut dyn Write) -> Result<()> {
        self.write_json_at(rows, None, out)
    }

    /// The same, as if all of them had happened at `time`.
    pub fn write_json_at(&self, rows: Range<u64>, time: Option<Timestamp>, out: &mut dyn Write) -> Result<()> {
        let keys: Vec<Vec<u8>> = self.columns().iter().enumerate().map(json_key).collect();
        self.write_rows((rows, time), out, Vec::new(), |writer, columns, edit| {
            for (column, key) in columns.iter().zip(&keys) {
                writer.bytes.extend_from_slice(key);
                writer.json(column.value, edit);
            }
            writer.bytes.push(b'}');
        })
    }

    /// Writes `rows` as CSV; the header comes before row 0.
    pub fn write_csv(&self, rows: Range<u64>, out: &mut dyn Write) -> Result<()> {
        let mut header = Vec::new();
        if rows.start == 0 {
            header = self.columns().iter().map(|column| column.name).collect::<Vec<_>>().join(",").into_bytes();
            header.push(b'\n');
        }
        self.write_rows((rows, None), out, header, |writer, columns, edit| {
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    writer.bytes.push(b',');
                }
                writer.csv(column.value, edit);
            }
        })
    }

    fn write_rows(
        &self,
        (rows, time): (Range<u64>, Option<Timestamp>),
        out: &mut dyn Write,
        header: Vec<u8>,
        mut write_row: impl FnMut(&mut Text, &[Column], &Edit<'_>),
    ) -> Result<()> {
        let mut text = Text { bytes: header, day: i64::MIN, date: String::new() };
        let (mut page, mut user, mut comment) = (String::new(), String::new(), String::new());
        for row in rows {
            let mut edit = self.edit_into(row, &mut page, &mut user, &mut comment);
            edit.time = time.unwrap_or(edit.time);
            write_row(&mut text, self.columns(), &edit);
            text.bytes.push(b'\n');
            (page, user, comment) = (edit.page, edit.user, edit.comment);
            if text.bytes.len() >= BUFFER_BYTES {
                out.write_all(&text.bytes).map_err(cannot_write)?;
                text.bytes.clear();
            }
        }
        out.write_all(&text.bytes).map_err(cannot_write)
    }

    fn write_parquet(&self, out: &mut (dyn Write + Send)) -> Result<()> {
        let level = ZstdLevel::try_new(3).map_err(cannot_write)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let mut writer = ArrowWriter::try_new(out, self.schema(), Some(properties)).map_err(cannot_write)?;
        for batch in self.batches(PARQUET_BATCH_ROWS) {
            writer.write(&batch?).map_err(cannot_write)?;
        }
        writer.close().map_err(cannot_write)?;
        Ok(())
    }

    /// The Arrow schema: the time column as `Timestamp(Millisecond, None)`, flags of wikiticker as `Boolean`.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.columns().iter().map(|column| {
            let (data_type, nullable) = match column.value {
                Value::Time(_) => (DataType::Timestamp(TimeUnit::Millisecond, None), false),
                Value::Text(_) | Value::String(_) | Value::FlagText(_) => (DataType::Utf8, false),
                Value::MaybeString(_) => (DataType::Utf8, true),
                Value::Flag(_) => (DataType::Boolean, false),
                Value::Number(_) => (DataType::Int64, false),
                Value::MaybeNumber(_) => (DataType::Int64, true),
            };
            Field::new(column.name, data_type, nullable)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// All rows as record batches of `batch_rows` each, the last smaller.
    pub fn batches(&self, batch_rows: usize) -> Batches<&Self> {
        Batches::new(self, batch_rows)
    }

    /// The same, without borrowing.
    pub fn into_batches(self, batch_rows: usize) -> Batches<Self> {
        Batches::new(self, batch_rows)
    }

    fn columns(&self) -> &'static [Column] {
        columns(self.options.shape)
    }
}

/// See [`Wikipedia::batches`].
#[derive(Debug)]
pub struct Batches<W> {
    wikipedia: W,
    schema: SchemaRef,
    next: u64,
    batch_rows: u64,
}

impl<W: Borrow<Wikipedia>> Batches<W> {
    fn new(wikipedia: W, batch_rows: usize) -> Self {
        let schema = wikipedia.borrow().schema();
        Self { wikipedia, schema, next: 0, batch_rows: batch_rows.max(1) as u64 }
    }
}

impl<W: Borrow<Wikipedia>> Iterator for Batches<W> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let wikipedia = self.wikipedia.borrow();
        let rows = self.next..(self.next + self.batch_rows).min(wikipedia.options.rows);
        if rows.is_empty() {
            return None;
        }
        self.next = rows.end;
        let edits: Vec<Edit<'_>> = rows.map(|row| wikipedia.edit(row)).collect();
        let columns = wikipedia.columns().iter().map(|column| array(column.value, &edits)).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        Some(batch.map_err(|error| Error::defensive("generated columns do not fit their schema").with_source(error)))
    }
}

fn array(value: Value, edits: &[Edit<'_>]) -> ArrayRef {
    match value {
        Value::Time(precision) => {
            Arc::new(TimestampMillisecondArray::from_iter_values(edits.iter().map(|edit| precision.round(edit.time))))
        }
        Value::Text(text) => strings(edits, |edit| Some(text(edit))),
        Value::String(text) => strings(edits, |edit| Some(text(edit))),
        Value::MaybeString(text) => strings(edits, text),
        Value::FlagText(flag) => strings(edits, |edit| Some(flag_text(flag(edit)))),
        Value::Flag(flag) => {
            let mut builder = BooleanBuilder::with_capacity(edits.len());
            edits.iter().for_each(|edit| builder.append_value(flag(edit)));
            Arc::new(builder.finish())
        }
        Value::Number(number) => numbers(edits, |edit| Some(number(edit))),
        Value::MaybeNumber(number) => numbers(edits, number),
    }
}

fn strings<'a, 'e: 'a>(edits: &'a [Edit<'e>], text: impl Fn(&'a Edit<'e>) -> Option<&'a str>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(edits.len(), edits.len() * 16);
    edits.iter().for_each(|edit| builder.append_option(text(edit)));
    Arc::new(builder.finish())
}

fn numbers<'e>(edits: &[Edit<'e>], number: impl Fn(&Edit<'e>) -> Option<i64>) -> ArrayRef {
    let mut builder = Int64Builder::with_capacity(edits.len());
    edits.iter().for_each(|edit| builder.append_option(number(edit)));
    Arc::new(builder.finish())
}

/// A text file as it grows, and the date last written.
struct Text {
    bytes: Vec<u8>,
    day: i64,
    date: String,
}

impl Text {
    fn json(&mut self, value: Value, edit: &Edit<'_>) {
        match value {
            Value::Time(precision) => {
                self.bytes.push(b'"');
                self.time(precision, edit);
                self.bytes.push(b'"');
            }
            Value::Text(text) => self.json_string(text(edit)),
            Value::String(text) => self.json_string(text(edit)),
            Value::FlagText(flag) => self.json_string(flag_text(flag(edit))),
            Value::MaybeString(text) => match text(edit) {
                Some(text) => self.json_string(text),
                None => self.text("null"),
            },
            Value::Flag(flag) => self.text(flag_text(flag(edit))),
            Value::Number(number) => self.number(number(edit)),
            Value::MaybeNumber(number) => match number(edit) {
                Some(number) => self.number(number),
                None => self.text("null"),
            },
        }
    }

    fn csv(&mut self, value: Value, edit: &Edit<'_>) {
        match value {
            Value::Time(precision) => self.time(precision, edit),
            Value::Text(text) => self.csv_string(text(edit)),
            Value::String(text) => self.csv_string(text(edit)),
            Value::MaybeString(text) => self.csv_string(text(edit).unwrap_or_default()),
            Value::Flag(flag) | Value::FlagText(flag) => self.text(flag_text(flag(edit))),
            Value::Number(number) => self.number(number(edit)),
            Value::MaybeNumber(number) => {
                if let Some(number) = number(edit) {
                    self.number(number);
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Names hold no control characters, so that quote and backslash are all that JSON forbids.
    fn json_string(&mut self, text: &str) {
        self.bytes.push(b'"');
        if text.bytes().any(|byte| byte == b'"' || byte == b'\\') {
            self.text(&text.replace('\\', "\\\\").replace('"', "\\\""));
        } else {
            self.text(text);
        }
        self.bytes.push(b'"');
    }

    fn csv_string(&mut self, text: &str) {
        if text.bytes().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
            self.bytes.push(b'"');
            self.text(&text.replace('"', "\"\""));
            self.bytes.push(b'"');
        } else {
            self.text(text);
        }
    }

    fn number(&mut self, number: i64) {
        let mut digits = [0; 20];
        let (mut at, mut rest) = (digits.len(), number.unsigned_abs());
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            self.bytes.push(b'-');
        }
        self.bytes.extend_from_slice(&digits[at..]);
    }

    /// `2013-08-01T00:00:00Z` or `2013-08-01T00:00:00.000Z`.
    fn time(&mut self, precision: Precision, edit: &Edit<'_>) {
        let millis = edit.time.millis();
        let day = millis.div_euclid(DAY_MS);
        if day != self.day {
            self.day = day;
            let date = DateTime::from_timestamp_millis(day * DAY_MS).unwrap_or_default();
            self.date = date.format("%Y-%m-%dT").to_string();
        }
        self.bytes.extend_from_slice(self.date.as_bytes());
        let in_day = millis.rem_euclid(DAY_MS);
        self.two_digits(in_day / 3_600_000);
        self.bytes.push(b':');
        self.two_digits(in_day / 60_000 % 60);
        self.bytes.push(b':');
        self.two_digits(in_day / 1000 % 60);
        if precision == Precision::Milliseconds {
            self.bytes.push(b'.');
            self.bytes.push(b'0' + (in_day % 1000 / 100) as u8);
            self.two_digits(in_day % 100);
        }
        self.bytes.push(b'Z');
    }

    fn two_digits(&mut self, number: i64) {
        self.bytes.extend([b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
    }
}

fn json_key((index, column): (usize, &Column)) -> Vec<u8> {
    let open = if index == 0 { '{' } else { ',' };
    format!("{open}\"{}\":", column.name).into_bytes()
}

fn flag_text(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}

fn cannot_write(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::runtime_failure("the generated rows cannot be written").with_source(error)
}
