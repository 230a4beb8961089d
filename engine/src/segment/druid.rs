//! Segments of Apache Druid, format version 9, read where they lie.
//!
//! Owns the reading of Druid's files: their containers, dictionaries, codecs and bitmaps, of all versions from 2013 to
//! 2025. [`DruidSegment`] is a [`Segment`] as our own files are, so the same filters and aggregations run on its
//! dictionary codes and bitmaps. Nothing is written here, and never anything to where Druid keeps its segments.
//!
//! Invariants: the files are a stranger's. Whatever their bytes, reading gives an error that names the column and how
//! it is stored, or an answer; never a panic, and no allocation that a few bytes can blow up. One column that cannot be
//! read does not keep the others from being read.

mod auto;
mod bitmap;
mod blob;
mod blocks;
mod codec;
mod columns;
mod complex;
mod container;
mod cursor;
mod descriptor;
mod dictionary;
mod fields;
mod fixed;
mod front_coded;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod ids;
mod index;
mod indexed;
mod inspect;
mod numbers;
mod packed;
mod smile;
mod strings;
#[cfg(test)]
pub(crate) mod tests;
mod texts;
mod unpack;
mod values;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tempfile::TempDir;

use super::{BLOCK_ROWS, Column, NumericColumn, Segment, block_range};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, ColumnType, MetricCombine, SegmentSchema, TIME_COLUMN, Timestamp};
use columns::Opened;
use container::{Container, Source};
use descriptor::Shape;
use index::{Index, Metadata};

pub use inspect::DruidInspection;
pub use unpack::{gather, is_segment_file, unpack};

/// What an empty text in a column means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nulls {
    /// An empty text. So Druid reads it since version 32.
    #[default]
    AsStored,
    /// Null, where the column has no null of its own: before version 0.13, and by default until 28, Druid kept both alike.
    EmptyIsNull,
}

/// A segment of Druid's, mapped or in memory.
///
/// Opening reads the table of contents, what each column says of itself, and all of `__time`, for Druid does not say
/// when rows begin and end. Another column is opened when first asked for. The files must not change meanwhile.
#[derive(Debug)]
pub struct DruidSegment {
    name: String,
    container: Container,
    index: Index,
    rollup: Option<bool>,
    nulls: Nulls,
    schema: Arc<SegmentSchema>,
    num_rows: usize,
    time_range: Option<(Timestamp, Timestamp)>,
    columns: Vec<OnceLock<Opened>>,
    /// Where the files were unpacked to for this segment alone.
    unpacked: Option<TempDir>,
}

/// Memory that something holds beside the mapped files.
trait MemoryUse: Debug + Send + Sync {
    fn memory_bytes(&self) -> usize;
}

impl DruidSegment {
    /// Maps the files of a directory: `version.bin`, `meta.smoosh`, `00000.smoosh` and so on. For an `index.zip`, unpack
    /// it first.
    pub fn open(dir: &Path, nulls: Nulls) -> Result<Self> {
        Self::new(dir.display().to_string(), Source::Directory(dir.to_owned()), nulls)
    }

    /// Opens a directory, or unpacks an `index.zip`, gzipped or not, into a temporary directory, which goes when the segment does.
    pub fn open_path(path: &Path, nulls: Nulls) -> Result<Self> {
        if path.is_dir() {
            return Self::open(path, nulls);
        }
        let unpacked = tempfile::tempdir()
            .map_err(|error| Error::runtime_failure("there is no place to unpack the segment to").with_source(error))?;
        gather(path, unpacked.path())?;
        let mut segment = Self::open(unpacked.path(), nulls)?;
        segment.name = path.display().to_string();
        segment.unpacked = Some(unpacked);
        Ok(segment)
    }

    /// Whether a file or directory looks like a segment of Druid's: an `index.zip`, or a directory with one's files.
    pub fn is_at(path: &Path) -> bool {
        if path.is_dir() {
            return path.join("version.bin").is_file() || path.join("meta.smoosh").is_file();
        }
        let mut head = [0; 4];
        let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
        read.is_ok() && (unpack::is_zip(&head) || head.starts_with(&unpack::GZIP))
    }

    /// Reads a segment from memory, by the names of its files. `name` is what errors call it.
    pub fn from_files(name: impl Into<String>, files: BTreeMap<String, Bytes>, nulls: Nulls) -> Result<Self> {
        Self::new(name.into(), Source::Memory(files), nulls)
    }

    fn new(name: String, source: Source, nulls: Nulls) -> Result<Self> {
        let opened = Container::open(source).and_then(|container| Self::read(name.clone(), container, nulls));
        opened.map_err(|error| error.context("segment", &name))
    }

    fn read(name: String, container: Container, nulls: Nulls) -> Result<Self> {
        let index = Index::read(&container)?;
        let metadata = Metadata::read(&container);
        let schema = Arc::new(schema_of(&container, &index, &metadata)?);
        let (time, time_range) = open_time(&container).map_err(|error| error.context("column", TIME_COLUMN))?;
        let columns = schema.columns().iter().map(|_| OnceLock::new()).collect::<Vec<_>>();
        let num_rows = time.num_rows;
        columns[0].get_or_init(|| time);
        let rollup = metadata.rollup();
        Ok(Self { name, container, index, rollup, nulls, schema, num_rows, time_range, columns, unpacked: None })
    }

    /// Bytes of the named files in the segment.
    pub fn size_bytes(&self) -> u64 {
        self.container.size_bytes()
    }

    /// What the segment holds and how. Opens all columns; one that cannot be read says why.
    pub fn inspect(&self) -> DruidInspection {
        DruidInspection::new(self)
    }

    /// Reads every value and every bitmap, and compares them. The first thing that is wrong is named.
    pub fn verify(&self) -> Result<()> {
        for (index, column) in self.schema.columns().iter().enumerate() {
            let verified = self.opened(index).and_then(|opened| verify(&opened.column, self.num_rows));
            verified.map_err(|error| {
                let is_located = error.contexts().any(|(key, _)| key == "column");
                if is_located { error } else { error.context("column", &column.name).context("segment", &self.name) }
            })?;
        }
        Ok(())
    }

    fn opened(&self, index: usize) -> Result<&Opened> {
        let (Some(slot), Some(schema)) = (self.columns.get(index), self.schema.column(index)) else {
            return Err(Error::defensive(format!("there is no column {index}")).context("segment", &self.name));
        };
        if let Some(opened) = slot.get() {
            return Ok(opened);
        }
        // Two threads may both open it; one result is kept.
        let opened = columns::open(&self.container, &schema.name, self.nulls, Some(self.num_rows));
        let opened = opened.map_err(|error| error.context("column", &schema.name).context("segment", &self.name))?;
        Ok(slot.get_or_init(|| opened))
    }
}

/// Dimensions, then metrics that are numbers. What else there is, such as sketches, is text to us and stands among the
/// dimensions.
fn schema_of(container: &Container, index: &Index, metadata: &Metadata) -> Result<SegmentSchema> {
    let combines = metadata.combines();
    let (mut dimensions, mut metrics) = (Vec::new(), Vec::new());
    let names = index.dimensions.iter().map(|name| (name, true)).chain(index.metrics.iter().map(|name| (name, false)));
    for (name, is_dimension) in names {
        let shape = columns::shape_of(container, name).unwrap_or_else(|_| guess_shape(container, name));
        let multi_value = shape.is_multi_value;
        let column = |role| ColumnSchema { name: name.clone(), column_type: shape.column_type, role, multi_value };
        if is_dimension || shape.column_type == ColumnType::String {
            dimensions.push(column(ColumnRole::Dimension));
        } else {
            let combine = combines.get(name.as_str()).copied().unwrap_or(MetricCombine::Sum);
            metrics.push(column(ColumnRole::Metric(combine)));
        }
    }
    SegmentSchema::new(dimensions.into_iter().chain(metrics))
}

fn guess_shape(container: &Container, name: &str) -> Shape {
    container.get(name).ok().flatten().map_or(Shape::TEXT, descriptor::guess_shape)
}

/// Earliest and latest time; `None` without rows.
type TimeRange = Option<(Timestamp, Timestamp)>;

/// The column, and from when to when its rows are. Fails unless times ascend.
fn open_time(container: &Container) -> Result<(Opened, TimeRange)> {
    if container.get(TIME_COLUMN)?.is_none() {
        return Err(index::no_time());
    }
    let opened = columns::open(container, TIME_COLUMN, Nulls::AsStored, None)?;
    let Column::Long(times) = &opened.column else {
        return Err(Error::corrupt("the times are no longs"));
    };
    if times.has_nulls() {
        return Err(Error::corrupt("a row has no time"));
    }
    let range = read_times(times.as_ref(), opened.num_rows)?;
    Ok((opened, range))
}

fn read_times(times: &dyn NumericColumn<i64>, num_rows: usize) -> Result<TimeRange> {
    let (mut first, mut last, mut block) = (None, i64::MIN, Vec::new());
    for number in 0..num_rows.div_ceil(BLOCK_ROWS) {
        times.read(number, &mut block)?;
        first = first.or(block.first().copied());
        if block.first().is_some_and(|time| *time < last) || !block.is_sorted() {
            return Err(Error::unsupported(
                "its rows are in another order than that of `__time`; such segments cannot be queried yet",
            ));
        }
        last = block.last().copied().unwrap_or(last);
    }
    Ok(first.map(|first| (Timestamp::from_millis(first), Timestamp::from_millis(last))))
}

impl Segment for DruidSegment {
    fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    fn num_rows(&self) -> usize {
        self.num_rows
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.time_range
    }

    fn column(&self, index: usize) -> Result<Column> {
        self.opened(index).map(|opened| opened.column.clone())
    }

    fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().filter_map(OnceLock::get).map(|opened| opened.memory.memory_bytes());
        columns.sum::<usize>() + self.container.memory_bytes() + size_of::<Self>()
    }
}

/// The rows of a block; fails behind the last one.
fn block_rows(block: usize, num_rows: usize) -> Result<Range<usize>> {
    let rows = block_range(block, num_rows);
    match rows.is_empty() {
        true => Err(Error::defensive(format!("block {block} lies behind the last row"))),
        false => Ok(rows),
    }
}

/// A code as an index into its dictionary.
fn index_of_code(code: u32, cardinality: usize) -> Result<usize> {
    let index = code as usize;
    match index < cardinality {
        true => Ok(index),
        false => Err(Error::defensive("a code beyond its dictionary")),
    }
}

/// Reads all values, and compares the bitmaps with them.
fn verify(column: &Column, num_rows: usize) -> Result<()> {
    let blocks = 0..num_rows.div_ceil(BLOCK_ROWS);
    match column {
        Column::Long(column) => blocks.into_iter().try_for_each(|block| column.block_stats(block).map(drop)),
        Column::Float(column) => blocks.into_iter().try_for_each(|block| column.block_stats(block).map(drop)),
        Column::Double(column) => blocks.into_iter().try_for_each(|block| column.block_stats(block).map(drop)),
        Column::String(column) => {
            let (mut pairs, mut codes) = (Vec::new(), Vec::new());
            for block in blocks {
                column.read_codes(block, &mut codes)?;
                pairs.extend(codes.iter().copied().zip((block * BLOCK_ROWS) as u32..));
            }
            verify_bitmaps(column.dictionary().cardinality(), pairs, |code| column.rows_of(code))
        }
        Column::MultiString(column) => {
            let (mut pairs, mut offsets, mut codes) = (Vec::new(), Vec::new(), Vec::new());
            for block in blocks {
                column.read_codes(block, &mut offsets, &mut codes)?;
                for (ends, row) in offsets.windows(2).zip((block * BLOCK_ROWS) as u32..) {
                    pairs.extend(codes[ends[0] as usize..ends[1] as usize].iter().map(|&code| (code, row)));
                }
            }
            verify_bitmaps(column.dictionary().cardinality(), pairs, |code| column.rows_of(code))
        }
    }
}

/// `pairs` are a code and a row each.
fn verify_bitmaps(
    cardinality: usize,
    mut pairs: Vec<(u32, u32)>,
    rows_of: impl Fn(u32) -> Result<Option<roaring::RoaringBitmap>>,
) -> Result<()> {
    pairs.sort_unstable();
    pairs.dedup();
    let mut pairs = pairs.into_iter().peekable();
    for code in 0..cardinality as u32 {
        let mut expected = roaring::RoaringBitmap::new();
        while let Some((_, row)) = pairs.next_if(|(of, _)| *of == code) {
            expected.insert(row);
        }
        if rows_of(code)?.is_some_and(|rows| rows != expected) {
            return Err(Error::corrupt(format!("the bitmap of value {code} has other rows than the column")));
        }
    }
    Ok(())
}
