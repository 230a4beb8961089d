use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ColumnSchema, ColumnType, MetricCombine};
use crate::error::Error;

/// A metric computed while rows come in: Druid's aggregator JSON, such as
/// `{"type": "longSum", "name": "added", "fieldName": "added"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "MetricJson")]
pub struct MetricSpec {
    /// The column it becomes.
    pub name: String,
    /// The field it reads; `None` counts rows.
    pub field: Option<String>,
    pub column_type: ColumnType,
    pub combine: MetricCombine,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricJson {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_name: Option<String>,
}

const TYPES: [(&str, ColumnType); 3] =
    [("long", ColumnType::Long), ("double", ColumnType::Double), ("float", ColumnType::Float)];
const COMBINES: [(&str, MetricCombine); 5] = [
    ("Sum", MetricCombine::Sum),
    ("Min", MetricCombine::Min),
    ("Max", MetricCombine::Max),
    ("First", MetricCombine::First),
    ("Last", MetricCombine::Last),
];

impl MetricSpec {
    /// A metric that counts rows.
    pub fn count(name: impl Into<String>) -> Self {
        Self { name: name.into(), field: None, column_type: ColumnType::Long, combine: MetricCombine::Sum }
    }

    /// A metric over a field, kept under the name `name`.
    pub fn over(
        name: impl Into<String>,
        field: impl Into<String>,
        column_type: ColumnType,
        combine: MetricCombine,
    ) -> Self {
        Self { name: name.into(), field: Some(field.into()), column_type, combine }
    }

    /// The metric of Druid's type name `kind`, such as `longSum`. Fails with a type that is not known.
    pub fn of_kind(kind: &str, name: &str, field: Option<&str>) -> Result<Self, Error> {
        if kind == "count" {
            return Ok(Self::count(name));
        }
        let parts = TYPES.iter().find_map(|(prefix, column_type)| {
            let rest = kind.strip_prefix(prefix)?;
            COMBINES.iter().find(|(suffix, _)| *suffix == rest).map(|(_, combine)| (*column_type, *combine))
        });
        let Some((column_type, combine)) = parts else {
            return Err(Error::unsupported(format!(
                "metric `{name}` is of type `{kind}`, which Henge cannot ingest; it knows `count` and `longSum`, \
                 `longMin`, `longMax`, `longFirst`, `longLast`, likewise `double…` and `float…`"
            )));
        };
        let field = field.ok_or_else(|| Error::invalid_input(format!("metric `{name}` needs a `fieldName`")))?;
        Ok(Self::over(name, field, column_type, combine))
    }

    /// Druid's name of its type.
    pub fn kind(&self) -> String {
        if self.field.is_none() {
            return "count".to_owned();
        }
        let prefix = TYPES.iter().find(|(_, t)| *t == self.column_type).map_or("", |(prefix, _)| prefix);
        let suffix = COMBINES.iter().find(|(_, c)| *c == self.combine).map_or("", |(suffix, _)| suffix);
        format!("{prefix}{suffix}")
    }

    /// The column it becomes, and the hidden event time that follows a first or last one.
    pub fn columns(&self) -> impl Iterator<Item = ColumnSchema> {
        let timed = matches!(self.combine, MetricCombine::First | MetricCombine::Last);
        let column = ColumnSchema::metric(self.name.as_str(), self.column_type, self.combine);
        std::iter::once(column).chain(timed.then(|| ColumnSchema::event_time(&self.name)))
    }
}

impl TryFrom<Map<String, Value>> for MetricSpec {
    type Error = Error;

    fn try_from(json: Map<String, Value>) -> Result<Self, Error> {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let kind = text("type").ok_or_else(|| Error::invalid_input("a metric needs a `type`, such as `longSum`"))?;
        let name = text("name").ok_or_else(|| Error::invalid_input(format!("a `{kind}` metric needs a `name`")))?;
        let metric = Self::of_kind(kind, name, text("fieldName"))?;
        let known = ["type", "name", "fieldName"];
        match json.iter().find(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
            Some((key, _)) => Err(Error::unsupported(format!("`{key}` of metric `{name}` is not supported"))),
            None => Ok(metric),
        }
    }
}

impl From<MetricSpec> for MetricJson {
    fn from(metric: MetricSpec) -> Self {
        Self { kind: metric.kind(), name: metric.name, field_name: metric.field }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_druids() {
        for json in [
            r#"{"type":"count","name":"count"}"#,
            r#"{"type":"longSum","name":"added","fieldName":"added"}"#,
            r#"{"type":"floatLast","name":"price","fieldName":"p"}"#,
        ] {
            let metric: MetricSpec = serde_json::from_str(json).expect(json);
            assert_eq!(serde_json::to_string(&metric).expect("plain data"), json);
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (json, word) in [
            (r#"{"type":"hyperUnique","name":"users","fieldName":"user"}"#, "hyperUnique"),
            (r#"{"type":"longSum","name":"added"}"#, "fieldName"),
            (r#"{"type":"longSum","name":"a","expression":"b + 1"}"#, "fieldName"),
            (r#"{"type":"longSum","name":"a","fieldName":"b","expression":"c + 1"}"#, "expression"),
        ] {
            let error = serde_json::from_str::<MetricSpec>(json).expect_err(json).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
