//! The data sets that tests ask about, as raw rows.
//!
//! | data source | what | rows |
//! |---|---|---|
//! | `wikipedia` | the tutorial's shape, generated | 5,000 over one day |
//! | `wikiticker` | the stream's shape, generated | 5,000 over three days |
//!
//! In SQL a raw row looks as it does when it was ingested without rollup: `__time` in milliseconds, flags as strings.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use henge_engine::ingest::source::wikipedia::{Options, Shape, Wikipedia};

pub const ROWS: u64 = 5_000;

/// A data source with its rows.
#[derive(Debug)]
pub struct DataSet {
    pub name: &'static str,
    pub batches: Vec<RecordBatch>,
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

fn raw(wikipedia: &Wikipedia) -> Vec<RecordBatch> {
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
