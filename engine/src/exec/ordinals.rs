//! One code space for the values of a dimension, whatever segment they are in.
//!
//! A segment's dictionary numbers its own values. An *ordinal* is the number of a value in all segments of a data
//! source that were asked for so far, so that rows of several segments are grouped, counted and compared without their
//! text. Ordinals are given when first needed, by all cores, and kept; a segment that comes later adds the values that
//! are new and changes no ordinal.
//!
//! Ordinal 0 is the null. Ordinals are in no order, and there may be some that no value has.

mod dimension;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::StringViewArray;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
use parking_lot::Mutex;

use self::dimension::Dimension;
use crate::segment::Segment;

/// At most this part of the memory limit is kept for ordinals, so that queries have room to work.
const SHARE_OF_LIMIT: usize = 3;

/// The ordinals of a process. A session has it as an extension of its configuration.
#[derive(Debug, Default)]
pub struct OrdinalCache {
    dimensions: Mutex<HashMap<(String, String), Kept>>,
    /// Counts the questions: who was asked longest ago is forgotten first.
    clock: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    dimension: Arc<Dimension>,
    asked: u64,
}

impl OrdinalCache {
    /// The session's, or one that lives as long as who asked.
    pub(super) fn of(context: &TaskContext) -> Arc<Self> {
        context.session_config().get_extension::<Self>().unwrap_or_default()
    }

    /// `config` with the ordinals of `other`'s process.
    #[cfg(feature = "distributed")]
    pub(crate) fn shared(
        config: datafusion::prelude::SessionConfig,
        other: &datafusion::prelude::SessionConfig,
    ) -> datafusion::prelude::SessionConfig {
        match other.get_extension::<Self>() {
            Some(ordinals) => config.with_extension(ordinals),
            None => config,
        }
    }

    /// Numbers the values that column `column` of `data_source` has in `segments`, with `threads` at once.
    /// Fails with DataFusion's `ResourcesExhausted` where they do not fit in the memory limit.
    pub(super) async fn number(
        &self,
        data_source: &str,
        column: &str,
        segments: &[&Arc<dyn Segment>],
        pool: &Arc<dyn MemoryPool>,
        threads: usize,
    ) -> Result<Numbering> {
        let key = (data_source.to_owned(), column.to_owned());
        let asked = self.clock.fetch_add(1, Ordering::Relaxed);
        let dimension = {
            let mut dimensions = self.dimensions.lock();
            let kept = dimensions
                .entry(key.clone())
                .or_insert_with(|| Kept { dimension: Arc::new(Dimension::new(column, pool)), asked });
            kept.asked = asked;
            Arc::clone(&kept.dimension)
        };
        let numbered = dimension.number(segments, threads, || self.make_room(&key, pool)).await;
        if numbered.is_err() || dimension.is_mostly_stale() {
            // Who holds it goes on with it; the next one begins anew.
            let mut dimensions = self.dimensions.lock();
            if dimensions.get(&key).is_some_and(|kept| Arc::ptr_eq(&kept.dimension, &dimension)) {
                dimensions.remove(&key);
            }
        }
        let codes = numbered?;
        Ok(Numbering { limit: dimension.limit(), dimension, codes })
    }

    /// How many values have to be looked at before the segments' values are numbered.
    pub(super) fn unknown_values(
        &self,
        data_source: &str,
        column: &str,
        segments: &[&Arc<dyn Segment>],
    ) -> Result<usize> {
        let known = {
            let dimensions = self.dimensions.lock();
            dimensions.get(&(data_source.to_owned(), column.to_owned())).map(|kept| Arc::clone(&kept.dimension))
        };
        dimension::unknown_values(known.as_deref(), column, segments)
    }

    /// Forgets dimensions, those first that nobody asked for longest, until what is kept is within its share.
    /// Returns whether there is room.
    fn make_room(&self, except: &(String, String), pool: &Arc<dyn MemoryPool>) -> bool {
        let MemoryLimit::Finite(limit) = pool.memory_limit() else { return true };
        let mut dimensions = self.dimensions.lock();
        loop {
            let held: usize = dimensions.values().map(|kept| kept.dimension.memory_bytes()).sum();
            if held <= limit / SHARE_OF_LIMIT {
                return true;
            }
            let oldest = dimensions.iter().filter(|(key, _)| *key != except).min_by_key(|(_, kept)| kept.asked);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return false };
            dimensions.remove(&oldest);
        }
    }

    /// Bytes held for dimensions.
    pub fn memory_bytes(&self) -> usize {
        self.dimensions.lock().values().map(|kept| kept.dimension.memory_bytes()).sum()
    }
}

/// The ordinals of one dimension in some segments.
#[derive(Clone, Debug)]
pub(super) struct Numbering {
    dimension: Arc<Dimension>,
    /// All ordinals are less.
    limit: u32,
    /// For each of the segments; `None` where it lacks the column.
    codes: Vec<Option<Arc<SegmentOrdinals>>>,
}

impl Numbering {
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// The ordinals of the codes of the segment at this place of those asked for.
    pub(super) fn codes(&self, segment: usize) -> Option<&Arc<SegmentOrdinals>> {
        self.codes.get(segment).and_then(Option::as_ref)
    }

    /// The values of some ordinals.
    pub(super) fn values_of(&self, ordinals: &[u32]) -> StringViewArray {
        self.dimension.values_of(ordinals)
    }
}

/// The ordinals of one segment's codes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SegmentOrdinals {
    /// A code and this many.
    Shifted(u32),
    Each(Box<[u32]>),
}

impl SegmentOrdinals {
    fn of(ordinals: Vec<u32>) -> Self {
        let shift = ordinals.first().copied().unwrap_or(0);
        match ordinals.iter().zip(shift..).all(|(ordinal, shifted)| *ordinal == shifted) {
            true => Self::Shifted(shift),
            false => Self::Each(ordinals.into()),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Shifted(_) => 0,
            Self::Each(ordinals) => size_of_val::<[u32]>(ordinals),
        }
    }

    /// Replaces codes by their ordinals.
    pub(super) fn apply(&self, codes: &mut [u32]) {
        match self {
            Self::Shifted(0) => {}
            Self::Shifted(shift) => codes.iter_mut().for_each(|code| *code += shift),
            Self::Each(ordinals) => codes.iter_mut().for_each(|code| *code = ordinals[*code as usize]),
        }
    }
}
