//! What is in documents, and of what kind they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::ScalarUDF;
use serde_json::value::RawValue;

use super::access::{as_text, by_list, path};
use super::document::{Document, Key, Pairs, check};
use super::{bool_field, document, function, invalid, malformed, operator, plain, strings, text_field, two_documents};
use crate::error::Result;

pub(super) fn all() -> Vec<ScalarUDF> {
    let list: fn(&[FieldRef]) -> FieldRef = |_| plain(DataType::new_list(DataType::Utf8, true));
    let number: fn(&[FieldRef]) -> FieldRef = |_| plain(DataType::Int32);
    let mut all = vec![
        function(operator::CONTAINS, two_documents, bool_field, |columns, _, rows| contains(columns, rows)),
        function(operator::HAS, two_documents, bool_field, |columns, _, rows| has(columns, rows)),
        function(operator::HAS_ANY, by_list, bool_field, |columns, _, rows| {
            has_of(columns, rows, |has| has.contains(&true))
        }),
        function(operator::HAS_ALL, by_list, bool_field, |columns, _, rows| {
            has_of(columns, rows, |has| !has.contains(&false))
        }),
    ];
    for [kind, length, keys, items, texts] in [
        [
            "json_typeof",
            "json_array_length",
            "henge_json_object_keys",
            "henge_json_array_elements",
            "henge_json_array_elements_text",
        ],
        [
            "jsonb_typeof",
            "jsonb_array_length",
            "henge_jsonb_object_keys",
            "henge_jsonb_array_elements",
            "henge_jsonb_array_elements_text",
        ],
    ] {
        all.extend([
            function(kind, document, text_field, |columns, _, _| kinds(columns)),
            function(length, document, number, |columns, _, _| lengths(columns)),
            function(keys, document, list, |columns, _, _| lists(columns, keys_of)),
            function(items, document, list, |columns, _, _| lists(columns, items_of)),
            function(texts, document, list, |columns, _, _| lists(columns, texts_of)),
        ]);
    }
    all
}

fn kinds(columns: &[ArrayRef]) -> PlanResult<ArrayRef> {
    let kind = |text: Option<&str>| text.map(|text| check(text).map(kind_of)).transpose();
    Ok(Arc::new(strings(&columns[0]).iter().map(kind).collect::<Result<StringArray>>()?))
}

fn kind_of(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

fn lengths(columns: &[ArrayRef]) -> PlanResult<ArrayRef> {
    let length = |text: &str| -> Result<i32> {
        let raw = check(text)?;
        match kind_of(raw) {
            "array" => Ok(parts(raw)?.len() as i32),
            "object" => Err(invalid("cannot get array length of a non-array")),
            _ => Err(invalid("cannot get array length of a scalar")),
        }
    };
    let lengths = strings(&columns[0]).iter().map(|text| text.map(length).transpose());
    Ok(Arc::new(lengths.collect::<Result<Int32Array>>()?))
}

fn parts(raw: &RawValue) -> Result<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).map_err(|error| malformed(raw.get(), &error))
}

type Parts = fn(&RawValue) -> Result<Vec<Option<String>>>;

fn keys_of(raw: &RawValue) -> Result<Vec<Option<String>>> {
    if kind_of(raw) != "object" {
        return Err(invalid(format!("cannot take the keys of a document that is of type {}", kind_of(raw))));
    }
    let Pairs(pairs) = serde_json::from_str(raw.get()).map_err(|error| malformed(raw.get(), &error))?;
    Ok(pairs.into_iter().map(|(key, _)| Some(key)).collect())
}

fn listed(raw: &RawValue) -> Result<Vec<&RawValue>> {
    match kind_of(raw) {
        "array" => parts(raw),
        kind => Err(invalid(format!("cannot take the elements of a document that is of type {kind}"))),
    }
}

fn items_of(raw: &RawValue) -> Result<Vec<Option<String>>> {
    Ok(listed(raw)?.into_iter().map(|item| Some(item.get().to_owned())).collect())
}

fn texts_of(raw: &RawValue) -> Result<Vec<Option<String>>> {
    listed(raw)?.into_iter().map(|item| Ok(as_text(item)?.map(std::borrow::Cow::into_owned))).collect()
}

fn lists(columns: &[ArrayRef], parts: Parts) -> PlanResult<ArrayRef> {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for text in strings(&columns[0]) {
        if let Some(text) = text {
            parts(check(text)?)?.into_iter().for_each(|item| lists.values().append_option(item));
        }
        lists.append(text.is_some());
    }
    Ok(Arc::new(lists.finish()))
}

fn contains(columns: &[ArrayRef], rows: usize) -> PlanResult<ArrayRef> {
    let (wholes, parts) = (strings(&columns[0]), strings(&columns[1]));
    let contains = |row: usize| -> Result<Option<bool>> {
        if wholes.is_null(row) || parts.is_null(row) {
            return Ok(None);
        }
        Ok(Some(Document::read(wholes.value(row))?.contains(&Document::read(parts.value(row))?)))
    };
    Ok(Arc::new((0..rows).map(contains).collect::<Result<BooleanArray>>()?))
}

/// Whether a text is a key of an object, an item of a list, or all there is.
fn has_key(document: &Document, key: &str) -> bool {
    let is = |item: &Document| matches!(item, Document::Text(text) if text == key);
    match document {
        Document::Object(pairs) => pairs.contains_key(&Key(key.to_owned())),
        Document::List(items) => items.iter().any(is),
        document => is(document),
    }
}

fn has(columns: &[ArrayRef], rows: usize) -> PlanResult<ArrayRef> {
    let (documents, keys) = (strings(&columns[0]), strings(&columns[1]));
    let has = |row: usize| -> Result<Option<bool>> {
        if documents.is_null(row) || keys.is_null(row) {
            return Ok(None);
        }
        Ok(Some(has_key(&Document::read(documents.value(row))?, keys.value(row))))
    };
    Ok(Arc::new((0..rows).map(has).collect::<Result<BooleanArray>>()?))
}

type Join = fn(&[bool]) -> bool;

fn has_of(columns: &[ArrayRef], rows: usize, join: Join) -> PlanResult<ArrayRef> {
    let documents = strings(&columns[0]);
    let has = |row: usize| -> Result<Option<bool>> {
        let (false, Some(keys)) = (documents.is_null(row), path(&columns[1], row)?) else { return Ok(None) };
        let document = Document::read(documents.value(row))?;
        // A key that is null is passed over, as PostgreSQL does.
        let has: Vec<bool> = keys.iter().flatten().map(|key| has_key(&document, key)).collect();
        Ok(Some(join(&has)))
    };
    Ok(Arc::new((0..rows).map(has).collect::<Result<BooleanArray>>()?))
}
