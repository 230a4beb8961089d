//! Functions that are asked seldom: computed value by value, null where an argument is null.

use std::hash::{Hash, Hasher};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument;

/// Answers one row. Made anew for every batch, so it may keep what it has prepared.
pub(super) type Body = Box<dyn FnMut(&[ScalarValue]) -> Result<ScalarValue>>;

/// The types that arguments are brought to, by those given.
type Coerce = fn(&str, &[DataType]) -> Result<Vec<DataType>>;

/// A function of this name. `coerce` says what its arguments are brought to, `body` how it answers.
pub(super) fn by_row(name: &'static str, coerce: Coerce, returns: DataType, body: fn() -> Body) -> ScalarUDF {
    ScalarUDF::new_from_impl(ByRow { name, signature: argument::signature(), coerce, returns, body })
}

#[derive(Debug)]
struct ByRow {
    name: &'static str,
    signature: Signature,
    coerce: Coerce,
    returns: DataType,
    body: fn() -> Body,
}

// Within one session a name is one function.
impl PartialEq for ByRow {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ByRow {}

impl Hash for ByRow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for ByRow {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        (self.coerce)(self.name, arg_types)
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns: Vec<ArrayRef> = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
        let mut body = (self.body)();
        let mut answer = |row: usize| -> Result<ScalarValue> {
            let values: Vec<ScalarValue> =
                columns.iter().map(|column| ScalarValue::try_from_array(column, row)).collect::<Result<_>>()?;
            if values.iter().any(ScalarValue::is_null) {
                return ScalarValue::try_new_null(&self.returns);
            }
            body(&values)
        };
        if constant {
            return Ok(ColumnarValue::Scalar(answer(0)?));
        }
        if rows == 0 {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.returns)));
        }
        let answers = (0..rows).map(answer).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(answers)?))
    }
}

/// The text of an argument that was brought to one.
pub(super) fn text(value: &ScalarValue) -> &str {
    value.try_as_str().flatten().unwrap_or_default()
}

/// The number of an argument that was brought to a bigint.
pub(super) fn long(value: &ScalarValue) -> i64 {
    if let ScalarValue::Int64(Some(number)) = value { *number } else { 0 }
}

/// The number of an argument that was brought to a double.
pub(super) fn double(value: &ScalarValue) -> f64 {
    if let ScalarValue::Float64(Some(number)) = value { *number } else { 0.0 }
}
