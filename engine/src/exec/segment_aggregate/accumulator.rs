//! Running states of aggregates, a slot a group.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float32Array, Float64Array, Int64Array, TimestampMillisecondArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::error::Result;

use super::distinct::DistinctSets;
use super::fold::FoldKind;
use super::input::{Ends, Input, InputValues, Summary};
use super::loops::{Groups, add_valid, combine, count_codes, fold, fold_greatest, fold_least, sum_in_lanes};
use crate::aggregate::estimate_of_texts;
use crate::error::Error;
use crate::exec::kernel;
use crate::exec::ordinals::Numbering;
use crate::model::ColumnType;

/// Values that are looked up at a time.
const VALUES_AT_ONCE: usize = 8192;

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
    kind: FoldKind,
    /// For sums: no sum over the segments so far is greater than this, either way.
    greatest: u128,
    /// For estimates: what the ordinals stand for.
    numbering: Option<Numbering>,
}

#[derive(Debug)]
enum Totals {
    /// A count.
    Nothing,
    /// `greatest` fits 64 bits.
    Sum(Vec<i64>),
    WideSum(Vec<i128>),
    RealSum(Vec<f64>),
    Long(Extreme, Vec<i64>),
    Float(Extreme, Vec<f32>),
    Double(Extreme, Vec<f64>),
    Distinct(DistinctSets),
}

impl Accumulator {
    /// `input` is the place of what is folded among the inputs, and `column_type` its type; `numbering` numbers its
    /// values, where distinct ones are counted.
    pub(super) fn new(
        kind: FoldKind,
        input: Option<usize>,
        column_type: Option<ColumnType>,
        numbering: Option<&Numbering>,
    ) -> Result<Self> {
        let totals = match (kind, column_type) {
            (FoldKind::Count, _) => Totals::Nothing,
            (FoldKind::CountDistinct | FoldKind::EstimateDistinct, _) => {
                Totals::Distinct(DistinctSets::new(numbering.map_or(0, Numbering::limit)))
            }
            (FoldKind::Sum | FoldKind::Average, Some(ColumnType::Long)) => Totals::Sum(Vec::new()),
            (FoldKind::Sum | FoldKind::Average, Some(ColumnType::Float | ColumnType::Double)) => {
                Totals::RealSum(Vec::new())
            }
            (FoldKind::Min, Some(ColumnType::Long)) => Totals::Long(Extreme::Least, Vec::new()),
            (FoldKind::Max, Some(ColumnType::Long)) => Totals::Long(Extreme::Greatest, Vec::new()),
            (FoldKind::Min, Some(ColumnType::Float)) => Totals::Float(Extreme::Least, Vec::new()),
            (FoldKind::Max, Some(ColumnType::Float)) => Totals::Float(Extreme::Greatest, Vec::new()),
            (FoldKind::Min, Some(ColumnType::Double)) => Totals::Double(Extreme::Least, Vec::new()),
            (FoldKind::Max, Some(ColumnType::Double)) => Totals::Double(Extreme::Greatest, Vec::new()),
            _ => return Err(Error::defensive(format!("{kind} was planned of what holds no numbers")).into()),
        };
        let numbering = (kind == FoldKind::EstimateDistinct).then(|| numbering.cloned()).flatten();
        Ok(Self { input, totals, valid: None, kind, greatest: 0, numbering })
    }

    /// Goes on to a segment of so many rows, which the inputs have opened; `rows` has the rows of every group so far.
    pub(super) fn open(&mut self, inputs: &[Input], num_rows: usize, rows: &[u64]) -> Result<()> {
        let Some(input) = self.input.map(|index| &inputs[index]) else { return Ok(()) };
        // Sets leave the null out by themselves.
        if self.valid.is_none() && input.may_be_null() && !matches!(self.totals, Totals::Distinct(_)) {
            self.valid = Some(rows.to_vec());
        }
        if matches!(self.totals, Totals::Sum(_)) {
            let greatest = input.greatest_sum(num_rows)?.unwrap_or(u128::MAX);
            self.greatest = self.greatest.saturating_add(greatest);
            self.widen_if_needed();
        }
        Ok(())
    }

    fn widen_if_needed(&mut self) {
        if let Totals::Sum(sums) = &self.totals
            && self.greatest >= i64::MAX as u128
        {
            self.totals = Totals::WideSum(sums.iter().map(|&sum| i128::from(sum)).collect());
        }
    }

    /// Whether statistics of blocks never tell enough.
    pub(super) fn needs_rows(&self) -> bool {
        matches!(self.totals, Totals::Distinct(_))
    }

    /// Bytes that a group takes.
    pub(super) fn group_bytes(&self) -> usize {
        let totals = match &self.totals {
            Totals::Nothing => 0,
            Totals::Float(..) => 4,
            Totals::WideSum(_) => 16,
            Totals::Distinct(sets) => sets.group_bytes(),
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
            Totals::Distinct(sets) => sets.resize(num_groups),
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
            Totals::Distinct(sets) => sets.clear(),
        }
        if let Some(valid) = &mut self.valid {
            *valid = Vec::new();
        }
    }

    /// Adds the rows that the inputs hold.
    pub(super) fn add(&mut self, inputs: &[Input], groups: Groups<'_>) {
        let Some(input) = self.input.map(|index| &inputs[index]) else { return };
        let validity = input.validity.as_ref();
        match (&mut self.valid, input.values()) {
            (Some(valid), InputValues::Codes { codes, has_null: true }) => match validity {
                None => count_codes(valid, groups, codes),
                Some(_) => add_valid(valid, groups, input.valid_codes().as_ref()),
            },
            (Some(valid), _) => add_valid(valid, groups, validity),
            (None, _) => {}
        }
        match (&mut self.totals, input.values()) {
            (Totals::Sum(sums), InputValues::Long(values)) => {
                sum_in_lanes(sums, groups, values, validity);
            }
            (Totals::WideSum(sums), InputValues::Long(values)) => {
                fold(sums, groups, values, validity, |sum, value| sum + i128::from(value));
            }
            (Totals::RealSum(sums), InputValues::Float(values)) => {
                fold(sums, groups, values, validity, |sum, value| sum + f64::from(value));
            }
            (Totals::RealSum(sums), InputValues::Double(values)) => {
                fold(sums, groups, values, validity, |sum, value| sum + value);
            }
            (Totals::Long(Extreme::Least, ends), InputValues::Long(values)) => {
                fold_least(ends, groups, values, validity);
            }
            (Totals::Long(Extreme::Greatest, ends), InputValues::Long(values)) => {
                fold_greatest(ends, groups, values, validity);
            }
            (Totals::Float(extreme, ends), InputValues::Float(values)) => {
                let extreme = *extreme;
                fold(ends, groups, values, validity, |end, value| float_end(extreme, end, value));
            }
            (Totals::Double(extreme, ends), InputValues::Double(values)) => {
                let extreme = *extreme;
                fold(ends, groups, values, validity, |end, value| double_end(extreme, end, value));
            }
            (Totals::Distinct(sets), InputValues::Codes { codes, .. }) => sets.add(groups, codes, validity),
            _ => {}
        }
    }

    /// Whether all that is wanted is a count or a sum of rows none of which is null.
    pub(super) fn takes_marked(&self, inputs: &[Input]) -> bool {
        match (&self.totals, self.input) {
            _ if self.valid.is_some() => false,
            (Totals::Nothing, None) => true,
            (Totals::Sum(_), Some(input)) => inputs[input].is_of_whole_longs(),
            _ => false,
        }
    }

    /// Adds the loaded rows whose bit is set to the only group.
    pub(super) fn add_marked(&mut self, inputs: &[Input], bits: &[u64]) {
        if let (Totals::Sum(sums), Some(input)) = (&mut self.totals, self.input)
            && let InputValues::Long(values) = inputs[input].values()
        {
            sums[0] += kernel::sum_marked(values, bits);
        }
    }

    /// The sums, if this is one of an input whose values are all valid, and the place of the input.
    pub(super) fn plain_sums(&mut self) -> Option<(usize, &mut [i64])> {
        match (&mut self.totals, self.input, &self.valid) {
            (Totals::Sum(sums), Some(input), None) => Some((input, sums)),
            _ => None,
        }
    }

    /// Takes over the states of another table's groups, each by its number here. There is room for all.
    pub(super) fn adopt(&mut self, other: &Self, numbers: &[u32], rows: Adopted<'_>) {
        if self.valid.is_some() || other.valid.is_some() {
            let valid = self.valid.get_or_insert_with(|| rows.before.to_vec());
            valid.resize(rows.num_groups, 0);
            let others = other.valid.as_deref().unwrap_or(rows.others);
            numbers.iter().zip(others).for_each(|(&number, others)| valid[number as usize] += others);
        }
        self.greatest = self.greatest.saturating_add(other.greatest);
        self.widen_if_needed();
        match (&mut self.totals, &other.totals) {
            (Totals::Sum(sums), Totals::Sum(others)) => combine(sums, others, numbers, |sum, other| sum + other),
            (Totals::WideSum(sums), Totals::WideSum(others)) => {
                combine(sums, others, numbers, |sum, other| sum + other);
            }
            (Totals::WideSum(sums), Totals::Sum(others)) => {
                combine(sums, others, numbers, |sum, other| sum + i128::from(other));
            }
            (Totals::RealSum(sums), Totals::RealSum(others)) => {
                combine(sums, others, numbers, |sum, other| sum + other);
            }
            (Totals::Long(Extreme::Least, ends), Totals::Long(_, others)) => {
                combine(ends, others, numbers, |end, other| end.min(other));
            }
            (Totals::Long(Extreme::Greatest, ends), Totals::Long(_, others)) => {
                combine(ends, others, numbers, |end, other| end.max(other));
            }
            (Totals::Float(extreme, ends), Totals::Float(_, others)) => {
                let extreme = *extreme;
                combine(ends, others, numbers, |end, other| float_end(extreme, end, other));
            }
            (Totals::Double(extreme, ends), Totals::Double(_, others)) => {
                let extreme = *extreme;
                combine(ends, others, numbers, |end, other| double_end(extreme, end, other));
            }
            (Totals::Distinct(sets), Totals::Distinct(others)) => sets.adopt(others, numbers),
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
            // `greatest` holds for every part of the segment.
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
        match (self.kind, fields) {
            (FoldKind::Count, [_]) => {
                Ok(vec![Arc::new(Int64Array::from_iter_values(counts.iter().map(|&count| count as i64)))])
            }
            (FoldKind::Average, [_, _]) => {
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
            _ => Err(Error::defensive(format!("{} has {} states", self.kind, fields.len())).into()),
        }
    }

    /// The results for some groups, as `field` says. `rows` has the number of rows of every group.
    pub(super) fn results(&self, groups: &[u32], rows: &[u64], field: &Field) -> Result<ArrayRef> {
        match (self.kind, &self.totals) {
            (FoldKind::Average, _) => {
                let counts = pick(groups, self.valid.as_deref().unwrap_or(rows), |count| count);
                let averages = counts.iter().zip(self.real_sums(groups));
                let averages = averages.map(|(&count, sum)| (count > 0).then_some(sum / count as f64));
                Ok(Arc::new(averages.collect::<Float64Array>()))
            }
            (FoldKind::EstimateDistinct, Totals::Distinct(sets)) => self.estimates(sets, groups),
            (_, Totals::Distinct(sets)) => Ok(Arc::new(Int64Array::from(pick(groups, &sets.counts(), |count| count)))),
            _ => {
                let mut states = self.states(groups, rows, &[field])?;
                states.pop().ok_or_else(|| Error::defensive("an aggregate has no result").into())
            }
        }
    }

    /// What the groups are ordered by, if they are by this aggregate: greater results have greater keys. `None` where
    /// that is not to be had cheaply, or where a result may be null.
    pub(super) fn order_keys(&self, groups: &[u32], rows: &[u64]) -> Option<Vec<i64>> {
        let counts = self.valid.as_deref().unwrap_or(rows);
        if self.kind == FoldKind::Count {
            return Some(pick(groups, counts, |count| count as i64));
        }
        if let (FoldKind::CountDistinct, Totals::Distinct(sets)) = (self.kind, &self.totals) {
            return Some(pick(groups, &sets.counts(), |count| count));
        }
        if groups.iter().any(|&group| counts[group as usize] == 0) {
            return None;
        }
        match (&self.kind, &self.totals) {
            (FoldKind::Average, _) => {
                let averages = groups.iter().zip(self.real_sums(groups));
                Some(averages.map(|(&group, sum)| float_key(sum / counts[group as usize] as f64)).collect())
            }
            (_, Totals::Sum(sums)) => Some(pick(groups, sums, |sum| sum)),
            (_, Totals::RealSum(sums)) => Some(pick(groups, sums, float_key)),
            (_, Totals::Long(_, ends)) => Some(pick(groups, ends, |end| end)),
            (_, Totals::Float(_, ends)) => Some(pick(groups, ends, |end| float_key(f64::from(end)))),
            (_, Totals::Double(_, ends)) => Some(pick(groups, ends, float_key)),
            (_, Totals::Nothing | Totals::WideSum(_) | Totals::Distinct(_)) => None,
        }
    }

    /// What the aggregate function estimates for the values of each group: a set of values is all that it depends on.
    fn estimates(&self, sets: &DistinctSets, groups: &[u32]) -> Result<ArrayRef> {
        let Some(numbering) = &self.numbering else { return Err(Error::defensive("estimates need values").into()) };
        let mut estimates = Vec::with_capacity(groups.len());
        sets.for_each_set(groups, |ordinals| {
            let values =
                ordinals.chunks(VALUES_AT_ONCE).map(|ordinals| Arc::new(numbering.values_of(ordinals)) as ArrayRef);
            estimates.push(estimate_of_texts(values)?);
            Ok(())
        })?;
        Ok(Arc::new(Int64Array::from(estimates)))
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
            (Totals::Sum(_) | Totals::WideSum(_) | Totals::Distinct(_), _) => {
                return Err(Error::defensive(format!("the state of {} cannot be {data_type}", self.kind)).into());
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

/// Floats in the total order, as integers.
fn float_key(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// What is known of the rows of the groups of two tables, of which one takes the other's over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted<'a> {
    /// Rows by group, before.
    pub(super) before: &'a [u64],
    /// Of the other table's groups.
    pub(super) others: &'a [u64],
    /// How many groups there are now.
    pub(super) num_groups: usize,
}
