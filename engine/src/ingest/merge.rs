//! From runs to finished segments: granule by granule, in parallel.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::plan::Plan;
use super::run::{Run, Settled};
use super::{Cancellation, FinishedSegment, Progress, parallel, write_file};
use crate::error::Result;
use crate::model::{Interval, SegmentSchema};
use crate::segment::{MergeInput, Rollup, RowOrder, Segment, WriteOptions, write_segment};

/// What is to be written and where.
pub(super) struct Merge<'a> {
    pub(super) plan: &'a Plan,
    pub(super) segment_dir: PathBuf,
    pub(super) max_rows: usize,
    pub(super) threads: usize,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a Cancellation,
}

enum Work {
    Granule(Interval),
    Part(Part),
}

/// Some of the rows of a granule: one segment.
pub(super) struct Part {
    pub(super) interval: Interval,
    pub(super) order: Arc<RowOrder>,
    pub(super) rows: Range<usize>,
    pub(super) partition: u32,
    pub(super) partitions: u32,
}

impl Merge<'_> {
    /// Writes all segments, in the order of their intervals and partitions.
    pub(super) fn write(&self, runs: Vec<Run>) -> Result<Vec<FinishedSegment>> {
        let settled = Settled::of(self.plan, &runs)?;
        let runs = runs.into_iter().map(|run| {
            self.cancel.check()?;
            run.conform(&settled)
        });
        let runs = runs.collect::<Result<Vec<_>>>()?;
        let granules = runs.iter().flat_map(|run| run.granules.iter().copied()).collect::<BTreeSet<_>>();
        self.progress.writing(granules.len());
        let work = Mutex::new(granules.into_iter().map(Work::Granule).collect::<VecDeque<_>>());
        let finished = Mutex::new(Vec::new());
        parallel(self.threads, || {
            loop {
                let next = work.lock().pop_front();
                match next {
                    None => return Ok(()),
                    Some(Work::Granule(interval)) => {
                        let parts = self.divide(interval, &runs, &settled.schema)?;
                        let mut work = work.lock();
                        parts.into_iter().rev().for_each(|part| work.push_front(Work::Part(part)));
                    }
                    Some(Work::Part(part)) => {
                        let segment = self.write_part(part)?;
                        self.progress.wrote(segment.summary.num_rows as u64);
                        finished.lock().push(segment);
                    }
                }
            }
        })?;
        let mut finished = finished.into_inner();
        finished.sort_by_key(|segment: &FinishedSegment| (segment.interval, segment.partition));
        Ok(finished)
    }

    /// Puts the rows of a granule in order, and divides them into parts of about the same size.
    fn divide(&self, interval: Interval, runs: &[Run], schema: &Arc<SegmentSchema>) -> Result<Vec<Part>> {
        self.cancel.check()?;
        let mut inputs = Vec::new();
        for run in runs.iter().filter(|run| run.granules.binary_search(&interval).is_ok()) {
            let segment: Arc<dyn Segment> = Arc::clone(&run.segment);
            inputs.push(MergeInput { segment, rows: run.rows_of(&interval)? });
        }
        let rollup = if self.plan.rollup { Rollup::On } else { Rollup::Off };
        let order = Arc::new(RowOrder::of(inputs, schema, rollup)?);
        let parts = parts_of(order.num_rows(), self.max_rows);
        let partitions = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let part = |(rows, partition)| Part { interval, order: Arc::clone(&order), rows, partition, partitions };
        Ok(parts.into_iter().zip(0..).map(part).collect())
    }

    fn write_part(&self, part: Part) -> Result<FinishedSegment> {
        let rollup = if self.plan.rollup { Rollup::On } else { Rollup::Off };
        part.write(&self.segment_dir, rollup, self.cancel)
    }
}

impl Part {
    pub(super) fn write(self, dir: &Path, rollup: Rollup, cancel: &Cancellation) -> Result<FinishedSegment> {
        let Self { interval, order, rows, partition, partitions } = self;
        let name = format!("{}_{}_{partition}.henge", interval.start().millis(), interval.end().millis());
        let path = dir.join(name);
        let options = WriteOptions::default().rolled_up(rollup);
        let summary = write_file(&path, cancel, |out| write_segment(&order, rows, &options, out))?;
        Ok(FinishedSegment { interval, partition, partitions, path, summary })
    }
}

/// Divides rows into parts of about the same size, of at most `max_rows`; at least one.
pub(super) fn parts_of(rows: usize, max_rows: usize) -> Vec<Range<usize>> {
    let parts = rows.div_ceil(max_rows.max(1)).max(1);
    let bound = |part: usize| (part as u128 * rows as u128 / parts as u128) as usize;
    (0..parts).map(|part| bound(part)..bound(part + 1)).collect()
}
