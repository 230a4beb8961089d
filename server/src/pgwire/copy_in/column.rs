//! Fields into the values of a column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Builder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
    StringViewBuilder, TimestampMillisecondBuilder, new_empty_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, TimeUnit};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use henge_engine::session::{JsonKind, error_from_datafusion};
use henge_engine::{Error, Result};

use super::super::encode::{Format, micros_from_pg};
use super::super::parameter;
use crate::pg_catalog::PgType;

const TIMESTAMP: u32 = 1114;
const TEXT_ARRAY: u32 = 1009;

pub(super) struct Column {
    pub(super) name: String,
    values: Values,
}

/// The columns that data sources have, and any other that a temporary table may have.
enum Values {
    Time(TimestampMillisecondBuilder),
    Long(Int64Builder),
    Double(Float64Builder),
    Float(Float32Builder),
    Text(StringViewBuilder),
    PlainText(StringBuilder),
    Texts(ListBuilder<StringViewBuilder>),
    Other { values: Vec<ScalarValue>, data_type: DataType, oid: u32 },
}

impl Column {
    pub(super) fn of(field: &Field) -> Result<Self> {
        if JsonKind::of(field).is_some() {
            let message = format!("column `{}` holds JSON; copy into a column of `text` and cast it", field.name());
            return Err(Error::unsupported(message).with_sqlstate("0A000"));
        }
        let values = match field.data_type() {
            DataType::Timestamp(TimeUnit::Millisecond, None) if !field.is_nullable() => {
                Values::Time(TimestampMillisecondBuilder::new())
            }
            DataType::Int64 => Values::Long(Int64Builder::new()),
            DataType::Float64 => Values::Double(Float64Builder::new()),
            DataType::Float32 => Values::Float(Float32Builder::new()),
            DataType::Utf8View => Values::Text(StringViewBuilder::new()),
            DataType::Utf8 => Values::PlainText(StringBuilder::new()),
            DataType::List(item) if *item.data_type() == DataType::Utf8View => {
                Values::Texts(ListBuilder::new(StringViewBuilder::new()).with_field(Arc::clone(item)))
            }
            other => Values::Other { values: Vec::new(), data_type: other.clone(), oid: PgType::of(field).oid },
        };
        Ok(Self { name: field.name().clone(), values })
    }

    pub(super) fn push(&mut self, field: Option<&[u8]>, format: Format) -> Result<()> {
        match &mut self.values {
            Values::Time(times) => match field {
                Some(field) => times.append_value(millis(field, format)?),
                None => {
                    let message = format!("null value in column \"{}\"", self.name);
                    return Err(Error::invalid_input(message).with_sqlstate("23502"));
                }
            },
            Values::Long(values) => values
                .append_option(field.map(|field| number(field, format, "bigint", i64::from_be_bytes)).transpose()?),
            Values::Double(values) => values.append_option(
                field.map(|field| number(field, format, "double precision", f64::from_be_bytes)).transpose()?,
            ),
            Values::Float(values) => {
                values.append_option(field.map(|field| number(field, format, "real", f32::from_be_bytes)).transpose()?);
            }
            Values::Text(values) => values.append_option(field.map(text).transpose()?),
            Values::PlainText(values) => values.append_option(field.map(text).transpose()?),
            Values::Texts(lists) => match field {
                None => lists.append_null(),
                Some(field) => {
                    texts(field, format)?.into_iter().for_each(|item| lists.values().append_option(item));
                    lists.append(true);
                }
            },
            Values::Other { values, data_type, oid } => {
                let bytes = field.map(Bytes::copy_from_slice);
                let value = parameter::decode(bytes.as_ref(), *oid, format)?;
                values.push(value.cast_to(data_type).map_err(error_from_datafusion)?);
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match &mut self.values {
            Values::Time(values) => Arc::new(values.finish()),
            Values::Long(values) => Arc::new(values.finish()),
            Values::Double(values) => Arc::new(values.finish()),
            Values::Float(values) => Arc::new(values.finish()),
            Values::Text(values) => Arc::new(values.finish()),
            Values::PlainText(values) => Arc::new(values.finish()),
            Values::Texts(values) => Arc::new(values.finish()),
            Values::Other { values, data_type, .. } if values.is_empty() => new_empty_array(data_type),
            Values::Other { values, data_type, .. } => {
                let array = ScalarValue::iter_to_array(std::mem::take(values)).map_err(error_from_datafusion)?;
                // The names of a list's items may differ.
                cast(&array, data_type).map_err(|error| error_from_datafusion(error.into()))?
            }
        })
    }
}

fn text(field: &[u8]) -> Result<&str> {
    std::str::from_utf8(field)
        .map_err(|_| Error::invalid_input("invalid byte sequence for encoding \"UTF8\"").with_sqlstate("22021"))
}

fn wrong_bytes(kind: &str) -> Error {
    Error::invalid_input(format!("incorrect binary data format for type {kind}")).with_sqlstate("22P03")
}

fn millis(field: &[u8], format: Format) -> Result<i64> {
    let micros = match format {
        Format::Binary => {
            let bytes = field.try_into().map_err(|_| wrong_bytes("timestamp"))?;
            let micros = i64::from_be_bytes(bytes);
            // The two ends are `infinity`.
            (micros.abs_diff(0) < (1 << 62)).then(|| micros_from_pg(micros))
        }
        Format::Text => match parameter::from_text(text(field)?, TIMESTAMP) {
            Ok(ScalarValue::TimestampMicrosecond(micros, _)) => micros,
            _ => None,
        },
    };
    let wrong = || {
        let shown = if format == Format::Text { String::from_utf8_lossy(field) } else { "infinity".into() };
        Error::invalid_input(format!("invalid input syntax for type timestamp: \"{shown}\"")).with_sqlstate("22007")
    };
    micros.map(|micros| micros.div_euclid(1_000)).ok_or_else(wrong)
}

fn number<T: std::str::FromStr, const N: usize>(
    field: &[u8],
    format: Format,
    kind: &str,
    from_bytes: fn([u8; N]) -> T,
) -> Result<T> {
    if format == Format::Binary {
        return field.try_into().map(from_bytes).map_err(|_| wrong_bytes(kind));
    }
    let text = text(field)?;
    text.trim().parse().map_err(|_| {
        Error::invalid_input(format!("invalid input syntax for type {kind}: \"{text}\"")).with_sqlstate("22P02")
    })
}

fn texts(field: &[u8], format: Format) -> Result<Vec<Option<String>>> {
    if format == Format::Text {
        return parameter::texts_of_array(text(field)?);
    }
    match parameter::decode(Some(&Bytes::copy_from_slice(field)), TEXT_ARRAY, format)? {
        ScalarValue::List(list) if list.len() == 1 => {
            let items = cast(&list.value(0), &DataType::Utf8).map_err(|_| wrong_bytes("text[]"))?;
            Ok(items.as_string::<i32>().iter().map(|item| item.map(str::to_owned)).collect())
        }
        _ => Err(wrong_bytes("text[]")),
    }
}
