//! Lists of longs, floats and doubles in all their layouts, and the columns made of them.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::buffer::{BooleanBuffer, MutableBuffer};
use bytes::Bytes;
use roaring::RoaringBitmap;

use super::blocks::{Blocks, too_short};
use super::codec::Codec;
use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use super::packed::{Packing, read_packing};
use super::{MemoryUse, block_rows};
use crate::error::{Error, Result};
use crate::segment::column::number::{StoredNumber, stats_of};
use crate::segment::{BLOCK_ROWS, BlockStats, Column, NumericColumn};

/// A number as Druid has it.
pub(super) trait DruidNumber: StoredNumber {
    const WIDTH: usize = size_of::<Self>();

    fn column(numbers: Arc<DruidNumbers<Self>>) -> Column;

    /// Appends the numbers in `bytes`, which are whole ones.
    fn append(bytes: &[u8], order: ByteOrder, out: &mut Vec<Self>);

    /// What follows the head of a list: longs may be packed.
    fn read_encoding(_cursor: &mut Cursor, first: Option<u8>) -> Result<(Codec, Packing)> {
        Ok((first.map_or(Ok(Codec::Lzf), Codec::of)?, Packing::Plain))
    }

    /// Appends numbers that are packed; only longs are.
    fn append_packed(packing: &Packing, _bytes: &[u8], _range: Range<usize>, _out: &mut Vec<Self>) -> Result<()> {
        Err(Error::defensive(format!("numbers that are {} and no longs", packing.name())))
    }
}

impl DruidNumber for i64 {
    fn column(numbers: Arc<DruidNumbers<Self>>) -> Column {
        Column::Long(numbers)
    }

    fn append(bytes: &[u8], order: ByteOrder, out: &mut Vec<Self>) {
        out.extend(bytes.as_chunks().0.iter().map(|bytes| order.u64(*bytes).cast_signed()));
    }

    fn read_encoding(cursor: &mut Cursor, first: Option<u8>) -> Result<(Codec, Packing)> {
        read_packing(cursor, first)
    }

    fn append_packed(packing: &Packing, bytes: &[u8], range: Range<usize>, out: &mut Vec<Self>) -> Result<()> {
        packing.append(bytes, range, out)
    }
}

impl DruidNumber for f32 {
    fn column(numbers: Arc<DruidNumbers<Self>>) -> Column {
        Column::Float(numbers)
    }

    fn append(bytes: &[u8], order: ByteOrder, out: &mut Vec<Self>) {
        out.extend(bytes.as_chunks().0.iter().map(|bytes| Self::from_bits(order.u32(*bytes))));
    }
}

impl DruidNumber for f64 {
    fn column(numbers: Arc<DruidNumbers<Self>>) -> Column {
        Column::Double(numbers)
    }

    fn append(bytes: &[u8], order: ByteOrder, out: &mut Vec<Self>) {
        out.extend(bytes.as_chunks().0.iter().map(|bytes| Self::from_bits(order.u64(*bytes))));
    }
}

/// A list of numbers.
#[derive(Debug)]
pub(super) struct NumberList {
    len: usize,
    order: ByteOrder,
    packing: Packing,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Flat(Bytes),
    Blocks(Blocks),
}

impl NumberList {
    /// The list of numbers that begins here.
    pub(super) fn read<T: DruidNumber>(cursor: &mut Cursor, files: &Container, order: ByteOrder) -> Result<Self> {
        let version = cursor.u8()?;
        let (len, per) = (cursor.length()?, cursor.length()?);
        let first = match version {
            1 => None,
            2 => Some(cursor.u8()?),
            _ => return Err(Error::unsupported(format!("version {version} of a list of numbers is not known"))),
        };
        let (codec, packing) = T::read_encoding(cursor, first)?;
        let layout = if codec == Codec::None {
            let bytes = packing.bytes_of(len, T::WIDTH);
            let stored = cursor.peek().len();
            if bytes > stored {
                return Err(Error::corrupt(format!("{len} numbers take {bytes} bytes, but there are {stored}")));
            }
            Layout::Flat(cursor.take(packing.stored_bytes_of(len, T::WIDTH).min(stored))?)
        } else {
            let block_bytes = packing.bytes_of(per, T::WIDTH);
            Layout::Blocks(Blocks::read(cursor, files, order, codec, (len, per, block_bytes))?)
        };
        Ok(Self { len, order, packing, layout })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends the numbers in `range`.
    pub(super) fn append<T: DruidNumber>(&self, range: Range<usize>, out: &mut Vec<T>) -> Result<()> {
        let (order, packing) = (self.order, &self.packing);
        let mut decode = |bytes: &[u8], range: Range<usize>| {
            if !matches!(packing, Packing::Plain) {
                return T::append_packed(packing, bytes, range, out);
            }
            T::append(bytes.get(range.start * T::WIDTH..range.end * T::WIDTH).ok_or_else(too_short)?, order, out);
            Ok(())
        };
        match &self.layout {
            Layout::Flat(bytes) => decode(bytes, range),
            Layout::Blocks(blocks) => blocks.for_each(range, decode),
        }
    }

    pub(super) fn describe(&self) -> String {
        let codec = match &self.layout {
            Layout::Flat(_) => Codec::None,
            Layout::Blocks(blocks) => blocks.codec(),
        };
        format!("{} {}", self.packing.name(), codec.name())
    }
}

/// A column of numbers.
#[derive(Debug)]
pub(super) struct DruidNumbers<T: DruidNumber> {
    list: NumberList,
    nulls: Option<RoaringBitmap>,
    /// What each block amounts to, once somebody asked; Druid's files do not say.
    stats: Vec<OnceLock<BlockStats<T>>>,
}

impl<T: DruidNumber> DruidNumbers<T> {
    /// `nulls` are rows of the column.
    pub(super) fn new(list: NumberList, nulls: Option<RoaringBitmap>) -> Self {
        let stats = (0..list.len().div_ceil(BLOCK_ROWS)).map(|_| OnceLock::new()).collect();
        Self { list, nulls: nulls.filter(|nulls| !nulls.is_empty()), stats }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn describe(&self) -> String {
        let nulls = self.nulls.as_ref().map_or(0, RoaringBitmap::len);
        format!("{}{}", self.list.describe(), if nulls > 0 { format!(", {nulls} nulls") } else { String::new() })
    }

    fn validity(&self, rows: &Range<usize>, values: &mut [T]) -> Option<BooleanBuffer> {
        let nulls = self.nulls.as_ref()?;
        let mut nulls = nulls.range(rows.start as u32..rows.end as u32).peekable();
        nulls.peek()?;
        let mut valid = MutableBuffer::new(0);
        valid.resize(rows.len().div_ceil(8), 0xff);
        for row in nulls {
            let row = row as usize - rows.start;
            valid[row / 8] &= !(1 << (row % 8));
            values[row] = T::default();
        }
        Some(BooleanBuffer::new(valid.into(), 0, rows.len()))
    }
}

impl<T: DruidNumber> NumericColumn<T> for DruidNumbers<T> {
    fn has_nulls(&self) -> bool {
        self.nulls.is_some()
    }

    fn block_stats(&self, block: usize) -> Result<BlockStats<T>> {
        let Some(slot) = self.stats.get(block) else {
            return Err(Error::defensive(format!("there is no block {block}")));
        };
        if let Some(stats) = slot.get() {
            return Ok(*stats);
        }
        let mut values = Vec::with_capacity(BLOCK_ROWS);
        let valid = self.read(block, &mut values)?;
        Ok(*slot.get_or_init(|| stats_of(&values, valid.as_ref())))
    }

    fn read(&self, block: usize, out: &mut Vec<T>) -> Result<Option<BooleanBuffer>> {
        let rows = block_rows(block, self.list.len())?;
        out.clear();
        self.list.append(rows.clone(), out).map_err(|error| error.context("block", block))?;
        Ok(self.validity(&rows, out))
    }

    fn lower_bound(&self, bound: T) -> Result<usize> {
        let is_below = |block: usize| {
            let stats = self.block_stats(block)?;
            Ok::<_, Error>(stats.min_max.is_some_and(|(_, greatest)| greatest < bound))
        };
        // The first block that has a value that is not below.
        let (mut low, mut high) = (0, self.stats.len());
        while low < high {
            let middle = low.midpoint(high);
            if is_below(middle)? { low = middle + 1 } else { high = middle }
        }
        if low == self.stats.len() {
            return Ok(self.list.len());
        }
        let mut values = Vec::new();
        self.read(low, &mut values)?;
        Ok(low * BLOCK_ROWS + values.partition_point(|value| *value < bound))
    }
}

impl<T: DruidNumber> MemoryUse for DruidNumbers<T> {
    fn memory_bytes(&self) -> usize {
        let kept = match &self.list.layout {
            Layout::Flat(_) => 0,
            Layout::Blocks(blocks) => blocks.memory_bytes(),
        };
        let nulls = self.nulls.as_ref().map_or(0, RoaringBitmap::serialized_size);
        kept + nulls + self.stats.len() * size_of::<OnceLock<BlockStats<T>>>()
    }
}
