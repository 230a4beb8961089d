//! Groups of rows and their states: the rows of one segment after another are folded in, and other tables merged.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::Field;
use datafusion::error::Result;

use super::GroupKey;
use super::accumulator::{Accumulator, Adopted};
use super::fold::Argument;
use super::grouping::Grouping;
use super::input::{Input, InputValues};
use super::key::CodeSpace;
use super::loops::{self, Groups};
use super::stream::Plan;
use crate::exec::computed::{Computed, Evaluation};
use crate::exec::ordinals::Numbering;
use crate::exec::reader::{Reader, Rows, Values};
use crate::exec::selection::{Bound, ReadCodes, Selected};
use crate::segment::{Segment, block_range};

/// A segment's own codes are used if they make at most this many groups, and there are so many rows for each.
const MOST_LOCAL_GROUPS: usize = 4096;
const ROWS_A_LOCAL_GROUP: usize = 8;

/// A guess of how many different values a function of time has in a segment.
const TIMES_IN_A_SEGMENT: usize = 24;

/// What an input is of: an argument, and a filter.
type Read<'a> = (Option<&'a Argument>, Option<&'a Computed>);

#[derive(Debug)]
pub(super) struct Table {
    grouping: Grouping,
    inputs: Vec<Input>,
    accumulators: Vec<Accumulator>,
    /// What selected rows must fulfil besides.
    condition: Option<Evaluation>,
    read: ReadCodes,
    rows: Vec<u32>,
    left: Vec<u32>,
    /// Whether it has seen a segment at all.
    pub(super) is_open: bool,
}

impl Table {
    /// `spaces` says for each key what its codes are; `numberings` has the ordinals of the columns whose distinct values
    /// are counted; `expected_rows` is how many rows will come at most.
    pub(super) fn new(
        plan: &Plan,
        spaces: Vec<CodeSpace>,
        numberings: &[(usize, Numbering)],
        expected_rows: usize,
    ) -> Result<Self> {
        Self::over(plan, &plan.keys, spaces, numberings, expected_rows)
    }

    fn over(
        plan: &Plan,
        keys: &[GroupKey],
        spaces: Vec<CodeSpace>,
        numberings: &[(usize, Numbering)],
        expected_rows: usize,
    ) -> Result<Self> {
        let columns = &plan.source.columns;
        let mut inputs: Vec<(Read<'_>, Input)> = Vec::new();
        let mut accumulators = Vec::with_capacity(plan.folds.len());
        for fold in &plan.folds {
            let read = (fold.argument.as_ref(), fold.filter.as_ref());
            let numbering = fold.column().and_then(|column| numberings.iter().find(|(known, _)| *known == column));
            let numbering = numbering.map(|(_, numbering)| numbering);
            let at = match inputs.iter().position(|(known, _)| *known == read) {
                _ if read == (None, None) => None,
                Some(at) => Some(at),
                None => {
                    inputs.push((read, Input::new(read.0, read.1, columns, numbering.cloned())));
                    Some(inputs.len() - 1)
                }
            };
            accumulators.push(Accumulator::new(fold.kind, at, fold.input_type(columns), numbering)?);
        }
        Ok(Self {
            inputs: inputs.into_iter().map(|(_, input)| input).collect(),
            accumulators,
            grouping: Grouping::new(keys, spaces, columns, expected_rows)?,
            condition: plan.condition.clone().map(|condition| Evaluation::new(condition, columns)),
            read: ReadCodes::default(),
            rows: Vec::new(),
            left: Vec::new(),
            is_open: false,
        })
    }

    /// Goes on to segment `index` of the plan, which is at `place` of those that have ordinals.
    pub(super) fn open(&mut self, plan: &Plan, index: usize, place: usize) -> Result<()> {
        let segment: &dyn Segment = plan.source.segments[index].segment.as_ref();
        let columns = &plan.source.columns;
        self.is_open = true;
        if let Some(condition) = &mut self.condition {
            condition.open(segment, columns)?;
        }
        for input in &mut self.inputs {
            input.open(segment, place, columns)?;
        }
        for accumulator in &mut self.accumulators {
            accumulator.open(&self.inputs, segment.num_rows(), &self.grouping.rows)?;
        }
        self.grouping.open(segment, place, columns)
    }

    fn group_bytes(&self) -> usize {
        self.accumulators.iter().map(Accumulator::group_bytes).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.grouping.memory_bytes() + self.grouping.num_groups() * self.group_bytes()
    }

    /// Bytes that it takes with the first rows.
    pub(super) fn first_bytes(&self) -> usize {
        self.grouping.first_groups() * (8 + self.group_bytes())
    }

    /// Gives up arrays for what grows with the groups that occur. Only without rows.
    pub(super) fn use_hashing(&mut self) {
        self.grouping.use_hashing();
    }

    /// Whether it is so large that its groups had better be given out.
    pub(super) fn is_full(&self) -> bool {
        self.grouping.is_full()
    }

    pub(super) fn reset(&mut self) {
        self.grouping.reset();
        self.accumulators.iter_mut().for_each(Accumulator::reset);
    }

    /// Folds the selected rows of a block. False, and nothing done, if there are too many groups for arrays.
    pub(super) fn fold(&mut self, bound: &Bound, segment: &dyn Segment, block: usize) -> Result<bool> {
        let num_rows = segment.num_rows();
        let len = block_range(block, num_rows).len();
        let rows = match bound.select(block, num_rows, &mut self.read)? {
            Selected::Nothing => return Ok(true),
            Selected::All => {
                if self.condition.is_none() && self.fold_summary(block, len)? {
                    return Ok(true);
                }
                Rows::All(len)
            }
            Selected::Some(bits) => {
                if self.fold_marked(bits.as_slice(), block, len)? {
                    return Ok(true);
                }
                Selected::rows_into(&bits, &mut self.rows);
                Rows::Some(&self.rows)
            }
        };
        let rows = match &mut self.condition {
            None => rows,
            Some(condition) => {
                condition.filter(block, rows, &mut self.left)?;
                if self.left.is_empty() {
                    return Ok(true);
                }
                Rows::Some(&self.left)
            }
        };
        if !self.grouping.load(block, rows, &self.read)? {
            return Ok(false);
        }
        for input in &mut self.inputs {
            input.load(block, rows)?;
        }
        self.add_rows(block)?;
        Ok(true)
    }

    /// Counts and sums the rows of a block whose bit is set, if that is all that is wanted of one group: then no row needs to
    /// be picked out. False, and nothing done, if there is more to do.
    fn fold_marked(&mut self, bits: &[u64], block: usize, len: usize) -> Result<bool> {
        let Self { grouping, inputs, accumulators, condition, .. } = self;
        let fits = condition.is_none()
            && grouping.has_no_keys()
            && accumulators.iter().all(|accumulator| accumulator.takes_marked(inputs));
        if !fits {
            return Ok(false);
        }
        for input in inputs.iter_mut() {
            input.load(block, Rows::All(len))?;
        }
        grouping.count_in_one(bits.iter().map(|word| u64::from(word.count_ones())).sum());
        for accumulator in accumulators {
            accumulator.resize(1);
            accumulator.add_marked(inputs, bits);
        }
        Ok(true)
    }

    /// Adds the rows that were loaded to the states of their groups.
    fn add_rows(&mut self, block: usize) -> Result<()> {
        let Self { grouping, inputs, accumulators, .. } = self;
        let num_groups = grouping.num_groups();
        accumulators.iter_mut().for_each(|accumulator| accumulator.resize(num_groups));
        let summed = sum_while_counting(grouping, inputs, accumulators, block)?;
        if summed.is_none() {
            grouping.count(loops::count);
        }
        for (index, accumulator) in accumulators.iter_mut().enumerate() {
            if summed != Some(index) {
                accumulator.add(inputs, grouping.groups());
            }
        }
        Ok(())
    }

    /// Folds a whole block of one group by its statistics, without reading it. False, and nothing done, where they do
    /// not tell enough.
    fn fold_summary(&mut self, block: usize, len: usize) -> Result<bool> {
        if !self.grouping.may_be_one_group() || self.accumulators.iter().any(Accumulator::needs_rows) {
            return Ok(false);
        }
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

    /// A table for one segment, in which its own codes stand for its values; `None` where they make so many groups for
    /// `rows` rows that nothing would be gained. What it holds is adopted by this table.
    pub(super) fn of_segment(plan: &Plan, index: usize, rows: usize) -> Result<Option<Self>> {
        let segment: &dyn Segment = plan.source.segments[index].segment.as_ref();
        let mut groups = 1_usize;
        for key in &plan.keys {
            groups = groups.saturating_mul(match key {
                GroupKey::Column(column) => dictionary_size(plan, segment, *column)?,
                GroupKey::Derived(computed) => match computed.columns.as_slice() {
                    [column] => dictionary_size(plan, segment, *column)?,
                    _ => usize::MAX,
                },
                GroupKey::Time(key) if key.monotone => TIMES_IN_A_SEGMENT,
                GroupKey::Time(_) => usize::MAX,
            });
        }
        let counts_distinct = plan.folds.iter().any(|fold| fold.kind.is_of_distinct());
        if counts_distinct || groups > MOST_LOCAL_GROUPS || groups * ROWS_A_LOCAL_GROUP > rows {
            return Ok(None);
        }
        let keys = plan.keys.iter().map(GroupKey::of_segment).collect::<Vec<_>>();
        let spaces = keys.iter().map(|_| CodeSpace::Segment).collect();
        let mut table = Self::over(plan, &keys, spaces, &[], rows)?;
        table.open(plan, index, 0)?;
        Ok(Some(table))
    }

    /// Takes another table's groups and states over; `place` as in [`Grouping::adopt`].
    pub(super) fn adopt(&mut self, other: &Self, place: Option<usize>) {
        self.is_open |= other.is_open;
        if place.is_some() && other.grouping.rows.iter().all(|rows| *rows == 0) {
            return;
        }
        let before = self.grouping.rows.clone();
        let numbers = self.grouping.adopt(&other.grouping, place);
        let num_groups = self.grouping.num_groups();
        let rows = Adopted { before: &before, others: &other.grouping.rows, num_groups };
        for (accumulator, other) in self.accumulators.iter_mut().zip(&other.accumulators) {
            accumulator.resize(num_groups);
            accumulator.adopt(other, &numbers, rows);
        }
    }

    /// Makes every state as long as there are groups, so that results can be had also where no row came.
    pub(super) fn complete(&mut self) {
        let num_groups = self.grouping.num_groups();
        self.grouping.rows.resize(num_groups, 0);
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.resize(num_groups));
    }

    pub(super) fn num_groups(&self) -> usize {
        self.grouping.num_groups()
    }

    /// The groups that have rows.
    pub(super) fn occupied(&self) -> Vec<u32> {
        self.grouping.occupied()
    }

    /// The groups to give out among `range`: those that have rows, and the only one of a query without keys.
    pub(super) fn groups_in(&self, range: Range<usize>) -> Vec<u32> {
        match self.grouping.has_no_keys() {
            true => range.map(|group| group as u32).collect(),
            false => self.grouping.occupied_in(range),
        }
    }

    /// What some groups are ordered by, if that is the result of this fold. `None` as in [`Accumulator::order_keys`].
    pub(super) fn order_keys(&self, fold: usize, groups: &[u32]) -> Option<Vec<i64>> {
        self.accumulators.get(fold)?.order_keys(groups, &self.grouping.rows)
    }

    /// Keys and states of some groups.
    pub(super) fn states(&self, plan: &Plan, groups: &[u32], decoders: &mut Vec<Values>) -> Result<RecordBatch> {
        let fields = plan.schema.fields().iter().map(AsRef::as_ref).collect::<Vec<&Field>>();
        let (key_fields, mut state_fields) = fields.split_at(plan.keys.len());
        let mut columns = self.grouping.decode(groups, key_fields, decoders)?;
        for (accumulator, &count) in self.accumulators.iter().zip(&plan.state_counts) {
            let (these, rest) = state_fields.split_at(count);
            columns.extend(accumulator.states(groups, &self.grouping.rows, these)?);
            state_fields = rest;
        }
        batch(plan, columns, groups.len())
    }

    /// Keys and results of some groups.
    pub(super) fn results(&self, plan: &Plan, groups: &[u32], decoders: &mut Vec<Values>) -> Result<RecordBatch> {
        let fields = plan.schema.fields().iter().map(AsRef::as_ref).collect::<Vec<&Field>>();
        let (key_fields, result_fields) = fields.split_at(plan.keys.len());
        let mut columns = self.grouping.decode(groups, key_fields, decoders)?;
        for (accumulator, field) in self.accumulators.iter().zip(result_fields) {
            columns.push(accumulator.results(groups, &self.grouping.rows, field)?);
        }
        batch(plan, columns, groups.len())
    }
}

/// Counts rows and sums the values of one accumulator in one pass, where that can be. Says which.
fn sum_while_counting(
    grouping: &mut Grouping,
    inputs: &[Input],
    accumulators: &mut [Accumulator],
    block: usize,
) -> Result<Option<usize>> {
    let Groups::Each(groups) = grouping.groups() else { return Ok(None) };
    let (num_groups, num_rows) = (grouping.num_groups(), groups.len());
    for (index, accumulator) in accumulators.iter_mut().enumerate() {
        let Some((input, sums)) = accumulator.plain_sums() else { continue };
        let Some((least, greatest)) = inputs[input].long_ends(block)? else { continue };
        let InputValues::Long(values) = inputs[input].values() else { continue };
        if loops::fits_one_word(num_groups, num_rows, least, greatest) {
            grouping.count(|counts, groups| {
                if let Groups::Each(groups) = groups {
                    loops::count_and_sum(counts, sums, groups, values, least);
                }
            });
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// How many codes the segment has for a string column. Columns of numbers have no codes.
fn dictionary_size(plan: &Plan, segment: &dyn Segment, column: usize) -> Result<usize> {
    Ok(match Reader::open(segment, &plan.source.columns, column)? {
        Reader::Missing(_) => 1,
        Reader::Strings(reader) => reader.column.dictionary().cardinality(),
        _ => usize::MAX,
    })
}

fn batch(plan: &Plan, columns: Vec<ArrayRef>, num_rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options)?)
}
