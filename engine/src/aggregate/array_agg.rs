//! `ARRAY_AGG` that says how much memory it takes, so that the memory limit bounds it, and sorts columns, not values.
//!
//! **State:** a list of the values of each group and, for each expression of `ORDER BY`, a list of what it is beside them, in
//! any order: lists are sorted when they are given out. `ARRAY_AGG(DISTINCT …)` and windows whose frames move are
//! DataFusion's own.

mod lists;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::array_agg::ArrayAgg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature};

use self::lists::{Lists, list_of};
use super::weighed::Weighed;

/// How much more than it says DataFusion's takes of distinct values: each becomes a value by itself when they are given out.
const DISTINCT: usize = 3;

/// `array_agg(expression ORDER BY …)`.
pub(super) fn array_agg() -> AggregateUDF {
    AggregateUDF::new_from_impl(Collect { stock: ArrayAgg::default() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Collect {
    stock: ArrayAgg,
}

impl AggregateUDFImpl for Collect {
    fn name(&self) -> &str {
        "array_agg"
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.stock.return_type(arg_types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            return self.stock.state_fields(args);
        }
        let list = |(place, field): (usize, &FieldRef)| {
            let name = format_state_name(args.name, &format!("array_agg_{place}"));
            Arc::new(Field::new(name, list_of(field.data_type()), true))
        };
        Ok(args.input_fields.iter().take(1).chain(args.ordering_fields).enumerate().map(list).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Ok(Box::new(Weighed::new(self.stock.accumulator(args)?, DISTINCT)));
        }
        Ok(Box::new(OneList(Lists::of(&args)?)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.stock.accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(ManyLists(Lists::of(&args)?)))
    }

    /// Rows may come in any order. Those that are sorted already are sorted again.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Beneficial
    }

    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn supports_null_handling_clause(&self) -> bool {
        true
    }
}

/// Of a query without `GROUP BY`, or of a window.
#[derive(Debug)]
struct OneList(Lists);

impl Accumulator for OneList {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; values[0].len()];
        self.0.add(values, groups, None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; states[0].len()];
        self.0.merge(states, &groups, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.sorted(1)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state(1)?.iter().map(|list| ScalarValue::try_from_array(list, 0)).collect()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }
}

/// Of the groups of a query.
#[derive(Debug)]
struct ManyLists(Lists);

impl ManyLists {
    fn wanted(&self, emit_to: EmitTo) -> usize {
        match emit_to {
            EmitTo::All => self.0.groups(),
            EmitTo::First(groups) => groups,
        }
    }
}

impl GroupsAccumulator for ManyLists {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let groups = group_indices.iter().map(|group| *group as u32).collect();
        self.0.add(values, groups, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let wanted = self.wanted(emit_to);
        let lists = self.0.sorted(wanted)?;
        self.0.forget(wanted)?;
        Ok(lists)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let wanted = self.wanted(emit_to);
        let lists = self.0.state(wanted)?;
        self.0.forget(wanted)?;
        Ok(lists)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.0.merge(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.0.one_by_one(values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }
}
