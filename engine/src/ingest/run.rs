//! Sorted runs of rows: what a thread's buffer becomes, in memory or in a file of the work directory.
//!
//! Invariant: no run holds less than what was read. Types are settled only when all runs are there, so that the result
//! does not depend on which thread saw which row first.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::buffer::{Position, Stored};
use super::plan::Plan;
use super::{Cancellation, write_file};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, Granularity, Interval, SegmentSchema, Timestamp};
use crate::segment::memory::MemorySegment;
use crate::segment::{BLOCK_ROWS, MergeInput, Rollup, RowOrder, Segment, SegmentFile, WriteOptions};

mod convert;

/// Rows sorted by time, with rollup also by dimensions.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) segment: Arc<dyn Segment>,
    /// The dimensions, and how their values are kept.
    pub(super) columns: Vec<RunColumn>,
    /// The segment granules that it has rows of, in order.
    pub(super) granules: Vec<Interval>,
}

#[derive(Clone, Debug)]
pub(super) struct RunColumn {
    pub(super) name: String,
    pub(super) stored: Stored,
    /// Where it was first seen, if it was not asked for.
    pub(super) found: Option<(Position, usize)>,
}

impl Run {
    /// Moves the rows to a file.
    pub(super) fn spill(self, plan: &Plan, path: &Path, cancel: &Cancellation) -> Result<Self> {
        let rollup = if plan.rollup { Rollup::On } else { Rollup::Off };
        let schema = Arc::clone(self.segment.schema());
        let rows = 0..self.segment.num_rows();
        let order = RowOrder::of(vec![MergeInput { segment: self.segment, rows }], &schema, rollup)?;
        let options = WriteOptions::default();
        write_file(path, cancel, |out| {
            crate::segment::write_segment(&order, 0..order.num_rows(), &options, out).map(|_| ())
        })?;
        drop(order);
        Ok(Self { segment: Arc::new(SegmentFile::open(path)?), columns: self.columns, granules: self.granules })
    }

    /// The same rows, those combined that agree in time and dimensions, and the bytes that they take.
    pub(super) fn rolled_up(self) -> Result<(Self, usize)> {
        let schema = Arc::clone(self.segment.schema());
        let rows = 0..self.segment.num_rows();
        let order = RowOrder::of(vec![MergeInput { segment: self.segment, rows }], &schema, Rollup::On)?;
        let mut bytes = Vec::new();
        crate::segment::write_segment(&order, 0..order.num_rows(), &WriteOptions::default(), &mut bytes)?;
        let size = bytes.len();
        Ok((Self { segment: Arc::new(SegmentFile::from_bytes("rows in memory", bytes)?), ..self }, size))
    }

    /// The granules that its rows lie in, of another granularity.
    pub(super) fn granules_by(&self, granularity: &Granularity) -> Result<Vec<Interval>> {
        let crate::segment::Column::Long(times) = self.segment.column(0)? else {
            return Err(Error::defensive("the first column of a run is not its time"));
        };
        let (mut granules, mut at, mut block) = (Vec::new(), 0, Vec::new());
        let mut read = usize::MAX;
        while at < self.segment.num_rows() {
            if read != at / BLOCK_ROWS {
                read = at / BLOCK_ROWS;
                times.read(read, &mut block)?;
            }
            let granule = granularity.bucket(Timestamp::from_millis(block[at % BLOCK_ROWS]));
            granules.push(granule);
            at = times.lower_bound(granule.end().millis())?.max(at + 1);
        }
        Ok(granules)
    }

    /// The rows of a granule.
    pub(super) fn rows_of(&self, granule: &Interval) -> Result<std::ops::Range<usize>> {
        let crate::segment::Column::Long(times) = self.segment.column(0)? else {
            return Err(Error::defensive("the first column of a run is not its time"));
        };
        Ok(times.lower_bound(granule.start().millis())?..times.lower_bound(granule.end().millis())?)
    }

    /// The same rows with the types that `settled` has; itself where they are so already.
    pub(super) fn conform(self, settled: &Settled) -> Result<Self> {
        let schema = self.segment.schema();
        let wanted = schema.columns().iter().map(|column| {
            let wanted = match column.role {
                ColumnRole::Dimension => settled.dimensions.get(&column.name),
                _ => None,
            };
            wanted.unwrap_or(column).clone()
        });
        let wanted = wanted.collect::<Vec<_>>();
        if wanted == schema.columns() {
            return Ok(self);
        }
        let columns = wanted.iter().enumerate().map(|(index, column)| {
            convert::column(self.segment.as_ref(), index, column.column_type, column.multi_value)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(SegmentSchema::try_from(wanted)?);
        let mut segment = MemorySegment::new(schema, columns)?;
        if self.segment.is_passing() {
            segment = segment.passing();
        }
        Ok(Self { segment: Arc::new(segment), ..self })
    }
}

/// The schema that all runs together need.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) schema: Arc<SegmentSchema>,
    dimensions: HashMap<String, ColumnSchema>,
}

impl Settled {
    /// Dimensions asked for in their order, then those found in the order of their first row, then metrics.
    pub(super) fn of(plan: &Plan, runs: &[Run]) -> Result<Self> {
        Self::of_columns(plan, runs.iter().flat_map(|run| &run.columns))
    }

    /// The same, of the columns of all runs.
    pub(super) fn of_columns<'a>(plan: &Plan, columns: impl Iterator<Item = &'a RunColumn>) -> Result<Self> {
        let mut all = joined(columns);
        // Those asked for were not found anywhere (`None`), come first, and keep their order.
        all.sort_by_key(|column| column.found);
        let dimensions = all.iter().map(|column| {
            let (column_type, multi_value) = match column.stored {
                Stored::Nulls => (plan.type_without_values(&column.name), false),
                stored => stored.column_type(),
            };
            let mut dimension = ColumnSchema::dimension(column.name.as_str(), column_type);
            dimension.multi_value = multi_value;
            dimension
        });
        let dimensions = dimensions.collect::<Vec<_>>();
        let metrics = plan.metrics.iter().flat_map(|metric| metric.columns());
        let schema = Arc::new(SegmentSchema::new(dimensions.iter().cloned().chain(metrics))?);
        Ok(Self { schema, dimensions: dimensions.into_iter().map(|column| (column.name.clone(), column)).collect() })
    }
}

/// Each column once, with what holds the values of all.
pub(super) fn joined<'a>(columns: impl Iterator<Item = &'a RunColumn>) -> Vec<RunColumn> {
    let mut all: Vec<RunColumn> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for column in columns {
        match places.get(column.name.as_str()) {
            Some(place) => {
                let known = &mut all[*place];
                known.stored = known.stored.join(column.stored);
                known.found = known.found.min(column.found);
            }
            None => {
                places.insert(&column.name, all.len());
                all.push(column.clone());
            }
        }
    }
    all
}
