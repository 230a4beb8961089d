use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Frame};
use super::{FILE_BYTES, Log, LogFile, unreadable};
use crate::error::{Error, Result};
use crate::storage::disk::Disk;

/// What a log holds, in its order.
#[derive(Debug)]
pub enum LogItem<'a> {
    /// What is to be known of entries before the first one shown. Comes first, or not at all.
    Preamble(&'a [u8]),
    Entry {
        number: u64,
        bytes: &'a [u8],
    },
}

/// A log that was read.
#[derive(Debug)]
pub struct Recovered {
    pub log: Log,
    /// Bytes of frames that were being written when the power went.
    pub torn_bytes: u64,
    pub damage: Option<Damage>,
}

/// Entries that were durable and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First and last number that is missing; of several gaps, of the first.
    pub missing: (u64, u64),
    pub message: String,
}

/// How many entry numbers a frame that is looked for may be ahead.
const LOOK_AHEAD: u64 = 1 << 32;

impl Log {
    /// Reads the log in `dir`, which is made when missing, and shows all that is in it. The owner needs the entries from
    /// `needed` on; of earlier ones it sees those that are there. What was shown is durable.
    ///
    /// Fails when the disk does, or when `show` does. Entries that are missing are no failure: they are told.
    pub fn recover(
        disk: Arc<dyn Disk>,
        dir: impl Into<PathBuf>,
        needed: u64,
        mut show: impl FnMut(LogItem<'_>) -> Result<()>,
    ) -> Result<Recovered> {
        let dir = dir.into();
        disk.create_dir_durably(&dir).map_err(|error| unreadable(&dir, error))?;
        let firsts = files_in(disk.as_ref(), &dir)?;
        let mut reading = Reading {
            disk: disk.as_ref(),
            dir: &dir,
            next: None,
            needed,
            torn_bytes: 0,
            damage: None,
            show: &mut show,
        };
        let mut files = VecDeque::new();
        for (place, first) in firsts.iter().enumerate() {
            let following = firsts.get(place + 1).copied();
            match following.is_some_and(|following| following <= needed) {
                true => remove(disk.as_ref(), &dir.join(frame::file_name(*first)))?,
                false => files.push_back(LogFile { first: *first, bytes: reading.read(*first, following)? }),
            }
        }
        let (next, torn_bytes, damage) = (reading.finish(), reading.torn_bytes, reading.damage.take());
        disk.sync_dir(&dir).map_err(|error| unreadable(&dir, error))?;
        Ok(Recovered { log: Log { disk, dir, file_bytes: FILE_BYTES, next, open: None, files }, torn_bytes, damage })
    }
}

/// The first entries of all files, in order. What is left of a file that was only being begun is removed.
fn files_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in disk.list(dir).map_err(|error| unreadable(dir, error))? {
        let name = Path::new(&entry.name);
        match frame::first_of(name) {
            Some(first) if !entry.is_dir => firsts.push(first),
            _ if name.extension().is_some_and(|extension| extension == frame::BEGUN) => {
                remove(disk, &dir.join(name))?;
            }
            _ => {}
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk.remove_file(path).map_err(|error| unreadable(path, error))
}

struct Reading<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    /// The number that the next entry must have.
    next: Option<u64>,
    needed: u64,
    torn_bytes: u64,
    damage: Option<Damage>,
    show: &'a mut dyn FnMut(LogItem<'_>) -> Result<()>,
}

impl Reading<'_> {
    /// Reads a file up to the first entry of the following one. Returns its size.
    fn read(&mut self, first: u64, following: Option<u64>) -> Result<u64> {
        let path = self.dir.join(frame::file_name(first));
        self.disk.sync_file(&path).map_err(|error| unreadable(&path, error))?;
        let mut bytes = Vec::new();
        let mut file = self.disk.open(&path).map_err(|error| unreadable(&path, error))?;
        file.read_to_end(&mut bytes).map_err(|error| unreadable(&path, error))?;
        let expected = self.next.unwrap_or(self.needed);
        if first > expected {
            self.lost(expected, first - 1);
        }
        let is_first = self.next.is_none();
        self.next = Some(self.next.map_or(first, |next| next.max(first)));
        let start = match frame::read_header(&bytes, first) {
            Some(preamble) => {
                if is_first {
                    (self.show)(LogItem::Preamble(preamble))?;
                }
                frame::HEADER_BYTES + preamble.len()
            }
            // It had been synced before the file got its name.
            None => {
                self.damaged(
                    (first, first),
                    format!("the beginning of `{}` of the write-ahead log is damaged", path.display()),
                );
                0
            }
        };
        self.frames(&bytes, start, following)?;
        Ok(bytes.len() as u64)
    }

    fn frames(&mut self, bytes: &[u8], mut at: usize, following: Option<u64>) -> Result<()> {
        while at < bytes.len() {
            let expected = self.next.unwrap_or(self.needed);
            let frame = match frame::read_frame(&bytes[at..]) {
                Some(frame) => frame,
                None => match find_frame(bytes, at + 1, expected) {
                    Some(found) if following.is_none_or(|following| expected < following) => {
                        at = found;
                        continue;
                    }
                    _ => {
                        self.torn_bytes += (bytes.len() - at) as u64;
                        return Ok(());
                    }
                },
            };
            at += frame.bytes;
            self.entries(&frame, following)?;
        }
        Ok(())
    }

    fn entries(&mut self, frame: &Frame<'_>, following: Option<u64>) -> Result<()> {
        let expected = self.next.unwrap_or(frame.first);
        if frame.first > expected {
            self.lost(expected, frame.first - 1);
        }
        for (number, bytes) in (frame.first..).zip(&frame.entries) {
            // What failed here stands in the following file, if anywhere.
            let is_superseded = following.is_some_and(|following| number >= following);
            if number < expected || is_superseded {
                continue;
            }
            (self.show)(LogItem::Entry { number, bytes })?;
            self.next = Some(number + 1);
        }
        Ok(())
    }

    /// Notes that entries are missing, unless nobody needs them.
    fn lost(&mut self, first: u64, last: u64) {
        if last < self.needed {
            return;
        }
        let first = first.max(self.needed);
        let message = format!(
            "entries {first} to {last} of the write-ahead log `{}` were acknowledged and cannot be read any more",
            self.dir.display()
        );
        self.damaged((first, last), message);
    }

    /// The first that is found is told.
    fn damaged(&mut self, missing: (u64, u64), message: String) {
        self.damage.get_or_insert(Damage { missing, message });
    }

    /// The number of the next entry.
    fn finish(&self) -> u64 {
        self.next.unwrap_or(1).max(self.needed)
    }
}

/// Where, from `at` on, the next whole frame begins whose first entry may follow `expected`.
fn find_frame(bytes: &[u8], at: usize, expected: u64) -> Option<usize> {
    (at..bytes.len().saturating_sub(frame::FRAME_BYTES - 1)).find(|at| {
        let first = bytes[at + 8..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let is_near = first >= expected && first - expected < LOOK_AHEAD;
        is_near && frame::read_frame(&bytes[*at..]).is_some()
    })
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Error::corrupt(damage.message)
    }
}
