use henge_engine::Result;

use super::addition;
use crate::store::{Decision, Overlap, SegmentRecord};
use crate::timeline::Timeline;

/// Whether a segment that somebody put there by hand can stand beside what is there. Changes nothing else: what it
/// hides stays used, and comes to light again if it goes.
///
/// Fails with `Conflict` if its version overlaps another interval of the same version, or its partition is there.
pub fn fits(record: &SegmentRecord, overlap: &Overlap) -> Result<Decision> {
    let mut timeline = Timeline::new();
    timeline.apply(&[], overlap.used.iter().map(addition).collect())?;
    timeline.apply(&[], vec![addition(record)])?;
    Ok(Decision::default())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{interval, record_of};
    use super::*;

    #[test]
    fn a_version_that_cuts_across_itself_is_refused() {
        let day = record_of(interval("2013-08-01/2013-08-02"), "v1");
        let overlap = Overlap { rev: 2, used: vec![day.clone()], taken: Vec::new() };
        let hour = interval("2013-08-01T05/2013-08-01T06");
        assert!(fits(&record_of(hour, "v1"), &overlap).is_err());
        assert!(fits(&day, &overlap).is_err());
        assert!(fits(&record_of(hour, "v2"), &overlap).is_ok());
        assert!(fits(&record_of(hour, "v0"), &overlap).is_ok(), "hidden, but no harm");
    }
}
