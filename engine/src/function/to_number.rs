//! `to_number(text, template)`: a number, read by PostgreSQL's templates.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::argument;
use super::pattern::NumberTemplate;
use crate::error::Error;

const NAME: &str = "to_number";
const PRECISION: u8 = 38;

pub(super) fn to_number() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToNumber { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToNumber {
    signature: Signature,
}

impl ScalarUDFImpl for ToNumber {
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
        Ok(DataType::Decimal128(PRECISION, 0))
    }

    /// As many decimals as the template has.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let template = args.scalar_arguments.get(1).copied().flatten();
        let decimals = match template.and_then(|template| template.try_as_str().flatten()) {
            Some(template) => scale(&NumberTemplate::parse(template)?)?,
            None => 0,
        };
        Ok(Arc::new(Field::new(NAME, DataType::Decimal128(PRECISION, decimals), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(template) = argument::constant(NAME, &args.args, 1)? else {
            return argument::null(args.return_field.data_type());
        };
        let template = NumberTemplate::parse(template)?;
        let scale = scale(&template)?;
        let numbers = |texts: &ArrayRef| -> Result<Decimal128Array> {
            let read = |text: Option<&str>| text.map(|text| value(&template, text, scale)).transpose();
            let numbers = texts.as_string_view().iter().map(read).collect::<Result<Decimal128Array>>()?;
            Ok(numbers.with_precision_and_scale(PRECISION, scale)?)
        };
        match &args.args[0] {
            ColumnarValue::Array(texts) => Ok(ColumnarValue::Array(Arc::new(numbers(texts)?))),
            ColumnarValue::Scalar(text) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&numbers(&text.to_array()?)?, 0)?))
            }
        }
    }
}

fn scale(template: &NumberTemplate) -> Result<i8> {
    match i8::try_from(template.decimals()) {
        Ok(scale) if scale <= PRECISION as i8 => Ok(scale),
        _ => {
            let message = format!("a template of `to_number` has at most {PRECISION} digits");
            Err(Error::unsupported(message).with_sqlstate("0A000").into())
        }
    }
}

fn value(template: &NumberTemplate, text: &str, scale: i8) -> Result<i128> {
    let (negative, whole, fraction) = template.read(text);
    if whole.is_empty() && fraction.is_empty() {
        let message = format!("invalid input syntax for type numeric: `{text}`");
        return Err(Error::invalid_input(message).with_sqlstate("22P02").into());
    }
    let digits = format!("{whole}{fraction:0<width$}", width = scale as usize);
    let digits = digits.trim_start_matches('0');
    if digits.len() > usize::from(PRECISION) {
        let message = format!("`{text}` has more than {PRECISION} digits");
        return Err(Error::invalid_input(message).with_sqlstate("22003").into());
    }
    let number: i128 = if digits.is_empty() { 0 } else { digits.parse().unwrap_or_default() };
    Ok(if negative { -number } else { number })
}
