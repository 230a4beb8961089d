//! Values of one width in compressed blocks, of which the last few are kept.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::codec::{BLOCK_BYTES, Codec};
use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use super::indexed::Indexed;
use crate::error::{Error, Result};

/// A Druid block has up to eight of ours; that many threads may each be in another one.
const KEPT_BLOCKS: usize = 4;

/// Blocks of values.
pub(super) struct Blocks {
    list: Indexed,
    codec: Codec,
    /// Values a block; the last may have fewer.
    per: usize,
    /// Number of values.
    len: usize,
    kept: Mutex<Vec<(usize, Arc<Vec<u8>>)>>,
}

impl Blocks {
    /// The list of blocks that begins here. `block_bytes` is what a whole block of values takes.
    pub(super) fn read(
        cursor: &mut Cursor,
        files: &Container,
        order: ByteOrder,
        codec: Codec,
        (len, per, block_bytes): (usize, usize, usize),
    ) -> Result<Self> {
        if per == 0 || block_bytes > BLOCK_BYTES {
            return Err(Error::corrupt(format!("blocks of {per} values are said to take {block_bytes} bytes each")));
        }
        let list = Indexed::read(cursor, files, order)?;
        if list.len() != len.div_ceil(per) {
            return Err(Error::corrupt(format!(
                "{len} values in blocks of {per} make {} blocks, but there are {}",
                len.div_ceil(per),
                list.len()
            )));
        }
        Ok(Self { list, codec, per, len, kept: Mutex::default() })
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// Calls `each` with the bytes of every block that has some of `values`, and which of the block's values they are.
    pub(super) fn for_each(
        &self,
        values: Range<usize>,
        mut each: impl FnMut(&[u8], Range<usize>) -> Result<()>,
    ) -> Result<()> {
        if values.end > self.len {
            return Err(Error::corrupt("values are asked for that the column does not have"));
        }
        let mut next = values.start;
        while next < values.end {
            let block = next / self.per;
            let first = block * self.per;
            let end = values.end.min(first + self.per);
            self.with(block, |bytes| each(bytes, next - first..end - first))
                .map_err(|error| error.context("compressed block", block))?;
            next = end;
        }
        Ok(())
    }

    fn with(&self, block: usize, use_it: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        let stored = self.list.get(block)?.unwrap_or_default();
        if !self.codec.is_compressed() {
            return use_it(stored);
        }
        use_it(&self.decompressed(block, stored)?)
    }

    fn decompressed(&self, block: usize, stored: &[u8]) -> Result<Arc<Vec<u8>>> {
        // A buffer that nobody reads any more is used again.
        let mut buffer = Vec::new();
        {
            let mut kept = self.kept.lock();
            if let Some(at) = kept.iter().position(|(number, _)| *number == block) {
                let found = kept.remove(at);
                kept.push(found);
                return Ok(Arc::clone(&kept[kept.len() - 1].1));
            }
            if kept.len() >= KEPT_BLOCKS {
                buffer = Arc::try_unwrap(kept.remove(0).1).unwrap_or_default();
            }
        }
        self.codec.decompress(stored, &mut buffer)?;
        let bytes = Arc::new(buffer);
        let mut kept = self.kept.lock();
        if kept.len() < KEPT_BLOCKS {
            kept.push((block, Arc::clone(&bytes)));
        }
        Ok(bytes)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.kept.lock().iter().map(|(_, bytes)| bytes.capacity()).sum()
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blocks({} values, {} a block, {})", self.len, self.per, self.codec.name())
    }
}

/// A block is shorter than the values it is said to have.
pub(super) fn too_short() -> Error {
    Error::corrupt("a block has fewer bytes than its values take")
}
