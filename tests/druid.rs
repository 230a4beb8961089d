//! The real binary on the metadata and deep storage of a Druid: genuine segments, real databases, a real S3 server.

use std::path::{Path, PathBuf};

use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::database::Database;
use crate::harness::process::{Server, henge, run, until};
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
        trial("segments_are_converted_as_they_are_loaded_and_evicted_at_a_limit", loading),
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
    let dir = tempfile::tempdir()?;
    let files = not_zipped(&zip, dir.path())?;
    let s3 = S3::start(&[&[zip.as_path()], &files.iter().map(PathBuf::as_path).collect::<Vec<_>>()[..]].concat())?;
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
    let from = if kind == "mariadb" { "from=s3://edits/days/index.zip" } else { "from=/" };
    server.prints(&["INFO", "a segment was fetched and read", "testds_2014-10-22", from, "num_rows=3"])?;
    server.prints(&["WARN", "a segment was inserted by hand in the metadata database", "testds_2014-10-22"])?;
    server.prints(&["INFO", "served as the metadata database has it now", "testds", "segments=1"])?;
    for (data_source, key) in
        [("unzipped", "days/"), ("gzipped", "days/index.zip.gz"), ("single", "days/version.bin.gz")]
    {
        let load_spec = format!(r#"{{"type":"s3_zip","bucket":"edits","key":"{key}"}}"#);
        database.sql(&insert(&database, "segments", data_source, &load_spec))?;
    }
    becomes(&server, &SUM.replace("testds", "unzipped"), ANSWER)?;
    becomes(&server, &SUM.replace("testds", "gzipped"), ANSWER)?;
    becomes(
        &server,
        "SELECT COUNT(*) FROM sys.segment_problems WHERE reason LIKE '%a single file that is gzipped%'",
        "1",
    )?;
    database.sql(&insert(&database, "segments", "far", r#"{"type":"hdfs","path":"hdfs://n/0_index.zip"}"#))?;
    becomes(&server, "SELECT COUNT(*) FROM sys.segment_problems WHERE reason LIKE '%HDFS%'", "1")?;
    ensure(std::fs::read(&zip)? == before, || "Druid's own file was changed".to_owned())?;
    Ok(Completion::Completed)
}

/// The files of a zip, the zip gzipped, and one of the files gzipped.
fn not_zipped(zip: &Path, dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(zip)?)?;
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let to = dir.join(entry.name()?.as_ref());
        std::io::copy(&mut entry, &mut std::fs::File::create(&to)?)?;
        files.push(to);
    }
    for plain in [zip, &dir.join("version.bin")] {
        let to = dir.join(format!("{}.gz", plain.file_name().ok_or("no name")?.display()));
        let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(&to)?, flate2::Compression::fast());
        std::io::copy(&mut std::fs::File::open(plain)?, &mut gzip)?;
        gzip.finish()?;
        files.push(to);
    }
    Ok(files)
}

/// What is in a data directory's cache, by the ends of its names.
fn cached(data: &Path) -> Result<Vec<String>, Failed> {
    let entries = std::fs::read_dir(data.join("segment-cache"))?.collect::<std::io::Result<Vec<_>>>()?;
    let ends = entries.iter().filter_map(|entry| Some(entry.path().extension()?.to_string_lossy().into_owned()));
    let mut ends = ends.collect::<Vec<_>>();
    ends.sort();
    Ok(ends)
}

/// A server told to convert serves converted segments, also after a restart; one that cannot be is served as it is. With a
/// limit the cache keeps what was read last.
fn loading() -> Result<Completion, Failed> {
    let Some(genuine) = genuine() else {
        return Ok(Completion::ignored_with("shared/data/druid-v9 beside the repository"));
    };
    let database = match Database::start("postgres")? {
        Ok(database) => database,
        Err(program) => return missing(program),
    };
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let serve = |more: &[&str]| {
        let mut command = henge(&["server", "--pg-port", "0", "--http-port", "0", "--metadata", &database.url]);
        command.arg("--data-dir").arg(&data).args(more);
        Server::spawn(command)
    };
    let zip = genuine.join("test-segment/index.zip");
    let before = std::fs::read(&zip)?;
    let server = serve(&["--druid-convert", "testds, odd"])?;
    database.sql(&insert(&database, "segments", "testds", &local(&zip)))?;
    becomes(&server, SUM, ANSWER)?;
    server.prints(&["INFO", "a segment of Druid's was converted; all rows compared", "testds_2014-10-22"])?;
    becomes(&server, SUM, ANSWER)?;
    ensure(cached(&data)? == ["converted"], || format!("the cache holds {:?}", cached(&data)))?;
    let odd = genuine.join("v9SegmentPersistDir/segmentWithDamagedFile");
    database.sql(&damaged(&odd))?;
    becomes(&server, "SELECT SUM(sum_bytes) FROM odd", "9024")?;
    server.prints(&["WARN", "is not converted; it is served as it is", "odd_2018", "`count`"])?;
    becomes(&server, "SELECT SUM(sum_bytes) FROM odd", "9024")?;
    ensure(server.end_with("TERM")?.success(), || "the server did not end well".to_owned())?;

    let server = serve(&["--druid-convert", "*"])?;
    becomes(&server, SUM, ANSWER)?;
    ensure(cached(&data)? == ["converted", "druid"], || format!("the cache holds {:?}", cached(&data)))?;
    ensure(server.end_with("TERM")?.success(), || "the server did not end well".to_owned())?;

    // Not asked for any more: the original is fetched again. There is room for one of the two.
    let server = serve(&["--segment-cache-limit", "3KB"])?;
    for _ in 0..3 {
        becomes(&server, SUM, ANSWER)?;
        becomes(&server, "SELECT SUM(sum_bytes) FROM odd", "9024")?;
        until("a cache with one segment", || Ok((cached(&data)? == ["druid"]).then_some(())))?;
    }
    ensure(std::fs::read(&zip)? == before, || "Druid's own file was changed".to_owned())?;
    Ok(Completion::Completed)
}

/// A row of the genuine segment with a damaged column.
fn damaged(dir: &Path) -> String {
    let (start, end, version) = ("2018-01-01T00:00:00.000Z", "2019-01-01T00:00:00.000Z", "1");
    let id = format!("odd_{start}_{end}_{version}");
    let payload = format!(
        r#"{{"dataSource":"odd","interval":"{start}/{end}","version":"{version}","loadSpec":{},"shardSpec":{{"type":"none"}},"binaryVersion":9}}"#,
        local(dir)
    );
    format!(
        "insert into segments (id, dataSource, created_date, start, \"end\", partitioned, version, used, payload) \
         values ('{id}', 'odd', '{start}', '{start}', '{end}', '0', '{version}', '1', '{payload}')"
    )
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
