use std::borrow::Cow;

use chrono::{Datelike, Timelike};
use regex::Regex;

use super::Scope;
use super::expression::{Evaluated, Expression, compare, number, text, truth, truth_value};
use crate::error::{Error, Result};
use crate::ingest::row::Value;
use crate::ingest::timestamp::{Pattern, iso};
use crate::model::{Granularity, Period, TimeZone, Timestamp};

/// A function of Druid's expression language, with what its constant arguments say made ready.
#[derive(Debug)]
pub(super) enum Function {
    If,
    Coalesce,
    CaseSearched,
    CaseSimple,
    IsNull,
    NotNull,
    Cast(Type),
    Like(Regex),
    RegexpLike(Regex),
    RegexpExtract(Regex, usize),
    RegexpReplace(Regex),
    TimestampParse(Option<Pattern>, TimeZone),
    TimestampFloor(Granularity),
    TimestampShift(Period, TimeZone),
    TimestampExtract(Unit, TimeZone),
    /// Takes the values of its arguments, null if any of them is null.
    Plain(Plain),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    Long,
    Double,
    Text,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Epoch,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    DayOfWeek,
    DayOfYear,
    Week,
    Month,
    Quarter,
    Year,
}

type Plain = fn(&[Value<'_>]) -> Evaluated<Value<'static>>;

/// Functions of values alone: name, least and greatest number of arguments.
const PLAIN: [(&str, usize, usize, Plain); 31] = [
    ("concat", 1, usize::MAX, |values| {
        Ok(owned(values.iter().filter_map(|value| text(value).map(Cow::into_owned)).collect::<String>()))
    }),
    ("strlen", 1, 1, |values| with_text(values, |text| Value::Long(text.chars().count() as i64))),
    ("char_length", 1, 1, |values| with_text(values, |text| Value::Long(text.chars().count() as i64))),
    ("lower", 1, 1, |values| with_text(values, |text| owned(text.to_lowercase()))),
    ("upper", 1, 1, |values| with_text(values, |text| owned(text.to_uppercase()))),
    ("trim", 1, 1, |values| with_text(values, |text| owned(text.trim()))),
    ("ltrim", 1, 1, |values| with_text(values, |text| owned(text.trim_start()))),
    ("rtrim", 1, 1, |values| with_text(values, |text| owned(text.trim_end()))),
    ("reverse", 1, 1, |values| with_text(values, |text| owned(text.chars().rev().collect::<String>()))),
    ("substring", 2, 3, substring),
    ("replace", 3, 3, |values| {
        let (from, to) = (text(&values[1]).unwrap_or_default(), text(&values[2]).unwrap_or_default());
        with_text(values, |text| owned(text.replace(&*from, &to)))
    }),
    ("strpos", 2, 2, |values| {
        let part = text(&values[1]).unwrap_or_default();
        with_text(values, |text| Value::Long(text.find(&*part).map_or(-1, |at| text[..at].chars().count() as i64)))
    }),
    ("contains_string", 2, 2, |values| {
        let part = text(&values[1]).unwrap_or_default();
        with_text(values, |text| truth_value(Some(text.contains(&*part))))
    }),
    ("icontains_string", 2, 2, |values| {
        let part = text(&values[1]).unwrap_or_default().to_lowercase();
        with_text(values, |text| truth_value(Some(text.to_lowercase().contains(&part))))
    }),
    ("parse_long", 1, 1, |values| with_text(values, |text| text.trim().parse().map_or(Value::Null, Value::Long))),
    ("abs", 1, 1, |values| match number(&values[0]) {
        Value::Long(number) => {
            number.checked_abs().map(Value::Long).ok_or(Cow::Borrowed("the result does not fit into 64 bits"))
        }
        Value::Double(number) => Ok(Value::Double(number.abs())),
        _ => Ok(Value::Null),
    }),
    ("floor", 1, 1, |values| with_double(values, f64::floor)),
    ("ceil", 1, 1, |values| with_double(values, f64::ceil)),
    ("round", 1, 1, |values| with_double(values, f64::round)),
    ("sqrt", 1, 1, |values| with_double(values, f64::sqrt)),
    ("exp", 1, 1, |values| with_double(values, f64::exp)),
    ("log", 1, 1, |values| with_double(values, f64::ln)),
    ("log10", 1, 1, |values| with_double(values, f64::log10)),
    ("greatest", 1, usize::MAX, |values| Ok(extreme(values, std::cmp::Ordering::is_gt))),
    ("least", 1, usize::MAX, |values| Ok(extreme(values, std::cmp::Ordering::is_lt))),
    ("array_length", 1, 1, |values| Ok(Value::Long(items(&values[0]).len() as i64))),
    ("mv_length", 1, 1, |values| Ok(Value::Long(items(&values[0]).len() as i64))),
    ("array_to_string", 2, 2, joined),
    ("mv_to_string", 2, 2, joined),
    ("string_to_array", 2, 2, split),
    ("timestamp_format", 1, 1, |values| match number(&values[0]) {
        Value::Long(millis) => Ok(owned(Timestamp::from_millis(millis).to_string())),
        _ => Ok(Value::Null),
    }),
];

impl Function {
    /// Fails with a name that is not known, a wrong number of arguments, or a constant that cannot be read.
    pub(super) fn new(name: &str, arguments: &[Expression]) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let constant = |place: usize| match arguments.get(place) {
            None | Some(Expression::Literal(Value::Null)) => Ok(None),
            Some(Expression::Literal(value)) => Ok(text(value).map(Cow::into_owned)),
            Some(_) => Err(Error::unsupported(format!("argument {} of `{name}` must be a constant", place + 1))),
        };
        let needed = |place: usize| {
            constant(place)?.ok_or_else(|| Error::invalid_input(format!("`{name}` lacks argument {}", place + 1)))
        };
        let zone = |place: usize| constant(place)?.map_or(Ok(TimeZone::Utc), |zone| zone.parse());
        let (least, most, function) = match lower.as_str() {
            "if" => (3, 3, Self::If),
            "nvl" => (2, 2, Self::Coalesce),
            "coalesce" => (1, usize::MAX, Self::Coalesce),
            "case_searched" => (2, usize::MAX, Self::CaseSearched),
            "case_simple" => (3, usize::MAX, Self::CaseSimple),
            "isnull" => (1, 1, Self::IsNull),
            "notnull" => (1, 1, Self::NotNull),
            "cast" => (2, 2, Self::Cast(type_of(&needed(1)?)?)),
            "like" => (2, 3, Self::Like(like(&needed(1)?, constant(2)?.as_deref())?)),
            "regexp_like" => (2, 2, Self::RegexpLike(regex(&needed(1)?)?)),
            "regexp_extract" => {
                let group = constant(2)?.map_or(Ok(0), |group| group.parse());
                let group = group.map_err(|_| Error::invalid_input("the group of `regexp_extract` is no number"))?;
                (2, 3, Self::RegexpExtract(regex(&needed(1)?)?, group))
            }
            "regexp_replace" => (3, 3, Self::RegexpReplace(regex(&needed(1)?)?)),
            "timestamp_parse" => {
                let pattern = constant(1)?.map(|pattern| Pattern::parse(&pattern)).transpose()?;
                (1, 3, Self::TimestampParse(pattern, zone(2)?))
            }
            "timestamp_floor" => {
                let origin = constant(2)?.map(|origin| origin.parse()).transpose()?;
                let granularity = Granularity::of(needed(1)?.parse()?, origin, zone(3)?)?;
                (2, 4, Self::TimestampFloor(granularity))
            }
            "timestamp_shift" => (3, 4, Self::TimestampShift(needed(1)?.parse()?, zone(3)?)),
            "timestamp_extract" => (2, 3, Self::TimestampExtract(unit_of(&needed(1)?)?, zone(2)?)),
            _ => match PLAIN.iter().find(|(known, ..)| *known == lower) {
                Some((_, least, most, plain)) => (*least, *most, Self::Plain(*plain)),
                None => return Err(Error::unsupported(format!("function `{name}` is not known at ingestion"))),
            },
        };
        match (least..=most).contains(&arguments.len()) {
            true => Ok(function),
            false => Err(Error::invalid_input(format!("`{name}` does not take {} arguments", arguments.len()))),
        }
    }

    pub(super) fn call<'a>(&'a self, arguments: &'a [Expression], scope: Scope<'a>) -> Evaluated<Value<'a>> {
        let value = |place: usize| arguments[place].evaluate(scope);
        Ok(match self {
            Self::If => value(if truth(&value(0)?) == Some(true) { 1 } else { 2 })?,
            Self::Coalesce => {
                for place in 0..arguments.len() {
                    let found = value(place)?;
                    if found != Value::Null {
                        return Ok(found);
                    }
                }
                Value::Null
            }
            Self::CaseSearched => return case(arguments, scope, 0, |when| truth(when) == Some(true)),
            Self::CaseSimple => {
                let subject = value(0)?;
                return case(arguments, scope, 1, |when| compare(&subject, when).is_some_and(|order| order.is_eq()));
            }
            Self::IsNull => truth_value(Some(value(0)? == Value::Null)),
            Self::NotNull => truth_value(Some(value(0)? != Value::Null)),
            Self::Cast(to) => cast(&value(0)?, *to),
            Self::Like(regex) | Self::RegexpLike(regex) => {
                truth_value(text(&value(0)?).map(|text| regex.is_match(&text)))
            }
            Self::RegexpExtract(regex, group) => {
                let subject = value(0)?;
                let found =
                    text(&subject).and_then(|text| Some(regex.captures(&text)?.get(*group)?.as_str().to_owned()));
                found.map_or(Value::Null, owned)
            }
            Self::RegexpReplace(regex) => {
                let (subject, to) = (value(0)?, value(2)?);
                match (text(&subject), text(&to)) {
                    (Some(subject), Some(to)) => owned(regex.replace_all(&subject, &*to)),
                    _ => Value::Null,
                }
            }
            Self::TimestampParse(pattern, zone) => {
                let subject = value(0)?;
                let Some(text) = text(&subject) else { return Ok(Value::Null) };
                let millis = match pattern {
                    Some(pattern) => pattern.read_in(text.trim(), *zone),
                    None => iso(text.trim()),
                };
                millis.map_or(Value::Null, Value::Long)
            }
            Self::TimestampFloor(granularity) => {
                with_time(&value(0)?, |time| Some(granularity.truncate(time).millis()))
            }
            Self::TimestampShift(period, zone) => match number(&value(2)?) {
                Value::Long(times) => {
                    with_time(&value(0)?, |time| period.add_to(time, times, *zone).map(Timestamp::millis))
                }
                _ => Value::Null,
            },
            Self::TimestampExtract(unit, zone) => with_time(&value(0)?, |time| extract(time, *unit, *zone)),
            Self::Plain(plain) => {
                let values = (0..arguments.len()).map(value).collect::<Evaluated<Vec<_>>>()?;
                if values.contains(&Value::Null) { Value::Null } else { plain(&values)? }
            }
        })
    }
}

fn case<'a>(
    arguments: &'a [Expression],
    scope: Scope<'a>,
    first: usize,
    fits: impl Fn(&Value<'_>) -> bool,
) -> Evaluated<Value<'a>> {
    let mut pairs = arguments[first..].chunks_exact(2);
    for pair in &mut pairs {
        if fits(&pair[0].evaluate(scope)?) {
            return pair[1].evaluate(scope);
        }
    }
    pairs.remainder().first().map_or(Ok(Value::Null), |otherwise| otherwise.evaluate(scope))
}

fn owned(text: impl Into<String>) -> Value<'static> {
    Value::Text(Cow::Owned(text.into()))
}

fn with_text(values: &[Value<'_>], apply: impl FnOnce(&str) -> Value<'static>) -> Evaluated<Value<'static>> {
    Ok(text(&values[0]).map_or(Value::Null, |text| apply(&text)))
}

fn with_double(values: &[Value<'_>], apply: impl FnOnce(f64) -> f64) -> Evaluated<Value<'static>> {
    Ok(match number(&values[0]) {
        Value::Long(number) => Value::Double(apply(number as f64)),
        Value::Double(number) => Value::Double(apply(number)),
        _ => Value::Null,
    })
}

fn with_time(value: &Value<'_>, apply: impl FnOnce(Timestamp) -> Option<i64>) -> Value<'static> {
    let millis = match value {
        Value::Text(text) => iso(text),
        value => match number(value) {
            Value::Long(millis) => Some(millis),
            _ => None,
        },
    };
    millis.and_then(|millis| apply(Timestamp::from_millis(millis))).map_or(Value::Null, Value::Long)
}

/// From a place counted from 0; a length of -1 is to the end.
fn substring(values: &[Value<'_>]) -> Evaluated<Value<'static>> {
    let from = match number(&values[1]) {
        Value::Long(from) => usize::try_from(from).unwrap_or(0),
        _ => return Ok(Value::Null),
    };
    let length = match values.get(2).map(number) {
        Some(Value::Long(length)) => usize::try_from(length).unwrap_or(usize::MAX),
        Some(_) => return Ok(Value::Null),
        None => usize::MAX,
    };
    with_text(values, |text| owned(text.chars().skip(from).take(length).collect::<String>()))
}

fn extreme(values: &[Value<'_>], beats: fn(std::cmp::Ordering) -> bool) -> Value<'static> {
    let better = |best, value| if compare(value, best).is_some_and(beats) { value } else { best };
    values.iter().reduce(better).map_or(Value::Null, |value| super::into_owned(value.clone()))
}

fn items<'v, 'a>(value: &'v Value<'a>) -> &'v [Value<'a>] {
    match value {
        Value::List(values) => values,
        single => std::slice::from_ref(single),
    }
}

fn joined(values: &[Value<'_>]) -> Evaluated<Value<'static>> {
    let texts = items(&values[0]).iter().filter_map(text).collect::<Vec<_>>();
    Ok(owned(texts.join(&text(&values[1]).unwrap_or_default())))
}

fn split(values: &[Value<'_>]) -> Evaluated<Value<'static>> {
    let delimiter = text(&values[1]).unwrap_or_default();
    with_text(values, |text| match delimiter.is_empty() {
        true => Value::List(vec![owned(text)]),
        false => Value::List(text.split(&*delimiter).map(owned).collect()),
    })
}

fn cast(value: &Value<'_>, to: Type) -> Value<'static> {
    match (to, number(value)) {
        (Type::Text, _) => text(value).map_or(Value::Null, |text| owned(text.into_owned())),
        (Type::Long, Value::Double(number)) if number.abs() < 9.2e18 => Value::Long(number as i64),
        (Type::Long, Value::Long(number)) => Value::Long(number),
        (Type::Double, Value::Long(number)) => Value::Double(number as f64),
        (Type::Double, Value::Double(number)) => Value::Double(number),
        _ => Value::Null,
    }
}

fn type_of(name: &str) -> Result<Type> {
    match name.to_ascii_uppercase().as_str() {
        "LONG" | "BIGINT" => Ok(Type::Long),
        "DOUBLE" | "FLOAT" => Ok(Type::Double),
        "STRING" | "VARCHAR" => Ok(Type::Text),
        _ => Err(Error::unsupported(format!("cast to `{name}`; use `LONG`, `DOUBLE` or `STRING`"))),
    }
}

fn unit_of(name: &str) -> Result<Unit> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "EPOCH" => Unit::Epoch,
        "MILLISECOND" => Unit::Millisecond,
        "SECOND" => Unit::Second,
        "MINUTE" => Unit::Minute,
        "HOUR" => Unit::Hour,
        "DAY" => Unit::Day,
        "DOW" | "ISODOW" => Unit::DayOfWeek,
        "DOY" => Unit::DayOfYear,
        "WEEK" => Unit::Week,
        "MONTH" => Unit::Month,
        "QUARTER" => Unit::Quarter,
        "YEAR" => Unit::Year,
        _ => return Err(Error::unsupported(format!("unit `{name}` of `timestamp_extract` is not known"))),
    })
}

fn extract(time: Timestamp, unit: Unit, zone: TimeZone) -> Option<i64> {
    let local = zone.to_local(time)?;
    Some(match unit {
        Unit::Epoch => time.millis().div_euclid(1000),
        Unit::Millisecond => i64::from(local.nanosecond() / 1_000_000),
        Unit::Second => i64::from(local.second()),
        Unit::Minute => i64::from(local.minute()),
        Unit::Hour => i64::from(local.hour()),
        Unit::Day => i64::from(local.day()),
        Unit::DayOfWeek => i64::from(local.weekday().number_from_monday()),
        Unit::DayOfYear => i64::from(local.ordinal()),
        Unit::Week => i64::from(local.iso_week().week()),
        Unit::Month => i64::from(local.month()),
        Unit::Quarter => i64::from(local.month0() / 3 + 1),
        Unit::Year => i64::from(local.year()),
    })
}

pub(super) fn regex(pattern: &str) -> Result<Regex> {
    let regex = Regex::new(pattern);
    regex.map_err(|e| Error::invalid_input(format!("`{pattern}` is not a regular expression")).with_source(e))
}

/// `%` is anything, `_` one character, `escape` before them takes their meaning away.
pub(super) fn like(pattern: &str, escape: Option<&str>) -> Result<Regex> {
    let escape = escape.and_then(|escape| escape.chars().next());
    let mut regex_text = String::from("(?s)^");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            _ if Some(c) == escape => {
                regex_text.push_str(&regex::escape(&chars.next().unwrap_or(c).to_string()));
            }
            '%' => regex_text.push_str(".*"),
            '_' => regex_text.push('.'),
            _ => regex_text.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex_text.push('$');
    regex(&regex_text)
}
