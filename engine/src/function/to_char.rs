//! `to_char(timestamp, template)`: a time as text, by PostgreSQL's templates. DataFusion's own takes `strftime` patterns and
//! copies what it does not know, which answers wrongly in silence.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::DateTime;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument;
use super::pattern::Pattern;
use crate::error::Error;

const NAME: &str = "to_char";
const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(super) fn to_char() -> ScalarUDF {
    ScalarUDF::new_from_impl(ToChar { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToChar {
    signature: Signature,
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null, _] => {
                Ok(vec![MICROS, DataType::Utf8])
            }
            [other, _] => {
                let message = format!("`to_char` of {other} is not supported; it writes dates and timestamps");
                Err(Error::unsupported(message).with_sqlstate("0A000").into())
            }
            _ => argument::coerce(NAME, arg_types, 2, &[MICROS, DataType::Utf8]),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(template) = argument::constant(NAME, &args.args, 1)? else {
            return argument::null(&DataType::Utf8View);
        };
        let pattern = Pattern::template(template)?;
        argument::map_primitive::<TimestampMicrosecondType>(&args.args[0], |times| {
            let text = |micros: i64| match DateTime::from_timestamp_micros(micros) {
                Some(instant) => Ok(pattern.format(instant.naive_utc(), 0)),
                None => Err(Error::invalid_input("timestamp out of range").with_sqlstate("22008").into()),
            };
            let texts = times.iter().map(|micros| micros.map(text).transpose());
            Ok(Arc::new(texts.collect::<Result<StringViewArray>>()?) as ArrayRef)
        })
    }
}
