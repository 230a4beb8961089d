use std::collections::HashSet;

use henge_engine::model::{Interval, SegmentId};
use henge_engine::{Error, Result};

use super::{PublishRequest, replace};
use crate::store::{Decision, Overlap};
use crate::timeline::Timeline;

/// What merged segments take the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub interval: Interval,
    /// All segments of one group, as of `since_rev`: the rows of the new ones are theirs.
    pub inputs: Vec<SegmentId>,
    /// The `rev` of the data source that they were taken from: what was appended after it is kept.
    pub since_rev: u64,
}

pub(super) fn decide(
    request: &PublishRequest,
    overlap: &Overlap,
    timeline: Timeline<SegmentId>,
    compacted: &Compacted,
) -> Result<Decision> {
    check_unchanged(overlap, compacted)?;
    replace::decide(request, overlap, timeline, &[compacted.interval], compacted.since_rev)
}

/// Fails, so that it can be done again, if what was merged is not what is there: somebody replaced or removed some of it,
/// and the merged rows would bring it back; or there is more of it, which would be lost.
fn check_unchanged(overlap: &Overlap, compacted: &Compacted) -> Result<()> {
    let Compacted { interval, inputs, since_rev } = compacted;
    let changed = |id: &SegmentId, how: &str| {
        Err(Error::conflict(format!("segment `{id}` {how} while its rows were merged with others")).retryable(true))
    };
    let used = overlap.used.iter().map(|record| &record.id).collect::<HashSet<_>>();
    if let Some(gone) = inputs.iter().find(|id| !used.contains(id)) {
        return changed(gone, "was replaced or removed");
    }
    let inputs = inputs.iter().collect::<HashSet<_>>();
    for record in overlap.used.iter().filter(|record| record.id.interval.overlaps(interval)) {
        let is_of_group =
            inputs.iter().any(|id| (id.interval, &id.version) == (record.id.interval, &record.id.version));
        let is_new = record.created_rev > *since_rev;
        match (is_new, is_of_group) {
            (true, true) if record.is_appended() => {}
            (false, true) if inputs.contains(&record.id) => {}
            // Older versions stay as hidden as they were.
            (false, false) => {}
            _ => return changed(&record.id, "came"),
        }
    }
    Ok(())
}
