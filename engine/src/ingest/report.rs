//! What became of the rows: every row read is counted once as taken or under the reason it was not.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Why a row, or one value of it, was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// It is not in the format it should be in.
    Unparseable,
    MissingTimestamp,
    BadTimestamp,
    /// Longer than a row may be.
    TooLong,
    /// Its time lies in none of the intervals asked for.
    OutsideIntervals,
    /// It happened too long before it came.
    Late,
    /// It is to happen too long after it came.
    Early,
    /// The filter turned it down, as asked.
    Filtered,
    /// A value is not the number its column wants. The row is taken, with a null there.
    BadNumber,
}

impl Reason {
    /// Whether it counts against `maxParseExceptions`.
    fn is_parse_exception(self) -> bool {
        !matches!(self, Self::OutsideIntervals | Self::Late | Self::Early | Self::Filtered)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unparseable => "cannot be parsed",
            Self::MissingTimestamp => "has no timestamp",
            Self::BadTimestamp => "has a timestamp that cannot be read",
            Self::TooLong => "is too long",
            Self::OutsideIntervals => "lies outside the intervals",
            Self::Late => "came too late",
            Self::Early => "lies too far in the future",
            Self::Filtered => "was filtered out",
            Self::BadNumber => "holds a value that is not a number",
        })
    }
}

/// A row that was not taken, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    pub file: Arc<str>,
    /// Line of the file, from 1; of Parquet and Arrow, the row.
    pub line: u64,
    /// Byte of the line from 1, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    pub reason: Reason,
    pub message: String,
    /// The row as it stood in the file, cut at 1,000 bytes in the report.
    pub row: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        write!(f, ": row {}: {}", self.reason, self.message)
    }
}

/// Druid's counts: each row read is in exactly one of the four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowStats {
    pub processed: u64,
    pub processed_bytes: u64,
    /// Taken, with a null in place of a bad number.
    pub processed_with_error: u64,
    /// Turned down by the filter or outside the intervals.
    pub thrown_away: u64,
    /// Not taken, because something about it is wrong.
    pub unparseable: u64,
}

/// What became of an ingestion's rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestReport {
    pub data_source: String,
    pub row_stats: RowStats,
    /// Rows (for `badNumber`: values) by reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// The first bad rows by file and line.
    pub unparseable_events: Vec<BadRow>,
    /// Rows in the segments, fewer than were taken when they rolled up.
    pub rows_written: u64,
    pub segments_written: u64,
    pub segment_bytes: u64,
    /// How often memory was written out to make room.
    pub spills: u64,
    pub duration_ms: u64,
    /// What the spec said that has no effect here.
    pub notes: Vec<String>,
}

impl IngestReport {
    /// All rows that were read.
    pub fn rows_read(&self) -> u64 {
        let stats = &self.row_stats;
        stats.processed + stats.processed_with_error + stats.thrown_away + stats.unparseable
    }

    /// Rows (for bad numbers: values) that were not taken for this reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.reasons.get(&reason).copied().unwrap_or(0)
    }
}

impl IngestReport {
    /// Fails if there were rows and something was wrong with each: the spec does not fit the input.
    pub(super) fn check_some_taken(&self) -> Result<()> {
        let rows = self.rows_read();
        if rows == 0 || self.row_stats.unparseable < rows {
            return Ok(());
        }
        let shown = shown(self.unparseable_events.iter());
        Err(Error::invalid_input(format!("none of the {rows} rows that were read could be taken: {shown}")))
    }
}

/// Longest row shown in a report, in bytes.
const SHOWN_BYTES: usize = 1000;

/// Collects bad rows of all threads. Keeps the first few; writes all to a file when asked.
#[derive(Debug)]
pub(super) struct BadRows {
    kept: usize,
    limit: Option<u64>,
    log: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    reasons: BTreeMap<Reason, u64>,
    parse_exceptions: u64,
    first: Vec<(usize, BadRow)>,
    out: Option<BufWriter<File>>,
}

impl BadRows {
    /// Keeps `kept` rows, fails after `limit`, writes all to `path`, logs them with `log`.
    pub(super) fn new(kept: usize, limit: Option<u64>, path: Option<&Path>, log: bool) -> Result<Self> {
        let open = |path: &Path| {
            let file = File::create(path).map_err(|e| {
                Error::invalid_input(format!("file `{}` for bad rows cannot be made", path.display())).with_source(e)
            })?;
            Ok::<_, Error>(BufWriter::new(file))
        };
        let out = path.map(open).transpose()?;
        let inner = Inner { reasons: BTreeMap::new(), parse_exceptions: 0, first: Vec::new(), out };
        Ok(Self { kept, limit, log, inner: Mutex::new(inner) })
    }

    /// Counts rows that the filter turned down.
    pub(super) fn filtered(&self, rows: u64) {
        if rows > 0 {
            *self.inner.lock().reasons.entry(Reason::Filtered).or_default() += rows;
        }
    }

    /// Takes a bad row of the input numbered `input`. Fails when there are more than the limit.
    pub(super) fn add(&self, input: usize, mut bad: BadRow) -> Result<()> {
        if self.log {
            tracing::warn!("{bad}");
        }
        let mut inner = self.inner.lock();
        *inner.reasons.entry(bad.reason).or_default() += 1;
        if let Some(out) = &mut inner.out {
            serde_json::to_writer(&mut *out, &bad)
                .map_err(std::io::Error::from)
                .and_then(|()| out.write_all(b"\n"))
                .map_err(|e| Error::runtime_failure("bad rows cannot be written").with_source(e))?;
        }
        let exception = bad.reason.is_parse_exception();
        inner.parse_exceptions += u64::from(exception);
        let position = inner.first.partition_point(|(other, row)| (*other, row.line) <= (input, bad.line));
        if position < self.kept && exception {
            bad.row.truncate(bad.row.floor_char_boundary(SHOWN_BYTES));
            inner.first.insert(position, (input, bad));
            inner.first.truncate(self.kept);
        }
        match self.limit {
            Some(limit) if inner.parse_exceptions > limit => Err(too_many(limit, &inner.first)),
            _ => Ok(()),
        }
    }

    /// Ends the file, and returns the counts and the first rows.
    pub(super) fn finish(self) -> Result<(BTreeMap<Reason, u64>, Vec<BadRow>)> {
        let mut inner = self.inner.into_inner();
        if let Some(out) = &mut inner.out {
            out.flush().map_err(|e| Error::runtime_failure("bad rows cannot be written").with_source(e))?;
        }
        Ok((inner.reasons, inner.first.into_iter().map(|(_, row)| row).collect()))
    }
}

fn too_many(limit: u64, first: &[(usize, BadRow)]) -> Error {
    let shown = shown(first.iter().map(|(_, row)| row));
    Error::invalid_input(format!("more than {limit} rows could not be parsed (`maxParseExceptions`): {shown}"))
}

/// The first few bad rows, in a message.
fn shown<'a>(rows: impl Iterator<Item = &'a BadRow>) -> String {
    rows.take(5).map(BadRow::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(line: u64, reason: Reason) -> BadRow {
        BadRow { file: "a.json".into(), line, column: Some(3), reason, message: "no `}`".into(), row: "{".into() }
    }

    #[test]
    fn the_first_rows_are_kept_whatever_the_order() -> Result<()> {
        let rows = BadRows::new(2, None, None, false)?;
        for line in [5, 3, 9, 1] {
            rows.add(0, bad(line, Reason::Unparseable))?;
        }
        rows.filtered(7);
        let (reasons, first) = rows.finish()?;
        assert_eq!(first.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(reasons, BTreeMap::from([(Reason::Unparseable, 4), (Reason::Filtered, 7)]));
        assert_eq!(first[0].to_string(), "a.json:1:3: row cannot be parsed: no `}`");
        Ok(())
    }

    #[test]
    fn more_than_the_limit_fails_and_shows_them() -> Result<()> {
        let rows = BadRows::new(2, Some(1), None, false)?;
        rows.add(0, bad(1, Reason::BadNumber))?;
        rows.add(0, bad(2, Reason::OutsideIntervals))?;
        let error = rows.add(0, bad(3, Reason::Unparseable)).expect_err("two parse exceptions").to_string();
        assert!(error.contains("a.json:1:3") && error.contains("more than 1"), "{error}");
        Ok(())
    }

    #[test]
    fn all_bad_rows_are_written_when_asked() -> Result<()> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("bad.json");
        let rows = BadRows::new(0, None, Some(&path), false)?;
        rows.add(0, bad(4, Reason::MissingTimestamp))?;
        rows.finish()?;
        let written = std::fs::read_to_string(&path).expect("the file of bad rows");
        let read: BadRow = serde_json::from_str(written.trim()).expect("a row of JSON");
        assert_eq!(read, bad(4, Reason::MissingTimestamp));
        Ok(())
    }
}
