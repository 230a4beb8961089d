//! Functions about the settings of a connection, the server around it, and how much there is.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use datafusion::catalog::CatalogProvider;
use datafusion::common::ScalarValue;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use henge_engine::session;

use super::super::{Facts, SCHEMA};
use super::name::find;
use super::udf::{CatalogFunction, constant, list, numbered_volatile, optional, texts, worded};

pub(super) fn size_of_table(name: &str, schemas: &Arc<dyn CatalogProvider>, facts: &Facts) -> ScalarUDF {
    let (schemas, server) = (Arc::clone(schemas), Arc::clone(&facts.server));
    worded(name, DataType::Int64, move |text| {
        let bytes = find(&schemas, text).map(|(schema, name)| match schema == session::SCHEMA {
            true => server.extent(&name).unwrap_or_default().bytes as i64,
            false => 0,
        });
        ScalarValue::Int64(bytes)
    })
}

pub(super) fn size_of_all(name: &str, schemas: &Arc<dyn CatalogProvider>, facts: &Facts) -> ScalarUDF {
    let (schemas, server) = (Arc::clone(schemas), Arc::clone(&facts.server));
    worded(name, DataType::Int64, move |_| {
        let names = schemas.schema(session::SCHEMA).map(|schema| schema.table_names()).unwrap_or_default();
        let bytes: u64 = names.iter().filter_map(|name| server.extent(name)).map(|extent| extent.bytes).sum();
        ScalarValue::Int64(Some(bytes as i64))
    })
}

/// Functions that read and change the connection's settings.
pub(super) fn about_settings(facts: &Facts) -> [ScalarUDF; 2] {
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
pub(super) fn about_connections(facts: &Facts) -> [ScalarUDF; 7] {
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
pub(super) fn current_schemas() -> ScalarUDF {
    let returns = DataType::new_list(DataType::Utf8, true);
    CatalogFunction::new("current_schemas", returns, |arguments, rows| {
        let implicit =
            optional(arguments, 0, rows.max(1))?.is_none_or(|implicit| implicit.is_empty() || implicit.value(0));
        let schemas: &[&str] = if implicit { &[SCHEMA, session::SCHEMA] } else { &[session::SCHEMA] };
        Ok(ColumnarValue::Scalar(list(schemas)))
    })
    .into()
}
