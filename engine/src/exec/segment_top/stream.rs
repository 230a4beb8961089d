//! One output partition: finds the best of its rows, then reads them.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::BaselineMetrics;

use super::best::Best;
use super::key::{GREATEST, KeyColumn, Rank, TopKey};
use super::{SegmentScanExec, Shared};
use crate::exec::computed::Evaluation;
use crate::exec::morsel::Morsel;
use crate::exec::reader::{Reader, Rows};
use crate::exec::selection::{ReadCodes, Selected};
use crate::exec::{Order, ScanSource};
use crate::model::ColumnRole;
use crate::segment::{BLOCK_ROWS, Segment, block_range};

pub(super) struct TopStream {
    source: Arc<ScanSource>,
    projection: Vec<usize>,
    schema: SchemaRef,
    shared: Arc<Shared>,
    keys: Vec<TopKey>,
    best: Best,
    /// What rows must fulfil besides.
    condition: Option<Evaluation>,
    /// From the end of each segment.
    backward: bool,
    /// The segment that is read, and the columns of the keys there.
    at: Option<usize>,
    columns: Vec<KeyColumn>,
    /// Rows to be given out, found and sorted; `None` before all were seen.
    found: Option<VecDeque<(u32, u32)>>,
    codes: ReadCodes,
    rows: Vec<u32>,
    left: Vec<u32>,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
}

impl TopStream {
    pub(super) fn new(
        scan: &SegmentScanExec,
        keys: &[TopKey],
        limit: usize,
        shared: Arc<Shared>,
        reservation: MemoryReservation,
        metrics: BaselineMetrics,
    ) -> Result<Self> {
        let source = Arc::clone(scan.source());
        let condition = match scan.condition() {
            Some(condition) => scan.computed(condition, DataType::Boolean)?,
            None => None,
        };
        Ok(Self {
            best: Best::new(&source, keys, limit),
            condition: condition.map(|condition| Evaluation::new(condition, &source.columns)),
            source,
            projection: scan.projection().to_vec(),
            schema: scan.schema(),
            shared,
            keys: keys.to_vec(),
            backward: scan.order() == Order::Backward,
            at: None,
            columns: Vec::new(),
            found: None,
            codes: ReadCodes::default(),
            rows: Vec::new(),
            left: Vec::new(),
            reservation,
            metrics,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.found.is_none() {
            match self.shared.work.next(self.at)? {
                Some(morsel) => self.take(morsel).await?,
                None => self.found = Some(self.best.finish()?.into()),
            }
            tokio::task::yield_now().await;
        }
        let batch = self.give_out()?;
        match &batch {
            Some(batch) => self.metrics.record_output(batch.num_rows()),
            None => drop(self.reservation.free()),
        }
        Ok(batch)
    }

    async fn take(&mut self, morsel: Morsel) -> Result<()> {
        if !self.may_matter(morsel.segment) {
            self.shared.work.skip(morsel.segment);
            return Ok(());
        }
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&self.shared));
        let visible = &source.segments[morsel.segment];
        let num_rows = visible.segment.num_rows();
        let bound = shared.work.bound(morsel.segment, visible, source.predicate.as_ref(), &source.columns).await?;
        if bound.at_most(num_rows) == 0 {
            self.shared.work.skip(morsel.segment);
            return Ok(());
        }
        if self.at != Some(morsel.segment) {
            self.open(morsel.segment)?;
        }
        let mut blocks = morsel.blocks.collect::<Vec<_>>();
        if self.backward {
            blocks.reverse();
        }
        for block in blocks {
            self.shared.work.check()?;
            let limit = self.limit()?;
            if self.columns[0].best(block)? > limit {
                continue;
            }
            let elapsed = self.metrics.elapsed_compute().clone();
            let _timer = elapsed.timer();
            let len = block_range(block, num_rows).len();
            match bound.select(block, num_rows, &mut self.codes)? {
                Selected::Nothing => {}
                Selected::All => self.read(block, Some(len), limit)?,
                Selected::Some(bits) => {
                    Selected::rows_into(&bits, &mut self.rows);
                    self.read(block, None, limit)?;
                }
            }
        }
        Ok(())
    }

    /// Whether any row of a segment may be among the first, as far as its times tell.
    fn may_matter(&mut self, segment: usize) -> bool {
        let key = &self.keys[0];
        let is_time = self.source.columns.column(key.column).is_some_and(|column| column.role == ColumnRole::Time);
        let Some((first, last)) = self.source.segments[segment].segment.time_range() else { return false };
        let best = key.rank_of_long(if key.descending { last.millis() } else { first.millis() });
        !is_time || best <= self.common_limit()
    }

    /// The greatest rank by the first key that anybody still wants.
    fn common_limit(&self) -> Rank {
        let ours = self.best.common_bound().unwrap_or(GREATEST);
        let theirs = self.shared.bound.lock().unwrap_or(GREATEST);
        ours.min(theirs)
    }

    /// The same of the segment at hand.
    fn limit(&mut self) -> Result<Rank> {
        let Some(at) = self.at else { return Ok(GREATEST) };
        let ours = self.best.bound(at, &self.columns[0])?;
        Ok(ours.min(self.shared.bound.lock().unwrap_or(GREATEST)))
    }

    fn open(&mut self, index: usize) -> Result<()> {
        self.at = None;
        let segment: &dyn Segment = self.source.segments[index].segment.as_ref();
        let columns = &self.source.columns;
        let opened = self.keys.iter().map(|key| KeyColumn::open(key, segment, columns));
        self.columns = opened.collect::<Result<_>>()?;
        if let Some(condition) = &mut self.condition {
            condition.open(segment, columns)?;
        }
        self.best.open(index, &self.columns);
        self.at = Some(index);
        Ok(())
    }

    /// Offers rows of a block, all `len` of them or those in `rows`, whose rank by the first key is within a limit.
    fn read(&mut self, block: usize, len: Option<usize>, limit: Rank) -> Result<()> {
        let Some(at) = self.at else { return Ok(()) };
        if limit < GREATEST {
            self.columns[0].load(block)?;
            let rows = len.map_or(Rows::Some(&self.rows), Rows::All);
            self.columns[0].within(rows, limit, &mut self.left);
            std::mem::swap(&mut self.rows, &mut self.left);
        } else if let Some(len) = len {
            self.rows.clear();
            self.rows.extend(0..len as u32);
        }
        if let (Some(condition), false) = (&mut self.condition, self.rows.is_empty()) {
            condition.filter(block, Rows::Some(&self.rows), &mut self.left)?;
            std::mem::swap(&mut self.rows, &mut self.left);
        }
        if self.rows.is_empty() {
            return Ok(());
        }
        for column in &mut self.columns {
            column.load(block)?;
        }
        if self.backward {
            self.rows.reverse();
        }
        for &row in &self.rows {
            self.best.offer(at, block * BLOCK_ROWS, row as usize, &self.columns)?;
        }
        if self.best.can_be_cut() {
            self.best.cut()?;
            self.tell();
        }
        self.reservation.try_resize(self.best.memory_bytes())
    }

    /// Tells the others how good a row must be.
    fn tell(&self) {
        if let Some(ours) = self.best.common_bound() {
            let mut bound = self.shared.bound.lock();
            *bound = Some(bound.map_or(ours, |theirs| theirs.min(ours)));
        }
    }

    /// The rows of the next segment that has some.
    fn give_out(&mut self) -> Result<Option<RecordBatch>> {
        let Some(found) = &mut self.found else { return Ok(None) };
        let Some(&(index, _)) = found.front() else { return Ok(None) };
        let count = found.iter().take_while(|(segment, _)| *segment == index).count();
        let rows = found.drain(..count).map(|(_, row)| row as usize).collect::<Vec<_>>();
        let segment: &dyn Segment = self.source.segments[index as usize].segment.as_ref();
        let mut columns = Vec::with_capacity(self.projection.len());
        for (&column, field) in self.projection.iter().zip(self.schema.fields()) {
            let mut reader = Reader::open(segment, &self.source.columns, column)?;
            for same_block in rows.chunk_by(|a, b| a / BLOCK_ROWS == b / BLOCK_ROWS) {
                let offsets = same_block.iter().map(|row| (row % BLOCK_ROWS) as u32).collect::<Vec<_>>();
                reader.append(same_block[0] / BLOCK_ROWS, Rows::Some(&offsets))?;
            }
            columns.push(reader.finish(field)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}
