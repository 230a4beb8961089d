//! Which tables a statement may mean, looked up before its names are bound.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, SchemaProvider};
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{ObjectName, Statement, visit_relations};

use super::{Match, find};
use crate::error::{Error, Result};
use crate::session::{CATALOG, SCHEMA, SessionOptions, TEMPORARY_SCHEMA, error_from_datafusion};

/// A table: how it is to be written, and its columns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) names: Vec<String>,
    pub(super) columns: Vec<String>,
}

/// The tables that the names of one statement stand for, by the name as it was written.
#[derive(Debug, Default)]
pub(super) struct Tables {
    found: HashMap<Vec<String>, Table>,
    /// Every table an unqualified name could have meant, for hints.
    known: Vec<String>,
}

/// The parts of a name; nothing for a name that holds a function call.
pub(super) fn parts(name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(|ident| ident.value.clone())).collect()
}

impl Tables {
    pub(super) async fn look_up(statement: &Statement, state: &SessionState, options: &SessionOptions) -> Result<Self> {
        let mut names = Vec::new();
        let _ = visit_relations(statement, |name| {
            names.extend(parts(name));
            ControlFlow::<()>::Continue(())
        });
        let mut tables = Self::default();
        let Some(catalog) = state.catalog_list().catalog(CATALOG) else { return Ok(tables) };
        for name in names {
            if let Some(table) = find_table(catalog.as_ref(), &name, options).await? {
                tables.found.insert(name, table);
            } else if let Some(schema) = catalog.schema(SCHEMA) {
                tables.known = schema.table_names();
            }
        }
        Ok(tables)
    }

    pub(super) fn get(&self, name: &[String]) -> Option<&Table> {
        self.found.get(name)
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str)
    }
}

async fn find_table(catalog: &dyn CatalogProvider, name: &[String], options: &SessionOptions) -> Result<Option<Table>> {
    match name {
        [table] => {
            let path = [TEMPORARY_SCHEMA, SCHEMA].into_iter().chain(options.search_path.iter().map(String::as_str));
            for schema in path {
                if let Some(found) = table_of(catalog, schema, table).await? {
                    // What lives in the default schema needs no schema, and reads better in plans without.
                    let names = if schema == SCHEMA { found.names[1..].to_vec() } else { found.names };
                    return Ok(Some(Table { names, ..found }));
                }
            }
            Ok(None)
        }
        [schema, table] => table_of(catalog, schema, table).await,
        [database, schema, table] if database.eq_ignore_ascii_case(CATALOG) => table_of(catalog, schema, table).await,
        _ => Ok(None),
    }
}

async fn table_of(catalog: &dyn CatalogProvider, schema: &str, table: &str) -> Result<Option<Table>> {
    let Some((schema, provider)) = schema_of(catalog, schema)? else { return Ok(None) };
    let Some(table) = name_of(provider.as_ref(), table)? else { return Ok(None) };
    let Some(found) = provider.table(&table).await.map_err(error_from_datafusion)? else { return Ok(None) };
    let columns = found.schema().fields().iter().map(|field| field.name().clone()).collect();
    Ok(Some(Table { names: vec![schema, table], columns }))
}

fn schema_of(catalog: &dyn CatalogProvider, wanted: &str) -> Result<Option<(String, Arc<dyn SchemaProvider>)>> {
    if let Some(schema) = catalog.schema(wanted) {
        return Ok(Some((wanted.to_string(), schema)));
    }
    let names = catalog.schema_names();
    let Some(name) = unique("schema", wanted, &names)? else { return Ok(None) };
    Ok(catalog.schema(&name).map(|schema| (name, schema)))
}

fn name_of(schema: &dyn SchemaProvider, wanted: &str) -> Result<Option<String>> {
    if schema.table_exist(wanted) {
        return Ok(Some(wanted.to_string()));
    }
    unique("table", wanted, &schema.table_names())
}

fn unique(kind: &str, wanted: &str, names: &[String]) -> Result<Option<String>> {
    match find(wanted, names.iter(), |name| name.as_str()) {
        Match::One(name) => Ok(Some(name.clone())),
        Match::None => Ok(None),
        Match::Many(names) => {
            let names: Vec<String> = names.into_iter().map(|name| format!("`\"{name}\"`")).collect();
            let message = format!("{kind} `{wanted}` is ambiguous: it could be {}", names.join(" or "));
            Err(Error::invalid_input(message).with_sqlstate("42P09"))
        }
    }
}
