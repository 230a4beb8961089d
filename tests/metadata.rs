//! The real binary on real PostgreSQL and MariaDB servers as its metadata database.

use std::path::{Path, PathBuf};

use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;

use crate::harness::database::Database;
use crate::harness::door::{Door, Postgres, Protocol};
use crate::harness::process::{Server, henge, run, until};
use crate::harness::{block_on, contains, ensure, missing};

/// What is tested on a database server of its own.
type Test = fn(Database) -> Result<(), Failed>;

const TESTS: [(&str, Test); 4] = [
    ("a_fresh_data_directory_serves_what_is_published", fresh_directory),
    ("rows_inserted_by_hand_are_served_within_a_minute", by_hand),
    ("queries_go_on_while_the_database_is_down", down_and_back),
    ("of_two_servers_one_writes", one_writer),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in ["postgres", "mariadb"] {
        for (name, test) in TESTS {
            trials.push(Trial::ignorable_test(format!("metadata::{kind}::{name}"), move || on(kind, test)));
        }
    }
    trials
}

fn on(kind: &str, test: Test) -> Result<Completion, Failed> {
    match Database::start(kind)? {
        Ok(database) => test(database).map(|()| Completion::Completed),
        Err(program) => missing(program),
    }
}

/// Three edits of one day, of which the sum of `added` is 7.
const DAY: &str = "{\"time\":\"2013-08-01T01:00:00Z\",\"page\":\"A\",\"added\":1}\n\
                   {\"time\":\"2013-08-01T02:00:00Z\",\"page\":\"B\",\"added\":2}\n\
                   {\"time\":\"2013-08-01T23:00:00Z\",\"page\":\"A\",\"added\":4}\n";

/// Data directories on one metadata database and one deep storage.
struct Place {
    dir: TempDir,
    url: String,
}

impl Place {
    fn new(url: &str) -> Result<Self, Failed> {
        let place = Self { dir: TempDir::new()?, url: url.to_owned() };
        std::fs::write(place.path("day.json"), DAY)?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn henge(&self, data: &str, arguments: &[&str]) -> std::process::Command {
        let mut command = henge(arguments);
        command.arg("--data-dir").arg(self.path(data)).arg("--metadata").arg(&self.url);
        command.arg("--deep-storage").arg(self.path("deep"));
        command
    }

    fn serve(&self, data: &str) -> Result<Server, Failed> {
        Server::spawn(self.henge(data, &["server", "--pg-port", "0", "--http-port", "0"]))
    }

    /// Three more edits, of a sum of 7.
    fn ingest(&self, data: &str) -> Result<crate::harness::process::Ended, Failed> {
        let mut command = self.henge(data, &["ingest", "--data-source", "wiki", "--time-column", "time", "--append"]);
        command.arg(self.path("day.json"));
        run(command)
    }
}

/// What a server answers: one field of one row.
fn ask(server: &Server, sql: &str) -> Result<String, String> {
    block_on(async {
        let mut door =
            Postgres::connect(server.pg, Protocol::Extended).await.map_err(|failed| format!("{failed:?}"))?;
        let rows = door.ask(sql).await?;
        Ok(rows.first().and_then(|row| row.first()).cloned().unwrap_or_default())
    })
}

pub fn becomes(server: &Server, sql: &str, expected: &str) -> Result<(), Failed> {
    until(&format!("{sql} to be {expected}"), || Ok((ask(server, sql).as_deref() == Ok(expected)).then_some(())))
}

fn is(server: &Server, sql: &str, expected: &str) -> Result<(), Failed> {
    let found = ask(server, sql);
    ensure(found.as_deref() == Ok(expected), || format!("{sql}: {found:?} instead of {expected}"))
}

const SUM: &str = "SELECT SUM(added) FROM wiki";

fn fresh_directory(database: Database) -> Result<(), Failed> {
    let place = Place::new(&database.url)?;
    place.ingest("one")?.ok()?;
    let server = place.serve("one")?;
    is(&server, SUM, "7")?;
    place.ingest("one")?.ok()?;
    is(&server, SUM, "14")?;
    server.kill()?;
    let server = place.serve("one")?;
    is(&server, SUM, "14")?;
    let status = server.end_with("TERM")?;
    ensure(status.success(), || status.to_string())?;
    let server = place.serve("two")?;
    is(&server, SUM, "14")?;
    is(&server, "SELECT COUNT(*) FROM sys.tasks WHERE status = 'SUCCESS'", "2")
}

/// The tutorial of 2013, with a segment of our own: its row word for word on MySQL; on PostgreSQL `end` is a word of SQL
/// and wants quotes, and a text has no backslashes.
fn by_hand(database: Database) -> Result<(), Failed> {
    let place = Place::new(&database.url)?;
    let mut elsewhere = henge(&["ingest", "--data-source", "x", "--time-column", "time", "--data-dir"]);
    elsewhere.arg(place.path("elsewhere")).arg(place.path("day.json"));
    run(elsewhere)?.ok()?;
    let file = segment_below(&place.path("elsewhere/segments"))?.ok_or("no segment was made")?;
    let server = place.serve("one")?;
    database.sql(&tutorial(&database, "wiki", "2013-08-08T21:22:48.989Z", &file))?;
    database.sql(&tutorial(&database, "wiki", "2013-08-09T00:00:00.000Z", Path::new("/nowhere/index.zip")))?;
    let wrong = tutorial(&database, "wiki", "2013-08-10T00:00:00.000Z", &file).replace("loadSpec", "lodaSpec");
    database.sql(&wrong)?;
    becomes(&server, SUM, "7")?;
    becomes(&server, "SELECT COUNT(*) FROM sys.segment_problems", "2")?;
    let reasons = ask(&server, "SELECT string_agg(reason, ' / ') FROM sys.segment_problems")?;
    contains(&reasons, &["there is no such segment file", "loadSpec"])?;
    is(&server, "SELECT SUM(is_available) FROM sys.segments", "1")?;

    let version = "version = '2013-08-08T21:22:48.989Z'";
    database.sql(&format!("UPDATE segments SET used = false WHERE {version}"))?;
    becomes(&server, "SELECT COUNT(*) FROM sys.segments", "0")?;
    database.sql(&format!("UPDATE segments SET used = true WHERE {version}"))?;
    becomes(&server, SUM, "7")?;
    database.sql("DELETE FROM segments WHERE version > '2013-08-09'")?;
    becomes(&server, "SELECT COUNT(*) FROM sys.segment_problems", "0")?;
    place.ingest("one")?.ok()?;
    is(&server, SUM, "14")
}

pub fn segment_below(dir: &Path) -> Result<Option<PathBuf>, Failed> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => {
                if let Some(found) = segment_below(&path)? {
                    return Ok(Some(found));
                }
            }
            false => return Ok(Some(path)),
        }
    }
    Ok(None)
}

pub fn tutorial(database: &Database, data_source: &str, version: &str, file: &Path) -> String {
    let (start, end) = ("2013-08-01T00:00:00.000Z", "2013-08-02T00:00:00.000Z");
    let id = format!("{data_source}_{start}_{end}_{version}");
    let payload = format!(
        r#"{{\"dataSource\":\"{data_source}\",\"interval\":\"{start}/{end}\",\"version\":\"{version}\",\"loadSpec\":{{\"type\":\"local\",\"path\":\"{}\"}},\"dimensions\":\"page\",\"metrics\":\"added\",\"shardSpec\":{{\"type\":\"none\"}},\"binaryVersion\":9,\"size\":24664730,\"identifier\":\"{id}\"}}"#,
        file.display()
    );
    let is_mysql = database.url.starts_with("mysql");
    let end_column = if is_mysql { "end" } else { "\"end\"" };
    let payload = if is_mysql { payload } else { payload.replace('\\', "") };
    format!(
        "insert into segments (id, dataSource, created_date, start, {end_column}, partitioned, version, used, payload) \
         values ('{id}', '{data_source}', '2013-08-08T21:26:23.799Z', '{start}', '{end}', '0', '{version}', '1', \
         '{payload}')"
    )
}

fn down_and_back(mut database: Database) -> Result<(), Failed> {
    let place = Place::new(&database.url)?;
    let server = place.serve("one")?;
    place.ingest("one")?.ok()?;
    is(&server, SUM, "7")?;
    database.order("stop")?;
    is(&server, SUM, "7")?;
    let refused = place.ingest("one")?;
    ensure(!refused.status.success(), || "it was ingested into nowhere".to_owned())?;
    contains(&refused.err, &["metadata database", "cannot be reached", "try again"])?;
    is(&server, SUM, "7")?;
    database.order("start")?;
    until("an ingestion after the database is back", || Ok(place.ingest("one")?.status.success().then_some(())))?;
    is(&server, SUM, "14")
}

fn one_writer(database: Database) -> Result<(), Failed> {
    let place = Place::new(&database.url)?;
    let first = place.serve("one")?;
    let refused = run(place.henge("two", &["server", "--pg-port", "0", "--http-port", "0"]))?.failed_with(1)?;
    contains(&refused, &["another henge", "writes to this metadata database"])?;
    first.kill()?;
    // Until the lease of the one that was killed has run out.
    let second = place.serve("two")?;
    place.ingest("two")?.ok()?;
    is(&second, SUM, "7")
}
