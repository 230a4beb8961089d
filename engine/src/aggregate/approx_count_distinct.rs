//! `APPROX_COUNT_DISTINCT(x)`: DataFusion's HyperLogLog, counted as `BIGINT`, as Druid and PostgreSQL's clients expect.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;

use crate::error::Error;

pub(crate) const NAME: &str = "approx_count_distinct";

pub(super) fn approx_count_distinct() -> AggregateUDF {
    AggregateUDF::new_from_impl(ApproxCountDistinct {
        stock: approx_distinct_udaf(),
        aliases: vec!["approx_count_distinct_builtin".to_string()],
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ApproxCountDistinct {
    stock: Arc<AggregateUDF>,
    aliases: Vec<String>,
}

impl AggregateUDFImpl for ApproxCountDistinct {
    fn name(&self) -> &str {
        NAME
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Count { stock: self.stock.accumulator(args)? }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.stock.state_fields(args)
    }
}

/// What the function gives for these arrays of texts, none of which is null.
pub(crate) fn estimate_of_texts(values: impl Iterator<Item = ArrayRef>) -> Result<i64> {
    let field: FieldRef = Arc::new(Field::new("value", DataType::Utf8View, false));
    let schema = Schema::new(vec![Arc::clone(&field)]);
    let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("value", 0));
    let mut estimate = approx_distinct_udaf().accumulator(AccumulatorArgs {
        return_field: Arc::new(Field::new(NAME, DataType::UInt64, false)),
        schema: &schema,
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: NAME,
        is_distinct: false,
        exprs: &[column],
        expr_fields: &[field],
    })?;
    for values in values {
        estimate.update_batch(&[values])?;
    }
    match estimate.evaluate()?.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(estimate)) => Ok(estimate),
        other => Err(Error::defensive(format!("an estimate of distinct values is {other}")).into()),
    }
}

/// DataFusion's accumulator, whose count is unsigned.
#[derive(Debug)]
struct Count {
    stock: Box<dyn Accumulator>,
}

impl Accumulator for Count {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.stock.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.stock.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.stock.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.stock.evaluate()?.cast_to(&DataType::Int64)
    }

    fn size(&self) -> usize {
        self.stock.size()
    }
}
