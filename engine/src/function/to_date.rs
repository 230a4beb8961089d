//! `to_date(text, template)`: a date, by PostgreSQL's templates.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array};
use arrow::datatypes::{DataType, Date32Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument;
use super::pattern::Pattern;
use super::to_timestamp::by_template;

const NAME: &str = "to_date";

pub(super) fn to_date() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToDate { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToDate {
    signature: Signature,
}

impl ScalarUDFImpl for ToDate {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 2, &[DataType::Utf8View, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Date32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(template) = argument::constant(NAME, &args.args, 1)? else {
            return argument::null(&DataType::Date32);
        };
        let pattern = Pattern::template(template)?;
        let read = |text: &str| Ok(Date32Type::from_naive_date(by_template(&pattern, text, template)?.date()));
        let dates = |texts: &ArrayRef| -> Result<Date32Array> {
            texts.as_string_view().iter().map(|text| text.map(read).transpose()).collect()
        };
        match &args.args[0] {
            ColumnarValue::Array(texts) => Ok(ColumnarValue::Array(Arc::new(dates(texts)?))),
            ColumnarValue::Scalar(text) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&dates(&text.to_array()?)?, 0)?))
            }
        }
    }
}
