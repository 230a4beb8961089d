//! `henge compact`.

use std::fmt::Write;

use clap::Args;
use henge_catalog::database::{CompactionReport, CompactionSpec, Opening};
use henge_engine::Result;
use henge_engine::ingest::Cancellation;
use henge_engine::model::Interval;

use super::remote::Login;
use super::{Interruption, Runtimes, open, remote, say};
use crate::config::{Config, Options};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  henge compact wikipedia
  henge compact wikipedia --interval 2013-08-01/2013-09-01 --max-rows-per-segment 2000000")]
pub(super) struct Compact {
    /// Data source whose segments are merged, granule by granule
    #[arg(value_name = "DATA_SOURCE")]
    data_source: String,
    /// Only granules within this part of time, START/END
    #[arg(long, value_name = "INTERVAL")]
    interval: Option<Interval>,
    /// Rows in one segment at most [default: 5000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_rows_per_segment: Option<u64>,
    /// Keep rows apart that agree in time and dimensions, also where they were combined before
    #[arg(long)]
    no_rollup: bool,
    #[command(flatten)]
    options: Options,
}

impl Compact {
    pub(super) fn run(self) -> Result<()> {
        let mut spec = CompactionSpec::new(self.data_source);
        spec.interval = self.interval;
        spec.max_rows_per_segment = self.max_rows_per_segment.unwrap_or(spec.max_rows_per_segment);
        spec.rollup = self.no_rollup.then_some(false);
        let config = self.options.resolve()?;
        let runtimes = Runtimes::new(config.threads.get())?;
        let report = runtimes.wire.block_on(compact(&config, spec));
        runtimes.end();
        say(summary(&report?).trim_end())
    }
}

async fn compact(config: &Config, spec: CompactionSpec) -> Result<CompactionReport> {
    let mut interruption = Interruption::listen()?;
    let database = match open(config).await? {
        Opening::Opened(database) => database,
        Opening::Held(holder) => {
            return remote::compact(&remote::http_address(config, &holder)?, &Login::local(config), &spec).await;
        }
    };
    let cancel = Cancellation::default();
    let work = database.compact(spec, None, cancel.clone());
    tokio::pin!(work);
    let report = tokio::select! {
        report = &mut work => report,
        () = interruption.wait() => {
            cancel.cancel();
            work.await
        }
    };
    database.close().await;
    report
}

fn summary(report: &CompactionReport) -> String {
    let CompactionReport {
        data_source,
        num_granules,
        segments_before,
        segments_after,
        rows_before,
        rows_after,
        skipped,
    } = report;
    let mut text = match num_granules {
        0 => format!("{data_source}: there is nothing to merge\n"),
        _ => format!(
            "{data_source}: {segments_before} segments of {num_granules} granules are {segments_after} now, \
             {rows_before} rows are {rows_after}\n"
        ),
    };
    for granule in skipped {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{} stays as it is: {}", granule.interval, granule.reason);
    }
    text
}
