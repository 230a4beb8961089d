//! One output partition of a partial aggregation: folds segment after segment, and gives out the states of each.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::BaselineMetrics;

use super::key::CodeSpace;
use super::table::Table;
use super::{Fold, GroupKey};
use crate::exec::ScanSource;
use crate::exec::computed::Computed;
use crate::exec::morsel::Morsel;
use crate::exec::reader::Values;
use crate::exec::scan_work::ScanWork;
use crate::exec::selection::Bound;
use crate::segment::Segment;

/// What is aggregated, and how.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) source: Arc<ScanSource>,
    pub(super) keys: Vec<GroupKey>,
    pub(super) folds: Vec<Fold>,
    /// What selected rows must fulfil besides.
    pub(super) condition: Option<Computed>,
    /// Keys, then the states of each fold, or its result.
    pub(super) schema: SchemaRef,
    /// How many states each fold has. Empty where results are given out.
    pub(super) state_counts: Vec<usize>,
    pub(super) batch_size: usize,
}

/// One segment's groups, and what decoding them remembers.
struct SegmentTable {
    segment: usize,
    table: Table,
    decoders: Vec<Values>,
}

pub(super) struct AggregateStream {
    plan: Arc<Plan>,
    work: Arc<ScanWork>,
    table: Option<SegmentTable>,
    /// What is left of the current morsel.
    blocks: VecDeque<usize>,
    /// Taken, but of another segment than the table's, which has to be given out first.
    waiting: Option<Morsel>,
    giving: Option<Giving>,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
    ended: bool,
}

/// Groups being given out, and what comes after.
struct Giving {
    groups: Vec<u32>,
    given: usize,
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    NextSegment,
    GoOn,
    GoOnHashing,
}

impl AggregateStream {
    pub(super) fn new(
        plan: Arc<Plan>,
        work: Arc<ScanWork>,
        reservation: MemoryReservation,
        metrics: BaselineMetrics,
    ) -> Self {
        Self {
            plan,
            work,
            table: None,
            blocks: VecDeque::new(),
            waiting: None,
            giving: None,
            reservation,
            metrics,
            ended: false,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.give_out()? {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if let Some(block) = self.blocks.pop_front() {
                self.fold(block).await?;
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            self.take_morsel().await?;
            tokio::task::yield_now().await;
        }
    }

    async fn take_morsel(&mut self) -> Result<()> {
        let at = self.table.as_ref().map(|table| table.segment);
        let morsel = match self.waiting.take() {
            Some(morsel) => Some(morsel),
            None => self.work.next(at)?,
        };
        let Some(morsel) = morsel else {
            self.ended = true;
            self.start_giving(Then::NextSegment);
            return Ok(());
        };
        if at.is_some_and(|at| at != morsel.segment) {
            self.waiting = Some(morsel);
            self.start_giving(Then::NextSegment);
            return Ok(());
        }
        let bound = bound(&self.plan.source, &self.work, morsel.segment).await?;
        let segment = &self.plan.source.segments[morsel.segment].segment;
        let expected_rows = bound.at_most(segment.num_rows());
        if expected_rows == 0 {
            self.work.skip(morsel.segment);
            return Ok(());
        }
        if self.table.is_none() {
            let spaces = self.plan.keys.iter().map(|_| CodeSpace::Segment).collect();
            let mut table = Table::new(&self.plan, spaces, &[], expected_rows)?;
            table.open(&self.plan, morsel.segment, 0)?;
            if self.reservation.try_resize(table.first_bytes()).is_err() {
                table.use_hashing();
            }
            self.table = Some(SegmentTable { segment: morsel.segment, table, decoders: Vec::new() });
        }
        self.blocks = morsel.blocks.collect();
        Ok(())
    }

    async fn fold(&mut self, block: usize) -> Result<()> {
        self.work.check()?;
        let Some(SegmentTable { segment, table, .. }) = &mut self.table else { return Ok(()) };
        let bound = bound(&self.plan.source, &self.work, *segment).await?;
        let timer = self.metrics.elapsed_compute().timer();
        let segment: &dyn Segment = self.plan.source.segments[*segment].segment.as_ref();
        let folded = table.fold(bound, segment, block)?;
        drop(timer);
        if !folded {
            self.blocks.push_front(block);
            self.start_giving(Then::GoOnHashing);
            return Ok(());
        }
        // What does not fit is given out early: the final aggregation combines groups that come twice.
        let fits = self.reservation.try_resize(table.memory_bytes()).is_ok();
        if !fits {
            self.start_giving(Then::GoOnHashing);
        } else if table.is_full() {
            self.start_giving(Then::GoOn);
        }
        Ok(())
    }

    fn start_giving(&mut self, then: Then) {
        let Some(SegmentTable { table, .. }) = &self.table else { return };
        self.giving = Some(Giving { groups: table.occupied(), given: 0, then });
    }

    /// The next batch of states, if some are being given out.
    fn give_out(&mut self) -> Result<Option<RecordBatch>> {
        let (Some(giving), Some(SegmentTable { table, decoders, .. })) = (&mut self.giving, &mut self.table) else {
            return Ok(None);
        };
        if giving.given < giving.groups.len() {
            let end = (giving.given + self.plan.batch_size).min(giving.groups.len());
            let batch = table.states(&self.plan, &giving.groups[giving.given..end], decoders)?;
            giving.given = end;
            return Ok(Some(batch));
        }
        match giving.then {
            Then::NextSegment => self.table = None,
            Then::GoOn => table.reset(),
            Then::GoOnHashing => {
                table.reset();
                table.use_hashing();
            }
        }
        self.giving = None;
        self.reservation.free();
        Ok(None)
    }
}

/// The predicate bound to a segment.
pub(super) async fn bound<'a>(source: &ScanSource, work: &'a ScanWork, segment: usize) -> Result<&'a Bound> {
    work.bound(segment, &source.segments[segment], source.predicate.as_ref(), &source.columns).await
}
