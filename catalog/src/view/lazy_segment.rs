use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use henge_engine::model::{SegmentSchema, SegmentUid, Timestamp};
use henge_engine::segment::druid::Nulls;
use henge_engine::segment::{Column, OpenSegment, Segment};
use henge_engine::storage::{DeepStorage, Expected, LoadSpec};
use henge_engine::{Error, Result};

use crate::store::SegmentRecord;

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
    nulls: Nulls,
    reads: Reads,
    file: OnceLock<OpenSegment>,
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
    /// `nulls` matters to a segment of Druid's.
    pub(crate) fn new(storage: DeepStorage, record: &SegmentRecord, nulls: Nulls, reads: Reads) -> Self {
        Self {
            storage,
            uid: record.uid,
            load_spec: record.load_spec.clone(),
            hash: record.hash.clone(),
            schema: Arc::clone(&record.schema),
            num_rows: usize::try_from(record.num_rows).unwrap_or(usize::MAX),
            size_bytes: record.size_bytes,
            time_range: record.time_range,
            nulls,
            reads,
            file: OnceLock::new(),
        }
    }

    /// The file, opened if it was not yet. Fails when it is missing, damaged, or another than was published.
    pub fn file(&self) -> Result<&OpenSegment> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        if self.load_spec == LoadSpec::Tombstone {
            return Err(Error::defensive("a tombstone has no file"));
        }
        if self.reads == Reads::Elsewhere {
            return Err(Error::defensive("a segment was to be read that other servers serve"));
        }
        let path = self.storage.fetch_blocking(self.uid, &self.load_spec, Some(self.expected()))?;
        // Two threads may both open it; one result is kept.
        let file = OpenSegment::open(&path, self.nulls)?;
        let has_size = |file: &OpenSegment| match file {
            OpenSegment::Ours(file) => file.size_bytes() == self.size_bytes,
            // Its files were measured when they were unpacked.
            OpenSegment::Druids(_) => true,
        };
        let is_published = file.num_rows() == self.num_rows
            && has_size(&file)
            && file.time_range() == self.time_range
            && file.schema() == &self.schema;
        if !is_published {
            return Err(Error::corrupt("the file is not the segment that was published under its name")
                .context("segment", path.display()));
        }
        Ok(self.file.get_or_init(|| file))
    }

    fn expected(&self) -> Expected {
        Expected { size_bytes: self.size_bytes, hash: self.hash.clone() }
    }

    /// Whether its file is on this machine. A tombstone needs none.
    pub fn is_here(&self) -> bool {
        self.load_spec == LoadSpec::Tombstone
            || self.storage.file_here(self.uid, &self.load_spec).is_ok_and(|path| path.is_some())
    }

    /// Brings its file to this machine.
    pub async fn fetch(&self) -> Result<PathBuf> {
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
        self.file.get().is_some()
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
        size_of::<Self>() + self.file.get().map_or(0, Segment::memory_bytes)
    }
}
