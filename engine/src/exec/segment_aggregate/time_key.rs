//! A group key that is a function of `__time`, such as its hour.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;

use super::interner::ValueInterner;
use crate::exec::reader::{NumberReader, Rows};
use crate::model::TIME_COLUMN;

/// Rows between two that a monotone function is evaluated on at first. Where their values agree, so do those between.
const STRIDE: usize = 128;

/// A deterministic function of `__time`.
#[derive(Clone, Debug)]
pub struct TimeKey {
    /// Over batches of `__time` alone.
    pub expr: Arc<dyn PhysicalExpr>,
    /// A later time never gives a lesser value: rows of one value lie together.
    pub monotone: bool,
}

/// Whether keys of a type can be kept as 64-bit integers.
pub(crate) fn is_integral(data_type: &DataType) -> bool {
    data_type.is_integer() && *data_type != DataType::UInt64
        || matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

pub(super) fn to_integers(array: &ArrayRef) -> Result<ArrayRef> {
    let array = if *array.data_type() == DataType::Date32 { cast(array, &DataType::Int32)? } else { Arc::clone(array) };
    Ok(cast(&array, &DataType::Int64)?)
}

pub(super) fn from_integers(integers: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let integers = if *data_type == DataType::Date32 { cast(&integers, &DataType::Int32)? } else { integers };
    Ok(cast(&integers, data_type)?)
}

/// Evaluates a [`TimeKey`] over a segment and numbers its values.
#[derive(Debug)]
pub(super) struct TimeRuns {
    key: TimeKey,
    pub(super) reader: NumberReader<i64>,
    pub(super) values: ValueInterner,
    schema: Arc<Schema>,
    /// The runs of the current block: the value's id, and where the run ends.
    pub(super) runs: Vec<(u32, usize)>,
}

impl TimeRuns {
    pub(super) fn new(key: TimeKey, reader: NumberReader<i64>) -> Self {
        let field = Field::new(TIME_COLUMN, DataType::Timestamp(TimeUnit::Millisecond, None), false);
        let schema = Arc::new(Schema::new(vec![field]));
        Self { key, reader, values: ValueInterner::default(), schema, runs: Vec::new() }
    }

    pub(super) fn is_monotone(&self) -> bool {
        self.key.monotone
    }

    /// Forgets the values seen.
    pub(super) fn reset(&mut self) {
        self.values = ValueInterner::default();
    }

    /// Finds the runs of some rows of a block.
    pub(super) fn load(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        self.runs.clear();
        if self.key.monotone && self.load_if_one(block, rows)? {
            return Ok(());
        }
        self.reader.clear();
        self.reader.append(block, rows)?;
        let times = std::mem::take(&mut self.reader.values);
        let found = if self.key.monotone { self.find_runs(&times) } else { self.evaluate_all(&times, 0) };
        self.reader.values = times;
        found
    }

    /// Whether all of a block has one value, which its least and greatest time tell without reading it.
    fn load_if_one(&mut self, block: usize, rows: Rows<'_>) -> Result<bool> {
        let Some((first, last)) = self.reader.column.block_stats(block)?.min_max else { return Ok(false) };
        let ends = self.evaluate(&[first, last])?;
        if ends[0] != ends[1] {
            return Ok(false);
        }
        self.push(ends[0], rows.len());
        Ok(true)
    }

    fn find_runs(&mut self, times: &[i64]) -> Result<()> {
        let Some(&last) = times.last() else { return Ok(()) };
        let mut probes = times.iter().step_by(STRIDE).copied().collect::<Vec<_>>();
        probes.push(last);
        let probes = self.evaluate(&probes)?;
        let changes = probes.windows(2).filter(|pair| pair[0] != pair[1]).count();
        if changes * 4 > probes.len() {
            return self.evaluate_all(times, 0);
        }
        for (start, pair) in (0..times.len()).step_by(STRIDE).zip(probes.windows(2)) {
            let end = (start + STRIDE).min(times.len());
            if pair[0] == pair[1] {
                self.push(pair[0], end);
            } else {
                self.evaluate_all(&times[start..end], start)?;
            }
        }
        Ok(())
    }

    /// Evaluates every row; `start` is the first one's place.
    fn evaluate_all(&mut self, times: &[i64], start: usize) -> Result<()> {
        let values = self.evaluate(times)?;
        for (value, end) in values.into_iter().zip(start + 1..) {
            self.push(value, end);
        }
        Ok(())
    }

    fn push(&mut self, value: Option<i64>, end: usize) {
        let id = self.values.id(value);
        match self.runs.last_mut() {
            Some(last) if last.0 == id => last.1 = end,
            _ => self.runs.push((id, end)),
        }
    }

    fn evaluate(&self, times: &[i64]) -> Result<Vec<Option<i64>>> {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::new(times.to_vec().into(), None));
        let num_rows = times.len();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![times])?;
        let values = to_integers(&self.key.expr.evaluate(&batch)?.into_array(num_rows)?)?;
        Ok(values.as_primitive::<Int64Type>().iter().collect())
    }
}
