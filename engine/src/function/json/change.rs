//! Documents out of documents: casts, `||`, `-`, `#-`, `jsonb_pretty`, `json_strip_nulls`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::ScalarUDF;

use super::access::{by_list, path};
use super::document::{Document, Key, check};
use super::{
    argument, document, function, invalid, json_field, jsonb_field, no_such, operator, same_field, strings, text_field,
    two_documents,
};
use crate::error::Result;

pub(super) fn all() -> Vec<ScalarUDF> {
    vec![
        // A `json` is kept as it is written.
        function(operator::JSON, document, json_field, |columns, _, _| {
            each(columns, |text| check(text).map(|_| text.to_owned()))
        }),
        function(operator::JSONB, document, jsonb_field, |columns, _, _| {
            each(columns, |text| Document::read(text).map(|document| document.text()))
        }),
        function(operator::COMPARABLE, document, text_field, |columns, _, _| {
            each(columns, |text| Document::read(text).map(|document| document.comparable().text()))
        }),
        function("jsonb_pretty", document, text_field, |columns, _, _| {
            each(columns, |text| Document::read(text).map(|document| document.pretty()))
        }),
        function("jsonb_strip_nulls", document, same_field, |columns, _, _| {
            each(columns, |text| Document::read(text).map(|document| stripped(document).text()))
        }),
        function(operator::CONCAT, two_documents, jsonb_field, |columns, _, rows| both(columns, rows, concat)),
        function(operator::DELETE, deleted, jsonb_field, |columns, _, rows| delete(columns, rows)),
        function(operator::DELETE_PATH, by_list, jsonb_field, |columns, _, rows| delete_path(columns, rows)),
    ]
}

fn each(columns: &[ArrayRef], change: fn(&str) -> Result<String>) -> PlanResult<ArrayRef> {
    let changed = strings(&columns[0]).iter().map(|text| text.map(change).transpose());
    Ok(Arc::new(changed.collect::<Result<StringArray>>()?))
}

fn both(columns: &[ArrayRef], rows: usize, join: fn(Document, Document) -> Document) -> PlanResult<ArrayRef> {
    let (left, right) = (strings(&columns[0]), strings(&columns[1]));
    let joined = |row: usize| -> Result<Option<String>> {
        if left.is_null(row) || right.is_null(row) {
            return Ok(None);
        }
        Ok(Some(join(Document::read(left.value(row))?, Document::read(right.value(row))?).text()))
    };
    Ok(Arc::new((0..rows).map(joined).collect::<Result<StringArray>>()?))
}

fn concat(left: Document, right: Document) -> Document {
    match (left, right) {
        (Document::Object(mut pairs), Document::Object(more)) => {
            pairs.extend(more);
            Document::Object(pairs)
        }
        (left, right) => {
            let items = |document| match document {
                Document::List(items) => items,
                other => vec![other],
            };
            Document::List(items(left).into_iter().chain(items(right)).collect())
        }
    }
}

fn stripped(document: Document) -> Document {
    match document {
        Document::Object(pairs) => {
            let there = pairs.into_iter().filter(|(_, value)| *value != Document::Null);
            Document::Object(there.map(|(key, value)| (key, stripped(value))).collect())
        }
        Document::List(items) => Document::List(items.into_iter().map(stripped).collect()),
        other => other,
    }
}

/// A document, and a key, a place or a list of keys.
fn deleted(name: &str, given: &[DataType]) -> PlanResult<Vec<DataType>> {
    match given {
        [document, place] if (document.is_null() || argument::is_string(document)) && place.is_integer() => {
            Ok(vec![DataType::Utf8, DataType::Int64])
        }
        [_, DataType::List(_)] => by_list(name, given),
        [_, key] if key.is_null() || argument::is_string(key) => two_documents(name, given),
        _ => Err(no_such(name, given).into()),
    }
}

fn delete(columns: &[ArrayRef], rows: usize) -> PlanResult<ArrayRef> {
    let documents = strings(&columns[0]);
    let what = &columns[1];
    let delete = |row: usize| -> Result<Option<String>> {
        if documents.is_null(row) || what.is_null(row) {
            return Ok(None);
        }
        let document = Document::read(documents.value(row))?;
        let left = match what.data_type() {
            DataType::Int64 => without_place(document, what.as_primitive::<Int64Type>().value(row))?,
            DataType::Utf8 => without_key(document, strings(what).value(row))?,
            _ => {
                let keys = path(what, row)?.unwrap_or_default();
                keys.iter().flatten().try_fold(document, |document, key| without_key(document, key))?
            }
        };
        Ok(Some(left.text()))
    };
    Ok(Arc::new((0..rows).map(delete).collect::<Result<StringArray>>()?))
}

fn without_key(document: Document, key: &str) -> Result<Document> {
    match document {
        Document::Object(mut pairs) => {
            pairs.remove(&Key(key.to_owned()));
            Ok(Document::Object(pairs))
        }
        Document::List(mut items) => {
            items.retain(|item| !matches!(item, Document::Text(text) if text == key));
            Ok(Document::List(items))
        }
        _ => Err(invalid("cannot delete from scalar")),
    }
}

fn without_place(document: Document, place: i64) -> Result<Document> {
    match document {
        Document::List(mut items) => {
            if let Some(place) = place_of(&items, place) {
                items.remove(place);
            }
            Ok(Document::List(items))
        }
        Document::Object(_) => Err(invalid("cannot delete from object using integer index")),
        _ => Err(invalid("cannot delete from scalar")),
    }
}

fn place_of(items: &[Document], place: i64) -> Option<usize> {
    let place = if place < 0 { place.saturating_add(items.len() as i64) } else { place };
    usize::try_from(place).ok().filter(|place| *place < items.len())
}

fn delete_path(columns: &[ArrayRef], rows: usize) -> PlanResult<ArrayRef> {
    let documents = strings(&columns[0]);
    let delete = |row: usize| -> Result<Option<String>> {
        let (false, Some(keys)) = (documents.is_null(row), path(&columns[1], row)?) else { return Ok(None) };
        let Some(keys) = keys.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        Ok(Some(without_path(Document::read(documents.value(row))?, &keys)?.text()))
    };
    Ok(Arc::new((0..rows).map(delete).collect::<Result<StringArray>>()?))
}

fn without_path(document: Document, path: &[String]) -> Result<Document> {
    let [key, rest @ ..] = path else { return Ok(document) };
    match document {
        Document::Object(pairs) if rest.is_empty() => without_key(Document::Object(pairs), key),
        Document::Object(mut pairs) => {
            if let Some(value) = pairs.get_mut(&Key(key.clone())) {
                *value = without_path(std::mem::replace(value, Document::Null), rest)?;
            }
            Ok(Document::Object(pairs))
        }
        Document::List(mut items) => {
            let place: i64 = key.trim().parse().map_err(|_| {
                invalid(format!("path element at position 1 is not an integer: `{key}`")).with_sqlstate("22P02")
            })?;
            match place_of(&items, place) {
                Some(place) if rest.is_empty() => drop(items.remove(place)),
                Some(place) => items[place] = without_path(std::mem::replace(&mut items[place], Document::Null), rest)?,
                None => {}
            }
            Ok(Document::List(items))
        }
        _ => Err(invalid("cannot delete path in scalar")),
    }
}
