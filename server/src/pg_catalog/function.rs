//! The catalogue's functions.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::catalog::CatalogProvider;
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use henge_engine::session;

use super::{DATABASE, Facts, PgType, SCHEMA, SERVER_VERSION, keyword, oid, row, types};

/// What a number or text is called, by its number.
pub(super) const REGCLASS_NAME: &str = "henge_regclass_name";
pub(super) const REGCLASS_OID: &str = "henge_regclass";
pub(super) const REGTYPE_NAME: &str = "henge_regtype_name";
pub(super) const REGTYPE_OID: &str = "henge_regtype";
pub(super) const REGPROC_NAME: &str = "henge_regproc_name";
pub(super) const REGPROC_OID: &str = "henge_regproc";
pub(super) const TO_REGCLASS_NAME: &str = "henge_to_regclass_name";
pub(super) const TO_REGTYPE_NAME: &str = "henge_to_regtype_name";
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
    "pg_stat_get_numscans",
    "pg_tablespace_location",
    "shobj_description",
];

/// Functions that answer how large the segments of a data source are, of its number or name.
const TABLE_SIZES: &[&str] = &["pg_relation_size", "pg_table_size", "pg_total_relation_size"];

/// Functions that answer how large those of all are.
const ALL_SIZES: &[&str] = &["pg_database_size", "pg_tablespace_size"];

const TRUE: &[&str] = &[
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_function_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_language_privilege",
    "has_schema_privilege",
    "has_sequence_privilege",
    "has_server_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "pg_has_role",
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

const FALSE: &[&str] = &[
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_is_wal_replay_paused",
    "pg_relation_is_publishable",
    "pg_terminate_backend",
    "row_security_active",
];

/// The functions, for a session over `schemas`.
pub(super) fn all(schemas: &Arc<dyn CatalogProvider>, facts: &Facts) -> Vec<ScalarUDF> {
    let mut all: Vec<ScalarUDF> = Vec::new();
    all.extend(NULLS.iter().map(|name| constant(name, ScalarValue::Utf8(None))));
    all.extend(TABLE_SIZES.iter().map(|name| size_of_table(name, schemas, facts)));
    all.extend(ALL_SIZES.iter().map(|name| size_of_all(name, schemas, facts)));
    all.extend(about_settings(facts));
    all.extend(about_connections(facts));
    all.extend(TRUE.iter().map(|name| constant(name, true.into())));
    all.extend(FALSE.iter().map(|name| constant(name, false.into())));
    all.extend([
        constant("version", format!("PostgreSQL {SERVER_VERSION} (Henge {})", env!("CARGO_PKG_VERSION")).into()),
        constant("current_database", DATABASE.into()),
        constant("current_catalog", DATABASE.into()),
        constant("current_schema", session::SCHEMA.into()),
        current_schemas(),
        constant("pg_backend_pid", ScalarValue::Int32(Some(facts.pid))),
        constant("pg_my_temp_schema", ScalarValue::Int64(Some(0))),
        constant("pg_indexes_size", ScalarValue::Int64(Some(0))),
        constant("pg_client_encoding", "UTF8".into()),
        // Nobody can hold such a lock here.
        constant("pg_advisory_unlock_all", "".into()),
        pg_typeof(),
        array_bound("array_lower", |_| 1),
        array_bound("array_upper", |length| length),
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
        quote_nullable(),
        worded(REGTYPE_OID, DataType::Int64, |name| ScalarValue::Int64(number_of_type(name))),
        worded(TO_REGTYPE_NAME, DataType::Utf8, |name| ScalarValue::Utf8(type_name(name))),
        worded(REGPROC_OID, DataType::Int64, |name| ScalarValue::Int64(number_of_routine(name))),
        numbered(REGPROC_NAME, DataType::Utf8, |oid| {
            types::function_name(oid).map_or_else(|| oid.to_string(), str::to_string).into()
        }),
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
        worded(TO_REGCLASS_NAME, DataType::Utf8, move |text| {
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

/// A routine that a type is read or written with; others have no numbers.
fn number_of_routine(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let name = text.trim_start_matches("pg_catalog.");
        types::function_names().find(|known| *known == name).map(oid::of_function)
    })
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
    if plain && !keyword::is_reserved(name) { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// As `quote_literal`, but of null the word.
fn quote_nullable() -> ScalarUDF {
    CatalogFunction::new("quote_nullable", DataType::Utf8, |arguments, rows| {
        let quoted =
            |text: Option<String>| text.map_or("NULL".to_string(), |text| format!("'{}'", text.replace('\'', "''")));
        let quoted = texts(arguments, 0, rows)?.into_iter().map(quoted).map(Some);
        Ok(ColumnarValue::Array(Arc::new(quoted.collect::<StringArray>())))
    })
    .into()
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

/// The same, of a function that does something, so that it is called for every row and no more.
fn numbered_volatile(
    name: &str,
    returns: DataType,
    answer: impl Fn(i64) -> ScalarValue + Send + Sync + 'static,
) -> ScalarUDF {
    let null = ScalarValue::try_from(&returns).unwrap_or(ScalarValue::Null);
    CatalogFunction::new(name, returns.clone(), move |arguments, rows| {
        let numbers = numbers(arguments, 0, rows)?;
        each(&returns, numbers.iter().map(|number| number.map_or_else(|| null.clone(), &answer)))
    })
    .volatile()
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

fn size_of_table(name: &str, schemas: &Arc<dyn CatalogProvider>, facts: &Facts) -> ScalarUDF {
    let (schemas, server) = (Arc::clone(schemas), Arc::clone(&facts.server));
    worded(name, DataType::Int64, move |text| {
        let bytes = find(&schemas, text).map(|(schema, name)| match schema == session::SCHEMA {
            true => server.extent(&name).unwrap_or_default().bytes as i64,
            false => 0,
        });
        ScalarValue::Int64(bytes)
    })
}

fn size_of_all(name: &str, schemas: &Arc<dyn CatalogProvider>, facts: &Facts) -> ScalarUDF {
    let (schemas, server) = (Arc::clone(schemas), Arc::clone(&facts.server));
    worded(name, DataType::Int64, move |_| {
        let names = schemas.schema(session::SCHEMA).map(|schema| schema.table_names()).unwrap_or_default();
        let bytes: u64 = names.iter().filter_map(|name| server.extent(name)).map(|extent| extent.bytes).sum();
        ScalarValue::Int64(Some(bytes as i64))
    })
}

/// Functions that read and change the connection's settings.
fn about_settings(facts: &Facts) -> [ScalarUDF; 2] {
    let (read, written) = (Arc::clone(&facts.settings), Arc::clone(&facts.settings));
    let current = CatalogFunction::new("current_setting", DataType::Utf8, move |arguments, rows| {
        let (names, missing) = (texts(arguments, 0, rows)?, optional(arguments, 1, rows)?);
        let value = |row: usize| -> PlanResult<Option<String>> {
            let Some(name) = names.get(row).and_then(Option::as_deref) else { return Ok(None) };
            match read.value(name) {
                Ok(value) => Ok(Some(value)),
                Err(_) if missing.as_ref().is_some_and(|missing| missing.value(row)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let values = (0..rows).map(value).collect::<PlanResult<Vec<_>>>()?;
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(values))))
    });
    let set = CatalogFunction::new("set_config", DataType::Utf8, move |arguments, rows| {
        let (names, values) = (texts(arguments, 0, rows)?, texts(arguments, 1, rows)?);
        let local = optional(arguments, 2, rows)?;
        let change = |row: usize| -> PlanResult<Option<String>> {
            let Some(name) = names.get(row).and_then(Option::as_deref) else { return Ok(None) };
            let local = local.as_ref().is_some_and(|local| local.value(row));
            Ok(Some(written.change(name, values.get(row).and_then(Option::as_deref), local)?))
        };
        let changed = (0..rows).map(change).collect::<PlanResult<Vec<_>>>()?;
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(changed))))
    });
    [current.into(), set.volatile().into()]
}

/// Functions about the connection and its server.
fn about_connections(facts: &Facts) -> [ScalarUDF; 7] {
    let server = Arc::clone(&facts.server);
    let cancel = move |pid: i64| ScalarValue::Boolean(Some(i32::try_from(pid).is_ok_and(|pid| server.cancel(pid))));
    let started = facts.server.started().millis().saturating_mul(1_000);
    let started = ScalarValue::TimestampMicrosecond(Some(started), Some("+00:00".into()));
    let client = facts.server.activity().into_iter().find(|activity| activity.pid == facts.pid);
    let client = client.and_then(|activity| activity.client);
    [
        numbered_volatile("pg_cancel_backend", DataType::Boolean, cancel),
        constant("pg_postmaster_start_time", started.clone()),
        constant("pg_conf_load_time", started),
        constant("inet_client_addr", ScalarValue::Utf8(client.map(|client| client.ip().to_string()))),
        constant("inet_client_port", ScalarValue::Int32(client.map(|client| i32::from(client.port())))),
        constant("inet_server_addr", ScalarValue::Utf8(None)),
        constant("inet_server_port", ScalarValue::Int32(None)),
    ]
}

/// The search path, with the catalogue's own schema only if it is asked for.
fn current_schemas() -> ScalarUDF {
    let returns = DataType::new_list(DataType::Utf8, true);
    CatalogFunction::new("current_schemas", returns, |arguments, rows| {
        let implicit =
            optional(arguments, 0, rows.max(1))?.is_none_or(|implicit| implicit.is_empty() || implicit.value(0));
        let schemas: &[&str] = if implicit { &[SCHEMA, session::SCHEMA] } else { &[session::SCHEMA] };
        Ok(ColumnarValue::Scalar(list(schemas)))
    })
    .into()
}

/// A bound of an array's first dimension, which begins at 1; null of an empty array, and of the catalogue's vectors, which
/// are null here.
fn array_bound(name: &str, bound: fn(i64) -> i64) -> ScalarUDF {
    CatalogFunction::new(name, DataType::Int64, move |arguments, rows| {
        let Some(argument) = arguments.first() else { return Err(missing()) };
        let array = argument.to_array(rows)?;
        let lengths: Vec<Option<i64>> = match array.as_list_opt::<i32>() {
            Some(lists) => lists.iter().map(|list| list.map(|list| list.len() as i64)).collect(),
            None => vec![None; rows],
        };
        let bounds = lengths.into_iter().map(|length| length.filter(|length| *length > 0).map(bound));
        Ok(ColumnarValue::Array(Arc::new(bounds.collect::<Int64Array>())))
    })
    .into()
}

/// The type of whatever it is asked about, by its name.
fn pg_typeof() -> ScalarUDF {
    CatalogFunction::new("pg_typeof", DataType::Utf8, |arguments, _| {
        let Some(argument) = arguments.first() else { return Err(missing()) };
        let name = match argument.data_type() {
            DataType::Null => "unknown".to_string(),
            data_type => types::format(i64::from(PgType::of_data_type(&data_type).oid), -1),
        };
        Ok(ColumnarValue::Scalar(name.into()))
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
    let Some(argument) = arguments.get(index) else { return Err(missing()) };
    Ok(arrow::compute::cast(&argument.to_array(rows)?, to)?)
}

fn missing() -> datafusion::error::DataFusionError {
    henge_engine::Error::invalid_input("an argument is missing").with_sqlstate("42883").into()
}

fn texts(arguments: &[ColumnarValue], index: usize, rows: usize) -> PlanResult<Vec<Option<String>>> {
    let texts = cast(arguments, index, rows, &DataType::Utf8)?;
    Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_string)).collect())
}

/// The truths of an argument that may be left out.
fn optional(arguments: &[ColumnarValue], index: usize, rows: usize) -> PlanResult<Option<BooleanArray>> {
    if arguments.len() <= index {
        return Ok(None);
    }
    Ok(Some(cast(arguments, index, rows, &DataType::Boolean)?.as_boolean().clone()))
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

    fn volatile(mut self) -> Self {
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
        (self.body)(&args.args, args.number_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_when_they_must_be() {
        assert_eq!(quote_ident("wikipedia"), "wikipedia");
        assert_eq!((quote_ident("user"), quote_ident("page")), ("\"user\"".to_owned(), "page".to_owned()));
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
