//! Rows being collected in columns, until they are sorted into a run.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::Plan;
use super::row::{Row, Slot, double_text};
use super::run::{Run, RunColumn};
use crate::error::{Error, Result};
use crate::model::{ColumnSchema, Interval, SegmentSchema};
use crate::segment::memory::{MemoryColumn, MemorySegment};

mod absorb;
mod column;
mod dictionary;
mod number;

use column::{ColumnBuffer, SortedDictionary};
pub(super) use column::{Stored, Wanted};
use number::Numbers;

/// More columns than this are not discovered: the input is not what it was taken for.
pub(super) const MAX_COLUMNS: usize = 10_000;

/// Where a row stands: input, line.
pub(super) type Position = (usize, u64);

/// Rows of one thread.
#[derive(Debug)]
pub(super) struct RowBuffer {
    plan: Arc<Plan>,
    /// As stored: truncated.
    times: Vec<i64>,
    dimensions: Vec<Dimension>,
    metrics: Vec<Metric>,
    /// By field: what becomes of it when dimensions are discovered.
    uses: Vec<Use>,
    /// The dimensions by name, of a buffer that absorbs others.
    places: HashMap<String, usize>,
}

#[derive(Debug)]
struct Dimension {
    name: String,
    field: usize,
    column: ColumnBuffer,
    /// Where it was discovered: its row, and its place in it. `None` when it was asked for.
    found: Option<(Position, usize)>,
}

#[derive(Debug)]
struct Metric {
    /// `None` counts.
    field: Option<usize>,
    column: ColumnBuffer,
    event_time: Option<Numbers<i64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Unknown,
    Ignored,
    /// The dimension of this place.
    Dimension(usize),
}

/// A row's time as it happened and as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowTime {
    pub(super) event: i64,
    pub(super) stored: i64,
}

impl RowBuffer {
    pub(super) fn new(plan: Arc<Plan>, row: &mut Row) -> Self {
        let dimension = |(name, wanted): &(String, Wanted)| Dimension {
            name: name.clone(),
            field: row.fields.number(name),
            column: ColumnBuffer::new(*wanted),
            found: None,
        };
        let dimensions = plan.dimensions.iter().map(dimension).collect();
        let mut buffer = Self {
            plan: Arc::clone(&plan),
            times: Vec::new(),
            dimensions,
            metrics: Vec::new(),
            uses: Vec::new(),
            places: HashMap::new(),
        };
        buffer.metrics = plan
            .metrics
            .iter()
            .map(|metric| Metric {
                field: metric.field.as_ref().map(|field| row.fields.number(field)),
                column: ColumnBuffer::new(Wanted::of(Some(metric.column_type), Default::default())),
                event_time: (metric.columns().count() > 1).then(|| Numbers::nulls(0)),
            })
            .collect();
        buffer
    }

    /// Bytes held, capacities included.
    pub(super) fn memory_bytes(&self) -> usize {
        let dimensions = self.dimensions.iter().map(|dimension| dimension.column.memory_bytes()).sum::<usize>();
        let metric = |metric: &Metric| {
            metric.column.memory_bytes() + metric.event_time.as_ref().map_or(0, Numbers::memory_bytes)
        };
        self.times.capacity() * 8 + dimensions + self.metrics.iter().map(metric).sum::<usize>()
    }

    /// Adds a row. `not_a_number` is called with the column and the value of each value that its column cannot hold.
    pub(super) fn add(
        &mut self,
        row: &Row,
        line: &str,
        time: RowTime,
        position: Position,
        mut not_a_number: impl FnMut(&str, Slot),
    ) -> Result<()> {
        let at = self.times.len();
        self.times.push(time.stored);
        match self.plan.discovers {
            None => {
                for dimension in &mut self.dimensions {
                    let value = row.get(dimension.field);
                    if dimension.column.push(at, row, line, value).is_err() {
                        not_a_number(&dimension.name, value);
                    }
                }
            }
            Some(wanted) => self.add_discovering(wanted, row, line, position, &mut not_a_number)?,
        }
        for (metric, spec) in self.metrics.iter_mut().zip(&self.plan.metrics) {
            let Some(field) = metric.field else {
                metric.column.push_long(at, 1);
                continue;
            };
            let value = row.get(field);
            let taken = metric.column.push(at, row, line, value).is_ok();
            if !taken {
                not_a_number(&spec.name, value);
            }
            if let Some(event_time) = &mut metric.event_time
                && taken
                && !matches!(value, Slot::Missing | Slot::Null)
            {
                event_time.pad(at);
                event_time.push(time.event);
            }
        }
        Ok(())
    }

    fn add_discovering(
        &mut self,
        wanted: Wanted,
        row: &Row,
        line: &str,
        position: Position,
        not_a_number: &mut impl FnMut(&str, Slot),
    ) -> Result<()> {
        let at = self.times.len() - 1;
        for (place, field) in row.order().iter().enumerate() {
            let known = self.uses.get(*field).copied().unwrap_or(Use::Unknown);
            let dimension = match known {
                Use::Ignored => continue,
                Use::Dimension(dimension) => dimension,
                Use::Unknown => match self.discover(wanted, row, *field, (position, place))? {
                    Some(dimension) => dimension,
                    None => continue,
                },
            };
            let dimension = &mut self.dimensions[dimension];
            let value = row.get(*field);
            if dimension.column.push(at, row, line, value).is_err() {
                not_a_number(&dimension.name, value);
            }
        }
        Ok(())
    }

    fn discover(&mut self, wanted: Wanted, row: &Row, field: usize, found: (Position, usize)) -> Result<Option<usize>> {
        let name = row.fields.name(field);
        let known = self.dimensions.iter().position(|dimension| dimension.field == field);
        let dimension = match known {
            Some(dimension) => Some(dimension),
            None if name.is_empty() || self.plan.excluded.contains(name) => None,
            None if self.dimensions.len() >= MAX_COLUMNS => {
                return Err(Error::capacity_exceeded(format!(
                    "the input has more than {MAX_COLUMNS} fields; list the dimensions wanted in `dimensionsSpec`"
                )));
            }
            None => {
                let column = ColumnBuffer::new(wanted);
                self.dimensions.push(Dimension { name: name.to_owned(), field, column, found: Some(found) });
                Some(self.dimensions.len() - 1)
            }
        };
        if self.uses.len() <= field {
            self.uses.resize(field + 1, Use::Unknown);
        }
        self.uses[field] = dimension.map_or(Use::Ignored, Use::Dimension);
        Ok(dimension)
    }

    /// Sorts the rows into a run and starts anew. `None` without rows.
    pub(super) fn take_run(&mut self) -> Result<Option<Run>> {
        if self.times.is_empty() {
            return Ok(None);
        }
        let rows = self.times.len();
        let mut times = std::mem::take(&mut self.times);
        let dictionaries = self.sort_dictionaries(rows);
        let order = self.order(&times);
        if let Some(order) = &order {
            times = order.iter().map(|row| times[*row as usize]).collect();
        }
        let granules = granules_of(&self.plan, &times);
        let mut schema = Vec::new();
        let mut columns = vec![MemoryColumn::Long { values: times, validity: None }];
        let mut found = Vec::new();
        self.finish_dimensions(dictionaries, order.as_deref(), &mut schema, &mut columns, &mut found);
        self.finish_metrics(rows, order.as_deref(), &mut schema, &mut columns);
        let schema = Arc::new(SegmentSchema::new(schema)?);
        Ok(Some(Run { segment: Arc::new(MemorySegment::new(schema, columns)?), columns: found, granules }))
    }

    fn sort_dictionaries(&mut self, rows: usize) -> Vec<Option<SortedDictionary>> {
        for metric in &mut self.metrics {
            metric.column.sort_dictionary(rows);
        }
        self.dimensions.iter_mut().map(|dimension| dimension.column.sort_dictionary(rows)).collect()
    }

    /// The rows by time, with rollup also by dimensions; `None` if they are in order.
    fn order(&self, times: &[i64]) -> Option<Vec<u32>> {
        let rows = 0..times.len() as u32;
        if !self.plan.rollup {
            if times.is_sorted() {
                return None;
            }
            let mut order = rows.map(|row| (times[row as usize], row)).collect::<Vec<_>>();
            order.sort_unstable();
            return Some(order.into_iter().map(|(_, row)| row).collect());
        }
        let mut order = rows.map(|row| (times[row as usize], row)).collect::<Vec<_>>();
        order.sort_unstable_by(|a, b| {
            let mut ordering = a.0.cmp(&b.0);
            let mut columns = self.dimensions.iter();
            while ordering.is_eq() {
                match columns.next() {
                    Some(dimension) => ordering = dimension.column.compare(a.1, b.1),
                    None => break,
                }
            }
            ordering
        });
        Some(order.into_iter().map(|(_, row)| row).collect())
    }

    fn finish_dimensions(
        &mut self,
        dictionaries: Vec<Option<SortedDictionary>>,
        order: Option<&[u32]>,
        schema: &mut Vec<ColumnSchema>,
        columns: &mut Vec<MemoryColumn>,
        found: &mut Vec<RunColumn>,
    ) {
        for (dimension, dictionary) in self.dimensions.iter_mut().zip(dictionaries) {
            let wanted = dimension.column.wanted();
            let column = std::mem::replace(&mut dimension.column, ColumnBuffer::new(wanted));
            let stored = column.stored();
            found.push(RunColumn { name: dimension.name.clone(), stored, found: dimension.found });
            if let Some(column) = column.finish(dictionary, order) {
                let text = matches!(column, MemoryColumn::String { .. });
                let (column_type, multi_value) = if text { Stored::Text } else { stored }.column_type();
                let mut described = ColumnSchema::dimension(dimension.name.as_str(), column_type);
                described.multi_value = multi_value;
                schema.push(described);
                columns.push(column);
            }
        }
    }

    fn finish_metrics(
        &mut self,
        rows: usize,
        order: Option<&[u32]>,
        schema: &mut Vec<ColumnSchema>,
        columns: &mut Vec<MemoryColumn>,
    ) {
        for (metric, spec) in self.metrics.iter_mut().zip(&self.plan.metrics) {
            let wanted = metric.column.wanted();
            let column = std::mem::replace(&mut metric.column, ColumnBuffer::new(wanted));
            schema.extend(spec.columns());
            columns.extend(column.finish(None, order));
            if let Some(event_time) = &mut metric.event_time {
                let mut event_time = std::mem::replace(event_time, Numbers::nulls(0));
                event_time.pad(rows);
                let (values, validity) = event_time.finish(order);
                columns.push(MemoryColumn::Long { values, validity });
            }
        }
    }
}

/// The segment granules that sorted times lie in.
pub(super) fn granules_of(plan: &Plan, times: &[i64]) -> Vec<Interval> {
    let mut granules = Vec::new();
    let mut at = 0;
    while let Some(time) = times.get(at) {
        let granule = plan.segment_granularity.bucket(crate::model::Timestamp::from_millis(*time));
        granules.push(granule);
        at += times[at..].partition_point(|time| *time < granule.end().millis()).max(1);
    }
    granules
}
