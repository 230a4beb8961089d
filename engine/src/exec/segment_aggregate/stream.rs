//! One output partition of a partial aggregation: folds segment after segment, and gives out the states of each.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, SchemaRef};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::BaselineMetrics;

use super::accumulator::{Accumulator, Input};
use super::grouping::Grouping;
use super::{Fold, GroupKey};
use crate::exec::ScanSource;
use crate::exec::morsel::Morsel;
use crate::exec::reader::{Reader, Rows};
use crate::exec::scan_work::ScanWork;
use crate::exec::selection::{Bound, Selected};
use crate::segment::{Segment, block_range};

/// What is aggregated, and how.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) source: Arc<ScanSource>,
    pub(super) keys: Vec<GroupKey>,
    pub(super) folds: Vec<Fold>,
    /// Keys, then the states of each fold.
    pub(super) schema: SchemaRef,
    /// How many states each fold has.
    pub(super) state_counts: Vec<usize>,
    pub(super) batch_size: usize,
}

pub(super) struct AggregateStream {
    plan: Arc<Plan>,
    work: Arc<ScanWork>,
    table: Option<Table>,
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
        let Some(morsel) = self.waiting.take().or_else(|| self.work.queue.next(at)) else {
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
            self.work.queue.skip(morsel.segment);
            return Ok(());
        }
        if self.table.is_none() {
            let mut table = Table::open(&self.plan, morsel.segment, expected_rows)?;
            let arrays = table.grouping.first_groups() * table.group_bytes();
            if self.reservation.try_resize(arrays).is_err() {
                table.grouping.use_hashing();
            }
            self.table = Some(table);
        }
        self.blocks = morsel.blocks.collect();
        Ok(())
    }

    async fn fold(&mut self, block: usize) -> Result<()> {
        let Some(table) = &mut self.table else { return Ok(()) };
        let bound = bound(&self.plan.source, &self.work, table.segment).await?;
        let timer = self.metrics.elapsed_compute().timer();
        let segment: &dyn Segment = self.plan.source.segments[table.segment].segment.as_ref();
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
        } else if table.grouping.is_full() {
            self.start_giving(Then::GoOn);
        }
        Ok(())
    }

    fn start_giving(&mut self, then: Then) {
        let Some(table) = &self.table else { return };
        self.giving = Some(Giving { groups: table.grouping.occupied(), given: 0, then });
    }

    /// The next batch of states, if some are being given out.
    fn give_out(&mut self) -> Result<Option<RecordBatch>> {
        let (Some(giving), Some(table)) = (&mut self.giving, &mut self.table) else { return Ok(None) };
        if giving.given < giving.groups.len() {
            let end = (giving.given + self.plan.batch_size).min(giving.groups.len());
            let batch = table.states(&self.plan, &giving.groups[giving.given..end])?;
            giving.given = end;
            return Ok(Some(batch));
        }
        match giving.then {
            Then::NextSegment => self.table = None,
            Then::GoOn => table.reset(),
            Then::GoOnHashing => {
                table.reset();
                table.grouping.use_hashing();
            }
        }
        self.giving = None;
        self.reservation.free();
        Ok(None)
    }
}

async fn bound<'a>(source: &ScanSource, work: &'a ScanWork, segment: usize) -> Result<&'a Bound> {
    work.bound(segment, &source.segments[segment], source.predicate.as_ref(), &source.columns).await
}

/// The groups of one segment and their states.
struct Table {
    segment: usize,
    grouping: Grouping,
    inputs: Vec<Input>,
    accumulators: Vec<Accumulator>,
    codes: Vec<u32>,
    rows: Vec<u32>,
}

impl Table {
    fn open(plan: &Plan, index: usize, expected_rows: usize) -> Result<Self> {
        let segment: &dyn Segment = plan.source.segments[index].segment.as_ref();
        let columns = &plan.source.columns;
        let mut read = plan.folds.iter().filter_map(Fold::column).collect::<Vec<_>>();
        read.sort_unstable();
        read.dedup();
        let inputs = read.iter().map(|&column| Ok(Input::new(Reader::open(segment, columns, column)?)));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let accumulators = plan.folds.iter().map(|fold| {
            let at = fold.column().and_then(|column| read.binary_search(&column).ok());
            Accumulator::new(*fold, at.map(|at| (at, &inputs[at])), segment)
        });
        let accumulators = accumulators.collect::<Result<Vec<_>>>()?;
        let grouping = Grouping::new(&plan.keys, segment, columns, expected_rows)?;
        Ok(Self { segment: index, grouping, inputs, accumulators, codes: Vec::new(), rows: Vec::new() })
    }

    /// Bytes that a group takes.
    fn group_bytes(&self) -> usize {
        8 + self.accumulators.iter().map(Accumulator::group_bytes).sum::<usize>()
    }

    fn memory_bytes(&self) -> usize {
        self.grouping.memory_bytes() + self.grouping.num_groups() * (self.group_bytes() - 8)
    }

    fn reset(&mut self) {
        self.grouping.reset();
        self.accumulators.iter_mut().for_each(Accumulator::reset);
    }

    /// Folds the selected rows of a block. False, and nothing done, if the groups must be given out first.
    fn fold(&mut self, bound: &Bound, segment: &dyn Segment, block: usize) -> Result<bool> {
        let num_rows = segment.num_rows();
        let len = block_range(block, num_rows).len();
        let rows = match bound.select(block, num_rows, &mut self.codes)? {
            Selected::Nothing => return Ok(true),
            Selected::All => {
                if self.fold_summary(block, len)? {
                    return Ok(true);
                }
                Rows::All(len)
            }
            Selected::Some(bits) => {
                Selected::rows_into(&bits, &mut self.rows);
                Rows::Some(&self.rows)
            }
        };
        if !self.grouping.load(block, rows)? {
            return Ok(false);
        }
        for input in &mut self.inputs {
            input.load(block, rows)?;
        }
        let num_groups = self.grouping.num_groups();
        for accumulator in &mut self.accumulators {
            accumulator.resize(num_groups);
            accumulator.add(&self.inputs, self.grouping.groups());
        }
        Ok(true)
    }

    /// Folds a whole block of one group by its statistics, without reading it. False, and nothing done, where they do
    /// not tell enough.
    fn fold_summary(&mut self, block: usize, len: usize) -> Result<bool> {
        let mut summaries = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let Some(summary) = input.summary(block)? else { return Ok(false) };
            summaries.push(summary);
        }
        let Some(group) = self.grouping.load_block(block, len)? else { return Ok(false) };
        let num_groups = self.grouping.num_groups();
        for accumulator in &mut self.accumulators {
            accumulator.resize(num_groups);
            accumulator.add_block(&summaries, group as usize, len as u64);
        }
        Ok(true)
    }

    /// Keys and states of some groups.
    fn states(&mut self, plan: &Plan, groups: &[u32]) -> Result<RecordBatch> {
        let fields = plan.schema.fields().iter().map(AsRef::as_ref).collect::<Vec<&Field>>();
        let (key_fields, mut state_fields) = fields.split_at(plan.keys.len());
        let mut columns = self.grouping.decode(groups, key_fields)?;
        for (accumulator, &count) in self.accumulators.iter().zip(&plan.state_counts) {
            let (these, rest) = state_fields.split_at(count);
            columns.extend(accumulator.states(groups, &self.grouping.rows, these)?);
            state_fields = rest;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options)?)
    }
}
