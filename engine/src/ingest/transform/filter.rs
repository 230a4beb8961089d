use std::collections::HashSet;

use regex::Regex;
use serde_json::{Map, Value as Json};

use super::Scope;
use super::expression::{Evaluated, Expression, compare, number, text, truth};
use super::function::{like, regex};
use super::parse;
use crate::error::{Error, Result};
use crate::ingest::row::Value;
use crate::ingest::timestamp::iso;
use crate::model::{Interval, Timestamp};

/// A filter of Druid's JSON, with SQL's three values of truth. A list passes when one of its values does.
#[derive(Debug)]
pub(super) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Always(bool),
    IsNull(String),
    OneOf {
        field: String,
        values: HashSet<String>,
        with_null: bool,
    },
    /// A number equal to another.
    Equals {
        field: String,
        value: Value<'static>,
    },
    Range(Range),
    Matches {
        field: String,
        regex: Regex,
    },
    Within {
        field: String,
        intervals: Vec<Interval>,
    },
    Expression(Expression),
}

#[derive(Debug)]
pub(super) struct Range {
    field: String,
    as_numbers: bool,
    lower: Option<(Value<'static>, Bound)>,
    upper: Option<(Value<'static>, Bound)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Included,
    Excluded,
}

impl Filter {
    /// Fails with a kind of filter or a property that is not known, by name.
    pub(super) fn compile(json: &Json) -> Result<Self> {
        let object = Properties::of(json)?;
        let kind = object.text("type")?;
        let filter = match kind.as_str() {
            "and" => Self::And(object.filters("fields")?),
            "or" => Self::Or(object.filters("fields")?),
            "not" => Self::Not(Box::new(Self::compile(object.needed("field")?)?)),
            "true" => Self::Always(true),
            "false" => Self::Always(false),
            "null" => Self::IsNull(object.text("column")?),
            "selector" => one_of(object.text("dimension")?, [object.json.get("value").unwrap_or(&Json::Null)])?,
            "equals" => equals(&object)?,
            "in" => one_of(object.text("dimension")?, object.list("values")?)?,
            "inType" => one_of(object.text("column")?, object.list("matchValues")?)?,
            "bound" => Self::Range(bound(&object)?),
            "range" => Self::Range(range(&object)?),
            "like" => {
                let escape = object.json.get("escape").and_then(Json::as_str);
                Self::Matches { field: object.text("dimension")?, regex: like(&object.text("pattern")?, escape)? }
            }
            "regex" => Self::Matches { field: object.text("dimension")?, regex: regex(&object.text("pattern")?)? },
            "interval" => {
                let intervals =
                    object.list("intervals")?.iter().map(|interval| interval.as_str().unwrap_or("").parse());
                Self::Within { field: object.text("dimension")?, intervals: intervals.collect::<Result<_>>()? }
            }
            "expression" => Self::Expression(parse::expression(&object.text("expression")?)?),
            _ => return Err(Error::unsupported(format!("filter of type `{kind}` is not known at ingestion"))),
        };
        object.refuse_others()?;
        Ok(filter)
    }

    /// `None` is neither true nor false: a comparison with null.
    pub(super) fn passes(&self, scope: Scope<'_>) -> Evaluated<Option<bool>> {
        Ok(match self {
            Self::And(filters) => {
                let mut all = Some(true);
                for filter in filters {
                    match filter.passes(scope)? {
                        Some(false) => return Ok(Some(false)),
                        Some(true) => {}
                        None => all = None,
                    }
                }
                all
            }
            Self::Or(filters) => {
                let mut any = Some(false);
                for filter in filters {
                    match filter.passes(scope)? {
                        Some(true) => return Ok(Some(true)),
                        Some(false) => {}
                        None => any = None,
                    }
                }
                any
            }
            Self::Not(filter) => filter.passes(scope)?.map(|passes| !passes),
            Self::Always(passes) => Some(*passes),
            Self::IsNull(field) => Some(is_null(&scope.value(field))),
            Self::OneOf { field, values, with_null } => {
                let value = scope.value(field);
                match is_null(&value) {
                    true if *with_null => Some(true),
                    // Asked for null alone, nothing is unknown.
                    true => (values.is_empty()).then_some(false),
                    false => any(&value, |value| text(value).map(|text| values.contains(&*text))),
                }
            }
            Self::Equals { field, value } => {
                any(&scope.value(field), |found| compare(found, value).map(|order| order.is_eq()))
            }
            Self::Range(range) => any(&scope.value(&range.field), |value| range.holds(value)),
            Self::Matches { field, regex } => {
                any(&scope.value(field), |value| text(value).map(|text| regex.is_match(&text)))
            }
            Self::Within { field, intervals } => any(&scope.value(field), |value| {
                let millis = match value {
                    Value::Text(text) => iso(text),
                    value => match number(value) {
                        Value::Long(millis) => Some(millis),
                        _ => None,
                    },
                };
                let time = Timestamp::from_millis(millis?);
                Some(intervals.iter().any(|interval| interval.contains(time)))
            }),
            Self::Expression(expression) => truth(&expression.evaluate(scope)?),
        })
    }
}

fn is_null(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::List(values) => values.is_empty(),
        _ => false,
    }
}

/// Whether one of the values of a list passes, or the value itself.
fn any(value: &Value<'_>, passes: impl Fn(&Value<'_>) -> Option<bool>) -> Option<bool> {
    match value {
        Value::Null => None,
        Value::List(values) => {
            let results = values.iter().map(passes).collect::<Vec<_>>();
            if results.contains(&Some(true)) {
                Some(true)
            } else if results.contains(&None) || results.is_empty() {
                None
            } else {
                Some(false)
            }
        }
        value => passes(value),
    }
}

impl Range {
    fn holds(&self, value: &Value<'_>) -> Option<bool> {
        let value = match self.as_numbers {
            true => number(value),
            false => text(value).map_or(Value::Null, |text| Value::Text(text.into_owned().into())),
        };
        let mut holds = true;
        for (bound, is_lower) in [(&self.lower, true), (&self.upper, false)] {
            let Some((limit, bound)) = bound else { continue };
            let order = compare(&value, limit)?;
            let order = if is_lower { order } else { order.reverse() };
            holds &= if *bound == Bound::Included { order.is_ge() } else { order.is_gt() };
        }
        Some(holds)
    }
}

/// The properties of a filter; those nobody asked for are refused.
struct Properties<'a> {
    json: &'a Map<String, Json>,
}

impl<'a> Properties<'a> {
    fn of(json: &'a Json) -> Result<Self> {
        let json = json.as_object().ok_or_else(|| Error::invalid_input(format!("filter {json} is not an object")))?;
        Ok(Self { json })
    }

    fn needed(&self, name: &str) -> Result<&'a Json> {
        let kind = self.json.get("type").and_then(Json::as_str).unwrap_or("");
        self.json.get(name).ok_or_else(|| Error::invalid_input(format!("a `{kind}` filter needs `{name}`")))
    }

    fn text(&self, name: &str) -> Result<String> {
        let text = self.needed(name)?.as_str();
        text.map(str::to_owned).ok_or_else(|| Error::invalid_input(format!("`{name}` of a filter must be text")))
    }

    fn list(&self, name: &str) -> Result<&'a [Json]> {
        let list = self.needed(name)?.as_array();
        list.map(Vec::as_slice).ok_or_else(|| Error::invalid_input(format!("`{name}` of a filter must be a list")))
    }

    fn filters(&self, name: &str) -> Result<Vec<Filter>> {
        self.list(name)?.iter().map(Filter::compile).collect()
    }

    fn flag(&self, name: &str) -> bool {
        self.json.get(name).and_then(Json::as_bool).unwrap_or(false)
    }

    fn refuse_others(&self) -> Result<()> {
        const KNOWN: [&str; 24] = [
            "type",
            "fields",
            "field",
            "dimension",
            "column",
            "value",
            "values",
            "matchValue",
            "matchValueType",
            "matchValues",
            "lower",
            "upper",
            "lowerStrict",
            "upperStrict",
            "lowerOpen",
            "upperOpen",
            "ordering",
            "pattern",
            "escape",
            "intervals",
            "expression",
            "filterTuning",
            "alphaNumeric",
            "name",
        ];
        match self.json.iter().find(|(key, value)| !KNOWN.contains(&key.as_str()) && !value.is_null()) {
            Some((key, _)) => Err(Error::unsupported(format!("`{key}` of a filter is not known at ingestion"))),
            None => Ok(()),
        }
    }
}

fn constant(json: &Json) -> Value<'static> {
    match json {
        Json::Bool(value) => Value::Text(value.to_string().into()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Long(number),
            (None, number) => number.map_or(Value::Null, Value::Double),
        },
        Json::String(text) => Value::Text(text.clone().into()),
        Json::Null | Json::Array(_) | Json::Object(_) => Value::Null,
    }
}

fn one_of<'a>(field: String, values: impl IntoIterator<Item = &'a Json>) -> Result<Filter> {
    let constants = values.into_iter().map(constant).collect::<Vec<_>>();
    let with_null = constants.contains(&Value::Null);
    let values = constants.iter().filter_map(|value| text(value).map(|text| text.into_owned())).collect();
    Ok(Filter::OneOf { field, values, with_null })
}

fn equals(object: &Properties<'_>) -> Result<Filter> {
    let (field, value) = (object.text("column")?, object.needed("matchValue")?);
    let kind = object.json.get("matchValueType").and_then(Json::as_str).unwrap_or("STRING");
    match kind.to_ascii_uppercase().as_str() {
        "STRING" => one_of(field, [value]),
        "LONG" | "DOUBLE" | "FLOAT" => Ok(Filter::Equals { field, value: number(&constant(value)) }),
        _ => Err(Error::unsupported(format!("`matchValueType` `{kind}` is not known at ingestion"))),
    }
}

fn limits(
    object: &Properties<'_>,
    as_numbers: bool,
    names: [(&str, &str); 2],
) -> Result<[Option<(Value<'static>, Bound)>; 2]> {
    let limit = |(name, strict): (&str, &str)| {
        let Some(json) = object.json.get(name).filter(|json| !json.is_null()) else { return Ok(None) };
        let value = match as_numbers {
            true => number(&constant(json)),
            false => text(&constant(json)).map_or(Value::Null, |text| Value::Text(text.into_owned().into())),
        };
        if value == Value::Null {
            return Err(Error::invalid_input(format!("`{name}` of a filter is {json}, which cannot be compared")));
        }
        Ok(Some((value, if object.flag(strict) { Bound::Excluded } else { Bound::Included })))
    };
    Ok([limit(names[0])?, limit(names[1])?])
}

fn bound(object: &Properties<'_>) -> Result<Range> {
    let ordering = object.json.get("ordering").and_then(Json::as_str).unwrap_or("lexicographic");
    let as_numbers = match ordering {
        "lexicographic" => false,
        "numeric" => true,
        _ => return Err(Error::unsupported(format!("ordering `{ordering}` of a `bound` filter is not known"))),
    };
    let [lower, upper] = limits(object, as_numbers, [("lower", "lowerStrict"), ("upper", "upperStrict")])?;
    Ok(Range { field: object.text("dimension")?, as_numbers, lower, upper })
}

fn range(object: &Properties<'_>) -> Result<Range> {
    let kind = object.text("matchValueType")?;
    let as_numbers = match kind.to_ascii_uppercase().as_str() {
        "STRING" => false,
        "LONG" | "DOUBLE" | "FLOAT" => true,
        _ => return Err(Error::unsupported(format!("`matchValueType` `{kind}` is not known at ingestion"))),
    };
    let [lower, upper] = limits(object, as_numbers, [("lower", "lowerOpen"), ("upper", "upperOpen")])?;
    Ok(Range { field: object.text("column")?, as_numbers, lower, upper })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::row::Row;

    fn passes(filter: &str) -> Option<bool> {
        let line = r#"{"page":"Main","n":10,"s":"9","none":null,"tags":["a","b"]}"#;
        let mut row = Row::default();
        crate::ingest::format::read_json(line, &mut row).unwrap();
        let filter = Filter::compile(&serde_json::from_str(filter).unwrap()).expect(filter);
        filter.passes(Scope { row: &row, line, time: 1_375_315_200_000 }).unwrap()
    }

    #[test]
    fn filters_mean_what_they_mean_in_druid() {
        for (filter, expected) in [
            (r#"{"type":"selector","dimension":"page","value":"Main"}"#, Some(true)),
            (r#"{"type":"selector","dimension":"n","value":"10"}"#, Some(true)),
            (r#"{"type":"selector","dimension":"none","value":"x"}"#, None),
            (r#"{"type":"selector","dimension":"none","value":null}"#, Some(true)),
            (r#"{"type":"selector","dimension":"page","value":null}"#, Some(false)),
            (r#"{"type":"selector","dimension":"tags","value":"b"}"#, Some(true)),
            (r#"{"type":"not","field":{"type":"selector","dimension":"none","value":"x"}}"#, None),
            (r#"{"type":"in","dimension":"page","values":["A","Main",null]}"#, Some(true)),
            (r#"{"type":"equals","column":"n","matchValueType":"LONG","matchValue":10}"#, Some(true)),
            (r#"{"type":"equals","column":"page","matchValue":"Main"}"#, Some(true)),
            (r#"{"type":"bound","dimension":"s","lower":"10","ordering":"numeric"}"#, Some(false)),
            (r#"{"type":"bound","dimension":"s","lower":"10"}"#, Some(true)),
            (r#"{"type":"bound","dimension":"n","lower":"10","lowerStrict":true,"ordering":"numeric"}"#, Some(false)),
            (r#"{"type":"range","column":"n","matchValueType":"DOUBLE","upper":10.5}"#, Some(true)),
            (r#"{"type":"null","column":"none"}"#, Some(true)),
            (r#"{"type":"like","dimension":"page","pattern":"M%"}"#, Some(true)),
            (r#"{"type":"regex","dimension":"page","pattern":"ai"}"#, Some(true)),
            (r#"{"type":"interval","dimension":"__time","intervals":["2013-08-01/P1D"]}"#, Some(true)),
            (r#"{"type":"expression","expression":"n > 10"}"#, Some(false)),
            (r#"{"type":"and","fields":[{"type":"true"},{"type":"selector","dimension":"none","value":"x"}]}"#, None),
            (
                r#"{"type":"or","fields":[{"type":"true"},{"type":"selector","dimension":"none","value":"x"}]}"#,
                Some(true),
            ),
            (r#"{"type":"false"}"#, Some(false)),
        ] {
            assert_eq!(passes(filter), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (filter, word) in [
            (r#"{"type":"spatial"}"#, "spatial"),
            (r#"{"type":"selector","dimension":"a","value":"b","extractionFn":{"type":"x"}}"#, "extractionFn"),
            (r#"{"type":"bound","dimension":"a","lower":"1","ordering":"version"}"#, "version"),
            (r#"{"type":"like","pattern":"b"}"#, "dimension"),
        ] {
            let error = Filter::compile(&serde_json::from_str(filter).unwrap()).expect_err(filter).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
