//! A segment in memory: the double of a segment file, and what ingestion hands to the writer.
//!
//! Invariants: every column has the segment's number of rows; codes lie below the dictionary's cardinality; `__time`
//! ascends. The constructor checks all of it, so that reading cannot fail.

mod encode;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, StringViewArray};
use arrow::buffer::BooleanBuffer;
use roaring::RoaringBitmap;

use super::decoded::pick;
use super::{
    BLOCK_ROWS, BlockStats, Column, Dictionary, MultiStringColumn, Number, NumericColumn, Segment, StringColumn,
    block_range,
};
use crate::error::{Error, Result};
use crate::model::{ColumnType, SegmentSchema, Timestamp};

/// The values of one column of a [`MemorySegment`].
#[derive(Clone, Debug)]
pub enum MemoryColumn {
    String {
        /// Distinct values by code; with `has_null` the first is null.
        values: Arc<StringViewArray>,
        has_null: bool,
        /// Whether `values` ascend bytewise.
        sorted: bool,
        /// One a row.
        codes: Vec<u32>,
    },
    MultiString {
        values: Arc<StringViewArray>,
        has_null: bool,
        sorted: bool,
        /// One more than rows; row `i` has `codes[offsets[i]..offsets[i + 1]]`.
        offsets: Vec<u32>,
        codes: Vec<u32>,
    },
    Long {
        values: Vec<i64>,
        validity: Option<BooleanBuffer>,
    },
    Float {
        values: Vec<f32>,
        validity: Option<BooleanBuffer>,
    },
    Double {
        values: Vec<f64>,
        validity: Option<BooleanBuffer>,
    },
}

impl MemoryColumn {
    fn num_rows(&self) -> usize {
        match self {
            Self::String { codes, .. } => codes.len(),
            Self::MultiString { offsets, .. } => offsets.len().saturating_sub(1),
            Self::Long { values, .. } => values.len(),
            Self::Float { values, .. } => values.len(),
            Self::Double { values, .. } => values.len(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::String { values, codes, .. } => values.get_array_memory_size() + codes.len() * 4,
            Self::MultiString { values, offsets, codes, .. } => {
                values.get_array_memory_size() + (offsets.len() + codes.len()) * 4
            }
            Self::Long { values, .. } => values.len() * 8,
            Self::Float { values, .. } => values.len() * 4,
            Self::Double { values, .. } => values.len() * 8,
        }
    }

    fn is_of(&self, column_type: ColumnType, multi_value: bool) -> bool {
        match self {
            Self::String { .. } => column_type == ColumnType::String && !multi_value,
            Self::MultiString { .. } => column_type == ColumnType::String && multi_value,
            Self::Long { .. } => column_type == ColumnType::Long,
            Self::Float { .. } => column_type == ColumnType::Float,
            Self::Double { .. } => column_type == ColumnType::Double,
        }
    }
}

/// An immutable segment over vectors.
#[derive(Debug)]
pub struct MemorySegment {
    schema: Arc<SegmentSchema>,
    columns: Vec<Column>,
    num_rows: usize,
    time_range: Option<(Timestamp, Timestamp)>,
    memory_bytes: usize,
    is_passing: bool,
}

impl MemorySegment {
    /// A segment of `columns`, in the order of `schema`, rows already ordered by `__time`. String columns have no row
    /// index. Fails when the columns do not fit the schema or one another.
    pub fn new(schema: Arc<SegmentSchema>, columns: Vec<MemoryColumn>) -> Result<Self> {
        Self::build(schema, columns, RowIndex::None)
    }

    /// The same, with a row index for every string column, as a segment file may have.
    pub fn with_row_index(schema: Arc<SegmentSchema>, columns: Vec<MemoryColumn>) -> Result<Self> {
        Self::build(schema, columns, RowIndex::Build)
    }

    /// Sorts the rows of `batches` by `__time` (equal times keep their order) and encodes them. Columns are found by
    /// name and cast to the schema's types; a column that the batches lack is null, other columns of theirs are left
    /// out. Fails when `__time` is missing or null somewhere, or when a value cannot be cast.
    pub fn from_batches(schema: Arc<SegmentSchema>, batches: &[arrow::array::RecordBatch]) -> Result<Self> {
        let columns = encode::columns_of(&schema, batches)?;
        Self::new(schema, columns)
    }

    /// [`MemorySegment::from_batches`], with a row index for every string column.
    pub fn from_batches_with_row_index(
        schema: Arc<SegmentSchema>,
        batches: &[arrow::array::RecordBatch],
    ) -> Result<Self> {
        let columns = encode::columns_of(&schema, batches)?;
        Self::with_row_index(schema, columns)
    }

    /// The same, of which is known that another takes its place soon.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.is_passing = true;
        self
    }

    fn build(schema: Arc<SegmentSchema>, columns: Vec<MemoryColumn>, index: RowIndex) -> Result<Self> {
        let time_range = check(&schema, &columns)?;
        let num_rows = columns.first().map_or(0, MemoryColumn::num_rows);
        let memory_bytes = columns.iter().map(MemoryColumn::memory_bytes).sum();
        let columns = columns.into_iter().map(|column| open(column, index)).collect();
        Ok(Self { schema, columns, num_rows, time_range, memory_bytes, is_passing: false })
    }
}

impl Segment for MemorySegment {
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
        self.columns
            .get(index)
            .cloned()
            .ok_or_else(|| Error::defensive(format!("segment has {} columns, not {index}", self.columns.len())))
    }

    fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    fn is_passing(&self) -> bool {
        self.is_passing
    }
}

/// One column by itself, whose values fit one another, and the bytes it takes.
pub(super) fn open_column(column: MemoryColumn) -> (Column, usize) {
    debug_assert!(is_consistent(&column), "the column is consistent");
    let memory_bytes = column.memory_bytes();
    (open(column, RowIndex::None), memory_bytes)
}

#[derive(Clone, Copy)]
enum RowIndex {
    None,
    Build,
}

/// Checks the invariants of this room; returns the time range.
fn check(schema: &SegmentSchema, columns: &[MemoryColumn]) -> Result<Option<(Timestamp, Timestamp)>> {
    if columns.len() != schema.columns().len() {
        let (got, want) = (columns.len(), schema.columns().len());
        return Err(Error::defensive(format!("{got} columns given for a schema of {want}")));
    }
    let num_rows = columns.first().map_or(0, MemoryColumn::num_rows);
    if u32::try_from(num_rows).is_err() {
        return Err(Error::invalid_input(format!("{num_rows} rows are too many for one segment")));
    }
    for (column, described) in columns.iter().zip(schema.columns()) {
        let fits = column.is_of(described.column_type, described.multi_value)
            && column.num_rows() == num_rows
            && is_consistent(column);
        if !fits {
            return Err(Error::defensive(format!("column `{}` does not fit its schema or its rows", described.name)));
        }
    }
    let Some(MemoryColumn::Long { values, validity: None }) = columns.first() else {
        return Err(Error::defensive("`__time` must be without nulls"));
    };
    if !values.is_sorted() {
        return Err(Error::defensive("rows must be ordered by `__time`"));
    }
    Ok(values.first().zip(values.last()).map(|(a, b)| (Timestamp::from_millis(*a), Timestamp::from_millis(*b))))
}

fn is_consistent(column: &MemoryColumn) -> bool {
    let codes_fit = |values: &StringViewArray, has_null: bool, sorted: bool, codes: &[u32]| {
        let first = usize::from(has_null);
        codes.iter().all(|&code| (code as usize) < values.len())
            && values.null_count() == first
            && (!has_null || values.is_null(0))
            && (!sorted || (first + 1..values.len()).all(|i| values.value(i - 1) < values.value(i)))
    };
    let validity_fits = |validity: &Option<BooleanBuffer>, len: usize| validity.as_ref().is_none_or(|v| v.len() == len);
    match column {
        MemoryColumn::String { values, has_null, sorted, codes } => codes_fit(values, *has_null, *sorted, codes),
        MemoryColumn::MultiString { values, has_null, sorted, offsets, codes } => {
            codes_fit(values, *has_null, *sorted, codes)
                && offsets.is_sorted()
                && offsets.first() == Some(&0)
                && offsets.last().is_some_and(|&last| last as usize == codes.len())
        }
        MemoryColumn::Long { values, validity } => validity_fits(validity, values.len()),
        MemoryColumn::Float { values, validity } => validity_fits(validity, values.len()),
        MemoryColumn::Double { values, validity } => validity_fits(validity, values.len()),
    }
}

fn open(column: MemoryColumn, index: RowIndex) -> Column {
    let postings = |cardinality: usize, rows: &mut dyn Iterator<Item = (u32, u32)>| match index {
        RowIndex::None => None,
        RowIndex::Build => Some(postings(cardinality, rows)),
    };
    match column {
        MemoryColumn::String { values, has_null, sorted, codes } => {
            let rows = postings(values.len(), &mut codes.iter().zip(0..).map(|(&code, row)| (code, row)));
            let dictionary = MemoryDictionary { values, has_null, sorted, by_value: OnceLock::new() };
            let ranges = codes.chunks(BLOCK_ROWS).map(code_range).collect();
            Column::String(Arc::new(MemoryStrings { dictionary, codes, ranges, rows }))
        }
        MemoryColumn::MultiString { values, has_null, sorted, offsets, codes } => {
            let spans = offsets.windows(2).zip(0..);
            let mut rows = spans
                .flat_map(|(span, row)| codes[span[0] as usize..span[1] as usize].iter().map(move |&code| (code, row)));
            let rows = postings(values.len(), &mut rows);
            let dictionary = MemoryDictionary { values, has_null, sorted, by_value: OnceLock::new() };
            Column::MultiString(Arc::new(MemoryMultiStrings { dictionary, offsets, codes, rows }))
        }
        MemoryColumn::Long { values, validity } => Column::Long(Arc::new(MemoryNumbers::new(values, validity))),
        MemoryColumn::Float { values, validity } => Column::Float(Arc::new(MemoryNumbers::new(values, validity))),
        MemoryColumn::Double { values, validity } => Column::Double(Arc::new(MemoryNumbers::new(values, validity))),
    }
}

fn postings(cardinality: usize, rows: &mut dyn Iterator<Item = (u32, u32)>) -> Vec<RoaringBitmap> {
    let mut postings = vec![RoaringBitmap::new(); cardinality];
    for (code, row) in rows {
        postings[code as usize].insert(row);
    }
    postings
}

fn code_range(codes: &[u32]) -> (u32, u32) {
    codes.iter().fold((u32::MAX, 0), |(least, greatest), &code| (least.min(code), greatest.max(code)))
}

fn no_such_block(block: usize) -> Error {
    Error::defensive(format!("block {block} lies behind the last row"))
}

/// The rows of a block; fails behind the last one.
fn rows_of_block(block: usize, num_rows: usize) -> Result<Range<usize>> {
    let range = block_range(block, num_rows);
    if range.is_empty() { Err(no_such_block(block)) } else { Ok(range) }
}

#[derive(Debug)]
struct MemoryDictionary {
    values: Arc<StringViewArray>,
    has_null: bool,
    sorted: bool,
    /// Made on the first look-up in a dictionary that is not sorted.
    by_value: OnceLock<HashMap<String, u32>>,
}

impl MemoryDictionary {
    fn code_at(&self, index: usize) -> Result<u32> {
        u32::try_from(index).map_err(|_| Error::defensive("a dictionary has at most 2^32 values"))
    }

    fn by_value(&self) -> &HashMap<String, u32> {
        self.by_value.get_or_init(|| {
            self.values.iter().zip(0..).filter_map(|(value, code)| Some((value?.to_owned(), code))).collect()
        })
    }
}

impl Dictionary for MemoryDictionary {
    fn cardinality(&self) -> usize {
        self.values.len()
    }

    fn has_null(&self) -> bool {
        self.has_null
    }

    fn is_sorted(&self) -> bool {
        self.sorted
    }

    fn code_of(&self, value: &str) -> Result<Option<u32>> {
        if !self.sorted {
            return Ok(self.by_value().get(value).copied());
        }
        let code = self.lower_bound(value)?;
        let found = (code as usize) < self.values.len() && self.values.value(code as usize) == value;
        Ok(found.then_some(code))
    }

    fn lower_bound(&self, value: &str) -> Result<u32> {
        if !self.sorted {
            return Err(Error::defensive("a lower bound was asked of a dictionary that is not sorted"));
        }
        let (mut low, mut high) = (usize::from(self.has_null), self.values.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.values.value(middle) < value { low = middle + 1 } else { high = middle }
        }
        self.code_at(low)
    }

    fn values(&self) -> Result<Arc<StringViewArray>> {
        Ok(Arc::clone(&self.values))
    }

    fn values_of(&self, codes: &[u32]) -> Result<StringViewArray> {
        pick(&self.values, codes)
    }
}

#[derive(Debug)]
struct MemoryStrings {
    dictionary: MemoryDictionary,
    codes: Vec<u32>,
    /// By block.
    ranges: Vec<(u32, u32)>,
    rows: Option<Vec<RoaringBitmap>>,
}

impl StringColumn for MemoryStrings {
    fn dictionary(&self) -> &dyn Dictionary {
        &self.dictionary
    }

    fn read_codes(&self, block: usize, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        out.extend_from_slice(&self.codes[rows_of_block(block, self.codes.len())?]);
        Ok(())
    }

    fn code_range(&self, block: usize) -> Result<(u32, u32)> {
        self.ranges.get(block).copied().ok_or_else(|| no_such_block(block))
    }

    fn has_row_index(&self) -> bool {
        self.rows.is_some()
    }

    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        Ok(self.rows.as_ref().and_then(|rows| rows.get(code as usize)).cloned())
    }

    fn row_counts(&self) -> Result<Option<Arc<Vec<u32>>>> {
        let count = |rows: &RoaringBitmap| u32::try_from(rows.len()).unwrap_or(u32::MAX);
        Ok(self.rows.as_ref().map(|rows| Arc::new(rows.iter().map(count).collect())))
    }
}

#[derive(Debug)]
struct MemoryMultiStrings {
    dictionary: MemoryDictionary,
    offsets: Vec<u32>,
    codes: Vec<u32>,
    rows: Option<Vec<RoaringBitmap>>,
}

impl MultiStringColumn for MemoryMultiStrings {
    fn dictionary(&self) -> &dyn Dictionary {
        &self.dictionary
    }

    fn read_codes(&self, block: usize, offsets: &mut Vec<u32>, codes: &mut Vec<u32>) -> Result<()> {
        let rows = rows_of_block(block, self.offsets.len() - 1)?;
        let spans = &self.offsets[rows.start..=rows.end];
        let (first, last) = (spans[0], spans[spans.len() - 1]);
        offsets.clear();
        offsets.extend(spans.iter().map(|offset| offset - first));
        codes.clear();
        codes.extend_from_slice(&self.codes[first as usize..last as usize]);
        Ok(())
    }

    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        Ok(self.rows.as_ref().and_then(|rows| rows.get(code as usize)).cloned())
    }
}

#[derive(Debug)]
struct MemoryNumbers<T: Number> {
    values: Vec<T>,
    /// `None` when all rows are valid.
    validity: Option<BooleanBuffer>,
    stats: Vec<BlockStats<T>>,
}

impl<T: Summed> MemoryNumbers<T> {
    fn new(mut values: Vec<T>, validity: Option<BooleanBuffer>) -> Self {
        let validity = validity.filter(|validity| validity.count_set_bits() < validity.len());
        if let Some(validity) = &validity {
            values.iter_mut().zip(validity).filter(|(_, valid)| !valid).for_each(|(value, _)| *value = T::default());
        }
        let blocks = 0..values.len().div_ceil(BLOCK_ROWS);
        let stats = blocks.map(|block| stats_of(&values, validity.as_ref(), block_range(block, values.len())));
        Self { stats: stats.collect(), values, validity }
    }
}

impl<T: Summed> NumericColumn<T> for MemoryNumbers<T> {
    fn has_nulls(&self) -> bool {
        self.validity.is_some()
    }

    fn block_stats(&self, block: usize) -> Result<BlockStats<T>> {
        self.stats.get(block).copied().ok_or_else(|| no_such_block(block))
    }

    fn read(&self, block: usize, out: &mut Vec<T>) -> Result<Option<BooleanBuffer>> {
        let rows = rows_of_block(block, self.values.len())?;
        out.clear();
        out.extend_from_slice(&self.values[rows.clone()]);
        let validity = self.validity.as_ref().map(|validity| validity.slice(rows.start, rows.len()));
        Ok(validity.filter(|validity| validity.count_set_bits() < validity.len()))
    }

    fn lower_bound(&self, bound: T) -> Result<usize> {
        Ok(self.values.partition_point(|value| *value < bound))
    }
}

/// What the statistics of a block need to know of a number.
trait Summed: Number {
    fn is_nan(self) -> bool;
    fn add_to(self, sum: &mut Self::Sum);
}

impl Summed for i64 {
    fn is_nan(self) -> bool {
        false
    }

    fn add_to(self, sum: &mut i128) {
        *sum += i128::from(self);
    }
}

impl Summed for f32 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    fn add_to(self, sum: &mut f64) {
        *sum += f64::from(self);
    }
}

impl Summed for f64 {
    fn is_nan(self) -> bool {
        self.is_nan()
    }

    fn add_to(self, sum: &mut f64) {
        *sum += self;
    }
}

fn stats_of<T: Summed>(values: &[T], validity: Option<&BooleanBuffer>, rows: Range<usize>) -> BlockStats<T> {
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let mut stats = BlockStats { rows: count, nulls: 0, min_max: None, sum: T::Sum::default(), has_nan: false };
    for row in rows {
        if validity.is_some_and(|validity| !validity.value(row)) {
            stats.nulls += 1;
            continue;
        }
        let value = values[row];
        value.add_to(&mut stats.sum);
        if value.is_nan() {
            stats.has_nan = true;
            continue;
        }
        stats.min_max = Some(match stats.min_max {
            None => (value, value),
            Some((least, greatest)) => {
                (if value < least { value } else { least }, if value > greatest { value } else { greatest })
            }
        });
    }
    stats
}

#[cfg(test)]
mod tests;
