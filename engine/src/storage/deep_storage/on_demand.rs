//! Segments of which only what was asked for is on this machine: files with holes, filled by reads of ranges.
//!
//! What is there is not recorded anywhere: a part that may be there from before is checked by its checksums, and fetched if
//! they differ. So nothing need be synced, and whatever a power loss leaves does no harm.

use std::fmt;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use tokio::sync::OwnedMutexGuard;

use super::super::deep::{LoadSpec, failure};
use super::super::disk::{Disk, LocalDisk};
use super::{DeepStorage, Inner, blocking};
use crate::error::{Category, Error, Persona, Result};
use crate::model::SegmentUid;
use crate::segment::{Holes, SegmentFile};

pub(super) const RANGES_AT_ONCE: usize = 64;
/// A part that did not come by then, or at this pace, makes its query fail. The client of an object store tries several
/// times within it.
const PATIENCE: Duration = Duration::from_secs(5);
const BYTES_A_SECOND: u64 = 4 << 20;
/// A file with holes takes room on the disk in pages of this many bytes.
const DISK_PAGE: usize = 4096;

/// What was read from deep storage for segments on demand, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnDemandFigures {
    pub requests: u64,
    pub bytes_read: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    bytes_read: AtomicU64,
}

/// Who makes room for parts of segments.
pub trait Room: fmt::Debug + Send + Sync {
    /// Evicts from a location of the segment cache until so many bytes are free in it, or nothing is left that may go.
    fn make(&self, location: usize, bytes: u64);
}

impl DeepStorage {
    /// Opens a segment file of ours of which nothing need be here: its footer is read now, and the parts of its columns when
    /// they are asked for. `size_bytes` is its length. Only one at a time may be open of a segment.
    pub fn open_on_demand(
        &self,
        uid: SegmentUid,
        load_spec: &LoadSpec,
        size_bytes: u64,
        room: Arc<dyn Room>,
    ) -> Result<SegmentFile> {
        let (path, location, is_left) = self.inner.cache.partial(uid, size_bytes)?;
        let holes = PartialFile {
            storage: self.clone(),
            uid,
            load_spec: load_spec.clone(),
            path: path.clone(),
            location,
            is_left,
            touched: Mutex::default(),
            room,
        };
        SegmentFile::open_partial(&path, Arc::new(holes))
    }

    /// How much a location of the cache may hold, and how much of it is free.
    pub fn free_in(&self, location: usize) -> (u64, u64) {
        self.inner.cache.free(location)
    }

    /// In which location of the cache a segment is.
    pub fn location(&self, uid: SegmentUid) -> Option<usize> {
        self.inner.cache.location(uid)
    }

    pub fn on_demand_figures(&self) -> OnDemandFigures {
        let counters = &self.inner.on_demand;
        OnDemandFigures {
            requests: counters.requests.load(Ordering::Relaxed),
            bytes_read: counters.bytes_read.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    /// Reads a part of a segment file where it lies.
    async fn read_range(&self, load_spec: &LoadSpec, range: Range<u64>) -> Result<Bytes> {
        let closed = |_| Error::canceled("deep storage is being closed");
        let _place = self.ranges.acquire().await.map_err(closed)?;
        let length = range.end - range.start;
        let bytes = match load_spec {
            LoadSpec::Local { .. } => {
                let path = self.local_path(load_spec)?;
                let length = usize::try_from(length).map_err(|_| Error::corrupt("a part is longer than memory"))?;
                let read = move || {
                    let bytes = LocalDisk.read_range(&path, range.start, length);
                    bytes.map(Bytes::from).map_err(|error| failure("read", &path, error))
                };
                blocking(read).await?
            }
            _ => {
                let object = self.object(load_spec)?;
                let patience = PATIENCE + Duration::from_secs(length / BYTES_A_SECOND);
                let late = |_| Error::runtime_failure(format!("`{load_spec}` did not answer for {patience:?}"));
                tokio::time::timeout(patience, object.range(range)).await.map_err(late)??
            }
        };
        self.on_demand.requests.fetch_add(1, Ordering::Relaxed);
        self.on_demand.bytes_read.fetch_add(length, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// A file of the segment cache, and where its bytes come from.
struct PartialFile {
    storage: DeepStorage,
    uid: SegmentUid,
    load_spec: LoadSpec,
    path: PathBuf,
    location: usize,
    /// Whether something may be there from before this was opened.
    is_left: bool,
    /// The pages on the disk in which something was put.
    touched: Mutex<RoaringBitmap>,
    room: Arc<dyn Room>,
}

impl fmt::Debug for PartialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Held while a part of a file is fetched and put there.
type Turn = OwnedMutexGuard<()>;

impl Holes for PartialFile {
    fn fill(&self, range: Range<usize>, here: &[u8], check: &dyn Fn(&[u8]) -> Result<()>) -> Result<()> {
        if range.is_empty() {
            return check(here);
        }
        let is_right = || (self.is_left || self.is_touched(&range)) && check(here).is_ok();
        if is_right() {
            return Ok(());
        }
        let _turn = self.turn()?;
        if is_right() {
            return Ok(());
        }
        let bytes = self.fetch(&range)?;
        // Others may be reading what is around it, and nothing is to be kept that is fetched again for ever.
        check(&bytes).map_err(|error| {
            let message = format!("deep storage gave other bytes than were put there: {}", error.message());
            Error::corrupt(message).context("load spec", &self.load_spec)
        })?;
        self.keep(&range, &bytes)?;
        check(here).map_err(|error| {
            let message = "a part of a segment vanished as it came: the segment was dropped, or its file damaged";
            Error::runtime_failure(message).retryable(true).with_source(error)
        })
    }
}

impl PartialFile {
    fn turn(&self) -> Result<Turn> {
        let turn = self.storage.inner.cache.fetching(self.uid);
        // Waiting is allowed there.
        self.storage.inner.transfers.run_blocking(async move { Ok(turn.lock_owned().await) })
    }

    fn fetch(&self, range: &Range<usize>) -> Result<Bytes> {
        let (storage, load_spec) = (self.storage.clone(), self.load_spec.clone());
        let (start, end) = (range.start as u64, range.end as u64);
        let read = async move { storage.inner.read_range(&load_spec, start..end).await };
        self.storage.inner.transfers.run_blocking(read).map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: Error) -> Error {
        if error.category() == Category::Canceled {
            return error;
        }
        let message = format!(
            "a part of a segment that is read on demand cannot be read from deep storage: {}; what was read before can be \
             asked for meanwhile",
            error.message()
        );
        Error::new(Category::RuntimeFailure, Persona::Admin, message)
            .context("load spec", &self.load_spec)
            .retryable(true)
            .with_source(error)
    }

    fn is_touched(&self, range: &Range<usize>) -> bool {
        let (first, last) = disk_pages(range);
        self.touched.lock().contains_range(first..=last)
    }

    /// Puts bytes where they belong, with the room that they take.
    fn keep(&self, range: &Range<usize>, bytes: &[u8]) -> Result<()> {
        let (first, last) = disk_pages(range);
        let new = {
            let touched = self.touched.lock();
            u64::from(last - first) + 1 - touched.range_cardinality(first..=last)
        };
        let needed = new * DISK_PAGE as u64;
        if self.storage.inner.cache.grow(self.uid, needed).is_err() {
            self.room.make(self.location, needed);
            self.storage.inner.cache.grow(self.uid, needed)?;
        }
        let put = || {
            let mut file = std::fs::OpenOptions::new().write(true).open(&self.path)?;
            file.seek(SeekFrom::Start(range.start as u64))?;
            file.write_all(bytes)
        };
        put().map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => Error::capacity_exceeded(format!(
                "the disk of the segment cache is full before its limit is reached: `{}`; make room, or lower \
                 `--segment-cache-size`",
                self.path.display()
            ))
            .with_source(error),
            _ => failure("write", &self.path, error),
        })?;
        self.touched.lock().insert_range(first..=last);
        Ok(())
    }
}

/// The first and the last page on the disk of a range that is not empty.
fn disk_pages(range: &Range<usize>) -> (u32, u32) {
    let page = |at: usize| u32::try_from(at / DISK_PAGE).unwrap_or(u32::MAX);
    (page(range.start), page(range.end - 1))
}
