//! Running states of aggregates over one segment, a slot a group.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float32Array, Float64Array, Int64Array, TimestampMillisecondArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::error::Result;

use super::Fold;
use crate::error::Error;
use crate::exec::reader::{NumberReader, Reader, Rows};
use crate::segment::{BlockStats, Number, Segment, block_range};

/// To which group each row belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Groups<'a> {
    /// Runs of rows of one group: the group, and where the run ends.
    Runs(&'a [(u32, usize)]),
    /// One a row.
    Each(&'a [u32]),
}

/// A column that aggregates read: its values of the current block.
#[derive(Debug)]
pub(super) struct Input {
    reader: Reader,
    validity: Option<NullBuffer>,
}

impl Input {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, validity: None }
    }

    pub(super) fn load(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        match &mut self.reader {
            Reader::Strings(reader) => reader.codes.clear(),
            Reader::Long(reader) => reader.clear(),
            Reader::Float(reader) => reader.clear(),
            Reader::Double(reader) => reader.clear(),
            Reader::Missing(_) | Reader::Lists(_) => {}
        }
        self.reader.append(block, rows)?;
        self.validity = match &mut self.reader {
            Reader::Strings(reader) if reader.column.dictionary().has_null() => {
                Some(reader.codes.iter().map(|&code| code != 0).collect::<Vec<_>>().into())
            }
            Reader::Long(reader) => reader.take_validity(),
            Reader::Float(reader) => reader.take_validity(),
            Reader::Double(reader) => reader.take_validity(),
            Reader::Missing(_) => Some(NullBuffer::new_null(rows.len())),
            Reader::Strings(_) | Reader::Lists(_) => None,
        };
        Ok(())
    }

    fn may_be_null(&self) -> bool {
        match &self.reader {
            Reader::Missing(_) => true,
            Reader::Strings(reader) => reader.column.dictionary().has_null(),
            Reader::Lists(_) => false,
            Reader::Long(reader) => reader.column.has_nulls(),
            Reader::Float(reader) => reader.column.has_nulls(),
            Reader::Double(reader) => reader.column.has_nulls(),
        }
    }

    /// What a whole block amounts to; `None` where its statistics do not say all that an aggregate may need.
    pub(super) fn summary(&self, block: usize) -> Result<Option<Summary>> {
        Ok(match &self.reader {
            Reader::Missing(_) => Some(Summary::default()),
            Reader::Strings(reader) => {
                let (least, _) = reader.column.code_range(block)?;
                let all_valid = !reader.column.dictionary().has_null() || least > 0;
                all_valid.then(|| Summary { all_valid: true, ..Summary::default() })
            }
            Reader::Lists(_) => None,
            Reader::Long(reader) => {
                let stats = reader.column.block_stats(block)?;
                let ends = stats.min_max.map(|(least, greatest)| Ends::Long(least, greatest));
                Some(Summary { valid: valid(&stats), whole: stats.sum, ends, ..Summary::default() })
            }
            Reader::Float(reader) => {
                let stats = reader.column.block_stats(block)?;
                let ends = stats.min_max.map(|(least, greatest)| Ends::Float(least, greatest));
                let summary = Summary { valid: valid(&stats), real: stats.sum, ends, ..Summary::default() };
                (!stats.has_nan).then_some(summary)
            }
            Reader::Double(reader) => {
                let stats = reader.column.block_stats(block)?;
                let ends = stats.min_max.map(|(least, greatest)| Ends::Double(least, greatest));
                let summary = Summary { valid: valid(&stats), real: stats.sum, ends, ..Summary::default() };
                (!stats.has_nan).then_some(summary)
            }
        })
    }
}

fn valid<T: Number>(stats: &BlockStats<T>) -> u64 {
    u64::from(stats.rows - stats.nulls)
}

/// What the values of a block amount to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    valid: u64,
    /// Every row is valid, however many there are.
    all_valid: bool,
    whole: i128,
    real: f64,
    ends: Option<Ends>,
}

#[derive(Clone, Copy, Debug)]
enum Ends {
    Long(i64, i64),
    Float(f32, f32),
    Double(f64, f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extreme {
    Least,
    Greatest,
}

/// The states of one aggregate.
#[derive(Debug)]
pub(super) struct Accumulator {
    /// Index into the inputs; `None` for a count of rows.
    input: Option<usize>,
    totals: Totals,
    /// How many values were not null, where that may differ from the number of rows.
    valid: Option<Vec<u64>>,
    fold: Fold,
}

#[derive(Debug)]
enum Totals {
    /// A count, or the states of a column that the segment lacks.
    Nothing,
    /// No sum over the segment can leave 64 bits.
    Sum(Vec<i64>),
    WideSum(Vec<i128>),
    RealSum(Vec<f64>),
    Long(Extreme, Vec<i64>),
    Float(Extreme, Vec<f32>),
    Double(Extreme, Vec<f64>),
}

impl Accumulator {
    pub(super) fn new(fold: Fold, input: Option<(usize, &Input)>, segment: &dyn Segment) -> Result<Self> {
        let Some((index, input)) = input else {
            return Ok(Self { input: None, totals: Totals::Nothing, valid: None, fold });
        };
        let totals = match (fold, &input.reader) {
            (Fold::CountRows | Fold::Count { .. }, _) | (_, Reader::Missing(_)) => Totals::Nothing,
            (Fold::Sum { .. } | Fold::Average { .. }, Reader::Long(reader)) => {
                if sums_fit(reader, segment.num_rows())? {
                    Totals::Sum(Vec::new())
                } else {
                    Totals::WideSum(Vec::new())
                }
            }
            (Fold::Sum { .. } | Fold::Average { .. }, Reader::Float(_) | Reader::Double(_)) => {
                Totals::RealSum(Vec::new())
            }
            (Fold::Min { .. }, Reader::Long(_)) => Totals::Long(Extreme::Least, Vec::new()),
            (Fold::Max { .. }, Reader::Long(_)) => Totals::Long(Extreme::Greatest, Vec::new()),
            (Fold::Min { .. }, Reader::Float(_)) => Totals::Float(Extreme::Least, Vec::new()),
            (Fold::Max { .. }, Reader::Float(_)) => Totals::Float(Extreme::Greatest, Vec::new()),
            (Fold::Min { .. }, Reader::Double(_)) => Totals::Double(Extreme::Least, Vec::new()),
            (Fold::Max { .. }, Reader::Double(_)) => Totals::Double(Extreme::Greatest, Vec::new()),
            _ => return Err(Error::defensive(format!("{fold} was planned over a column that holds no numbers")).into()),
        };
        Ok(Self { input: Some(index), totals, valid: input.may_be_null().then(Vec::new), fold })
    }

    /// Bytes that a group takes.
    pub(super) fn group_bytes(&self) -> usize {
        let totals = match &self.totals {
            Totals::Nothing => 0,
            Totals::Float(..) => 4,
            Totals::WideSum(_) => 16,
            _ => 8,
        };
        totals + if self.valid.is_some() { 8 } else { 0 }
    }

    /// Makes room for `num_groups` groups.
    pub(super) fn resize(&mut self, num_groups: usize) {
        match &mut self.totals {
            Totals::Nothing => {}
            Totals::Sum(sums) => sums.resize(num_groups, 0),
            Totals::WideSum(sums) => sums.resize(num_groups, 0),
            Totals::RealSum(sums) => sums.resize(num_groups, 0.0),
            Totals::Long(Extreme::Least, ends) => ends.resize(num_groups, i64::MAX),
            Totals::Long(Extreme::Greatest, ends) => ends.resize(num_groups, i64::MIN),
            // In the total order of floats, where a NaN is greater than all numbers.
            Totals::Float(Extreme::Least, ends) => ends.resize(num_groups, f32::NAN),
            Totals::Float(Extreme::Greatest, ends) => ends.resize(num_groups, -f32::NAN),
            Totals::Double(Extreme::Least, ends) => ends.resize(num_groups, f64::NAN),
            Totals::Double(Extreme::Greatest, ends) => ends.resize(num_groups, -f64::NAN),
        }
        if let Some(valid) = &mut self.valid {
            valid.resize(num_groups, 0);
        }
    }

    /// Forgets all groups.
    pub(super) fn reset(&mut self) {
        match &mut self.totals {
            Totals::Nothing => {}
            Totals::Sum(states) | Totals::Long(_, states) => *states = Vec::new(),
            Totals::WideSum(states) => *states = Vec::new(),
            Totals::RealSum(states) | Totals::Double(_, states) => *states = Vec::new(),
            Totals::Float(_, states) => *states = Vec::new(),
        }
        if let Some(valid) = &mut self.valid {
            *valid = Vec::new();
        }
    }

    /// Adds the rows that the inputs hold.
    pub(super) fn add(&mut self, inputs: &[Input], groups: Groups<'_>) {
        let Some(input) = self.input.map(|index| &inputs[index]) else { return };
        let validity = input.validity.as_ref();
        if let Some(valid) = &mut self.valid {
            add_valid(valid, groups, validity);
        }
        match (&mut self.totals, &input.reader) {
            (Totals::Sum(sums), Reader::Long(reader)) => {
                fold(sums, groups, &reader.values, validity, |sum, value| sum + value);
            }
            (Totals::WideSum(sums), Reader::Long(reader)) => {
                fold(sums, groups, &reader.values, validity, |sum, value| sum + i128::from(value));
            }
            (Totals::RealSum(sums), Reader::Float(reader)) => {
                fold(sums, groups, &reader.values, validity, |sum, value| sum + f64::from(value));
            }
            (Totals::RealSum(sums), Reader::Double(reader)) => {
                fold(sums, groups, &reader.values, validity, |sum, value| sum + value);
            }
            (Totals::Long(Extreme::Least, ends), Reader::Long(reader)) => {
                fold(ends, groups, &reader.values, validity, |end, value| end.min(value));
            }
            (Totals::Long(Extreme::Greatest, ends), Reader::Long(reader)) => {
                fold(ends, groups, &reader.values, validity, |end, value| end.max(value));
            }
            (Totals::Float(extreme, ends), Reader::Float(reader)) => {
                let extreme = *extreme;
                fold(ends, groups, &reader.values, validity, |end, value| float_end(extreme, end, value));
            }
            (Totals::Double(extreme, ends), Reader::Double(reader)) => {
                let extreme = *extreme;
                fold(ends, groups, &reader.values, validity, |end, value| double_end(extreme, end, value));
            }
            _ => {}
        }
    }

    /// Adds a whole block of `rows` rows to one group.
    pub(super) fn add_block(&mut self, summaries: &[Summary], group: usize, rows: u64) {
        let Some(summary) = self.input.map(|index| &summaries[index]) else { return };
        if let Some(valid) = &mut self.valid {
            valid[group] += if summary.all_valid { rows } else { summary.valid };
        }
        match (&mut self.totals, summary.ends) {
            // `sums_fit` holds for every part of the segment.
            (Totals::Sum(sums), _) => sums[group] += summary.whole as i64,
            (Totals::WideSum(sums), _) => sums[group] += summary.whole,
            (Totals::RealSum(sums), _) => sums[group] += summary.real,
            (Totals::Long(Extreme::Least, ends), Some(Ends::Long(least, _))) => ends[group] = ends[group].min(least),
            (Totals::Long(Extreme::Greatest, ends), Some(Ends::Long(_, greatest))) => {
                ends[group] = ends[group].max(greatest);
            }
            (Totals::Float(extreme, ends), Some(Ends::Float(least, greatest))) => {
                let value = if *extreme == Extreme::Least { least } else { greatest };
                ends[group] = float_end(*extreme, ends[group], value);
            }
            (Totals::Double(extreme, ends), Some(Ends::Double(least, greatest))) => {
                let value = if *extreme == Extreme::Least { least } else { greatest };
                ends[group] = double_end(*extreme, ends[group], value);
            }
            _ => {}
        }
    }

    /// The states of some groups, as `fields` say. `rows` has the number of rows of every group.
    pub(super) fn states(&self, groups: &[u32], rows: &[u64], fields: &[&Field]) -> Result<Vec<ArrayRef>> {
        let counts = groups.iter().map(|&group| match &self.valid {
            Some(valid) => valid[group as usize],
            None => rows[group as usize],
        });
        let counts = counts.collect::<Vec<_>>();
        match (self.fold, fields) {
            (Fold::CountRows | Fold::Count { .. }, [_]) => {
                Ok(vec![Arc::new(Int64Array::from_iter_values(counts.iter().map(|&count| count as i64)))])
            }
            (Fold::Average { .. }, [_, _]) => {
                let sums = self.real_sums(groups);
                let states = counts.iter().zip(sums).map(|(&count, sum)| (count > 0).then_some((count, sum)));
                let states = states.collect::<Vec<_>>();
                let counts = states.iter().map(|state| state.map(|(count, _)| count)).collect::<UInt64Array>();
                let sums = states.iter().map(|state| state.map(|(_, sum)| sum)).collect::<Float64Array>();
                Ok(vec![Arc::new(counts), Arc::new(sums)])
            }
            (_, [field]) => {
                let nulls = NullBuffer::from(counts.iter().map(|&count| count > 0).collect::<Vec<_>>());
                let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
                Ok(vec![self.values(groups, nulls, field.data_type())?])
            }
            _ => Err(Error::defensive(format!("{} has {} states", self.fold, fields.len())).into()),
        }
    }

    fn real_sums(&self, groups: &[u32]) -> Vec<f64> {
        match &self.totals {
            Totals::Sum(sums) => pick(groups, sums, |sum| sum as f64),
            Totals::WideSum(sums) => pick(groups, sums, |sum| sum as f64),
            Totals::RealSum(sums) => pick(groups, sums, |sum| sum),
            _ => vec![0.0; groups.len()],
        }
    }

    fn values(&self, groups: &[u32], nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef> {
        Ok(match (&self.totals, data_type) {
            (Totals::Nothing, _) => arrow::array::new_null_array(data_type, groups.len()),
            (Totals::Sum(sums), DataType::Int64) => {
                Arc::new(Int64Array::new(pick(groups, sums, |sum| sum).into(), nulls))
            }
            (Totals::Sum(sums), DataType::Decimal128(..)) => {
                decimals(pick(groups, sums, i128::from), nulls, data_type)?
            }
            (Totals::WideSum(sums), DataType::Decimal128(..)) => {
                decimals(pick(groups, sums, |sum| sum), nulls, data_type)?
            }
            (Totals::WideSum(sums), DataType::Int64) => {
                let sums = groups.iter().map(|&group| i64::try_from(sums[group as usize]));
                let sums = sums.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| {
                    Error::invalid_input("bigint out of range: a sum leaves 64 bits").with_sqlstate("22003")
                })?;
                Arc::new(Int64Array::new(sums.into(), nulls))
            }
            (Totals::RealSum(sums), _) => Arc::new(Float64Array::new(pick(groups, sums, |sum| sum).into(), nulls)),
            (Totals::Long(_, ends), DataType::Timestamp(TimeUnit::Millisecond, None)) => {
                Arc::new(TimestampMillisecondArray::new(pick(groups, ends, |end| end).into(), nulls))
            }
            (Totals::Long(_, ends), _) => Arc::new(Int64Array::new(pick(groups, ends, |end| end).into(), nulls)),
            (Totals::Float(_, ends), _) => Arc::new(Float32Array::new(pick(groups, ends, |end| end).into(), nulls)),
            (Totals::Double(_, ends), _) => Arc::new(Float64Array::new(pick(groups, ends, |end| end).into(), nulls)),
            (Totals::Sum(_), _) | (Totals::WideSum(_), _) => {
                return Err(Error::defensive(format!("the state of a sum cannot be {data_type}")).into());
            }
        })
    }
}

fn decimals(sums: Vec<i128>, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef> {
    Ok(Arc::new(Decimal128Array::try_new(sums.into(), nulls)?.with_data_type(data_type.clone())))
}

fn pick<A: Copy, B>(groups: &[u32], states: &[A], convert: impl Fn(A) -> B) -> Vec<B> {
    groups.iter().map(|&group| convert(states[group as usize])).collect()
}

fn float_end(extreme: Extreme, end: f32, value: f32) -> f32 {
    let takes = if extreme == Extreme::Least { value.total_cmp(&end).is_lt() } else { value.total_cmp(&end).is_gt() };
    if takes { value } else { end }
}

fn double_end(extreme: Extreme, end: f64, value: f64) -> f64 {
    let takes = if extreme == Extreme::Least { value.total_cmp(&end).is_lt() } else { value.total_cmp(&end).is_gt() };
    if takes { value } else { end }
}

/// Whether any sum of values of the segment fits 64 bits, by the statistics of its blocks.
fn sums_fit(reader: &NumberReader<i64>, num_rows: usize) -> Result<bool> {
    let mut most = 0_u128;
    let mut block = 0;
    while !block_range(block, num_rows).is_empty() {
        let stats = reader.column.block_stats(block)?;
        if let Some((least, greatest)) = stats.min_max {
            most += u128::from(stats.rows) * u128::from(least.unsigned_abs().max(greatest.unsigned_abs()));
        }
        block += 1;
    }
    Ok(most < i64::MAX as u128)
}

fn add_valid(valid: &mut [u64], groups: Groups<'_>, validity: Option<&NullBuffer>) {
    match groups {
        Groups::Runs(runs) => {
            let mut start = 0;
            for &(group, end) in runs {
                let nulls = validity.map_or(0, |validity| validity.slice(start, end - start).null_count());
                valid[group as usize] += (end - start - nulls) as u64;
                start = end;
            }
        }
        Groups::Each(groups) => match validity {
            None => groups.iter().for_each(|&group| valid[group as usize] += 1),
            Some(validity) => groups.iter().zip(validity.iter()).for_each(|(&group, is_valid)| {
                valid[group as usize] += u64::from(is_valid);
            }),
        },
    }
}

/// Folds each valid value into the state of its group.
fn fold<T: Copy, A: Copy>(
    states: &mut [A],
    groups: Groups<'_>,
    values: &[T],
    validity: Option<&NullBuffer>,
    add: impl Fn(A, T) -> A,
) {
    match (groups, validity) {
        (Groups::Runs(runs), None) => {
            let mut start = 0;
            for &(group, end) in runs {
                let state = &mut states[group as usize];
                *state = values[start..end].iter().fold(*state, |state, &value| add(state, value));
                start = end;
            }
        }
        (Groups::Runs(runs), Some(validity)) => {
            let mut start = 0;
            for &(group, end) in runs {
                let state = &mut states[group as usize];
                for (from, to) in validity.slice(start, end - start).valid_slices() {
                    *state = values[start + from..start + to].iter().fold(*state, |state, &value| add(state, value));
                }
                start = end;
            }
        }
        (Groups::Each(groups), None) => {
            for (&group, &value) in groups.iter().zip(values) {
                let state = &mut states[group as usize];
                *state = add(*state, value);
            }
        }
        (Groups::Each(groups), Some(validity)) => {
            for row in validity.valid_indices() {
                let state = &mut states[groups[row] as usize];
                *state = add(*state, values[row]);
            }
        }
    }
}
