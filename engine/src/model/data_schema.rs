use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ColumnType, Granularity, Interval, MetricSpec, TIME_COLUMN, Timestamp};
use crate::error::{Error, Result};

/// What rows of a data source look like and how they are made from input: Druid's `dataSchema`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataSchema {
    pub data_source: String,
    #[serde(default)]
    pub timestamp_spec: TimestampSpec,
    #[serde(default)]
    pub dimensions_spec: DimensionsSpec,
    #[serde(default, deserialize_with = "null_is_default")]
    pub metrics_spec: Vec<MetricSpec>,
    #[serde(default)]
    pub granularity_spec: GranularitySpec,
    #[serde(default, deserialize_with = "null_is_default")]
    pub transform_spec: TransformSpec,
    /// Fields that are not known here; [`DataSchema::check`] refuses those that would change what is stored.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Where a row's time is and how it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimestampSpec {
    pub column: String,
    /// `auto`, `iso`, `posix`, `millis`, `micro`, `nano`, `ruby`, or a Joda pattern.
    pub format: String,
    /// The time of rows that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_value: Option<Timestamp>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for TimestampSpec {
    fn default() -> Self {
        Self { column: "timestamp".to_owned(), format: "auto".to_owned(), missing_value: None, other: Map::new() }
    }
}

/// Which fields become dimensions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DimensionsSpec {
    #[serde(deserialize_with = "null_is_default")]
    pub dimensions: Vec<DimensionSchema>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub dimension_exclusions: Vec<String>,
    /// After the listed dimensions, all fields found.
    pub include_all_dimensions: bool,
    /// Dimensions found get the type of their values, not just string.
    pub use_schema_discovery: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl DimensionsSpec {
    /// Whether fields that are not listed become dimensions.
    pub fn discovers(&self) -> bool {
        self.dimensions.is_empty() || self.include_all_dimensions || self.use_schema_discovery
    }

    /// Whether the dimensions or their types depend on the rows that come.
    fn depends_on_rows(&self) -> bool {
        self.discovers() || self.dimensions.iter().any(|dimension| dimension.column_type.is_none())
    }
}

/// A dimension as listed: a name, which is a string dimension, or an object with a type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct DimensionSchema {
    pub name: String,
    /// `None` (Druid's `auto`) is the type of the values found.
    pub column_type: Option<ColumnType>,
    pub multi_value_handling: MultiValueHandling,
}

/// What becomes of a list of strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MultiValueHandling {
    /// Sorted, duplicates kept.
    #[default]
    SortedArray,
    /// Sorted, without duplicates.
    SortedSet,
    /// As it is.
    Array,
}

impl DimensionSchema {
    pub fn new(name: impl Into<String>, column_type: Option<ColumnType>) -> Self {
        Self { name: name.into(), column_type, multi_value_handling: MultiValueHandling::default() }
    }
}

impl TryFrom<Value> for DimensionSchema {
    type Error = Error;

    fn try_from(json: Value) -> Result<Self> {
        if let Value::String(name) = json {
            return Ok(Self::new(name, Some(ColumnType::String)));
        }
        let name = json.get("name").and_then(Value::as_str).ok_or_else(|| {
            Error::invalid_input(format!("dimension {json} is neither a name nor an object with a `name`"))
        })?;
        let kind = json.get("type").and_then(Value::as_str).unwrap_or("string");
        let column_type = match kind.to_ascii_lowercase().as_str() {
            "string" => Some(ColumnType::String),
            "long" => Some(ColumnType::Long),
            "float" => Some(ColumnType::Float),
            "double" => Some(ColumnType::Double),
            "auto" => None,
            _ => {
                return Err(Error::unsupported(format!(
                    "dimension `{name}` is of type `{kind}`; Henge knows `string`, `long`, `float`, `double`, `auto`"
                )));
            }
        };
        let handling = match json.get("multiValueHandling") {
            None | Some(Value::Null) => MultiValueHandling::default(),
            Some(Value::String(text)) => {
                serde_json::from_value(Value::String(text.to_ascii_uppercase())).map_err(|e| {
                    Error::invalid_input(format!("`multiValueHandling` of dimension `{name}`")).with_source(e)
                })?
            }
            Some(_) => {
                return Err(Error::invalid_input(format!("`multiValueHandling` of dimension `{name}` is no text")));
            }
        };
        // Henge decides by itself where an index pays.
        let known = ["name", "type", "multiValueHandling", "createBitmapIndex"];
        let mut fields = json.as_object().into_iter().flatten();
        match fields.find(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
            Some((key, _)) => Err(Error::unsupported(format!("`{key}` of dimension `{name}` is not supported"))),
            None => Ok(Self { name: name.to_owned(), column_type, multi_value_handling: handling }),
        }
    }
}

impl From<DimensionSchema> for Value {
    fn from(dimension: DimensionSchema) -> Self {
        let default_handling = dimension.multi_value_handling == MultiValueHandling::default();
        if dimension.column_type == Some(ColumnType::String) && default_handling {
            return Self::String(dimension.name);
        }
        let kind = match dimension.column_type {
            Some(ColumnType::String) => "string",
            Some(ColumnType::Long) => "long",
            Some(ColumnType::Float) => "float",
            Some(ColumnType::Double) => "double",
            None => "auto",
        };
        let mut json = serde_json::json!({ "type": kind, "name": dimension.name });
        if !default_handling {
            json["multiValueHandling"] = serde_json::json!(dimension.multi_value_handling);
        }
        json
    }
}

/// How time is cut, and whether equal rows are combined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GranularitySpec {
    #[serde(rename = "type")]
    pub kind: String,
    pub segment_granularity: Granularity,
    pub query_granularity: Granularity,
    /// `None` is on, as in Druid, unless dimensions are discovered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollup: Option<bool>,
    /// Only rows within them are taken; none stated means all.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub intervals: Vec<Interval>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for GranularitySpec {
    fn default() -> Self {
        Self {
            kind: "uniform".to_owned(),
            segment_granularity: Granularity::DAY,
            query_granularity: Granularity::None,
            rollup: None,
            intervals: Vec::new(),
            other: Map::new(),
        }
    }
}

/// Changes to rows before they become dimensions and metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransformSpec {
    #[serde(deserialize_with = "null_is_default")]
    pub transforms: Vec<Transform>,
    /// Only rows that pass are taken: Druid's filter JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A field computed from the others of its row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    /// In Druid's expression language.
    #[serde(default)]
    pub expression: String,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl DataSchema {
    /// A schema with everything but the data source and the time column as it is by default.
    pub fn new(data_source: impl Into<String>, time_column: impl Into<String>) -> Self {
        Self {
            data_source: data_source.into(),
            timestamp_spec: TimestampSpec { column: time_column.into(), ..TimestampSpec::default() },
            dimensions_spec: DimensionsSpec::default(),
            metrics_spec: Vec::new(),
            granularity_spec: GranularitySpec::default(),
            transform_spec: TransformSpec::default(),
            other: Map::new(),
        }
    }

    /// Whether rows that agree in time and dimensions are combined.
    pub fn rolls_up(&self) -> bool {
        self.granularity_spec.rollup.unwrap_or(!self.dimensions_spec.depends_on_rows())
    }

    /// Finds what contradicts itself or asks for what Henge cannot do. Returns notes on fields that were passed over
    /// because they change nothing that is stored.
    pub fn check(&self) -> Result<Vec<String>> {
        check_data_source(&self.data_source)?;
        let mut notes = Vec::new();
        refuse_unknown("dataSchema", &self.other, &[], &mut notes)?;
        refuse_unknown("timestampSpec", &self.timestamp_spec.other, &[], &mut notes)?;
        refuse_unknown("dimensionsSpec", &self.dimensions_spec.other, &["forceSegmentSortByTime"], &mut notes)?;
        refuse_unknown("granularitySpec", &self.granularity_spec.other, &[], &mut notes)?;
        refuse_unknown("transformSpec", &self.transform_spec.other, &[], &mut notes)?;
        if self.dimensions_spec.other.get("forceSegmentSortByTime") == Some(&Value::Bool(false)) {
            return Err(Error::unsupported("segments not sorted by time (`forceSegmentSortByTime` false)"));
        }
        self.check_granularity()?;
        self.check_names()?;
        if let Some(transform) = self.transform_spec.transforms.iter().find(|t| t.kind != "expression") {
            let (name, kind) = (&transform.name, &transform.kind);
            return Err(Error::unsupported(format!(
                "transform `{name}` is of type `{kind}`; only `expression` is known"
            )));
        }
        if self.granularity_spec.rollup.is_none() && !self.rolls_up() {
            notes.push("rollup is off, because dimensions are discovered".to_owned());
        }
        Ok(notes)
    }

    fn check_granularity(&self) -> Result<()> {
        let spec = &self.granularity_spec;
        if spec.kind != "uniform" {
            return Err(Error::unsupported(format!(
                "granularitySpec of type `{}`; only `uniform` is known",
                spec.kind
            )));
        }
        if spec.segment_granularity == Granularity::None {
            return Err(Error::invalid_input(
                "segmentGranularity `none` would make a segment of every millisecond; use `hour` or `day`",
            ));
        }
        if spec.rollup == Some(true) && self.dimensions_spec.depends_on_rows() {
            return Err(Error::invalid_input(
                "rollup needs the dimensions listed with their types: list them in `dimensionsSpec`, or set `rollup` to \
                 false",
            ));
        }
        Ok(())
    }

    fn check_names(&self) -> Result<()> {
        let mut seen = std::collections::HashSet::from([TIME_COLUMN]);
        let dimensions = self.dimensions_spec.dimensions.iter().map(|dimension| dimension.name.as_str());
        for name in dimensions.chain(self.metrics_spec.iter().map(|metric| metric.name.as_str())) {
            if name.is_empty() {
                return Err(Error::invalid_input("a column needs a name"));
            }
            if !seen.insert(name) {
                return Err(Error::invalid_input(format!("column `{name}` is there twice; names must be unique")));
            }
        }
        Ok(())
    }
}

/// Fails with a name that would not do as part of a segment id and of a path.
fn check_data_source(name: &str) -> Result<()> {
    let fault = match name {
        "" => "is empty",
        _ if name.len() > 255 => "is longer than 255 bytes",
        _ if name.starts_with('.') => "begins with a dot",
        _ if name.contains(['/', '\\']) || name.chars().any(char::is_control) => {
            "holds a slash, a backslash or a control character"
        }
        _ if name.trim() != name => "begins or ends with a space",
        _ => return Ok(()),
    };
    Err(Error::invalid_input(format!("data source name `{name}` {fault}; choose another")))
}

/// Refuses fields nobody here knows, by name; those in `harmless` and those that are null are noted instead.
pub fn refuse_unknown(
    place: &str,
    other: &Map<String, Value>,
    harmless: &[&str],
    notes: &mut Vec<String>,
) -> Result<()> {
    for (key, value) in other {
        if harmless.contains(&key.as_str()) {
            notes.push(format!("`{key}` of `{place}` has no effect here"));
        } else if !value.is_null() {
            return Err(Error::unsupported(format!("`{key}` of `{place}` is not supported; leave it out")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(json: &str) -> DataSchema {
        serde_json::from_str(json).expect(json)
    }

    const FULL: &str = r#"{
        "dataSource": "wikipedia",
        "timestampSpec": {"column": "time", "format": "iso", "missingValue": "2013-08-01T00:00:00.000Z"},
        "dimensionsSpec": {
            "dimensions": ["page", {"type": "long", "name": "size"}, {"type": "string", "name": "tags", "multiValueHandling": "array"}],
            "dimensionExclusions": ["comment"]
        },
        "metricsSpec": [{"type": "count", "name": "count"}, {"type": "longSum", "name": "added", "fieldName": "added"}],
        "granularitySpec": {"type": "uniform", "segmentGranularity": "HOUR", "queryGranularity": "minute", "rollup": true,
            "intervals": ["2013-08-01/P1D"]},
        "transformSpec": {"transforms": [{"type": "expression", "name": "x", "expression": "size + 1"}],
            "filter": {"type": "selector", "dimension": "page", "value": "a"}}
    }"#;

    #[test]
    fn druids_json_is_read_and_written() -> Result<()> {
        let read = schema(FULL);
        assert!(read.check()?.is_empty());
        assert!(read.rolls_up());
        assert_eq!(read.granularity_spec.segment_granularity, Granularity::HOUR);
        assert_eq!(read.dimensions_spec.dimensions[1].column_type, Some(ColumnType::Long));
        assert_eq!(read.dimensions_spec.dimensions[2].multi_value_handling, MultiValueHandling::Array);
        let written = serde_json::to_string(&read).expect("plain data");
        assert_eq!(schema(&written), read);
        Ok(())
    }

    #[test]
    fn a_field_nobody_knows_is_refused_by_name() {
        for (json, word) in [
            (r#"{"dataSource":"a","projections":[1]}"#, "projections"),
            (r#"{"dataSource":"a","dimensionsSpec":{"spatialDimensions":[{"dimName":"c"}]}}"#, "spatialDimensions"),
            (r#"{"dataSource":"a","granularitySpec":{"segmentGranularty":"day"}}"#, "segmentGranularty"),
            (r#"{"dataSource":"a","granularitySpec":{"rollup":true}}"#, "rollup"),
            (r#"{"dataSource":"a","dimensionsSpec":{"dimensions":["b","b"]}}"#, "twice"),
            (r#"{"dataSource":"../a"}"#, "dot"),
        ] {
            let error = schema(json).check().expect_err(json).to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(
            serde_json::from_str::<DataSchema>(
                r#"{"dataSource":"a","dimensionsSpec":{"dimensions":[{"type":"spatial","name":"c"}]}}"#
            )
            .is_err_and(|e| e.to_string().contains("spatial"))
        );
    }

    #[test]
    fn discovered_dimensions_do_not_roll_up_by_default() -> Result<()> {
        let discovered = schema(r#"{"dataSource":"a","dimensionsSpec":{"useSchemaDiscovery":true}}"#);
        assert!(!discovered.rolls_up());
        assert_eq!(discovered.check()?.len(), 1);
        assert!(schema(r#"{"dataSource":"a","dimensionsSpec":{"dimensions":["b"]}}"#).rolls_up());
        Ok(())
    }
}
