//! The text form of values.

use bytes::{BufMut, BytesMut};
use henge_engine::Result;

use super::number::{put_decimal, put_decimal_integer, put_float32, put_float64};
use super::temporal::{Zone, put_date, put_interval, put_time, put_timestamp, put_timestamptz};
use super::{Values, array};

/// Appends value `row`, which is not null, as text.
pub(super) fn put(values: &Values<'_>, row: usize, zone: &Zone, out: &mut BytesMut) -> Result<()> {
    match values {
        Values::Null => {}
        Values::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
        Values::Int8(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::Int16(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::Int32(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::Int64(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::UInt8(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::UInt16(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::UInt32(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::UInt64(array) => put_decimal_integer(i128::from(array.value(row)), out),
        Values::Float32(array) => put_float32(array.value(row), out),
        Values::Float64(array) => put_float64(array.value(row), out),
        Values::Decimal128(array, scale) => put_decimal(&array.value(row).to_string(), *scale, out),
        Values::Decimal256(array, scale) => put_decimal(&array.value(row).to_string(), *scale, out),
        Values::Utf8(array) => out.put_slice(array.value(row).as_bytes()),
        Values::LargeUtf8(array) => out.put_slice(array.value(row).as_bytes()),
        Values::Utf8View(array) => out.put_slice(array.value(row).as_bytes()),
        Values::Binary(array) => put_bytes(array.value(row), out),
        Values::LargeBinary(array) => put_bytes(array.value(row), out),
        Values::BinaryView(array) => put_bytes(array.value(row), out),
        Values::FixedBinary(array) => put_bytes(array.value(row), out),
        Values::Date(array) => put_date(i64::from(array.value(row)), out),
        Values::Date64(array) => put_date(array.value(row).div_euclid(86_400_000), out),
        Values::Time(scaled) => put_time(scaled.micros(row), out),
        Values::Timestamp(scaled, false) => put_timestamp(scaled.micros(row), out),
        Values::Timestamp(scaled, true) => put_timestamptz(scaled.micros(row), zone, out),
        Values::Interval(spans) => put_interval(spans.get(row), out),
        Values::List(_, items) => array::put_text(items, row, zone, out)?,
        Values::Owned(array) => put(&Values::of(array)?, row, zone, out)?,
    }
    Ok(())
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_u8(DIGITS[usize::from(byte >> 4)]);
        out.put_u8(DIGITS[usize::from(byte & 15)]);
    }
}
