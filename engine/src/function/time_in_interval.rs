//! `TIME_IN_INTERVAL(timestamp, 'start/end')`: whether an instant lies in an ISO-8601 interval, start included, end not.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, TimestampMillisecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, lit};

use super::argument::{self, TIME};
use crate::model::{Interval, Timestamp};

const NAME: &str = "time_in_interval";

pub(super) fn time_in_interval() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimeInInterval { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeInInterval {
    signature: Signature,
}

impl ScalarUDFImpl for TimeInInterval {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 2, &[TIME, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    /// Becomes two comparisons, which prune segments.
    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(text) = argument::literal(&args, 1) else { return Ok(ExprSimplifyResult::Original(args)) };
        let interval = Interval::from_str(text)?;
        let bound = |instant: Timestamp| lit(ScalarValue::TimestampMillisecond(Some(instant.millis()), None));
        let time = args[0].clone();
        let within = time.clone().gt_eq(bound(interval.start())).and(time.lt(bound(interval.end())));
        Ok(ExprSimplifyResult::Simplified(within))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(text) = argument::constant(NAME, &args.args, 1)? else { return argument::null(&DataType::Boolean) };
        let interval = Interval::from_str(text)?;
        argument::map_primitive::<TimestampMillisecondType>(&args.args[0], |times| {
            let within = |millis: Option<i64>| millis.map(|millis| interval.contains(Timestamp::from_millis(millis)));
            Ok(Arc::new(times.iter().map(within).collect::<BooleanArray>()) as ArrayRef)
        })
    }
}
