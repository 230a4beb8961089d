//! `STRING_AGG`: DataFusion's, with the size of what it takes. Its texts grow by doubling, and are copied once more when they
//! are given out; sorted or distinct ones are values one by one.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions_aggregate::string_agg::StringAgg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature};

use super::weighed::{Weighed, WeighedGroups};

/// How much more than it says it takes.
const TIMES: usize = 3;

/// `string_agg(expression, delimiter ORDER BY …)`.
pub(super) fn string_agg() -> AggregateUDF {
    AggregateUDF::new_from_impl(Join { stock: Arc::new(StringAgg::new()) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Join {
    stock: Arc<StringAgg>,
}

impl AggregateUDFImpl for Join {
    fn name(&self) -> &str {
        "string_agg"
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.stock.return_type(arg_types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.stock.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Weighed::new(self.stock.accumulator(args)?, TIMES)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.stock.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.stock.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(WeighedGroups::new(self.stock.create_groups_accumulator(args)?, TIMES)))
    }
}
