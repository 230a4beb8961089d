//! Publishing: which versions and partition numbers new segments get, and what they overshadow.
//!
//! A publication is one transaction of the store: all its segments become visible together, or none. What to write is
//! decided by a pure function from what is there.
//!
//! * *Replace* gives all its chunks one new version, greater than every version that was ever there and not before
//!   now, so that a clock that steps back cannot make new data invisible.
//! * *Append* adds partitions to what is visible, or opens an empty chunk under the epoch version, as Druid does.
//! * Where a replaced interval got no rows, segments that lie within it are marked unused; if something that reaches
//!   out of it is still visible there, a tombstone hides it.
//! * Segments that were appended while a replacement was being made are issued anew under its version, with the same
//!   bytes: an append that was acknowledged is never lost to an older piece of work.
//! * *Compact* is a replacement by the same rows. It is refused if anything but appends happened to them meanwhile:
//!   nothing that was replaced or removed comes back.

mod adopt;
mod append;
mod compact;
mod replace;

use std::sync::Arc;

use henge_engine::model::{Interval, SegmentId, SegmentSchema, SegmentUid, ShardSpec, Timestamp};
use henge_engine::storage::PushedSegment;
use henge_engine::{Error, Result};

use crate::store::{
    Decision, MetadataStore, Overlap, Publication, Publish, SegmentRecord, SinkRecord, Standing, StreamAdvance, join,
};
use crate::timeline::{Addition, Timeline};

pub use adopt::{fit, fits};
pub use compact::Compacted;

/// The version under which an empty chunk is opened by an append (Druid's `DateTimes.EPOCH`).
pub const FIRST_APPEND_VERSION: &str = "1970-01-01T00:00:00.000Z";

/// Whether new segments go beside what is there, or take its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishMode {
    Append,
    Replace {
        /// Parts of time that are to hold nothing but the new segments, even where there are none.
        intervals: Vec<Interval>,
        /// The `rev` of the data source when the work began: what was appended after it is kept.
        since_rev: u64,
    },
    /// The new segments hold the rows of some that are there, and take their place.
    Compact(Compacted),
}

/// A segment that is in deep storage and not yet published.
#[derive(Clone, Debug)]
pub struct NewSegment {
    pub interval: Interval,
    pub uid: SegmentUid,
    pub pushed: PushedSegment,
    pub schema: Arc<SegmentSchema>,
    pub num_rows: u64,
    /// Earliest and latest row time, both inclusive.
    pub time_range: Option<(Timestamp, Timestamp)>,
}

/// What a task publishes.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// Names the work: the same id publishes once, however often it is asked.
    pub publish_id: String,
    pub data_source: String,
    pub mode: PublishMode,
    /// In the order in which partitions are numbered.
    pub segments: Vec<NewSegment>,
    pub now: Timestamp,
    /// How many files of it were noted as about to be pushed.
    pub intended_pushes: u64,
    /// How far parts of streams are published with it.
    pub advances: Vec<StreamAdvance>,
    /// What is recorded with it of the stream's rows, if queries of others read them.
    pub sink: Option<SinkRecord>,
    /// The uid of a tombstone, should one be needed.
    pub tombstone_uids: fn(Timestamp) -> SegmentUid,
    /// Dormant where others must load the segments before queries can ask for them. Then nothing is marked unused: what
    /// is hidden is so from the moment the new segments wake, all at once.
    pub standing: Standing,
}

/// Publishes all segments of a request, or none.
///
/// Fails with `Conflict` if an appended interval cuts across the intervals that are visible there.
pub async fn publish(store: &dyn MetadataStore, request: &PublishRequest) -> Result<Publish> {
    let mut spans = request.segments.iter().map(|segment| segment.interval).collect::<Vec<_>>();
    match &request.mode {
        PublishMode::Append => {}
        PublishMode::Replace { intervals, .. } => spans.extend(intervals),
        PublishMode::Compact(compacted) => spans.push(compacted.interval),
    }
    let publication = Publication {
        publish_id: request.publish_id.clone(),
        data_source: request.data_source.clone(),
        spans: join(spans),
        intended_pushes: request.intended_pushes,
        advances: request.advances.clone(),
        sink: request.sink.clone(),
        now: request.now,
    };
    store.publish(&publication, &|overlap| decide(request, overlap)).await
}

/// What a request changes, given what is there. Pure but for the uids of tombstones.
fn decide(request: &PublishRequest, overlap: &Overlap) -> Result<Decision> {
    let mut timeline = Timeline::new();
    timeline.apply(&[], overlap.used.iter().map(addition).collect())?;
    match &request.mode {
        PublishMode::Append => append::decide(request, overlap, timeline),
        PublishMode::Replace { intervals, since_rev } => {
            replace::decide(request, overlap, timeline, intervals, *since_rev)
        }
        PublishMode::Compact(compacted) => compact::decide(request, overlap, timeline, compacted),
    }
}

/// A segment as the timeline takes it, standing for itself by its id.
fn addition(record: &SegmentRecord) -> Addition<SegmentId> {
    Addition {
        interval: record.id.interval,
        version: record.id.version.as_str().into(),
        kind: record.kind(),
        core_size: record.shard_spec.core_size(),
        partition: record.id.partition,
        segment: record.id.clone(),
    }
}

/// Where a new segment goes.
struct Place<'a> {
    interval: Interval,
    version: &'a str,
    partition: u32,
    core_size: u32,
}

fn record(request: &PublishRequest, overlap: &Overlap, segment: &NewSegment, place: Place<'_>) -> SegmentRecord {
    let Place { interval, version, partition, core_size } = place;
    SegmentRecord {
        id: SegmentId { data_source: request.data_source.clone(), interval, version: version.to_owned(), partition },
        uid: segment.uid,
        shard_spec: ShardSpec::Numbered { partition_num: partition, partitions: core_size },
        load_spec: segment.pushed.load_spec.clone(),
        schema: Arc::clone(&segment.schema),
        num_rows: segment.num_rows,
        size_bytes: segment.pushed.size_bytes,
        hash: segment.pushed.hash.clone(),
        time_range: segment.time_range,
        created: request.now,
        created_rev: overlap.rev,
        standing: request.standing,
    }
}

/// A version that is greater than all that overlap `spans` ever were, and not before now.
fn next_version(now: Timestamp, overlap: &Overlap, spans: &[Interval]) -> String {
    let taken = overlap.taken.iter().filter(|group| spans.iter().any(|span| span.overlaps(&group.interval)));
    let greatest = taken.map(|group| group.version.as_str()).max();
    let now = now.to_string();
    match greatest {
        Some(greatest) if greatest >= now.as_str() => after(greatest),
        _ => now,
    }
}

/// A version greater than `version`: a millisecond later, or, for one that is no time, something longer.
fn after(version: &str) -> String {
    let later = version.parse::<Timestamp>().map(|time| Timestamp::from_millis(time.millis() + 1).to_string());
    later.ok().filter(|later| later.as_str() > version).unwrap_or_else(|| format!("{version}.1"))
}

/// The next free partition number of an interval and version.
fn next_partition(overlap: &Overlap, added: &[SegmentRecord], interval: Interval, version: &str) -> u32 {
    let taken = overlap.taken.iter().filter(|group| group.interval == interval && group.version == version);
    let added = added.iter().filter(|record| record.id.interval == interval && record.id.version == version);
    let numbers = taken.map(|group| group.max_partition).chain(added.map(|record| record.id.partition));
    numbers.max().map_or(0, |number| number + 1)
}

fn granularity_conflict(interval: &Interval, others: &[Interval]) -> Error {
    let others = others.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("`, `");
    Error::conflict(format!(
        "segments of `{interval}` cannot be added to a data source that has `{others}` there: \
         use the segment granularity that is there, or replace"
    ))
}

#[cfg(test)]
mod tests;
