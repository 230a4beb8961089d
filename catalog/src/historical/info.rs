use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_engine::model::{SegmentSchema, SegmentUid};
use henge_engine::storage::{DeepStorage, Disk, LocalDisk};
use henge_engine::{Error, Result};

use crate::store::SegmentRecord;
use crate::timeline::GroupKind;

const EPOCH_FILE: &str = "leader-epoch";

/// What is recorded of the segments in the cache: one file for each.
#[derive(Debug)]
pub(super) struct InfoDir {
    dir: PathBuf,
}

impl InfoDir {
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        LocalDisk.create_dir_durably(&dir).map_err(|error| failed("create", &dir, error))?;
        Ok(Self { dir })
    }

    fn path(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(format!("{uid}.json"))
    }

    /// Records a segment; it is announced again after a restart.
    pub(super) fn add(&self, record: &SegmentRecord) -> Result<()> {
        let json = serde_json::to_vec(record).map_err(|e| Error::defensive("a record is not JSON").with_source(e))?;
        write_durably(&self.path(record.uid), &json)
    }

    /// The same without care for a power loss.
    #[cfg(test)]
    pub(super) fn add_unsynced(&self, record: &SegmentRecord) {
        let json = serde_json::to_vec(record).expect("plain data");
        fs::write(self.path(record.uid), json).expect("written");
    }

    /// Forgets it. A missing record is no failure.
    pub(super) fn remove(&self, uid: SegmentUid) -> Result<()> {
        let path = self.path(uid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", &path, error)),
            _ => Ok(()),
        }
    }

    /// All records whose segments are in the cache with their sizes, or need not be there. What is damaged or missing is left out: it is
    /// ordered again if it is wanted.
    pub(super) fn read_all(&self, storage: &DeepStorage, on_demand: bool) -> Result<Vec<SegmentRecord>> {
        let entries = fs::read_dir(&self.dir).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
        let entries = entries.map_err(|error| failed("list", &self.dir, error))?;
        let paths = entries.iter().map(fs::DirEntry::path).collect::<Vec<_>>();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let chunk = paths.len().div_ceil(threads).max(1);
        let parts = std::thread::scope(|scope| {
            let parts = paths.chunks(chunk).map(|paths| scope.spawn(move || read_some(paths, storage, on_demand)));
            let parts = parts.collect::<Vec<_>>();
            parts.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let mut records = Vec::with_capacity(paths.len());
        let mut schemas: HashSet<Arc<SegmentSchema>> = HashSet::new();
        for part in parts {
            for mut record in part.map_err(|_| Error::defensive("a thread that read records panicked"))? {
                match schemas.get(&record.schema) {
                    Some(known) => record.schema = Arc::clone(known),
                    None => drop(schemas.insert(Arc::clone(&record.schema))),
                }
                records.push(record);
            }
        }
        Ok(records)
    }
}

fn read_some(paths: &[PathBuf], storage: &DeepStorage, on_demand: bool) -> Vec<SegmentRecord> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        match read(path) {
            Ok(record) => found.extend(Some(record).filter(|record| is_served(record, storage, on_demand))),
            Err(error) => tracing::warn!(%error, "a segment of the cache is not known any more"),
        }
    }
    found
}

fn is_served(record: &SegmentRecord, storage: &DeepStorage, on_demand: bool) -> bool {
    let needs_no_file = record.kind() == GroupKind::Tombstone || on_demand && record.load_spec.is_ours();
    needs_no_file || storage.cached_size(record.uid) == Some(record.size_bytes)
}

fn read(path: &Path) -> Result<SegmentRecord> {
    let bytes = fs::read(path).map_err(|error| failed("read", path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let damaged = Error::corrupt("what is recorded of a segment is damaged");
        damaged.context("file", path.display()).with_source(error)
    })
}

/// Has the directory for this process alone.
pub(super) fn lock(dir: &Path) -> Result<fs::File> {
    let path = dir.join("henge.lock");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| failed("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::conflict(format!(
            "data directory `{}` is in use by another historical; give each its own with `--data-dir`",
            dir.display()
        ))),
        Err(fs::TryLockError::Error(error)) => Err(failed("lock", &path, error)),
    }
}

/// The greatest epoch that gave orders here.
pub(super) fn read_epoch(dir: &Path) -> Result<u64> {
    let path = dir.join(EPOCH_FILE);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(failed("read", &path, error)),
        Ok(text) => text.trim().parse().map_err(|error| {
            Error::corrupt(format!("`{}` is damaged; remove it while no old coordinator runs", path.display()))
                .with_source(error)
        }),
    }
}

pub(super) fn write_epoch(dir: &Path, epoch: u64) -> Result<()> {
    write_durably(&dir.join(EPOCH_FILE), epoch.to_string().as_bytes())
}

/// Puts bytes into a file, in place of what it had: after a power loss it has these or those.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || {
        fs::write(&part, bytes)?;
        LocalDisk.sync_file(&part)?;
        LocalDisk.rename(&part, path)?;
        LocalDisk.sync_dir(dir)
    };
    write().map_err(|error| failed("write", path, error))
}

fn failed(verb: &str, path: &Path, error: std::io::Error) -> Error {
    Error::runtime_failure(format!("could not {verb} `{}`", path.display())).with_source(error)
}
