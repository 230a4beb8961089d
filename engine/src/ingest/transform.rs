//! Computed fields and the filter of a `transformSpec`.
//!
//! A transform sees the fields of the input and `__time`, not the results of other transforms; the filter sees both,
//! as in Druid. What cannot be computed (a division by zero, a number that does not fit) makes the row a bad one.

mod expression;
mod filter;
mod function;
mod parse;

use std::borrow::Cow;

use super::row::{Row, Value};
use crate::error::Result;
use crate::model::{TIME_COLUMN, Timestamp, TransformSpec};

use expression::Expression;
use filter::Filter;

/// The transforms and the filter of a spec, compiled.
#[derive(Debug)]
pub(super) struct Transforms {
    transforms: Vec<(String, Expression)>,
    filter: Option<Filter>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It goes on, with this time.
    Row(i64),
    FilteredOut,
    /// A transform of `__time` gave no time.
    BadTime,
    /// Something cannot be computed.
    Failed(String),
}

/// What an expression or a filter is evaluated over.
#[derive(Clone, Copy)]
struct Scope<'a> {
    row: &'a Row,
    line: &'a str,
    time: i64,
}

impl<'a> Scope<'a> {
    fn value(&self, name: &str) -> Value<'a> {
        if name == TIME_COLUMN {
            return Value::Long(self.time);
        }
        match self.row.fields.find(name) {
            Some(field) => self.row.value(self.line, self.row.get(field)),
            None => Value::Null,
        }
    }
}

impl Transforms {
    /// Fails with a function, an operator or a filter that is not known, by name.
    pub(super) fn compile(spec: &TransformSpec) -> Result<Self> {
        let transforms = spec.transforms.iter().map(|transform| {
            let expression = parse::expression(&transform.expression);
            Ok((transform.name.clone(), expression.map_err(|e| e.context("transform", &transform.name))?))
        });
        Ok(Self {
            transforms: transforms.collect::<Result<_>>()?,
            filter: spec.filter.as_ref().map(Filter::compile).transpose()?,
        })
    }

    /// Computes the fields of a row of this time, and says whether it passes the filter.
    pub(super) fn apply(&self, row: &mut Row, line: &str, mut time: i64) -> Applied {
        if !self.transforms.is_empty() {
            let scope = Scope { row, line, time };
            let computed = self.transforms.iter().map(|(name, expression)| {
                let value = expression.evaluate(scope).map(into_owned);
                value.map_err(|fault| format!("transform `{name}`: {fault}"))
            });
            let computed = match computed.collect::<std::result::Result<Vec<_>, _>>() {
                Ok(computed) => computed,
                Err(fault) => return Applied::Failed(fault),
            };
            for ((name, _), value) in self.transforms.iter().zip(&computed) {
                if name != TIME_COLUMN {
                    let field = row.fields.number(name);
                    row.set_value(field, value);
                    continue;
                }
                match value {
                    Value::Long(millis) if in_range(*millis) => time = *millis,
                    _ => return Applied::BadTime,
                }
            }
        }
        match &self.filter {
            None => Applied::Row(time),
            Some(filter) => match filter.passes(Scope { row, line, time }) {
                Ok(Some(true)) => Applied::Row(time),
                Ok(_) => Applied::FilteredOut,
                Err(fault) => Applied::Failed(format!("filter: {fault}")),
            },
        }
    }
}

fn in_range(millis: i64) -> bool {
    (Timestamp::MIN.millis()..=Timestamp::MAX.millis()).contains(&millis)
}

fn into_owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Long(number) => Value::Long(number),
        Value::Double(number) => Value::Double(number),
        Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        Value::List(values) => Value::List(values.into_iter().map(into_owned).collect()),
    }
}
