//! Values that the whole workspace speaks in: time, intervals, segment ids, shard specs, schemas.
//!
//! Invariant: pure data with serde in Druid's JSON names; this room uses no other but [`crate::error`].

mod interval;
mod schema;
mod segment_id;
mod shard_spec;
mod timestamp;

pub use interval::Interval;
pub use schema::{ColumnRole, ColumnSchema, ColumnType, MetricCombine, SegmentSchema, TIME_COLUMN};
pub use segment_id::SegmentId;
pub use shard_spec::ShardSpec;
pub use timestamp::Timestamp;
