//! `TIME_CEIL(timestamp, period [, origin [, time zone]])`: the first bucket's start that is not before an instant.

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};
use super::time_floor::{Finder, granularity};

const NAME: &str = "time_ceil";

pub(super) fn time_ceil() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimeCeil { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeCeil {
    signature: Signature,
}

impl ScalarUDFImpl for TimeCeil {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 2, &[TIME, DataType::Utf8, TIME, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(granularity) = granularity(NAME, &args.args)? else { return argument::null(&TIME) };
        let mut finder = Finder::new(granularity);
        argument::map_time(&args, |instant| {
            let bucket = finder.bucket(instant);
            Ok(if bucket.start() == instant { instant } else { bucket.end() })
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let constant = inputs[1..].iter().all(|input| input.sort_properties == SortProperties::Singleton);
        Ok(if constant { inputs[0].sort_properties } else { SortProperties::Unordered })
    }
}
