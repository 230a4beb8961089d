//! What each thread does: takes chunks, parses their rows, collects them, and writes them out when memory is short.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::buffer::{RowBuffer, RowTime};
use super::format::LineFormat;
use super::plan::Plan;
use super::report::{BadRow, BadRows, Reason, RowStats};
use super::row::{Row, Slot, double_text};
use super::run::Run;
use super::source::batches::{Cells, cells_of};
use super::source::{Chunk, Inputs, Rows};
use super::timestamp::NoTime;
use super::transform::Applied;
use super::{Cancellation, Progress};
use crate::error::Result;

/// What the threads of an ingestion share.
pub(super) struct Shared<'a> {
    pub(super) plan: Arc<Plan>,
    pub(super) inputs: Inputs,
    pub(super) bad_rows: BadRows,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a Cancellation,
    /// Where runs are spilled to.
    pub(super) run_dir: PathBuf,
    /// A thread's buffer is written out when it holds more.
    pub(super) buffer_bytes: usize,
    pub(super) runs: Mutex<Vec<Run>>,
    pub(super) spills: AtomicU64,
    pub(super) stats: Mutex<RowStats>,
    /// Rows that happened before or after are late or early.
    pub(super) window: Window,
    /// A longer row is a bad one.
    pub(super) max_row_bytes: usize,
}

/// A span of time in milliseconds, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub earliest: i64,
    pub latest: i64,
}

impl Default for Window {
    /// All of time.
    fn default() -> Self {
        Self { earliest: i64::MIN, latest: i64::MAX }
    }
}

/// Rows between two looks at whether the ingestion was canceled.
const CANCEL_ROWS: u64 = 256;

impl Shared<'_> {
    /// Reads until all inputs are read, without writing anything out. What became of the rows is in the statistics.
    pub(super) fn collect(&self) -> Result<RowBuffer> {
        let mut worker = self.worker();
        let mut share = None;
        while let Some(chunk) = self.inputs.next(&mut share)? {
            worker.take(chunk)?;
        }
        let buffer = std::mem::replace(&mut worker.buffer, RowBuffer::new(Arc::clone(&self.plan), &mut worker.row));
        worker.finish()?;
        Ok(buffer)
    }

    fn worker(&self) -> Worker<'_> {
        let mut row = Row::default();
        let buffer = RowBuffer::new(Arc::clone(&self.plan), &mut row);
        let time_field = row.fields.number(&self.plan.time_column);
        Worker { shared: self, row, buffer, time_field, stats: RowStats::default(), filtered: 0 }
    }

    /// Reads until all inputs are read.
    pub(super) fn work(&self) -> Result<()> {
        let mut worker = self.worker();
        let mut share = None;
        let mut bytes_told = 0;
        while let Some(chunk) = self.inputs.next(&mut share)? {
            let before = worker.rows();
            worker.take(chunk)?;
            let bytes = self.inputs.bytes_read();
            self.progress.advanced(worker.rows() - before, bytes.saturating_sub(bytes_told));
            bytes_told = bytes_told.max(bytes);
            if worker.buffer.memory_bytes() > self.buffer_bytes {
                worker.spill()?;
            }
        }
        worker.finish()
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    row: Row,
    buffer: RowBuffer,
    time_field: usize,
    stats: RowStats,
    filtered: u64,
}

/// Where a row stands, to be said of a bad one.
#[derive(Clone, Copy)]
struct Place<'a> {
    chunk: &'a (usize, Arc<str>),
    line: u64,
    /// The row as it stands; a batch's row is put together only when asked.
    text: &'a dyn Fn() -> String,
}

impl Place<'_> {
    fn bad(&self, reason: Reason, message: String, column: Option<u64>) -> (usize, BadRow) {
        let (input, file) = self.chunk;
        let row = (self.text)();
        (*input, BadRow { file: Arc::clone(file), line: self.line, column, reason, message, row })
    }
}

impl Worker<'_> {
    fn rows(&self) -> u64 {
        let stats = &self.stats;
        stats.processed + stats.processed_with_error + stats.thrown_away + stats.unparseable
    }

    fn take(&mut self, chunk: Chunk) -> Result<()> {
        self.shared.cancel.check()?;
        let place = (chunk.input, chunk.name);
        match chunk.rows {
            Rows::Lines { bytes, format } => self.take_lines(&place, chunk.line, &bytes, &format),
            Rows::TooLong(start) => {
                let text = || start.clone();
                let place = Place { chunk: &place, line: chunk.line, text: &text };
                self.refuse(place, Reason::TooLong, "longer than a row may be at this memory limit".to_owned(), None)
            }
            Rows::Batch(batch) => {
                let cells = cells_of(&batch).map_err(|e| e.context("file", &place.1))?;
                let schema = batch.schema();
                let fields = schema.fields().iter().map(|field| self.row.fields.number(field.name()));
                let fields = fields.collect::<Vec<_>>();
                self.take_batch(&place, chunk.line, batch.num_rows(), &fields, &cells)
            }
        }
    }

    fn take_lines(&mut self, chunk: &(usize, Arc<str>), first: u64, bytes: &[u8], format: &LineFormat) -> Result<()> {
        let fields = format.fields(&mut self.row);
        let row_end = format.row_end();
        let (mut line, mut rest, mut since_check) = (first, bytes, 0);
        while !rest.is_empty() {
            let (row, after) = rest.split_at(row_end.first(rest).unwrap_or(rest.len()));
            rest = after;
            let number = line;
            line += match row_end {
                super::format::RowEnd::Line => 1,
                _ => row.iter().map(|byte| u64::from(*byte == b'\n')).sum(),
            };
            let row = row.strip_suffix(b"\n").unwrap_or(row);
            let row = row.strip_suffix(b"\r").unwrap_or(row);
            if row.trim_ascii().is_empty() {
                continue;
            }
            self.take_line(chunk, number, row, &fields, format)?;
            since_check += 1;
            if since_check % CANCEL_ROWS == 0 {
                self.shared.cancel.check()?;
            }
        }
        Ok(())
    }

    fn take_line(
        &mut self,
        chunk: &(usize, Arc<str>),
        line: u64,
        bytes: &[u8],
        fields: &[usize],
        format: &LineFormat,
    ) -> Result<()> {
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let place = Place { chunk, line, text: &text };
        if bytes.len() > self.shared.max_row_bytes {
            let message = format!("longer than {} bytes", self.shared.max_row_bytes);
            return self.refuse(place, Reason::TooLong, message, None);
        }
        let row = match std::str::from_utf8(bytes) {
            Ok(row) => row,
            Err(e) => {
                let column = Some(e.valid_up_to() as u64 + 1);
                return self.refuse(place, Reason::Unparseable, "not UTF-8".to_owned(), column);
            }
        };
        match format.read(row, fields, &mut self.row) {
            Ok(()) => self.take_row(place, row, None),
            Err(fault) => self.refuse(place, Reason::Unparseable, fault.message, Some(fault.position as u64 + 1)),
        }
    }

    fn take_batch(
        &mut self,
        chunk: &(usize, Arc<str>),
        first: u64,
        rows: usize,
        fields: &[usize],
        cells: &[Cells],
    ) -> Result<()> {
        self.row.untyped_text = false;
        for at in 0..rows {
            self.row.clear();
            let mut time = None;
            for (field, cells) in fields.iter().zip(cells) {
                let value = cells.read(at, &mut self.row);
                self.row.set(*field, value);
                if *field == self.time_field
                    && cells.is_time()
                    && let Slot::Long(millis) = value
                {
                    time = Some(millis);
                }
            }
            let text = || "a row of a batch".to_owned();
            self.take_row(Place { chunk, line: first + at as u64, text: &text }, "", time)?;
            if (at as u64).is_multiple_of(CANCEL_ROWS) {
                self.shared.cancel.check()?;
            }
        }
        Ok(())
    }

    /// Takes the row that was read; `time` is given where the format knows it.
    fn take_row(&mut self, place: Place<'_>, line: &str, time: Option<i64>) -> Result<()> {
        let plan = Arc::clone(&self.shared.plan);
        let value = self.row.get(self.time_field);
        let event = match time.map_or_else(|| plan.time.read(&self.row, line, value), Ok) {
            Ok(event) => event,
            Err(NoTime::Missing) => {
                let message = format!("no `{}`{}", plan.time_column, fields_of(&self.row));
                return self.refuse(place, Reason::MissingTimestamp, message, None);
            }
            Err(NoTime::Bad) => {
                let message = format!("`{}` is {}", plan.time_column, shown(&self.row, line, value));
                return self.refuse(place, Reason::BadTimestamp, message, None);
            }
        };
        let event = match plan.transforms.apply(&mut self.row, line, event) {
            Applied::Row(event) => event,
            Applied::FilteredOut => {
                self.filtered += 1;
                self.stats.thrown_away += 1;
                return Ok(());
            }
            Applied::Failed(message) => return self.refuse(place, Reason::Unparseable, message, None),
            Applied::BadTime => {
                let message = "the transform of `__time` gives no time".to_owned();
                return self.refuse(place, Reason::BadTimestamp, message, None);
            }
        };
        if !plan.wants(event) {
            let time = crate::model::Timestamp::from_millis(event);
            return self.refuse(place, Reason::OutsideIntervals, format!("its time is {time}"), None);
        }
        let Window { earliest, latest } = self.shared.window;
        if !(earliest..=latest).contains(&event) {
            let reason = if event < earliest { Reason::Late } else { Reason::Early };
            let time = crate::model::Timestamp::from_millis(event);
            return self.refuse(place, reason, format!("its time is {time}"), None);
        }
        self.add(place, line, RowTime { event, stored: plan.stored_time(event) })
    }

    fn add(&mut self, place: Place<'_>, line: &str, time: RowTime) -> Result<()> {
        let mut bad = Vec::new();
        let row = &self.row;
        let position = (place.chunk.0, place.line);
        self.buffer.add(row, line, time, position, |column, value| {
            bad.push(format!("`{column}` is {}", shown(row, line, value)));
        })?;
        match bad.is_empty() {
            true => self.stats.processed += 1,
            false => self.stats.processed_with_error += 1,
        }
        for message in bad {
            let (input, bad) = place.bad(Reason::BadNumber, message, None);
            self.shared.bad_rows.add(input, bad)?;
        }
        Ok(())
    }

    fn refuse(&mut self, place: Place<'_>, reason: Reason, message: String, column: Option<u64>) -> Result<()> {
        match reason {
            Reason::OutsideIntervals | Reason::Late | Reason::Early | Reason::Filtered => self.stats.thrown_away += 1,
            _ => self.stats.unparseable += 1,
        }
        let (input, bad) = place.bad(reason, message, column);
        self.shared.bad_rows.add(input, bad)
    }

    fn spill(&mut self) -> Result<()> {
        let shared = self.shared;
        if let Some(run) = self.buffer.take_run()? {
            let number = shared.spills.fetch_add(1, Ordering::Relaxed);
            let run = run.spill(&shared.plan, &shared.run_dir.join(format!("run-{number}")), shared.cancel)?;
            shared.runs.lock().push(run);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if let Some(run) = self.buffer.take_run()? {
            self.shared.runs.lock().push(run);
        }
        self.shared.bad_rows.filtered(self.filtered);
        let mut stats = self.shared.stats.lock();
        stats.processed += self.stats.processed;
        stats.processed_with_error += self.stats.processed_with_error;
        stats.thrown_away += self.stats.thrown_away;
        stats.unparseable += self.stats.unparseable;
        Ok(())
    }
}

/// The names that a row has, for whoever mistyped one; not too many of them.
fn fields_of(row: &Row) -> String {
    const NAMED: usize = 12;
    let order = row.order();
    let names = order.iter().take(NAMED).map(|&field| format!("`{}`", row.fields.name(field))).collect::<Vec<_>>();
    match order.len() {
        0 => String::new(),
        len => format!("; there is {}{}", names.join(", "), if len > NAMED { ", …" } else { "" }),
    }
}

/// A value in a message, cut at 100 bytes.
fn shown(row: &Row, line: &str, value: Slot) -> String {
    match value {
        Slot::Missing | Slot::Null => "null".to_owned(),
        Slot::Long(number) => number.to_string(),
        Slot::Double(number) => double_text(number),
        Slot::List(_) => "a list".to_owned(),
        _ => {
            let text = row.text(line, value).unwrap_or_default();
            format!("`{}`", &text[..text.floor_char_boundary(100)])
        }
    }
}
