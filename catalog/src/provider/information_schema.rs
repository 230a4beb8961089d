use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::logical_expr::TableType;
use henge_engine::session::{CATALOG, error_from_datafusion};
use henge_engine::{Error, Result};

use super::{HengeCatalog, INFORMATION_SCHEMA, SystemRows, SystemSchema};

/// `information_schema`, as PostgreSQL has it: what a session's catalog holds, types by PostgreSQL's names. Druid's
/// columns (`is_joinable`, `is_broadcast`, `jdbc_type`) stand at the end.
pub(super) fn schema(catalog: &HengeCatalog) -> Arc<dyn SchemaProvider> {
    let rows = |table| Arc::new(Rows { catalog: catalog.clone(), table }) as Arc<dyn SystemRows>;
    Arc::new(SystemSchema::new([
        ("schemata", rows(Table::Schemata)),
        ("tables", rows(Table::Tables)),
        ("columns", rows(Table::Columns)),
    ]))
}

#[derive(Clone, Copy, Debug)]
enum Table {
    Schemata,
    Tables,
    Columns,
}

#[derive(Debug)]
struct Rows {
    catalog: HengeCatalog,
    table: Table,
}

/// A column of `information_schema`: its name, and whether it is a number.
type ColumnOf = (&'static str, bool);

const SCHEMATA: &[ColumnOf] = &[
    ("catalog_name", false),
    ("schema_name", false),
    ("schema_owner", false),
    ("default_character_set_catalog", false),
    ("default_character_set_schema", false),
    ("default_character_set_name", false),
    ("sql_path", false),
];

const TABLES: &[ColumnOf] = &[
    ("table_catalog", false),
    ("table_schema", false),
    ("table_name", false),
    ("table_type", false),
    ("is_insertable_into", false),
    ("is_typed", false),
    ("is_joinable", false),
    ("is_broadcast", false),
];

const COLUMNS: &[ColumnOf] = &[
    ("table_catalog", false),
    ("table_schema", false),
    ("table_name", false),
    ("column_name", false),
    ("ordinal_position", true),
    ("column_default", false),
    ("is_nullable", false),
    ("data_type", false),
    ("character_maximum_length", true),
    ("character_octet_length", true),
    ("numeric_precision", true),
    ("numeric_precision_radix", true),
    ("numeric_scale", true),
    ("datetime_precision", true),
    ("character_set_name", false),
    ("collation_name", false),
    ("udt_catalog", false),
    ("udt_schema", false),
    ("udt_name", false),
    ("is_identity", false),
    ("is_generated", false),
    ("is_updatable", false),
    ("jdbc_type", true),
];

/// A value of a row.
enum Cell {
    Text(String),
    Number(i32),
    Null,
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

impl From<Option<i32>> for Cell {
    fn from(number: Option<i32>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

fn yes_or_no(value: bool) -> Cell {
    Cell::from(if value { "YES" } else { "NO" })
}

#[async_trait]
impl SystemRows for Rows {
    fn schema(&self) -> SchemaRef {
        let fields = self.columns().iter().map(|(name, is_number)| {
            Field::new(*name, if *is_number { DataType::Int32 } else { DataType::Utf8View }, true)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let rows = match self.table {
            Table::Schemata => self.schemata(),
            Table::Tables => self.tables().await?,
            Table::Columns => self.all_columns().await?,
        };
        let columns = self.columns().iter().enumerate().map(|(index, (_, is_number))| -> ArrayRef {
            let cells = rows.iter().map(|row| &row[index]);
            if *is_number {
                Arc::new(cells.map(Cell::number).collect::<Int32Array>())
            } else {
                Arc::new(cells.map(Cell::text).collect::<StringViewArray>())
            }
        });
        RecordBatch::try_new(self.schema(), columns.collect())
            .map_err(|error| Error::defensive("rows of information_schema do not fit").with_source(error))
    }
}

impl Rows {
    fn columns(&self) -> &'static [ColumnOf] {
        match self.table {
            Table::Schemata => SCHEMATA,
            Table::Tables => TABLES,
            Table::Columns => COLUMNS,
        }
    }

    fn schemata(&self) -> Vec<Vec<Cell>> {
        use datafusion::catalog::CatalogProvider;
        let row = |name: String| {
            vec![CATALOG.into(), Cell::Text(name), CATALOG.into(), Cell::Null, Cell::Null, Cell::Null, Cell::Null]
        };
        self.catalog.schema_names().into_iter().map(row).collect()
    }

    /// Every table, with its schema's name, in the order of both. Tables that vanish meanwhile are left out.
    async fn all_tables(&self) -> Result<Vec<(String, String, Arc<dyn TableProvider>)>> {
        use datafusion::catalog::CatalogProvider;
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

    async fn tables(&self) -> Result<Vec<Vec<Cell>>> {
        let row = |(schema, name, table): (String, String, Arc<dyn TableProvider>)| {
            let is_system = schema == INFORMATION_SCHEMA || table.table_type() != TableType::Base;
            vec![
                CATALOG.into(),
                Cell::Text(schema),
                Cell::Text(name),
                Cell::from(if is_system { "VIEW" } else { "BASE TABLE" }),
                yes_or_no(false),
                yes_or_no(false),
                yes_or_no(false),
                yes_or_no(false),
            ]
        };
        Ok(self.all_tables().await?.into_iter().map(row).collect())
    }

    async fn all_columns(&self) -> Result<Vec<Vec<Cell>>> {
        let mut rows = Vec::new();
        for (schema, name, table) in self.all_tables().await? {
            for (position, field) in (1..).zip(table.schema().fields()) {
                rows.push(column_row(&schema, &name, position, field));
            }
        }
        Ok(rows)
    }
}

fn column_row(schema: &str, table: &str, position: i32, field: &Field) -> Vec<Cell> {
    let described = describe(field.data_type());
    let is_time = matches!(field.data_type(), DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_));
    vec![
        CATALOG.into(),
        schema.into(),
        table.into(),
        field.name().as_str().into(),
        Cell::Number(position),
        Cell::Null,
        yes_or_no(field.is_nullable()),
        described.data_type.into(),
        Cell::Null,
        Cell::Null,
        described.precision.map(|(digits, _)| digits).into(),
        described.precision.map(|(_, radix)| radix).into(),
        described.precision.filter(|_| described.is_integer).map(|_| 0).into(),
        is_time.then_some(if matches!(field.data_type(), DataType::Timestamp(..)) { 3 } else { 6 }).into(),
        Cell::Null,
        Cell::Null,
        CATALOG.into(),
        "pg_catalog".into(),
        described.udt_name.into(),
        yes_or_no(false),
        "NEVER".into(),
        yes_or_no(false),
        Cell::Number(described.jdbc_type),
    ]
}

/// What PostgreSQL says of a type.
struct Described {
    data_type: &'static str,
    udt_name: &'static str,
    /// Digits and their base.
    precision: Option<(i32, i32)>,
    is_integer: bool,
    /// As in `java.sql.Types`.
    jdbc_type: i32,
}

fn describe(data_type: &DataType) -> Described {
    let (data_type, udt_name, precision, is_integer, jdbc_type) = match data_type {
        DataType::Boolean => ("boolean", "bool", None, false, 16),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => ("smallint", "int2", Some((16, 2)), true, 5),
        DataType::Int32 | DataType::UInt16 => ("integer", "int4", Some((32, 2)), true, 4),
        DataType::Int64 | DataType::UInt32 => ("bigint", "int8", Some((64, 2)), true, -5),
        DataType::Float16 | DataType::Float32 => ("real", "float4", Some((24, 2)), false, 7),
        DataType::Float64 => ("double precision", "float8", Some((53, 2)), false, 8),
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::UInt64 => {
            ("numeric", "numeric", None, false, 2)
        }
        DataType::Date32 | DataType::Date64 => ("date", "date", None, false, 91),
        DataType::Timestamp(_, None) => ("timestamp without time zone", "timestamp", None, false, 93),
        DataType::Timestamp(_, Some(_)) => ("timestamp with time zone", "timestamptz", None, false, 2014),
        DataType::Time32(_) | DataType::Time64(_) => ("time without time zone", "time", None, false, 92),
        DataType::Interval(_) | DataType::Duration(_) => ("interval", "interval", None, false, 1111),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ("bytea", "bytea", None, false, -2),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            ("ARRAY", array_of(item.data_type()), None, false, 2003)
        }
        _ => ("text", "text", None, false, 12),
    };
    Described { data_type, udt_name, precision, is_integer, jdbc_type }
}

fn array_of(item: &DataType) -> &'static str {
    match describe(item).udt_name {
        "bool" => "_bool",
        "int2" => "_int2",
        "int4" => "_int4",
        "int8" => "_int8",
        "float4" => "_float4",
        "float8" => "_float8",
        "timestamp" => "_timestamp",
        _ => "_text",
    }
}
