//! The catalogue's functions.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::catalog::CatalogProvider;
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use henge_engine::session;

use super::{DATABASE, Facts, SCHEMA, SERVER_VERSION, oid, row, types};

/// What a number or text is called, by its number.
pub(super) const REGCLASS_NAME: &str = "henge_regclass_name";
pub(super) const REGCLASS_OID: &str = "henge_regclass";
pub(super) const REGTYPE_NAME: &str = "henge_regtype_name";
pub(super) const REGTYPE_OID: &str = "henge_regtype";
pub(super) const REGNAMESPACE_NAME: &str = "henge_regnamespace_name";

/// Functions of which every answer is null, since what they are about does not exist here.
const NULLS: &[&str] = &[
    "col_description",
    "obj_description",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_partkeydef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef",
    "pg_get_statisticsobjdef_columns",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_tablespace_location",
    "shobj_description",
];

/// Functions about sizes on disk, which are the segments' and not a table's: not known here.
const SIZES: &[&str] = &[
    "pg_database_size",
    "pg_indexes_size",
    "pg_relation_size",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
];

const TRUE: &[&str] = &[
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_function_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_function_is_visible",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
    "pg_type_is_visible",
];

const FALSE: &[&str] =
    &["pg_is_in_recovery", "pg_is_other_temp_schema", "pg_relation_is_publishable", "row_security_active"];

/// The functions, for a session over `schemas`.
pub(super) fn all(schemas: &Arc<dyn CatalogProvider>, facts: &Facts) -> Vec<ScalarUDF> {
    let mut all: Vec<ScalarUDF> = Vec::new();
    all.extend(NULLS.iter().map(|name| constant(name, ScalarValue::Utf8(None))));
    all.extend(SIZES.iter().map(|name| constant(name, ScalarValue::Int64(None))));
    all.extend(TRUE.iter().map(|name| constant(name, true.into())));
    all.extend(FALSE.iter().map(|name| constant(name, false.into())));
    all.extend([
        constant("version", format!("PostgreSQL {SERVER_VERSION} (Henge {})", env!("CARGO_PKG_VERSION")).into()),
        constant("current_database", DATABASE.into()),
        constant("current_catalog", DATABASE.into()),
        constant("current_schema", session::SCHEMA.into()),
        constant("current_schemas", list(&[SCHEMA, session::SCHEMA])),
        constant("pg_backend_pid", ScalarValue::Int32(Some(facts.pid))),
        constant("pg_my_temp_schema", ScalarValue::Int64(Some(0))),
        numbered("pg_table_is_visible", DataType::Boolean, |oid| ScalarValue::Boolean(Some(oid::is_visible(oid)))),
        numbered("pg_get_userbyid", DataType::Utf8, |oid| match oid {
            oid::OWNER => DATABASE.into(),
            oid => format!("unknown (OID={oid})").into(),
        }),
        numbered("pg_encoding_to_char", DataType::Utf8, |encoding| if encoding == 6 { "UTF8" } else { "" }.into()),
        numbered("pg_size_pretty", DataType::Utf8, |bytes| size_pretty(bytes).into()),
        format_type(),
        worded("quote_ident", DataType::Utf8, |text| quote_ident(text).into()),
        worded("quote_literal", DataType::Utf8, |text| format!("'{}'", text.replace('\'', "''")).into()),
        worded(REGTYPE_OID, DataType::Int64, |name| ScalarValue::Int64(number_of_type(name))),
        worded("to_regtype", DataType::Utf8, |name| ScalarValue::Utf8(type_name(name))),
        worded(REGTYPE_NAME, DataType::Utf8, |name| ScalarValue::Utf8(type_name(name))),
    ]);
    all.extend(about_names(schemas));
    all
}

/// Functions that look names and numbers of relations up.
fn about_names(schemas: &Arc<dyn CatalogProvider>) -> [ScalarUDF; 4] {
    let (for_name, for_maybe, for_oid, for_schema) =
        (Arc::clone(schemas), Arc::clone(schemas), Arc::clone(schemas), Arc::clone(schemas));
    [
        worded(REGCLASS_NAME, DataType::Utf8, move |text| {
            let name = find(&for_name, text).map(|(schema, name)| shown(&schema, &name));
            ScalarValue::Utf8(Some(name.unwrap_or_else(|| text.to_string())))
        }),
        worded("to_regclass", DataType::Utf8, move |text| {
            ScalarValue::Utf8(find(&for_maybe, text).map(|(schema, name)| shown(&schema, &name)))
        }),
        worded(REGCLASS_OID, DataType::Int64, move |text| {
            ScalarValue::Int64(find(&for_oid, text).map(|(schema, name)| oid::of_relation(&schema, &name)))
        }),
        worded(REGNAMESPACE_NAME, DataType::Utf8, move |text| {
            let names = row::schema_names(&for_schema);
            let found = names.into_iter().find(|name| oid::of_schema(name).to_string() == text);
            ScalarValue::Utf8(Some(found.unwrap_or_else(|| text.to_string())))
        }),
    ]
}

/// The relation of a number or of a name, qualified or not.
fn find(schemas: &Arc<dyn CatalogProvider>, text: &str) -> Option<(String, String)> {
    let text = text.trim();
    let number: Option<i64> = text.parse().ok();
    let (qualifier, bare) = text.rsplit_once('.').map_or((None, text), |(schema, name)| (Some(schema), name));
    let unquote = |name: &str| name.trim_matches('"').to_string();
    let matches = |schema: &str, name: &str| match number {
        Some(number) => oid::of_relation(schema, name) == number,
        None => match qualifier.map(unquote) {
            Some(qualifier) => qualifier == schema && unquote(bare) == name,
            None => unquote(bare) == name && oid::is_visible(oid::of_relation(schema, name)),
        },
    };
    let own = schemas.schema_names().into_iter().filter(|schema| schema != SCHEMA).flat_map(|schema| {
        let names = schemas.schema(&schema).map(|found| found.table_names()).unwrap_or_default();
        names.into_iter().map(move |name| (schema.clone(), name))
    });
    let theirs = super::column::table_names().map(|name| (SCHEMA.to_string(), name.to_string()));
    own.chain(theirs).find(|(schema, name)| matches(schema, name))
}

/// As `regclass` prints it: qualified where the search path does not find it.
fn shown(schema: &str, name: &str) -> String {
    if oid::is_visible(oid::of_relation(schema, name)) {
        return quote_ident(name);
    }
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

fn number_of_type(text: &str) -> Option<i64> {
    text.trim().parse().ok().or_else(|| types::named(text).map(|known| known.oid))
}

fn type_name(text: &str) -> Option<String> {
    number_of_type(text).and_then(types::find).map(|known| known.sql_name())
}

fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|char: char| char.is_ascii_lowercase() || char == '_')
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn size_pretty(bytes: i64) -> String {
    let mut amount = bytes;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        if amount.abs() < 10 * 1024 {
            return format!("{amount} {unit}");
        }
        amount = (amount + 512 * amount.signum()) / 1024;
    }
    format!("{amount} PB")
}

fn list(items: &[&str]) -> ScalarValue {
    SingleRowListArrayBuilder::new(Arc::new(StringArray::from(items.to_vec()))).build_list_scalar()
}

/// Answers `value`, whatever it is asked.
fn constant(name: &str, value: ScalarValue) -> ScalarUDF {
    let returns = value.data_type();
    CatalogFunction::new(name, returns, move |_, _| Ok(ColumnarValue::Scalar(value.clone()))).into()
}

/// Answers each number of the first argument; null for null.
fn numbered(name: &str, returns: DataType, answer: impl Fn(i64) -> ScalarValue + Send + Sync + 'static) -> ScalarUDF {
    let null = ScalarValue::try_from(&returns).unwrap_or(ScalarValue::Null);
    CatalogFunction::new(name, returns.clone(), move |arguments, rows| {
        let numbers = numbers(arguments, 0, rows)?;
        each(&returns, numbers.iter().map(|number| number.map_or_else(|| null.clone(), &answer)))
    })
    .into()
}

/// Answers each text of the first argument; null for null.
fn worded(name: &str, returns: DataType, answer: impl Fn(&str) -> ScalarValue + Send + Sync + 'static) -> ScalarUDF {
    let null = ScalarValue::try_from(&returns).unwrap_or(ScalarValue::Null);
    CatalogFunction::new(name, returns.clone(), move |arguments, rows| {
        let texts = cast(arguments, 0, rows, &DataType::Utf8)?;
        each(&returns, texts.as_string::<i32>().iter().map(|text| text.map_or_else(|| null.clone(), &answer)))
    })
    .into()
}

fn format_type() -> ScalarUDF {
    CatalogFunction::new("format_type", DataType::Utf8, |arguments, rows| {
        let types = numbers(arguments, 0, rows)?;
        let modifiers = if arguments.len() > 1 { numbers(arguments, 1, rows)? } else { Int64Array::new_null(rows) };
        let format =
            |(oid, modifier): (Option<i64>, Option<i64>)| oid.map(|oid| types::format(oid, modifier.unwrap_or(-1)));
        let names: StringArray = types.iter().zip(modifiers.iter()).map(format).collect();
        Ok(ColumnarValue::Array(Arc::new(names)))
    })
    .into()
}

fn each(returns: &DataType, values: impl ExactSizeIterator<Item = ScalarValue>) -> PlanResult<ColumnarValue> {
    if values.len() == 0 {
        return Ok(ColumnarValue::Array(arrow::array::new_empty_array(returns)));
    }
    Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
}

fn cast(arguments: &[ColumnarValue], index: usize, rows: usize, to: &DataType) -> PlanResult<ArrayRef> {
    let Some(argument) = arguments.get(index) else {
        return Err(datafusion::error::DataFusionError::Plan("an argument is missing".to_string()));
    };
    Ok(arrow::compute::cast(&argument.to_array(rows)?, to)?)
}

fn numbers(arguments: &[ColumnarValue], index: usize, rows: usize) -> PlanResult<Int64Array> {
    let array = cast(arguments, index, rows, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().clone())
}

type Body = dyn Fn(&[ColumnarValue], usize) -> PlanResult<ColumnarValue> + Send + Sync;

/// A function of any arguments.
struct CatalogFunction {
    name: String,
    signature: Signature,
    returns: DataType,
    body: Box<Body>,
}

impl CatalogFunction {
    fn new(
        name: &str,
        returns: DataType,
        body: impl Fn(&[ColumnarValue], usize) -> PlanResult<ColumnarValue> + Send + Sync + 'static,
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
        (self.body)(&args.args, args.number_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_when_they_must_be() {
        assert_eq!(quote_ident("wikipedia"), "wikipedia");
        assert_eq!(quote_ident("cityName"), "\"cityName\"");
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn sizes_are_pretty_as_in_postgresql() {
        let cases =
            [(0, "0 bytes"), (10_239, "10239 bytes"), (10_240, "10 kB"), (5_000_000, "4883 kB"), (1 << 40, "1024 GB")];
        for (bytes, pretty) in cases {
            assert_eq!(size_pretty(bytes), pretty);
        }
    }
}
