//! The data sets that tests ask about, as raw rows.
//!
//! | data source | what | rows |
//! |---|---|---|
//! | `wikipedia` | the tutorial's shape, generated | 5,000 over one day |
//! | `wikiticker` | the stream's shape, generated | 5,000 over three days |
//!
//! In SQL a raw row looks as it does when it was ingested without rollup: `__time` in milliseconds, flags as strings.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use flate2::read::GzDecoder;
use henge_engine::ingest::source::wikipedia::{Format, Options, Shape, Wikipedia};
use henge_engine::model::Timestamp;
use serde_json::{Value, json};

pub const ROWS: u64 = 5_000;

/// A data source with its rows.
#[derive(Debug)]
pub struct DataSet {
    pub name: &'static str,
    pub batches: Vec<RecordBatch>,
}

impl DataSet {
    pub fn num_rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }
}

/// Made once a process.
pub static GENERATED: LazyLock<Vec<DataSet>> = LazyLock::new(|| {
    vec![
        DataSet { name: "wikipedia", batches: raw(&wikipedia(Shape::Tutorial)) },
        DataSet { name: "wikiticker", batches: raw(&wikipedia(Shape::Wikiticker)) },
    ]
});

/// The generator of the data source with this shape.
pub fn wikipedia(shape: Shape) -> Wikipedia {
    let mut options = Options::new(shape, ROWS);
    options.days = if shape == Shape::Tutorial { 1 } else { 3 };
    Wikipedia::new(options).expect("options in range")
}

/// What a session sees of these rows, each kept as it was.
pub fn raw(wikipedia: &Wikipedia) -> Vec<RecordBatch> {
    wikipedia.batches(1024).map(|batch| as_ingested(&batch.expect("columns fit the schema"))).collect()
}

/// The types that ingestion gives: the first column is `__time`, everything that is no number is a string.
fn as_ingested(batch: &RecordBatch) -> RecordBatch {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (i, (field, column)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        let (name, data_type, nullable) = match field.data_type() {
            time @ DataType::Timestamp(..) if i == 0 => ("__time", time.clone(), false),
            DataType::Int64 => (field.name().as_str(), DataType::Int64, true),
            _ => (field.name().as_str(), DataType::Utf8View, true),
        };
        columns.push(cast(column, &data_type).expect("numbers and flags have a text"));
        fields.push(Field::new(name, data_type, nullable));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("cast to what the schema says")
}

/// The generated rows of this shape as a file of JSON lines, made in `dir`.
pub fn rows_file(dir: &Path, shape: Shape) -> henge_engine::Result<PathBuf> {
    let path = dir.join(format!("{shape}.json"));
    let mut file = BufWriter::new(File::create(&path).expect("files can be made in a directory of ours"));
    wikipedia(shape).write(Format::Json, &mut file)?;
    file.into_inner().expect("what is buffered can be written");
    Ok(path)
}

/// Whether rows that are alike are combined when they come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollup {
    Off,
    On,
}

impl fmt::Display for Rollup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::On { "on" } else { "off" })
    }
}

const STRINGS: [&str; 15] = [
    "channel",
    "cityName",
    "comment",
    "countryIsoCode",
    "countryName",
    "isAnonymous",
    "isMinor",
    "isNew",
    "isRobot",
    "isUnpatrolled",
    "namespace",
    "page",
    "regionIsoCode",
    "regionName",
    "user",
];
const NUMBERS: [&str; 4] = ["metroCode", "added", "deleted", "delta"];

const TUTORIAL_STRINGS: [&str; 12] = [
    "page",
    "language",
    "user",
    "unpatrolled",
    "newPage",
    "robot",
    "anonymous",
    "namespace",
    "continent",
    "country",
    "region",
    "city",
];

/// How a file of the tutorial's shape is ingested, in Druid's JSON; every row stays as it is.
pub fn tutorial_spec(file: &Path) -> Value {
    let dimensions = TUTORIAL_STRINGS.into_iter().map(Value::from).collect();
    task(file, ("wikipedia", "timestamp"), dimensions, Rollup::Off)
}

/// How a file of the stream's shape is ingested, in Druid's JSON. Rollup leaves out the comments, and counts.
pub fn wikiticker_spec(file: &Path, rollup: Rollup) -> Value {
    let kept = STRINGS.into_iter().filter(|name| rollup == Rollup::Off || *name != "comment");
    let mut dimensions: Vec<Value> = kept.map(Value::from).collect();
    dimensions.push(json!({"type": "long", "name": "metroCode"}));
    task(file, ("wikiticker", "time"), dimensions, rollup)
}

/// A task that loads `file`; several segments a day, so that they are merged when queried.
fn task(file: &Path, (data_source, time): (&str, &str), dimensions: Vec<Value>, rollup: Rollup) -> Value {
    let sum = |name: &&str| json!({"type": "longSum", "name": name, "fieldName": name});
    let mut metrics: Vec<Value> = NUMBERS[1..].iter().map(sum).collect();
    if rollup == Rollup::On {
        metrics.push(json!({"type": "count", "name": "count"}));
    }
    json!({
        "type": "index_parallel",
        "spec": {
            "dataSchema": {
                "dataSource": data_source,
                "timestampSpec": {"column": time, "format": "iso"},
                "dimensionsSpec": {"dimensions": dimensions},
                "metricsSpec": metrics,
                "granularitySpec": {
                    "type": "uniform",
                    "segmentGranularity": "DAY",
                    "queryGranularity": if rollup == Rollup::On { "MINUTE" } else { "NONE" },
                    "rollup": rollup == Rollup::On,
                },
            },
            "ioConfig": {
                "type": "index_parallel",
                "inputSource": {"type": "local", "files": [file]},
                "inputFormat": {"type": "json"},
                "appendToExisting": false,
            },
            "tuningConfig": {"type": "index_parallel", "maxRowsPerSegment": 1_000},
        },
    })
}

/// The rows of the real file, read by another road than ingestion's.
pub fn real_rows(file: &Path) -> Result<Vec<RecordBatch>, Box<dyn std::error::Error>> {
    let mut rows: Vec<Value> = Vec::new();
    for line in BufReader::new(GzDecoder::new(File::open(file)?)).lines() {
        rows.push(serde_json::from_str(&line?)?);
    }
    let times =
        rows.iter().map(|row| Ok(row["time"].as_str().ok_or("a row without time")?.parse::<Timestamp>()?.millis()));
    let times: Vec<i64> = times.collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let mut fields =
        vec![Field::new("__time", DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None), false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampMillisecondArray::from(times))];
    for name in STRINGS {
        fields.push(Field::new(name, DataType::Utf8View, true));
        columns.push(Arc::new(rows.iter().map(|row| text(&row[name])).collect::<StringViewArray>()));
    }
    for name in NUMBERS {
        fields.push(Field::new(name, DataType::Int64, true));
        columns.push(Arc::new(rows.iter().map(|row| row[name].as_i64()).collect::<Int64Array>()));
    }
    Ok(vec![RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?])
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
