//! Types by the names that PostgreSQL has for them.

use arrow::datatypes::DataType;

/// What PostgreSQL says of a type.
pub(super) struct Described {
    pub(super) data_type: &'static str,
    pub(super) udt_name: &'static str,
    /// Digits and their base.
    pub(super) precision: Option<(i32, i32)>,
    pub(super) is_integer: bool,
    /// As in `java.sql.Types`.
    pub(super) jdbc_type: i32,
}

pub(super) fn describe(data_type: &DataType) -> Described {
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
