//! Parts of documents: `->`, `->>`, `#>`, `#>>` and the functions of the same.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::ScalarUDF;
use serde_json::value::RawValue;

use super::document::{Pairs, check};
use super::{argument, function, malformed, no_such, operator, same_field, strings, text_field, texts};
use crate::error::{Error, Result};

pub(super) fn all() -> Vec<ScalarUDF> {
    let path = |name: &str, given: &[DataType]| texts(name, given, 1, usize::MAX);
    vec![
        function(operator::GET, one_step, same_field, |columns, _, rows| part(columns, rows, as_it_stands)),
        function(operator::GET_TEXT, one_step, text_field, |columns, _, rows| part(columns, rows, as_text)),
        function(operator::GET_PATH, by_list, same_field, |columns, _, rows| at_list(columns, rows, as_it_stands)),
        function(operator::GET_PATH_TEXT, by_list, text_field, |columns, _, rows| at_list(columns, rows, as_text)),
        function("json_extract_path", path, same_field, |columns, _, rows| at_arguments(columns, rows, as_it_stands)),
        function("jsonb_extract_path", path, same_field, |columns, _, rows| at_arguments(columns, rows, as_it_stands)),
        function("json_extract_path_text", path, text_field, |columns, _, rows| at_arguments(columns, rows, as_text)),
        function("jsonb_extract_path_text", path, text_field, |columns, _, rows| at_arguments(columns, rows, as_text)),
    ]
}

/// A document, and a key or a place.
fn one_step(name: &str, given: &[DataType]) -> PlanResult<Vec<DataType>> {
    match given {
        [document, step] if document.is_null() || argument::is_string(document) => match step {
            step if step.is_integer() => Ok(vec![DataType::Utf8, DataType::Int64]),
            step if step.is_null() || argument::is_string(step) => Ok(vec![DataType::Utf8, DataType::Utf8]),
            _ => Err(no_such(name, given).into()),
        },
        _ => Err(no_such(name, given).into()),
    }
}

/// A document, and a list of keys, or the text of one.
pub(super) fn by_list(name: &str, given: &[DataType]) -> PlanResult<Vec<DataType>> {
    match given {
        [document, list] if document.is_null() || argument::is_string(document) => match list {
            list if list.is_null() || argument::is_string(list) => Ok(vec![DataType::Utf8, DataType::Utf8]),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                Ok(vec![DataType::Utf8, DataType::new_list(DataType::Utf8, true)])
            }
            _ => Err(no_such(name, given).into()),
        },
        _ => Err(no_such(name, given).into()),
    }
}

enum Step<'a> {
    Key(&'a str),
    Place(i64),
    /// A key of an object, or a place in a list.
    Either(&'a str),
}

type Shown = fn(&RawValue) -> Result<Option<Cow<'_, str>>>;

fn as_it_stands(raw: &RawValue) -> Result<Option<Cow<'_, str>>> {
    Ok(Some(Cow::Borrowed(raw.get())))
}

/// What a document is as plain text: a string without its quotes, and `null` not there.
pub(super) fn as_text(raw: &RawValue) -> Result<Option<Cow<'_, str>>> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => {
            let string: String = serde_json::from_str(text).map_err(|error| malformed(text, &error))?;
            match string.contains('\0') {
                true => Err(Error::invalid_input("`\\u0000` cannot be converted to text").with_sqlstate("22P05")),
                false => Ok(Some(Cow::Owned(string))),
            }
        }
        _ => Ok(Some(Cow::Borrowed(text))),
    }
}

fn follow<'a>(raw: &'a RawValue, step: &Step<'_>) -> Result<Option<&'a RawValue>> {
    let text = raw.get();
    let failed = |error: serde_json::Error| malformed(text, &error);
    match (text.as_bytes().first(), step) {
        (Some(b'{'), Step::Key(key) | Step::Either(key)) => {
            let Pairs(pairs) = serde_json::from_str(text).map_err(failed)?;
            Ok(pairs.into_iter().rev().find(|(known, _)| known == key).map(|(_, value)| value))
        }
        (Some(b'['), Step::Place(place)) => nth(text, *place),
        (Some(b'['), Step::Either(key)) => match key.trim().parse() {
            Ok(place) => nth(text, place),
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    }
}

fn nth(text: &str, place: i64) -> Result<Option<&RawValue>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| malformed(text, &error))?;
    let place = if place < 0 { place.saturating_add(items.len() as i64) } else { place };
    Ok(usize::try_from(place).ok().and_then(|place| items.get(place).copied()))
}

/// What is found on the way that `steps` gives for each row; null where there is none.
fn found<'a>(
    documents: &ArrayRef,
    rows: usize,
    shown: Shown,
    steps: impl Fn(usize) -> Result<Option<Vec<Step<'a>>>>,
) -> PlanResult<ArrayRef> {
    let documents = strings(documents);
    let mut answers = StringBuilder::new();
    for row in 0..rows {
        let steps = if documents.is_null(row) { None } else { steps(row)? };
        let Some(steps) = steps else {
            answers.append_null();
            continue;
        };
        let mut at = Some(check(documents.value(row))?);
        for step in &steps {
            at = match at {
                Some(raw) => follow(raw, step)?,
                None => break,
            };
        }
        match at {
            Some(raw) => answers.append_option(shown(raw)?),
            None => answers.append_null(),
        }
    }
    Ok(Arc::new(answers.finish()))
}

fn part(columns: &[ArrayRef], rows: usize, shown: Shown) -> PlanResult<ArrayRef> {
    let steps = &columns[1];
    found(&columns[0], rows, shown, |row| {
        Ok(match steps.is_null(row) {
            true => None,
            false => Some(vec![match steps.data_type() {
                DataType::Int64 => Step::Place(steps.as_primitive::<Int64Type>().value(row)),
                _ => Step::Key(strings(steps).value(row)),
            }]),
        })
    })
}

fn at_arguments(columns: &[ArrayRef], rows: usize, shown: Shown) -> PlanResult<ArrayRef> {
    found(&columns[0], rows, shown, |row| {
        let step = |column| {
            let texts = strings(column);
            texts.is_valid(row).then(|| Step::Either(texts.value(row)))
        };
        Ok(columns[1..].iter().map(step).collect())
    })
}

fn at_list(columns: &[ArrayRef], rows: usize, shown: Shown) -> PlanResult<ArrayRef> {
    let paths = (0..rows).map(|row| path(&columns[1], row)).collect::<Result<Vec<_>>>()?;
    found(&columns[0], rows, shown, |row| {
        let Some(path) = &paths[row] else { return Ok(None) };
        Ok(path.iter().map(|step| step.as_deref().map(Step::Either)).collect())
    })
}

/// The keys of a path, which is a list or the text of one.
pub(super) fn path(paths: &ArrayRef, row: usize) -> Result<Option<Vec<Option<String>>>> {
    if paths.is_null(row) {
        return Ok(None);
    }
    if let DataType::List(_) = paths.data_type() {
        let keys = paths.as_list::<i32>().value(row);
        return Ok(Some(strings(&keys).iter().map(|key| key.map(str::to_owned)).collect()));
    }
    let text = strings(paths).value(row);
    let malformed = || Error::invalid_input(format!("malformed array literal: `{text}`")).with_sqlstate("22P02");
    keys_of(text).map(Some).ok_or_else(malformed)
}

/// The items of `{a,"b c",0}`.
fn keys_of(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut keys = Vec::new();
    let mut chars = inner.chars().peekable();
    while chars.peek().is_some() {
        let (mut key, mut quoted) = (String::new(), false);
        loop {
            match chars.next() {
                None | Some(',') => break,
                Some('"') => {
                    // Blanks before it are not the key's.
                    key = key.trim_start().to_owned();
                    quoted = true;
                    loop {
                        match chars.next()? {
                            '"' => break,
                            '\\' => key.push(chars.next()?),
                            char => key.push(char),
                        }
                    }
                }
                Some('\\') => key.push(chars.next()?),
                Some('{' | '}') => return None,
                Some(char) => key.push(char),
            }
        }
        let key = if quoted { key } else { key.trim().to_owned() };
        keys.push((quoted || !key.eq_ignore_ascii_case("null")).then_some(key));
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_arrays_are() {
        let keys = |text| keys_of(text).unwrap().into_iter().map(Option::unwrap).collect::<Vec<_>>();
        assert_eq!(keys("{a, \"b,c\",0}"), ["a", "b,c", "0"]);
        assert_eq!(keys("{}"), Vec::<String>::new());
        assert_eq!(keys_of("{null}"), Some(vec![None]));
        assert_eq!(keys_of("a"), None);
        assert_eq!(keys_of("{\"a}"), None);
    }

    #[test]
    fn steps_go_into_objects_by_key_and_into_lists_by_place() {
        let raw = check(r#"{"a":[1,{"b":"x\u0041"}],"a":[7,{"b":null}]}"#).unwrap();
        let list = follow(raw, &Step::Key("a")).unwrap().unwrap();
        assert_eq!(list.get(), r#"[7,{"b":null}]"#);
        assert_eq!(follow(list, &Step::Place(-2)).unwrap().unwrap().get(), "7");
        assert!(follow(list, &Step::Key("0")).unwrap().is_none());
        assert_eq!(follow(list, &Step::Either("0")).unwrap().unwrap().get(), "7");
        assert!(
            as_text(follow(follow(list, &Step::Place(1)).unwrap().unwrap(), &Step::Key("b")).unwrap().unwrap())
                .unwrap()
                .is_none()
        );
    }
}
