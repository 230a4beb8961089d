//! A segment in a file.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memmap2::Mmap;

use super::column::number::FileNumericColumn;
use super::column::string::{FileMultiStringColumn, FileStringColumn};
use super::column::{ColumnSource, OpenColumn};
use super::footer::{self, HEAD_BYTES, Table};
use super::holes::{Holes, TAIL_GUESS_BYTES};
use super::inspect::Inspection;
use super::page::{Content, FileBytes};
use super::{Column, Segment};
use crate::error::{Error, Result};
use crate::model::{ColumnType, SegmentSchema, Timestamp};

/// A segment in a file of format version 1, mapped or in memory.
///
/// Opening reads the footer alone. A column is opened when first asked for, which reads its directory; a block, and
/// its checksum, when first read. The file must not change while it is open: keep segments in a directory of your own.
#[derive(Debug)]
pub struct SegmentFile {
    file: Arc<FileBytes>,
    table: Table,
    schema: Arc<SegmentSchema>,
    /// Offset of each column.
    starts: Vec<usize>,
    columns: Vec<OnceLock<OpenColumn>>,
}

impl SegmentFile {
    /// Maps a file. Fails when it is no segment, is cut short, or its footer is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let (name, map) = Self::map(path)?;
        Self::new(FileBytes { name, content: Content::Mapped(map) })
    }

    /// Maps a file of which little may be here yet: it has its length, and `holes` bring what is asked for. The footer is
    /// brought at once.
    pub fn open_partial(path: &Path, holes: Arc<dyn Holes>) -> Result<Self> {
        let (name, map) = Self::map(path)?;
        let file = FileBytes { name, content: Content::Partial(map, holes) };
        bring_footer(&file).map_err(|error| error.context("segment", &file.name))?;
        Self::new(file)
    }

    /// Whether somebody has a column of it open, and may be reading it.
    pub fn is_being_read(&self) -> bool {
        self.columns.iter().filter_map(OnceLock::get).any(OpenColumn::is_held)
    }

    fn map(path: &Path) -> Result<(String, Mmap)> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| {
            let report = match error.kind() {
                std::io::ErrorKind::NotFound => Error::not_found("there is no such segment file"),
                _ => Error::runtime_failure("cannot read the segment file"),
            };
            report.context("segment", &name).with_source(error)
        };
        let file = File::open(path).map_err(failed)?;
        // SAFETY: segments lie in a private directory, and a file that bears its final name is never written again, but
        // for parts that are brought later: nobody relies on those before they are there, and checked.
        // (A mapped file that shrinks would end the process, as on any database that maps its files.)
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok((name, map))
    }

    /// Reads a segment from memory. `name` is what errors call it.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Bytes>) -> Result<Self> {
        Self::new(FileBytes { name: name.into(), content: Content::Owned(bytes.into()) })
    }

    fn new(file: FileBytes) -> Result<Self> {
        let table = match &file.content {
            // Its head says nothing that its tail does not say too.
            Content::Partial(map, _) => footer::decode_end(map),
            _ => footer::decode(file.bytes()),
        };
        let opened = table.and_then(|table| Ok((Arc::new(table.schema()?), table)));
        let (schema, table) = opened.map_err(|error| error.context("segment", &file.name))?;
        let mut start = HEAD_BYTES;
        let mut starts = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            starts.push(start);
            start += column.sections.total() as usize;
        }
        let columns = table.columns.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { file: Arc::new(file), table, schema, starts, columns })
    }

    pub fn size_bytes(&self) -> u64 {
        self.file.bytes().len() as u64
    }

    /// Whether rows that agree in time and all dimensions were combined when it was written.
    pub fn is_rolled_up(&self) -> bool {
        self.table.rolled_up
    }

    /// Reads the whole file: every checksum, every value, and whether statistics, counts and indexes agree with them.
    /// The first thing that is wrong is named.
    pub fn verify(&self) -> Result<()> {
        for index in 0..self.columns.len() {
            self.opened(index)?.verify()?;
        }
        let time = self.table.columns[0].min_max.map(|(min, max)| (min as i64, max as i64));
        if time != self.table.time_range.map(|(min, max)| (min.millis(), max.millis())) {
            return Err(Error::corrupt("the time range differs from the rows").context("segment", &self.file.name));
        }
        Ok(())
    }

    /// What the file holds and where its bytes go. Reads directories and the first byte of every block.
    pub fn inspect(&self) -> Result<Inspection> {
        Inspection::new(self)
    }

    pub(super) fn name(&self) -> &str {
        &self.file.name
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// A column, opened if it was not yet.
    pub(super) fn opened(&self, index: usize) -> Result<&OpenColumn> {
        let Some(slot) = self.columns.get(index) else {
            return Err(Error::defensive(format!("there is no column {index}")).context("segment", self.name()));
        };
        if let Some(column) = slot.get() {
            return Ok(column);
        }
        // Two threads may both open it; one result is kept.
        let column = self.open_column(index).map_err(|error| {
            error.context("column", &self.table.columns[index].schema.name).context("segment", self.name())
        })?;
        Ok(slot.get_or_init(|| column))
    }

    fn open_column(&self, index: usize) -> Result<OpenColumn> {
        let entry = &self.table.columns[index];
        let source = ColumnSource { file: &self.file, entry, start: self.starts[index], num_rows: self.table.num_rows };
        Ok(match (entry.schema.column_type, entry.schema.multi_value) {
            (ColumnType::String, false) => OpenColumn::String(Arc::new(FileStringColumn::open(source)?)),
            (ColumnType::String, true) => OpenColumn::MultiString(Arc::new(FileMultiStringColumn::open(source)?)),
            (ColumnType::Long, _) => OpenColumn::Long(Arc::new(FileNumericColumn::open(source)?)),
            (ColumnType::Float, _) => OpenColumn::Float(Arc::new(FileNumericColumn::open(source)?)),
            (ColumnType::Double, _) => OpenColumn::Double(Arc::new(FileNumericColumn::open(source)?)),
        })
    }
}

/// Brings the tail of a file, and the footer before it.
fn bring_footer(file: &FileBytes) -> Result<()> {
    let length = file.bytes().len();
    let mut from = length.saturating_sub(TAIL_GUESS_BYTES);
    file.need(from..length, &|end| footer::bytes_of_end(end, length).map(drop))?;
    let needed = footer::bytes_of_end(&file.bytes()[from..], length)?;
    from = length - needed;
    file.need(from..length, &|end| footer::check_end(end, length))
}

impl Segment for SegmentFile {
    fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    fn num_rows(&self) -> usize {
        self.table.num_rows
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.table.time_range
    }

    fn column(&self, index: usize) -> Result<Column> {
        Ok(match self.opened(index)? {
            OpenColumn::String(column) => Column::String(Arc::clone(column) as _),
            OpenColumn::MultiString(column) => Column::MultiString(Arc::clone(column) as _),
            OpenColumn::Long(column) => Column::Long(Arc::clone(column) as _),
            OpenColumn::Float(column) => Column::Float(Arc::clone(column) as _),
            OpenColumn::Double(column) => Column::Double(Arc::clone(column) as _),
        })
    }

    fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().filter_map(OnceLock::get).map(OpenColumn::memory_bytes).sum::<usize>();
        let owned = match &self.file.content {
            Content::Mapped(_) | Content::Partial(..) => 0,
            Content::Owned(bytes) => bytes.len(),
        };
        columns + owned + size_of::<Self>() + self.columns.len() * 256
    }
}
