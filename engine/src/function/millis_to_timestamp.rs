//! `MILLIS_TO_TIMESTAMP(milliseconds)`: an instant from the milliseconds since 1970.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use datafusion::common::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};

const NAME: &str = "millis_to_timestamp";

pub(super) fn millis_to_timestamp() -> ScalarUDF {
    ScalarUDF::new_from_impl(MillisToTimestamp { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct MillisToTimestamp {
    signature: Signature,
}

impl ScalarUDFImpl for MillisToTimestamp {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 1, &[DataType::Int64])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        argument::map_primitive::<Int64Type>(&args.args[0], |millis| {
            Ok(Arc::new(millis.reinterpret_cast::<TimestampMillisecondType>()) as ArrayRef)
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(inputs[0].sort_properties)
    }
}
