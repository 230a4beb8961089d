//! Bytes of PostgreSQL's binary format into rows of fields.

use henge_engine::{Error, Result};

use super::fields::Row;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The longest field that is taken, as long as the longest row of text.
const FIELD_LIMIT_BYTES: usize = 64 << 20;
/// The longest extension of a header. None is known to exist.
const EXTENSION_LIMIT_BYTES: usize = 1 << 20;

/// Takes bytes as they come, and gives rows as soon as they are whole.
#[derive(Debug, Default)]
pub(super) struct Tuples {
    buffer: Vec<u8>,
    /// What of the buffer was given out.
    taken: usize,
    begun: bool,
    finished: bool,
    /// The trailer, after which nothing counts.
    ended: bool,
}

impl Tuples {
    pub(super) fn feed(&mut self, data: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(data);
    }

    /// No more bytes will come. Whether there is nothing left to give out.
    pub(super) fn finish(&mut self) -> bool {
        self.finished = true;
        self.begun && (self.taken == self.buffer.len() || self.ended)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The next whole row. What ends in the middle of one is an error once nothing more will come.
    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        if self.ended {
            return Ok(None);
        }
        if !self.begun && !self.header()? {
            return self.unfinished("no header");
        }
        if self.taken == self.buffer.len() {
            return Ok(None);
        }
        let mut at = self.taken;
        match self.row(&mut at)? {
            Some(row) => {
                self.taken = at;
                Ok(Some(row))
            }
            None if self.ended => Ok(None),
            None => self.unfinished("unexpected end in the middle of a row"),
        }
    }

    fn unfinished(&self, why: &str) -> Result<Option<Row>> {
        if self.finished { Err(wrong(why.to_owned())) } else { Ok(None) }
    }

    /// Reads the header, if it is whole.
    fn header(&mut self) -> Result<bool> {
        let known = self.buffer.len().min(SIGNATURE.len());
        if self.buffer[..known] != SIGNATURE[..known] {
            return Err(wrong("COPY file signature not recognized: this is not PostgreSQL's binary format".to_owned()));
        }
        let mut at = SIGNATURE.len();
        let (Some(flags), Some(length)) = (self.long(&mut at), self.long(&mut at)) else { return Ok(false) };
        if flags as u32 >> 16 != 0 {
            return Err(wrong("unrecognized critical flags in COPY file header".to_owned()));
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= EXTENSION_LIMIT_BYTES);
        let length = length.ok_or_else(|| wrong("invalid COPY file header (wrong length)".to_owned()))?;
        if self.buffer.len() < at + length {
            return Ok(false);
        }
        (self.begun, self.taken) = (true, at + length);
        Ok(true)
    }

    fn row(&mut self, at: &mut usize) -> Result<Option<Row>> {
        let Some(count) = self.bytes(at, 2).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]])) else {
            return Ok(None);
        };
        if count == -1 {
            self.ended = true;
            return Ok(None);
        }
        let count = usize::try_from(count).map_err(|_| wrong(format!("a row of {count} fields")))?;
        let mut row = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(length) = self.long(at) else { return Ok(None) };
            let field = match length {
                -1 => None,
                length => {
                    let length = usize::try_from(length).ok().filter(|length| *length <= FIELD_LIMIT_BYTES);
                    let length = length.ok_or_else(|| wrong("invalid field size".to_owned()))?;
                    let Some(bytes) = self.bytes(at, length) else { return Ok(None) };
                    Some(bytes.to_vec())
                }
            };
            row.push(field);
        }
        Ok(Some(row))
    }

    fn long(&self, at: &mut usize) -> Option<i32> {
        self.bytes(at, 4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn bytes(&self, at: &mut usize, length: usize) -> Option<&[u8]> {
        let bytes = self.buffer.get(*at..*at + length)?;
        *at += length;
        Some(bytes)
    }
}

fn wrong(message: String) -> Error {
    Error::invalid_input(message).with_sqlstate("22P04")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rows: &[&[Option<&[u8]>]], trailer: bool) -> Vec<u8> {
        let mut bytes = [SIGNATURE, &[0; 8]].concat();
        for row in rows {
            bytes.extend((row.len() as i16).to_be_bytes());
            for field in *row {
                bytes.extend(field.map_or(-1, |field| field.len() as i32).to_be_bytes());
                bytes.extend(field.unwrap_or_default());
            }
        }
        if trailer {
            bytes.extend((-1_i16).to_be_bytes());
        }
        bytes
    }

    /// Fed by `step` bytes at a time.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<Row>> {
        let mut tuples = Tuples::default();
        let mut rows = Vec::new();
        for part in bytes.chunks(step) {
            tuples.feed(part);
            while let Some(row) = tuples.next()? {
                rows.push(row);
            }
        }
        if !tuples.finish() {
            while let Some(row) = tuples.next()? {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    #[test]
    fn rows_are_read_however_they_are_cut() {
        let rows: &[&[Option<&[u8]>]] = &[&[Some(b"a"), None], &[Some(b""), Some(b"bc")]];
        for (trailer, step) in [(true, 1), (true, 7), (false, 1), (true, 1000)] {
            let read = read(&file(rows, trailer), step).unwrap();
            assert_eq!(read, [vec![Some(b"a".to_vec()), None], vec![Some(Vec::new()), Some(b"bc".to_vec())]]);
        }
        assert!(read(&file(&[], true), 3).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_the_format_or_ends_early_is_an_error() {
        let whole = file(&[&[Some(b"abc")]], false);
        for end in 1..whole.len() {
            // After the header alone there are no rows, which is fine.
            assert_eq!(read(&whole[..end], 5).is_err(), end != SIGNATURE.len() + 8, "{end}");
        }
        assert!(read(b"id,name\n1,a\n", 4).is_err());
        assert!(read(&[SIGNATURE, &[0, 1, 0, 0, 0, 0, 0, 0]].concat(), 4).is_err());
        assert!(read(&[whole.as_slice(), &[0, 1, 0x7f, 0xff, 0xff, 0xff]].concat(), 4).is_err());
    }
}
