//! Henge's tables in a DataFusion session of your own, joined with your Parquet file. Filters are still answered from
//! the segments' dictionaries, and whole segments are passed over: `EXPLAIN` shows it.
//!
//! `cargo run --example datafusion_extension`

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use henge::arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use henge::arrow::util::pretty::print_batches;
use henge::datafusion::execution::SessionStateBuilder;
use henge::datafusion::parquet::arrow::ArrowWriter;
use henge::datafusion::prelude::{ParquetReadOptions, SessionContext};
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
    database.ingest_batches(schema, Existing::Keep, [edits()?], IngestRun::default()).await?;
    let authors = directory.path().join("authors.parquet");
    write_authors(&authors)?;

    // Your own session: Henge adds its functions and rules, and is one more catalog.
    let state = henge::install(SessionStateBuilder::new_with_default_features()).build();
    let context = SessionContext::new_with_state(state);
    context.register_catalog("henge", Arc::new(database.catalog()));
    let parquet = authors.to_str().ok_or("a path that is not UTF-8")?;
    context.register_parquet("authors", parquet, ParquetReadOptions::default()).await?;

    let joined = "SELECT a.country, COUNT(*) AS edits, SUM(e.added) AS added \
        FROM henge.druid.edits e JOIN authors a ON e.\"user\" = a.name \
        WHERE e.page = 'Stonehenge' AND e.__time < TIMESTAMP '2013-08-02 00:00:00' \
        GROUP BY a.country ORDER BY a.country";
    print_batches(&context.sql(joined).await?.collect().await?)?;

    // The scan says which filter it answers, and how many of the two segments it reads.
    print_batches(&context.sql(&format!("EXPLAIN {joined}")).await?.collect().await?)?;

    let aggregated = "SELECT page, SUM(added) FROM henge.druid.edits GROUP BY page";
    print_batches(&context.sql(&format!("EXPLAIN {aggregated}")).await?.collect().await?)?;
    database.close().await;
    Ok(())
}

fn edits() -> Result<RecordBatch, Box<dyn Error>> {
    let times = vec![DAY, DAY + HOUR, DAY + 2 * HOUR, DAY + 24 * HOUR];
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(TimestampMillisecondArray::from(times)) as _),
        ("page", Arc::new(StringArray::from(vec!["Stonehenge", "Druid", "Stonehenge", "Stonehenge"])) as _),
        ("user", Arc::new(StringArray::from(vec!["ann", "ann", "bert", "ann"])) as _),
        ("added", Arc::new(Int64Array::from(vec![17, 25, 8, 4])) as _),
    ])?)
}

fn write_authors(path: &Path) -> Result<(), Box<dyn Error>> {
    let authors = RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from(vec!["ann", "bert"])) as _),
        ("country", Arc::new(StringArray::from(vec!["Wales", "France"])) as _),
    ])?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, authors.schema(), None)?;
    writer.write(&authors)?;
    writer.close()?;
    Ok(())
}
