//! `henge import`.

use clap::{Args, Subcommand};
use henge_catalog::database::{ImportedDataSource, Opening};
use henge_catalog::store::MetadataUrl;
use henge_engine::{Error, Result};

use super::{Runtimes, held, open, say};
use crate::config::{Config, Options};

#[derive(Debug, Subcommand)]
pub(super) enum Import {
    /// Register the segments of an Apache Druid, and serve them from where it keeps them
    Druid(Box<Druid>),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is written to Druid's database or storage. Segments are fetched once, and kept in the data directory.
Run it again to add what Druid published since.

Example:
  henge import druid --from mysql://druid:diurd@localhost/druid --data-dir /var/lib/henge")]
pub(super) struct Druid {
    /// Druid's metadata database: mysql://USER:PASSWORD@HOST/DATABASE or postgres://…
    #[arg(long, value_name = "URL", env = "HENGE_IMPORT_FROM", hide_env_values = true)]
    from: String,
    /// The table with Druid's segments; in 2013 it was `segments`
    #[arg(long, value_name = "NAME", default_value = "druid_segments")]
    table: String,
    /// Import these only; repeat it for several
    #[arg(long = "data-source", value_name = "NAME")]
    data_sources: Vec<String>,
    #[command(flatten)]
    options: Options,
}

impl Import {
    pub(super) fn run(self) -> Result<()> {
        let Self::Druid(druid) = self;
        let from = druid.from.parse::<MetadataUrl>()?;
        let config = druid.options.resolve()?;
        let runtimes = Runtimes::new(config.threads.get())?;
        let imported = runtimes.wire.block_on(import(&config, &from, &druid.table, &druid.data_sources));
        runtimes.end();
        for line in imported?.iter().map(shown) {
            say(&line)?;
        }
        Ok(())
    }
}

async fn import(
    config: &Config,
    from: &MetadataUrl,
    table: &str,
    data_sources: &[String],
) -> Result<Vec<ImportedDataSource>> {
    let database = match open(config).await? {
        Opening::Opened(database) => database,
        Opening::Held(holder) => return Err(held(config, &holder)),
    };
    let imported = database.import_druid(from, table, data_sources).await;
    database.close().await;
    let imported = imported?;
    if imported.is_empty() {
        return Err(Error::not_found(format!("there are no used segments in `{table}`")));
    }
    Ok(imported)
}

fn shown(imported: &ImportedDataSource) -> String {
    let ImportedDataSource { data_source, num_segments, num_known, num_rows } = imported;
    format!("{data_source}: {num_segments} segments, of which {num_known} were there already; {num_rows} new rows")
}
