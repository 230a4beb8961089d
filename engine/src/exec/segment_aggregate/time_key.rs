//! A group key that is a function of `__time`, such as its hour.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;

use super::interner::ValueInterner;
use crate::error::Error;
use crate::exec::reader::{NumberReader, Rows};
use crate::model::{Granularity, Interval, TIME_COLUMN, Timestamp};

/// Rows between two that a monotone function is evaluated on at first. Where their values agree, so do those between.
const STRIDE: usize = 128;

/// A deterministic function of `__time`.
#[derive(Clone, Debug)]
pub struct TimeKey {
    /// Over batches of `__time` alone.
    pub expr: Arc<dyn PhysicalExpr>,
    /// A later time never gives a lesser value: rows of one value lie together.
    pub monotone: bool,
    /// The buckets that it cuts times into, if it gives the beginning of each in milliseconds.
    pub buckets: Option<Granularity>,
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
    /// Set for each segment.
    reader: Option<NumberReader<i64>>,
    pub(super) values: ValueInterner,
    bucket: Option<Interval>,
    schema: Arc<Schema>,
    /// The runs of the current block: the value's id, and where the run ends.
    pub(super) runs: Vec<(u32, usize)>,
}

impl TimeRuns {
    pub(super) fn new(key: TimeKey) -> Self {
        let field = Field::new(TIME_COLUMN, DataType::Timestamp(TimeUnit::Millisecond, None), false);
        let schema = Arc::new(Schema::new(vec![field]));
        Self { key, reader: None, values: ValueInterner::default(), bucket: None, schema, runs: Vec::new() }
    }

    /// Goes on to another segment, of whose times this is the reader.
    pub(super) fn open(&mut self, reader: NumberReader<i64>) {
        self.reader = Some(reader);
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
        if self.load_if_one(block, rows)? {
            return Ok(());
        }
        let Some(mut reader) = self.reader.take() else { return Err(not_open().into()) };
        reader.clear();
        let read = reader.append(block, rows);
        let found = read.and_then(|()| match self.key.buckets {
            _ if !self.key.monotone => self.evaluate_all(&reader.values, 0),
            Some(granularity) => {
                self.find_buckets(granularity, &reader.values);
                Ok(())
            }
            None => self.find_runs(&reader.values),
        });
        self.reader = Some(reader);
        found
    }

    /// Finds the runs of some rows of a block, if they are all of one value and the least and greatest time of the
    /// block tell that. Otherwise there are none, and nothing was read.
    pub(super) fn load_if_one(&mut self, block: usize, rows: Rows<'_>) -> Result<bool> {
        self.runs.clear();
        if !self.key.monotone {
            return Ok(false);
        }
        let Some(reader) = &self.reader else { return Err(not_open().into()) };
        let Some((first, last)) = reader.column.block_stats(block)?.min_max else { return Ok(false) };
        let value = match self.key.buckets {
            Some(granularity) => {
                let bucket = self.bucket(granularity, first);
                if !bucket.contains(Timestamp::from_millis(last)) {
                    return Ok(false);
                }
                Some(bucket.start().millis())
            }
            None => {
                let ends = self.evaluate(&[first, last])?;
                if ends[0] != ends[1] {
                    return Ok(false);
                }
                ends[0]
            }
        };
        self.push(value, rows.len());
        Ok(true)
    }

    /// The runs of ascending times: where each bucket ends is searched for.
    fn find_buckets(&mut self, granularity: Granularity, times: &[i64]) {
        let mut from = 0;
        while let Some(&first) = times.get(from) {
            let bucket = self.bucket(granularity, first);
            from += run_length(&times[from..], bucket.end().millis());
            self.push(Some(bucket.start().millis()), from);
        }
    }

    /// The bucket of a time. Rows come mostly in the order of time: the last one is tried first.
    fn bucket(&mut self, granularity: Granularity, millis: i64) -> Interval {
        let time = Timestamp::from_millis(millis);
        match self.bucket {
            Some(bucket) if bucket.contains(time) => bucket,
            _ => *self.bucket.insert(granularity.bucket(time)),
        }
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

    /// Values are numbered as 64-bit integers, so a bucket's beginning is its value.
    fn evaluate(&self, times: &[i64]) -> Result<Vec<Option<i64>>> {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::new(times.to_vec().into(), None));
        let num_rows = times.len();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![times])?;
        let values = to_integers(&self.key.expr.evaluate(&batch)?.into_array(num_rows)?)?;
        Ok(values.as_primitive::<Int64Type>().iter().collect())
    }
}

fn not_open() -> Error {
    Error::defensive("the times of no segment are open")
}

/// How many of the ascending `times`, of which the first is less, are less than `end`: short runs are found by looking
/// at a few, long ones by searching in steps that double.
fn run_length(times: &[i64], end: i64) -> usize {
    let (mut known, mut step) = (0, 1);
    while known + step < times.len() && times[known + step] < end {
        known += step;
        step *= 2;
    }
    let most = (known + step).min(times.len());
    known + 1 + times[known + 1..most].partition_point(|&time| time < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_long_as_a_walk_finds_them() {
        let times = [0, 0, 1, 1, 1, 4, 5, 5, 9, 9, 9, 9, 9, 9, 9, 12].map(i64::from);
        for from in 0..times.len() {
            for end in times[from] + 1..15 {
                let walked = times[from..].iter().take_while(|time| **time < end).count();
                assert_eq!(run_length(&times[from..], end), walked, "from {from} to {end}");
            }
        }
    }
}
