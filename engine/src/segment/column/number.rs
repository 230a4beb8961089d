//! Columns of numbers: `__time`, metrics, and dimensions that are not text.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;

use super::{ColumnSource, count_encodings};
use crate::error::{Error, Result};
use crate::segment::encoding::{Encoding, float, integer, validity};
use crate::segment::page::{PageEntry, Pages};
use crate::segment::wire::{Reader, to_u32};
use crate::segment::write::Sink;
use crate::segment::{BLOCK_ROWS, BlockStats, Column, Number, NumericColumn, block_range};

/// A number as the file has it.
pub(in crate::segment) trait StoredNumber: Number {
    fn encode(values: &[Self], out: &mut Vec<u8>);

    /// Replaces `out`.
    fn decode(reader: &mut Reader<'_>, count: usize, out: &mut Vec<Self>) -> Result<()>;

    /// Total order, in which statistics are taken.
    fn order(&self, other: &Self) -> Ordering;

    fn is_not_a_number(&self) -> bool;

    fn to_bits(self) -> u64;

    fn from_bits(bits: u64) -> Self;

    /// The column as one of this type, if it is.
    fn of(column: Column) -> Option<Arc<dyn NumericColumn<Self>>>;

    fn add(sum: Self::Sum, value: Self) -> Self::Sum;

    /// `None` where the sum does not fit.
    fn from_sum(sum: Self::Sum) -> Option<Self>;

    fn sum_to_bits(sum: Self::Sum) -> u128;

    fn sum_from_bits(bits: u128) -> Self::Sum;
}

impl StoredNumber for i64 {
    fn encode(values: &[Self], out: &mut Vec<u8>) {
        integer::encode_with_deltas(integer::as_words(values), out);
    }

    fn decode(reader: &mut Reader<'_>, count: usize, out: &mut Vec<Self>) -> Result<()> {
        // Not cleared: whole blocks of the same length are then not filled with zeros first.
        out.resize(integer::padded(count), 0);
        let read = integer::decode_with_deltas(reader, count, integer::as_words_mut(out));
        out.truncate(count);
        read
    }

    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }

    fn is_not_a_number(&self) -> bool {
        false
    }

    fn to_bits(self) -> u64 {
        self as u64
    }

    fn from_bits(bits: u64) -> Self {
        bits as Self
    }

    fn add(sum: i128, value: Self) -> i128 {
        sum + i128::from(value)
    }

    fn of(column: Column) -> Option<Arc<dyn NumericColumn<Self>>> {
        match column {
            Column::Long(column) => Some(column),
            _ => None,
        }
    }

    fn from_sum(sum: i128) -> Option<Self> {
        Self::try_from(sum).ok()
    }

    fn sum_to_bits(sum: i128) -> u128 {
        sum as u128
    }

    fn sum_from_bits(bits: u128) -> i128 {
        bits as i128
    }
}

macro_rules! stored_float {
    ($float:ty, $bits:ty, $kind:ident) => {
        impl StoredNumber for $float {
            fn encode(values: &[Self], out: &mut Vec<u8>) {
                float::encode(values, out);
            }

            fn decode(reader: &mut Reader<'_>, count: usize, out: &mut Vec<Self>) -> Result<()> {
                float::decode(reader, count, out)
            }

            fn order(&self, other: &Self) -> Ordering {
                self.total_cmp(other)
            }

            fn is_not_a_number(&self) -> bool {
                self.is_nan()
            }

            fn to_bits(self) -> u64 {
                u64::from(self.to_bits())
            }

            fn from_bits(bits: u64) -> Self {
                <$float>::from_bits(bits as $bits)
            }

            fn add(sum: f64, value: Self) -> f64 {
                sum + f64::from(value)
            }

            fn of(column: Column) -> Option<Arc<dyn NumericColumn<Self>>> {
                match column {
                    Column::$kind(column) => Some(column),
                    _ => None,
                }
            }

            fn from_sum(sum: f64) -> Option<Self> {
                Some(sum as $float)
            }

            fn sum_to_bits(sum: f64) -> u128 {
                u128::from(sum.to_bits())
            }

            fn sum_from_bits(bits: u128) -> f64 {
                f64::from_bits(bits as u64)
            }
        }
    };
}

stored_float!(f32, u32, Float);
stored_float!(f64, u64, Double);

/// What `values` amount to, nulls left out.
pub(in crate::segment) fn stats_of<T: StoredNumber>(values: &[T], valid: Option<&BooleanBuffer>) -> BlockStats<T> {
    let (mut sum, mut min_max, mut has_nan, mut nulls) = (T::Sum::default(), None, false, 0);
    for (row, &value) in values.iter().enumerate() {
        if valid.is_some_and(|valid| !valid.value(row)) {
            nulls += 1;
            continue;
        }
        sum = T::add(sum, value);
        if value.is_not_a_number() {
            has_nan = true;
            continue;
        }
        let (min, max) = min_max.unwrap_or((value, value));
        min_max = Some((
            if value.order(&min) == Ordering::Less { value } else { min },
            if value.order(&max) == Ordering::Greater { value } else { max },
        ));
    }
    BlockStats { rows: values.len() as u32, nulls, min_max, sum, has_nan }
}

/// Joins what two runs of rows amount to.
fn join<T: StoredNumber>(a: Option<(T, T)>, b: Option<(T, T)>) -> Option<(T, T)> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    Some((
        if b.0.order(&a.0) == Ordering::Less { b.0 } else { a.0 },
        if b.1.order(&a.1) == Ordering::Greater { b.1 } else { a.1 },
    ))
}

/// Writes a column of numbers block by block.
#[derive(Debug)]
pub(in crate::segment) struct NumberWriter<T: StoredNumber> {
    blocks: Vec<(PageEntry, BlockStats<T>)>,
    min_max: Option<(T, T)>,
    nulls: u64,
}

impl<T: StoredNumber> NumberWriter<T> {
    pub(in crate::segment) fn new() -> Self {
        Self { blocks: Vec::new(), min_max: None, nulls: 0 }
    }

    /// Adds the next block. What `values` has for null rows does not matter; it is overwritten.
    pub(in crate::segment) fn push(
        &mut self,
        values: &mut [T],
        valid: Option<&BooleanBuffer>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let stats = stats_of(values, valid);
        if let (Some(valid), 1..) = (valid, stats.nulls) {
            // Something that is there anyway costs least.
            let filler = stats.min_max.map_or(T::default(), |(min, _)| min);
            (!valid).set_indices().for_each(|row| values[row] = filler);
        }
        let mut page = Vec::new();
        validity::encode(valid, &mut page);
        T::encode(values, &mut page);
        let entry = PageEntry::seal(&mut page)?;
        sink.put(&page)?;
        self.min_max = join(self.min_max, stats.min_max);
        self.nulls += u64::from(stats.nulls);
        self.blocks.push((entry, stats));
        Ok(())
    }

    /// Appends the directory. Returns nulls, least and greatest value of the column.
    pub(in crate::segment) fn finish(self, directory: &mut Vec<u8>) -> Result<(u64, Option<(u64, u64)>)> {
        directory.extend_from_slice(&to_u32(self.blocks.len(), "the blocks of a column")?.to_le_bytes());
        for (entry, stats) in &self.blocks {
            entry.put(directory);
            directory.extend_from_slice(&stats.nulls.to_le_bytes());
            directory.push(u8::from(stats.min_max.is_some()) | u8::from(stats.has_nan) << 1);
            let (min, max) = stats.min_max.unwrap_or_default();
            directory.extend_from_slice(&min.to_bits().to_le_bytes());
            directory.extend_from_slice(&max.to_bits().to_le_bytes());
            directory.extend_from_slice(&T::sum_to_bits(stats.sum).to_le_bytes());
        }
        Ok((self.nulls, self.min_max.map(|(min, max)| (min.to_bits(), max.to_bits()))))
    }
}

/// Bytes of a block in the directory of a column of numbers.
const RECORD_BYTES: usize = PageEntry::BYTES + 4 + 1 + 8 + 8 + 16;

/// A column of numbers in a file.
#[derive(Debug)]
pub(in crate::segment) struct FileNumericColumn<T: StoredNumber> {
    pages: Pages,
    stats: Vec<BlockStats<T>>,
    has_nulls: bool,
    num_rows: usize,
    number: PhantomData<T>,
}

impl<T: StoredNumber> FileNumericColumn<T> {
    pub(in crate::segment) fn open(source: ColumnSource<'_>) -> Result<Self> {
        let mut directory = source.directory()?;
        let num_rows = source.num_rows;
        let count = directory.count(RECORD_BYTES)?;
        if count != num_rows.div_ceil(BLOCK_ROWS) {
            return Err(directory.damaged("lists another number of blocks than the rows make"));
        }
        let (mut entries, mut stats) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for block in 0..count {
            entries.push(PageEntry::read(&mut directory)?);
            stats.push(read_stats(&mut directory, block_range(block, num_rows).len() as u32)?);
        }
        directory.finish_padded()?;
        let (pages, end) = Pages::new(source.file, &source.name(), "block", source.start, entries)?;
        source.check_end(end)?;
        let has_nulls = stats.iter().any(|stats| stats.nulls > 0);
        Ok(Self { pages, stats, has_nulls, num_rows, number: PhantomData })
    }

    pub(in crate::segment) fn memory_bytes(&self) -> usize {
        self.stats.len() * size_of::<BlockStats<T>>() + self.pages.memory_bytes()
    }

    pub(in crate::segment) fn verify(&self) -> Result<()> {
        let mut values = Vec::new();
        for block in 0..self.pages.len() {
            let valid = self.read(block, &mut values)?;
            let (found, said) = (stats_of(&values, valid.as_ref()), &self.stats[block]);
            let same_sum = T::sum_to_bits(found.sum) == T::sum_to_bits(said.sum);
            // Sums of floats depend on the order of additions, and NaN on the machine.
            if found.nulls != said.nulls || found.min_max != said.min_max || !(same_sum || size_of::<T::Sum>() == 8) {
                return Err(self.pages.locate(block, Error::corrupt("statistics differ from the values")));
            }
        }
        Ok(())
    }

    pub(in crate::segment) fn encodings(&self) -> Result<Vec<(Encoding, usize)>> {
        count_encodings(&self.pages, |page| {
            let mut reader = Reader::new(page, "a block");
            validity::decode(&mut reader, BLOCK_ROWS).ok()?;
            reader.u8().ok()
        })
    }

    fn read_block(&self, block: usize, out: &mut Vec<T>) -> Result<Option<BooleanBuffer>> {
        let mut reader = Reader::new(self.pages.get(block)?, "a block");
        let rows = block_range(block, self.num_rows).len();
        let valid = validity::decode(&mut reader, rows)?;
        T::decode(&mut reader, rows, out)?;
        reader.finish()?;
        let nulls = valid.as_ref().map_or(0, |valid| rows - valid.count_set_bits());
        if nulls != self.stats[block].nulls as usize {
            return Err(reader.damaged("has another number of nulls than its directory says"));
        }
        if let Some(valid) = &valid {
            for (row, value) in out.iter_mut().enumerate() {
                *value = if valid.value(row) { *value } else { T::default() };
            }
        }
        Ok(valid)
    }

    /// The first block that has a value `>= bound`; the number of blocks if none has.
    fn block_of(&self, bound: T) -> usize {
        self.stats.partition_point(|stats| {
            stats.min_max.is_some_and(|(_, max)| max.partial_cmp(&bound) == Some(Ordering::Less))
        })
    }
}

fn read_stats<T: StoredNumber>(directory: &mut Reader<'_>, rows: u32) -> Result<BlockStats<T>> {
    let (nulls, flags) = (directory.u32()?, directory.u8()?);
    let (min, max) = (T::from_bits(directory.u64()?), T::from_bits(directory.u64()?));
    let sum = T::sum_from_bits(directory.u128()?);
    if nulls > rows || flags > 3 {
        return Err(directory.damaged("has statistics that cannot be"));
    }
    Ok(BlockStats { rows, nulls, min_max: (flags & 1 != 0).then_some((min, max)), sum, has_nan: flags & 2 != 0 })
}

impl<T: StoredNumber> NumericColumn<T> for FileNumericColumn<T> {
    fn has_nulls(&self) -> bool {
        self.has_nulls
    }

    fn block_stats(&self, block: usize) -> Result<BlockStats<T>> {
        self.stats.get(block).copied().ok_or_else(|| Error::defensive(format!("there is no block {block}")))
    }

    fn read(&self, block: usize, out: &mut Vec<T>) -> Result<Option<BooleanBuffer>> {
        self.read_block(block, out).map_err(|error| self.pages.locate(block, error))
    }

    fn lower_bound(&self, bound: T) -> Result<usize> {
        let block = self.block_of(bound);
        let Some(stats) = self.stats.get(block) else { return Ok(self.num_rows) };
        let start = block_range(block, self.num_rows).start;
        // Often a whole block lies on one side, and need not be read.
        if stats.min_max.is_some_and(|(min, _)| min >= bound) {
            return Ok(start);
        }
        let mut values = Vec::new();
        self.read(block, &mut values)?;
        Ok(start + values.partition_point(|value| *value < bound))
    }
}
