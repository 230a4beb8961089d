//! The real binary, driven by real clients.

mod compact;
mod coordinator;
mod crash;
mod demo;
mod embedding;
mod failpoint;
mod ingestion;
mod pipe;
mod psql;
mod push;
mod segment;
mod server;
mod task;

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

use crate::harness::door::{Door, Postgres, Protocol};
use crate::harness::process::{Ended, Server, henge, run};
use crate::harness::render::Row;
use crate::harness::{block_on, ensure};

pub fn trials() -> Vec<Trial> {
    let trials = [
        compact::trials(),
        coordinator::trials(),
        crash::trials(),
        demo::trials(),
        embedding::trials(),
        failpoint::trials(),
        ingestion::trials(),
        psql::trials(),
        push::trials(),
        segment::trials(),
        server::trials(),
        task::trials(),
    ];
    trials.into_iter().flatten().collect()
}

/// Three edits of one day, of which the sum of `added` is 7.
const DAY_ONE: &str = r#"{"time":"2013-08-01T01:00:00Z","page":"A","added":1}
{"time":"2013-08-01T02:00:00Z","page":"B","added":2}
{"time":"2013-08-01T23:00:00Z","page":"A","added":4}
"#;
/// One of the next day.
const DAY_TWO: &str = r#"{"time":"2013-08-02T01:00:00Z","page":"C","added":8}
"#;

/// A directory of a trial's own; the data directory is `data` in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Result<Self, Failed> {
        Ok(Self { dir: TempDir::new()? })
    }

    /// One with three edits in the data source `wiki`.
    fn with_day_one() -> Result<Self, Failed> {
        let place = Self::new()?;
        place.ingest(&place.file("one.json", DAY_ONE)?, &[])?.ok()?;
        Ok(place)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, Failed> {
        let path = self.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// `henge` with these arguments and this data directory.
    fn henge(&self, arguments: &[&str]) -> Command {
        let mut command = henge(arguments);
        command.arg("--data-dir").arg(self.data()).current_dir(self.path());
        command
    }

    /// `henge ingest` of a file into `wiki`, with more arguments.
    fn ingest(&self, file: &Path, arguments: &[&str]) -> Result<Ended, Failed> {
        run(self.ingestion(file, arguments))
    }

    fn ingestion(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut command = self.henge(&["ingest", "--data-source", "wiki", "--time-column", "time"]);
        command.args(arguments).arg(file);
        command
    }

    fn serve(&self) -> Result<Server, Failed> {
        Server::start(&self.data())
    }

    /// `henge sql`, as CSV without its header.
    fn sql(&self, query: &str) -> Result<Vec<String>, Failed> {
        let printed = run(self.henge(&["sql", "--format", "csv", query]))?.ok()?;
        Ok(printed.lines().skip(1).map(str::to_owned).collect())
    }

    /// Paths of all files of deep storage.
    fn segment_files(&self) -> Result<Vec<PathBuf>, Failed> {
        files_below(&self.data().join("segments"))
    }

    /// What is in the directory for work in progress.
    fn work_in_progress(&self) -> Result<Vec<PathBuf>, Failed> {
        files_below(&self.data().join("tmp"))
    }
}

/// None of a directory that is not there, or goes meanwhile.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files_below(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

/// What a server answers over a new connection.
fn ask(server: &Server, sql: &str) -> Result<Vec<Row>, Failed> {
    let answer = block_on(async {
        let mut door = Postgres::connect(server.pg, Protocol::Extended).await.map_err(|failed| message(&failed))?;
        door.ask(sql).await
    });
    Ok(answer.map_err(|error| format!("{sql}: {error}"))?)
}

fn message(failed: &Failed) -> String {
    failed.message().unwrap_or("no reason given").to_owned()
}

/// Fails unless the sum of `added`, and so the rows that are seen, is this.
fn sum_is(server: &Server, expected: i64) -> Result<(), Failed> {
    let answer = ask(server, "SELECT SUM(added) FROM wiki")?;
    ensure(answer == [[expected.to_string()]], || format!("the sum is {answer:?}, not {expected}"))
}
