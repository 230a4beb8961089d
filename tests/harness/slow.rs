//! A segment that is slow to read, as one on a tired disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::buffer::BooleanBuffer;
use henge_engine::Result;
use henge_engine::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema, Timestamp};
use henge_engine::segment::{BLOCK_ROWS, BlockStats, Column, NumericColumn, Segment, block_range};

/// 2015-09-12T00:00:00Z
const TIME: i64 = 1_442_016_000_000;

/// Counts what is read, and how long it takes.
#[derive(Debug, Default)]
pub struct Reads {
    count: AtomicUsize,
    is_fast: AtomicBool,
}

impl Reads {
    /// Blocks read so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Makes the rest fast.
    pub fn hurry(&self) {
        self.is_fast.store(true, Ordering::SeqCst);
    }

    fn read(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if !self.is_fast.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(15));
        }
    }
}

/// Rows of one time, whose column `added` is 1.
#[derive(Debug)]
pub struct Slow {
    schema: Arc<SegmentSchema>,
    reads: Arc<Reads>,
    rows: usize,
}

impl Slow {
    pub const BLOCKS: usize = 400;
    pub const ROWS: usize = Self::BLOCKS * BLOCK_ROWS;

    pub fn new(reads: Arc<Reads>) -> Self {
        Self::of(reads, Self::ROWS)
    }

    pub fn of(reads: Arc<Reads>, rows: usize) -> Self {
        let added = ColumnSchema::metric("added", ColumnType::Long, MetricCombine::Sum);
        Self { schema: Arc::new(SegmentSchema::new([added]).expect("one column")), reads, rows }
    }
}

impl Segment for Slow {
    fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    fn num_rows(&self) -> usize {
        self.rows
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        Some((Timestamp::from_millis(TIME), Timestamp::from_millis(TIME)))
    }

    fn column(&self, index: usize) -> Result<Column> {
        Ok(Column::Long(match index {
            0 => Arc::new(Constant { value: TIME, rows: self.rows, reads: None }),
            _ => Arc::new(Constant { value: 1, rows: self.rows, reads: Some(Arc::clone(&self.reads)) }),
        }))
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

#[derive(Debug)]
struct Constant {
    value: i64,
    rows: usize,
    reads: Option<Arc<Reads>>,
}

impl NumericColumn<i64> for Constant {
    fn has_nulls(&self) -> bool {
        false
    }

    fn block_stats(&self, block: usize) -> Result<BlockStats<i64>> {
        let rows = block_range(block, self.rows).len() as u32;
        let sum = i128::from(self.value) * i128::from(rows);
        Ok(BlockStats { rows, nulls: 0, min_max: Some((self.value, self.value)), sum, has_nan: false })
    }

    fn read(&self, block: usize, out: &mut Vec<i64>) -> Result<Option<BooleanBuffer>> {
        if let Some(reads) = &self.reads {
            reads.read();
        }
        out.clear();
        out.resize(block_range(block, self.rows).len(), self.value);
        Ok(None)
    }

    fn lower_bound(&self, bound: i64) -> Result<usize> {
        Ok(if bound <= self.value { 0 } else { self.rows })
    }
}
