//! Values as documents: `to_json`, `json_build_object`, `json_build_array`, and what `json_agg` is made of.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use arrow::util::display::array_value_to_string;
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::ScalarUDF;

use super::document::{Document, put_quoted};
use super::{JsonKind, function, invalid, json_field, jsonb_field, no_such, operator};
use crate::error::{Error, Result};

pub(super) fn all() -> Vec<ScalarUDF> {
    let one =
        |name: &str, given: &[DataType]| if given.len() == 1 { any(given) } else { Err(no_such(name, given).into()) };
    let all = |_: &str, given: &[DataType]| any(given);
    vec![
        function("to_json", one, json_field, |columns, fields, rows| converted(columns, fields, rows, Ok)),
        function("to_jsonb", one, jsonb_field, |columns, fields, rows| converted(columns, fields, rows, ordered)),
        function("json_build_object", all, json_field, |columns, fields, rows| objects(columns, fields, rows, Ok)),
        function("jsonb_build_object", all, jsonb_field, |columns, fields, rows| {
            objects(columns, fields, rows, ordered)
        }),
        function("json_build_array", all, json_field, |columns, fields, rows| arrays(columns, fields, rows, Ok)),
        function("jsonb_build_array", all, jsonb_field, |columns, fields, rows| arrays(columns, fields, rows, ordered)),
        function(operator::LIST, one, json_field, |columns, _, rows| collected(columns, rows, Ok)),
        function(operator::LISTB, one, jsonb_field, |columns, _, rows| collected(columns, rows, ordered)),
    ]
}

/// Arguments as they are; texts in the one form that documents have.
fn any(given: &[DataType]) -> PlanResult<Vec<DataType>> {
    let plain = |given: &DataType| match given {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        other => other.clone(),
    };
    Ok(given.iter().map(plain).collect())
}

type Finish = fn(String) -> Result<String>;

/// As a `jsonb`.
fn ordered(text: String) -> Result<String> {
    Document::read(&text).map(|document| document.text())
}

fn each_row(rows: usize, row: impl Fn(usize) -> Result<Option<String>>) -> PlanResult<ArrayRef> {
    let mut answers = StringBuilder::new();
    for at in 0..rows {
        answers.append_option(row(at)?);
    }
    Ok(Arc::new(answers.finish()))
}

fn converted(columns: &[ArrayRef], fields: &[FieldRef], rows: usize, finish: Finish) -> PlanResult<ArrayRef> {
    each_row(rows, |row| {
        if columns[0].is_null(row) || *columns[0].data_type() == DataType::Null {
            return Ok(None);
        }
        let mut text = String::new();
        put(columns[0].as_ref(), &fields[0], row, &mut text)?;
        finish(text).map(Some)
    })
}

fn objects(columns: &[ArrayRef], fields: &[FieldRef], rows: usize, finish: Finish) -> PlanResult<ArrayRef> {
    if !columns.len().is_multiple_of(2) {
        return Err(invalid("argument list must have even number of elements").into());
    }
    let keys = columns
        .iter()
        .step_by(2)
        .map(|keys| cast(keys, &DataType::Utf8))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    each_row(rows, |row| {
        let mut text = String::from("{");
        for (at, keys) in keys.iter().enumerate() {
            if keys.is_null(row) {
                return Err(invalid(format!(
                    "argument {} cannot be null: the keys of an object are texts",
                    at * 2 + 1
                ))
                .with_sqlstate("22004"));
            }
            text.push_str(if at > 0 { ", " } else { "" });
            put_quoted(keys.as_string::<i32>().value(row), &mut text);
            text.push_str(" : ");
            put(columns[at * 2 + 1].as_ref(), &fields[at * 2 + 1], row, &mut text)?;
        }
        text.push('}');
        finish(text).map(Some)
    })
}

fn arrays(columns: &[ArrayRef], fields: &[FieldRef], rows: usize, finish: Finish) -> PlanResult<ArrayRef> {
    each_row(rows, |row| {
        let mut text = String::from("[");
        for (at, (column, field)) in columns.iter().zip(fields).enumerate() {
            text.push_str(if at > 0 { ", " } else { "" });
            put(column.as_ref(), field, row, &mut text)?;
        }
        text.push(']');
        finish(text).map(Some)
    })
}

/// A list of texts, each of which is a document, as one.
fn collected(columns: &[ArrayRef], rows: usize, finish: Finish) -> PlanResult<ArrayRef> {
    let DataType::List(_) = columns[0].data_type() else {
        return Err(Error::defensive("documents are collected from a list").into());
    };
    let lists = columns[0].as_list::<i32>();
    each_row(rows, |row| {
        if lists.is_null(row) {
            return Ok(None);
        }
        let items = cast(&lists.value(row), &DataType::Utf8)
            .map_err(|error| Error::defensive("documents are no texts").with_source(error))?;
        let items: Vec<&str> = items.as_string::<i32>().iter().map(|item| item.unwrap_or("null")).collect();
        finish(format!("[{}]", items.join(", "))).map(Some)
    })
}

/// Writes one value.
fn put(array: &dyn Array, field: &Field, row: usize, out: &mut String) -> Result<()> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        DataType::Null => out.push_str("null"),
        DataType::Utf8 if JsonKind::of(field).is_some() => out.push_str(array.as_string::<i32>().value(row)),
        DataType::Utf8 => put_quoted(array.as_string::<i32>().value(row), out),
        DataType::Utf8View => put_quoted(array.as_string_view().value(row), out),
        DataType::Float64 => put_float(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            // By its own digits, not by those of the double that it would become.
            put_float(value.to_string().parse().unwrap_or(f64::from(value)), out);
        }
        DataType::Boolean | DataType::Decimal128(..) | DataType::Decimal256(..) => out.push_str(&shown(array, row)?),
        data_type if data_type.is_integer() => out.push_str(&shown(array, row)?),
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => {
            put_quoted(&time(&shown(array, row)?), out);
        }
        DataType::List(item) => put_list(&array.as_list::<i32>().value(row), item, out)?,
        DataType::FixedSizeList(item, _) => put_list(&array.as_fixed_size_list().value(row), item, out)?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            for (at, (column, field)) in columns.iter().zip(fields).enumerate() {
                out.push(if at > 0 { ',' } else { '{' });
                put_quoted(field.name(), out);
                out.push(':');
                put(column.as_ref(), field, row, out)?;
            }
            out.push_str(if columns.is_empty() { "{}" } else { "}" });
        }
        other => {
            let message = format!("a value of type {other} cannot be made into JSON; cast it to `text`");
            return Err(Error::unsupported(message).with_sqlstate("0A000"));
        }
    }
    Ok(())
}

fn put_list(items: &ArrayRef, field: &Field, out: &mut String) -> Result<()> {
    out.push('[');
    for row in 0..items.len() {
        out.push_str(if row > 0 { "," } else { "" });
        put(items.as_ref(), field, row, out)?;
    }
    out.push(']');
    Ok(())
}

fn shown(array: &dyn Array, row: usize) -> Result<String> {
    array_value_to_string(array, row).map_err(|error| Error::defensive("a value cannot be shown").with_source(error))
}

/// What is no number in JSON is a text, as in PostgreSQL.
fn put_float(value: f64, out: &mut String) {
    let size = value.abs();
    match value {
        value if value.is_nan() => out.push_str("\"NaN\""),
        value if value.is_infinite() => out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }),
        value if size == 0.0 || (1e-4..1e15).contains(&size) => out.push_str(&value.to_string()),
        value => {
            let text = format!("{value:e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            out.push_str(&format!("{mantissa}e{sign}{digits:0>2}"));
        }
    }
}

/// A time without the zeros at its end, and with its offset as PostgreSQL has it.
fn time(shown: &str) -> String {
    let (local, zone) = shown.strip_suffix('Z').map_or((shown, ""), |local| (local, "+00:00"));
    let local = if local.contains('.') { local.trim_end_matches('0').trim_end_matches('.') } else { local };
    format!("{local}{zone}")
}
