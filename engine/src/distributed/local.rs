//! The segments that a worker has.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::Result;
use crate::model::SegmentUid;
use crate::segment::Segment;

/// What a worker can read by itself. Fulfilled by a historical's cache and by a realtime process's open segments.
pub trait LocalSegments: Debug + Send + Sync {
    /// A segment that is served here; `None` if it is not, or no more. Of a segment that still grows, its rows as of now:
    /// a query asks once and keeps what it was given, so that all of its scans see the same rows. Whoever holds it may go
    /// on reading after it is no longer served.
    fn segment(&self, uid: SegmentUid) -> Result<Option<Arc<dyn Segment>>>;

    /// The same of what is served under one uid and lies here in several segments, as rows do that still grow: all of
    /// them, as of one moment.
    fn segments(&self, uid: SegmentUid) -> Result<Option<Vec<Arc<dyn Segment>>>> {
        Ok(self.segment(uid)?.map(|segment| vec![segment]))
    }
}

/// Segments in a map. Without any, what a broker has: it plans, and reads nothing.
#[derive(Debug, Default)]
pub struct MemorySegments {
    segments: RwLock<HashMap<SegmentUid, Arc<dyn Segment>>>,
}

impl MemorySegments {
    pub fn insert(&self, uid: SegmentUid, segment: Arc<dyn Segment>) {
        self.segments.write().insert(uid, segment);
    }

    pub fn remove(&self, uid: SegmentUid) {
        self.segments.write().remove(&uid);
    }
}

impl LocalSegments for MemorySegments {
    fn segment(&self, uid: SegmentUid) -> Result<Option<Arc<dyn Segment>>> {
        Ok(self.segments.read().get(&uid).map(Arc::clone))
    }
}
