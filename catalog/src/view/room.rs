use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use henge_engine::Result;
use henge_engine::model::SegmentUid;
use henge_engine::storage::DeepStorage;
use parking_lot::Mutex;

use super::LazySegment;

/// Keeps the segment cache within a limit: what was read longest ago goes first. What a query holds stays, so the limit
/// is passed while queries need more at one time.
#[derive(Debug)]
pub(super) struct Room {
    storage: DeepStorage,
    limit_bytes: Option<u64>,
    /// By the names of their bytes, which some share.
    segments: Mutex<HashMap<SegmentUid, Vec<Weak<LazySegment>>>>,
    uses: AtomicU64,
}

/// What may be evicted: when it was last used, and who shares its bytes.
type Candidate = (u64, SegmentUid, Vec<Arc<LazySegment>>);

impl Room {
    pub(super) fn new(storage: DeepStorage, limit_bytes: Option<u64>) -> Self {
        Self { storage, limit_bytes, segments: Mutex::default(), uses: AtomicU64::new(1) }
    }

    /// Counts uses, so that it can be told which came last.
    pub(super) fn use_number(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add(&self, segment: &Arc<LazySegment>) {
        let mut segments = self.segments.lock();
        let shared = segments.entry(segment.uid()).or_default();
        shared.retain(|other| other.strong_count() > 0);
        shared.push(Arc::downgrade(segment));
    }

    /// Whether another segment has the same bytes.
    pub(super) fn is_shared(&self, uid: SegmentUid) -> bool {
        let segments = self.segments.lock();
        segments.get(&uid).is_some_and(|shared| shared.iter().filter(|other| other.strong_count() > 0).count() > 1)
    }

    /// Whether so many bytes more are within the limit, with nothing evicted.
    pub(super) fn has(&self, bytes: u64) -> bool {
        self.limit_bytes.is_none_or(|limit| self.storage.cached_bytes().0.saturating_add(bytes) <= limit)
    }

    /// Evicts until so many bytes more are within the limit, or nothing is left that may go.
    pub(super) fn make(&self, bytes: u64) -> Result<()> {
        if self.has(bytes) {
            return Ok(());
        }
        let candidates = self.candidates();
        for (_, uid, shared) in candidates {
            if self.has(bytes) {
                break;
            }
            LazySegment::evict(&shared, || self.storage.forget(uid))?;
        }
        Ok(())
    }

    /// What is in the cache and no query holds, in the order of its last use.
    fn candidates(&self) -> Vec<Candidate> {
        let mut segments = self.segments.lock();
        segments.retain(|_, shared| shared.iter().any(|segment| segment.strong_count() > 0));
        let mut candidates = Vec::new();
        for (&uid, shared) in segments.iter() {
            // The timeline holds each once, and this once more.
            let held = shared.iter().any(|segment| segment.strong_count() > 1);
            let shared = shared.iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
            if !held && shared.iter().any(|segment| segment.is_cached()) {
                let last_use = shared.iter().map(|segment| segment.last_use()).max().unwrap_or(0);
                candidates.push((last_use, uid, shared));
            }
        }
        candidates.sort_unstable_by_key(|(last_use, uid, _)| (*last_use, *uid));
        candidates
    }
}
