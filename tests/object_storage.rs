//! Ingestion from a real S3 server, and from the same by plain HTTP.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::database::python;
use crate::harness::{missing, root};

const EDITS: &str = "{\"time\":\"2015-09-12T00:00:00Z\",\"page\":\"Stonehenge\",\"added\":17}\n\
                     {\"time\":\"2015-09-13T01:00:00Z\",\"page\":\"Avebury\",\"added\":25}\n";

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::ignorable_test("object_storage::edits_are_ingested_from_s3_and_http", edits_are_ingested),
        Trial::ignorable_test("object_storage::a_fresh_directory_serves_segments_from_s3", deep_storage),
    ]
}

pub fn no_server() -> Result<Option<Completion>, Failed> {
    match Command::new(python()).args(["-c", "import moto, boto3"]).stderr(Stdio::null()).status()?.success() {
        true => Ok(None),
        false => missing("moto, an S3 server: `pip install 'moto[server]'`").map(Some),
    }
}

/// Segments are put into S3, and fetched by directories that never saw them.
fn deep_storage() -> Result<Completion, Failed> {
    if let Some(missing) = no_server()? {
        return Ok(missing);
    }
    let dir = tempfile::tempdir()?;
    let edits = dir.path().join("plain.json");
    std::fs::write(&edits, EDITS)?;
    let s3 = S3::start(&[edits.as_path()])?;
    let metadata = format!("sqlite://{}", dir.path().join("metadata.sqlite").display());
    let place = ["--metadata", &metadata, "--deep-storage", "s3://edits/deep/storage"];
    let henge = |data: &str, command: &str, arguments: &[&str]| {
        s3.henge(&dir.path().join(data), command, &[&place[..], arguments].concat())
    };
    let flags = ["--data-source", "wiki", "--time-column", "time", "s3://edits/days/plain.json"];
    henge("one", "ingest", &flags)?;
    let cached = |data: &str| std::fs::read_dir(dir.path().join(data).join("segment-cache")).map(Iterator::count);
    // With the directory of files being fetched.
    assert_eq!(cached("one")?, 3, "what was put there stays in the cache");
    assert!(!dir.path().join("one/segments").exists());

    let sql = ["SELECT SUM(added) FROM wiki", "--format", "csv"];
    std::fs::create_dir(dir.path().join("two"))?;
    assert_eq!(henge("two", "sql", &sql)?.lines().last(), Some("42"));
    assert_eq!(cached("two")?, 3, "what was read is in the cache");

    s3.empty("deep/")?;
    assert_eq!(henge("two", "sql", &sql)?.lines().last(), Some("42"), "the cache serves on");
    std::fs::create_dir(dir.path().join("three"))?;
    let refused = henge("three", "sql", &sql).expect_err("the objects are gone");
    assert!(refused.contains("there is no object `s3://edits/deep/storage/wiki/"), "{refused}");
    Ok(Completion::Completed)
}

fn edits_are_ingested() -> Result<Completion, Failed> {
    if let Some(missing) = no_server()? {
        return Ok(missing);
    }
    let dir = tempfile::tempdir()?;
    let (plain, zipped) = (dir.path().join("plain.json"), dir.path().join("zipped.json.gz"));
    std::fs::write(&plain, EDITS)?;
    let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(&zipped)?, flate2::Compression::fast());
    gzip.write_all(EDITS.as_bytes())?;
    gzip.finish()?;
    let s3 = S3::start(&[plain.as_path(), zipped.as_path()])?;

    let data = dir.path().join("data");
    s3.ingest(&data, "whole", &["s3://edits/days/plain.json", "s3://edits/days/zipped.json.gz"])?;
    s3.ingest(&data, "http", &[&format!("{}/edits/days/plain.json", s3.endpoint)])?;
    let refused = s3.ingest(&data, "none", &["s3://edits/days/absent.json"]).expect_err("there is no such object");
    assert!(refused.contains("s3://edits/days/absent.json"), "{refused}");

    let spec = dir.path().join("prefix.json");
    std::fs::write(
        &spec,
        r#"{"dataSchema": {"dataSource": "prefix", "timestampSpec": {"column": "time"},
                            "dimensionsSpec": {"dimensions": ["page", {"type": "long", "name": "added"}]},
                            "granularitySpec": {"rollup": false}},
            "ioConfig": {"inputSource": {"type": "s3", "prefixes": ["s3://edits/days/"]}, "inputFormat": {"type": "json"}}}"#,
    )?;
    s3.henge(&data, "ingest", &["--spec", &spec.to_string_lossy()])?;
    let sql = "SELECT (SELECT SUM(added) FROM whole), (SELECT SUM(added) FROM http), (SELECT SUM(added) FROM prefix)";
    let answer = s3.henge(&data, "sql", &[sql, "--format", "csv"])?;
    assert_eq!(answer.lines().last(), Some("84,42,84"), "{answer}");
    Ok(Completion::Completed)
}

/// Ends when dropped.
pub struct S3 {
    server: Child,
    from: std::sync::Mutex<BufReader<std::process::ChildStdout>>,
    endpoint: String,
}

impl S3 {
    pub fn start(files: &[&Path]) -> Result<Self, Failed> {
        let mut server = Command::new(python())
            .arg(root().join("tests/harness/s3.py"))
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut endpoint = String::new();
        let mut from = BufReader::new(server.stdout.take().expect("piped"));
        from.read_line(&mut endpoint)?;
        match endpoint.trim() {
            "" => Err("the S3 server ended before it said where it listens".into()),
            endpoint => Ok(Self { endpoint: endpoint.to_owned(), from: from.into(), server }),
        }
    }

    /// Removes all objects below a prefix.
    fn empty(&self, prefix: &str) -> Result<(), Failed> {
        let mut to = self.server.stdin.as_ref().ok_or("not piped")?;
        writeln!(to, "{prefix}")?;
        let mut answer = String::new();
        self.from.lock().expect("nothing panics with it").read_line(&mut answer)?;
        if answer.trim() == "emptied" { Ok(()) } else { Err(answer.into()) }
    }

    fn ingest(&self, data: &Path, data_source: &str, urls: &[&str]) -> Result<String, String> {
        let flags = ["--data-source", data_source, "--time-column", "time"];
        self.henge(data, "ingest", &[urls, &flags].concat())
    }

    /// Tells a process how to reach it.
    pub fn set(&self, command: &mut Command) {
        command.envs(self.variables());
    }

    /// The same, as variables of the environment.
    pub fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// Stops it, as one that hangs, or lets it go on.
    pub fn signal(&self, name: &str) -> Result<(), Failed> {
        crate::harness::process::signal(self.server.id(), name)
    }

    /// What the real binary prints, on standard output if it succeeds.
    fn henge(&self, data: &Path, command: &str, arguments: &[&str]) -> Result<String, String> {
        let mut henge = Command::new(env!("CARGO_BIN_EXE_henge"));
        henge.arg(command).args(arguments).arg("--data-dir").arg(data);
        self.set(&mut henge);
        let output = henge.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
