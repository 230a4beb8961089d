use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use henge_engine::model::{SegmentSchema, SegmentUid, Timestamp};
use henge_engine::segment::druid::Nulls;
use henge_engine::segment::{Column, OpenSegment, Segment, SegmentFile, check_same_rows, convert as write_converted};
use henge_engine::storage::{DeepStorage, Expected, LoadSpec};
use henge_engine::{Error, Result};
use parking_lot::{Mutex, RwLock};

use super::druids::Reading;
use super::room::Room;
use crate::store::SegmentRecord;

/// How often a segment is fetched that was evicted before it could be opened.
const ATTEMPTS: usize = 3;

/// A segment that is opened when a column of it is first read, and fetched then if it is not on this machine. Until then
/// it answers from what is recorded of it.
#[derive(Debug)]
pub struct LazySegment {
    storage: DeepStorage,
    uid: SegmentUid,
    load_spec: LoadSpec,
    hash: String,
    schema: Arc<SegmentSchema>,
    num_rows: usize,
    size_bytes: u64,
    time_range: Option<(Timestamp, Timestamp)>,
    /// Matters to a segment of Druid's.
    reading: Reading,
    reads: Reads,
    room: Arc<Room>,
    file: RwLock<Option<Arc<OpenSegment>>>,
    last_use: AtomicU64,
    /// Held while its rows are written in our format.
    converting: Mutex<()>,
    /// Whether it is to be read as Druid wrote it, for it could not be converted.
    stays: AtomicBool,
}

/// Whether this process reads segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    #[default]
    Here,
    /// Others do; this process only plans.
    Elsewhere,
}

impl LazySegment {
    /// A segment of no view: its file is nobody's to evict, and one of Druid's is read as Druid wrote it, so that its
    /// bytes are those that were published.
    pub(crate) fn alone(storage: DeepStorage, record: &SegmentRecord, nulls: Nulls, reads: Reads) -> Arc<Self> {
        let room = Arc::new(Room::new(storage.clone(), None));
        Self::new(storage, record, Reading { nulls, converts: false }, reads, &room)
    }

    pub(super) fn new(
        storage: DeepStorage,
        record: &SegmentRecord,
        reading: Reading,
        reads: Reads,
        room: &Arc<Room>,
    ) -> Arc<Self> {
        let segment = Arc::new(Self {
            storage,
            uid: record.uid,
            load_spec: record.load_spec.clone(),
            hash: record.hash.clone(),
            schema: Arc::clone(&record.schema),
            num_rows: usize::try_from(record.num_rows).unwrap_or(usize::MAX),
            size_bytes: record.size_bytes,
            time_range: record.time_range,
            reading,
            reads,
            room: Arc::clone(room),
            file: RwLock::new(None),
            last_use: AtomicU64::new(0),
            converting: Mutex::new(()),
            stays: AtomicBool::new(false),
        });
        room.add(&segment);
        segment
    }

    /// The file, opened if it was not yet. Fails when it is missing, damaged, or another than was published.
    pub fn file(&self) -> Result<Arc<OpenSegment>> {
        self.last_use.store(self.room.use_number(), Ordering::Relaxed);
        if let Some(file) = self.file.read().as_ref() {
            return Ok(Arc::clone(file));
        }
        if self.load_spec == LoadSpec::Tombstone {
            return Err(Error::defensive("a tombstone has no file"));
        }
        if self.reads == Reads::Elsewhere {
            return Err(Error::defensive("a segment was to be read that other servers serve"));
        }
        let mut attempt = 1;
        // Two threads may both open it; one result is kept.
        let opened = loop {
            let path = self.fetch_blocking()?;
            match self.open(&path) {
                Err(_) if !path.exists() && attempt < ATTEMPTS => attempt += 1,
                Err(error) if self.is_converted(&path) && attempt < ATTEMPTS => {
                    tracing::warn!(%error, "a converted segment cannot be opened; the original is fetched again");
                    self.storage.forget(self.uid)?;
                    attempt += 1;
                }
                opened => break opened?,
            }
        };
        Ok(Arc::clone(self.file.write().get_or_insert_with(|| Arc::new(opened))))
    }

    fn open(&self, path: &std::path::Path) -> Result<OpenSegment> {
        let file = OpenSegment::open(path, self.reading.nulls)?;
        let has_size = match &file {
            OpenSegment::Ours(file) => file.size_bytes() == self.size_bytes || self.is_converted(path),
            // Its files were measured when they were unpacked.
            OpenSegment::Druids(_) => true,
        };
        match has_size && self.is_published(&file) {
            true => Ok(file),
            false => Err(Error::corrupt("the file is not the segment that was published under its name")
                .context("segment", path.display())),
        }
    }

    fn is_converted(&self, path: &std::path::Path) -> bool {
        self.converted_here().is_some_and(|converted| converted == path)
    }

    fn is_published(&self, file: &dyn Segment) -> bool {
        file.num_rows() == self.num_rows && file.time_range() == self.time_range && file.schema() == &self.schema
    }

    fn expected(&self) -> Expected {
        Expected { size_bytes: self.size_bytes, hash: self.hash.clone() }
    }

    fn converted_here(&self) -> Option<PathBuf> {
        if !self.reading.converts {
            return None;
        }
        self.storage.converted_here(self.uid, self.reading.nulls)
    }

    fn path_here(&self) -> Option<PathBuf> {
        self.converted_here().or_else(|| self.storage.file_here(self.uid, &self.load_spec).ok().flatten())
    }

    /// Whether its file is on this machine. A tombstone needs none.
    pub fn is_here(&self) -> bool {
        self.load_spec == LoadSpec::Tombstone || self.path_here().is_some()
    }

    /// Brings its file to this machine. Others may be evicted for it.
    pub async fn fetch(&self) -> Result<PathBuf> {
        if let Some(path) = self.path_here() {
            return Ok(path);
        }
        self.room.make(self.size_bytes)?;
        self.storage.fetch(self.uid, &self.load_spec, Some(self.expected())).await
    }

    /// Reads all its bytes, and fails unless they are those that were published.
    pub(crate) fn verify(&self) -> Result<()> {
        let path = self.storage.file_here(self.uid, &self.load_spec)?;
        let path = path.ok_or_else(|| Error::not_found("the file of the segment is gone"))?;
        let found = self.storage.measure(&path)?;
        match found == self.expected() {
            true => self.file().map(drop),
            false => Err(Error::corrupt(format!(
                "the file has {} bytes and hash {}, but {} bytes and hash {} were published",
                found.size_bytes, found.hash, self.size_bytes, self.hash
            ))),
        }
    }

    /// Whether it was read since this process started.
    pub fn is_open(&self) -> bool {
        self.file.read().is_some()
    }

    fn fetch_blocking(&self) -> Result<PathBuf> {
        if let Some(path) = self.path_here() {
            return Ok(path);
        }
        self.room.make(self.size_bytes)?;
        self.storage.fetch_blocking(self.uid, &self.load_spec, Some(self.expected()))
    }

    /// Whether its file can be fetched with nothing evicted for it.
    pub fn has_room(&self) -> bool {
        self.room.has(self.size_bytes)
    }

    pub(super) fn uid(&self) -> SegmentUid {
        self.uid
    }

    /// Counts up with every use of any segment; 0 if it was not used yet.
    pub(super) fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed)
    }

    /// Whether its file is in the cache, and not in a deep storage on this machine.
    pub(super) fn is_cached(&self) -> bool {
        match self.load_spec {
            LoadSpec::Tombstone => false,
            LoadSpec::Local { .. } if self.load_spec.is_ours() => false,
            _ => self.path_here().is_some(),
        }
    }

    /// Closes the segments that share a file, and removes it by `forget`; not if somebody is opening a column of one at
    /// this moment. Columns that are open stay readable.
    pub(super) fn evict(shared: &[Arc<Self>], forget: impl FnOnce() -> Result<()>) -> Result<bool> {
        let mut files = shared.iter().map(|segment| segment.file.write()).collect::<Vec<_>>();
        if files.iter().any(|file| file.as_ref().is_some_and(|file| Arc::strong_count(file) > 1)) {
            return Ok(false);
        }
        files.iter_mut().for_each(|file| drop(file.take()));
        forget().map(|()| true)
    }
}

/// What became of a segment that was to be written in our format.
#[derive(Debug)]
pub enum Conversion {
    /// It is not to be, or was before, or is ours already, or cannot be.
    NotNeeded,
    Done {
        size_bytes: u64,
    },
}

impl LazySegment {
    /// Whether [`LazySegment::convert`] has something to do.
    pub fn is_to_be_converted(&self) -> bool {
        self.reading.converts
            && !self.load_spec.is_ours()
            && self.load_spec != LoadSpec::Tombstone
            && !self.stays.load(Ordering::Relaxed)
            && self.converted_here().is_none()
    }

    /// Writes the rows of a segment of Druid's in our format, compares all of them with the original's, and serves them
    /// from there on. Deep storage is left as it is. If it fails, the original is served on, and it is not tried again.
    pub fn convert(&self) -> Result<Conversion> {
        let _alone = self.converting.lock();
        if !self.is_to_be_converted() {
            return Ok(Conversion::NotNeeded);
        }
        let converted = self.write_converted();
        self.stays.store(!matches!(converted, Ok(Conversion::Done { .. })), Ordering::Relaxed);
        converted
    }

    fn write_converted(&self) -> Result<Conversion> {
        let original = self.file()?;
        if matches!(*original, OpenSegment::Ours(_)) {
            return Ok(Conversion::NotNeeded);
        }
        let temporary = self.storage.converting(self.uid);
        let written = self.write_checked(&original, &temporary);
        drop(original);
        if written.is_err() {
            // What cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(&temporary);
        }
        let size_bytes = written?;
        let path = self.storage.keep_converted(&temporary, self.uid, self.reading.nulls)?;
        let converted = Arc::new(self.open(&path)?);
        let mut file = self.file.write();
        let before = file.replace(converted);
        // Files that somebody reads, or that are another segment's too, are removed at the next start.
        if before.is_none_or(|before| Arc::into_inner(before).is_some()) && !self.room.is_shared(self.uid) {
            self.storage.forget_unpacked(self.uid)?;
        }
        Ok(Conversion::Done { size_bytes })
    }

    /// Writes the file, and reads it back.
    fn write_checked(&self, original: &Arc<OpenSegment>, to: &std::path::Path) -> Result<u64> {
        let original: Arc<dyn Segment> = Arc::clone(original) as _;
        let failed = |error: std::io::Error| {
            Error::runtime_failure(format!("could not write `{}`", to.display())).with_source(error)
        };
        let mut out = std::fs::File::create(to).map_err(failed)?;
        write_converted(&original, &[], &mut out)?;
        let copy = SegmentFile::open(to)?;
        check_same_rows(&copy, original.as_ref())?;
        match self.is_published(&copy) {
            true => Ok(copy.size_bytes()),
            false => Err(Error::defensive("a converted segment has other columns than its original")),
        }
    }
}

impl Segment for LazySegment {
    fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    fn num_rows(&self) -> usize {
        self.num_rows
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.time_range
    }

    fn column(&self, index: usize) -> Result<Column> {
        self.file()?.column(index)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.file.read().as_ref().map_or(0, |file| file.memory_bytes())
    }
}
