use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use henge_engine::Result;
use henge_engine::model::{Interval, SegmentId, SegmentSchema, ShardSpec};
use henge_engine::storage::LoadSpec;

use super::{Place, PublishRequest, addition, granularity_conflict, next_partition, next_version, record};
use crate::store::{Decision, Overlap, SegmentRecord, Standing, join};
use crate::timeline::{Removal, Timeline};

pub(super) fn decide(
    request: &PublishRequest,
    overlap: &Overlap,
    mut timeline: Timeline<SegmentId>,
    intervals: &[Interval],
    since_rev: u64,
) -> Result<Decision> {
    let chunks = request.segments.iter().map(|segment| segment.interval);
    let spans = join(chunks.chain(intervals.iter().copied()).collect());
    let version = next_version(request.now, overlap, &spans);
    let mut add = new_groups(request, overlap, &version);
    reissue_appended(request.standing, overlap, &version, (intervals, since_rev), &mut add)?;
    timeline.apply(&[], add.iter().map(addition).collect())?;

    let mut gone = BTreeSet::new();
    for gap in gaps(intervals, &add) {
        if request.standing == Standing::Active {
            let within = overlap.used.iter().filter(|record| gap.contains_interval(&record.id.interval));
            let within = within.map(|record| record.id.clone()).collect::<Vec<_>>();
            timeline.apply(&within.iter().map(removal).collect::<Vec<_>>(), Vec::new())?;
            gone.extend(within);
        }
        if let Some(tombstone) = tombstone(request, overlap, &timeline, gap, &version)? {
            timeline.apply(&[], vec![addition(&tombstone)])?;
            add.push(tombstone);
        }
    }
    if request.standing == Standing::Dormant {
        return Ok(Decision { add, mark_unused: Vec::new() });
    }
    let hidden = overlap.used.iter().filter(|record| timeline.is_overshadowed(&record.id.interval, &record.id.version));
    gone.extend(hidden.map(|record| record.id.clone()));
    Ok(Decision { add, mark_unused: gone.into_iter().collect() })
}

/// The new segments, numbered in each interval from 0, all of them the core.
fn new_groups(request: &PublishRequest, overlap: &Overlap, version: &str) -> Vec<SegmentRecord> {
    let mut sizes: BTreeMap<Interval, u32> = BTreeMap::new();
    for segment in &request.segments {
        *sizes.entry(segment.interval).or_default() += 1;
    }
    let mut numbers: BTreeMap<Interval, u32> = BTreeMap::new();
    let records = request.segments.iter().map(|segment| {
        let interval = segment.interval;
        let number = numbers.entry(interval).or_default();
        let place = Place { interval, version, partition: *number, core_size: sizes[&interval] };
        *number += 1;
        record(request, overlap, segment, place)
    });
    records.collect()
}

/// Issues anew, under the new version, what was appended since the work began. Work that would cut such an append in
/// two is a conflict: it can be done again.
fn reissue_appended(
    standing: Standing,
    overlap: &Overlap,
    version: &str,
    (intervals, since_rev): (&[Interval], u64),
    add: &mut Vec<SegmentRecord>,
) -> Result<()> {
    let mut targets = gaps(intervals, add).into_iter().map(|gap| (gap, None)).collect::<Vec<_>>();
    let chunks = add.iter().map(|r| (r.id.interval, Some(r.shard_spec.core_size()))).collect::<BTreeSet<_>>();
    targets.extend(chunks);
    let appended = overlap.used.iter().filter(|record| record.is_appended() && record.created_rev > since_rev);
    for old in appended {
        let mut touched = targets.iter().filter(|(target, _)| target.overlaps(&old.id.interval));
        let Some((target, core_size)) = touched.next() else { continue };
        if !target.contains_interval(&old.id.interval) {
            return Err(granularity_conflict(target, &[old.id.interval]).retryable(true));
        }
        let interval = if core_size.is_some() { *target } else { old.id.interval };
        let partition = next_partition(overlap, add, interval, version);
        let id = SegmentId { interval, version: version.to_owned(), partition, ..old.id.clone() };
        let shard_spec = ShardSpec::Numbered { partition_num: partition, partitions: core_size.unwrap_or(0) };
        add.push(SegmentRecord { id, shard_spec, created_rev: overlap.rev, standing, ..old.clone() });
    }
    Ok(())
}

/// The parts of `intervals` in which nothing was added.
fn gaps(intervals: &[Interval], add: &[SegmentRecord]) -> Vec<Interval> {
    let filled = join(add.iter().map(|record| record.id.interval).collect());
    let mut gaps = Vec::new();
    for interval in join(intervals.to_vec()) {
        let mut start = interval.start();
        for full in filled.iter().filter(|full| full.overlaps(&interval)) {
            gaps.extend(Interval::new(start, full.start()));
            start = full.end();
        }
        gaps.extend(Interval::new(start, interval.end()));
    }
    gaps
}

/// What hides older rows in a gap, if any are to be seen there still.
fn tombstone(
    request: &PublishRequest,
    overlap: &Overlap,
    timeline: &Timeline<SegmentId>,
    gap: Interval,
    version: &str,
) -> Result<Option<SegmentRecord>> {
    if timeline.visible().data(gap).next().is_none() {
        return Ok(None);
    }
    let id = SegmentId {
        data_source: request.data_source.clone(),
        interval: gap,
        version: version.to_owned(),
        partition: 0,
    };
    Ok(Some(SegmentRecord {
        id,
        uid: (request.tombstone_uids)(request.now),
        shard_spec: ShardSpec::Numbered { partition_num: 0, partitions: 1 },
        load_spec: LoadSpec::Tombstone,
        schema: Arc::new(SegmentSchema::new([])?),
        num_rows: 0,
        size_bytes: 0,
        hash: String::new(),
        time_range: None,
        created: request.now,
        created_rev: overlap.rev,
        standing: request.standing,
    }))
}

fn removal(id: &SegmentId) -> Removal {
    Removal { interval: id.interval, version: id.version.as_str().into(), partition: id.partition }
}
