use std::collections::BTreeMap;

use henge_engine::ingest::stream::StreamPlace;
use henge_engine::ingest::{InputFormat, Window};
use henge_engine::model::{DataSchema, Period, TimeZone, Timestamp, refuse_unknown};
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Milliseconds after which rows are handed off, unless said.
const TASK_DURATION_MS: i64 = 600_000;
const MAX_ROWS: u64 = 5_000_000;
/// Threads that read one topic.
const MAX_TASKS: u32 = 64;
/// Of the name under which positions are kept.
const MAX_NAME_BYTES: usize = 255;
/// In place of what is secret in a spec that is shown.
const MASKED: &str = "********";
/// Properties whose values are secret.
const SECRET: [&str; 3] = ["sasl.password", "ssl.key.password", "sasl.jaas.config"];

/// What of Druid's `ioConfig` changes nothing here that is stored.
const HARMLESS_IO: [&str; 9] = [
    "pollTimeout",
    "startDelay",
    "period",
    "completionTimeout",
    "idleConfig",
    "stopTaskCount",
    "stopTaskCountRatio",
    "autoScalerConfig",
    "emitTimeLagMetrics",
];
/// The same of `tuningConfig`.
const HARMLESS_TUNING: [&str; 26] = [
    "maxRowsInMemory",
    "maxBytesInMemory",
    "skipBytesInMemoryOverheadCheck",
    "intermediatePersistPeriod",
    "maxPendingPersists",
    "indexSpec",
    "indexSpecForIntermediatePersists",
    "handoffConditionTimeout",
    "workerThreads",
    "chatAsync",
    "chatThreads",
    "chatRetries",
    "httpTimeout",
    "shutdownTimeout",
    "offsetFetchPeriod",
    "repartitionTransitionDuration",
    "segmentWriteOutMediumFactory",
    "numPersistThreads",
    "maxColumnsToMerge",
    "maxSavedParseExceptions",
    "logParseExceptions",
    "releaseLocksOnHandoff",
    "basePersistDirectory",
    "appendableIndexSpec",
    "buildV9Directly",
    "maxRecordsPerPoll",
];
/// What stands beside the spec.
const HARMLESS_AROUND: [&str; 3] = ["context", "resource", "dataSource"];

/// What keeps a topic flowing into a data source, in Druid's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct SupervisorSpec {
    pub id: String,
    pub kind: String,
    pub data_schema: DataSchema,
    pub io_config: StreamIoConfig,
    pub tuning_config: StreamTuning,
    /// As it was submitted.
    json: Value,
}

/// What is read, and when it is handed off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamIoConfig {
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    pub topic: String,
    pub input_format: Value,
    pub consumer_properties: BTreeMap<String, Value>,
    /// How many threads read, each its share of the partitions.
    #[serde(default = "one")]
    pub task_count: u32,
    #[serde(default = "one")]
    pub replicas: u32,
    #[serde(default = "task_duration")]
    pub task_duration: Period,
    /// Where reading begins when it begins for the first time: at the first record that is there, or after the last.
    #[serde(default)]
    pub use_earliest_offset: bool,
    /// A row that happened longer before it is read is not taken.
    #[serde(default)]
    pub late_message_rejection_period: Option<Period>,
    /// A row that happened before is not taken.
    #[serde(default)]
    pub late_message_rejection_start_date_time: Option<Timestamp>,
    /// A row that is to happen longer after it is read is not taken.
    #[serde(default)]
    pub early_message_rejection_period: Option<Period>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Limits of a hand-off, and of what may be wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamTuning {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub max_rows_per_segment: Option<u64>,
    /// As many rows are handed off at the latest.
    pub max_total_rows: Option<u64>,
    /// Reading stops once more rows than this could not be parsed since it began; any number unless said.
    pub max_parse_exceptions: Option<i64>,
    /// As `maxParseExceptions` 0.
    pub report_parse_exceptions: Option<bool>,
    pub reset_offset_automatically: Option<bool>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn one() -> u32 {
    1
}

fn task_duration() -> Period {
    Period::millis(TASK_DURATION_MS)
}

/// How the values of records are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RecordFormat {
    Value(InputFormat),
    /// With fields of the record around it.
    Envelope(Box<Envelope>),
}

/// Druid's `inputFormat` of type `kafka`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    pub(super) value_format: InputFormat,
    #[serde(default)]
    pub(super) header_format: Option<HeaderFormat>,
    #[serde(default)]
    key_format: Option<InputFormat>,
    #[serde(default = "header_prefix")]
    pub(super) header_column_prefix: String,
    #[serde(default = "key_column")]
    key_column_name: String,
    #[serde(default = "timestamp_column")]
    pub(super) timestamp_column_name: String,
    #[serde(default = "topic_column")]
    pub(super) topic_column_name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeaderFormat {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    encoding: Option<String>,
}

fn header_prefix() -> String {
    "kafka.header.".to_owned()
}

fn key_column() -> String {
    "kafka.key".to_owned()
}

fn timestamp_column() -> String {
    "kafka.timestamp".to_owned()
}

fn topic_column() -> String {
    "kafka.topic".to_owned()
}

impl Envelope {
    /// The column of the key, if the key is wanted.
    pub(super) fn key_column(&self) -> Option<&str> {
        self.key_format.as_ref().map(|_| self.key_column_name.as_str())
    }

    fn check(&self) -> Result<()> {
        if !matches!(self.value_format, InputFormat::Json { .. }) {
            return Err(Error::unsupported(
                "`valueFormat` of an inputFormat `kafka` must be `json`; for another one use it as `inputFormat` itself",
            ));
        }
        if let Some(HeaderFormat { kind, encoding }) = &self.header_format
            && (kind != "string" || !encoding.as_deref().is_none_or(|name| name.eq_ignore_ascii_case("UTF-8")))
        {
            return Err(Error::unsupported("`headerFormat` must be of type `string` with the encoding `UTF-8`"));
        }
        match &self.key_format {
            None => Ok(()),
            Some(InputFormat::Csv { options } | InputFormat::Tsv { options, .. })
                if options.columns.as_ref().is_some_and(|columns| columns.len() == 1) =>
            {
                Ok(())
            }
            Some(_) => Err(Error::unsupported(
                "`keyFormat` must be `tsv` or `csv` with one column in `columns`: the key is taken as a text",
            )),
        }
    }
}

impl RecordFormat {
    fn from_json(json: &Value) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::invalid_input(format!("`inputFormat`: {error}"));
        if json.get("type").and_then(Value::as_str) == Some("kafka") {
            let envelope: Envelope = serde_json::from_value(json.clone()).map_err(wrong)?;
            envelope.check()?;
            return Ok(Self::Envelope(Box::new(envelope)));
        }
        let format: InputFormat = serde_json::from_value(json.clone()).map_err(wrong)?;
        match &format {
            InputFormat::Parquet { .. } => {
                Err(Error::unsupported("records cannot be `parquet`; use `json`, `csv`, `tsv` or `kafka`"))
            }
            InputFormat::Csv { options } | InputFormat::Tsv { options, .. }
                if options.has_header() || options.skip_header_rows > 0 || options.columns.is_none() =>
            {
                Err(Error::invalid_input("records have no header: name the `columns` of `inputFormat`"))
            }
            _ => Ok(Self::Value(format)),
        }
    }

    /// How the text that is made of records is read.
    pub(super) fn lines(&self) -> &InputFormat {
        match self {
            Self::Value(format) => format,
            Self::Envelope(envelope) => &envelope.value_format,
        }
    }
}

impl SupervisorSpec {
    /// Reads `{"type": "kafka", "spec": {…}}`. Errors name the field; notes say what has no effect.
    pub fn from_json(json: &Value) -> Result<(Self, Vec<String>)> {
        let Value::Object(outer) = json else {
            return Err(Error::invalid_input("the spec of a supervisor is a JSON object"));
        };
        let mut outer = outer.clone();
        let take = |outer: &mut Map<String, Value>, name: &str| outer.remove(name).filter(|value| !value.is_null());
        let text = |value: Value| value.as_str().map(str::to_owned);
        let kind = take(&mut outer, "type").and_then(text).unwrap_or_default();
        if kind != "kafka" {
            return Err(Error::unsupported(format!(
                "a supervisor of type `{kind}` is not supported; use `kafka`, or push to the data source"
            )));
        }
        let id = take(&mut outer, "id").map(text);
        // Not part of what is declared: it is said by suspending and resuming.
        outer.remove("suspended");
        let inner = match take(&mut outer, "spec") {
            Some(Value::Object(inner)) => inner,
            Some(_) => return Err(Error::invalid_input("`spec` is a JSON object")),
            None => ["dataSchema", "ioConfig", "tuningConfig"]
                .into_iter()
                .filter_map(|name| outer.remove(name).map(|value| (name.to_owned(), value)))
                .collect(),
        };
        let mut notes = Vec::new();
        refuse_unknown("supervisor", &outer, &HARMLESS_AROUND, &mut notes)?;
        let spec = Self::of_parts(kind, id, inner, json.clone(), &mut notes)?;
        spec.check(&mut notes)?;
        Ok((spec, notes))
    }

    fn of_parts(
        kind: String,
        id: Option<Option<String>>,
        mut inner: Map<String, Value>,
        json: Value,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let wrong = |part: &str, error: serde_json::Error| Error::invalid_input(format!("`{part}`: {error}"));
        let mut part = |name: &str| inner.remove(name).filter(|value| !value.is_null());
        let missing = |name: &str| Error::invalid_input(format!("the spec has no `{name}`"));
        let data_schema = part("dataSchema").ok_or_else(|| missing("dataSchema"))?;
        let io_config = part("ioConfig").ok_or_else(|| missing("ioConfig"))?;
        let tuning_config = part("tuningConfig").unwrap_or_else(|| Value::Object(Map::new()));
        refuse_unknown("spec", &inner, &[], notes)?;
        let data_schema: DataSchema = serde_json::from_value(data_schema).map_err(|e| wrong("dataSchema", e))?;
        let id = match id {
            None => data_schema.data_source.clone(),
            Some(Some(id)) => id,
            Some(None) => return Err(Error::invalid_input("the `id` of a supervisor is a text")),
        };
        Ok(Self {
            id,
            kind,
            data_schema,
            io_config: serde_json::from_value(io_config).map_err(|e| wrong("ioConfig", e))?,
            tuning_config: serde_json::from_value(tuning_config).map_err(|e| wrong("tuningConfig", e))?,
            json,
        })
    }

    fn check(&self, notes: &mut Vec<String>) -> Result<()> {
        notes.extend(self.data_schema.check()?);
        let (io, tuning) = (&self.io_config, &self.tuning_config);
        if io.other.get("topicPattern").is_some_and(|pattern| !pattern.is_null()) {
            return Err(Error::unsupported("`topicPattern` is not supported; make a supervisor for each `topic`"));
        }
        refuse_unknown("ioConfig", &io.other, &HARMLESS_IO, notes)?;
        refuse_unknown("tuningConfig", &tuning.other, &HARMLESS_TUNING, notes)?;
        if let Some(kind) = [&io.kind, &tuning.kind].into_iter().flatten().find(|kind| **kind != self.kind) {
            return Err(Error::invalid_input(format!(
                "an ioConfig or tuningConfig of type `{kind}` in a supervisor of type `{}`",
                self.kind
            )));
        }
        if io.topic.is_empty() {
            return Err(Error::invalid_input("`topic` of `ioConfig` is empty"));
        }
        if io.replicas != 1 {
            return Err(Error::unsupported(format!(
                "`replicas` {} is not supported; use 1: after a failure records are read again from the topic",
                io.replicas
            )));
        }
        if !(1..=MAX_TASKS).contains(&io.task_count) {
            return Err(Error::invalid_input(format!("`taskCount` must be 1 to {MAX_TASKS}")));
        }
        if !io.task_duration.is_positive() {
            return Err(Error::invalid_input("`taskDuration` must be longer than nothing, such as `PT10M`"));
        }
        if io.late_message_rejection_period.is_some() && io.late_message_rejection_start_date_time.is_some() {
            return Err(Error::invalid_input(
                "give `lateMessageRejectionPeriod` or `lateMessageRejectionStartDateTime`, not both",
            ));
        }
        if tuning.reset_offset_automatically == Some(true) {
            return Err(Error::unsupported(
                "`resetOffsetAutomatically` is not supported: where records are missing, a person decides, with \
                 `POST /druid/indexer/v1/supervisor/{id}/reset?confirm=true`",
            ));
        }
        if self.max_rows_per_segment() == 0 || self.max_total_rows() == 0 {
            return Err(Error::invalid_input("`maxRowsPerSegment` and `maxTotalRows` must be at least 1"));
        }
        if self.id.is_empty() || self.id.contains('/') || self.stream_name().len() > MAX_NAME_BYTES {
            return Err(Error::invalid_input(
                "the `id` of a supervisor has no `/`, and together with its topic not more than 240 bytes",
            ));
        }
        let masked = io.consumer_properties.values().any(|value| value.as_str() == Some(MASKED));
        if masked {
            return Err(Error::invalid_input(format!(
                "`consumerProperties` has `{MASKED}` in place of a secret: write it out"
            )));
        }
        RecordFormat::from_json(&io.input_format).map(drop)
    }

    pub(super) fn format(&self) -> Result<RecordFormat> {
        RecordFormat::from_json(&self.io_config.input_format)
    }

    pub fn data_source(&self) -> &str {
        &self.data_schema.data_source
    }

    /// Under which name positions are kept in the metadata store.
    pub fn stream_name(&self) -> String {
        format!("{}/{}/{}", self.kind, self.id, self.io_config.topic)
    }

    /// How the topic is reached.
    pub fn place(&self) -> Result<StreamPlace> {
        let text = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Bool(_) | Value::Number(_) => Ok((name.clone(), value.to_string())),
            _ => Err(Error::unsupported(format!("`{name}` of `consumerProperties` is no text, number or truth value"))),
        };
        let properties = self.io_config.consumer_properties.iter().map(text).collect::<Result<_>>()?;
        let with_headers = match self.format()? {
            RecordFormat::Value(_) => false,
            RecordFormat::Envelope(envelope) => envelope.header_format.is_some(),
        };
        Ok(StreamPlace {
            kind: self.kind.clone(),
            topic: self.io_config.topic.clone(),
            properties,
            client: format!("henge-{}", self.id),
            with_headers,
        })
    }

    pub fn max_rows_per_segment(&self) -> u64 {
        self.tuning_config.max_rows_per_segment.unwrap_or(MAX_ROWS)
    }

    pub fn max_total_rows(&self) -> u64 {
        self.tuning_config.max_total_rows.unwrap_or(MAX_ROWS)
    }

    pub(super) fn max_parse_exceptions(&self) -> Option<u64> {
        match self.tuning_config.max_parse_exceptions {
            _ if self.tuning_config.report_parse_exceptions == Some(true) => Some(0),
            // Druid's default is 2^31 - 1, for any number.
            Some(count) if count < i64::from(i32::MAX) => u64::try_from(count).ok(),
            _ => None,
        }
    }

    /// The times of rows that are taken when they are read at `now`.
    pub(super) fn window(&self, now: Timestamp) -> Window {
        let io = &self.io_config;
        let shifted = |period: &Period, times| period.add_to(now, times, TimeZone::Utc).map(|time| time.millis());
        let late = io.late_message_rejection_period.as_ref().and_then(|period| shifted(period, -1));
        let late = late.or_else(|| io.late_message_rejection_start_date_time.map(|time| time.millis()));
        let early = io.early_message_rejection_period.as_ref().and_then(|period| shifted(period, 1));
        Window { earliest: late.unwrap_or(i64::MIN), latest: early.unwrap_or(i64::MAX) }
    }

    /// Whether rows that were first read at `opened` are to be handed off.
    pub(super) fn is_due(&self, opened: Timestamp, now: Timestamp) -> bool {
        let due = self.io_config.task_duration.add_to(opened, 1, TimeZone::Utc);
        due.is_some_and(|due| due <= now)
    }

    /// How long that is, in seconds.
    pub fn task_duration_seconds(&self, from: Timestamp) -> i64 {
        let end = self.io_config.task_duration.add_to(from, 1, TimeZone::Utc);
        end.map_or(0, |end| (end.millis() - from.millis()) / 1000)
    }

    /// As it was submitted, for the metadata store.
    pub fn to_json(&self) -> &Value {
        &self.json
    }

    /// As it was submitted but for what is secret.
    pub fn shown(&self) -> Value {
        let mut json = self.json.clone();
        let io = match json.get("spec").is_some() {
            true => json.pointer_mut("/spec/ioConfig/consumerProperties"),
            false => json.pointer_mut("/ioConfig/consumerProperties"),
        };
        if let Some(Value::Object(properties)) = io {
            for (_, value) in properties.iter_mut().filter(|(name, _)| SECRET.contains(&name.as_str())) {
                *value = Value::String(MASKED.to_owned());
            }
        }
        json
    }
}

#[cfg(test)]
pub(super) fn tests_format(json: &Value) -> RecordFormat {
    RecordFormat::from_json(json).unwrap()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> Value {
        json!({"type": "kafka", "spec": {
            "dataSchema": {"dataSource": "wiki", "timestampSpec": {"column": "time"}},
            "ioConfig": {
                "topic": "edits",
                "inputFormat": {"type": "json"},
                "consumerProperties": {"bootstrap.servers": "localhost:9092", "sasl.password": "secret"},
                "taskDuration": "PT1H", "pollTimeout": 100, "lateMessageRejectionPeriod": "PT10M"
            },
            "tuningConfig": {"type": "kafka", "maxRowsInMemory": 1000}
        }})
    }

    #[test]
    fn a_spec_of_druids_is_read_and_what_has_no_effect_is_noted() {
        let (read, notes) = SupervisorSpec::from_json(&spec()).unwrap();
        assert_eq!((read.id.as_str(), read.stream_name().as_str()), ("wiki", "kafka/wiki/edits"));
        assert!(notes.iter().any(|note| note.contains("pollTimeout")), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("maxRowsInMemory")), "{notes:?}");
        let hour = Timestamp::from_millis(3_600_000);
        assert_eq!(read.window(hour).earliest, 3_000_000);
        assert!(read.is_due(Timestamp::from_millis(0), hour));
        assert_eq!(read.place().unwrap().properties["bootstrap.servers"], "localhost:9092");
        let shown = read.shown().to_string();
        assert!(!shown.contains("secret") && shown.contains(MASKED), "{shown}");
        // The parts may stand outside of `spec`, as in older versions.
        let mut flat = spec()["spec"].clone();
        flat["type"] = json!("kafka");
        let (flat, _) = SupervisorSpec::from_json(&flat).unwrap();
        assert_eq!(flat.io_config, read.io_config);
    }

    #[test]
    fn what_is_wrong_or_not_supported_is_named() {
        let with = |pointer: &str, value: Value| {
            let mut json = spec();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            json.pointer_mut(parent).unwrap()[name] = value;
            SupervisorSpec::from_json(&json).unwrap_err().to_string()
        };
        for (pointer, value, word) in [
            ("/type", json!("kinesis"), "kinesis"),
            ("/spec/ioConfig/topicPattern", json!("a.*"), "topicPattern"),
            ("/spec/ioConfig/topik", json!("a"), "topik"),
            ("/spec/ioConfig/replicas", json!(2), "replicas"),
            ("/spec/ioConfig/taskCount", json!(0), "taskCount"),
            ("/spec/ioConfig/taskDuration", json!("PT0S"), "taskDuration"),
            ("/spec/ioConfig/inputFormat", json!({"type": "protobuf"}), "protobuf"),
            ("/spec/ioConfig/inputFormat", json!({"type": "csv"}), "columns"),
            ("/spec/ioConfig/inputFormat", json!({"type": "kafka", "valueFormat": {"type": "tsv"}}), "valueFormat"),
            ("/spec/ioConfig/consumerProperties", json!({"sasl.password": MASKED}), "secret"),
            ("/spec/tuningConfig/resetOffsetAutomatically", json!(true), "resetOffsetAutomatically"),
            ("/spec/tuningConfig/maxTotalRows", json!(0), "maxTotalRows"),
            ("/spec/tuningConfig/maxRowz", json!(0), "maxRowz"),
            ("/spec/dataSchema", Value::Null, "dataSchema"),
            ("/id", json!("a/b"), "id"),
        ] {
            let error = with(pointer, value);
            assert!(error.contains(word), "{pointer}: {error}");
        }
    }
}
