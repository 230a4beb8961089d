//! `EARLIEST`, `LATEST` and `ANY_VALUE`: DataFusion's first and last value under Druid's names. The session adds the order
//! of time to the first two.

use datafusion::functions_aggregate::first_last::{first_value_udaf, last_value_udaf};
use datafusion::logical_expr::AggregateUDF;

pub(super) fn first() -> AggregateUDF {
    first_value_udaf().as_ref().clone().with_aliases(["earliest", "earliest_by", "any_value"])
}

pub(super) fn last() -> AggregateUDF {
    last_value_udaf().as_ref().clone().with_aliases(["latest", "latest_by"])
}
