//! Combining the metrics of rows that roll up into one.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use super::RowOrder;
use super::gather::NumberGather;
use crate::error::{Error, Result};
use crate::model::MetricCombine;
use crate::segment::column::number::StoredNumber;

/// Which column is folded, and how.
#[derive(Clone, Copy, Debug)]
pub(in crate::segment) struct Fold {
    pub(in crate::segment) metric: usize,
    pub(in crate::segment) combine: MetricCombine,
}

impl Fold {
    fn keeps_event_time(self) -> bool {
        matches!(self.combine, MetricCombine::First | MetricCombine::Last)
    }
}

/// What a group of rows amounts to so far. Nulls leave it as it is.
#[derive(Clone, Copy, Debug)]
struct Accumulator<T: StoredNumber> {
    sum: T::Sum,
    value: Option<T>,
    /// Of `value`, for first and last.
    event_time: Option<i64>,
}

impl<T: StoredNumber> Accumulator<T> {
    const EMPTY: fn() -> Self = || Self { sum: T::Sum::default(), value: None, event_time: None };

    fn add(&mut self, value: T, event_time: Option<i64>, combine: MetricCombine) {
        let better = |known: T| match combine {
            MetricCombine::Sum => false,
            MetricCombine::Min => value.order(&known) == Ordering::Less,
            MetricCombine::Max => value.order(&known) == Ordering::Greater,
            // Of equal times the first row wins, or the last; a value without a time loses to any other.
            MetricCombine::First => event_time.is_some_and(|time| self.event_time.is_none_or(|known| time < known)),
            MetricCombine::Last => event_time >= self.event_time,
        };
        self.sum = T::add(self.sum, value);
        if self.value.is_none_or(better) {
            (self.value, self.event_time) = (Some(value), event_time);
        }
    }

    /// `None` where the sum does not fit.
    fn finish(self, combine: MetricCombine) -> Option<Option<T>> {
        match (combine, self.value) {
            (MetricCombine::Sum, Some(_)) => T::from_sum(self.sum).map(Some),
            (_, value) => Some(value),
        }
    }
}

/// The folded values of some output rows: value and event time of each.
fn fold<T: StoredNumber>(
    order: &RowOrder,
    fold: Fold,
    values: &mut NumberGather<T>,
    times: &mut Option<NumberGather<i64>>,
    rows: Range<usize>,
) -> Result<Vec<Accumulator<T>>> {
    let mut groups = vec![Accumulator::EMPTY(); rows.len()];
    order.each_member(rows.clone(), |output, input, row| {
        let Some(reader) = &mut values.readers[input] else { return Ok(()) };
        let Some(value) = reader.get(row)? else { return Ok(()) };
        let time = match times.as_mut().and_then(|times| times.readers[input].as_mut()) {
            Some(times) => times.get(row)?,
            None => None,
        };
        groups[output - rows.start].add(value, time, fold.combine);
        Ok(())
    })?;
    Ok(groups)
}

/// Goes through the output block by block, folding a metric. Shows each block's values, or with `event_times` the
/// event times that go with them.
pub(in crate::segment) fn fold_column<T: StoredNumber, U: StoredNumber>(
    order: &RowOrder,
    which: Fold,
    rows: Range<usize>,
    pick: impl Fn(Option<T>, Option<i64>) -> Option<U>,
    mut show: impl FnMut(&mut Vec<U>, Option<&BooleanBuffer>) -> Result<()>,
) -> Result<()> {
    let mut values = NumberGather::<T>::new(order, which.metric)?;
    let mut times = which.keeps_event_time().then(|| NumberGather::<i64>::new(order, which.metric + 1)).transpose()?;
    let mut out = Vec::new();
    for block in super::gather::output_blocks(rows) {
        out.clear();
        let mut valid = BooleanBufferBuilder::new(block.len());
        for group in fold(order, which, &mut values, &mut times, block)? {
            let event_time = group.event_time;
            let value = group.finish(which.combine).ok_or_else(|| overflow(order, which))?;
            let value = pick(value, event_time);
            valid.append(value.is_some());
            out.push(value.unwrap_or_default());
        }
        let valid = valid.finish();
        let has_nulls = valid.count_set_bits() < valid.len();
        show(&mut out, has_nulls.then_some(&valid))?;
    }
    Ok(())
}

fn overflow(order: &RowOrder, which: Fold) -> Error {
    let name = &order.schema().columns()[which.metric].name;
    Error::invalid_input(format!(
        "the sum of metric `{name}` over rows that roll up exceeds 64 bits; keep it as DOUBLE, or without rollup"
    ))
}
