//! `henge generate`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
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
    /// How many edits
    #[arg(long, default_value_t = SAMPLE_ROWS)]
    rows: u64,
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

fn parse<T: std::str::FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let Self::Wikipedia(edits) = self;
        let options = Options { days: edits.days, seed: edits.seed, ..Options::new(edits.shape, edits.rows) };
        let wikipedia = Wikipedia::new(options)?;
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
