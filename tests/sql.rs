//! Every `tests/sql/**/*.slt` at every door.
//!
//! The format is sqllogictest's. Answers are compared cell by cell as PostgreSQL writes them, floats to six digits.
//! What a file expects is true of the raw rows: that door comes first, the others must agree. They stand for the raw
//! rows in DataFusion's tables, the same in segments, a database as a library, a broker with two workers that put groups
//! together on the broker or on the workers, and the real binary by both protocols.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use libtest_mimic::{Failed, Trial};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

use crate::harness::data::GENERATED;
use crate::harness::door::{Distributed, Door, Embedded, Postgres, Protocol, RawRows, Segments};
use crate::harness::{block_on, root};

type Opened = Result<Box<dyn Door>, Failed>;

const DOORS: [&str; 7] =
    ["raw_rows", "segments", "embedded", "cluster", "cluster_shuffled", "pgwire_simple", "pgwire_extended"];

async fn open(door: &str) -> Opened {
    Ok(match door {
        "raw_rows" => Box::new(RawRows::over(&GENERATED)),
        "segments" => Box::new(Segments::over(&GENERATED)),
        "embedded" => Box::new(Embedded::generated().await?),
        "cluster" => Box::new(Distributed::generated("SET henge.shuffle = off").await?),
        "cluster_shuffled" => Box::new(Distributed::generated("SET henge.shuffle = on").await?),
        "pgwire_simple" => Box::new(Postgres::generated(Protocol::Simple).await?),
        "pgwire_extended" => Box::new(Postgres::generated(Protocol::Extended).await?),
        other => return Err(format!("no door `{other}`").into()),
    })
}

pub fn trials() -> Vec<Trial> {
    let dir = root().join("tests/sql");
    let mut trials = Vec::new();
    for file in files(&dir) {
        let name = file.strip_prefix(&dir).expect("found in it").with_extension("").display().to_string();
        for door in DOORS {
            let file = file.clone();
            trials.push(Trial::test(format!("sql::{door}::{name}"), move || run(&file, door)));
        }
    }
    assert!(!trials.is_empty(), "no file in {}", dir.display());
    trials
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("tests/sql can be read") {
        let path = entry.expect("tests/sql can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn run(file: &Path, door: &'static str) -> Result<(), Failed> {
    block_on(async {
        let opened = || async move { open(door).await.map(Asked).map_err(|error| Refusal(failure(&error))) };
        let mut runner = Runner::new(opened);
        runner.with_column_validator(sqllogictest::runner::default_column_validator);
        runner.run_file_async(file).await.map_err(|error| Failed::from(error.display(false).to_string()))
    })
}

fn failure(failed: &Failed) -> String {
    failed.message().unwrap_or("no reason given").to_owned()
}

/// A door as sqllogictest wants it.
struct Asked(Box<dyn Door>);

#[async_trait]
impl AsyncDB for Asked {
    type Error = Refusal;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refusal> {
        let rows = self.0.ask(sql).await.map_err(Refusal)?;
        let width = rows.first().map_or(0, Vec::len);
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; width], rows })
    }

    async fn shutdown(&mut self) {}
}

/// What the door said instead of an answer.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}
