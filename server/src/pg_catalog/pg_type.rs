//! PostgreSQL's types as messages name them: the one mapping from Arrow's.

use arrow::datatypes::{DataType, Field};
use henge_engine::session::JsonKind;

/// Field metadata by which a catalogue column says that it is an `oid`, a `name` and so on.
pub(crate) const PG_TYPE_KEY: &str = "henge.pg_type";

/// Binary values of it begin with the number of a version.
pub(crate) const JSONB: u32 = 3802;
pub(crate) const JSONB_VERSION: u8 = 1;

/// A PostgreSQL type as a row description names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PgType {
    pub(crate) oid: u32,
    /// Bytes of a value, or -1 when they vary.
    pub(crate) size: i16,
    pub(crate) modifier: i32,
}

impl PgType {
    pub(crate) const TEXT: PgType = PgType::new(25, -1);

    const fn new(oid: u32, size: i16) -> Self {
        Self { oid, size, modifier: -1 }
    }

    /// The type that a client sees for a column.
    pub(crate) fn of(field: &Field) -> PgType {
        match field.metadata().get(PG_TYPE_KEY).and_then(|oid| oid.parse().ok()) {
            Some(oid) => PgType::new(oid, named_size(oid)),
            None => match JsonKind::of(field) {
                Some(JsonKind::Json) => PgType::new(114, -1),
                Some(JsonKind::Jsonb) => PgType::new(JSONB, -1),
                None => PgType::of_data_type(field.data_type()),
            },
        }
    }

    pub(crate) fn of_data_type(data_type: &DataType) -> PgType {
        match data_type {
            DataType::Boolean => PgType::new(16, 1),
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => PgType::new(21, 2),
            DataType::Int32 | DataType::UInt16 => PgType::new(23, 4),
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => PgType::new(20, 8),
            DataType::Float16 | DataType::Float32 => PgType::new(700, 4),
            DataType::Float64 => PgType::new(701, 8),
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => numeric(*p, *s),
            DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => numeric(*p, *s),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                PgType::new(17, -1)
            }
            DataType::Date32 | DataType::Date64 => PgType::new(1082, 4),
            DataType::Time32(_) | DataType::Time64(_) => PgType::new(1083, 8),
            DataType::Timestamp(_, None) => PgType::new(1114, 8),
            DataType::Timestamp(_, Some(_)) => PgType::new(1184, 8),
            DataType::Interval(_) | DataType::Duration(_) => PgType::new(1186, 16),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                PgType::new(array_oid(PgType::of(item).oid), -1)
            }
            DataType::Dictionary(_, value) => PgType::of_data_type(value),
            _ => PgType::TEXT,
        }
    }
}

fn numeric(precision: u8, scale: i8) -> PgType {
    let modifier = ((i32::from(precision) << 16) | (i32::from(scale) & 0x7ff)) + 4;
    PgType { oid: 1700, size: -1, modifier }
}

fn named_size(oid: u32) -> i16 {
    match oid {
        16 | 18 => 1,
        19 => 64,
        21 => 2,
        23 | 24 | 26 | 28 | 700 | 1082 | 2202..=2206 | 4089 | 4096 => 4,
        20 | 701 | 1114 | 1184 => 8,
        _ => -1,
    }
}

/// Element type and array type, both ways.
const ARRAYS: &[(u32, u32)] = &[
    (16, 1000),
    (17, 1001),
    (18, 1002),
    (19, 1003),
    (20, 1016),
    (21, 1005),
    (23, 1007),
    (25, 1009),
    (26, 1028),
    (114, 199),
    (700, 1021),
    (701, 1022),
    (1033, 1034),
    (1043, 1015),
    (1082, 1182),
    (1083, 1183),
    (1114, 1115),
    (1184, 1185),
    (1186, 1187),
    (1700, 1231),
    (3802, 3807),
];

pub(crate) fn array_oid(element: u32) -> u32 {
    ARRAYS.iter().find(|(item, _)| *item == element).map_or(1009, |(_, array)| *array)
}

pub(crate) fn element_oid(array: u32) -> Option<u32> {
    ARRAYS.iter().find(|(_, oid)| *oid == array).map(|(item, _)| *item)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn descriptions_name_true_types() {
        let types = [
            (DataType::Int64, 20),
            (DataType::Utf8View, 25),
            (DataType::Timestamp(TimeUnit::Millisecond, None), 1114),
            (DataType::Decimal128(10, 2), 1700),
            (DataType::new_list(DataType::Utf8View, true), 1009),
            (DataType::Null, 25),
        ];
        for (data_type, oid) in types {
            assert_eq!(PgType::of_data_type(&data_type).oid, oid, "{data_type}");
        }
        assert_eq!(PgType::of_data_type(&DataType::Decimal128(10, 2)).modifier, (10 << 16 | 2) + 4);
        let field = Field::new("oid", DataType::Int64, true)
            .with_metadata([(PG_TYPE_KEY.to_string(), "26".to_string())].into());
        assert_eq!(PgType::of(&field).oid, 26);
        for (element, array) in ARRAYS {
            assert!(crate::pg_catalog::types::find(i64::from(*array)).is_some(), "{element}");
        }
    }
}
