//! Values that a client binds, from bytes to scalars.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use bytes::{Buf, Bytes};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use henge_engine::session::error_from_datafusion;
use henge_engine::{Error, Result};

use super::encode::{Format, days_from_pg, micros_from_pg};
use crate::pg_catalog::{JSONB, JSONB_VERSION, array_oid, element_oid};

/// Names of types in `PREPARE name (…)`, and their numbers.
const NAMES: &[(&str, u32)] = &[
    ("bool", 16),
    ("boolean", 16),
    ("bytea", 17),
    ("bigint", 20),
    ("int8", 20),
    ("smallint", 21),
    ("int2", 21),
    ("int", 23),
    ("int4", 23),
    ("integer", 23),
    ("text", 25),
    ("oid", 26),
    ("json", 114),
    ("jsonb", JSONB),
    ("real", 700),
    ("float4", 700),
    ("float8", 701),
    ("double precision", 701),
    ("float", 701),
    ("date", 1082),
    ("time", 1083),
    ("timestamp", 1114),
    ("timestamp without time zone", 1114),
    ("timestamptz", 1184),
    ("timestamp with time zone", 1184),
    ("interval", 1186),
    ("numeric", 1700),
    ("decimal", 1700),
    ("varchar", 1043),
    ("character varying", 1043),
    ("unknown", 0),
];

/// The number of a type that a person named; arrays as `text[]`.
pub(super) fn type_oid(name: &str) -> Result<u32> {
    let (base, array) = name.strip_suffix("[]").map_or((name, false), |base| (base, true));
    let base = base.split('(').next().unwrap_or(base).trim();
    let oid = NAMES.iter().find(|(known, _)| *known == base).map(|(_, oid)| *oid);
    let oid =
        oid.ok_or_else(|| Error::invalid_input(format!("type \"{name}\" does not exist")).with_sqlstate("42704"))?;
    Ok(if array { array_oid(oid) } else { oid })
}

/// The Arrow type in which a value of type `oid` is given to a query. What is not known is text.
pub(super) fn data_type(oid: u32) -> DataType {
    match oid {
        16 => DataType::Boolean,
        17 => DataType::Binary,
        20 => DataType::Int64,
        21 => DataType::Int16,
        23 => DataType::Int32,
        26 => DataType::Int64,
        700 => DataType::Float32,
        701 => DataType::Float64,
        1082 => DataType::Date32,
        1083 => DataType::Time64(TimeUnit::Microsecond),
        1114 => DataType::Timestamp(TimeUnit::Microsecond, None),
        1184 => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        1186 => DataType::Interval(IntervalUnit::MonthDayNano),
        1700 => DataType::Decimal128(38, 10),
        oid => match element_oid(oid) {
            Some(element) => DataType::List(Arc::new(Field::new_list_field(data_type(element), true))),
            None => DataType::Utf8,
        },
    }
}

/// One bound value. `None` is null.
pub(super) fn decode(value: Option<&Bytes>, oid: u32, format: Format) -> Result<ScalarValue> {
    let Some(bytes) = value else { return ScalarValue::try_from(&data_type(oid)).map_err(error_from_datafusion) };
    match format {
        Format::Text => {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                Error::invalid_input("invalid byte sequence for encoding \"UTF8\"").with_sqlstate("22021")
            })?;
            from_text(text, oid)
        }
        Format::Binary => from_binary(bytes.clone(), oid),
    }
}

pub(super) fn from_text(text: &str, oid: u32) -> Result<ScalarValue> {
    let invalid = || {
        let data_type = data_type(oid);
        Error::invalid_input(format!("invalid input syntax for type {data_type}: \"{text}\"")).with_sqlstate("22P02")
    };
    let parse = |text: &str| ScalarValue::try_from_string(text.to_string(), &data_type(oid)).map_err(|_| invalid());
    match oid {
        16 => match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "yes" | "y" => Ok(ScalarValue::Boolean(Some(true))),
            "f" | "false" | "0" | "off" | "no" | "n" => Ok(ScalarValue::Boolean(Some(false))),
            _ => Err(invalid()),
        },
        17 => bytea(text).map(|bytes| ScalarValue::Binary(Some(bytes))).ok_or_else(invalid),
        1114 => parse(without_zone(text.trim())),
        1700 => numeric(text.trim()).ok_or_else(invalid),
        25 | 1043 | 19 | 114 | JSONB | 0 => Ok(ScalarValue::Utf8(Some(text.to_string()))),
        oid => match element_oid(oid) {
            Some(element) => array_from_text(text, element).and_then(|items| items.ok_or_else(invalid)),
            None => parse(text.trim()),
        },
    }
}

/// `timestamp` ignores a zone, as in PostgreSQL: `2015-09-12 05:00:00-04` is five o'clock.
fn without_zone(text: &str) -> &str {
    let clock = text.find([' ', 'T']).unwrap_or(text.len());
    let end = text[clock..].find(['+', '-', 'Z']).map_or(text.len(), |at| clock + at);
    text[..end].trim_end()
}

fn bytea(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else { return Some(text.as_bytes().to_vec()) };
    let digits = digits.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? * 16 + digit(*pair.get(1)?)?) as u8)).collect()
}

/// A decimal with the digits it has.
fn numeric(text: &str) -> Option<ScalarValue> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    if exponent != "0" {
        return text.parse().ok().map(|float| ScalarValue::Float64(Some(float)));
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let scale = i8::try_from(fraction.len()).ok().filter(|scale| *scale <= 38)?;
    let value: i128 = digits.parse().ok()?;
    Some(ScalarValue::Decimal128(Some(value), 38, scale))
}

fn array_from_text(text: &str, element: u32) -> Result<Option<ScalarValue>> {
    let Some(inner) = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')) else { return Ok(None) };
    let Some(items) = array_items(inner) else { return Ok(None) };
    let values = items.iter().map(|item| match item {
        Some(text) => from_text(text, element),
        None => decode(None, element, Format::Text),
    });
    list(values.collect::<Result<_>>()?, element).map(Some)
}

/// The texts of an array such as `{a,"b c",NULL}`.
pub(super) fn texts_of_array(text: &str) -> Result<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    inner
        .and_then(array_items)
        .ok_or_else(|| Error::invalid_input(format!("malformed array literal: \"{text}\"")).with_sqlstate("22P02"))
}

/// The items of `a,"b c",NULL`. Nested arrays are not taken.
fn array_items(text: &str) -> Option<Vec<Option<String>>> {
    let mut items = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        let mut item = String::new();
        let mut quoted = false;
        while chars.next_if(|char| char.is_whitespace()).is_some() {}
        while let Some(char) = chars.next() {
            match char {
                '"' => {
                    quoted = true;
                    loop {
                        match chars.next()? {
                            '"' => break,
                            '\\' => item.push(chars.next()?),
                            char => item.push(char),
                        }
                    }
                    while chars.next_if(|char| char.is_whitespace()).is_some() {}
                }
                '\\' => item.push(chars.next()?),
                '{' | '}' => return None,
                ',' => break,
                char => item.push(char),
            }
        }
        let null = !quoted && item.trim().eq_ignore_ascii_case("null");
        items.push((!null).then(|| if quoted { item } else { item.trim().to_string() }));
    }
    Some(items)
}

fn list(values: Vec<ScalarValue>, element: u32) -> Result<ScalarValue> {
    let items: ArrayRef = if values.is_empty() {
        arrow::array::new_empty_array(&data_type(element))
    } else {
        ScalarValue::iter_to_array(values).map_err(error_from_datafusion)?
    };
    Ok(SingleRowListArrayBuilder::new(items).build_list_scalar())
}

fn from_binary(mut bytes: Bytes, oid: u32) -> Result<ScalarValue> {
    let wrong = || {
        Error::invalid_input(format!("incorrect binary data format for a parameter of type {oid}"))
            .with_sqlstate("22P03")
    };
    let sized = |size: usize| if bytes.len() == size { Ok(()) } else { Err(wrong()) };
    match oid {
        16 => sized(1)?,
        21 => sized(2)?,
        23 | 26 | 700 | 1082 => sized(4)?,
        20 | 701 | 1083 | 1114 | 1184 => sized(8)?,
        1186 => sized(16)?,
        _ => {}
    }
    Ok(match oid {
        16 => ScalarValue::Boolean(Some(bytes.get_u8() != 0)),
        17 => ScalarValue::Binary(Some(bytes.to_vec())),
        20 => ScalarValue::Int64(Some(bytes.get_i64())),
        21 => ScalarValue::Int16(Some(bytes.get_i16())),
        23 => ScalarValue::Int32(Some(bytes.get_i32())),
        26 => ScalarValue::Int64(Some(i64::from(bytes.get_u32()))),
        700 => ScalarValue::Float32(Some(bytes.get_f32())),
        701 => ScalarValue::Float64(Some(bytes.get_f64())),
        1082 => ScalarValue::Date32(Some(days_from_pg(bytes.get_i32()))),
        1083 => ScalarValue::Time64Microsecond(Some(bytes.get_i64())),
        1114 => ScalarValue::TimestampMicrosecond(Some(micros_from_pg(bytes.get_i64())), None),
        1184 => ScalarValue::TimestampMicrosecond(Some(micros_from_pg(bytes.get_i64())), Some("+00:00".into())),
        1186 => interval(&mut bytes).ok_or_else(wrong)?,
        1700 => binary_numeric(&mut bytes).ok_or_else(wrong)?,
        JSONB => match bytes.split_first() {
            Some((&JSONB_VERSION, text)) => {
                ScalarValue::Utf8(Some(String::from_utf8(text.to_vec()).map_err(|_| wrong())?))
            }
            _ => return Err(wrong()),
        },
        oid => match element_oid(oid) {
            Some(element) => array_from_binary(&mut bytes, element)?.ok_or_else(wrong)?,
            None => ScalarValue::Utf8(Some(String::from_utf8(bytes.to_vec()).map_err(|_| wrong())?)),
        },
    })
}

fn interval(bytes: &mut Bytes) -> Option<ScalarValue> {
    let nanos = bytes.get_i64().checked_mul(1_000)?;
    let (days, months) = (bytes.get_i32(), bytes.get_i32());
    Some(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos))))
}

fn binary_numeric(bytes: &mut Bytes) -> Option<ScalarValue> {
    let groups = bytes.try_get_i16().ok()?;
    let weight = i32::from(bytes.try_get_i16().ok()?);
    let sign = bytes.try_get_u16().ok()?;
    let scale = i32::from(bytes.try_get_i16().ok()?);
    if !matches!(sign, 0 | 0x4000) || !(0..=38).contains(&scale) {
        return None;
    }
    let mut value: i128 = 0;
    let mut last_weight = weight + 1;
    for _ in 0..groups {
        value = value.checked_mul(10_000)?.checked_add(i128::from(bytes.try_get_u16().ok()?))?;
        last_weight -= 1;
    }
    // `value` counts in units of 10000^last_weight; bring it to units of 10^-scale.
    let shift = last_weight * 4 + scale;
    let power = 10i128.checked_pow(shift.unsigned_abs())?;
    value = if shift >= 0 { value.checked_mul(power)? } else { value / power };
    Some(ScalarValue::Decimal128(Some(if sign == 0 { value } else { -value }), 38, scale as i8))
}

fn array_from_binary(bytes: &mut Bytes, element: u32) -> Result<Option<ScalarValue>> {
    let mut header = || -> Option<(i32, u32)> {
        let dimensions = bytes.try_get_i32().ok()?;
        let _has_nulls = bytes.try_get_i32().ok()?;
        let declared = bytes.try_get_u32().ok()?;
        let mut length = 0;
        if dimensions == 1 {
            length = bytes.try_get_i32().ok()?;
            let _lower_bound = bytes.try_get_i32().ok()?;
        }
        (dimensions <= 1).then_some((length, declared))
    };
    let Some((length, declared)) = header() else { return Ok(None) };
    // What is said to be inside must be what the array is of: arrays within arrays could nest without end.
    if declared != element {
        return Ok(None);
    }
    let mut values = Vec::new();
    for _ in 0..length {
        let Ok(size) = bytes.try_get_i32() else { return Ok(None) };
        let item = match usize::try_from(size) {
            Ok(size) if size <= bytes.len() => Some(bytes.split_to(size)),
            Ok(_) => return Ok(None),
            Err(_) => None,
        };
        values.push(decode(item.as_ref(), declared, Format::Binary)?);
    }
    list(values, element).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, oid: u32) -> ScalarValue {
        decode(Some(&Bytes::copy_from_slice(text.as_bytes())), oid, Format::Text).unwrap()
    }

    fn binary(bytes: &'static [u8], oid: u32) -> Result<ScalarValue> {
        decode(Some(&Bytes::from_static(bytes)), oid, Format::Binary)
    }

    #[test]
    fn a_timestamp_ignores_its_zone_and_a_timestamptz_does_not() {
        let five = 1_442_034_000_000_000;
        assert_eq!(text("2015-09-12 05:00:00-04", 1114), ScalarValue::TimestampMicrosecond(Some(five), None));
        let zoned = ScalarValue::TimestampMicrosecond(Some(five), Some("+00:00".into()));
        assert_eq!(text("2015-09-12 01:00:00-04", 1184), zoned);
        assert_eq!(text("2015-09-12", 1114), ScalarValue::TimestampMicrosecond(Some(five - 18_000_000_000), None));
    }

    #[test]
    fn numerics_keep_their_digits_in_both_forms() {
        assert_eq!(text("-10.50", 1700), ScalarValue::Decimal128(Some(-1050), 38, 2));
        // -10.5: groups 10 and 5000, weight 0, scale 1
        let value = binary(b"\0\x02\0\0\x40\0\0\x01\0\x0a\x13\x88", 1700).unwrap();
        assert_eq!(value, ScalarValue::Decimal128(Some(-105), 38, 1));
    }

    #[test]
    fn arrays_are_read_in_text_and_binary() {
        let expected = list(vec!["a".into(), "b \"c\"".into(), ScalarValue::Utf8(None)], 25).unwrap();
        assert_eq!(text(r#"{ a, "b \"c\"" ,NULL}"#, 1009), expected);
        let bytes = b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0\x07";
        assert_eq!(binary(bytes, 1007).unwrap(), list(vec![ScalarValue::Int32(Some(7))], 23).unwrap());
    }

    #[test]
    fn wrong_lengths_are_errors_not_panics() {
        for oid in [16, 20, 21, 23, 700, 701, 1082, 1114, 1184, 1186, 1700, 1007] {
            assert!(binary(b"\0\x01\xff", oid).is_err(), "{oid}");
            assert!(binary(b"", oid).is_err() || oid == 17, "{oid}");
        }
    }
}
