//! `SUM` whose integers never wrap.
//!
//! **State** (what a partial aggregate hands to the final one, also from our own operators): for integers one column
//! `Decimal128(38, 0)`, the exact sum, null if no value was seen. So sums that pass `BIGINT`'s range on the way and
//! come back are right, and only a result that does not fit is an error, SQLSTATE 22003. `SUM(DISTINCT …)` keeps a list
//! of the values. Every other type is DataFusion's own `sum`, state and all.
//!
//! The result of summing `BIGINT` is `BIGINT`, as in Druid, where PostgreSQL gives `numeric`.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};
use datafusion::physical_expr::NullState;

use crate::error::Error;

/// Digits and scale of the state: more than 2^63 rows of the largest values fit.
const STATE: DataType = DataType::Decimal128(38, 0);

/// `sum(expression)`.
pub fn sum() -> AggregateUDF {
    AggregateUDF::new_from_impl(CheckedSum { stock: Sum::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    stock: Sum,
}

/// Makes an accumulator for the integers of `$type`, or asks DataFusion's `sum`.
macro_rules! for_integers {
    ($type:expr, $make:ident, $stock:expr) => {
        match $type {
            DataType::Int64 => Ok(Box::new($make::<Int64Type>::default())),
            DataType::UInt64 => Ok(Box::new($make::<UInt64Type>::default())),
            _ => $stock,
        }
    };
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.stock.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type();
        if args.is_distinct {
            return for_integers!(data_type, DistinctTotal, self.stock.accumulator(args));
        }
        for_integers!(data_type, Total, self.stock.accumulator(args))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct || !is_integer(args.return_field.data_type()) {
            return self.stock.state_fields(args);
        }
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sum"), STATE, true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.stock.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        for_integers!(args.return_field.data_type(), GroupTotals, self.stock.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return self.stock.create_sliding_accumulator(args);
        }
        for_integers!(args.return_field.data_type(), Total, self.stock.create_sliding_accumulator(args))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> datafusion::logical_expr::utils::AggregateOrderSensitivity {
        self.stock.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.stock.set_monotonicity(data_type)
    }
}

/// An integer that is summed in 128 bits.
trait Summand: ArrowPrimitiveType + Debug + Send + Sync
where
    Self::Native: Into<i128> + TryFrom<i128> + Hash + Eq,
{
    /// The sum of a slice. Halves are summed apart, so that the loop stays in 64 bits and is vectorised.
    fn total(values: &[Self::Native]) -> i128;
}

/// Slices up to this length cannot overflow the sums of their 32-bit halves.
const SLICE: usize = 1 << 30;

impl Summand for Int64Type {
    fn total(values: &[i64]) -> i128 {
        let slice = |values: &[i64]| {
            let (mut low, mut high) = (0_u64, 0_i64);
            for value in values {
                low += u64::from(*value as u32);
                high += value >> 32;
            }
            (i128::from(high) << 32) + i128::from(low)
        };
        values.chunks(SLICE).map(slice).sum()
    }
}

impl Summand for UInt64Type {
    fn total(values: &[u64]) -> i128 {
        let slice = |values: &[u64]| {
            let (mut low, mut high) = (0_u64, 0_u64);
            for value in values {
                low += u64::from(*value as u32);
                high += value >> 32;
            }
            (i128::from(high) << 32) + i128::from(low)
        };
        values.chunks(SLICE).map(slice).sum()
    }
}

/// The sum of the values that are not null.
fn total<T: Summand>(values: &PrimitiveArray<T>) -> i128
where
    T::Native: Into<i128> + TryFrom<i128> + Hash + Eq,
{
    match values.nulls() {
        None => T::total(values.values()),
        Some(nulls) => nulls.valid_slices().map(|(start, end)| T::total(&values.values()[start..end])).sum(),
    }
}

/// A sum as its result type, or the error that it does not fit.
fn narrow<T: Summand>(sum: i128) -> Result<T::Native>
where
    T::Native: Into<i128> + TryFrom<i128> + Hash + Eq,
{
    T::Native::try_from(sum).map_err(|_| {
        Error::invalid_input(format!("bigint out of range: a sum is {sum}"))
            .with_sqlstate("22003")
            .with_hint("cast what is summed to `numeric` or `double precision`")
            .into()
    })
}

/// The sum without groups, and over a sliding window.
#[derive(Debug)]
struct Total<T> {
    sum: i128,
    count: u64,
    summand: std::marker::PhantomData<T>,
}

impl<T> Default for Total<T> {
    fn default() -> Self {
        Self { sum: 0, count: 0, summand: std::marker::PhantomData }
    }
}

impl<T: Summand> Accumulator for Total<T>
where
    T::Native: Into<i128> + TryFrom<i128> + Hash + Eq,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<T>();
        self.sum += total(values);
        self.count += (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<T>();
        self.sum -= total(values);
        self.count -= (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128((self.count > 0).then_some(self.sum), 38, 0)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for sum in states[0].as_primitive::<Decimal128Type>().iter().flatten() {
            self.sum += sum;
            self.count += 1;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = if self.count > 0 { Some(narrow::<T>(self.sum)?) } else { None };
        ScalarValue::new_primitive::<T>(sum, &T::DATA_TYPE)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sum of distinct values, without groups.
#[derive(Debug)]
struct DistinctTotal<T: ArrowPrimitiveType> {
    values: HashSet<T::Native>,
}

impl<T: ArrowPrimitiveType> Default for DistinctTotal<T> {
    fn default() -> Self {
        Self { values: HashSet::new() }
    }
}

impl<T: Summand> Accumulator for DistinctTotal<T>
where
    T::Native: Into<i128> + TryFrom<i128> + Hash + Eq,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.extend(values[0].as_primitive::<T>().iter().flatten());
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<T>::from_iter_values(self.values.iter().copied());
        Ok(vec![SingleRowListArrayBuilder::new(Arc::new(values)).build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum: i128 = self.values.iter().map(|value| (*value).into()).sum();
        let sum = if self.values.is_empty() { None } else { Some(narrow::<T>(sum)?) };
        ScalarValue::new_primitive::<T>(sum, &T::DATA_TYPE)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<T::Native>()
    }
}

/// The sums of many groups.
#[derive(Debug)]
struct GroupTotals<T> {
    sums: Vec<i128>,
    seen: NullState,
    summand: std::marker::PhantomData<T>,
}

impl<T> Default for GroupTotals<T> {
    fn default() -> Self {
        Self { sums: Vec::new(), seen: NullState::new(), summand: std::marker::PhantomData }
    }
}

impl<T> GroupTotals<T> {
    fn add<I: ArrowPrimitiveType + Send>(
        &mut self,
        values: &PrimitiveArray<I>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        num_groups: usize,
    ) where
        I::Native: Into<i128>,
    {
        self.sums.resize(num_groups, 0);
        let sums = &mut self.sums;
        self.seen.accumulate(groups, values, filter, num_groups, |group, value| sums[group] += value.into());
    }
}

impl<T: Summand> GroupsAccumulator for GroupTotals<T>
where
    T::Native: Into<i128> + TryFrom<i128> + Hash + Eq,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        num_groups: usize,
    ) -> Result<()> {
        self.add(values[0].as_primitive::<T>(), groups, filter, num_groups);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], num_groups: usize) -> Result<()> {
        self.add(states[0].as_primitive::<Decimal128Type>(), groups, None, num_groups);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = emit_to.take_needed(&mut self.sums);
        let nulls = self.seen.build(emit_to);
        // A group without values has the sum 0, which fits.
        let values = sums.into_iter().map(narrow::<T>).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = emit_to.take_needed(&mut self.sums);
        let nulls = self.seen.build(emit_to);
        Ok(vec![Arc::new(Decimal128Array::new(sums.into(), nulls).with_data_type(STATE))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T>();
        let passed = filter.map(|filter| match filter.nulls() {
            Some(known) => NullBuffer::new(filter.values() & known.inner()),
            None => NullBuffer::new(filter.values().clone()),
        });
        let nulls = NullBuffer::union(values.nulls(), passed.as_ref());
        let sums: Vec<i128> = values.values().iter().map(|value| (*value).into()).collect();
        Ok(vec![Arc::new(Decimal128Array::new(sums.into(), nulls).with_data_type(STATE))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use proptest::prelude::*;

    use super::*;

    fn array(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    #[test]
    fn a_sum_may_leave_the_range_and_come_back() {
        let mut sum = Total::<Int64Type>::default();
        sum.update_batch(&[array(&[Some(i64::MAX), Some(i64::MAX)])]).unwrap();
        assert!(sum.evaluate().unwrap_err().to_string().contains("bigint out of range"));
        sum.update_batch(&[array(&[Some(-i64::MAX), None])]).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Int64(Some(i64::MAX)));
    }

    #[test]
    fn a_window_forgets_what_left_it() {
        let mut sum = Total::<Int64Type>::default();
        sum.update_batch(&[array(&[Some(5), None])]).unwrap();
        sum.retract_batch(&[array(&[Some(5), None])]).unwrap();
        assert_eq!(sum.evaluate().unwrap(), ScalarValue::Int64(None));
    }

    proptest! {
        #[test]
        fn groups_in_two_parts_are_the_exact_sums(
            rows in prop::collection::vec((any::<Option<i64>>(), 0..4_usize, any::<bool>()), 0..200), cut in 0..200_usize,
        ) {
            let cut = cut.min(rows.len());
            let mut merged = GroupTotals::<Int64Type>::default();
            // Makes the four groups known, as the grouping does before it hands over rows of them.
            let unseen: ArrayRef = Arc::new(Decimal128Array::from(vec![None; 4]).with_data_type(STATE));
            merged.merge_batch(&[unseen], &[0, 1, 2, 3], 4).unwrap();
            for part in [&rows[..cut], &rows[cut..]] {
                let values = array(&part.iter().map(|row| row.0).collect::<Vec<_>>());
                let groups: Vec<usize> = part.iter().map(|row| row.1).collect();
                let filter: BooleanArray = part.iter().map(|row| Some(row.2)).collect();
                let state = if part.len() % 2 == 0 {
                    let mut partial = GroupTotals::<Int64Type>::default();
                    partial.update_batch(&[values], &groups, Some(&filter), 4).unwrap();
                    merged.merge_batch(&partial.state(EmitTo::All).unwrap(), &[0, 1, 2, 3], 4)
                } else {
                    let state = merged.convert_to_state(&[values], Some(&filter)).unwrap();
                    merged.merge_batch(&state, &groups, 4)
                };
                state.unwrap();
            }
            let state = merged.state(EmitTo::All).unwrap();
            for group in 0..4 {
                let mut values = rows.iter().filter(|row| row.1 == group && row.2).filter_map(|row| row.0).peekable();
                let expected = values.peek().is_some().then(|| values.map(i128::from).sum::<i128>());
                let sums = state[0].as_primitive::<Decimal128Type>();
                prop_assert_eq!(sums.is_valid(group).then(|| sums.value(group)), expected);
            }
        }

        #[test]
        fn halves_add_up(values in prop::collection::vec(any::<i64>(), 0..50)) {
            prop_assert_eq!(Int64Type::total(&values), values.iter().map(|value| i128::from(*value)).sum::<i128>());
        }
    }
}
