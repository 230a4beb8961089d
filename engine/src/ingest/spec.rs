//! What to ingest and how: Druid's `index_parallel` JSON, and the short form behind command line flags.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::model::{DataSchema, DimensionSchema, Granularity, MetricSpec, refuse_unknown};

mod simple;

pub use simple::SimpleIngestion;

/// An ingestion task: Druid's `index_parallel` (or `index`) JSON, with or without the `type`/`spec` around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SpecJson", into = "SpecJson")]
pub struct IngestionSpec {
    pub data_schema: DataSchema,
    pub io_config: IoConfig,
    pub tuning_config: TuningConfig,
    /// Fields around the spec that have no effect here, such as `id`.
    notes: Vec<String>,
}

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IoConfig {
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub input_source: InputSource,
    /// `None` is told from each file's name: `.json`, `.ndjson`, `.jsonl`, `.csv`, `.tsv`, `.parquet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_format: Option<InputFormat>,
    /// Adds to the intervals' segments instead of replacing them.
    #[serde(default)]
    pub append_to_existing: bool,
    /// Replaces all that is in the spec's intervals, also where no new rows are.
    #[serde(default)]
    pub drop_existing: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Druid's input sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum InputSource {
    /// Files, directories and globs on this machine.
    Local {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_dir: Option<String>,
        /// A glob on the names of files below `baseDir`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<String>,
    },
    /// The rows themselves.
    Inline {
        data: String,
    },
    Http {
        uris: Vec<String>,
    },
    S3 {
        #[serde(default)]
        uris: Vec<String>,
        /// Everything below them.
        #[serde(default)]
        prefixes: Vec<String>,
    },
    Google {
        #[serde(default)]
        uris: Vec<String>,
        #[serde(default)]
        prefixes: Vec<String>,
    },
    #[serde(alias = "azure")]
    AzureStorage {
        #[serde(default)]
        uris: Vec<String>,
        #[serde(default)]
        prefixes: Vec<String>,
    },
    /// One after another.
    Combining {
        delegates: Vec<InputSource>,
    },
}

/// How rows are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum InputFormat {
    /// One JSON object a line. Nested values become JSON text unless `flattenSpec` says otherwise.
    Json {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flatten_spec: Option<FlattenSpec>,
        /// Accepted: a line is always one row here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        assume_newline_delimited: Option<bool>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep_null_columns: Option<bool>,
    },
    /// Comma-separated, quoted as in RFC 4180.
    Csv {
        #[serde(flatten)]
        options: DelimitedOptions,
    },
    /// Separated by tabs or another delimiter, without quotes.
    Tsv {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delimiter: Option<String>,
        #[serde(flatten)]
        options: DelimitedOptions,
    },
    Parquet {
        /// Accepted: binary columns are always read as text here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        binary_as_string: Option<bool>,
    },
}

/// What CSV and TSV have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelimitedOptions {
    /// Names of the columns; none with `findColumnsFromHeader`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub find_columns_from_header: Option<bool>,
    /// Lines passed over at the start of every file, before the header.
    pub skip_header_rows: u64,
    /// Splits a value into a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_delimiter: Option<String>,
}

impl DelimitedOptions {
    /// Whether the first line names the columns: as said, and otherwise when no columns are given.
    pub fn has_header(&self) -> bool {
        self.find_columns_from_header.unwrap_or(self.columns.is_none())
    }
}

/// Which nested values become fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlattenSpec {
    /// Whether fields at the root are taken as well.
    #[serde(default = "yes")]
    pub use_field_discovery: bool,
    #[serde(default)]
    pub fields: Vec<FlattenField>,
}

/// A field taken from inside a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlattenField {
    /// A field at the root, under its own name.
    Name(String),
    Path {
        /// `root` or `path`.
        #[serde(rename = "type")]
        kind: String,
        name: String,
        /// `$.a.b[0]['c']`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expr: Option<String>,
    },
}

fn yes() -> bool {
    true
}

/// Limits of an ingestion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TuningConfig {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A segment granule with more rows is divided; 5,000,000 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows_per_segment: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions_spec: Option<PartitionsSpec>,
    /// The ingestion fails when more rows than this cannot be parsed; no limit unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parse_exceptions: Option<i64>,
    /// How many bad rows the report shows; 10 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_saved_parse_exceptions: Option<usize>,
    /// Writes each bad row to the log as well.
    #[serde(deserialize_with = "null_is_false")]
    pub log_parse_exceptions: bool,
    /// As `maxParseExceptions` 0.
    #[serde(deserialize_with = "null_is_false")]
    pub report_parse_exceptions: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows_in_memory: Option<u64>,
    /// Lowers the memory limit of this ingestion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes_in_memory: Option<i64>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn null_is_false<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or(false))
}

/// How a granule's rows are divided. Only by number (`dynamic`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartitionsSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows_per_segment: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_rows: Option<u64>,
}

const MAX_ROWS_PER_SEGMENT: u64 = 5_000_000;

/// Tuning that Druid has and that changes nothing that is stored here.
const HARMLESS_TUNING: [&str; 26] = [
    "maxTotalRows",
    "maxNumConcurrentSubTasks",
    "maxRetry",
    "maxPendingPersists",
    "maxColumnsToMerge",
    "pushTimeout",
    "taskStatusCheckPeriodMs",
    "chatHandlerTimeout",
    "chatHandlerNumRetries",
    "splitHintSpec",
    "indexSpec",
    "indexSpecForIntermediatePersists",
    "forceGuaranteedRollup",
    "segmentWriteOutMediumFactory",
    "awaitSegmentAvailabilityTimeoutMillis",
    "totalNumMergeTasks",
    "maxNumSegmentsToMerge",
    "maxNumSubTasks",
    "maxAllowedLockCount",
    "skipBytesInMemoryOverheadCheck",
    "targetPartitionSize",
    "appendableIndexSpec",
    "maxParallelism",
    "numPersistThreads",
    "basePersistDirectory",
    "buildV9Directly",
];

impl TuningConfig {
    pub fn max_rows_per_segment(&self) -> u64 {
        let from_partitions = self.partitions_spec.as_ref().and_then(|spec| spec.max_rows_per_segment);
        from_partitions.or(self.max_rows_per_segment).unwrap_or(MAX_ROWS_PER_SEGMENT)
    }

    /// How many rows may fail to parse; `None` is any number.
    pub fn max_parse_exceptions(&self) -> Option<u64> {
        match self.max_parse_exceptions {
            _ if self.report_parse_exceptions => Some(0),
            Some(count) => u64::try_from(count).ok(),
            None => None,
        }
    }

    fn check(&self, notes: &mut Vec<String>) -> Result<()> {
        refuse_unknown("tuningConfig", &self.other, &HARMLESS_TUNING, notes)?;
        if let Some(spec) = &self.partitions_spec
            && spec.kind != "dynamic"
        {
            return Err(Error::unsupported(format!("partitionsSpec of type `{}`; only `dynamic` is known", spec.kind)));
        }
        match self.max_rows_per_segment() {
            0 => Err(Error::invalid_input("`maxRowsPerSegment` must be at least 1")),
            _ => Ok(()),
        }
    }
}

/// The JSON around a spec.
#[derive(Serialize, Deserialize)]
struct SpecJson {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    spec: Option<Inner>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Inner {
    data_schema: DataSchema,
    io_config: IoConfig,
    #[serde(default)]
    tuning_config: Option<TuningConfig>,
}

impl TryFrom<SpecJson> for IngestionSpec {
    type Error = Error;

    fn try_from(json: SpecJson) -> Result<Self> {
        if let Some(kind) = &json.kind
            && !["index_parallel", "index"].contains(&kind.as_str())
        {
            return Err(Error::unsupported(format!(
                "task of type `{kind}`; Henge ingests `index_parallel` and `index`"
            )));
        }
        let mut notes = Vec::new();
        let inner = match json.spec {
            Some(inner) => {
                refuse_unknown(
                    "task",
                    &json.rest,
                    &["id", "groupId", "dataSource", "resource", "context"],
                    &mut notes,
                )?;
                inner
            }
            None => serde_json::from_value(Value::Object(json.rest))
                .map_err(|e| Error::invalid_input("not an ingestion spec").with_source(e))?,
        };
        Ok(Self {
            data_schema: inner.data_schema,
            io_config: inner.io_config,
            tuning_config: inner.tuning_config.unwrap_or_default(),
            notes,
        })
    }
}

impl From<IngestionSpec> for SpecJson {
    fn from(spec: IngestionSpec) -> Self {
        let IngestionSpec { data_schema, io_config, tuning_config, .. } = spec;
        Self {
            kind: Some("index_parallel".to_owned()),
            spec: Some(Inner { data_schema, io_config, tuning_config: Some(tuning_config) }),
            rest: Map::new(),
        }
    }
}

impl IngestionSpec {
    pub fn new(data_schema: DataSchema, input_source: InputSource) -> Self {
        let io_config = IoConfig {
            kind: None,
            input_source,
            input_format: None,
            append_to_existing: false,
            drop_existing: false,
            other: Map::new(),
        };
        Self { data_schema, io_config, tuning_config: TuningConfig::default(), notes: Vec::new() }
    }

    /// Reads Druid's JSON. Errors name the field.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::invalid_input(format!("ingestion spec: {e}")))
    }

    /// Finds what contradicts itself or asks for what Henge cannot do, without reading any input. Returns notes on
    /// fields that were passed over because they change nothing that is stored.
    pub fn check(&self) -> Result<Vec<String>> {
        let mut notes = self.notes.clone();
        notes.extend(self.data_schema.check()?);
        let io = &self.io_config;
        refuse_unknown("ioConfig", &io.other, &["maxInputSegmentBytesPerTask", "useConcurrentLocks"], &mut notes)?;
        self.check_existing()?;
        self.tuning_config.check(&mut notes)?;
        if let Some(format) = &io.input_format {
            format.check()?;
        }
        super::transform::Transforms::compile(&self.data_schema.transform_spec)?;
        super::timestamp::TimestampParser::new(&self.data_schema.timestamp_spec)?;
        Ok(notes)
    }

    fn check_existing(&self) -> Result<()> {
        if !self.io_config.drop_existing {
            return Ok(());
        }
        if self.io_config.append_to_existing {
            return Err(Error::invalid_input("`dropExisting` and `appendToExisting` contradict each other"));
        }
        if self.data_schema.granularity_spec.intervals.is_empty() {
            return Err(Error::invalid_input(
                "`dropExisting` needs the `intervals` of the `granularitySpec`, which say what is dropped",
            ));
        }
        Ok(())
    }
}

impl InputFormat {
    fn check(&self) -> Result<()> {
        match self {
            Self::Csv { options } | Self::Tsv { options, .. } => {
                if !options.has_header() && options.columns.is_none() {
                    return Err(Error::invalid_input("without `findColumnsFromHeader` the `columns` must be given"));
                }
                Ok(())
            }
            Self::Json { flatten_spec: Some(flatten), .. } => super::format::Flatten::new(flatten).map(|_| ()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUTORIAL: &str = r#"{
      "type" : "index_parallel",
      "spec" : {
        "dataSchema" : {
          "dataSource" : "wikipedia",
          "timestampSpec": { "column": "time", "format": "iso" },
          "dimensionsSpec" : { "dimensions" : ["channel", { "name": "added", "type": "long" }] },
          "metricsSpec" : [],
          "granularitySpec" : { "type" : "uniform", "segmentGranularity" : "day", "queryGranularity" : "none",
            "intervals" : ["2015-09-12/2015-09-13"], "rollup" : false }
        },
        "ioConfig" : {
          "type" : "index_parallel",
          "inputSource" : { "type" : "local", "baseDir" : "quickstart/tutorial/", "filter" : "wikiticker-*.json.gz" },
          "inputFormat" : { "type" : "json" },
          "appendToExisting" : false
        },
        "tuningConfig" : { "type" : "index_parallel", "maxRowsPerSegment" : 1000, "maxRowsInMemory" : 25000, "maxRetry": 3 }
      }
    }"#;

    #[test]
    fn druids_tutorial_spec_is_taken_and_written_back() -> Result<()> {
        let spec = IngestionSpec::from_json(TUTORIAL)?;
        assert_eq!(spec.check()?, ["`maxRetry` of `tuningConfig` has no effect here"]);
        assert_eq!(spec.tuning_config.max_rows_per_segment(), 1000);
        let written = serde_json::to_string(&spec).expect("plain data");
        assert_eq!(IngestionSpec::from_json(&written)?, spec);
        Ok(())
    }

    #[test]
    fn a_bare_spec_will_do() -> Result<()> {
        let json = r#"{"dataSchema":{"dataSource":"a"},"ioConfig":{"inputSource":{"type":"inline","data":"{}"},
            "inputFormat":{"type":"csv","findColumnsFromHeader":true,"listDelimiter":"|"}}}"#;
        let spec = IngestionSpec::from_json(json)?;
        spec.check()?;
        let Some(InputFormat::Csv { options }) = &spec.io_config.input_format else { panic!("not CSV") };
        assert_eq!(options.list_delimiter.as_deref(), Some("|"));
        Ok(())
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (from, to, word) in [
            (
                r#""type" : "index_parallel",
      "spec""#,
                r#""type":"compact","spec""#,
                "compact",
            ),
            (r#""type" : "local""#, r#""type" : "hdfs""#, "hdfs"),
            (r#""maxRetry": 3"#, r#""partitionsSpec": {"type":"hashed"}"#, "hashed"),
            (r#""maxRetry": 3"#, r#""maxRowPerSegment": 3"#, "maxRowPerSegment"),
            (r#""appendToExisting" : false"#, r#""appendToExisting" : true, "dropExisting" : true"#, "dropExisting"),
            (r#""appendToExisting" : false"#, r#""dropExistin" : true"#, "dropExistin"),
            (r#""type" : "json""#, r#""type" : "avro_ocf""#, "avro_ocf"),
            (r#""channel""#, r#"{"type":"json","name":"channel"}"#, "channel"),
        ] {
            assert!(TUTORIAL.contains(from), "{from}");
            let error = IngestionSpec::from_json(&TUTORIAL.replace(from, to)).and_then(|spec| spec.check());
            let error = error.expect_err(to).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
