//! Rounding as PostgreSQL does it when a number becomes an integer: `numeric` half away from zero, floating point half to
//! even. Not called by name; prints as its argument.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The nearest whole number, in the argument's own type.
pub fn round_whole() -> ScalarUDF {
    ScalarUDF::new_from_impl(RoundWhole { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundWhole {
    signature: Signature,
}

impl ScalarUDFImpl for RoundWhole {
    fn name(&self) -> &str {
        "round_whole"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args[0].schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(round(values))),
            ColumnarValue::Scalar(value) => {
                let rounded = round(&value.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded, 0)?))
            }
        }
    }
}

fn round(values: &dyn Array) -> ArrayRef {
    match values.data_type() {
        DataType::Float32 => {
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
        }
        DataType::Float64 => {
            Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
        }
        DataType::Decimal128(_, scale) if *scale > 0 => {
            let unit = 10_i128.pow(u32::from(scale.unsigned_abs()));
            let whole = |value: i128| {
                let rest = value % unit;
                let away = if rest.abs() * 2 >= unit { unit * value.signum() } else { 0 };
                value - rest + away
            };
            let rounded = values.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(whole);
            Arc::new(rounded.with_data_type(values.data_type().clone()))
        }
        _ => arrow::array::make_array(values.to_data()),
    }
}
