//! Values that the whole workspace speaks in: time, intervals, segment ids, shard specs, schemas.
//!
//! Invariant: pure data with serde in Druid's JSON names; this room uses no other but [`crate::error`].

mod data_schema;
mod granularity;
mod interval;
mod metric_spec;
mod period;
mod schema;
mod segment_id;
mod segment_uid;
mod shard_spec;
mod time_zone;
mod timestamp;

pub use data_schema::{
    DataSchema, DimensionSchema, DimensionsSpec, GranularitySpec, MultiValueHandling, TimestampSpec, Transform,
    TransformSpec, refuse_unknown,
};
pub use granularity::{Granularity, PeriodGranularity};
pub use interval::Interval;
pub use metric_spec::MetricSpec;
pub use period::Period;
pub use schema::{ColumnRole, ColumnSchema, ColumnType, MetricCombine, SegmentSchema, TIME_COLUMN};
pub use segment_id::SegmentId;
pub use segment_uid::SegmentUid;
pub use shard_spec::ShardSpec;
pub use time_zone::TimeZone;
pub use timestamp::Timestamp;
