//! Henge inside a program: open a directory, ingest Arrow batches and a file, query both with SQL.
//!
//! `cargo run --example embed`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;

use henge::arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use henge::arrow::util::pretty::print_batches;
use henge::ingest::{IngestionSpec, SimpleIngestion};
use henge::model::DataSchema;
use henge::{Database, Existing, IngestRun};

/// 2013-08-01T00:00:00Z in milliseconds.
const DAY: i64 = 1_375_315_200_000;
const HOUR: i64 = 3_600_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let database = Database::open(directory.path().join("data")).await?;

    let schema = DataSchema::new("edits", "time");
    let report = database.ingest_batches(schema, Existing::Keep, [edits()?], IngestRun::default()).await?;
    println!("{} rows from memory, in {} segments", report.rows_written, report.segments_written);

    let file = directory.path().join("edits.json");
    std::fs::write(
        &file,
        "{\"time\":\"2013-08-01T22:30:00Z\",\"page\":\"Avebury\",\"added\":40}\n\
         {\"time\":\"2013-08-02T08:00:00Z\",\"page\":\"Stonehenge\",\"added\":5}\n",
    )?;
    let spec = IngestionSpec::simple(&SimpleIngestion {
        files: vec![file.display().to_string()],
        data_source: "edits".to_owned(),
        time_column: "time".to_owned(),
        append: true,
        ..SimpleIngestion::default()
    })?;
    let report = database.ingest(spec, IngestRun::default()).await?;
    println!("{} rows from a file, in {} segments", report.rows_written, report.segments_written);

    let pages = "SELECT page, COUNT(*) AS edits, SUM(added) AS added FROM edits GROUP BY page ORDER BY added DESC";
    print_batches(&database.sql(pages).await?)?;
    let days = "SELECT TIME_FLOOR(__time, 'P1D') AS day, SUM(added) AS added FROM edits GROUP BY 1 ORDER BY 1";
    print_batches(&database.sql(days).await?)?;
    let segments = "SELECT segment_id, num_rows, size FROM sys.segments ORDER BY segment_id";
    print_batches(&database.sql(segments).await?)?;

    // `henge server --data-dir` would serve this very directory now.
    database.close().await;
    Ok(())
}

fn edits() -> Result<RecordBatch, Box<dyn Error>> {
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(TimestampMillisecondArray::from(vec![DAY, DAY + HOUR, DAY + 2 * HOUR])) as _),
        ("page", Arc::new(StringArray::from(vec!["Stonehenge", "Druid", "Stonehenge"])) as _),
        ("added", Arc::new(Int64Array::from(vec![17, 25, 8])) as _),
    ])?)
}
