//! `TIME_FORMAT(timestamp [, pattern [, time zone]])`: a time as text, by a Joda pattern; ISO-8601 without one.

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};
use super::pattern::Pattern;

const NAME: &str = "time_format";

pub(super) fn time_format() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimeFormat { signature: argument::signature() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeFormat {
    signature: Signature,
}

impl ScalarUDFImpl for TimeFormat {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 1, &[TIME, DataType::Utf8, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if argument::is_null(&args.args, 1) {
            return argument::null(&DataType::Utf8View);
        }
        let pattern = Pattern::joda(argument::constant(NAME, &args.args, 1)?.unwrap_or("yyyy-MM-dd'T'HH:mm:ss.SSSZZ"))?;
        let zone = argument::zone(NAME, &args.args, 2)?;
        argument::map_string(&args, |instant| {
            let local = argument::local(instant, zone)?;
            Ok(pattern.format(local, zone.offset_millis(instant)))
        })
    }
}
