//! The real binary on the metadata and deep storage of a Druid: genuine segments, real databases, a real S3 server.

use std::path::{Path, PathBuf};

use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::database::Database;
use crate::harness::process::{Server, henge, run};
use crate::harness::{contains, ensure, missing, shared};
use crate::metadata::becomes;
use crate::object_storage::{S3, no_server};

pub fn trials() -> Vec<Trial> {
    let trial =
        |name: &str, test: fn() -> Result<Completion, Failed>| Trial::ignorable_test(format!("druid::{name}"), test);
    vec![
        trial("the_tutorials_row_in_mysql_makes_a_segment_in_s3_answer", || tutorial("mariadb")),
        trial("the_tutorials_row_in_postgres_makes_a_local_segment_answer", || tutorial("postgres")),
        trial("a_druid_on_mysql_is_imported", || imported("mariadb")),
        trial("a_druid_on_postgres_is_imported", || imported("postgres")),
        trial("segments_are_looked_into_and_converted", segments),
    ]
}

/// The directory of genuine segments, which are no part of the repository.
fn genuine() -> Option<PathBuf> {
    shared("data/druid-v9")
}

const START: &str = "2014-10-22T00:00:00.000Z";
const END: &str = "2014-10-23T00:00:00.000Z";
const VERSION: &str = "2015-07-15T22:02:40.171Z";
const SUM: &str = "SELECT COUNT(*) || ' ' || SUM(visited_sum) || ' ' || MIN(host) FROM testds";
const ANSWER: &str = "3 450 a.example.com";

/// A row as the tutorial of 2013 inserted it, of the genuine `test-segment`.
fn insert(database: &Database, table: &str, data_source: &str, load_spec: &str) -> String {
    let id = format!("{data_source}_{START}_{END}_{VERSION}");
    let payload = format!(
        r#"{{"dataSource":"{data_source}","interval":"{START}/{END}","version":"{VERSION}","loadSpec":{load_spec},"dimensions":"host","metrics":"visited_sum,unique_hosts","shardSpec":{{"type":"none"}},"binaryVersion":9,"size":4096,"identifier":"{id}"}}"#
    );
    let is_mysql = database.url.starts_with("mysql");
    let end_column = if is_mysql { "end" } else { "\"end\"" };
    let payload = if is_mysql { payload.replace('"', "\\\"") } else { payload };
    format!(
        "insert into {table} (id, dataSource, created_date, start, {end_column}, partitioned, version, used, payload) \
         values ('{id}', '{data_source}', '2015-07-15T22:03:00.000Z', '{START}', '{END}', '0', '{VERSION}', '1', '{payload}')"
    )
}

fn local(path: &Path) -> String {
    format!(r#"{{"type":"local","path":"{}"}}"#, path.display())
}

/// On MySQL as in the tutorial, the segment in S3; on PostgreSQL, on a local disk.
fn tutorial(kind: &str) -> Result<Completion, Failed> {
    let Some(genuine) = genuine() else {
        return Ok(Completion::ignored_with("shared/data/druid-v9 beside the repository"));
    };
    if let Some(missing) = no_server()? {
        return Ok(missing);
    }
    let database = match Database::start(kind)? {
        Ok(database) => database,
        Err(program) => return missing(program),
    };
    let zip = genuine.join("test-segment/index.zip");
    let before = std::fs::read(&zip)?;
    let s3 = S3::start(&[zip.as_path()])?;
    let dir = tempfile::tempdir()?;
    let mut command = henge(&["server", "--pg-port", "0", "--http-port", "0", "--metadata", &database.url]);
    command.arg("--data-dir").arg(dir.path().join("data"));
    s3.set(&mut command);
    let server = Server::spawn(command)?;
    let load_spec = match kind {
        "mariadb" => r#"{"type":"s3_zip","bucket":"edits","key":"days/index.zip"}"#.to_owned(),
        _ => local(&zip),
    };
    database.sql(&insert(&database, "segments", "testds", &load_spec))?;
    becomes(&server, SUM, ANSWER)?;
    becomes(&server, "SELECT visited_sum FROM testds WHERE host = 'b.example.com'", "150")?;
    database.sql(&insert(&database, "segments", "far", r#"{"type":"hdfs","path":"hdfs://n/0_index.zip"}"#))?;
    becomes(&server, "SELECT COUNT(*) FROM sys.segment_problems WHERE reason LIKE '%HDFS%'", "1")?;
    ensure(std::fs::read(&zip)? == before, || "Druid's own file was changed".to_owned())?;
    Ok(Completion::Completed)
}

/// Druid's own tables, as it creates them.
fn create(database: &Database) -> Result<(), Failed> {
    let (payload, boolean, end) = match database.url.starts_with("mysql") {
        true => ("LONGBLOB", "BOOLEAN", "`end`"),
        false => ("BYTEA", "BOOLEAN", "\"end\""),
    };
    database.sql(&format!(
        "CREATE TABLE druid_segments (id VARCHAR(255) PRIMARY KEY, dataSource VARCHAR(255) NOT NULL, \
         created_date VARCHAR(255) NOT NULL, start VARCHAR(255) NOT NULL, {end} VARCHAR(255) NOT NULL, \
         partitioned {boolean} NOT NULL, version VARCHAR(255) NOT NULL, used {boolean} NOT NULL, payload {payload} NOT NULL)"
    ))?;
    Ok(())
}

fn imported(kind: &str) -> Result<Completion, Failed> {
    let Some(genuine) = genuine() else {
        return Ok(Completion::ignored_with("shared/data/druid-v9 beside the repository"));
    };
    let database = match Database::start(kind)? {
        Ok(database) => database,
        Err(program) => return missing(program),
    };
    create(&database)?;
    database.sql(&insert(&database, "druid_segments", "testds", &local(&genuine.join("test-segment/index.zip"))))?;
    database.sql(&insert(&database, "druid_segments", "absent", &local(Path::new("/nowhere/index.zip"))))?;
    let before = database.sql("SELECT * FROM druid_segments ORDER BY id")?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let import = |more: &[&str]| {
        let mut command = henge(&["import", "druid", "--from", &database.url, "--data-dir"]);
        command.arg(&data).args(more);
        run(command)
    };
    contains(
        &import(&["--data-source", "testds"])?.ok()?,
        &["testds: 1 segments, of which 0 were there already; 3 new rows"],
    )?;
    contains(&import(&["--data-source", "testds"])?.ok()?, &["of which 1 were there already; 0 new rows"])?;
    contains(&import(&["--data-source", "none"])?.failed_with(2)?, &["there is no used segment of `none`"])?;
    contains(&import(&["--table", "a b"])?.failed_with(2)?, &["`a b` is no name of a table"])?;
    contains(&import(&[])?.failed_with(2)?, &["absent_2014-10-22", "there is no such"])?;
    let mut command = henge(&["sql", SUM, "--format", "csv", "--data-dir"]);
    command.arg(&data);
    contains(&run(command)?.ok()?, &[ANSWER])?;
    ensure(database.sql("SELECT * FROM druid_segments ORDER BY id")? == before, || {
        "Druid's table was changed".to_owned()
    })?;
    Ok(Completion::Completed)
}

fn segments() -> Result<Completion, Failed> {
    let Some(genuine) = genuine() else {
        return Ok(Completion::ignored_with("shared/data/druid-v9 beside the repository"));
    };
    let zip = genuine.join("nested_segment_v4/index.zip");
    let damaged = genuine.join("v9SegmentPersistDir/segmentWithDamagedFile");
    let segment = |arguments: &[&str], paths: &[&Path]| {
        let mut command = henge(&[&["segment"], arguments].concat());
        command.args(paths);
        run(command)
    };
    contains(
        &segment(&["inspect"], &[&zip])?.ok()?,
        &["Druid's format 9, 1 rows", "roaring bitmaps", "documents v4 with 2 fields"],
    )?;
    contains(&segment(&["verify"], &[&zip])?.ok()?, &["whole"])?;
    contains(&segment(&["dump", "--column", "product"], &[&zip])?.ok()?, &[r#"{"product":"Keyboard"}"#])?;
    contains(&segment(&["inspect"], &[&damaged])?.ok()?, &["cannot be read: columns stored as `llll` are not known"])?;
    contains(&segment(&["verify"], &[&damaged])?.failed_with(2)?, &["`llll`", "`count`"])?;
    let dir = tempfile::tempdir()?;
    let to = dir.path().join("converted.henge");
    contains(&segment(&["convert"], &[&damaged, &to])?.failed_with(2)?, &["`count`"])?;
    ensure(!to.exists(), || "half a segment was left".to_owned())?;
    contains(&segment(&["convert", "--without", "count"], &[&damaged, &to])?.ok()?, &["1 rows", "all compared"])?;
    contains(&segment(&["dump"], &[&to])?.ok()?, &[r#""srcIP":"1.1.1.1","sum_bytes":9024,"sum_packets":20"#])?;
    contains(&segment(&["convert", "--without", "count"], &[&damaged, &to])?.failed_with(1)?, &["is there already"])?;
    Ok(Completion::Completed)
}
