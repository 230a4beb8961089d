use std::borrow::Cow;
use std::cmp::Ordering;

use super::Scope;
use super::function::Function;
use crate::ingest::row::{Value, double_text};

/// An expression of Druid's language, with SQL's nulls.
#[derive(Debug)]
pub(super) enum Expression {
    Literal(Value<'static>),
    Field(String),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    Call(Function, Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

/// Why something cannot be computed.
pub(super) type Fault = Cow<'static, str>;
pub(super) type Evaluated<T> = Result<T, Fault>;

impl Expression {
    pub(super) fn evaluate<'a>(&'a self, scope: Scope<'a>) -> Evaluated<Value<'a>> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Field(name) => Ok(scope.value(name)),
            Self::Not(inner) => Ok(truth_value(truth(&inner.evaluate(scope)?).map(|truth| !truth))),
            Self::Negate(inner) => match number(&inner.evaluate(scope)?) {
                Value::Long(number) => number.checked_neg().map(Value::Long).ok_or(OVERFLOW),
                Value::Double(number) => Ok(Value::Double(-number)),
                _ => Ok(Value::Null),
            },
            Self::Binary(Operator::And, left, right) => match truth(&left.evaluate(scope)?) {
                Some(false) => Ok(Value::Long(0)),
                left => Ok(truth_value(match (left, truth(&right.evaluate(scope)?)) {
                    (_, Some(false)) => Some(false),
                    (Some(true), right) => right,
                    _ => None,
                })),
            },
            Self::Binary(Operator::Or, left, right) => match truth(&left.evaluate(scope)?) {
                Some(true) => Ok(Value::Long(1)),
                left => Ok(truth_value(match (left, truth(&right.evaluate(scope)?)) {
                    (_, Some(true)) => Some(true),
                    (Some(false), right) => right,
                    _ => None,
                })),
            },
            Self::Binary(operator, left, right) => {
                operator.apply(&left.evaluate(scope)?, &right.evaluate(scope)?).map(own)
            }
            Self::Call(function, arguments) => function.call(arguments, scope),
        }
    }
}

const OVERFLOW: Fault = Cow::Borrowed("the result does not fit into 64 bits");

fn own<'a>(value: Value<'static>) -> Value<'a> {
    value
}

impl Operator {
    fn apply(self, left: &Value<'_>, right: &Value<'_>) -> Evaluated<Value<'static>> {
        if matches!(left, Value::Null) || matches!(right, Value::Null) {
            return Ok(Value::Null);
        }
        let compared = |fits: fn(Ordering) -> bool| Ok(truth_value(compare(left, right).map(fits)));
        match self {
            Self::Equal => compared(Ordering::is_eq),
            Self::NotEqual => compared(Ordering::is_ne),
            Self::Less => compared(Ordering::is_lt),
            Self::LessOrEqual => compared(Ordering::is_le),
            Self::Greater => compared(Ordering::is_gt),
            Self::GreaterOrEqual => compared(Ordering::is_ge),
            _ => self.calculate(left, right),
        }
    }

    fn calculate(self, left: &Value<'_>, right: &Value<'_>) -> Evaluated<Value<'static>> {
        if let (Self::Add, Value::Text(left), Value::Text(right)) = (self, left, right) {
            return Ok(Value::Text(Cow::Owned(format!("{left}{right}"))));
        }
        match (number(left), number(right)) {
            (Value::Long(left), Value::Long(right)) => self.calculate_longs(left, right),
            (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
            (left, right) => Ok(Value::Double(self.calculate_doubles(double(&left), double(&right)))),
        }
    }

    fn calculate_longs(self, left: i64, right: i64) -> Evaluated<Value<'static>> {
        let result = match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide | Self::Modulo if right == 0 => return Err(Cow::Borrowed("division by zero")),
            Self::Divide => left.checked_div(right),
            Self::Modulo => left.checked_rem(right),
            _ => u32::try_from(right).ok().and_then(|exponent| left.checked_pow(exponent)),
        };
        result.map(Value::Long).ok_or(OVERFLOW)
    }

    fn calculate_doubles(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Modulo => left % right,
            _ => left.powf(right),
        }
    }
}

/// Texts bytewise, otherwise as numbers. `None` when a text is no number but is compared with one.
pub(super) fn compare(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    if let (Value::Text(left), Value::Text(right)) = (left, right) {
        return Some(left.as_bytes().cmp(right.as_bytes()));
    }
    match (number(left), number(right)) {
        (Value::Long(left), Value::Long(right)) => Some(left.cmp(&right)),
        (Value::Null, _) | (_, Value::Null) => None,
        (left, right) => double(&left).partial_cmp(&double(&right)),
    }
}

/// The number a value is or stands for; null if it is none.
pub(super) fn number(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Long(number) => Value::Long(*number),
        Value::Double(number) => Value::Double(*number),
        Value::Text(text) => match (text.trim().parse::<i64>(), text.trim().parse::<f64>()) {
            (Ok(number), _) => Value::Long(number),
            (_, Ok(number)) if number.is_finite() => Value::Double(number),
            _ => Value::Null,
        },
        Value::Null | Value::List(_) => Value::Null,
    }
}

fn double(value: &Value<'_>) -> f64 {
    match value {
        Value::Long(number) => *number as f64,
        Value::Double(number) => *number,
        _ => f64::NAN,
    }
}

pub(super) fn truth(value: &Value<'_>) -> Option<bool> {
    match value {
        Value::Null | Value::List(_) => None,
        Value::Long(number) => Some(*number != 0),
        Value::Double(number) => Some(*number != 0.0),
        Value::Text(text) => Some(text.eq_ignore_ascii_case("true")),
    }
}

/// True is 1, false is 0, as in Druid.
pub(super) fn truth_value(truth: Option<bool>) -> Value<'static> {
    truth.map_or(Value::Null, |truth| Value::Long(i64::from(truth)))
}

/// A value as text; a list has none.
pub(super) fn text<'v>(value: &'v Value<'_>) -> Option<Cow<'v, str>> {
    match value {
        Value::Null | Value::List(_) => None,
        Value::Long(number) => Some(Cow::Owned(number.to_string())),
        Value::Double(number) => Some(Cow::Owned(double_text(*number))),
        Value::Text(text) => Some(Cow::Borrowed(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::row::Row;
    use crate::ingest::transform::parse;

    fn evaluated(expression: &str) -> String {
        let line = r#"{"name":"Paris","n":7,"x":2.5,"s":"12","none":null,"l":["a","b"],"when":"2013-08-01 13:14"}"#;
        let mut row = Row::default();
        crate::ingest::format::read_json(line, &mut row).unwrap();
        let expression = parse::expression(expression).unwrap();
        match expression.evaluate(Scope { row: &row, line, time: 1_375_315_200_000 }) {
            Ok(Value::Null) => "null".to_owned(),
            Ok(Value::List(items)) => format!("{:?}", items.iter().map(|v| text(v).unwrap()).collect::<Vec<_>>()),
            Ok(value) => text(&value).unwrap().into_owned(),
            Err(fault) => format!("error: {fault}"),
        }
    }

    #[test]
    fn expressions_mean_what_they_mean_in_druid() {
        for (expression, expected) in [
            ("1 + 2 * 3 ^ 2 - -1", "20"),
            ("7 / 2", "3"),
            ("n / 2.0", "3.5"),
            ("n % 4", "3"),
            ("s + 1", "13"),
            ("name + '!'", "Paris!"),
            ("none + 1", "null"),
            ("n == 7 && x > 2", "1"),
            ("none == 1 || n > 3", "1"),
            ("none && 0", "0"),
            ("!(n != 7)", "1"),
            ("concat(name, '-', n, '-', none)", "null"),
            ("concat(\"name\", n)", "Paris7"),
            ("if(n > 5, 'big', 'small')", "big"),
            ("nvl(none, 'x')", "x"),
            ("coalesce(none, null, n)", "7"),
            ("case_searched(n < 5, 'a', n < 10, 'b', 'c')", "b"),
            ("case_simple(name, 'London', 1, 'Paris', 2, 3)", "2"),
            ("lower(name)", "paris"),
            ("upper('é')", "É"),
            ("substring(name, 1, 3)", "ari"),
            ("substring('éa', 1, 9)", "a"),
            ("strlen('éa')", "2"),
            ("trim('  a ')", "a"),
            ("replace(name, 'is', 'k')", "Park"),
            ("strpos(name, 'r')", "2"),
            ("like(name, 'P%s')", "1"),
            ("regexp_extract(name, '(.)ri', 1)", "a"),
            ("regexp_like(name, '^P')", "1"),
            ("contains_string(name, 'ari')", "1"),
            ("cast(s, 'LONG') * 2", "24"),
            ("cast(x, 'LONG')", "2"),
            ("cast(n, 'STRING') + 'x'", "7x"),
            ("cast('abc', 'LONG')", "null"),
            ("isnull(none)", "1"),
            ("notnull(none)", "0"),
            ("abs(-3)", "3"),
            ("round(2.5)", "3.0"),
            ("floor(-2.5)", "-3.0"),
            ("greatest(1, n, 3)", "7"),
            ("timestamp_parse(when, 'yyyy-MM-dd HH:mm')", "1375362840000"),
            ("timestamp_parse(when, 'yyyy-MM-dd HH:mm', 'Europe/Paris')", "1375355640000"),
            ("timestamp_parse('2013-08-01T00:00:00Z')", "1375315200000"),
            ("timestamp_floor(__time, 'P1M')", "1375315200000"),
            ("timestamp_floor(__time, 'P1D', null, 'Europe/Paris')", "1375308000000"),
            ("timestamp_shift(__time, 'P1D', -1)", "1375228800000"),
            ("timestamp_extract(__time, 'YEAR')", "2013"),
            ("timestamp_extract(__time, 'DOW')", "4"),
            ("timestamp_format(__time)", "2013-08-01T00:00:00.000Z"),
            ("array_length(l)", "2"),
            ("array_to_string(l, '+')", "a+b"),
            ("string_to_array('a,b', ',')", "[\"a\", \"b\"]"),
            ("1 / 0", "error: division by zero"),
            ("9223372036854775807 + 1", "error: the result does not fit into 64 bits"),
        ] {
            assert_eq!(evaluated(expression), expected, "{expression}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (expression, word) in [
            ("hyper(1)", "hyper"),
            ("lower(a, b)", "lower"),
            ("1 +", "end"),
            ("a $ b", "$"),
            ("'abc", "quote"),
            ("(1", ")"),
            ("regexp_like(a, '(')", "regular expression"),
            ("timestamp_floor(a, 'P1X')", "P1X"),
            ("", "end"),
        ] {
            let error = parse::expression(expression).expect_err(expression).to_string();
            assert!(error.contains(word), "{expression}: {error}");
        }
    }
}
