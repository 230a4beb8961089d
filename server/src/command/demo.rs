//! `henge demo`.

use arrow::array::RecordBatch;
use clap::Args;
use henge_catalog::Database;
use henge_catalog::database::{Existing, IngestRun, Opening};
use henge_engine::ingest::IngestionSpec;
use henge_engine::ingest::source::wikipedia::{Options as Edits, Wikipedia};
use henge_engine::{Error, Result};

use super::serve::addresses;
use super::{Interruption, Runtimes, held, print, say, sql};
use crate::config::{Config, Options};
use crate::role::all::{self, Taken};

const DATA_SOURCE: &str = "wikipedia";
const BATCH_ROWS: usize = 8192;

const EXAMPLE: &str = "SELECT page, SUM(\"count\") AS edits, SUM(added) AS added
FROM wikipedia
WHERE language = 'en' AND robot = 'false'
GROUP BY page
ORDER BY edits DESC, page
LIMIT 10";

/// The sample's schema: that of Druid's first tutorial.
const SPEC: &str = r#"{
  "dataSchema": {
    "dataSource": "wikipedia",
    "timestampSpec": { "column": "timestamp", "format": "auto" },
    "dimensionsSpec": { "dimensions": [
      "page", "language", "user", "unpatrolled", "newPage", "robot", "anonymous", "namespace", "continent", "country",
      "region", "city"
    ] },
    "metricsSpec": [
      { "type": "count", "name": "count" },
      { "type": "longSum", "name": "added", "fieldName": "added" },
      { "type": "longSum", "name": "deleted", "fieldName": "deleted" },
      { "type": "longSum", "name": "delta", "fieldName": "delta" }
    ],
    "granularitySpec": { "segmentGranularity": "day", "queryGranularity": "none", "rollup": true }
  },
  "ioConfig": {
    "type": "index_parallel",
    "inputSource": { "type": "inline", "data": "" },
    "inputFormat": { "type": "json" }
  }
}"#;

#[derive(Args, Debug)]
pub(super) struct Demo {
    /// End after the example instead of serving on
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    options: Options,
}

impl Demo {
    pub(super) fn run(self) -> Result<()> {
        let config = self.options.resolve()?;
        let runtimes = Runtimes::new(config.threads.get())?;
        let result = runtimes.wire.block_on(demonstrate(&config, self.once, &runtimes));
        runtimes.end();
        result
    }
}

async fn demonstrate(config: &Config, once: bool, runtimes: &Runtimes) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    let database = match super::open_to_serve(config).await? {
        Opening::Opened(database) => database,
        Opening::Held(holder) => return Err(held(config, &holder)),
    };
    let ended = async {
        interruption.wait().await;
        Err(Error::canceled("interrupted"))
    };
    let result = tokio::select! {
        loaded = load_sample(&database) => loaded,
        interrupted = ended => interrupted,
    };
    let result = match result {
        Ok(()) => serve(config, database.clone(), once, runtimes, interruption).await,
        Err(error) => Err(error),
    };
    database.close().await;
    result
}

async fn serve(
    config: &Config,
    database: Database,
    once: bool,
    runtimes: &Runtimes,
    mut interruption: Interruption,
) -> Result<()> {
    let server = all::start(config, database, Taken::Moves, runtimes.queries.handle()).await?;
    say(&addresses(&server, config))?;
    say(&format!("\n{EXAMPLE};\n"))?;
    let answer = sql::ask(&server.database, EXAMPLE, runtimes.queries.handle()).await?;
    answer.print(print::Format::Table)?;
    if !once {
        say("\nServing until you press Ctrl-C.")?;
        interruption.wait().await;
    }
    server.stop().await;
    Ok(())
}

/// Loads the sample, unless there is a data source of that name already.
async fn load_sample(database: &Database) -> Result<()> {
    if database.data_source(DATA_SOURCE).is_ok() {
        return Ok(());
    }
    say("Loading a day of Wikipedia edits …")?;
    let spec = IngestionSpec::from_json(SPEC)?;
    let batches = tokio::task::spawn_blocking(sample)
        .await
        .map_err(|error| Error::runtime_failure("the sample cannot be made").with_source(error))??;
    let report = database.ingest_batches(spec.data_schema, Existing::Replace, batches, IngestRun::default()).await?;
    say(&format!("Loaded {} edits.\n", report.rows_read()))
}

fn sample() -> Result<Vec<RecordBatch>> {
    Wikipedia::new(Edits::sample())?.batches(BATCH_ROWS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_the_columns_of_its_spec() {
        let spec = IngestionSpec::from_json(SPEC).unwrap();
        assert_eq!(spec.data_schema.data_source, DATA_SOURCE);
        let wikipedia = Wikipedia::new(Edits::sample()).unwrap();
        assert!(wikipedia.schema().field_with_name("timestamp").is_ok());
    }
}
