//! Columns of byte strings of any size, in compressed blocks: documents, and complex metrics of newer segments.

use std::ops::Range;

use bytes::Bytes;

use super::codec::{BLOCK_BYTES, Codec};
use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use crate::error::{Error, Result};

/// One value of more bytes than this is not read.
const MAX_BLOB_BYTES: usize = 64 << 20;

/// A column of byte strings, one a row.
#[derive(Debug)]
pub(super) struct Blobs {
    len: usize,
    order: ByteOrder,
    offsets: BlockFile,
    values: BlockFile,
}

impl Blobs {
    /// The column whose files begin with `base`.
    pub(super) fn open(files: &Container, base: &str, order: ByteOrder) -> Result<Self> {
        let mut cursor = Cursor::new(files.require(base)?, "a column of byte strings");
        match cursor.u8()? {
            1 => {}
            version => return Err(Error::unsupported(format!("version {version} of byte strings is not known"))),
        }
        let len = cursor.length()?;
        let offsets = BlockFile::open(files.require(&format!("{base}_offsets"))?, order)?;
        let values = BlockFile::open(files.require(&format!("{base}_compressed"))?, order)?;
        if offsets.most_bytes() < len.saturating_mul(8) {
            return Err(cursor.damaged("has fewer offsets than values"));
        }
        Ok(Self { len, order, offsets, values })
    }

    pub(super) fn describe(&self) -> &'static str {
        self.values.codec.name()
    }

    /// Calls `each` with the bytes of every row.
    pub(super) fn for_each(&self, mut each: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        let (mut offsets, mut values) = (Reading::default(), Reading::default());
        let (mut word, mut blob, mut start) = (Vec::new(), Vec::new(), 0usize);
        for row in 0..self.len {
            self.offsets.read(row * 8..row * 8 + 8, &mut offsets, &mut word)?;
            let end = word.first_chunk::<8>().map_or(0, |bytes| self.order.u64(*bytes));
            let end = usize::try_from(end).ok().filter(|end| *end >= start);
            let end = end.ok_or_else(|| Error::corrupt("a byte string ends before it begins").context("row", row))?;
            if end - start > MAX_BLOB_BYTES {
                return Err(
                    Error::capacity_exceeded("a byte string of more than 64 MiB is not read").context("row", row)
                );
            }
            self.values.read(start..end, &mut values, &mut blob).map_err(|error| error.context("row", row))?;
            each(row, &blob)?;
            start = end;
        }
        Ok(())
    }
}

/// Bytes in blocks, each of which but the last decompresses to the same length.
#[derive(Debug)]
struct BlockFile {
    codec: Codec,
    block_bytes: usize,
    num_blocks: usize,
    order: ByteOrder,
    ends: Bytes,
    body: Bytes,
}

/// The block that was decompressed last.
#[derive(Default)]
struct Reading {
    block: Option<usize>,
    bytes: Vec<u8>,
}

impl BlockFile {
    fn open(file: Bytes, order: ByteOrder) -> Result<Self> {
        let mut cursor = Cursor::new(file, "blocks of byte strings");
        match cursor.u8()? {
            1 => {}
            version => return Err(Error::unsupported(format!("version {version} of such blocks is not known"))),
        }
        let codec = Codec::of(cursor.u8()?)?;
        let block_bytes = cursor.length()?;
        if block_bytes == 0 || block_bytes > BLOCK_BYTES {
            return Err(cursor.damaged("have an impossible size"));
        }
        let num_blocks = cursor.count_in(ByteOrder::Big, 4)?;
        let ends = cursor.take(num_blocks * 4)?;
        Ok(Self { codec, block_bytes, num_blocks, order, ends, body: cursor.rest() })
    }

    fn most_bytes(&self) -> usize {
        self.num_blocks.saturating_mul(self.block_bytes)
    }

    /// Replaces `out` with a stretch of the decompressed bytes.
    fn read(&self, range: Range<usize>, reading: &mut Reading, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let mut next = range.start;
        while next < range.end {
            let block = next / self.block_bytes;
            if reading.block != Some(block) {
                reading.block = None;
                self.codec.decompress(self.stored(block)?, &mut reading.bytes)?;
                reading.block = Some(block);
            }
            let first = block * self.block_bytes;
            let end = range.end.min(first + self.block_bytes);
            let bytes = reading.bytes.get(next - first..end - first);
            out.extend_from_slice(bytes.ok_or_else(|| Error::corrupt("a byte string lies outside of its blocks"))?);
            next = end;
        }
        Ok(())
    }

    fn stored(&self, block: usize) -> Result<&[u8]> {
        let end_at = |index: usize| {
            let end = self.ends.get(index * 4..).and_then(<[u8]>::first_chunk::<4>);
            end.map(|end| self.order.u32(*end) as usize)
        };
        let start = if block == 0 { Some(0) } else { end_at(block - 1) };
        let range = start.zip(end_at(block)).map(|(start, end)| start..end);
        let stored = range.and_then(|range| self.body.get(range));
        stored.ok_or_else(|| Error::corrupt("a byte string lies outside of its blocks"))
    }
}
