//! `information_schema`, as PostgreSQL has it: what a session's catalog holds, types by PostgreSQL's names. Druid's columns
//! (`is_joinable`, `is_broadcast`, `jdbc_type`) stand at the end. Tables of what there is none of here (keys, sequences, triggers)
//! are there and empty; those that would be incomplete (`routines`, `role_table_grants`) are not there.

mod describe;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::logical_expr::TableType;
use henge_engine::session::{CATALOG, TEMPORARY_SCHEMA, error_from_datafusion};
use henge_engine::{Error, Result};

use self::describe::describe;
use super::{INFORMATION_SCHEMA, SystemRows, SystemSchema};

/// Name of a table, `|`, and its columns as PostgreSQL 15 has them; numbers with `#`.
const TABLES: &str = include_str!("information_schema/tables.txt");

/// The schema that tells of `catalog`, itself included.
pub fn information_schema(catalog: &Arc<dyn CatalogProvider>) -> Arc<dyn SchemaProvider> {
    let tables = TABLES.lines().filter_map(|line| line.split_once('|'));
    Arc::new(SystemSchema::new(tables.map(|(table, columns)| {
        let rows = Rows { catalog: Arc::clone(catalog), table, columns };
        (table, Arc::new(rows) as Arc<dyn SystemRows>)
    })))
}

#[derive(Debug)]
struct Rows {
    catalog: Arc<dyn CatalogProvider>,
    table: &'static str,
    columns: &'static str,
}

/// A value of a row.
enum Cell {
    Text(String),
    Number(i32),
}

impl Cell {
    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn number(&self) -> Option<i32> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Cell {
    fn from(truth: bool) -> Self {
        Self::from(if truth { "YES" } else { "NO" })
    }
}

/// A row by column names. Columns it does not name are null.
type Row = Vec<(&'static str, Cell)>;

/// A table with its schema and name.
type Named = (String, String, Arc<dyn TableProvider>);

#[async_trait]
impl SystemRows for Rows {
    fn schema(&self) -> SchemaRef {
        let field = |column: &str| match column.strip_suffix('#') {
            Some(name) => Field::new(name, DataType::Int32, true),
            None => Field::new(column, DataType::Utf8View, true),
        };
        Arc::new(Schema::new(self.columns.split(' ').map(field).collect::<Vec<_>>()))
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let rows = self.cells().await?;
        let schema = self.schema();
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            let cells = rows.iter().map(|row| row.iter().find(|(name, _)| name == field.name()).map(|(_, cell)| cell));
            match field.data_type() {
                DataType::Int32 => Arc::new(cells.map(|cell| cell.and_then(Cell::number)).collect::<Int32Array>()),
                _ => Arc::new(cells.map(|cell| cell.and_then(Cell::text)).collect::<StringViewArray>()),
            }
        });
        let columns = columns.collect();
        RecordBatch::try_new(schema, columns)
            .map_err(|error| Error::defensive("rows of information_schema do not fit").with_source(error))
    }
}

impl Rows {
    async fn cells(&self) -> Result<Vec<Row>> {
        Ok(match self.table {
            "schemata" => self.schemata(),
            "tables" => self.tables().await?.iter().map(table_row).collect(),
            "columns" => self.tables().await?.iter().flat_map(column_rows).collect(),
            "table_privileges" => self.tables().await?.iter().map(privilege_row).collect(),
            "views" => self.tables().await?.iter().filter(|table| is_view(table)).map(view_row).collect(),
            "information_schema_catalog_name" => vec![vec![("catalog_name", CATALOG.into())]],
            "character_sets" => vec![character_set()],
            _ => Vec::new(),
        })
    }

    fn schemata(&self) -> Vec<Row> {
        let row = |name: String| {
            vec![("catalog_name", CATALOG.into()), ("schema_name", Cell::Text(name)), ("schema_owner", CATALOG.into())]
        };
        self.catalog.schema_names().into_iter().map(row).collect()
    }

    /// Every table, in the order of schemas and names. Tables that vanish meanwhile are left out.
    async fn tables(&self) -> Result<Vec<Named>> {
        let mut found = Vec::new();
        for schema_name in self.catalog.schema_names() {
            let Some(schema) = self.catalog.schema(&schema_name) else { continue };
            let mut names = schema.table_names();
            names.sort_unstable();
            for name in names {
                if let Some(table) = schema.table(&name).await.map_err(error_from_datafusion)? {
                    found.push((schema_name.clone(), name, table));
                }
            }
        }
        Ok(found)
    }
}

fn is_view((schema, _, table): &Named) -> bool {
    schema == INFORMATION_SCHEMA || table.table_type() != TableType::Base
}

fn of_table((schema, name, _): &Named) -> Row {
    vec![
        ("table_catalog", CATALOG.into()),
        ("table_schema", schema.as_str().into()),
        ("table_name", name.as_str().into()),
    ]
}

fn table_row(table: &Named) -> Row {
    let kind = match () {
        () if is_view(table) => "VIEW",
        () if table.0 == TEMPORARY_SCHEMA => "LOCAL TEMPORARY",
        () => "BASE TABLE",
    };
    let mut row = of_table(table);
    row.extend([
        ("table_type", Cell::from(kind)),
        ("is_insertable_into", (kind == "LOCAL TEMPORARY").into()),
        ("is_typed", false.into()),
        ("is_joinable", false.into()),
        ("is_broadcast", false.into()),
    ]);
    row
}

fn view_row(table: &Named) -> Row {
    let mut row = of_table(table);
    row.extend(table.2.get_table_definition().map(|text| ("view_definition", Cell::from(text))));
    row.extend([
        ("check_option", Cell::from("NONE")),
        ("is_updatable", false.into()),
        ("is_insertable_into", false.into()),
        ("is_trigger_updatable", false.into()),
        ("is_trigger_deletable", false.into()),
        ("is_trigger_insertable_into", false.into()),
    ]);
    row
}

/// Whoever may log in may read everything.
fn privilege_row(table: &Named) -> Row {
    let mut row = of_table(table);
    row.extend([
        ("grantor", Cell::from(CATALOG)),
        ("grantee", "PUBLIC".into()),
        ("privilege_type", "SELECT".into()),
        ("is_grantable", false.into()),
        ("with_hierarchy", true.into()),
    ]);
    row
}

fn character_set() -> Row {
    vec![
        ("character_set_name", "UTF8".into()),
        ("character_repertoire", "UCS".into()),
        ("form_of_use", "UTF8".into()),
        ("default_collate_catalog", CATALOG.into()),
        ("default_collate_schema", "pg_catalog".into()),
        ("default_collate_name", "C".into()),
    ]
}

fn column_rows(table: &Named) -> Vec<Row> {
    let schema = table.2.schema();
    let row = |(position, field): (i32, &Arc<Field>)| {
        let mut row = of_table(table);
        row.extend(column_row(position, field));
        row
    };
    (1..).zip(schema.fields()).map(row).collect()
}

fn column_row(position: i32, field: &Field) -> Row {
    let described = describe(field.data_type());
    let decimals = match field.data_type() {
        DataType::Timestamp(..) => Some(3),
        DataType::Time32(_) | DataType::Time64(_) => Some(6),
        _ => None,
    };
    let mut row = vec![
        ("column_name", field.name().as_str().into()),
        ("ordinal_position", Cell::Number(position)),
        ("is_nullable", field.is_nullable().into()),
        ("data_type", described.data_type.into()),
        ("udt_catalog", CATALOG.into()),
        ("udt_schema", "pg_catalog".into()),
        ("udt_name", described.udt_name.into()),
        ("dtd_identifier", Cell::Text(position.to_string())),
        ("is_self_referencing", false.into()),
        ("is_identity", false.into()),
        ("identity_cycle", false.into()),
        ("is_generated", "NEVER".into()),
        ("is_updatable", false.into()),
        ("jdbc_type", Cell::Number(described.jdbc_type)),
    ];
    if let Some((digits, radix)) = described.precision {
        row.extend([("numeric_precision", Cell::Number(digits)), ("numeric_precision_radix", Cell::Number(radix))]);
    }
    row.extend(described.is_integer.then_some(("numeric_scale", Cell::Number(0))));
    row.extend(decimals.map(|decimals| ("datetime_precision", Cell::Number(decimals))));
    row
}
