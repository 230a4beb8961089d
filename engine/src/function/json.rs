//! `json` and `jsonb`: documents as text, with a mark on the field that says which of the two it is.
//!
//! A `json` keeps the text that it was made of. A `jsonb` has PostgreSQL's form of it: keys in their order, each once, numbers
//! without exponents, a blank after every colon and comma. So a part of a `jsonb` is one too, as it stands.

mod access;
mod build;
mod change;
mod document;
mod items;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::argument;

use crate::error::Error;

/// Where a field says that its text is a document. Casts to plain text take it off.
const EXTENSION: &str = "ARROW:extension:name";

/// The two types of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonKind {
    Json,
    Jsonb,
}

impl JsonKind {
    /// What a field holds; `None` if it holds no documents, or does not say so.
    pub fn of(field: &Field) -> Option<Self> {
        match field.metadata().get(EXTENSION)?.as_str() {
            "henge.json" => Some(Self::Json),
            "henge.jsonb" => Some(Self::Jsonb),
            _ => None,
        }
    }

    pub(crate) fn field(self, name: &str) -> FieldRef {
        let extension = match self {
            Self::Json => "henge.json",
            Self::Jsonb => "henge.jsonb",
        };
        let metadata = HashMap::from([(EXTENSION.to_owned(), extension.to_owned())]);
        Arc::new(Field::new(name, DataType::Utf8, true).with_metadata(metadata))
    }
}

/// Names of the functions behind the operators, which have none of their own.
pub mod operator {
    pub const JSON: &str = "henge_json";
    pub const JSONB: &str = "henge_jsonb";
    pub const GET: &str = "henge_json_get";
    pub const GET_TEXT: &str = "henge_json_get_text";
    pub const GET_PATH: &str = "henge_json_get_path";
    pub const GET_PATH_TEXT: &str = "henge_json_get_path_text";
    pub const CONTAINS: &str = "henge_jsonb_contains";
    pub const HAS: &str = "henge_jsonb_has";
    pub const HAS_ANY: &str = "henge_jsonb_has_any";
    pub const HAS_ALL: &str = "henge_jsonb_has_all";
    pub const CONCAT: &str = "henge_jsonb_concat";
    pub const DELETE: &str = "henge_jsonb_delete";
    pub const DELETE_PATH: &str = "henge_jsonb_delete_path";
    pub const COMPARABLE: &str = "henge_jsonb_comparable";
    pub const LIST: &str = "henge_json_list";
    pub const LISTB: &str = "henge_jsonb_list";
}

pub(super) fn all() -> Vec<ScalarUDF> {
    [access::all(), items::all(), build::all(), change::all()].into_iter().flatten().collect()
}

/// One of [`operator`]'s functions.
pub fn named(name: &str) -> Arc<ScalarUDF> {
    let found = all().into_iter().find(|function| function.name() == name);
    // The list of names and the functions stand side by side.
    Arc::new(found.unwrap_or_else(|| unreachable!("`{name}` is one of the operators' names")))
}

/// The types that arguments are brought to, by those given.
type Coerce = fn(&str, &[DataType]) -> Result<Vec<DataType>>;
/// What is answered, by the arguments' fields.
type Returns = fn(&[FieldRef]) -> FieldRef;
/// The answers for so many rows.
type Body = fn(&[ArrayRef], &[FieldRef], usize) -> Result<ArrayRef>;

/// A function of documents.
struct Function {
    name: &'static str,
    signature: Signature,
    coerce: Coerce,
    returns: Returns,
    body: Body,
}

fn function(name: &'static str, coerce: Coerce, returns: Returns, body: Body) -> ScalarUDF {
    ScalarUDF::new_from_impl(Function { name, signature: argument::signature(), coerce, returns, body })
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

// Within one session a name is one function.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
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
        Err(Error::defensive("a function of documents was asked for its type without its arguments").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok((self.returns)(args.arg_fields))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns: Vec<ArrayRef> = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
        let answers = (self.body)(&columns, &args.arg_fields, rows)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?),
            false => ColumnarValue::Array(answers),
        })
    }
}

/// Arguments that are texts, of which the first is a document.
fn texts(name: &str, given: &[DataType], required: usize, most: usize) -> Result<Vec<DataType>> {
    let is_text = |given: &DataType| argument::is_string(given) || given.is_null();
    if given.len() < required || given.len() > most || !given.iter().all(is_text) {
        return Err(no_such(name, given).into());
    }
    Ok(vec![DataType::Utf8; given.len()])
}

fn document(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    texts(name, given, 1, 1)
}

fn two_documents(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    texts(name, given, 2, 2)
}

fn no_such(name: &str, given: &[DataType]) -> Error {
    let given: Vec<String> = given.iter().map(ToString::to_string).collect();
    let what = match name.strip_prefix("henge_") {
        Some(_) => "this operator of documents".to_owned(),
        None => format!("`{name}`"),
    };
    Error::invalid_input(format!("{what} does not take ({}); cast to `jsonb` or `text`", given.join(", ")))
        .with_sqlstate("42883")
}

fn strings(array: &ArrayRef) -> &StringArray {
    array.as_string::<i32>()
}

fn plain(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("", data_type, true))
}

fn text_field(_: &[FieldRef]) -> FieldRef {
    plain(DataType::Utf8)
}

fn bool_field(_: &[FieldRef]) -> FieldRef {
    plain(DataType::Boolean)
}

fn jsonb_field(_: &[FieldRef]) -> FieldRef {
    JsonKind::Jsonb.field("")
}

fn json_field(_: &[FieldRef]) -> FieldRef {
    JsonKind::Json.field("")
}

/// A part of a document is of its type.
fn same_field(fields: &[FieldRef]) -> FieldRef {
    fields.first().and_then(|field| JsonKind::of(field)).unwrap_or(JsonKind::Json).field("")
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid_input(message).with_sqlstate("22023")
}

/// A text that is no document.
fn malformed(text: &str, why: &serde_json::Error) -> Error {
    let message = why.to_string();
    if message.starts_with("recursion limit") {
        return Error::invalid_input("a JSON document nests deeper than 128 levels").with_sqlstate("54001");
    }
    let shown: String = text.chars().take(100).collect();
    Error::invalid_input(format!("invalid input syntax for type json: `{shown}`: {message}")).with_sqlstate("22P02")
}
