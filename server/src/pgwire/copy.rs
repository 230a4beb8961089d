//! `COPY … TO STDOUT`: rows as text, csv or PostgreSQL's binary file format.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use bytes::{BufMut, BytesMut};
use henge_engine::Result;

use super::command::{Copy, CopyFormat};
use super::encode::{Columns, Values, begin_message, end_message};

/// A message's type and length.
const MESSAGE_HEAD: usize = 5;

const BINARY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Writes CopyData messages.
#[derive(Debug)]
pub(super) struct CopyWriter {
    columns: Columns,
    options: Copy,
    /// The header of a binary copy is sent: it travels with the first row, as clients that read rows expect.
    started: AtomicBool,
}

impl CopyWriter {
    /// `columns` are all sent in the format that `options` name.
    pub(super) fn new(columns: Columns, options: Copy) -> Result<Self> {
        let code = i16::from(options.format == CopyFormat::Binary);
        Ok(Self { columns: columns.with_formats(&[code])?, options, started: AtomicBool::new(false) })
    }

    /// CopyOutResponse, and what stands before the first row.
    pub(super) fn put_start(&self, out: &mut BytesMut) {
        let binary = self.options.format == CopyFormat::Binary;
        let start = begin_message(out, b'H');
        out.put_u8(u8::from(binary));
        out.put_i16(self.columns.len() as i16);
        (0..self.columns.len()).for_each(|_| out.put_i16(i16::from(binary)));
        end_message(out, start);
        if !binary && self.options.header {
            let start = begin_message(out, b'd');
            for (i, name) in self.columns.names().enumerate() {
                self.put_delimiter(i, out);
                self.put_field(name.as_bytes(), out);
            }
            out.put_u8(b'\n');
            end_message(out, start);
        }
    }

    /// What stands after the last row, and CopyDone.
    pub(super) fn put_end(&self, out: &mut BytesMut) {
        if self.options.format == CopyFormat::Binary {
            let start = begin_message(out, b'd');
            self.put_header(out);
            out.put_i16(-1);
            end_message(out, start);
        }
        let start = begin_message(out, b'c');
        end_message(out, start);
    }

    pub(super) fn put_rows(&self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        if self.options.format == CopyFormat::Binary {
            return self.put_binary(batch, rows, out);
        }
        let values: Vec<Values<'_>> = batch.columns().iter().map(|array| Values::of(array)).collect::<Result<_>>()?;
        let mut field = BytesMut::new();
        for row in rows {
            let start = begin_message(out, b'd');
            for (i, values) in values.iter().enumerate() {
                self.put_delimiter(i, out);
                field.clear();
                if self.columns.put_text(values, row, &mut field)? {
                    self.put_field(&field, out);
                } else {
                    out.put_slice(self.options.null.as_bytes());
                }
            }
            out.put_u8(b'\n');
            end_message(out, start);
        }
        Ok(())
    }

    /// What stands before everything else in a binary copy, unless it does already.
    fn put_header(&self, out: &mut BytesMut) {
        if !self.started.swap(true, Ordering::Relaxed) {
            out.put_slice(BINARY_SIGNATURE);
            out.put_u64(0);
        }
    }

    /// A row of a binary copy is a DataRow's body.
    fn put_binary(&self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let first = rows.start..rows.start + 1;
        let mut row = BytesMut::new();
        self.columns.put_tuples(batch, first, b'd', &mut row)?;
        let start = begin_message(out, b'd');
        self.put_header(out);
        out.put_slice(&row[MESSAGE_HEAD..]);
        end_message(out, start);
        self.columns.put_tuples(batch, rows.start + 1..rows.end, b'd', out)
    }

    fn put_delimiter(&self, column: usize, out: &mut BytesMut) {
        if column > 0 {
            out.put_u8(self.options.delimiter);
        }
    }

    fn put_field(&self, field: &[u8], out: &mut BytesMut) {
        match self.options.format {
            CopyFormat::Csv => self.put_csv(field, out),
            _ => self.put_escaped(field, out),
        }
    }

    fn put_csv(&self, field: &[u8], out: &mut BytesMut) {
        let special = |byte: &u8| matches!(byte, b'"' | b'\n' | b'\r') || *byte == self.options.delimiter;
        let quoted = field.iter().any(special) || field == self.options.null.as_bytes() || field == b"\\.";
        if !quoted {
            return out.put_slice(field);
        }
        out.put_u8(b'"');
        for &byte in field {
            if byte == b'"' {
                out.put_u8(b'"');
            }
            out.put_u8(byte);
        }
        out.put_u8(b'"');
    }

    fn put_escaped(&self, field: &[u8], out: &mut BytesMut) {
        for &byte in field {
            let escape = match byte {
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                8 => b'b',
                11 => b'v',
                12 => b'f',
                byte if byte == self.options.delimiter => byte,
                byte => {
                    out.put_u8(byte);
                    continue;
                }
            };
            out.put_slice(&[b'\\', escape]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::super::encode::Zone;
    use super::*;

    fn copied(format: CopyFormat, null: &str) -> String {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a,\"b\""), None, Some("x\ty\\"), Some("")]));
        let batch = RecordBatch::try_from_iter([("c", texts)]).unwrap();
        let columns = Columns::new(&batch.schema(), Zone::Utc);
        let delimiter = if format == CopyFormat::Csv { b',' } else { b'\t' };
        let options = Copy { query: String::new(), format, header: false, delimiter, null: null.to_string() };
        let mut out = BytesMut::new();
        CopyWriter::new(columns, options).unwrap().put_rows(&batch, 0..4, &mut out).unwrap();
        let mut text = Vec::new();
        while !out.is_empty() {
            let length = u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize;
            text.extend_from_slice(&out.split_to(length + 1)[5..]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn csv_quotes_what_would_be_misread() {
        assert_eq!(copied(CopyFormat::Csv, ""), "\"a,\"\"b\"\"\"\n\nx\ty\\\n\"\"\n");
    }

    #[test]
    fn text_escapes_tabs_and_backslashes() {
        assert_eq!(copied(CopyFormat::Text, "\\N"), "a,\"b\"\n\\N\nx\\ty\\\\\n\n");
    }
}
