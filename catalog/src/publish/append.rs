use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use henge_engine::Result;
use henge_engine::model::{Interval, SegmentId};

use super::{
    FIRST_APPEND_VERSION, Place, PublishRequest, addition, after, granularity_conflict, next_partition, next_version,
    record,
};
use crate::store::{Decision, Overlap};
use crate::timeline::{GroupKind, Timeline};

/// The interval, version and core size of the group that an appended chunk joins or opens.
type Target = (Interval, String, u32);

pub(super) fn decide(
    request: &PublishRequest,
    overlap: &Overlap,
    mut timeline: Timeline<SegmentId>,
) -> Result<Decision> {
    let mut targets: BTreeMap<Interval, Target> = BTreeMap::new();
    let mut add = Vec::with_capacity(request.segments.len());
    for segment in &request.segments {
        let (interval, version, core_size) = match targets.entry(segment.interval) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(target(request, overlap, &timeline, segment.interval)?),
        };
        let partition = next_partition(overlap, &add, *interval, version).max(*core_size);
        let place = Place { interval: *interval, version, partition, core_size: *core_size };
        add.push(record(request, overlap, segment, place));
    }
    timeline.apply(&[], add.iter().map(addition).collect())?;
    Ok(Decision { add, mark_unused: Vec::new() })
}

fn target(
    request: &PublishRequest,
    overlap: &Overlap,
    timeline: &Timeline<SegmentId>,
    interval: Interval,
) -> Result<Target> {
    let visible = timeline.visible().lookup(interval).collect::<Vec<_>>();
    match visible.as_slice() {
        [] => Ok((interval, FIRST_APPEND_VERSION.to_owned(), 0)),
        [one] if one.group.kind() == GroupKind::Data && one.clip.contains_interval(&interval) => {
            Ok((one.group.interval(), one.group.version().to_string(), one.group.core_size()))
        }
        entries if entries.iter().all(|entry| entry.group.kind() == GroupKind::Tombstone) => {
            let hidden = entries.iter().map(|entry| entry.group.version().as_ref()).max().unwrap_or_default();
            let version = next_version(request.now, overlap, &[interval]).max(after(hidden));
            Ok((interval, version, 0))
        }
        entries => {
            let others = entries.iter().map(|entry| entry.group.interval()).collect::<Vec<_>>();
            Err(granularity_conflict(&interval, &others))
        }
    }
}
