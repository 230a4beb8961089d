//! Merging segments into fewer: the same rows, checked.

use std::sync::Arc;

use super::merge::{Part, parts_of};
use super::{FinishedSegment, IngestOptions};
use crate::error::{Error, Result};
use crate::model::{Interval, SegmentSchema};
use crate::segment::{Fingerprint, MergeInput, Rollup, RowOrder, Segment, SegmentFile, fingerprint};

/// Segments to be merged.
#[derive(Debug)]
pub struct Compaction {
    /// Of one interval, in the order of their partitions.
    pub inputs: Vec<Arc<dyn Segment>>,
    pub interval: Interval,
    /// The columns of what is written; what an input lacks is null.
    pub schema: Arc<SegmentSchema>,
    pub rollup: Rollup,
    pub max_rows_per_segment: usize,
}

/// Merges segments, and reads back what it wrote: without rollup it is the same rows, with it the same totals. Writes to
/// the work directory, from where they can be published in place of the inputs. Blocks.
pub fn compact(compaction: &Compaction, options: &IngestOptions) -> Result<Vec<FinishedSegment>> {
    let Compaction { inputs, interval, schema, rollup, max_rows_per_segment } = compaction;
    let mut before = Fingerprint::default();
    for input in inputs {
        options.cancel.check()?;
        before = before.and(&fingerprint(input.as_ref(), schema)?);
    }
    let merge = inputs.iter().map(|segment| MergeInput { segment: Arc::clone(segment), rows: 0..segment.num_rows() });
    let order = Arc::new(RowOrder::of(merge.collect(), schema, *rollup)?);
    let parts = parts_of(order.num_rows(), *max_rows_per_segment);
    let partitions = u32::try_from(parts.len())
        .map_err(|error| Error::invalid_input("there would be more than 2^32 segments").with_source(error))?;
    let (mut finished, mut after) = (Vec::with_capacity(parts.len()), Fingerprint::default());
    for (rows, partition) in parts.into_iter().zip(0..) {
        let part = Part { interval: *interval, order: Arc::clone(&order), rows, partition, partitions };
        let segment = part.write(&options.work_dir, *rollup, &options.cancel)?;
        after = after.and(&fingerprint(&SegmentFile::open(&segment.path)?, schema)?);
        finished.push(segment);
    }
    after.check_made_of(&before, *rollup)?;
    Ok(finished)
}
