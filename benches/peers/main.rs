//! Henge's side of the comparison with other engines: see `run.py` beside this file.
//!
//! `generate` writes the Parquet file that all engines load.

// What this program prints is its protocol.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;

use henge_engine::ingest::source::wikipedia::{Format, Options, Shape, Wikipedia};

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    let arguments = Arguments::read();
    match arguments.mode.as_str() {
        "generate" => generate(&arguments),
        // `cargo test --all-targets` and a bare `cargo bench` run this without a mode: there is nothing to measure alone.
        _ => {
            println!("run python3 benches/peers/run.py");
            Ok(())
        }
    }
}

fn generate(arguments: &Arguments) -> Done {
    let mut options = Options::new(Shape::Wikiticker, arguments.number("--rows")?);
    options.days = u32::try_from(arguments.number("--days")?)?;
    let mut file = File::create(arguments.path("--out")?)?;
    Wikipedia::new(options)?.write(Format::Parquet, &mut file)?;
    Ok(file.sync_all()?)
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

    fn number(&self, name: &str) -> Done<u64> {
        Ok(self.value(name)?.parse()?)
    }

    fn path(&self, name: &str) -> Done<PathBuf> {
        Ok(self.value(name)?.into())
    }
}
