//! Segments: rows of one data source in columns, with dictionaries and indexes.
//!
//! Owns the trait [`Segment`] that a file and a live incremental index both fulfil, and the file format with its
//! writer, reader and merge. Knows no query, no DataFusion and no tokio.
//!
//! Invariants: rows of a segment keep their number for as long as the segment lives; what a column returned once it
//! returns again; bytes from disk never panic, they give an error that names the segment, the column and the block.

#![doc = include_str!("segment/FORMAT.md")]

mod batch;
mod column;
mod convert;
mod decoded;
mod dictionary;
pub mod druid;
mod encoding;
mod file;
mod fingerprint;
mod footer;
mod holes;
mod inspect;
pub mod memory;
mod merge;
mod open;
mod page;
mod promoted;
mod row_index;
mod wire;
mod write;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::StringViewArray;
use arrow::buffer::BooleanBuffer;
use roaring::RoaringBitmap;

use crate::error::Result;
use crate::model::{SegmentSchema, Timestamp};

pub use batch::read_block;
pub use convert::{check_same_rows, convert};
pub use file::SegmentFile;
pub use fingerprint::{Fingerprint, fingerprint};
pub use holes::Holes;
pub use inspect::Inspection;
pub use merge::{MergeInput, Rollup, RowOrder};
pub use open::OpenSegment;
pub use promoted::PromotedSegment;
pub use write::{RowIndexPolicy, SegmentSummary, WriteOptions, write_segment};

/// Rows of a column are read, summarised and checksummed in blocks of this many; only the last block may be shorter.
pub const BLOCK_ROWS: usize = 8192;

/// An immutable view of rows in columns. For a live index it is a snapshot.
///
/// Rows are numbered from 0 in the order of `__time` (equal times in any order).
pub trait Segment: Debug + Send + Sync {
    /// The columns; index `i` here is index `i` in [`Segment::column`].
    fn schema(&self) -> &Arc<SegmentSchema>;

    fn num_rows(&self) -> usize;

    /// Earliest and latest `__time`, both inclusive; `None` without rows.
    fn time_range(&self) -> Option<(Timestamp, Timestamp)>;

    /// Whether the number of rows and their times are as they will be. Not where they are read of a segment that grows
    /// in another process: there they are about so.
    fn is_final(&self) -> bool {
        true
    }

    /// Opens a column. Cheap after the first time. Fails when its bytes are damaged; the other columns stay usable.
    fn column(&self, index: usize) -> Result<Column>;

    /// Bytes of memory that this segment holds by itself, apart from mapped files: dictionaries and indexes opened.
    fn memory_bytes(&self) -> usize;

    /// Whether another segment takes its place soon, with the same rows and more: not worth keeping anything for.
    fn is_passing(&self) -> bool {
        false
    }

    /// The one process that has its rows, where no other can have them: what is told if it cannot be reached.
    fn kept_by(&self) -> Option<&str> {
        None
    }
}

/// A column opened for reading.
#[derive(Clone, Debug)]
pub enum Column {
    String(Arc<dyn StringColumn>),
    MultiString(Arc<dyn MultiStringColumn>),
    Long(Arc<dyn NumericColumn<i64>>),
    Float(Arc<dyn NumericColumn<f32>>),
    Double(Arc<dyn NumericColumn<f64>>),
}

/// The distinct values of a string column. A *code* is an index into them.
///
/// Where the column has a null, code 0 is the null, and values start at code 1; otherwise values start at code 0.
pub trait Dictionary: Debug + Send + Sync {
    /// Number of codes, the null among them.
    fn cardinality(&self) -> usize;

    /// Whether code 0 stands for null.
    fn has_null(&self) -> bool;

    /// Whether codes ascend as their values do, bytewise (null first). Always so in a file.
    fn is_sorted(&self) -> bool;

    /// The code of a value; `None` when no row has it.
    fn code_of(&self, value: &str) -> Result<Option<u32>>;

    /// The first code whose value is `>= value` bytewise, or the cardinality. Never the null. Only when sorted.
    fn lower_bound(&self, value: &str) -> Result<u32>;

    /// All values in code order, null included: index it with codes. Decoded once, then kept; those of a large dictionary
    /// only as long as somebody holds them.
    fn values(&self) -> Result<Arc<StringViewArray>>;

    /// Like [`Dictionary::values`], for who needs them only once: what was not decoded yet is not kept.
    fn values_once(&self) -> Result<Arc<StringViewArray>> {
        self.values()
    }

    /// The values of some codes, in their order, without decoding the whole dictionary where that is dearer.
    fn values_of(&self, codes: &[u32]) -> Result<StringViewArray>;
}

/// A string column with one value a row.
pub trait StringColumn: Debug + Send + Sync {
    fn dictionary(&self) -> &dyn Dictionary;

    /// Replaces `out` with the codes of the rows of one block.
    fn read_codes(&self, block: usize, out: &mut Vec<u32>) -> Result<()>;

    /// The least and the greatest code in a block, as the writer recorded them; every code of the block lies between.
    fn code_range(&self, block: usize) -> Result<(u32, u32)>;

    /// Whether [`StringColumn::rows_of`] answers for at least some codes.
    fn has_row_index(&self) -> bool;

    /// The rows that have a code, from the row index. `None` where there is none for this code: codes that many rows
    /// have are found as fast by reading the column, so a writer leaves them out.
    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>>;

    /// How many rows have each code, if the writer recorded it.
    fn row_counts(&self) -> Result<Option<Arc<Vec<u32>>>>;
}

/// A string column with any number of values a row: none is the empty list. A value may itself be null.
pub trait MultiStringColumn: Debug + Send + Sync {
    fn dictionary(&self) -> &dyn Dictionary;

    /// Replaces `offsets` and `codes`: row `i` of the block has `codes[offsets[i]..offsets[i + 1]]`.
    fn read_codes(&self, block: usize, offsets: &mut Vec<u32>, codes: &mut Vec<u32>) -> Result<()>;

    /// Whether [`MultiStringColumn::rows_of`] answers for at least some codes.
    fn has_row_index(&self) -> bool {
        false
    }

    /// The rows that have a code among their values. `None` as in [`StringColumn::rows_of`].
    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>>;
}

/// A column of numbers.
pub trait NumericColumn<T: Number>: Debug + Send + Sync {
    fn has_nulls(&self) -> bool;

    /// What a block's values amount to, as the writer recorded it.
    fn block_stats(&self, block: usize) -> Result<BlockStats<T>>;

    /// Replaces `out` with the values of one block; a null row gives zero. Returns which rows are valid, `None` if all.
    fn read(&self, block: usize, out: &mut Vec<T>) -> Result<Option<BooleanBuffer>>;

    /// The first row whose value is `>= bound`, or the number of rows. Only for a sorted column without nulls.
    fn lower_bound(&self, bound: T) -> Result<usize>;
}

/// A Rust type that a numeric column holds.
pub trait Number: Copy + Debug + Default + PartialOrd + Send + Sync + 'static {
    /// What a block's sum is kept in: wide enough never to overflow for integers.
    type Sum: Copy + Debug + Default + PartialEq + Send + Sync;
}

impl Number for i64 {
    type Sum = i128;
}

impl Number for f32 {
    type Sum = f64;
}

impl Number for f64 {
    type Sum = f64;
}

/// What the values of one block amount to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockStats<T: Number> {
    /// Rows in the block, null or not.
    pub rows: u32,
    pub nulls: u32,
    /// Least and greatest value that is neither null nor NaN; `None` without one.
    pub min_max: Option<(T, T)>,
    /// Sum of the values that are not null. For floats: added in row order.
    pub sum: T::Sum,
    /// For floats: whether the block holds a NaN, which `min_max` leaves out. False for integers.
    pub has_nan: bool,
}

/// The rows of a block of a segment with `num_rows` rows.
pub fn block_range(block: usize, num_rows: usize) -> Range<usize> {
    let start = (block * BLOCK_ROWS).min(num_rows);
    start..(start + BLOCK_ROWS).min(num_rows)
}

#[cfg(test)]
mod tests;
