//! Front-coded lists of byte strings, in buckets: of each only what differs from the first of its bucket (version 0) or
//! from the one before (version 1).

use std::ops::Range;

use bytes::Bytes;

use super::cursor::{ByteOrder, Cursor};
use crate::error::{Error, Result};

const MAX_BUCKET: usize = 128;

/// A front-coded list, without the null that may come before it.
#[derive(Clone, Debug)]
pub(super) struct FrontCoded {
    prefix: Prefix,
    bucket_size: usize,
    len: usize,
    order: ByteOrder,
    /// Ends of all buckets but the last.
    ends: Bytes,
    buckets: Bytes,
    /// Bytes of one unit of the lengths: 1 for texts, 4 for lists of integers.
    unit: usize,
}

/// Of which value the prefix is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    OfFirst,
    OfPrevious,
}

impl FrontCoded {
    /// Texts. Returns also whether a null comes first.
    pub(super) fn read_texts(cursor: &mut Cursor, order: ByteOrder) -> Result<(Self, bool)> {
        let prefix = match cursor.u8()? {
            0 => Prefix::OfFirst,
            1 => Prefix::OfPrevious,
            version => return Err(Error::unsupported(format!("version {version} of front-coding is not known"))),
        };
        Self::read(cursor, order, prefix, 1)
    }

    /// Lists of integers, as their bytes.
    pub(super) fn read_ints(cursor: &mut Cursor, order: ByteOrder) -> Result<(Self, bool)> {
        match cursor.u8()? {
            0 => Self::read(cursor, order, Prefix::OfPrevious, 4),
            version => Err(Error::unsupported(format!("version {version} of front-coded integers is not known"))),
        }
    }

    fn read(cursor: &mut Cursor, order: ByteOrder, prefix: Prefix, unit: usize) -> Result<(Self, bool)> {
        let bucket_size = usize::from(cursor.u8()?);
        if !bucket_size.is_power_of_two() || bucket_size > MAX_BUCKET {
            return Err(cursor.damaged("has buckets of an impossible size"));
        }
        let has_null = match cursor.u8()? {
            0 => false,
            1 => true,
            _ => return Err(cursor.damaged("does not say whether it has a null")),
        };
        let len = cursor.vbyte()?;
        let size = cursor.vbyte()?;
        let mut body = Cursor::new(cursor.take(size)?, "a front-coded list");
        if len > size {
            return Err(body.damaged("claims more values than it has bytes for"));
        }
        let ends = body.take(len.div_ceil(bucket_size).saturating_sub(1) * 4)?;
        Ok((Self { prefix, bucket_size, len, order, ends, buckets: body.rest(), unit }, has_null))
    }

    /// A list without values.
    pub(super) fn empty() -> Self {
        let (ends, buckets) = (Bytes::new(), Bytes::new());
        Self { prefix: Prefix::OfFirst, bucket_size: 1, len: 0, order: ByteOrder::Little, ends, buckets, unit: 1 }
    }

    pub(super) fn order(&self) -> ByteOrder {
        self.order
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn describe(&self) -> String {
        let version = if self.prefix == Prefix::OfFirst { 0 } else { 1 };
        format!("front-coded v{version} by {}", self.bucket_size)
    }

    /// Calls `each` with all values, in order.
    pub(super) fn for_each(&self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut scratch = Vec::new();
        for bucket in 0..self.len.div_ceil(self.bucket_size) {
            let values = (bucket * self.bucket_size..self.len).len().min(self.bucket_size);
            self.walk(bucket, values, &mut scratch, |_, value| each(value))?;
        }
        Ok(())
    }

    /// Replaces `out` with value `index`.
    pub(super) fn get(&self, index: usize, out: &mut Vec<u8>) -> Result<()> {
        if index >= self.len {
            return Err(Error::corrupt("a front-coded list is asked for a value that it does not have"));
        }
        let (bucket, position) = (index / self.bucket_size, index % self.bucket_size);
        self.walk(bucket, position + 1, out, |_, _| Ok(()))
    }

    fn bucket(&self, bucket: usize) -> Result<Bytes> {
        let end_at = |index: usize| {
            let end = self.ends.get(index * 4..).and_then(<[u8]>::first_chunk::<4>);
            end.map_or(self.buckets.len(), |end| self.order.u32(*end) as usize)
        };
        let range: Range<usize> = if bucket == 0 { 0 } else { end_at(bucket - 1) }..end_at(bucket);
        if range.start > range.end || range.end > self.buckets.len() {
            return Err(Error::corrupt("a bucket of a front-coded list lies outside of it"));
        }
        Ok(self.buckets.slice(range))
    }

    /// Decodes the first values of a bucket one after the other into `value`, and calls `each` with its position.
    fn walk(
        &self,
        bucket: usize,
        values: usize,
        value: &mut Vec<u8>,
        mut each: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut cursor = Cursor::new(self.bucket(bucket)?, "a bucket of a front-coded list");
        let mut first = Bytes::new();
        value.clear();
        for position in 0..values {
            let kept = if position == 0 { 0 } else { cursor.vbyte()?.saturating_mul(self.unit) };
            if position > 0 && self.prefix == Prefix::OfFirst {
                value.clear();
                value.extend_from_slice(&first);
            }
            if kept > value.len() {
                return Err(cursor.damaged("has a prefix longer than what it is one of"));
            }
            value.truncate(kept);
            let length = cursor.vbyte()?.saturating_mul(self.unit);
            let fragment = cursor.take(length)?;
            value.extend_from_slice(&fragment);
            if position == 0 {
                first = fragment;
            }
            each(position, value)?;
        }
        Ok(())
    }
}
