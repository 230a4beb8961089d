//! Henge within this process, through its Rust API.

use std::num::NonZeroUsize;
use std::path::Path;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use henge::{Database, IngestRun};
use henge_engine::ingest::IngestionSpec;
use tokio::runtime::Runtime;

use crate::{Done, Rows, answer};

/// The columns that the peers load as well; every event is a row.
const SPEC: &str = r#"{
  "dataSchema": {
    "dataSource": "wikiticker",
    "timestampSpec": { "column": "time", "format": "auto" },
    "dimensionsSpec": { "dimensions": [
      "channel", "cityName", "countryName", "isAnonymous", "isMinor", "isNew", "isRobot", "isUnpatrolled", "namespace",
      "page", "regionName", "user"
    ] },
    "metricsSpec": [
      { "type": "longSum", "name": "added", "fieldName": "added" },
      { "type": "longSum", "name": "deleted", "fieldName": "deleted" },
      { "type": "longSum", "name": "delta", "fieldName": "delta" }
    ],
    "granularitySpec": { "segmentGranularity": "{granularity}", "queryGranularity": "none", "rollup": false }
  },
  "ioConfig": {
    "type": "index_parallel",
    "inputSource": { "type": "local", "files": ["{parquet}"] },
    "inputFormat": { "type": "parquet" }
  }
}"#;

/// Segments are cut by `granularity`, in Druid's spelling.
pub(crate) fn load(data_dir: &Path, parquet: &Path, granularity: &str) -> Done {
    let spec = SPEC.replace("{parquet}", &parquet.display().to_string()).replace("{granularity}", granularity);
    let spec = IngestionSpec::from_json(&spec)?;
    Runtime::new()?.block_on(async {
        let database = Database::open(data_dir).await?;
        let report = database.ingest(spec, IngestRun::default()).await?;
        println!("{} rows in {} segments", report.rows_written, report.segments_written);
        database.close().await;
        Ok(())
    })
}

pub(crate) fn ask(data_dir: &Path, threads: NonZeroUsize) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()?;
    let database = runtime.block_on(Database::builder(data_dir).threads(threads).open())?;
    answer(std::process::id(), |sql| {
        // On a worker of the runtime, as a server does: the thread that waits here would be one more.
        let (database, sql) = (database.clone(), sql.to_owned());
        rows(&runtime.block_on(runtime.spawn(async move { database.sql(&sql).await }))??)
    })
}

fn rows(batches: &[RecordBatch]) -> Done<Rows> {
    let mut rows = Rows::new();
    let options = FormatOptions::default();
    for batch in batches {
        let columns = batch.columns();
        let formatters =
            columns.iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(&formatters);
            rows.push(cells.map(|(c, f)| c.is_valid(row).then(|| f.value(row).to_string())).collect());
        }
    }
    Ok(rows)
}
