//! Functions about the names and numbers of things.

use std::sync::Arc;

use arrow::array::{ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::catalog::CatalogProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};

use super::super::{SCHEMA, column, keyword, oid, row, types};
use super::udf::{CatalogFunction, optional, texts, worded};
use super::{REGCLASS_NAME, REGCLASS_OID, REGNAMESPACE_NAME, TO_REGCLASS_NAME};

/// Functions that look names and numbers of relations up.
pub(super) fn about_names(schemas: &Arc<dyn CatalogProvider>) -> [ScalarUDF; 4] {
    let (for_name, for_maybe, for_oid, for_schema) =
        (Arc::clone(schemas), Arc::clone(schemas), Arc::clone(schemas), Arc::clone(schemas));
    [
        worded(REGCLASS_NAME, DataType::Utf8, move |text| {
            let name = find(&for_name, text).map(|(schema, name)| shown(&schema, &name));
            ScalarValue::Utf8(Some(name.unwrap_or_else(|| text.to_string())))
        }),
        worded(TO_REGCLASS_NAME, DataType::Utf8, move |text| {
            ScalarValue::Utf8(find(&for_maybe, text).map(|(schema, name)| shown(&schema, &name)))
        }),
        worded(REGCLASS_OID, DataType::Int64, move |text| {
            ScalarValue::Int64(find(&for_oid, text).map(|(schema, name)| oid::of_relation(&schema, &name)))
        }),
        worded(REGNAMESPACE_NAME, DataType::Utf8, move |text| {
            let names = row::schema_names(&for_schema);
            let found = names.into_iter().find(|name| oid::of_schema(name).to_string() == text);
            ScalarValue::Utf8(Some(found.unwrap_or_else(|| text.to_string())))
        }),
    ]
}

/// The relation of a number or of a name, qualified or not.
pub(super) fn find(schemas: &Arc<dyn CatalogProvider>, text: &str) -> Option<(String, String)> {
    let text = text.trim();
    let number: Option<i64> = text.parse().ok();
    let (qualifier, bare) = text.rsplit_once('.').map_or((None, text), |(schema, name)| (Some(schema), name));
    let unquote = |name: &str| name.trim_matches('"').to_string();
    let matches = |schema: &str, name: &str| match number {
        Some(number) => oid::of_relation(schema, name) == number,
        None => match qualifier.map(unquote) {
            Some(qualifier) => qualifier == schema && unquote(bare) == name,
            None => unquote(bare) == name && oid::is_visible(oid::of_relation(schema, name)),
        },
    };
    let own = schemas.schema_names().into_iter().filter(|schema| schema != SCHEMA).flat_map(|schema| {
        let names = schemas.schema(&schema).map(|found| found.table_names()).unwrap_or_default();
        names.into_iter().map(move |name| (schema.clone(), name))
    });
    let theirs = column::table_names().map(|name| (SCHEMA.to_string(), name.to_string()));
    own.chain(theirs).find(|(schema, name)| matches(schema, name))
}

/// As `regclass` prints it: qualified where the search path does not find it.
pub(super) fn shown(schema: &str, name: &str) -> String {
    if oid::is_visible(oid::of_relation(schema, name)) {
        return quote_ident(name);
    }
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

/// A routine that a type is read or written with; others have no numbers.
pub(super) fn number_of_routine(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let name = text.trim_start_matches("pg_catalog.");
        types::function_names().find(|known| *known == name).map(oid::of_function)
    })
}

pub(super) fn number_of_type(text: &str) -> Option<i64> {
    text.trim().parse().ok().or_else(|| types::named(text).map(|known| known.oid))
}

pub(super) fn type_name(text: &str) -> Option<String> {
    number_of_type(text).and_then(types::find).map(|known| known.sql_name())
}

pub(super) fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|char: char| char.is_ascii_lowercase() || char == '_')
        && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
    if plain && !keyword::is_reserved(name) { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// As `quote_literal`, but of null the word.
pub(super) fn quote_nullable() -> ScalarUDF {
    CatalogFunction::new("quote_nullable", DataType::Utf8, |arguments, rows| {
        let quoted =
            |text: Option<String>| text.map_or("NULL".to_string(), |text| format!("'{}'", text.replace('\'', "''")));
        let quoted = texts(arguments, 0, rows)?.into_iter().map(quoted).map(Some);
        Ok(ColumnarValue::Array(Arc::new(quoted.collect::<StringArray>())))
    })
    .into()
}

/// The parts of a name: in small letters, but for what is in quotes. What follows a name is an error if it is to be `strict`.
pub(super) fn parse_ident() -> ScalarUDF {
    let returns = DataType::new_list(DataType::Utf8, true);
    CatalogFunction::new("parse_ident", returns, |arguments, rows| {
        let (names, strict) = (texts(arguments, 0, rows)?, optional(arguments, 1, rows)?);
        let mut lists = ListBuilder::new(StringBuilder::new());
        for (row, name) in names.iter().enumerate() {
            if let Some(name) = name {
                let strict = strict.as_ref().is_none_or(|strict| strict.value(row));
                let parts = parts_of(name, strict).ok_or_else(|| {
                    let message = format!("string is not a valid identifier: \"{name}\"");
                    henge_engine::Error::invalid_input(message).with_sqlstate("22023")
                })?;
                parts.into_iter().for_each(|part| lists.values().append_value(part));
            }
            lists.append(name.is_some());
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    })
    .into()
}

fn parts_of(name: &str, strict: bool) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = name.trim_start();
    loop {
        let (part, after) = part_of(rest)?;
        parts.push(part);
        rest = after.trim_start();
        match rest.strip_prefix('.') {
            Some(next) => rest = next.trim_start(),
            None if rest.is_empty() || !strict => return Some(parts),
            None => return None,
        }
    }
}

fn part_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_within = |char: char| char.is_alphanumeric() || char == '_' || char == '$' || !char.is_ascii();
        let end = text.find(|char: char| !is_within(char)).unwrap_or(text.len());
        let begins = text.starts_with(|char: char| is_within(char) && !char.is_ascii_digit() && char != '$');
        return begins.then(|| (text[..end].to_lowercase(), &text[end..]));
    };
    let mut part = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' if chars.next_if(|(_, next)| *next == '"').is_some() => part.push('"'),
            '"' => return (!part.is_empty()).then(|| (part, &quoted[at + 1..])),
            char => part.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_when_they_must_be() {
        assert_eq!(quote_ident("wikipedia"), "wikipedia");
        assert_eq!((quote_ident("user"), quote_ident("page")), ("\"user\"".to_owned(), "page".to_owned()));
        assert_eq!(quote_ident("cityName"), "\"cityName\"");
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn names_are_taken_apart_as_in_postgresql() {
        let parts = |name: &str, strict| parts_of(name, strict).map(|parts| parts.join("|"));
        assert_eq!(parts(" a . \"B.c\".D ", true).as_deref(), Some("a|B.c|d"));
        assert_eq!(parts("\"x\"\"y\"", true).as_deref(), Some("x\"y"));
        assert_eq!(parts("foo(1)", false).as_deref(), Some("foo"));
        for wrong in ["", "a b", "a.", ".a", "1a", "\"a", "\"\"", "foo(1)"] {
            assert_eq!(parts(wrong, true), None, "{wrong}");
        }
    }
}
