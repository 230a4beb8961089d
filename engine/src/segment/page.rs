//! Pages: the pieces of a column that are checksummed one by one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::Mmap;

use super::holes::Holes;
use super::wire::{Reader, aligned, to_u32};
use crate::error::{Error, Result};

/// CRC-32C (Castagnoli), which processors compute at memory speed.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The bytes of a segment file, and the name it goes by in errors.
pub(super) struct FileBytes {
    pub(super) name: String,
    pub(super) content: Content,
}

pub(super) enum Content {
    Mapped(Mmap),
    /// Mapped as well, and brought here piece by piece.
    Partial(Mmap, Arc<dyn Holes>),
    Owned(Bytes),
}

impl FileBytes {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map) | Content::Partial(map, _) => map,
            Content::Owned(bytes) => bytes,
        }
    }

    /// Whether some of its bytes may be elsewhere.
    fn is_partial(&self) -> bool {
        matches!(self.content, Content::Partial(..))
    }

    /// Has a range of the bytes here, which must lie within the file. Where some may be elsewhere, `check` has succeeded
    /// for them on return.
    pub(super) fn need(&self, range: Range<usize>, check: &dyn Fn(&[u8]) -> Result<()>) -> Result<()> {
        match &self.content {
            Content::Partial(map, holes) => holes.fill(range.clone(), &map[range], check),
            Content::Mapped(_) | Content::Owned(_) => Ok(()),
        }
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({}, {} bytes)", self.name, self.bytes().len())
    }
}

/// Where a page is said to be: its length without padding, and the checksum over it and its padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageEntry {
    pub(super) length: u32,
    pub(super) checksum: u32,
}

impl PageEntry {
    pub(super) const BYTES: usize = 8;

    /// Pads `page`, and describes it.
    pub(super) fn seal(page: &mut Vec<u8>) -> Result<Self> {
        let length = to_u32(page.len(), "the bytes of one page")?;
        super::wire::pad(page);
        Ok(Self { length, checksum: checksum(page) })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.checksum.to_le_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { length: reader.u32()?, checksum: reader.u32()? })
    }

    fn padded(&self) -> usize {
        aligned(self.length as usize)
    }
}

fn damaged() -> Error {
    Error::corrupt("damaged bytes: the checksum differs")
}

/// The pages of one section of a column, one after the other.
///
/// Invariant: together they cover the section's bytes exactly, which [`Pages::new`] has checked.
pub(super) struct Pages {
    file: Arc<FileBytes>,
    column: Arc<str>,
    /// What a page is called in errors, such as `block`.
    what: &'static str,
    starts: Vec<usize>,
    entries: Vec<PageEntry>,
    /// One bit a page: its checksum has been found right. Set without ordering: a second check does no harm.
    checked: Vec<AtomicU64>,
}

impl Pages {
    /// `start` is the offset in the file; the pages' end must lie within it. Returns also the offset after the pages.
    pub(super) fn new(
        file: &Arc<FileBytes>,
        column: &Arc<str>,
        what: &'static str,
        start: usize,
        entries: Vec<PageEntry>,
    ) -> Result<(Self, usize)> {
        let mut end = start;
        let mut starts = Vec::with_capacity(entries.len());
        for entry in &entries {
            starts.push(end);
            end = end.saturating_add(entry.padded());
        }
        if end > file.bytes().len() {
            return Err(Error::corrupt(format!("the {what}s of a column reach beyond the file")));
        }
        let checked = (0..entries.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let pages = Self { file: Arc::clone(file), column: Arc::clone(column), what, starts, entries, checked };
        Ok((pages, end))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of a page without padding. Checks its checksum the first time.
    pub(super) fn get(&self, index: usize) -> Result<&[u8]> {
        let (Some(entry), Some(&start)) = (self.entries.get(index), self.starts.get(index)) else {
            return Err(self.locate(index, Error::defensive(format!("there is no such {}", self.what))));
        };
        let padded = &self.file.bytes()[start..start + entry.padded()];
        let (word, bit) = (&self.checked[index / 64], 1u64 << (index % 64));
        // What was brought by another thread is there for this one too.
        if word.load(Ordering::Acquire) & bit == 0 {
            if self.file.is_partial() {
                self.bring().map_err(|error| self.locate(index, error))?;
            }
            if checksum(padded) != entry.checksum {
                return Err(self.locate(index, damaged()));
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(&padded[..entry.length as usize])
    }

    /// Has all of them here. What is brought is checked before it is kept, all of it.
    fn bring(&self) -> Result<()> {
        let Some(&start) = self.starts.first() else { return Ok(()) };
        let end = self.starts.last().zip(self.entries.last()).map_or(start, |(start, entry)| start + entry.padded());
        self.file.need(start..end, &|bytes| {
            for (page, entry) in self.starts.iter().zip(&self.entries) {
                let at = page - start;
                if checksum(&bytes[at..at + entry.padded()]) != entry.checksum {
                    return Err(damaged());
                }
            }
            Ok(())
        })?;
        self.checked.iter().for_each(|word| word.store(u64::MAX, Ordering::Release));
        Ok(())
    }

    /// Adds which page, column and file an error is about, unless it says so already.
    pub(super) fn locate(&self, index: usize, error: Error) -> Error {
        if error.contexts().next().is_some() {
            return error;
        }
        error.context(self.what, index).context("column", &self.column).context("segment", &self.file.name)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.len() * (size_of::<PageEntry>() + size_of::<usize>())
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} {}s of {})", self.len(), self.what, self.column)
    }
}
