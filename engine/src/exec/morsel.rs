//! A scan's work, cut into morsels that the output partitions take as they become free: one large segment keeps all
//! cores busy, and so do many small ones.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::segment::BLOCK_ROWS;

/// Blocks in a morsel: about a hundred microseconds of work, so that a partition yields often and ends soon after the
/// others.
const MORSEL_BLOCKS: usize = 8;

/// Some blocks of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Morsel {
    /// Index into the scan's segments.
    pub(super) segment: usize,
    pub(super) blocks: Range<usize>,
}

/// Which end of each segment comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Direction {
    #[default]
    Forward,
    Backward,
}

/// What is left to read. Each block is handed out exactly once.
#[derive(Debug)]
pub(super) struct WorkQueue {
    segments: Vec<Blocks>,
    /// Segments before this one have been started.
    unstarted: AtomicUsize,
    direction: Direction,
}

#[derive(Debug)]
struct Blocks {
    taken: AtomicUsize,
    count: usize,
}

impl Blocks {
    fn left(&self) -> usize {
        self.count.saturating_sub(self.taken.load(Ordering::Relaxed))
    }
}

impl WorkQueue {
    /// Work over segments of so many rows, in that order.
    pub(super) fn new(num_rows: impl IntoIterator<Item = usize>, direction: Direction) -> Self {
        let blocks = |rows: usize| Blocks { taken: AtomicUsize::new(0), count: rows.div_ceil(BLOCK_ROWS) };
        Self { segments: num_rows.into_iter().map(blocks).collect(), unstarted: AtomicUsize::new(0), direction }
    }

    /// The next morsel for a partition that is at segment `current`: of that one while it lasts, else of one that
    /// nobody has begun, else of the one with most left. `None` when nothing is left.
    pub(super) fn next(&self, current: Option<usize>) -> Option<Morsel> {
        if let Some(morsel) = current.and_then(|segment| self.take(segment)) {
            return Some(morsel);
        }
        loop {
            let segment = self.unstarted.fetch_add(1, Ordering::Relaxed);
            if segment >= self.segments.len() {
                break;
            }
            if let Some(morsel) = self.take(segment) {
                return Some(morsel);
            }
        }
        loop {
            let most = (0..self.segments.len()).max_by_key(|&segment| self.segments[segment].left())?;
            if self.segments[most].left() == 0 {
                return None;
            }
            if let Some(morsel) = self.take(most) {
                return Some(morsel);
            }
        }
    }

    /// Says that the rest of a segment need not be read.
    pub(super) fn skip(&self, segment: usize) {
        let blocks = &self.segments[segment];
        blocks.taken.store(blocks.count, Ordering::Relaxed);
    }

    fn take(&self, segment: usize) -> Option<Morsel> {
        let blocks = &self.segments[segment];
        if blocks.left() == 0 {
            return None;
        }
        let start = blocks.taken.fetch_add(MORSEL_BLOCKS, Ordering::Relaxed);
        if start >= blocks.count {
            return None;
        }
        let end = (start + MORSEL_BLOCKS).min(blocks.count);
        let blocks = match self.direction {
            Direction::Forward => start..end,
            Direction::Backward => blocks.count - end..blocks.count - start,
        };
        Some(Morsel { segment, blocks })
    }
}

/// How many morsels segments of so many rows make: more partitions than that would find nothing to do.
pub(super) fn count(num_rows: impl IntoIterator<Item = usize>) -> usize {
    num_rows.into_iter().map(|rows| rows.div_ceil(BLOCK_ROWS * MORSEL_BLOCKS)).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_block_is_taken_once_whoever_takes_it() {
        for direction in [Direction::Forward, Direction::Backward] {
            let queue = WorkQueue::new([BLOCK_ROWS * 20 + 1, 0, 1, BLOCK_ROWS], direction);
            let mut at = [None, None, None];
            let mut taken = BTreeSet::new();
            for turn in 0.. {
                let Some(morsel) = queue.next(at[turn % 3]) else { break };
                for block in morsel.blocks {
                    assert!(taken.insert((morsel.segment, block)), "block {block} was taken twice");
                }
                at[turn % 3] = Some(morsel.segment);
            }
            let all = (0..21).map(|block| (0, block)).chain([(2, 0), (3, 0)]).collect::<BTreeSet<_>>();
            assert_eq!(taken, all);
        }
    }

    #[test]
    fn partitions_begin_with_different_segments_and_stay() {
        let queue = WorkQueue::new([BLOCK_ROWS * 9, BLOCK_ROWS * 30], Direction::Backward);
        assert_eq!(queue.next(None), Some(Morsel { segment: 0, blocks: 1..9 }));
        assert_eq!(queue.next(None), Some(Morsel { segment: 1, blocks: 22..30 }));
        assert_eq!(queue.next(Some(0)), Some(Morsel { segment: 0, blocks: 0..1 }));
        assert_eq!(queue.next(Some(0)), Some(Morsel { segment: 1, blocks: 14..22 }));
        queue.skip(1);
        assert_eq!(queue.next(Some(0)), None);
    }
}
