use std::io::Read;
use std::sync::Arc;

use super::Rows;
use crate::error::{Error, Result};
use crate::ingest::format::{LineFormat, RowEnd};

/// How much is read at a time, and how long a row may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineOptions {
    pub(crate) chunk_bytes: usize,
    pub(crate) max_row_bytes: usize,
}

/// Cuts a stream of bytes into chunks of whole rows, and counts their lines.
pub(super) struct LineReader {
    read: Box<dyn Read + Send>,
    name: Arc<str>,
    options: LineOptions,
    format: Arc<LineFormat>,
    row_end: RowEnd,
    /// Read, but not yet given out: begins with a row.
    carry: Vec<u8>,
    line: u64,
    ended: bool,
    /// Within a row that is too long.
    skipping: bool,
}

impl LineReader {
    /// Reads past a byte order mark, the lines to skip and the header.
    pub(super) fn new(
        read: Box<dyn Read + Send>,
        name: Arc<str>,
        format: &crate::ingest::spec::InputFormat,
        options: LineOptions,
    ) -> Result<Self> {
        let mut reader = Self {
            read,
            name,
            options,
            format: Arc::new(LineFormat::new(format)?),
            row_end: RowEnd::of(format),
            carry: Vec::new(),
            line: 1,
            ended: false,
            skipping: false,
        };
        reader.fill(options.chunk_bytes)?;
        if reader.carry.starts_with(b"\xef\xbb\xbf") {
            reader.carry.drain(..3);
        }
        for _ in 0..reader.format.skip_rows() {
            reader.first_row()?;
        }
        if reader.format.has_header()
            && let Some(header) = reader.first_row()?
        {
            let header = String::from_utf8_lossy(&header).into_owned();
            let format = LineFormat::with_header(format, &header);
            reader.format = Arc::new(format.map_err(|e| e.context("file", &reader.name))?);
        }
        Ok(reader)
    }

    /// The next rows and the line they begin at; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Rows)>> {
        loop {
            self.fill(self.options.chunk_bytes)?;
            if self.carry.is_empty() {
                return Ok(None);
            }
            if self.skipping {
                self.skip();
                continue;
            }
            if let Some(end) = self.last_row_end()? {
                let rest = self.carry.split_off(end);
                let bytes = std::mem::replace(&mut self.carry, rest);
                return Ok(Some(self.lines(bytes)));
            }
            let start = String::from_utf8_lossy(&self.carry[..self.carry.len().min(1000)]).into_owned();
            self.skipping = true;
            return Ok(Some((self.line, Rows::TooLong(start))));
        }
    }

    fn lines(&mut self, bytes: Vec<u8>) -> (u64, Rows) {
        let line = self.line;
        self.line += bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        (line, Rows::Lines { bytes, format: Arc::clone(&self.format) })
    }

    /// Where the last whole row of the carry ends, reading more as needed; `None` when the row is too long.
    fn last_row_end(&mut self) -> Result<Option<usize>> {
        loop {
            if let Some(end) = self.row_end.last(&self.carry) {
                return Ok(Some(end));
            }
            if self.ended {
                // The last row need not end with a line end; but if it has several lines, a quote was not closed: what
                // follows its first line is taken for rows again.
                let first_line = self.carry.iter().position(|byte| *byte == b'\n');
                return Ok(Some(first_line.map_or(self.carry.len(), |end| end + 1)));
            }
            if self.carry.len() >= self.options.max_row_bytes {
                let first_line = self.carry.iter().position(|byte| *byte == b'\n');
                return Ok(first_line.map(|end| end + 1));
            }
            self.fill(self.carry.len() * 2)?;
        }
    }

    /// Drops bytes up to and with the next line end.
    fn skip(&mut self) {
        match self.carry.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.carry.drain(..=end);
                self.line += 1;
                self.skipping = false;
            }
            None => self.carry.clear(),
        }
    }

    fn first_row(&mut self) -> Result<Option<Vec<u8>>> {
        if self.carry.is_empty() {
            return Ok(None);
        }
        let end = loop {
            if let Some(end) = self.row_end.first(&self.carry) {
                break end;
            }
            if self.ended {
                break self.carry.len();
            }
            if self.carry.len() >= self.options.max_row_bytes {
                return Err(Error::invalid_input("the header is longer than a row may be").context("file", &self.name));
            }
            self.fill(self.carry.len() * 2)?;
        };
        let row = self.carry.drain(..end).collect::<Vec<_>>();
        self.line += row.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        Ok(Some(row))
    }

    /// Reads until the carry has this many bytes, or the input ends.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let missing = bytes.saturating_sub(self.carry.len());
        if self.ended || missing == 0 {
            return Ok(());
        }
        self.carry.reserve_exact(missing);
        let read = self.read.by_ref().take(missing as u64).read_to_end(&mut self.carry);
        let read =
            read.map_err(|e| Error::runtime_failure(format!("`{}` cannot be read", self.name)).with_source(e))?;
        self.ended = read < missing;
        Ok(())
    }
}
