use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::deep::failure;
use super::disk::{Disk, LocalDisk};
use crate::error::{Error, Result};
use crate::model::SegmentUid;

const TMP_DIR: &str = "tmp";
const FILE_EXTENSION: &str = "henge";
/// How the names of directories with a segment of Druid's end.
const DRUID_EXTENSION: &str = "druid";

/// A directory of a segment cache, and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheLocation {
    pub dir: PathBuf,
    pub max_bytes: u64,
}

/// Segment files that were fetched from a deep storage elsewhere, by their uids.
///
/// Names are made of uids alone, never of what a data source is called. What has its name is whole. No location holds
/// more than it may, with what is being fetched into it.
#[derive(Debug)]
pub(super) struct SegmentCache {
    locations: Vec<CacheLocation>,
    placed: Mutex<Placed>,
    /// Who fetches a segment holds its lock, so that others wait instead of fetching it too.
    fetching: Mutex<HashMap<SegmentUid, Arc<tokio::sync::Mutex<()>>>>,
}

/// What is where, or will be.
#[derive(Debug)]
struct Placed {
    by_uid: HashMap<SegmentUid, Place>,
    used_bytes: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    location: usize,
    bytes: u64,
}

/// Room that is kept for a segment while it is fetched; given back unless the segment is kept.
#[derive(Debug)]
pub(super) struct Reserved<'a> {
    cache: &'a SegmentCache,
    uid: SegmentUid,
    location: usize,
    is_kept: bool,
}

impl SegmentCache {
    /// The cache in some directories, which are made when missing; what an earlier process was in the middle of is
    /// removed.
    pub(super) fn open(locations: Vec<CacheLocation>) -> Result<Self> {
        let mut placed = Placed { by_uid: HashMap::new(), used_bytes: vec![0; locations.len()] };
        for (index, location) in locations.iter().enumerate() {
            let tmp = location.dir.join(TMP_DIR);
            if tmp.exists() {
                std::fs::remove_dir_all(&tmp).map_err(|error| failure("remove", &tmp, error))?;
            }
            LocalDisk.create_dir_durably(&tmp).map_err(|error| failure("create", &tmp, error))?;
            placed.find(index, &location.dir)?;
        }
        Ok(Self { locations, placed: Mutex::new(placed), fetching: Mutex::default() })
    }

    /// Where a segment's file is.
    pub(super) fn path(&self, uid: SegmentUid) -> Option<PathBuf> {
        self.named(uid, FILE_EXTENSION)
    }

    /// Where the files of a segment of Druid's are.
    pub(super) fn unpacked(&self, uid: SegmentUid) -> Option<PathBuf> {
        self.named(uid, DRUID_EXTENSION)
    }

    fn named(&self, uid: SegmentUid, extension: &str) -> Option<PathBuf> {
        let place = self.placed.lock().by_uid.get(&uid).copied()?;
        Some(self.name(place.location, uid, extension)).filter(|path| path.exists())
    }

    fn name(&self, location: usize, uid: SegmentUid, extension: &str) -> PathBuf {
        self.locations[location].dir.join(format!("{uid}.{extension}"))
    }

    /// Keeps room for a segment, where there is most of it. Fails with `CapacityExceeded` if there is not enough.
    pub(super) fn reserve(&self, uid: SegmentUid, bytes: u64) -> Result<Reserved<'_>> {
        let mut placed = self.placed.lock();
        placed.release(uid);
        let free = |(index, location): (usize, &CacheLocation)| {
            (location.max_bytes.saturating_sub(placed.used_bytes[index]), std::cmp::Reverse(index))
        };
        let best = self.locations.iter().enumerate().map(free).max();
        let Some((free_bytes, std::cmp::Reverse(location))) = best.filter(|(free_bytes, _)| *free_bytes >= bytes)
        else {
            let free_bytes = best.map_or(0, |(free_bytes, _)| free_bytes);
            return Err(Error::capacity_exceeded(format!(
                "the segment cache has no room for {bytes} bytes: {free_bytes} are free in its emptiest location; raise \
                 `--segment-cache-size`, or add servers to the tier"
            )));
        };
        debug_assert!(free_bytes >= bytes);
        placed.put(uid, Place { location, bytes });
        Ok(Reserved { cache: self, uid, location, is_kept: false })
    }

    /// How many bytes are taken by a segment.
    pub(super) fn size(&self, uid: SegmentUid) -> Option<u64> {
        self.placed.lock().by_uid.get(&uid).map(|place| place.bytes)
    }

    /// How many bytes are taken, and how many may be.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let max = self.locations.iter().fold(0_u64, |sum, location| sum.saturating_add(location.max_bytes));
        (self.placed.lock().used_bytes.iter().sum(), max)
    }

    /// What must be held while a segment is fetched.
    pub(super) fn fetching(&self, uid: SegmentUid) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock();
        fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(fetching.entry(uid).or_default())
    }

    /// Removes a segment's file or directory. A missing one is no failure.
    pub(super) fn remove(&self, uid: SegmentUid) -> Result<()> {
        let Some(place) = self.placed.lock().by_uid.get(&uid).copied() else { return Ok(()) };
        let dir = self.name(place.location, uid, DRUID_EXTENSION);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failure("remove", &dir, error)),
            _ => {}
        }
        let path = self.name(place.location, uid, FILE_EXTENSION);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failure("remove", &path, error)),
            _ => {}
        }
        self.placed.lock().release(uid);
        Ok(())
    }

    /// Removes all files but those of `used`. Returns how many there were.
    pub(super) fn retain(&self, used: &HashSet<SegmentUid>) -> Result<usize> {
        let unused = self.placed.lock().by_uid.keys().copied().filter(|uid| !used.contains(uid)).collect::<Vec<_>>();
        for uid in &unused {
            self.remove(*uid)?;
        }
        Ok(unused.len())
    }
}

impl Placed {
    /// Counts what an earlier process left in a location.
    fn find(&mut self, location: usize, dir: &Path) -> Result<()> {
        let entries = std::fs::read_dir(dir).map_err(|error| failure("list", dir, error))?;
        for entry in entries {
            let path = entry.map_err(|error| failure("list", dir, error))?.path();
            let uid = path.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.parse::<SegmentUid>().ok());
            let Some(uid) = uid else { continue };
            let bytes = size(&path).map_err(|error| failure("look at", &path, error))?;
            self.put(uid, Place { location, bytes });
        }
        Ok(())
    }

    fn put(&mut self, uid: SegmentUid, place: Place) {
        self.release(uid);
        self.used_bytes[place.location] += place.bytes;
        self.by_uid.insert(uid, place);
    }

    fn release(&mut self, uid: SegmentUid) {
        if let Some(place) = self.by_uid.remove(&uid) {
            self.used_bytes[place.location] = self.used_bytes[place.location].saturating_sub(place.bytes);
        }
    }
}

/// The bytes of a file, or of all files in a directory.
fn size(path: &Path) -> std::io::Result<u64> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    std::fs::read_dir(path)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

impl Reserved<'_> {
    fn dir(&self) -> &Path {
        &self.cache.locations[self.location].dir
    }

    /// A name for a file that is being fetched.
    pub(super) fn temporary(&self) -> PathBuf {
        self.dir().join(TMP_DIR).join(format!("{}.part", self.uid))
    }

    /// A new directory for a segment of Druid's that is being unpacked.
    pub(super) fn unpacking(&self) -> Result<PathBuf> {
        let dir = self.dir().join(TMP_DIR).join(format!("{}.{DRUID_EXTENSION}", self.uid));
        let made = match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir(&dir),
        };
        made.map_err(|error| failure("create", &dir, error))?;
        Ok(dir)
    }

    /// Gives a finished file on the same file system its name; it survives a power loss from here on.
    pub(super) fn keep(self, file: &Path) -> Result<PathBuf> {
        LocalDisk.sync_file(file).map_err(|error| failure("sync", file, error))?;
        self.rename(file, FILE_EXTENSION)
    }

    /// The same for a finished directory.
    pub(super) fn keep_unpacked(self, dir: &Path) -> Result<PathBuf> {
        for file in files_of(dir)? {
            LocalDisk.sync_file(&file).map_err(|error| failure("sync", &file, error))?;
        }
        LocalDisk.sync_dir(dir).map_err(|error| failure("sync", dir, error))?;
        self.rename(dir, DRUID_EXTENSION)
    }

    fn rename(mut self, from: &Path, extension: &str) -> Result<PathBuf> {
        let bytes = size(from).map_err(|error| failure("look at", from, error))?;
        let path = self.cache.name(self.location, self.uid, extension);
        LocalDisk.rename(from, &path).map_err(|error| failure("move a segment to", &path, error))?;
        LocalDisk.sync_dir(self.dir()).map_err(|error| failure("sync", self.dir(), error))?;
        self.cache.placed.lock().put(self.uid, Place { location: self.location, bytes });
        self.is_kept = true;
        Ok(path)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // What cannot be removed now is removed at the next start.
        let _ = std::fs::remove_file(self.temporary());
        let _ = std::fs::remove_dir_all(self.dir().join(TMP_DIR).join(format!("{}.{DRUID_EXTENSION}", self.uid)));
        self.cache.placed.lock().release(self.uid);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn uid(random: u128) -> SegmentUid {
        SegmentUid::new(Timestamp::from_millis(0), random)
    }

    fn put(cache: &SegmentCache, number: u128, bytes: usize) -> Result<PathBuf> {
        let reserved = cache.reserve(uid(number), bytes as u64)?;
        let part = reserved.temporary();
        std::fs::write(&part, vec![1; bytes]).expect("written");
        reserved.keep(&part)
    }

    #[test]
    fn locations_are_filled_evenly_and_never_beyond_their_limits() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let location = |name: &str, max_bytes| CacheLocation { dir: dir.path().join(name), max_bytes };
        let locations = vec![location("a", 100), location("b", 60)];
        let cache = SegmentCache::open(locations.clone())?;
        assert!(put(&cache, 1, 50)?.starts_with(dir.path().join("a")));
        assert!(put(&cache, 2, 50)?.starts_with(dir.path().join("b")));
        let in_flight = cache.reserve(uid(3), 40)?;
        assert_eq!(cache.bytes(), (140, 160));
        let error = put(&cache, 4, 30).map(drop).expect_err("what is in flight counts");
        assert!(error.to_string().contains("10 are free"), "{error}");
        drop(in_flight);
        put(&cache, 4, 30)?;
        assert_eq!(cache.bytes(), (130, 160));

        let again = SegmentCache::open(locations)?;
        assert_eq!(again.bytes(), (130, 160), "as an earlier process left it");
        again.remove(uid(2))?;
        assert_eq!((again.bytes(), again.path(uid(2))), ((80, 160), None));
        assert_eq!(again.retain(&HashSet::from([uid(1)]))?, 1);
        assert_eq!(again.bytes(), (50, 160));
        Ok(())
    }

    #[test]
    fn what_was_not_kept_leaves_nothing() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = SegmentCache::open(vec![CacheLocation { dir: dir.path().to_owned(), max_bytes: 100 }])?;
        let reserved = cache.reserve(uid(1), 100)?;
        let part = reserved.temporary();
        std::fs::write(&part, [1]).expect("written");
        drop(reserved);
        assert!(!part.exists());
        assert_eq!(cache.bytes(), (0, 100));
        Ok(())
    }
}
