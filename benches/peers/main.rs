//! Henge's side of the comparison with other engines: see `run.py` beside this file.
//!
//! | mode | what it does |
//! |---|---|
//! | `generate` | writes the Parquet file that all engines load |
//! | `load` | ingests it into a data directory |
//! | `ask` | answers queries through the Rust API |
//! | `serve` | starts the real `henge server` and answers queries through the PostgreSQL protocol |
//!
//! `ask` and `serve` say `ready` with the process that does the work, then answer each line of SQL with a line of JSON:
//! `{"ms": …, "rows": [[…]]}` or `{"error": …}`.

// What this program prints is its protocol.
#![allow(clippy::print_stdout)]

mod embedded;
mod wire;

use std::error::Error;
use std::fs::File;
use std::io::BufRead;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use henge_engine::ingest::source::wikipedia::{Format, Options, Shape, Wikipedia};

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    let arguments = Arguments::read();
    match arguments.mode.as_str() {
        "generate" => generate(&arguments),
        "load" => {
            let granularity = arguments.value("--granularity").unwrap_or("day");
            embedded::load(&arguments.path("--data-dir")?, &arguments.path("--parquet")?, granularity)
        }
        "ask" => embedded::ask(&arguments.path("--data-dir")?, arguments.number("--threads")?),
        "serve" => wire::serve(&arguments.path("--data-dir")?, arguments.number("--threads")?),
        // `cargo test --all-targets` and a bare `cargo bench` run this without a mode: there is nothing to measure alone.
        _ => {
            println!("run python3 benches/peers/run.py");
            Ok(())
        }
    }
}

fn generate(arguments: &Arguments) -> Done {
    let mut options = Options::new(Shape::Wikiticker, arguments.number("--rows")?);
    options.days = arguments.number("--days")?;
    let mut file = File::create(arguments.path("--out")?)?;
    Wikipedia::new(options)?.write(Format::Parquet, &mut file)?;
    Ok(file.sync_all()?)
}

/// Rows as text, `None` for null.
type Rows = Vec<Vec<Option<String>>>;

/// Answers the SQL on standard input until it ends.
fn answer(process: u32, mut ask: impl FnMut(&str) -> Done<Rows>) -> Done {
    println!("ready {process}");
    for line in std::io::stdin().lock().lines() {
        let started = Instant::now();
        let reply = match ask(&line?) {
            Ok(rows) => serde_json::json!({ "ms": started.elapsed().as_secs_f64() * 1e3, "rows": rows }),
            Err(error) => serde_json::json!({ "error": error.to_string() }),
        };
        println!("{reply}");
    }
    Ok(())
}

/// A mode, then pairs of a name and a value.
struct Arguments {
    mode: String,
    rest: Vec<String>,
}

impl Arguments {
    fn read() -> Self {
        // Cargo adds `--bench`.
        let mut all = std::env::args().skip(1).filter(|argument| argument != "--bench");
        Self { mode: all.next().unwrap_or_default(), rest: all.collect() }
    }

    fn value(&self, name: &str) -> Done<&str> {
        let at = self.rest.iter().position(|argument| argument == name).ok_or(format!("{name} is missing"))?;
        Ok(self.rest.get(at + 1).ok_or(format!("{name} wants a value"))?)
    }

    fn number<T: FromStr<Err: Error + 'static>>(&self, name: &str) -> Done<T> {
        Ok(self.value(name)?.parse()?)
    }

    fn path(&self, name: &str) -> Done<PathBuf> {
        Ok(self.value(name)?.into())
    }
}
