//! `henge generate`.

use std::fs::File;
use std::io::{BufWriter, Stdout, Write};
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
    /// Write each edit as a record of JSON to a topic of Kafka, such as localhost:9092/edits
    #[arg(long, value_name = "BROKER/TOPIC", conflicts_with = "output")]
    to_kafka: Option<String>,
    /// File to write; standard output unless given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Rows of a generator that is not to end.
const NO_END: u64 = 1 << 40;
/// How often rows are written.
const TICK: Duration = Duration::from_millis(50);

/// Rows handed over at once where they are not to happen now.
const STEP: u64 = 10_000;

/// Where edits go that are not written to a file.
enum Destination {
    Standard(BufWriter<Stdout>),
    #[cfg(feature = "kafka")]
    Topic(crate::stream::kafka::TopicWriter),
}

impl Destination {
    fn of(edits: &Edits) -> Result<Self> {
        match &edits.to_kafka {
            None => Ok(Self::Standard(BufWriter::new(std::io::stdout()))),
            #[cfg(feature = "kafka")]
            Some(place) => crate::stream::kafka::TopicWriter::open(place).map(Self::Topic),
            #[cfg(not(feature = "kafka"))]
            Some(_) => {
                Err(Error::unsupported("this henge was built without `kafka`; build it with `--features kafka`"))
            }
        }
    }

    fn write(&mut self, text: &[u8]) -> Result<()> {
        match self {
            Self::Standard(out) => out.write_all(text).and_then(|()| out.flush()).map_err(cannot_write),
            #[cfg(feature = "kafka")]
            Self::Topic(topic) => topic.write_lines(text),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Standard(mut out) => out.flush().map_err(cannot_write),
            #[cfg(feature = "kafka")]
            Self::Topic(topic) => topic.flush(),
        }
    }
}

/// Writes edits to where they are not kept as a file: with `--rate` as they happen.
fn stream(wikipedia: &Wikipedia, edits: &Edits) -> Result<()> {
    if edits.format != Format::Json || edits.output.is_some() {
        return Err(Error::invalid_input("`--rate` and `--to-kafka` write JSON; leave `--format` and `--output` out"));
    }
    let mut out = Destination::of(edits)?;
    let (began, mut written, rows) = (Instant::now(), 0, wikipedia.options().rows);
    let mut text = Vec::new();
    while written < rows {
        let (due, time) = match edits.rate {
            None => ((written + STEP).min(rows), None),
            Some(rate) => {
                let due = began.elapsed().as_millis() * u128::from(rate.get()) / 1000;
                (u64::try_from(due).unwrap_or(rows).min(rows), Some(SystemClock.now()))
            }
        };
        if due > written {
            text.clear();
            wikipedia.write_json_at(written..due, time, &mut text)?;
            out.write(&text)?;
            written = due;
        }
        if time.is_some() {
            std::thread::sleep(TICK);
        }
    }
    out.end()
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
        if edits.rate.is_some() || edits.to_kafka.is_some() {
            return stream(&wikipedia, &edits);
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
