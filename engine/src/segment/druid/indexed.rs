//! Druid's `GenericIndexed`: a list of byte strings, some of them null, in one file or in several.

use bytes::Bytes;

use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use crate::error::{Error, Result};

/// A list of byte strings. Nothing but its bounds is checked until an entry is asked for.
#[derive(Clone, Debug)]
pub(super) struct Indexed {
    len: usize,
    layout: Layout,
}

#[derive(Clone, Debug)]
enum Layout {
    /// Version 1. `ends` are big-endian.
    One { ends: Bytes, values: Bytes },
    /// Version 2: `2^shift` entries a file.
    Many { shift: u32, ends: Bytes, order: ByteOrder, files: Vec<Bytes> },
}

const WHAT: &str = "a list of values";

impl Indexed {
    /// Reads the list that begins here. A list in several files is found in `files`.
    pub(super) fn read(cursor: &mut Cursor, files: &Container, order: ByteOrder) -> Result<Self> {
        let version = cursor.u8()?;
        // Whether entries are sorted. It is also set where they are not.
        cursor.u8()?;
        match version {
            1 => Self::read_one(cursor),
            2 => Self::read_many(cursor, files, order),
            _ => Err(Error::unsupported(format!("version {version} of Druid's `GenericIndexed` is not known"))),
        }
    }

    fn read_one(cursor: &mut Cursor) -> Result<Self> {
        let bytes = cursor.sized()?;
        let mut inner = Cursor::new(bytes, WHAT);
        let len = inner.count_in(ByteOrder::Big, 4)?;
        let ends = inner.take(len * 4)?;
        Ok(Self { len, layout: Layout::One { ends, values: inner.rest() } })
    }

    fn read_many(cursor: &mut Cursor, files: &Container, order: ByteOrder) -> Result<Self> {
        let shift = cursor.i32()?;
        let len = cursor.length()?;
        let base = cursor.text()?;
        let shift = u32::try_from(shift).ok().filter(|shift| *shift < 31);
        let shift = shift.ok_or_else(|| cursor.damaged("puts an impossible number of entries in a file"))?;
        let ends = files.require(&format!("{base}_header"))?;
        if ends.len() / 4 < len {
            return Err(cursor.damaged("claims more entries than its header has"));
        }
        let values = (0..len.div_ceil(1 << shift)).map(|file| files.require(&format!("{base}_value_{file}")));
        Ok(Self { len, layout: Layout::Many { shift, ends, order, files: values.collect::<Result<_>>()? } })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// An entry; `None` where it is null.
    pub(super) fn get(&self, index: usize) -> Result<Option<&[u8]>> {
        if index >= self.len {
            return Err(damaged("is asked for an entry that it does not have"));
        }
        let (start, end, values) = match &self.layout {
            Layout::One { ends, values } => {
                let start = if index == 0 { 0 } else { end_at(ends, index - 1, ByteOrder::Big)? };
                (start, end_at(ends, index, ByteOrder::Big)?, values)
            }
            Layout::Many { shift, ends, order, files } => {
                let is_first = index.trailing_zeros() >= *shift;
                let start = if is_first { 0 } else { end_at(ends, index - 1, *order)? };
                (start, end_at(ends, index, *order)?, &files[index >> shift])
            }
        };
        let Some((marker, value)) = values.get(start..end).and_then(<[u8]>::split_first_chunk::<4>) else {
            return Err(damaged("has an entry that lies outside of it"));
        };
        let is_null = value.is_empty() && i32::from_be_bytes(*marker) < 0;
        Ok((!is_null).then_some(value))
    }

    /// Whether the list is in several files.
    pub(super) fn is_split(&self) -> bool {
        matches!(self.layout, Layout::Many { .. })
    }
}

fn end_at(ends: &Bytes, index: usize, order: ByteOrder) -> Result<usize> {
    let end = ends.get(index * 4..).and_then(<[u8]>::first_chunk::<4>).map(|end| order.u32(*end).cast_signed());
    end.and_then(|end| usize::try_from(end).ok()).ok_or_else(|| damaged("has an entry that ends before it begins"))
}

fn damaged(how: &str) -> Error {
    Error::corrupt(format!("{WHAT} {how}"))
}
