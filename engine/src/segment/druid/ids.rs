//! Lists of small unsigned integers: dictionary ids, one a row or several, and the offsets of the latter.

use std::ops::Range;

use bytes::Bytes;

use super::blocks::{Blocks, too_short};
use super::codec::Codec;
use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use crate::error::{Error, Result};

/// A block of rows whose lists hold more values than this is damaged, or beyond what can be read.
const MAX_VALUES_AT_ONCE: usize = 1 << 24;

/// One integer after the other, each of `width` bytes.
#[derive(Debug)]
pub(super) struct Ids {
    len: usize,
    width: usize,
    order: ByteOrder,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Flat(Bytes),
    Blocks(Blocks),
}

fn width_of(cursor: &mut Cursor) -> Result<usize> {
    let width = usize::from(cursor.u8()?);
    match width {
        1..=4 => Ok(width),
        _ => Err(cursor.damaged("has integers of an impossible width")),
    }
}

fn expect_version(cursor: &mut Cursor, expected: u8, what: &str) -> Result<()> {
    let version = cursor.u8()?;
    match version == expected {
        true => Ok(()),
        false => Err(Error::unsupported(format!("version {version} of {what} is not known, only {expected}"))),
    }
}

impl Ids {
    /// Druid's `VSizeColumnarInts`.
    pub(super) fn read_flat(cursor: &mut Cursor) -> Result<Self> {
        expect_version(cursor, 0, "uncompressed integers")?;
        let width = width_of(cursor)?;
        let bytes = cursor.sized()?;
        let length = bytes.len().checked_sub(4 - width).filter(|length| length.is_multiple_of(width));
        let length = length.ok_or_else(|| cursor.damaged("does not hold whole integers"))?;
        let layout = Layout::Flat(bytes.slice(..length));
        Ok(Self { len: length / width, width, order: ByteOrder::Big, layout })
    }

    /// Druid's `CompressedVSizeColumnarInts`.
    pub(super) fn read_blocks(cursor: &mut Cursor, files: &Container, order: ByteOrder) -> Result<Self> {
        expect_version(cursor, 2, "compressed integers")?;
        let width = width_of(cursor)?;
        Self::read_blocks_of(cursor, files, order, width)
    }

    /// Druid's `CompressedColumnarInts`.
    fn read_wide_blocks(cursor: &mut Cursor, files: &Container, order: ByteOrder) -> Result<Self> {
        expect_version(cursor, 2, "compressed offsets")?;
        Self::read_blocks_of(cursor, files, order, 4)
    }

    fn read_blocks_of(cursor: &mut Cursor, files: &Container, order: ByteOrder, width: usize) -> Result<Self> {
        let (len, per) = (cursor.length()?, cursor.length()?);
        let codec = Codec::of(cursor.u8()?)?;
        let blocks = Blocks::read(cursor, files, order, codec, (len, per, per.saturating_mul(width)))?;
        Ok(Self { len, width, order, layout: Layout::Blocks(blocks) })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends the integers in `range`.
    pub(super) fn append(&self, range: Range<usize>, out: &mut Vec<u32>) -> Result<()> {
        let (width, order) = (self.width, self.order);
        let mut decode = |bytes: &[u8], range: Range<usize>| {
            let bytes = bytes.get(range.start * width..range.end * width).ok_or_else(too_short)?;
            append(bytes, width, order, out);
            Ok(())
        };
        match &self.layout {
            Layout::Flat(bytes) => decode(bytes, range),
            Layout::Blocks(blocks) => blocks.for_each(range, decode),
        }
    }

    /// Such as `1 byte, LZ4`.
    pub(super) fn describe(&self) -> String {
        let codec = match &self.layout {
            Layout::Flat(_) => "in one piece",
            Layout::Blocks(blocks) => blocks.codec().name(),
        };
        format!("ids of {} byte{} {codec}", self.width, if self.width == 1 { "" } else { "s" })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match &self.layout {
            Layout::Flat(_) => 0,
            Layout::Blocks(blocks) => blocks.memory_bytes(),
        }
    }
}

fn append(bytes: &[u8], width: usize, order: ByteOrder, out: &mut Vec<u32>) {
    match (width, order) {
        (1, _) => out.extend(bytes.iter().map(|&byte| u32::from(byte))),
        (2, ByteOrder::Little) => out.extend(bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b)))),
        (2, ByteOrder::Big) => out.extend(bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_be_bytes(*b)))),
        (3, ByteOrder::Little) => {
            out.extend(bytes.as_chunks().0.iter().map(|&[a, b, c]| u32::from_le_bytes([a, b, c, 0])));
        }
        (3, ByteOrder::Big) => {
            out.extend(bytes.as_chunks().0.iter().map(|&[a, b, c]| u32::from_be_bytes([0, a, b, c])));
        }
        (_, order) => out.extend(bytes.as_chunks().0.iter().map(|b| order.u32(*b))),
    }
}

/// A list of integers for each row.
#[derive(Debug)]
pub(super) enum IdLists {
    /// Druid's `VSizeColumnarMultiInts`: `ends` count bytes of `values`, both big-endian.
    Flat { ends: Bytes, values: Bytes, width: usize, len: usize },
    /// Row `i` has the values from `offsets[i]` to `offsets[i + 1]`.
    Blocks { offsets: Box<Ids>, values: Box<Ids> },
}

impl IdLists {
    pub(super) fn read_flat(cursor: &mut Cursor) -> Result<Self> {
        expect_version(cursor, 1, "uncompressed lists of integers")?;
        let width = width_of(cursor)?;
        let mut inner = Cursor::new(cursor.sized()?, "a list of lists");
        let len = inner.count_in(ByteOrder::Big, 4)?;
        let ends = inner.take(len * 4)?;
        Ok(Self::Flat { ends, values: inner.rest(), width, len })
    }

    /// Versions 2 and 3 differ in the width of the offsets alone.
    pub(super) fn read_blocks(cursor: &mut Cursor, files: &Container, order: ByteOrder, version: u8) -> Result<Self> {
        expect_version(cursor, version, "compressed lists of integers")?;
        let offsets = match version {
            2 => Ids::read_blocks(cursor, files, order)?,
            _ => Ids::read_wide_blocks(cursor, files, order)?,
        };
        if offsets.len() == 0 {
            return Err(cursor.damaged("has no offsets"));
        }
        let values = Ids::read_blocks(cursor, files, order)?;
        Ok(Self::Blocks { offsets: Box::new(offsets), values: Box::new(values) })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Flat { len, .. } => *len,
            Self::Blocks { offsets, .. } => offsets.len() - 1,
        }
    }

    /// Replaces `offsets` and `out`: the `i`th row of `rows` has `out[offsets[i]..offsets[i + 1]]`.
    pub(super) fn read(&self, rows: Range<usize>, offsets: &mut Vec<u32>, out: &mut Vec<u32>) -> Result<()> {
        offsets.clear();
        out.clear();
        match self {
            Self::Flat { ends, values, width, .. } => {
                if rows.start == 0 {
                    offsets.push(0);
                }
                let ends = ends.get(rows.start.saturating_sub(1) * 4..rows.end * 4).ok_or_else(too_short)?;
                append(ends, 4, ByteOrder::Big, offsets);
                let bytes = check_offsets(offsets, 1)?;
                let whole = offsets.iter().all(|offset| (*offset as usize).is_multiple_of(*width));
                let values = values.get(bytes.clone()).filter(|_| whole && bytes.len() / width <= MAX_VALUES_AT_ONCE);
                append(values.ok_or_else(too_short)?, *width, ByteOrder::Big, out);
                rebase(offsets, *width as u32);
            }
            Self::Blocks { offsets: stored, values } => {
                stored.append(rows.start..rows.end + 1, offsets)?;
                let range = check_offsets(offsets, MAX_VALUES_AT_ONCE)?;
                values.append(range, out)?;
                rebase(offsets, 1);
            }
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Flat { width, .. } => format!("lists of {width} byte ids in one piece"),
            Self::Blocks { values, .. } => format!("lists of {}", values.describe()),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Flat { .. } => 0,
            Self::Blocks { offsets, values } => offsets.memory_bytes() + values.memory_bytes(),
        }
    }
}

/// What the offsets span, if they ascend. Those that count bytes span up to four times as much.
fn check_offsets(offsets: &[u32], most: usize) -> Result<Range<usize>> {
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err(Error::corrupt("a list of lists has no offsets"));
    };
    if !offsets.is_sorted() {
        return Err(Error::corrupt("the lists of some rows end before they begin"));
    }
    if most > 1 && (last - first) as usize > most {
        return Err(Error::capacity_exceeded(format!("a few rows hold more than {most} values together")));
    }
    Ok(first as usize..last as usize)
}

fn rebase(offsets: &mut [u32], divisor: u32) {
    let first = offsets.first().copied().unwrap_or_default();
    offsets.iter_mut().for_each(|offset| *offset = (*offset - first) / divisor);
}
