use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::deep::failure;
use super::disk::{Disk, LocalDisk};
use crate::error::Result;
use crate::model::SegmentUid;

const TMP_DIR: &str = "tmp";
const FILE_EXTENSION: &str = "henge";

/// Segment files that were fetched from a deep storage elsewhere, by their uids.
///
/// Names are made of uids alone, never of what a data source is called. What has its name is whole.
#[derive(Debug)]
pub(super) struct SegmentCache {
    dir: PathBuf,
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
        Ok(Self { dir, fetching: Mutex::default() })
    }

    /// Where a segment's file is, or would be.
    pub(super) fn path(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(format!("{uid}.{FILE_EXTENSION}"))
    }

    /// A name for a file that is being fetched.
    pub(super) fn temporary(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(TMP_DIR).join(format!("{uid}.part"))
    }

    /// Gives a finished file on the same file system its name; it survives a power loss from here on.
    pub(super) fn keep(&self, file: &Path, uid: SegmentUid) -> Result<PathBuf> {
        let path = self.path(uid);
        LocalDisk.sync_file(file).map_err(|error| failure("sync", file, error))?;
        LocalDisk.rename(file, &path).map_err(|error| failure("move a segment to", &path, error))?;
        LocalDisk.sync_dir(&self.dir).map_err(|error| failure("sync", &self.dir, error))?;
        Ok(path)
    }

    /// What must be held while a segment is fetched.
    pub(super) fn fetching(&self, uid: SegmentUid) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock();
        fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(fetching.entry(uid).or_default())
    }

    /// Removes a segment's file. A missing one is no failure.
    pub(super) fn remove(&self, uid: SegmentUid) -> Result<()> {
        let path = self.path(uid);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure("remove", &path, error)),
            _ => Ok(()),
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
