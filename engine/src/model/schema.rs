use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The name of the column every segment begins with: the row's time, never null, sorted.
pub const TIME_COLUMN: &str = "__time";

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ColumnType {
    /// UTF-8 text; with [`ColumnSchema::multi_value`], any number of texts a row.
    String,
    /// 64-bit signed integer. `__time` is one, in milliseconds since 1970 UTC.
    Long,
    /// 32-bit float.
    Float,
    /// 64-bit float.
    Double,
}

/// How two rows that roll up into one combine a metric. Null with a value gives the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetricCombine {
    /// Added; a Long that leaves 64 bits is an error, never wrapped.
    Sum,
    Min,
    Max,
    /// The value of the earliest event. Its event time is kept in the [`ColumnRole::EventTime`] column that follows.
    First,
    /// The value of the latest event, likewise.
    Last,
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "combine")]
pub enum ColumnRole {
    /// `__time`.
    Time,
    /// A grouping column.
    Dimension,
    /// An aggregated column; rows that agree in time and dimensions combine it so.
    Metric(MetricCombine),
    /// The event time (Long, milliseconds) of the `First` or `Last` metric right before it. Not shown to queries.
    EventTime,
}

/// One column of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColumnSchema {
    pub name: String,
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    pub role: ColumnRole,
    /// Rows hold lists of strings. Only for `String`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multi_value: bool,
}

impl ColumnSchema {
    /// A dimension with one value a row.
    pub fn dimension(name: impl Into<String>, column_type: ColumnType) -> Self {
        Self { name: name.into(), column_type, role: ColumnRole::Dimension, multi_value: false }
    }

    /// A string dimension with any number of values a row.
    pub fn multi_value_dimension(name: impl Into<String>) -> Self {
        Self { name: name.into(), column_type: ColumnType::String, role: ColumnRole::Dimension, multi_value: true }
    }

    pub fn metric(name: impl Into<String>, column_type: ColumnType, combine: MetricCombine) -> Self {
        Self { name: name.into(), column_type, role: ColumnRole::Metric(combine), multi_value: false }
    }

    /// The hidden event-time column of a `First` or `Last` metric.
    pub fn event_time(metric: &str) -> Self {
        Self {
            name: format!("__event_time:{metric}"),
            column_type: ColumnType::Long,
            role: ColumnRole::EventTime,
            multi_value: false,
        }
    }

    fn time() -> Self {
        Self { name: TIME_COLUMN.to_owned(), column_type: ColumnType::Long, role: ColumnRole::Time, multi_value: false }
    }
}

/// The columns of a segment in their order: `__time`, the dimensions, the metrics.
///
/// Invariants: names are unique; exactly the first column is `__time`; dimensions come before metrics; rows are
/// sorted by `__time`, then by the dimensions in this order when rollup was on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<ColumnSchema>", into = "Vec<ColumnSchema>")]
pub struct SegmentSchema {
    columns: Vec<ColumnSchema>,
}

impl SegmentSchema {
    /// `__time` and then `columns`, which must be dimensions followed by metrics.
    pub fn new(columns: impl IntoIterator<Item = ColumnSchema>) -> Result<Self> {
        let columns = std::iter::once(ColumnSchema::time()).chain(columns).collect::<Vec<_>>();
        Self::try_from(columns)
    }

    /// All columns, `__time` first.
    pub fn columns(&self) -> &[ColumnSchema] {
        &self.columns
    }

    pub fn column(&self, index: usize) -> Option<&ColumnSchema> {
        self.columns.get(index)
    }

    /// Exact match only; SQL's looser matching happens in the planner.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub fn dimensions(&self) -> impl Iterator<Item = &ColumnSchema> {
        self.columns.iter().filter(|column| column.role == ColumnRole::Dimension)
    }

    pub fn metrics(&self) -> impl Iterator<Item = &ColumnSchema> {
        self.columns.iter().filter(|column| matches!(column.role, ColumnRole::Metric(_)))
    }
}

impl TryFrom<Vec<ColumnSchema>> for SegmentSchema {
    type Error = Error;

    fn try_from(columns: Vec<ColumnSchema>) -> Result<Self> {
        if columns.first().is_none_or(|first| *first != ColumnSchema::time()) {
            return Err(Error::invalid_input("a segment's first column must be `__time`, a LONG"));
        }
        let mut seen = std::collections::HashSet::new();
        let mut metrics_began = false;
        let mut previous: Option<&ColumnSchema> = None;
        for column in &columns {
            let name = &column.name;
            if !seen.insert(name) {
                return Err(Error::invalid_input(format!("column `{name}` is there twice; names must be unique")));
            }
            if name.is_empty() {
                return Err(Error::invalid_input("a column needs a name"));
            }
            if column.multi_value && column.column_type != ColumnType::String {
                return Err(Error::invalid_input(format!("column `{name}` cannot be multi-value: only strings can")));
            }
            match column.role {
                ColumnRole::Time if previous.is_some() => {
                    return Err(Error::invalid_input(format!("column `{name}` cannot be a second time column")));
                }
                ColumnRole::Dimension if metrics_began => {
                    return Err(Error::invalid_input(format!("dimension `{name}` must stand before the metrics")));
                }
                ColumnRole::Metric(_) => {
                    metrics_began = true;
                    if column.column_type == ColumnType::String {
                        return Err(Error::invalid_input(format!("metric `{name}` must be a number")));
                    }
                }
                ColumnRole::EventTime if !previous.is_some_and(keeps_event_time) => {
                    return Err(Error::invalid_input(format!(
                        "event time `{name}` must follow a first or last metric"
                    )));
                }
                _ => {}
            }
            if previous.is_some_and(keeps_event_time) && column.role != ColumnRole::EventTime {
                return Err(Error::invalid_input(format!("column `{name}` stands where an event time belongs")));
            }
            previous = Some(column);
        }
        if previous.is_some_and(keeps_event_time) {
            return Err(Error::invalid_input("the last metric lacks its event time"));
        }
        Ok(Self { columns })
    }
}

fn keeps_event_time(column: &ColumnSchema) -> bool {
    matches!(column.role, ColumnRole::Metric(MetricCombine::First | MetricCombine::Last))
}

impl From<SegmentSchema> for Vec<ColumnSchema> {
    fn from(schema: SegmentSchema) -> Self {
        schema.columns
    }
}
