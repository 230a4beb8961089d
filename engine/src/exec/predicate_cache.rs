//! What conditions came to for the values of large dictionaries: segments never change, so it need not be found again.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Weak};

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;
use parking_lot::Mutex;

use super::code_set::CodeSet;
use crate::segment::Segment;

/// Sets of codes may take this many bytes together; beyond, those that were asked for longest ago are forgotten.
const MOST_BYTES: usize = 64 << 20;

/// Smaller dictionaries are evaluated again and again.
pub(super) const FEW_VALUES: usize = 1024;

/// The sets of codes of a process. A session has it as an extension of its configuration.
#[derive(Debug, Default)]
pub struct PredicateCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// By the address of the segment and its column.
    sets: HashMap<(usize, usize), Vec<Remembered>>,
    bytes: usize,
    /// Counts the questions.
    clock: u64,
}

#[derive(Debug)]
struct Remembered {
    /// Keeps the address from being used again.
    segment: Weak<dyn Segment>,
    condition: Arc<dyn PhysicalExpr>,
    codes: Arc<CodeSet>,
    asked: u64,
    /// Held as long as the codes.
    _reservation: MemoryReservation,
}

/// A column of a segment whose values a condition is asked of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) segment: &'a Arc<dyn Segment>,
    /// The column's index in the segment.
    pub(super) column: usize,
    pub(super) cardinality: usize,
}

impl Asked<'_> {
    fn key(&self) -> (usize, usize) {
        (Arc::as_ptr(self.segment).cast::<()>() as usize, self.column)
    }
}

impl PredicateCache {
    /// The session's, or one that lives as long as who asked.
    pub(super) fn of(context: &TaskContext) -> Arc<Self> {
        context.session_config().get_extension::<Self>().unwrap_or_default()
    }

    /// The codes for which `condition`, a deterministic function of the values alone, was found to be true.
    pub(super) fn get(&self, asked: Asked<'_>, condition: &Arc<dyn PhysicalExpr>) -> Option<Arc<CodeSet>> {
        if asked.cardinality < FEW_VALUES {
            return None;
        }
        let mut kept = self.0.lock();
        kept.clock += 1;
        let now = kept.clock;
        let of_column = kept.sets.get_mut(&asked.key())?;
        let found = of_column.iter_mut().find(|known| *known.condition == **condition)?;
        found.asked = now;
        Some(Arc::clone(&found.codes))
    }

    /// Remembers codes, if the memory limit has room for them.
    pub(super) fn put(
        &self,
        asked: Asked<'_>,
        condition: &Arc<dyn PhysicalExpr>,
        codes: &Arc<CodeSet>,
        pool: &Arc<dyn MemoryPool>,
    ) {
        let bytes = codes.memory_bytes() + size_of::<Remembered>();
        let reservation = MemoryConsumer::new("remembered conditions").register(pool);
        if asked.cardinality < FEW_VALUES || bytes > MOST_BYTES / 4 || reservation.try_grow(bytes).is_err() {
            return;
        }
        let mut kept = self.0.lock();
        kept.clock += 1;
        let remembered = Remembered {
            segment: Arc::downgrade(asked.segment),
            condition: Arc::clone(condition),
            codes: Arc::clone(codes),
            asked: kept.clock,
            _reservation: reservation,
        };
        kept.sets.entry(asked.key()).or_default().push(remembered);
        kept.bytes += bytes;
        if kept.bytes > MOST_BYTES {
            kept.make_room();
        }
    }
}

impl Remembered {
    fn bytes(&self) -> usize {
        self.codes.memory_bytes() + size_of::<Self>()
    }
}

impl Kept {
    /// Forgets what is of segments that are gone, and the older half of the rest if that is not enough.
    fn make_room(&mut self) {
        let mut all =
            mem::take(&mut self.sets).into_iter().flat_map(|(key, sets)| sets.into_iter().map(move |s| (key, s)));
        let mut live = all.by_ref().filter(|(_, set)| set.segment.strong_count() > 0).collect::<Vec<_>>();
        live.sort_unstable_by_key(|(_, set)| std::cmp::Reverse(set.asked));
        let mut bytes = 0;
        live.retain(|(_, set)| {
            bytes += set.bytes();
            bytes <= MOST_BYTES / 2
        });
        self.bytes = live.iter().map(|(_, set)| set.bytes()).sum();
        live.into_iter().for_each(|(key, set)| self.sets.entry(key).or_default().push(set));
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
    use datafusion::physical_expr::expressions::{Column, IsNullExpr};

    use super::*;
    use crate::model::SegmentSchema;
    use crate::segment::memory::{MemoryColumn, MemorySegment};

    fn segment() -> Arc<dyn Segment> {
        let schema = Arc::new(SegmentSchema::new(Vec::new()).unwrap());
        Arc::new(MemorySegment::new(schema, vec![MemoryColumn::Long { values: vec![], validity: None }]).unwrap())
    }

    fn condition(column: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(IsNullExpr::new(Arc::new(Column::new("value", column))))
    }

    fn mask(bytes: usize) -> Arc<CodeSet> {
        Arc::new(CodeSet::of_mask((0..bytes).map(|code| code % 2 == 0).collect()))
    }

    #[test]
    fn a_condition_is_remembered_for_its_segment_and_column_only() {
        let cache = PredicateCache::default();
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let (first, second) = (segment(), segment());
        let asked = |segment, column| Asked { segment, column, cardinality: FEW_VALUES };
        cache.put(asked(&first, 1), &condition(0), &mask(2000), &pool);
        assert!(cache.get(asked(&first, 1), &condition(0)).is_some());
        assert!(cache.get(asked(&first, 1), &condition(1)).is_none());
        assert!(cache.get(asked(&first, 2), &condition(0)).is_none());
        assert!(cache.get(asked(&second, 1), &condition(0)).is_none());
    }

    #[test]
    fn what_was_asked_for_longest_ago_goes_first_and_memory_is_given_back() {
        let cache = PredicateCache::default();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(MOST_BYTES * 2));
        let segment = segment();
        let asked = Asked { segment: &segment, column: 0, cardinality: FEW_VALUES };
        for at in 0..8 {
            cache.put(asked, &condition(at), &mask(MOST_BYTES / 8), &pool);
            assert!(cache.get(asked, &condition(0)).is_some(), "it is asked for all the time");
        }
        assert!(cache.get(asked, &condition(1)).is_none());
        assert!(cache.get(asked, &condition(7)).is_some());
        assert!(pool.reserved() <= MOST_BYTES);
        let full: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10));
        cache.put(asked, &condition(99), &mask(2000), &full);
        assert!(cache.get(asked, &condition(99)).is_none());
    }
}
