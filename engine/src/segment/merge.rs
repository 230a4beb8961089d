//! Merging segments: in which order the rows of several become the rows of one.
//!
//! The order is decided first, from times (and dimensions, with rollup) alone; the writer then goes through it once a
//! column. An input's rows come in ascending order, so one decoded block an input and column is enough.

mod fold;
mod gather;
mod key;
mod unify;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub(super) use fold::{Fold, fold_column};
pub(super) use gather::{Codes, Lists, NumberGather, gather_codes, gather_lists, output_blocks};
pub(super) use unify::Unified;

use super::Segment;
use crate::error::{Error, Result};
use crate::model::{ColumnSchema, ColumnType, SegmentSchema};
use key::KeyCursor;

/// Rows of a segment that are to be merged: sorted by `__time`; with rollup by `__time` and then by the dimensions in
/// the order of the schema, null first.
#[derive(Clone, Debug)]
pub struct MergeInput {
    pub segment: Arc<dyn Segment>,
    pub rows: Range<usize>,
}

/// Whether rows that agree in time and all dimensions become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollup {
    Off,
    On,
}

/// Decides which rows of which inputs make which row of the output, before any value is looked at.
///
/// Rows that agree in time (and dimensions) keep the order of the inputs, so a merge of merges is the merge of all.
pub struct RowOrder {
    schema: Arc<SegmentSchema>,
    inputs: Vec<Input>,
    /// Stretches of consecutive rows of one input, in order.
    runs: Vec<Run>,
    /// Rows of all inputs.
    merged_rows: usize,
    /// With rollup: at which merged row each output row begins. `None` when each merged row is an output row.
    groups: Option<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    input: u32,
    first_row: u32,
    /// Merged rows before this run.
    start: u32,
}

pub(super) struct Input {
    pub(super) segment: Arc<dyn Segment>,
    rows: Range<usize>,
    /// For each column of the output, the column of the input.
    columns: Vec<Option<usize>>,
}

impl RowOrder {
    /// Reads the times, and with rollup the dimensions, of all inputs. A column that an input lacks is null there.
    /// Fails when an input holds a column as another type, is not sorted, or a damaged block is met.
    pub fn of(inputs: Vec<MergeInput>, schema: &Arc<SegmentSchema>, rollup: Rollup) -> Result<Self> {
        let inputs = inputs.into_iter().map(|input| Input::new(input, schema)).collect::<Result<Vec<_>>>()?;
        let merged_rows = inputs.iter().map(|input| input.rows.len()).sum::<usize>();
        if u32::try_from(merged_rows).is_err() {
            return Err(Error::capacity_exceeded("more than 2^32 rows cannot be merged at once"));
        }
        let mut order = Self { schema: Arc::clone(schema), inputs, runs: Vec::new(), merged_rows, groups: None };
        match (rollup, &order.inputs[..]) {
            (Rollup::Off, [only]) => order.runs = vec![Run { input: 0, first_row: only.rows.start as u32, start: 0 }],
            _ => order.merge(rollup)?,
        }
        Ok(order)
    }

    /// Rows of the output.
    pub fn num_rows(&self) -> usize {
        self.groups.as_ref().map_or(self.merged_rows, Vec::len)
    }

    /// Rows of the inputs.
    pub fn num_input_rows(&self) -> usize {
        self.merged_rows
    }

    pub fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    pub(super) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Whether an output row may stand for several merged rows.
    pub(super) fn has_groups(&self) -> bool {
        self.groups.is_some()
    }

    fn merge(&mut self, rollup: Rollup) -> Result<()> {
        let mut cursors = key::cursors(&self.inputs, &self.schema, rollup)?;
        let mut heap = Heap::new(&cursors);
        let (mut last, mut groups, mut merged) = (Vec::new(), Vec::new(), 0u32);
        while let Some(top) = heap.top() {
            let cursor = &mut cursors[top];
            let key = cursor.key();
            match last.as_slice().cmp(key) {
                _ if merged == 0 => groups.push(merged),
                Ordering::Less => groups.push(merged),
                Ordering::Equal if rollup == Rollup::On => {}
                Ordering::Equal => groups.push(merged),
                Ordering::Greater => return Err(unsorted(&self.inputs[top], rollup)),
            }
            if last != key {
                last.clear();
                last.extend_from_slice(key);
            }
            let row = cursor.row();
            match self.runs.last() {
                Some(run) if run.input == top as u32 && run.first_row + (merged - run.start) == row => {}
                _ => self.runs.push(Run { input: top as u32, first_row: row, start: merged }),
            }
            merged += 1;
            cursor.advance()?;
            heap.settle(&cursors);
        }
        if groups.len() < self.merged_rows {
            self.groups = Some(groups);
        }
        Ok(())
    }

    /// Shows the input rows behind some merged rows, in order, as (input, rows).
    fn each_merged(&self, merged: Range<usize>, mut show: impl FnMut(usize, Range<usize>) -> Result<()>) -> Result<()> {
        let mut at = merged.start;
        let mut run = self.runs.partition_point(|run| run.start as usize <= at).saturating_sub(1);
        while at < merged.end {
            let Run { input, first_row, start } = self.runs[run];
            let end = self.runs.get(run + 1).map_or(self.merged_rows, |next| next.start as usize).min(merged.end);
            let row = first_row as usize + (at - start as usize);
            show(input as usize, row..row + (end - at))?;
            at = end;
            run += 1;
        }
        Ok(())
    }

    /// Shows the first input row behind each of some output rows, in order, as (input, rows).
    pub(super) fn each_first(
        &self,
        rows: Range<usize>,
        mut show: impl FnMut(usize, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let Some(groups) = &self.groups else { return self.each_merged(rows, show) };
        if rows.is_empty() {
            return Ok(());
        }
        let starts = &groups[rows];
        let mut run = self.runs.partition_point(|run| run.start <= starts[0]) - 1;
        for &start in starts {
            while self.runs.get(run + 1).is_some_and(|next| next.start <= start) {
                run += 1;
            }
            let Run { input, first_row, start: run_start } = self.runs[run];
            let row = (first_row + (start - run_start)) as usize;
            show(input as usize, row..row + 1)?;
        }
        Ok(())
    }

    /// Shows every input row behind some output rows, in order, as (output row, input, input row).
    pub(super) fn each_member(
        &self,
        rows: Range<usize>,
        mut show: impl FnMut(usize, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let bound = |row: usize| match &self.groups {
            Some(groups) => groups.get(row).map_or(self.merged_rows, |&start| start as usize),
            None => row,
        };
        let mut output = rows.start;
        let mut merged = bound(output);
        let mut next = bound(output + 1);
        self.each_merged(merged..bound(rows.end), |input, input_rows| {
            for row in input_rows {
                while merged >= next {
                    output += 1;
                    next = bound(output + 1);
                }
                show(output, input, row)?;
                merged += 1;
            }
            Ok(())
        })
    }
}

impl fmt::Debug for RowOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowOrder({} rows from {} rows of {} inputs)", self.num_rows(), self.merged_rows, self.inputs.len())
    }
}

fn unsorted(input: &Input, rollup: Rollup) -> Error {
    let by = match rollup {
        Rollup::Off => "`__time`",
        Rollup::On => "`__time` and its dimensions",
    };
    let rows = format!("{} to {}", input.rows.start, input.rows.end);
    Error::runtime_failure(format!("a segment to be merged is not sorted by {by}")).context("rows", rows)
}

impl Input {
    fn new(input: MergeInput, schema: &SegmentSchema) -> Result<Self> {
        let MergeInput { segment, rows } = input;
        if rows.start > rows.end || rows.end > segment.num_rows() {
            return Err(Error::defensive("rows to merge that the segment does not have"));
        }
        let columns = schema.columns().iter().map(|wanted| find_column(segment.schema(), wanted));
        let columns = columns.collect::<Result<_>>()?;
        Ok(Self { segment, rows, columns })
    }

    /// The column of this input that becomes column `index` of the output.
    pub(super) fn column(&self, index: usize) -> Result<Option<super::Column>> {
        self.columns[index].map(|column| self.segment.column(column)).transpose()
    }
}

fn find_column(schema: &SegmentSchema, wanted: &ColumnSchema) -> Result<Option<usize>> {
    let Some(index) = schema.index_of(&wanted.name) else { return Ok(None) };
    let found = &schema.columns()[index];
    // Single values become lists of one.
    let fits = found.column_type == wanted.column_type && (wanted.multi_value || !found.multi_value);
    if fits {
        return Ok(Some(index));
    }
    Err(Error::invalid_input(format!(
        "column `{}` is {} in one segment and {} in another: they cannot be merged",
        wanted.name,
        type_name(found),
        type_name(wanted)
    )))
}

fn type_name(column: &ColumnSchema) -> &'static str {
    match column.column_type {
        ColumnType::String if column.multi_value => "multi-value STRING",
        ColumnType::String => "STRING",
        ColumnType::Long => "LONG",
        ColumnType::Float => "FLOAT",
        ColumnType::Double => "DOUBLE",
    }
}

/// Cursors by their keys, the least on top; of equal ones the earlier input.
struct Heap {
    cursors: Vec<usize>,
}

impl Heap {
    fn new(cursors: &[KeyCursor]) -> Self {
        let mut heap = Self { cursors: (0..cursors.len()).filter(|&i| !cursors[i].is_done()).collect() };
        // A sorted list is a heap.
        heap.cursors.sort_by(|&a, &b| cursors[a].key().cmp(cursors[b].key()));
        heap
    }

    fn top(&self) -> Option<usize> {
        self.cursors.first().copied()
    }

    /// Puts things in order again after the top cursor has moved.
    fn settle(&mut self, cursors: &[KeyCursor]) {
        if cursors[self.cursors[0]].is_done() {
            self.cursors.swap_remove(0);
        }
        let mut at = 0;
        loop {
            let (left, right) = (at * 2 + 1, at * 2 + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.cursors.len() && before(cursors, self.cursors[child], self.cursors[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.cursors.swap(at, least);
            at = least;
        }
    }
}

fn before(cursors: &[KeyCursor], a: usize, b: usize) -> bool {
    cursors[a].key().cmp(cursors[b].key()).then(a.cmp(&b)) == Ordering::Less
}
