use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::deep::failure;
use super::disk::{Disk, LocalDisk};
use crate::error::{Error, Result};
use crate::model::SegmentUid;
use crate::segment::druid::Nulls;

const TMP_DIR: &str = "tmp";
const FILE_EXTENSION: &str = "henge";
/// How the names of files end that are filled as their parts are asked for.
const PARTIAL_EXTENSION: &str = "partial";
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

const CONVERTED: [Nulls; 2] = [Nulls::AsStored, Nulls::EmptyIsNull];

/// A directory of a segment cache, and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheLocation {
    pub dir: PathBuf,
    pub max_bytes: u64,
}

/// Segment files that were fetched from a deep storage elsewhere, by their uids.
///
/// Names are made of uids alone, never of what a data source is called. What has its name is whole. A segment of Druid's
/// is a directory, or a file of ours that was made of it, or both, in one location. No location holds more than it may,
/// with what is being fetched into it.
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

    /// Where a segment is that was made of one of Druid's.
    pub(super) fn converted(&self, uid: SegmentUid, nulls: Nulls) -> Option<PathBuf> {
        self.named(uid, converted_extension(nulls))
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
        // What was made of a segment of Druid's stays, and the segment comes beside it.
        let before = placed.by_uid.get(&uid).map(|place| place.location);
        let before = before.and_then(|location| Some((location, self.bytes_kept(location, uid)?)));
        match before {
            Some((location, bytes)) => placed.put(uid, Place { location, bytes }),
            None => placed.release(uid),
        }
        let free = |(index, location): (usize, &CacheLocation)| {
            (location.max_bytes.saturating_sub(placed.used_bytes[index]), std::cmp::Reverse(index))
        };
        let may_be = |(index, _): &(usize, _)| before.is_none_or(|(location, _)| location == *index);
        let best = self.locations.iter().enumerate().filter(may_be).map(free).max();
        let Some((free_bytes, std::cmp::Reverse(location))) = best.filter(|(free_bytes, _)| *free_bytes >= bytes)
        else {
            let free_bytes = best.map_or(0, |(free_bytes, _)| free_bytes);
            return Err(Error::capacity_exceeded(format!(
                "the segment cache has no room for {bytes} bytes: {free_bytes} are free in its emptiest location; raise \
                 `--segment-cache-size`, or add servers to the tier"
            )));
        };
        debug_assert!(free_bytes >= bytes);
        let bytes = bytes + before.map_or(0, |(_, bytes)| bytes);
        placed.put(uid, Place { location, bytes });
        Ok(Reserved { cache: self, uid, location, is_kept: false })
    }

    /// The file of a segment that is filled on demand, with its length, which takes no room yet; where it is; and whether
    /// something of it may be there from before.
    pub(super) fn partial(&self, uid: SegmentUid, size_bytes: u64) -> Result<(PathBuf, usize, bool)> {
        let mut placed = self.placed.lock();
        let known = placed.by_uid.get(&uid).map(|place| place.location);
        let location = known.unwrap_or_else(|| self.emptiest(&placed));
        let path = self.name(location, uid, PARTIAL_EXTENSION);
        let unusable = |error| failure("make", &path, error);
        let whole = self.name(location, uid, FILE_EXTENSION);
        if known.is_some() && whole.exists() {
            // From a time when it was fetched as a whole.
            std::fs::rename(&whole, &path).map_err(unusable)?;
        }
        let file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        let metadata = file.metadata().map_err(unusable)?;
        if metadata.len() == size_bytes && known.is_some() {
            return Ok((path, location, true));
        }
        // What was made just before a power loss may have any length.
        file.set_len(0).and_then(|()| file.set_len(size_bytes)).map_err(unusable)?;
        placed.put(uid, Place { location, bytes: 0 });
        Ok((path, location, false))
    }

    fn emptiest(&self, placed: &Placed) -> usize {
        let free = |index: &usize| self.locations[*index].max_bytes.saturating_sub(placed.used_bytes[*index]);
        (0..self.locations.len()).rev().max_by_key(free).unwrap_or(0)
    }

    /// Takes more room for a file that is filled on demand. Fails with `CapacityExceeded` if there is not enough.
    pub(super) fn grow(&self, uid: SegmentUid, bytes: u64) -> Result<()> {
        let mut placed = self.placed.lock();
        let Some(place) = placed.by_uid.get(&uid).copied() else {
            return Err(Error::runtime_failure("a segment was removed while a part of it was fetched").retryable(true));
        };
        let (used, max) = (placed.used_bytes[place.location], self.locations[place.location].max_bytes);
        if used.saturating_add(bytes) > max {
            return Err(Error::capacity_exceeded(format!(
                "the segment cache has no room for {bytes} bytes of a column: {used} of {max} are taken, and what could \
                 go went; raise `--segment-cache-size`, or ask for less at one time"
            )));
        }
        placed.put(uid, Place { bytes: place.bytes + bytes, ..place });
        Ok(())
    }

    /// How much a location may hold, and what of it is free.
    pub(super) fn free(&self, location: usize) -> (u64, u64) {
        let max = self.locations.get(location).map_or(0, |location| location.max_bytes);
        let used = self.placed.lock().used_bytes.get(location).copied().unwrap_or(0);
        (max, max.saturating_sub(used))
    }

    /// In which location a segment is.
    pub(super) fn location(&self, uid: SegmentUid) -> Option<usize> {
        self.placed.lock().by_uid.get(&uid).map(|place| place.location)
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

    /// A name for a file that is being made of a segment of Druid's.
    pub(super) fn converting(&self, uid: SegmentUid) -> PathBuf {
        let location = self.placed.lock().by_uid.get(&uid).map_or(0, |place| place.location);
        self.locations[location].dir.join(TMP_DIR).join(format!("{uid}.converting"))
    }

    /// Gives such a file, finished, its name; it survives a power loss from here on.
    pub(super) fn keep_converted(&self, file: &Path, uid: SegmentUid, nulls: Nulls) -> Result<PathBuf> {
        let location = self.locations.iter().position(|location| file.starts_with(&location.dir));
        let location = location.ok_or_else(|| Error::defensive("a segment was converted outside of the cache"))?;
        let bytes = size(file).map_err(|error| failure("look at", file, error))?;
        let max_bytes = self.locations[location].max_bytes;
        if self.placed.lock().used_bytes[location].saturating_add(bytes) > max_bytes {
            return Err(Error::capacity_exceeded("the segment cache has no room for a converted segment"));
        }
        LocalDisk.sync_file(file).map_err(|error| failure("sync", file, error))?;
        self.rename(file, location, uid, converted_extension(nulls))
    }

    /// Gives what is finished and synced its name.
    fn rename(&self, from: &Path, location: usize, uid: SegmentUid, extension: &str) -> Result<PathBuf> {
        let (path, dir) = (self.name(location, uid, extension), &self.locations[location].dir);
        LocalDisk.rename(from, &path).map_err(|error| failure("move a segment to", &path, error))?;
        let synced = LocalDisk.sync_dir(dir).map_err(|error| failure("sync", dir, error));
        self.count(location, uid);
        synced.map(|()| path)
    }

    /// Counts what a location has of a segment.
    fn count(&self, location: usize, uid: SegmentUid) {
        let mut placed = self.placed.lock();
        match self.bytes_kept(location, uid) {
            Some(bytes) => placed.put(uid, Place { location, bytes }),
            None => placed.release(uid),
        }
    }

    /// How many bytes a location has of a segment. `None` if there is nothing.
    fn bytes_kept(&self, location: usize, uid: SegmentUid) -> Option<u64> {
        let extensions =
            [FILE_EXTENSION, DRUID_EXTENSION, PARTIAL_EXTENSION].into_iter().chain(CONVERTED.map(converted_extension));
        extensions.filter_map(|extension| size(&self.name(location, uid, extension)).ok()).reduce(|a, b| a + b)
    }

    /// What must be held while a segment is fetched.
    pub(super) fn fetching(&self, uid: SegmentUid) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock();
        fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(fetching.entry(uid).or_default())
    }

    /// Removes all there is of a segment. That there is nothing is no failure.
    pub(super) fn remove(&self, uid: SegmentUid) -> Result<()> {
        let Some(place) = self.placed.lock().by_uid.get(&uid).copied() else { return Ok(()) };
        self.remove_unpacked(uid)?;
        for extension in CONVERTED.map(converted_extension).into_iter().chain([FILE_EXTENSION, PARTIAL_EXTENSION]) {
            let path = self.name(place.location, uid, extension);
            removed(&path, std::fs::remove_file(&path))?;
        }
        self.placed.lock().release(uid);
        Ok(())
    }

    /// Removes the files of a segment of Druid's, and leaves what was made of them.
    pub(super) fn remove_unpacked(&self, uid: SegmentUid) -> Result<()> {
        let Some(place) = self.placed.lock().by_uid.get(&uid).copied() else { return Ok(()) };
        let dir = self.name(place.location, uid, DRUID_EXTENSION);
        removed(&dir, std::fs::remove_dir_all(&dir))?;
        self.count(place.location, uid);
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
            // Of a segment of Druid's there may be what was made of it too.
            let other = self.by_uid.get(&uid).filter(|place| place.location == location).map_or(0, |place| place.bytes);
            self.put(uid, Place { location, bytes: bytes + other });
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

fn removed(path: &Path, removed: std::io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure("remove", path, error)),
        _ => Ok(()),
    }
}

/// The bytes that a file with holes takes.
fn taken(metadata: &std::fs::Metadata) -> u64 {
    #[cfg(unix)]
    let taken = std::os::unix::fs::MetadataExt::blocks(metadata) * 512;
    #[cfg(not(unix))]
    let taken = metadata.len();
    taken
}

/// The bytes of a file, or of all files in a directory.
fn size(path: &Path) -> std::io::Result<u64> {
    let metadata = std::fs::metadata(path)?;
    if path.extension().is_some_and(|extension| extension == PARTIAL_EXTENSION) {
        return Ok(taken(&metadata));
    }
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
        let path = self.cache.rename(from, self.location, self.uid, extension)?;
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
        self.cache.count(self.location, self.uid);
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
