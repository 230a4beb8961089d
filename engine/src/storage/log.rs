//! A log of what is to survive a power loss before it is anywhere else.
//!
//! Invariants: an entry that [`Log::append`] returned the number of is read again by every later [`Log::recover`], until
//! [`Log::remove_below`] was told that it is no longer needed; entries are read in their order; none is passed over
//! without its number being told.

#![doc = include_str!("log/FORMAT.md")]

mod frame;
mod recovery;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use recovery::{Damage, LogItem, Recovered};

use super::crash::crash_point;
use super::disk::{Disk, DiskFile};
use crate::error::{Category, Error, Persona, Result};

/// A file that has so many bytes is ended.
const FILE_BYTES: u64 = 64 << 20;

/// The write-ahead log in a directory. One at a time.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file_bytes: u64,
    /// The number of the next entry.
    next: u64,
    open: Option<OpenFile>,
    /// All files, the one that is written to last.
    files: VecDeque<LogFile>,
}

struct OpenFile {
    file: Box<dyn DiskFile>,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenFile")
    }
}

#[derive(Clone, Debug)]
struct LogFile {
    first: u64,
    bytes: u64,
}

impl Log {
    /// The number of the next entry.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Files end at about this size.
    pub fn set_file_bytes(&mut self, bytes: u64) {
        self.file_bytes = bytes;
    }

    /// Adds entries, and returns the number of the first of them once all are durable. A new file begins with `preamble`.
    ///
    /// On failure none of them is in the log for who goes on with this one. Should the process end before anything else is
    /// appended, a later one may find them all or none. It is a `ServiceUnavailable`, of a full disk with SQLSTATE 53100.
    pub fn append(&mut self, entries: &[impl AsRef<[u8]>], preamble: impl FnOnce() -> Vec<u8>) -> Result<u64> {
        let first = self.next;
        if self.files.back().is_some_and(|file| file.bytes >= self.file_bytes) {
            self.open = None;
        }
        let appended = self.try_append(entries, preamble);
        if appended.is_err() {
            // Whatever is in that file now is not to be relied on.
            self.open = None;
        }
        appended.map_err(|error| self.failed(error))?;
        self.next += entries.len() as u64;
        Ok(first)
    }

    fn try_append(&mut self, entries: &[impl AsRef<[u8]>], preamble: impl FnOnce() -> Vec<u8>) -> io::Result<()> {
        if self.open.is_none() {
            self.begin_file(&preamble())?;
        }
        let bytes = frame::frame(self.next, entries)?;
        let (Some(open), Some(file)) = (&mut self.open, self.files.back_mut()) else {
            return Err(io::Error::other("no file was begun"));
        };
        file.bytes += bytes.len() as u64;
        open.file.write_all(&bytes)?;
        open.file.sync_data()
    }

    /// Begins a file, in place of one that holds nothing but a frame that failed.
    fn begin_file(&mut self, preamble: &[u8]) -> io::Result<()> {
        let path = self.dir.join(frame::file_name(self.next));
        let begun = path.with_extension(frame::BEGUN);
        if self.disk.exists(&begun)? {
            self.disk.remove_file(&begun)?;
        }
        let mut file = self.disk.create(&begun)?;
        let header = frame::header(self.next, preamble)?;
        file.write_all(&header)?;
        crash_point("log.written");
        file.sync()?;
        crash_point("log.synced");
        self.disk.rename(&begun, &path)?;
        self.disk.sync_dir(&self.dir)?;
        // Not before its name is durable: others are removed because this one is there.
        self.files.retain(|file| file.first != self.next);
        self.files.push_back(LogFile { first: self.next, bytes: header.len() as u64 });
        self.open = Some(OpenFile { file });
        Ok(())
    }

    /// The next entry begins a new file.
    pub fn end_file(&mut self) {
        self.open = None;
    }

    /// Removes files that hold nothing but entries up to `last`. Their numbers are never given again.
    pub fn remove_up_to(&mut self, last: u64) -> Result<()> {
        self.next = self.next.max(last + 1);
        while let (Some(file), Some(next)) = (self.files.front(), self.files.get(1).map(|file| file.first)) {
            if next > last + 1 {
                break;
            }
            let path = self.dir.join(frame::file_name(file.first));
            match self.disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed(error)),
                _ => drop(self.files.pop_front()),
            }
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        let dir = self.dir.display();
        if error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded {
            let message = format!(
                "the disk of the write-ahead log `{dir}` is full; make room, and what was sent can be sent again"
            );
            return unavailable(message).with_sqlstate("53100").with_source(error);
        }
        unavailable(format!("the write-ahead log `{dir}` could not be written; what was sent can be sent again"))
            .with_source(error)
    }
}

/// Rows that are there are shown all the same; who sends more has to wait.
fn unavailable(message: String) -> Error {
    Error::new(Category::ServiceUnavailable, Persona::User, message).retryable(true)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::runtime_failure(format!("`{}` of a write-ahead log cannot be read", path.display())).with_source(error)
}
