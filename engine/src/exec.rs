//! Physical operators over segments.
//!
//! Owns [`SegmentScanExec`], which reads selected rows, [`SegmentAggregateExec`], which folds them over dictionary codes
//! into the states of partial aggregates, [`SegmentGroupExec`], which does whole aggregations, [`SegmentTopExec`], which
//! leaves the first rows of an order, and what they stand on:
//! [`Predicate`]s bound to a segment's dictionaries and indexes, ordinals that number a dimension's values across
//! segments, work shared among output partitions, rows gathered late. Never plans.
//!
//! Invariants: an operator's answer is that of DataFusion's own operators over the same rows; each selected row is
//! given out by exactly one output partition of an execution; no poll works longer than a morsel of some blocks; a
//! segment that is not read is not touched.

mod block_pruning;
mod cancel;
mod code_set;
mod computed;
mod kernel;
mod morsel;
mod options;
mod ordinals;
mod predicate;
mod predicate_cache;
mod reader;
mod scan_work;
mod segment_aggregate;
mod segment_scan;
mod segment_top;
mod selection;

use std::sync::Arc;

pub use cancel::{Cancel, CancelOnDrop};
pub use computed::Computed;
pub use options::{HengeOptions, SharedFunctions, Shuffle, SqlDialect};
pub use ordinals::OrdinalCache;
pub use predicate::{DimensionPredicate, Predicate, TimeRanges};
pub use predicate_cache::PredicateCache;
pub use reader::arrow_field;
pub(crate) use segment_aggregate::is_integral;
pub use segment_aggregate::{Argument, Fold, FoldKind, GroupKey, SegmentAggregateExec, SegmentGroupExec, TimeKey, Top};
pub(crate) use segment_aggregate::{foldable, groupable};
pub use segment_scan::{Order, ScanSource, SegmentScanExec};
pub use segment_top::{SegmentTopExec, TopKey};

use crate::model::{Interval, SegmentId, SegmentUid};
use crate::segment::Segment;

/// A segment, and the part of it that no newer version hides.
#[derive(Clone, Debug)]
pub struct VisibleSegment {
    pub id: Arc<SegmentId>,
    /// Names its bytes, wherever they are served.
    pub uid: SegmentUid,
    /// Only rows whose time lies in here count; the others are overshadowed.
    pub clip: Interval,
    pub segment: Arc<dyn Segment>,
}
