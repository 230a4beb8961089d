//! An aggregate function of your own, over a table of Henge's: the geometric mean.
//!
//! `cargo run --example custom_aggregate`

use std::error::Error;
use std::sync::Arc;

use henge::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use henge::arrow::datatypes::{DataType, Float64Type};
use henge::arrow::util::pretty::print_batches;
use henge::datafusion::common::Result as DataFusionResult;
use henge::datafusion::logical_expr::{Accumulator, Volatility, create_udaf};
use henge::datafusion::scalar::ScalarValue;
use henge::model::DataSchema;
use henge::{Database, Existing, IngestRun, SessionOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let database = Database::open(directory.path()).await?;
    let schema = DataSchema::new("edits", "time");
    database.ingest_batches(schema, Existing::Keep, [edits()?], IngestRun::default()).await?;

    let session = database.session(SessionOptions::default());
    session.context().register_udaf(create_udaf(
        "geo_mean",
        vec![DataType::Float64],
        Arc::new(DataType::Float64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(GeoMean::default()))),
        Arc::new(vec![DataType::Float64, DataType::Float64]),
    ));
    let means = "SELECT page, geo_mean(added) AS mean FROM edits GROUP BY page ORDER BY page";
    print_batches(&session.sql(means).await?.collect().await?)?;
    database.close().await;
    Ok(())
}

/// The sum of the logarithms, and of how many values: both can be added up over segments.
#[derive(Debug, Default)]
struct GeoMean {
    logarithms: f64,
    count: f64,
}

impl Accumulator for GeoMean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.logarithms += value.ln();
            self.count += 1.0;
        }
        Ok(())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Ok(vec![self.logarithms.into(), self.count.into()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        self.logarithms += states[0].as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        self.count += states[1].as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
        Ok(())
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        let mean = (self.count > 0.0).then(|| (self.logarithms / self.count).exp());
        Ok(ScalarValue::Float64(mean))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

fn edits() -> Result<RecordBatch, Box<dyn Error>> {
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(TimestampMillisecondArray::from(vec![0, 1, 2, 3])) as _),
        ("page", Arc::new(StringArray::from(vec!["Stonehenge", "Druid", "Stonehenge", "Druid"])) as _),
        ("added", Arc::new(Int64Array::from(vec![2, 10, 8, 1000])) as _),
    ])?)
}
