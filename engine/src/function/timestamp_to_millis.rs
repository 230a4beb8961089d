//! `TIMESTAMP_TO_MILLIS(timestamp)`: the milliseconds since 1970 of an instant.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use datafusion::common::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};

const NAME: &str = "timestamp_to_millis";

pub(super) fn timestamp_to_millis() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimestampToMillis { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimestampToMillis {
    signature: Signature,
}

impl ScalarUDFImpl for TimestampToMillis {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 1, &[TIME])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        argument::map_primitive::<TimestampMillisecondType>(&args.args[0], |times| {
            Ok(Arc::new(times.reinterpret_cast::<Int64Type>()) as ArrayRef)
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(inputs[0].sort_properties)
    }
}
