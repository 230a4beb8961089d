//! `generate_series` as a table, of times as PostgreSQL has them.
//!
//! DataFusion's wants constants of nanoseconds, and gives nanoseconds. Here the bounds may be any time or its text, the step any
//! interval or its text, and what comes out is microseconds again.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::catalog::{TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, col};

const NAME: &str = "generate_series";

/// The function in place of `inner`, which is DataFusion's.
pub(super) fn generate_series(inner: &TableFunction) -> Arc<TableFunction> {
    Arc::new(TableFunction::new(NAME.to_owned(), Arc::new(Series { inner: Arc::clone(inner.function()) })))
}

#[derive(Debug)]
struct Series {
    inner: Arc<dyn TableFunctionImpl>,
}

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let Some(kind) = args.exprs().iter().find_map(time_of) else { return self.inner.call_with_args(args) };
        let nanos = match &kind {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()),
            other => other.clone(),
        };
        let wanted = [nanos.clone(), nanos, DataType::Interval(IntervalUnit::MonthDayNano)];
        let exprs = args.exprs().iter().zip(&wanted).map(|(expr, wanted)| constant(expr, wanted));
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        let table = self.inner.call_with_args(TableFunctionArgs::new(&exprs, args.session()))?;
        let DataType::Timestamp(_, zone) = kind else { return Ok(table) };
        let micros = cast(col("value"), DataType::Timestamp(TimeUnit::Microsecond, zone)).alias("value");
        let plan = LogicalPlanBuilder::scan(NAME, provider_as_source(table), None)?.project([micros])?.build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

/// The type of a constant that is a time.
fn time_of(expr: &Expr) -> Option<DataType> {
    match expr {
        Expr::Literal(value, _) => match value.data_type() {
            DataType::Date32 => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
            time @ DataType::Timestamp(..) => Some(time),
            _ => None,
        },
        _ => None,
    }
}

fn constant(expr: &Expr, wanted: &DataType) -> Result<Expr> {
    match expr {
        Expr::Literal(value, metadata) if !value.is_null() => {
            let value: ScalarValue = value.cast_to(wanted)?;
            Ok(Expr::Literal(value, metadata.clone()))
        }
        other => Ok(other.clone()),
    }
}
