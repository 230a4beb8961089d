//! Parts of a text by a regular expression: `regexp_substr`, `regexp_split_to_array`, `substring(text FROM pattern)`.

use arrow::array::{ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;
use regex::{Regex, RegexBuilder};
use std::sync::Arc;

use super::argument;
use super::by_row::{by_row, long, text};
use crate::error::Error;

const TEXT: DataType = DataType::Utf8;

pub(super) fn all() -> Vec<ScalarUDF> {
    let group = |name: &str, given: &[DataType]| argument::coerce(name, given, 2, &[TEXT, TEXT]);
    let split = |name: &str, given: &[DataType]| argument::coerce(name, given, 2, &[TEXT, TEXT, TEXT]);
    let substr = |name: &str, given: &[DataType]| {
        argument::coerce(name, given, 2, &[TEXT, TEXT, DataType::Int64, DataType::Int64, TEXT, DataType::Int64])
    };
    vec![
        by_row("regexp_substr_group", group, TEXT, || {
            let mut patterns = Patterns::default();
            Box::new(move |values| first_group(patterns.get(text(&values[1]), "")?, text(&values[0])))
        }),
        by_row("regexp_split_to_array", split, DataType::new_list(TEXT, true), || {
            let mut patterns = Patterns::default();
            Box::new(move |values| {
                let flags = values.get(2).map_or("", text);
                Ok(split_by(patterns.get(text(&values[1]), flags)?, text(&values[0])))
            })
        }),
        // `regexp_matches`, which gives a row for each.
        by_row("henge_regexp_matches", split, DataType::new_list(DataType::new_list(TEXT, true), true), || {
            let mut patterns = Patterns::default();
            Box::new(move |values| {
                let flags = values.get(2).map_or("", text);
                let all = flags.contains('g');
                let flags = flags.replace('g', "");
                Ok(matches(patterns.get(text(&values[1]), &flags)?, text(&values[0]), all))
            })
        }),
        by_row("regexp_substr", substr, TEXT, || {
            let mut patterns = Patterns::default();
            Box::new(move |values| {
                let flags = values.get(4).map_or("", text);
                let regex = patterns.get(text(&values[1]), flags)?.clone();
                nth_match(&regex, values)
            })
        }),
    ]
}

/// Of the first match, or of all, what its groups hold; of a pattern without groups the match itself.
fn matches(regex: &Regex, text: &str, all: bool) -> ScalarValue {
    let groups = |found: regex::Captures<'_>| {
        let first = usize::from(found.len() > 1);
        let parts = found.iter().skip(first).map(|part| part.map(|part| part.as_str().to_string()));
        Arc::new(StringArray::from_iter(parts)) as ArrayRef
    };
    let found: Vec<ArrayRef> = regex.captures_iter(text).take(if all { usize::MAX } else { 1 }).map(groups).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    for groups in &found {
        for part in groups.as_string::<i32>() {
            lists.values().append_option(part);
        }
        lists.append(true);
    }
    SingleRowListArrayBuilder::new(Arc::new(lists.finish())).build_list_scalar()
}

/// The last pattern, which mostly is the next one too.
#[derive(Default)]
struct Patterns(Option<(String, String, Regex)>);

impl Patterns {
    fn get(&mut self, pattern: &str, flags: &str) -> Result<&Regex> {
        if !self.0.as_ref().is_some_and(|(known, with, _)| known == pattern && with == flags) {
            self.0 = Some((pattern.to_string(), flags.to_string(), compile(pattern, flags)?));
        }
        match &self.0 {
            Some((_, _, regex)) => Ok(regex),
            None => Err(Error::defensive("a pattern is not kept").into()),
        }
    }
}

fn compile(pattern: &str, flags: &str) -> Result<Regex> {
    let mut builder = RegexBuilder::new(pattern);
    // As in PostgreSQL, `.` matches the end of a line too, unless flags say otherwise.
    builder.dot_matches_new_line(true);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'c' => builder.case_insensitive(false),
            's' => builder.dot_matches_new_line(true).multi_line(false),
            'n' | 'm' => builder.dot_matches_new_line(false).multi_line(true),
            'x' => builder.ignore_whitespace(true),
            other => {
                let message =
                    format!("`{other}` is no flag of a regular expression here; there are c, i, m, n, s and x");
                return Err(Error::invalid_input(message).with_sqlstate("22023").into());
            }
        };
    }
    builder.build().map_err(|error| {
        Error::invalid_input(format!("invalid regular expression: {error}")).with_sqlstate("2201B").into()
    })
}

/// The first parenthesized part of the first match, or the match if there is none.
fn first_group(regex: &Regex, text: &str) -> Result<ScalarValue> {
    let found = regex.captures(text).and_then(|found| if found.len() > 1 { found.get(1) } else { found.get(0) });
    Ok(ScalarValue::Utf8(found.map(|part| part.as_str().to_string())))
}

/// An empty match at the start, at the end or right after another one does not split.
fn split_by(regex: &Regex, text: &str) -> ScalarValue {
    let mut parts = Vec::new();
    let mut from = 0;
    for found in regex.find_iter(text) {
        if found.is_empty() && (found.start() == from || found.start() == text.len()) {
            continue;
        }
        parts.push(&text[from..found.start()]);
        from = found.end();
    }
    parts.push(&text[from..]);
    SingleRowListArrayBuilder::new(Arc::new(StringArray::from(parts))).build_list_scalar()
}

/// `regexp_substr(text, pattern, start, n, flags, group)`.
fn nth_match(regex: &Regex, values: &[ScalarValue]) -> Result<ScalarValue> {
    let place = |at: usize, default: i64| values.get(at).map_or(default, long);
    let (start, n, group) = (place(2, 1), place(3, 1), place(5, 0));
    if start < 1 || n < 1 || group < 0 {
        return Err(Error::invalid_input("`regexp_substr` counts from 1").with_sqlstate("22023").into());
    }
    let whole = text(&values[0]);
    let from = whole.char_indices().nth(start as usize - 1).map_or(whole.len(), |(at, _)| at);
    let found = regex.captures_iter(&whole[from..]).nth(n as usize - 1).and_then(|found| found.get(group as usize));
    Ok(ScalarValue::Utf8(found.map(|part| part.as_str().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, pattern: &str) -> String {
        split_by(&compile(pattern, "").unwrap(), text).to_string()
    }

    #[test]
    fn texts_are_split_as_in_postgresql() {
        assert_eq!(parts("a, b,c", r",\s*"), "[a, b, c]");
        assert_eq!(parts("abc", ""), "[a, b, c]");
        assert_eq!(parts("abc", "x"), "[abc]");
        assert_eq!(parts(",a,", ","), "[, a, ]");
    }

    #[test]
    fn the_first_group_is_the_part() {
        let part = |pattern: &str| first_group(&compile(pattern, "").unwrap(), "foobar").unwrap().to_string();
        assert_eq!(part("o(.)b"), "o");
        assert_eq!(part("o.b"), "oob");
        assert_eq!(part("x"), "NULL");
    }
}
