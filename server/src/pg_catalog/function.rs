//! The catalogue's functions.

mod name;
mod session;
mod udf;

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::catalog::CatalogProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use henge_engine::session::SCHEMA as DATA_SOURCES;

use self::name::{about_names, number_of_routine, number_of_type, parse_ident, quote_ident, quote_nullable, type_name};
use self::session::{about_connections, about_settings, current_schemas, size_of_all, size_of_table};
use self::udf::{CatalogFunction, constant, missing, numbered, numbers, worded};
use super::{DATABASE, Facts, PgType, SERVER_VERSION, oid, types};

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
        constant("current_schema", DATA_SOURCES.into()),
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
        parse_ident(),
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
    CatalogFunction::of_fields("pg_typeof", DataType::Utf8, |_, fields, _| {
        let Some(field) = fields.first() else { return Err(missing()) };
        let name = match field.data_type() {
            DataType::Null => "unknown".to_string(),
            _ => types::format(i64::from(PgType::of(field).oid), -1),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_pretty_as_in_postgresql() {
        let cases =
            [(0, "0 bytes"), (10_239, "10239 bytes"), (10_240, "10 kB"), (5_000_000, "4883 kB"), (1 << 40, "1024 GB")];
        for (bytes, pretty) in cases {
            assert_eq!(size_pretty(bytes), pretty);
        }
    }
}
