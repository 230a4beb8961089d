//! What the catalogue's functions are made of.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

pub(super) fn list(items: &[&str]) -> ScalarValue {
    SingleRowListArrayBuilder::new(Arc::new(StringArray::from(items.to_vec()))).build_list_scalar()
}

/// Answers `value`, whatever it is asked.
pub(super) fn constant(name: &str, value: ScalarValue) -> ScalarUDF {
    let returns = value.data_type();
    CatalogFunction::new(name, returns, move |_, _| Ok(ColumnarValue::Scalar(value.clone()))).into()
}

/// Answers each number of the first argument; null for null.
pub(super) fn numbered(
    name: &str,
    returns: DataType,
    answer: impl Fn(i64) -> ScalarValue + Send + Sync + 'static,
) -> ScalarUDF {
    of_numbers(name, returns, answer).into()
}

/// The same, of a function that does something, so that it is called for every row and no more.
pub(super) fn numbered_volatile(
    name: &str,
    returns: DataType,
    answer: impl Fn(i64) -> ScalarValue + Send + Sync + 'static,
) -> ScalarUDF {
    of_numbers(name, returns, answer).volatile().into()
}

fn of_numbers(
    name: &str,
    returns: DataType,
    answer: impl Fn(i64) -> ScalarValue + Send + Sync + 'static,
) -> CatalogFunction {
    let null = ScalarValue::try_from(&returns).unwrap_or(ScalarValue::Null);
    CatalogFunction::new(name, returns.clone(), move |arguments, rows| {
        let numbers = numbers(arguments, 0, rows)?;
        each(&returns, numbers.iter().map(|number| number.map_or_else(|| null.clone(), &answer)))
    })
}

/// Answers each text of the first argument; null for null.
pub(super) fn worded(
    name: &str,
    returns: DataType,
    answer: impl Fn(&str) -> ScalarValue + Send + Sync + 'static,
) -> ScalarUDF {
    let null = ScalarValue::try_from(&returns).unwrap_or(ScalarValue::Null);
    CatalogFunction::new(name, returns.clone(), move |arguments, rows| {
        let texts = cast(arguments, 0, rows, &DataType::Utf8)?;
        each(&returns, texts.as_string::<i32>().iter().map(|text| text.map_or_else(|| null.clone(), &answer)))
    })
    .into()
}

pub(super) fn each(
    returns: &DataType,
    values: impl ExactSizeIterator<Item = ScalarValue>,
) -> PlanResult<ColumnarValue> {
    if values.len() == 0 {
        return Ok(ColumnarValue::Array(arrow::array::new_empty_array(returns)));
    }
    Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
}

pub(super) fn cast(arguments: &[ColumnarValue], index: usize, rows: usize, to: &DataType) -> PlanResult<ArrayRef> {
    let Some(argument) = arguments.get(index) else { return Err(missing()) };
    Ok(arrow::compute::cast(&argument.to_array(rows)?, to)?)
}

pub(super) fn missing() -> datafusion::error::DataFusionError {
    henge_engine::Error::invalid_input("an argument is missing").with_sqlstate("42883").into()
}

pub(super) fn texts(arguments: &[ColumnarValue], index: usize, rows: usize) -> PlanResult<Vec<Option<String>>> {
    let texts = cast(arguments, index, rows, &DataType::Utf8)?;
    Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_string)).collect())
}

/// The truths of an argument that may be left out.
pub(super) fn optional(arguments: &[ColumnarValue], index: usize, rows: usize) -> PlanResult<Option<BooleanArray>> {
    if arguments.len() <= index {
        return Ok(None);
    }
    Ok(Some(cast(arguments, index, rows, &DataType::Boolean)?.as_boolean().clone()))
}

pub(super) fn numbers(arguments: &[ColumnarValue], index: usize, rows: usize) -> PlanResult<Int64Array> {
    let array = cast(arguments, index, rows, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().clone())
}

type Body = dyn Fn(&[ColumnarValue], &[FieldRef], usize) -> PlanResult<ColumnarValue> + Send + Sync;

/// A function of any arguments.
pub(super) struct CatalogFunction {
    name: String,
    signature: Signature,
    returns: DataType,
    body: Box<Body>,
}

impl CatalogFunction {
    pub(super) fn new(
        name: &str,
        returns: DataType,
        body: impl Fn(&[ColumnarValue], usize) -> PlanResult<ColumnarValue> + Send + Sync + 'static,
    ) -> Self {
        Self::of_fields(name, returns, move |arguments, _, rows| body(arguments, rows))
    }

    /// The same, of a function that asks what its arguments are beside their values.
    pub(super) fn of_fields(
        name: &str,
        returns: DataType,
        body: impl Fn(&[ColumnarValue], &[FieldRef], usize) -> PlanResult<ColumnarValue> + Send + Sync + 'static,
    ) -> Self {
        // Not immutable: what they answer changes with what there is.
        let signature = Signature::one_of(
            vec![
                datafusion::logical_expr::TypeSignature::Nullary,
                datafusion::logical_expr::TypeSignature::VariadicAny,
            ],
            Volatility::Stable,
        );
        Self { name: name.to_string(), signature, returns, body: Box::new(body) }
    }

    pub(super) fn volatile(mut self) -> Self {
        self.signature.volatility = Volatility::Volatile;
        self
    }
}

impl fmt::Debug for CatalogFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

// Within one session a name is one function.
impl PartialEq for CatalogFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        (self.body)(&args.args, &args.arg_fields, args.number_rows)
    }
}
