//! Arithmetic that fails instead of wrapping: what `+`, `-`, `*` and the minus sign of integers become, and `/` of
//! floating-point numbers, which PostgreSQL refuses to do by zero.
//!
//! Not called by name: the session's rules put them in place of DataFusion's operators once types are settled. They
//! print as the operators they stand for, so that column names and plans read as written.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Negate,
}

/// The function that does what `operator` does to two values of this type, checked; `None` if DataFusion's own is
/// checked, or the type cannot overflow.
pub fn checked(operator: Operator, data_type: &DataType) -> Option<ScalarUDF> {
    let operation = match operator {
        Operator::Plus if data_type.is_integer() => Operation::Add,
        Operator::Minus if data_type.is_integer() => Operation::Subtract,
        Operator::Multiply if data_type.is_integer() => Operation::Multiply,
        Operator::Divide if matches!(data_type, DataType::Float32 | DataType::Float64) => Operation::Divide,
        _ => return None,
    };
    Some(function(operation))
}

/// The minus sign before an integer, checked; `None` for other types.
pub fn checked_negation(data_type: &DataType) -> Option<ScalarUDF> {
    data_type.is_signed_integer().then(|| function(Operation::Negate))
}

/// All of them, to be found by name in a plan from elsewhere.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    use Operation::{Add, Divide, Multiply, Negate, Subtract};
    [Add, Subtract, Multiply, Divide, Negate].into_iter().map(|operation| Arc::new(function(operation))).collect()
}

fn function(operation: Operation) -> ScalarUDF {
    ScalarUDF::new_from_impl(Checked { operation, signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl Checked {
    /// The operator on these arguments, as DataFusion would have it.
    fn plain(&self, args: &[Expr]) -> Expr {
        match (self.operator(), args) {
            (Some(operator), [left, right]) => {
                Expr::BinaryExpr(BinaryExpr::new(Box::new(left.clone()), operator, Box::new(right.clone())))
            }
            _ => Expr::Negative(Box::new(args[0].clone())),
        }
    }

    fn operator(&self) -> Option<Operator> {
        match self.operation {
            Operation::Add => Some(Operator::Plus),
            Operation::Subtract => Some(Operator::Minus),
            Operation::Multiply => Some(Operator::Multiply),
            Operation::Divide => Some(Operator::Divide),
            Operation::Negate => None,
        }
    }

    fn apply(&self, left: &dyn Datum, right: Option<&dyn Datum>) -> Result<ArrayRef, ArrowError> {
        match (self.operation, right) {
            (Operation::Add, Some(right)) => numeric::add(left, right),
            (Operation::Subtract, Some(right)) => numeric::sub(left, right),
            (Operation::Multiply, Some(right)) => numeric::mul(left, right),
            (Operation::Divide, Some(right)) => {
                if has_zero(right.get().0) {
                    return divide_where_known(left, right);
                }
                numeric::div(left, right)
            }
            _ => numeric::neg(left.get().0),
        }
    }
}

fn has_zero(divisors: &dyn Array) -> bool {
    match divisors.data_type() {
        DataType::Float32 => divisors.as_primitive::<Float32Type>().iter().any(|value| value == Some(0.0)),
        DataType::Float64 => divisors.as_primitive::<Float64Type>().iter().any(|value| value == Some(0.0)),
        _ => false,
    }
}

/// Divides where some divisor is zero: an error unless what would be divided is null there.
fn divide_where_known(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    let quotients = numeric::div(left, right)?;
    let zeros = arrow::compute::kernels::cmp::eq(right, &zero(right.get().0.data_type())?)?;
    let known = arrow::compute::is_not_null(&quotients)?;
    let is_zero = |row: usize| zeros.is_valid(row % zeros.len()) && zeros.value(row % zeros.len());
    if (0..quotients.len()).any(|row| known.value(row) && is_zero(row)) {
        return Err(ArrowError::DivideByZero);
    }
    Ok(quotients)
}

fn zero(data_type: &DataType) -> Result<arrow::array::Scalar<ArrayRef>, ArrowError> {
    let zero = ScalarValue::new_zero(data_type).and_then(|zero| zero.to_scalar());
    zero.map_err(|error| ArrowError::ExternalError(Box::new(error)))
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
            Operation::Divide => "checked_divide",
            Operation::Negate => "checked_negate",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.plain(args).to_string())
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        // As of the operator, but without a copy of what is below: names are asked for at every level of a long sum.
        Ok(match (self.operator(), args) {
            (Some(operator), [left, right]) => format!("{} {operator} {}", left.schema_name(), right.schema_name()),
            _ => self.plain(args).schema_name().to_string(),
        })
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
        let datum = |value: &ColumnarValue| -> Result<Box<dyn Datum>> {
            Ok(match value {
                ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
                ColumnarValue::Scalar(value) => Box::new(value.to_scalar()?),
            })
        };
        let left = datum(&args.args[0])?;
        let right = args.args.get(1).map(datum).transpose()?;
        let result = self.apply(left.as_ref(), right.as_deref())?;
        match args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}
