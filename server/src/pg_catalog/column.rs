//! Columns of the catalogue's tables, and rows to batches of them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use henge_engine::{Error, Result};

use super::pg_type::PG_TYPE_KEY;

/// Name of a table, `|`, and its columns with their types, as PostgreSQL 15 has them.
const TABLES: &str = include_str!("tables.txt");

pub(super) fn table_names() -> impl Iterator<Item = &'static str> {
    TABLES.lines().filter_map(|line| line.split('|').next())
}

/// Columns of a table; `None` if there is no such table.
pub(super) fn schema(table: &str) -> Option<SchemaRef> {
    let columns = TABLES.lines().find_map(|line| line.strip_prefix(table)?.strip_prefix('|'))?;
    let fields = columns.split(", ").filter_map(|column| column.split_once(' ')).map(|(name, kind)| field(name, kind));
    Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// Type of the values, and the type that clients are told where it is another.
fn field(name: &str, kind: &str) -> Field {
    let (data_type, oid) = match kind {
        "boolean" => (DataType::Boolean, None),
        "smallint" => (DataType::Int16, None),
        "integer" => (DataType::Int32, None),
        "bigint" => (DataType::Int64, None),
        "real" => (DataType::Float32, None),
        "oid" => (DataType::Int64, Some(26)),
        "xid" => (DataType::Int64, Some(28)),
        "regproc" => (DataType::Int64, Some(24)),
        "inet" => (DataType::Utf8View, Some(869)),
        "timestamp with time zone" => (DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), None),
        "name" => (DataType::Utf8View, Some(19)),
        "\"char\"" => (DataType::Utf8View, Some(18)),
        "aclitem[]" | "text[]" | "name[]" | "\"char\"[]" => (DataType::new_list(DataType::Utf8View, true), None),
        "oid[]" => (DataType::new_list(DataType::Int64, true), None),
        "smallint[]" => (DataType::new_list(DataType::Int16, true), None),
        _ => (DataType::Utf8View, None),
    };
    let field = Field::new(name, data_type, true);
    match oid {
        Some(oid) => field.with_metadata([(PG_TYPE_KEY.to_string(), oid.to_string())].into()),
        None => field,
    }
}

/// One value of a row.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Text(String),
    Number(i64),
    Bool(bool),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_string())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Cell::Number(number)
    }
}

impl From<bool> for Cell {
    fn from(truth: bool) -> Self {
        Cell::Bool(truth)
    }
}

/// A row by column names. Columns it does not name are null.
pub(super) type Row = Vec<(&'static str, Cell)>;

pub(super) fn batch(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch> {
    let arrays = schema.fields().iter().map(|field| array(field, rows)).collect();
    RecordBatch::try_new(Arc::clone(schema), arrays)
        .map_err(|error| Error::defensive(format!("a table of pg_catalog: {error}")))
}

fn array(field: &Field, rows: &[Row]) -> ArrayRef {
    let cells = || rows.iter().map(|row| row.iter().find(|(name, _)| name == field.name()).map(|(_, cell)| cell));
    let numbers = || cells().map(|cell| if let Some(Cell::Number(number)) = cell { Some(*number) } else { None });
    match field.data_type() {
        DataType::Boolean => {
            let truth = |cell: Option<&Cell>| if let Some(Cell::Bool(truth)) = cell { Some(*truth) } else { None };
            Arc::new(cells().map(truth).collect::<BooleanArray>())
        }
        DataType::Int16 => Arc::new(numbers().map(|number| number.map(|number| number as i16)).collect::<Int16Array>()),
        DataType::Int32 => Arc::new(numbers().map(|number| number.map(|number| number as i32)).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(numbers().collect::<Int64Array>()),
        DataType::Float32 => {
            Arc::new(numbers().map(|number| number.map(|number| number as f32)).collect::<Float32Array>())
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => {
            Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone(Arc::clone(zone)))
        }
        DataType::Utf8View => {
            let texts = cells().map(|cell| if let Some(Cell::Text(text)) = cell { Some(text.as_str()) } else { None });
            Arc::new(texts.collect::<StringViewArray>())
        }
        other => new_null_array(other, rows.len()),
    }
}
