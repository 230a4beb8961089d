//! One output partition of a scan.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::BaselineMetrics;

use super::{ScanSource, SegmentScanExec};
use crate::exec::block_pruning::BlockPruning;
use crate::exec::morsel::{Direction, Morsel};
use crate::exec::reader::{Reader, Rows};
use crate::exec::scan_work::ScanWork;
use crate::exec::selection::Selected;
use crate::segment::{Column, Segment, block_range};

pub(super) struct ScanStream {
    source: Arc<ScanSource>,
    projection: Vec<usize>,
    schema: SchemaRef,
    work: Arc<ScanWork>,
    direction: Direction,
    batch_size: usize,
    /// Rows still to be given out.
    left: usize,
    current: Option<OpenSegment>,
    output: VecDeque<RecordBatch>,
    pruning: Option<BlockPruning>,
    ended: bool,
    codes: Vec<u32>,
    rows: Vec<u32>,
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
    ) -> Self {
        Self {
            source: Arc::clone(&scan.source),
            projection: scan.projection.clone(),
            schema: scan.schema(),
            work,
            direction: scan.direction,
            batch_size,
            left: scan.fetch.unwrap_or(usize::MAX),
            current: None,
            output: VecDeque::new(),
            pruning: BlockPruning::new(&scan.dynamic_filters, scan.schema()),
            ended: false,
            codes: Vec::new(),
            rows: Vec::new(),
            metrics,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            if let Some(batch) = self.output.pop_front() {
                return Ok(Some(self.give_out(batch)));
            }
            if self.ended {
                return Ok(None);
            }
            let at = self.current.as_ref().map(|current| current.index);
            match self.work.queue.next(at) {
                Some(morsel) => {
                    if at != Some(morsel.segment) {
                        self.flush()?;
                        self.current = Some(OpenSegment::new(morsel.segment));
                    }
                    self.read(&morsel).await?;
                    tokio::task::yield_now().await;
                }
                None => {
                    self.flush()?;
                    self.ended = true;
                }
            }
        }
    }

    fn give_out(&mut self, batch: RecordBatch) -> RecordBatch {
        let batch = if batch.num_rows() > self.left { batch.slice(0, self.left) } else { batch };
        self.left -= batch.num_rows();
        self.metrics.record_output(batch.num_rows());
        batch
    }

    /// Opens the columns of the current segment; not before it is known that rows of it are wanted.
    fn open_columns(source: &ScanSource, projection: &[usize], current: &mut OpenSegment, prune: bool) -> Result<()> {
        let segment: &dyn Segment = source.segments[current.index].segment.as_ref();
        let readers = projection.iter().map(|&column| Reader::open(segment, &source.columns, column));
        current.readers = readers.collect::<Result<Vec<_>>>()?;
        if prune {
            for &column in projection {
                let name = source.columns.column(column).map_or("", |column| column.name.as_str());
                let index = segment.schema().index_of(name);
                current.columns.push(index.map(|index| segment.column(index)).transpose()?);
            }
        }
        current.num_rows = segment.num_rows();
        Ok(())
    }

    async fn read(&mut self, morsel: &Morsel) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let visible = &self.source.segments[morsel.segment];
        if let (Some(pruning), Some(times)) = (&mut self.pruning, visible.segment.time_range())
            && !pruning.may_match_times(times)?
        {
            self.work.queue.skip(morsel.segment);
            return Ok(());
        }
        let bound =
            self.work.bound(morsel.segment, visible, self.source.predicate.as_ref(), &self.source.columns).await?;
        let _timer = self.metrics.elapsed_compute().timer();
        if bound.at_most(visible.segment.num_rows()) == 0 {
            self.work.queue.skip(morsel.segment);
            return Ok(());
        }
        if current.num_rows == 0 {
            Self::open_columns(&self.source, &self.projection, current, self.pruning.is_some())?;
        }
        let wanted = match &mut self.pruning {
            Some(pruning) => pruning.may_match(&current.columns, morsel.blocks.clone())?,
            None => vec![true; morsel.blocks.len()],
        };
        let mut blocks = morsel.blocks.clone().zip(wanted).collect::<Vec<_>>();
        if self.direction == Direction::Backward {
            blocks.reverse();
        }
        let mut blocks = blocks.into_iter().filter(|(_, wanted)| *wanted).map(|(block, _)| block);
        while self.output.iter().map(RecordBatch::num_rows).sum::<usize>() < self.left {
            let Some(block) = blocks.next() else { break };
            let rows = match bound.select(block, current.num_rows, &mut self.codes)? {
                Selected::Nothing => continue,
                Selected::All => Rows::All(block_range(block, current.num_rows).len()),
                Selected::Some(bits) => {
                    Selected::rows_into(&bits, &mut self.rows);
                    Rows::Some(&self.rows)
                }
            };
            current.gathered += rows.len();
            for reader in &mut current.readers {
                reader.append(block, rows)?;
            }
            if current.gathered >= self.batch_size.min(self.left) {
                current.flush(&self.schema, self.batch_size, &mut self.output)?;
            }
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
    fn new(index: usize) -> Self {
        Self { index, readers: Vec::new(), columns: Vec::new(), num_rows: 0, gathered: 0 }
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
