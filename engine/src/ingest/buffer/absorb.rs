//! Buffers that take in other buffers, and are read while they grow.

use std::sync::Arc;

use super::{ColumnBuffer, Dimension, MAX_COLUMNS, Numbers, RowBuffer};
use crate::error::{Error, Result};
use crate::ingest::run::{Run, RunColumn};
use crate::model::{ColumnSchema, SegmentSchema};
use crate::segment::memory::{MemoryColumn, MemorySegment};

impl RowBuffer {
    pub(in crate::ingest) fn num_rows(&self) -> usize {
        self.times.len()
    }

    pub(in crate::ingest) fn dimension_names(&self) -> impl Iterator<Item = &str> {
        self.dimensions.iter().map(|dimension| dimension.name.as_str())
    }

    /// The times of the rows, in the order they came.
    pub(in crate::ingest) fn times(&self) -> &[i64] {
        &self.times
    }

    /// Adds the rows of another buffer of the same plan. `batch` stands for where its rows came from: of two, the lower
    /// one came first. Fails, and changes nothing, where they would be too many columns.
    pub(in crate::ingest) fn absorb(&mut self, other: &Self, batch: usize) -> Result<()> {
        let at = self.times.len();
        let places = self.find_places(other, batch)?;
        self.times.extend_from_slice(&other.times);
        for (theirs, place) in other.dimensions.iter().zip(places) {
            self.dimensions[place].column.absorb(at, &theirs.column);
        }
        for (ours, theirs) in self.metrics.iter_mut().zip(&other.metrics) {
            ours.column.absorb(at, &theirs.column);
            if let (Some(ours), Some(theirs)) = (&mut ours.event_time, &theirs.event_time) {
                ours.append(at, theirs);
            }
        }
        Ok(())
    }

    /// Which of the dimensions here each of the other's is; those that are new are made.
    fn find_places(&mut self, other: &Self, batch: usize) -> Result<Vec<usize>> {
        if self.places.len() != self.dimensions.len() {
            self.places = self.dimensions.iter().enumerate().map(|(place, d)| (d.name.clone(), place)).collect();
        }
        let new = other.dimensions.iter().filter(|theirs| !self.places.contains_key(&theirs.name)).count();
        if self.dimensions.len() + new > MAX_COLUMNS {
            return Err(Error::capacity_exceeded(format!(
                "the rows have more than {MAX_COLUMNS} fields altogether; list the dimensions wanted in `dimensionsSpec`"
            )));
        }
        let mut places = Vec::with_capacity(other.dimensions.len());
        for theirs in &other.dimensions {
            let place = match self.places.get(&theirs.name) {
                Some(place) => *place,
                None => {
                    let found = theirs.found.map(|((_, line), place)| ((batch, line), place));
                    self.dimensions.push(Dimension {
                        name: theirs.name.clone(),
                        field: usize::MAX,
                        column: ColumnBuffer::new(theirs.column.wanted()),
                        found,
                    });
                    self.places.insert(theirs.name.clone(), self.dimensions.len() - 1);
                    self.dimensions.len() - 1
                }
            };
            places.push(place);
        }
        Ok(places)
    }

    /// A copy of the rows as they are now, ordered by time alone. `None` without rows.
    pub(in crate::ingest) fn copy(&self) -> Result<Option<Run>> {
        let rows = self.times.len();
        if rows == 0 {
            return Ok(None);
        }
        let order = (!self.times.is_sorted()).then(|| {
            let mut order = (0..rows as u32).collect::<Vec<_>>();
            order.sort_by_key(|row| self.times[*row as usize]);
            order
        });
        let order = order.as_deref();
        let times = match order {
            None => self.times.clone(),
            Some(order) => order.iter().map(|row| self.times[*row as usize]).collect(),
        };
        let mut schema = Vec::new();
        let mut columns = vec![MemoryColumn::Long { values: times, validity: None }];
        let mut found = Vec::new();
        self.copy_dimensions(order, &mut schema, &mut columns, &mut found);
        self.copy_metrics(order, &mut schema, &mut columns);
        let schema = Arc::new(SegmentSchema::new(schema)?);
        let segment = Arc::new(MemorySegment::new(schema, columns)?.passing());
        Ok(Some(Run { segment, columns: found, granules: Vec::new() }))
    }

    fn copy_dimensions(
        &self,
        order: Option<&[u32]>,
        schema: &mut Vec<ColumnSchema>,
        columns: &mut Vec<MemoryColumn>,
        found: &mut Vec<RunColumn>,
    ) {
        for dimension in &self.dimensions {
            let column = &dimension.column;
            found.push(RunColumn { name: dimension.name.clone(), stored: column.stored(), found: dimension.found });
            if let Some(copy) = column.copy(self.times.len(), order) {
                let (column_type, multi_value) = column.copied_type();
                let mut described = ColumnSchema::dimension(dimension.name.as_str(), column_type);
                described.multi_value = multi_value;
                schema.push(described);
                columns.push(copy);
            }
        }
    }

    fn copy_metrics(&self, order: Option<&[u32]>, schema: &mut Vec<ColumnSchema>, columns: &mut Vec<MemoryColumn>) {
        let rows = self.times.len();
        for (metric, spec) in self.metrics.iter().zip(&self.plan.metrics) {
            schema.extend(spec.columns());
            columns.extend(metric.column.copy(rows, order));
            if let Some(event_time) = &metric.event_time {
                let (values, validity) = Numbers::copy(event_time, rows, order);
                columns.push(MemoryColumn::Long { values, validity });
            }
        }
    }
}
