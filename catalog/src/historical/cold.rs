//! Segments of which only what queries asked for is on this machine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use henge_engine::model::{SegmentSchema, SegmentUid, Timestamp};
use henge_engine::segment::{Column, Segment, SegmentFile};
use henge_engine::storage::{DeepStorage, LoadSpec, Room};
use henge_engine::{Error, Result};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use crate::store::SegmentRecord;

/// When room is made, so much of a location is freed at once: a look at all segments is worth it then.
const FREED_SHARE: u64 = 20;

/// What was read on demand since the process started, and what of it is here now.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdFigures {
    pub requests: u64,
    pub bytes_read: u64,
    pub bytes_cached: u64,
    pub segments_evicted: u64,
    pub bytes_evicted: u64,
}

/// All segments that are read on demand; who was asked for longest ago goes first when there is no room.
#[derive(Debug)]
pub(super) struct ColdRoom {
    storage: DeepStorage,
    segments: Mutex<HashMap<SegmentUid, Weak<ColdSegment>>>,
    uses: AtomicU64,
    segments_evicted: AtomicU64,
    bytes_evicted: AtomicU64,
}

/// A segment that stays in deep storage. A column is read from there when it is first asked for, and kept for as long as
/// there is room; what is being read by a query is not evicted.
#[derive(Debug)]
pub(super) struct ColdSegment {
    room: Arc<ColdRoom>,
    uid: SegmentUid,
    load_spec: LoadSpec,
    schema: Arc<SegmentSchema>,
    num_rows: usize,
    size_bytes: u64,
    time_range: Option<(Timestamp, Timestamp)>,
    file: RwLock<Option<Arc<SegmentFile>>>,
    /// Held while the file is opened: nobody removes it then, or opens it as well.
    opening: Mutex<()>,
    last_use: AtomicU64,
}

impl ColdRoom {
    pub(super) fn new(storage: DeepStorage) -> Arc<Self> {
        Arc::new(Self {
            storage,
            segments: Mutex::default(),
            uses: AtomicU64::new(1),
            segments_evicted: AtomicU64::new(0),
            bytes_evicted: AtomicU64::new(0),
        })
    }

    pub(super) fn figures(&self) -> ColdFigures {
        let read = self.storage.on_demand_figures();
        ColdFigures {
            requests: read.requests,
            bytes_read: read.bytes_read,
            bytes_cached: self.storage.cached_bytes().0,
            segments_evicted: self.segments_evicted.load(Ordering::Relaxed),
            bytes_evicted: self.bytes_evicted.load(Ordering::Relaxed),
        }
    }

    /// Makes room for a segment that is fetched as a whole, in every location: it goes to the emptiest.
    pub(super) fn make_anywhere(&self, bytes: u64) {
        for location in 0.. {
            match self.storage.free_in(location) {
                (0, _) => return,
                (_, free) if free >= bytes => return,
                _ => self.make(location, bytes),
            }
        }
    }

    /// What has something in a location, in the order of its last use.
    fn candidates(&self, location: usize) -> Vec<Arc<ColdSegment>> {
        let mut segments = self.segments.lock();
        segments.retain(|_, segment| segment.strong_count() > 0);
        let is_there = |segment: &Arc<ColdSegment>| self.storage.location(segment.uid) == Some(location);
        let mut found = segments.values().filter_map(Weak::upgrade).filter(is_there).collect::<Vec<_>>();
        found.sort_by_cached_key(|segment| (segment.last_use.load(Ordering::Relaxed), segment.uid));
        found
    }
}

impl Room for ColdRoom {
    fn make(&self, location: usize, bytes: u64) {
        let (max, _) = self.storage.free_in(location);
        let wanted = bytes.max(max / FREED_SHARE).min(max);
        for segment in self.candidates(location) {
            if self.storage.free_in(location).1 >= wanted {
                return;
            }
            match segment.evict() {
                Ok(0) => {}
                Ok(bytes) => {
                    self.segments_evicted.fetch_add(1, Ordering::Relaxed);
                    self.bytes_evicted.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) => tracing::warn!(%error, "what was read on demand cannot be evicted"),
            }
        }
    }
}

impl ColdSegment {
    pub(super) fn new(room: &Arc<ColdRoom>, record: &SegmentRecord) -> Arc<Self> {
        let segment = Arc::new(Self {
            room: Arc::clone(room),
            uid: record.uid,
            load_spec: record.load_spec.clone(),
            schema: Arc::clone(&record.schema),
            num_rows: usize::try_from(record.num_rows).unwrap_or(usize::MAX),
            size_bytes: record.size_bytes,
            time_range: record.time_range,
            file: RwLock::new(None),
            opening: Mutex::new(()),
            last_use: AtomicU64::new(0),
        });
        room.segments.lock().insert(record.uid, Arc::downgrade(&segment));
        segment
    }

    /// Fails unless its footer is that of the segment that was published. Does not keep it open.
    pub(super) fn look(&self) -> Result<()> {
        self.file()?;
        self.file.write().take_if(|file| Arc::strong_count(file) == 1 && !file.is_being_read());
        Ok(())
    }

    /// The file, opened if it was not yet: that reads its footer.
    fn file(&self) -> Result<Arc<SegmentFile>> {
        self.last_use.store(self.room.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        if let Some(file) = self.file.read().as_ref() {
            return Ok(Arc::clone(file));
        }
        let _opening = self.opening.lock();
        if let Some(file) = self.file.read().as_ref() {
            return Ok(Arc::clone(file));
        }
        let room: Arc<dyn Room> = Arc::clone(&self.room) as _;
        let file = self.room.storage.open_on_demand(self.uid, &self.load_spec, self.size_bytes, room)?;
        let is_published = file.num_rows() == self.num_rows
            && file.time_range() == self.time_range
            && file.schema() == &self.schema
            && file.size_bytes() == self.size_bytes;
        if !is_published {
            let message = format!("`{}` is not the segment that was published under its name", self.load_spec);
            return Err(Error::corrupt(message));
        }
        let file = Arc::new(file);
        *self.file.write() = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Removes what is here of it, unless a query is reading it at this moment. Returns how many bytes that were.
    fn evict(&self) -> Result<u64> {
        let Some(_opening) = self.opening.try_lock() else { return Ok(0) };
        let mut file = self.file.write();
        if file.as_ref().is_some_and(|file| Arc::strong_count(file) > 1 || file.is_being_read()) {
            return Ok(0);
        }
        drop(file.take());
        let bytes = self.room.storage.cached_size(self.uid).unwrap_or(0);
        self.room.storage.forget(self.uid)?;
        Ok(bytes)
    }
}

impl Segment for ColdSegment {
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
