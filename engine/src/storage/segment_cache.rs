use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::deep::failure;
use super::disk::{Disk, LocalDisk};
use crate::error::Result;
use crate::model::SegmentUid;
use crate::segment::druid::Nulls;

const TMP_DIR: &str = "tmp";
const FILE_EXTENSION: &str = "henge";
/// How the names of directories with a segment of Druid's end.
const DRUID_EXTENSION: &str = "druid";
/// How the names of files end that were made of Druid's segments, in our format. What an empty text was taken for tells
/// them apart.
const fn converted_extension(nulls: Nulls) -> &'static str {
    match nulls {
        Nulls::AsStored => "converted",
        Nulls::EmptyIsNull => "converted-empty-is-null",
    }
}

/// Segment files that were fetched from a deep storage elsewhere, by their uids.
///
/// Names are made of uids alone, never of what a data source is called. What has its name is whole. A segment of Druid's
/// is a directory, or a file of ours that was made of it.
#[derive(Debug)]
pub(super) struct SegmentCache {
    dir: PathBuf,
    /// Bytes of all that is kept.
    size_bytes: AtomicU64,
    /// Who fetches a segment holds its lock, so that others wait instead of fetching it too.
    fetching: Mutex<HashMap<SegmentUid, Arc<tokio::sync::Mutex<()>>>>,
}

impl SegmentCache {
    /// The cache in a directory, which is made when missing; what an earlier process was in the middle of is removed.
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        let tmp = dir.join(TMP_DIR);
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).map_err(|error| failure("remove", &tmp, error))?;
        }
        LocalDisk.create_dir_durably(&tmp).map_err(|error| failure("create", &tmp, error))?;
        let kept = files_of(&dir)?.iter().filter(|path| **path != tmp).map(|path| bytes_at(path)).sum::<u64>();
        Ok(Self { dir, size_bytes: AtomicU64::new(kept), fetching: Mutex::default() })
    }

    /// Bytes of all that is kept.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Where a segment is that was made of one of Druid's, or would be.
    pub(super) fn converted(&self, uid: SegmentUid, nulls: Nulls) -> PathBuf {
        self.dir.join(format!("{uid}.{}", converted_extension(nulls)))
    }

    /// Where a segment's file is, or would be.
    pub(super) fn path(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(format!("{uid}.{FILE_EXTENSION}"))
    }

    /// Where the files of a segment of Druid's are, or would be.
    pub(super) fn unpacked(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(format!("{uid}.{DRUID_EXTENSION}"))
    }

    /// A new directory for a segment of Druid's that is being unpacked.
    pub(super) fn unpacking(&self, uid: SegmentUid) -> Result<PathBuf> {
        let dir = self.dir.join(TMP_DIR).join(format!("{uid}.{DRUID_EXTENSION}"));
        let made = match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir(&dir),
        };
        made.map_err(|error| failure("create", &dir, error))?;
        Ok(dir)
    }

    /// Gives a finished directory its name, as [`SegmentCache::keep`] does a file.
    pub(super) fn keep_unpacked(&self, dir: &Path, uid: SegmentUid) -> Result<PathBuf> {
        let path = self.unpacked(uid);
        for file in files_of(dir)? {
            LocalDisk.sync_file(&file).map_err(|error| failure("sync", &file, error))?;
        }
        LocalDisk.sync_dir(dir).map_err(|error| failure("sync", dir, error))?;
        self.name(dir, &path)?;
        Ok(path)
    }

    /// Gives what is finished and synced its name.
    fn name(&self, from: &Path, to: &Path) -> Result<()> {
        let (before, bytes) = (bytes_at(to), bytes_at(from));
        LocalDisk.rename(from, to).map_err(|error| failure("move a segment to", to, error))?;
        self.size_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.size_bytes.fetch_sub(before, Ordering::Relaxed);
        LocalDisk.sync_dir(&self.dir).map_err(|error| failure("sync", &self.dir, error))
    }

    /// A name for a file that is being fetched.
    pub(super) fn temporary(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(TMP_DIR).join(format!("{uid}.part"))
    }

    /// A name for a file that is being made of a segment of Druid's.
    pub(super) fn converting(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(TMP_DIR).join(format!("{uid}.converting"))
    }

    /// Gives a finished file on the same file system its name; it survives a power loss from here on.
    pub(super) fn keep(&self, file: &Path, uid: SegmentUid) -> Result<PathBuf> {
        self.keep_as(file, self.path(uid))
    }

    /// The same for a file that was made of a segment of Druid's.
    pub(super) fn keep_converted(&self, file: &Path, uid: SegmentUid, nulls: Nulls) -> Result<PathBuf> {
        self.keep_as(file, self.converted(uid, nulls))
    }

    fn keep_as(&self, file: &Path, path: PathBuf) -> Result<PathBuf> {
        LocalDisk.sync_file(file).map_err(|error| failure("sync", file, error))?;
        self.name(file, &path)?;
        Ok(path)
    }

    /// What must be held while a segment is fetched.
    pub(super) fn fetching(&self, uid: SegmentUid) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock();
        fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(fetching.entry(uid).or_default())
    }

    /// Removes all there is of a segment. That there is nothing is no failure.
    pub(super) fn remove(&self, uid: SegmentUid) -> Result<()> {
        let converted = [Nulls::AsStored, Nulls::EmptyIsNull].map(|nulls| self.converted(uid, nulls));
        self.remove_unpacked(uid)?;
        for path in converted.into_iter().chain([self.path(uid)]) {
            let bytes = bytes_at(&path);
            self.removed(&path, bytes, std::fs::remove_file(&path))?;
        }
        Ok(())
    }

    /// Removes the files of a segment of Druid's, and leaves what was made of them.
    pub(super) fn remove_unpacked(&self, uid: SegmentUid) -> Result<()> {
        let dir = self.unpacked(uid);
        let bytes = bytes_at(&dir);
        self.removed(&dir, bytes, std::fs::remove_dir_all(&dir))
    }

    fn removed(&self, path: &Path, bytes: u64, removed: std::io::Result<()>) -> Result<()> {
        match removed {
            Ok(()) => {
                self.size_bytes.fetch_sub(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failure("remove", path, error)),
        }
    }

    /// Removes all files but those of `used`. Returns how many there were.
    pub(super) fn retain(&self, used: &HashSet<SegmentUid>) -> Result<usize> {
        let entries = std::fs::read_dir(&self.dir).map_err(|error| failure("list", &self.dir, error))?;
        let mut removed = 0;
        for entry in entries {
            let path = entry.map_err(|error| failure("list", &self.dir, error))?.path();
            let uid = path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse::<SegmentUid>().ok());
            if let Some(uid) = uid.filter(|uid| !used.contains(uid)) {
                self.remove(uid)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Bytes of a file, or of the files in a directory; none if there is nothing.
fn bytes_at(path: &Path) -> u64 {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let files = files_of(path).unwrap_or_default();
            files.iter().map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
        }
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}

/// The files in a directory, in the order of their names.
pub(super) fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let entries = entries.map_err(|error| failure("list", dir, error))?;
    let mut files = entries.iter().map(std::fs::DirEntry::path).collect::<Vec<_>>();
    files.sort();
    Ok(files)
}
