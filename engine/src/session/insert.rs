//! `INSERT INTO` a data source: the rows are handed to whoever takes them.

use std::fmt::Debug;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{Ident, Insert, ObjectName, ObjectNamePart, Statement, TableObject};

use super::bind::{Match, find};
use super::error::error_from_datafusion;
use super::temporary::spell_column;
use super::{SCHEMA, TEMPORARY_SCHEMA};
use crate::error::{Error, Result};

/// Takes rows that are inserted into data sources.
#[async_trait]
pub trait RowWriter: Debug + Send + Sync {
    /// Takes all rows or none; columns are those of the data source, in its names. Once it returns, the rows are seen and
    /// stay.
    async fn insert(&self, data_source: &str, rows: Vec<RecordBatch>) -> Result<u64>;
}

/// If a statement inserts into a data source, writes its names as they are spelled. Says whether it does.
pub(super) async fn adopt(statement: &mut Statement, data_sources: &dyn SchemaProvider) -> Result<bool> {
    let Statement::Insert(insert) = statement else { return Ok(false) };
    let Insert { table: TableObject::TableName(name), columns, returning, on, .. } = insert else { return Ok(false) };
    let Some(wanted) = unqualified(name) else { return Ok(false) };
    let names = data_sources.table_names();
    let Match::One(found) = find(&wanted, names.iter(), |name| name.as_str()) else { return Ok(false) };
    if returning.is_some() || on.is_some() {
        let message = "`INSERT` into a data source takes no `RETURNING` and no `ON CONFLICT`";
        return Err(Error::unsupported(message).with_sqlstate("0A000"));
    }
    let table = data_sources.table(found).await.map_err(error_from_datafusion)?;
    let Some(table) = table else { return Ok(false) };
    let known = table.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    for column in columns {
        spell_column(column, found, &known)?;
    }
    let part = |name: &str| ObjectNamePart::Identifier(Ident::with_quote('"', name));
    *name = ObjectName(vec![part(SCHEMA), part(found)]);
    Ok(true)
}

/// The name alone, or with the schema of data sources before it.
fn unqualified(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some(name.value.clone()),
        [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(name)]
            if schema.value.eq_ignore_ascii_case(SCHEMA) =>
        {
            Some(name.value.clone())
        }
        _ => None,
    }
}

/// Whether a planned insertion is one into a data source.
pub(super) fn is_into_data_source(table: &TableReference) -> bool {
    table.schema() != Some(TEMPORARY_SCHEMA)
}
