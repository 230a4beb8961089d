//! The binary form of values. Which form follows from the described type, not from Arrow's.

use bytes::{BufMut, BytesMut};
use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};

use super::number::put_numeric_binary;
use super::temporal::{Zone, put_date_binary, put_interval_binary, put_timestamp_binary};
use super::{Values, array, text};
use crate::pg_catalog::{JSONB, JSONB_VERSION};

/// Appends value `row`, which is not null, in the binary form of type `oid`.
pub(super) fn put(values: &Values<'_>, row: usize, oid: u32, out: &mut BytesMut) -> Result<()> {
    match values {
        Values::Null => {}
        Values::Bool(array) => out.put_u8(u8::from(array.value(row))),
        Values::Int8(array) => put_integer(i64::from(array.value(row)), oid, out),
        Values::Int16(array) => put_integer(i64::from(array.value(row)), oid, out),
        Values::Int32(array) => put_integer(i64::from(array.value(row)), oid, out),
        Values::Int64(array) => put_integer(array.value(row), oid, out),
        Values::UInt8(array) => put_integer(i64::from(array.value(row)), oid, out),
        Values::UInt16(array) => put_integer(i64::from(array.value(row)), oid, out),
        Values::UInt32(array) => put_integer(i64::from(array.value(row)), oid, out),
        Values::UInt64(array) => put_integer(signed(array.value(row))?, oid, out),
        Values::Float32(array) => out.put_f32(array.value(row)),
        Values::Float64(array) => out.put_f64(array.value(row)),
        Values::Decimal128(array, scale) => put_numeric_binary(&array.value(row).to_string(), *scale, out),
        Values::Decimal256(array, scale) => put_numeric_binary(&array.value(row).to_string(), *scale, out),
        Values::Binary(array) => out.put_slice(array.value(row)),
        Values::LargeBinary(array) => out.put_slice(array.value(row)),
        Values::BinaryView(array) => out.put_slice(array.value(row)),
        Values::FixedBinary(array) => out.put_slice(array.value(row)),
        Values::Date(array) => put_date_binary(i64::from(array.value(row)), out),
        Values::Date64(array) => put_date_binary(array.value(row).div_euclid(86_400_000), out),
        Values::Time(scaled) => out.put_i64(scaled.micros(row)),
        Values::Timestamp(scaled, _) => put_timestamp_binary(scaled.micros(row), out),
        Values::Interval(spans) => put_interval_binary(spans.get(row), out),
        Values::List(_, items) => array::put_binary(items, row, out)?,
        Values::Owned(array) => put(&Values::of(array)?, row, oid, out)?,
        Values::Utf8(_) | Values::LargeUtf8(_) | Values::Utf8View(_) => {
            if oid == JSONB {
                out.put_u8(JSONB_VERSION);
            }
            text::put(values, row, &Zone::Utc, out)?;
        }
    }
    Ok(())
}

fn put_integer(number: i64, oid: u32, out: &mut BytesMut) {
    match oid {
        21 => out.put_i16(number as i16),
        20 => out.put_i64(number),
        // int4 and the oid types
        _ => out.put_i32(number as i32),
    }
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| {
        Error::new(Category::InvalidInput, Persona::User, format!("{number} is out of range for type bigint"))
            .context("sqlstate", "22003")
    })
}
