//! One output partition of a scan.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::BaselineMetrics;

use super::{ScanSource, SegmentScanExec};
use crate::exec::block_pruning::BlockPruning;
use crate::exec::computed::Evaluation;
use crate::exec::morsel::{Direction, Morsel};
use crate::exec::reader::{Reader, Rows};
use crate::exec::scan_work::ScanWork;
use crate::exec::selection::{ReadCodes, Selected};
use crate::segment::{Column, Segment, block_range};

/// Rows of the first batch, where later ones may be left out because of it.
const FEW_ROWS: usize = 64;

pub(super) struct ScanStream {
    source: Arc<ScanSource>,
    projection: Vec<usize>,
    schema: SchemaRef,
    work: Arc<ScanWork>,
    direction: Direction,
    batch_size: usize,
    /// So many rows are given out once they were gathered. Few at first where they may sharpen the filters: text is dear
    /// to make.
    enough: usize,
    /// Rows still to be given out.
    left: usize,
    current: Option<OpenSegment>,
    /// What is left of the current morsel, in the order of reading.
    blocks: VecDeque<usize>,
    /// Taken, but of another segment than the current one, whose rows go out first: they may sharpen the filters by
    /// which this one is skipped.
    waiting: Option<Morsel>,
    output: VecDeque<RecordBatch>,
    pruning: Option<BlockPruning>,
    /// What rows must fulfil, asked one after the other before the others' values are read.
    conditions: Vec<Evaluation>,
    ended: bool,
    codes: ReadCodes,
    rows: Vec<u32>,
    left_rows: Vec<u32>,
    metrics: BaselineMetrics,
}

/// The segment being read, and what was gathered from it and not given out.
struct OpenSegment {
    index: usize,
    readers: Vec<Reader>,
    /// For pruning, by output column; empty without.
    columns: Vec<Option<Column>>,
    num_rows: usize,
    /// Rows that the readers hold.
    gathered: usize,
}

impl ScanStream {
    pub(super) fn new(
        scan: &SegmentScanExec,
        work: Arc<ScanWork>,
        batch_size: usize,
        metrics: BaselineMetrics,
    ) -> Result<Self> {
        let skips_by = scan.condition.iter().chain(&scan.dynamic_filters);
        let mut conditions = Vec::new();
        for condition in skips_by.clone() {
            if let Some(computed) = scan.computed(condition, DataType::Boolean)? {
                conditions.push(Evaluation::new(computed, &scan.source.columns));
            }
        }
        let pruning = BlockPruning::new(&skips_by.cloned().collect::<Vec<_>>(), scan.schema());
        Ok(Self {
            source: Arc::clone(&scan.source),
            projection: scan.projection.clone(),
            schema: scan.schema(),
            work,
            direction: scan.direction,
            batch_size,
            enough: if scan.dynamic_filters.is_empty() { batch_size } else { FEW_ROWS.min(batch_size) },
            left: scan.fetch.unwrap_or(usize::MAX),
            current: None,
            blocks: VecDeque::new(),
            waiting: None,
            output: VecDeque::new(),
            pruning,
            conditions,
            ended: false,
            codes: ReadCodes::default(),
            rows: Vec::new(),
            left_rows: Vec::new(),
            metrics,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            if let Some(batch) = self.output.pop_front() {
                return Ok(Some(self.give_out(batch)));
            }
            if let Some(block) = self.blocks.pop_front() {
                self.read(block).await?;
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            self.take_morsel().await?;
            tokio::task::yield_now().await;
        }
    }

    fn give_out(&mut self, batch: RecordBatch) -> RecordBatch {
        let batch = if batch.num_rows() > self.left { batch.slice(0, self.left) } else { batch };
        self.left -= batch.num_rows();
        self.metrics.record_output(batch.num_rows());
        batch
    }

    async fn take_morsel(&mut self) -> Result<()> {
        let at = self.current.as_ref().map(|current| current.index);
        let morsel = match self.waiting.take() {
            Some(morsel) => Some(morsel),
            None => self.work.next(at)?,
        };
        let Some(morsel) = morsel else {
            self.ended = true;
            return self.flush();
        };
        if at != Some(morsel.segment) && self.current.is_some() {
            self.waiting = Some(morsel);
            self.flush()?;
            self.current = None;
            return Ok(());
        }
        if !self.is_wanted(&morsel).await? {
            self.work.skip(morsel.segment);
            return Ok(());
        }
        if self.current.is_none() {
            self.current =
                Some(OpenSegment::new(&self.source, &self.projection, morsel.segment, self.pruning.is_some())?);
            let segment: &dyn Segment = self.source.segments[morsel.segment].segment.as_ref();
            for condition in &mut self.conditions {
                condition.open(segment, &self.source.columns)?;
            }
        }
        self.blocks = morsel.blocks.collect();
        if self.direction == Direction::Backward {
            self.blocks.make_contiguous().reverse();
        }
        Ok(())
    }

    /// Whether any row of the morsel's segment may be wanted.
    async fn is_wanted(&mut self, morsel: &Morsel) -> Result<bool> {
        let visible = &self.source.segments[morsel.segment];
        if let (Some(pruning), Some(times)) = (&mut self.pruning, visible.segment.time_range())
            && !pruning.may_match_times(times)?
        {
            return Ok(false);
        }
        let bound =
            self.work.bound(morsel.segment, visible, self.source.predicate.as_ref(), &self.source.columns).await?;
        Ok(bound.at_most(visible.segment.num_rows()) > 0)
    }

    async fn read(&mut self, block: usize) -> Result<()> {
        self.work.check()?;
        let Some(current) = &mut self.current else { return Ok(()) };
        if let Some(pruning) = &mut self.pruning
            && pruning.may_match(&current.columns, block..block + 1)?.contains(&false)
        {
            return Ok(());
        }
        let visible = &self.source.segments[current.index];
        let bound =
            self.work.bound(current.index, visible, self.source.predicate.as_ref(), &self.source.columns).await?;
        let _timer = self.metrics.elapsed_compute().timer();
        let mut all = None;
        match bound.select(block, current.num_rows, &mut self.codes)? {
            Selected::Nothing => return Ok(()),
            Selected::All => all = Some(block_range(block, current.num_rows).len()),
            Selected::Some(bits) => Selected::rows_into(&bits, &mut self.rows),
        }
        for condition in &mut self.conditions {
            let rows = all.take().map_or(Rows::Some(&self.rows), Rows::All);
            condition.filter(block, rows, &mut self.left_rows)?;
            std::mem::swap(&mut self.rows, &mut self.left_rows);
        }
        let rows = all.map_or(Rows::Some(&self.rows), Rows::All);
        if rows.len() == 0 {
            return Ok(());
        }
        current.gathered += rows.len();
        for reader in &mut current.readers {
            reader.append(block, rows)?;
        }
        if current.gathered >= self.enough.min(self.left) {
            self.enough = (self.enough * 2).min(self.batch_size);
            current.flush(&self.schema, self.batch_size, &mut self.output)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.current {
            Some(current) => current.flush(&self.schema, self.batch_size, &mut self.output),
            None => Ok(()),
        }
    }
}

impl OpenSegment {
    fn new(source: &ScanSource, projection: &[usize], index: usize, prune: bool) -> Result<Self> {
        let segment: &dyn Segment = source.segments[index].segment.as_ref();
        let readers = projection.iter().map(|&column| Reader::open(segment, &source.columns, column));
        let readers = readers.collect::<Result<Vec<_>>>()?;
        let pruned_by = if prune { projection } else { &[] };
        let columns = pruned_by.iter().map(|&column| {
            let name = source.columns.column(column).map_or("", |column| column.name.as_str());
            Ok(segment.schema().index_of(name).map(|index| segment.column(index)).transpose()?)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(Self { index, readers, columns, num_rows: segment.num_rows(), gathered: 0 })
    }

    /// Makes batches of what was gathered.
    fn flush(&mut self, schema: &SchemaRef, batch_size: usize, output: &mut VecDeque<RecordBatch>) -> Result<()> {
        if self.gathered == 0 {
            return Ok(());
        }
        let columns = self.readers.iter_mut().zip(schema.fields()).map(|(reader, field)| reader.finish(field));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.gathered));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
        for start in (0..self.gathered).step_by(batch_size) {
            output.push_back(batch.slice(start, batch_size.min(self.gathered - start)));
        }
        self.gathered = 0;
        Ok(())
    }
}
