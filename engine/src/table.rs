//! The table that DataFusion sees for a data source.
//!
//! Owns the mapping from segment columns to Arrow, and from SQL filters to pruned segments and index look-ups.
//! Knows no timeline: which segments are visible is asked of a [`SegmentSource`].

mod data_source_table;
mod filter;
mod fixed_source;
#[cfg(test)]
mod oracle;

use std::fmt::Debug;
use std::sync::Arc;

pub use self::data_source_table::DataSourceTable;
pub use self::fixed_source::FixedSource;
use crate::error::Result;
pub use crate::exec::VisibleSegment;
use crate::model::{Interval, SegmentSchema};

/// Answers which segments of one data source a query is to read. Fulfilled by the catalog's timeline, by the broker
/// and the historical, and by a fixed list in tests and in programs that embed the engine.
pub trait SegmentSource: Debug + Send + Sync {
    /// The columns of the data source: the union of its segments' columns. A segment that lacks one has nulls there.
    fn schema(&self) -> Arc<SegmentSchema>;

    /// One consistent set of visible segments, those whose clip overlaps `interval`, in the order of their ids.
    /// No two of them hold the same row, and together they hold every row of the data source within `interval`.
    fn visible(&self, interval: &Interval) -> Result<Vec<VisibleSegment>>;

    /// How many segments are visible over all of time, for `EXPLAIN`.
    fn num_visible(&self) -> usize;
}
