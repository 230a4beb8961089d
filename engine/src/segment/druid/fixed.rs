//! Dictionaries of numbers of one width: Druid's `FixedIndexed`.

use bytes::Bytes;

use super::blocks::too_short;
use super::cursor::{ByteOrder, Cursor};
use crate::error::{Error, Result};

/// Numbers of 4 or 8 bytes, of which the first may be null.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    has_null: bool,
    len: usize,
    width: usize,
    order: ByteOrder,
    values: Bytes,
}

impl Fixed {
    pub(super) fn read(cursor: &mut Cursor, order: ByteOrder, width: usize) -> Result<Self> {
        let version = cursor.u8()?;
        if version != 0 {
            return Err(Error::unsupported(format!("version {version} of a dictionary of numbers is not known")));
        }
        let has_null = cursor.u8()? & 1 != 0;
        let stored = cursor.count_in(order, width)?;
        let values = cursor.take(stored * width)?;
        Ok(Self { has_null, len: stored + usize::from(has_null), width, order, values })
    }

    /// The null among them.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_null(&self) -> bool {
        self.has_null
    }

    /// The bits of a number; `None` for the null.
    pub(super) fn bits(&self, index: usize) -> Result<Option<u64>> {
        let Some(index) = index.checked_sub(usize::from(self.has_null)) else { return Ok(None) };
        let bytes = self.values.get(index * self.width..).ok_or_else(too_short)?;
        let bits = match self.width {
            4 => bytes.first_chunk::<4>().map(|bytes| u64::from(self.order.u32(*bytes))),
            _ => bytes.first_chunk::<8>().map(|bytes| self.order.u64(*bytes)),
        };
        bits.map(Some).ok_or_else(too_short)
    }
}
