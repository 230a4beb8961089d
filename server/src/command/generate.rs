//! `henge generate`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use henge_catalog::{Clock, SystemClock};
use henge_engine::ingest::source::wikipedia::{Format, Options, SAMPLE_ROWS, Shape, Wikipedia};
use henge_engine::{Error, Result};

use super::cannot_write;

#[derive(Debug, Subcommand)]
pub(super) enum Generate {
    /// Edits of Wikipedia: the same options give the same rows everywhere
    Wikipedia(Edits),
}

#[derive(Args, Debug)]
pub(super) struct Edits {
    /// Columns: `tutorial` (Druid's tutorial of 2013) or `wikiticker` (the stream of 2015)
    #[arg(long, default_value = "tutorial", value_parser = parse::<Shape>)]
    shape: Shape,
    /// How many edits [default: 100000, or no end with `--rate`]
    #[arg(long)]
    rows: Option<u64>,
    /// So many a second, as if they happened now; only as JSON
    #[arg(long, value_name = "EDITS")]
    rate: Option<std::num::NonZeroU64>,
    /// Over how many days
    #[arg(long, default_value_t = 1)]
    days: u32,
    /// Another seed gives other edits
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// `json` (one object a line), `csv` (with a header) or `parquet`
    #[arg(long, default_value = "json", value_parser = parse::<Format>)]
    format: Format,
    /// File to write; standard output unless given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Rows of a generator that is not to end.
const NO_END: u64 = 1 << 40;
/// How often rows are written.
const TICK: Duration = Duration::from_millis(50);

/// Writes edits as they happen.
fn live(wikipedia: &Wikipedia, rate: u64, edits: &Edits) -> Result<()> {
    if edits.format != Format::Json || edits.output.is_some() {
        return Err(Error::invalid_input(
            "`--rate` writes JSON to standard output; leave `--format` and `--output` out",
        ));
    }
    let (began, mut written, rows) = (Instant::now(), 0, wikipedia.options().rows);
    let mut out = BufWriter::new(std::io::stdout());
    while written < rows {
        let due = u64::try_from(began.elapsed().as_millis() * u128::from(rate) / 1000).unwrap_or(rows).min(rows);
        if due > written {
            wikipedia.write_json_at(written..due, Some(SystemClock.now()), &mut out)?;
            out.flush().map_err(cannot_write)?;
            written = due;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

fn parse<T: std::str::FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let Self::Wikipedia(edits) = self;
        let rows = edits.rows.unwrap_or(if edits.rate.is_some() { NO_END } else { SAMPLE_ROWS });
        let options = Options { days: edits.days, seed: edits.seed, ..Options::new(edits.shape, rows) };
        let wikipedia = Wikipedia::new(options)?;
        if let Some(rate) = edits.rate {
            return live(&wikipedia, rate.get(), &edits);
        }
        let Some(path) = edits.output else {
            let mut out = BufWriter::new(std::io::stdout());
            return wikipedia.write(edits.format, &mut out).and_then(|()| out.flush().map_err(cannot_write));
        };
        let failed = |error: std::io::Error| {
            Error::invalid_input(format!("file `{}` cannot be written", path.display())).with_source(error)
        };
        let mut out = BufWriter::new(File::create(&path).map_err(failed)?);
        wikipedia.write(edits.format, &mut out)?;
        out.flush().map_err(failed)
    }
}
