//! Ingestion tasks of a cluster: who runs them, and what becomes of them when that one dies.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::{Cluster, SUM, edits};
use crate::harness::process::until;
use crate::harness::servers::{Node, Place};
use crate::harness::{contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("servers::task::indexers_run_tasks_and_one_that_dies_is_replaced", indexers),
        Trial::test("servers::task::partitions_are_merged_in_a_cluster", merged),
    ]
}

/// So many rows of one hour that reading them takes a while, in a debug build at least. Each adds 1.
fn many_rows(place: &Place, rows: u32) -> Result<PathBuf, Failed> {
    let mut text = String::new();
    for row in 0..rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, r#"{{"time":"2013-08-05T01:{:02}:00Z","page":"P{}","added":1}}"#, row % 60, row % 997);
    }
    let path = place.path("many.json");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// What is said of a task.
fn status(cluster: &Cluster, id: &str) -> Result<Value, Failed> {
    let (_, status) = cluster.broker.ask(&format!("/druid/indexer/v1/task/{id}/status"), None)?;
    Ok(status["status"].clone())
}

/// Waits until somebody runs a task. Returns who, by its port.
fn runs(cluster: &Cluster, id: &str) -> Result<u16, Failed> {
    until("somebody to run a task", || {
        let status = status(cluster, id)?;
        ensure(status["statusCode"] == "RUNNING", || status.to_string())?;
        Ok(status["location"]["port"].as_u64().and_then(|port| u16::try_from(port).ok()))
    })
}

/// The files in deep storage.
fn num_files(dir: &Path) -> Result<usize, Failed> {
    let mut count = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        count += if path.is_dir() { num_files(&path)? } else { 1 };
    }
    Ok(count)
}

fn indexers() -> Result<(), Failed> {
    let cluster = Cluster::with(Place::new()?, &[&[]])?;
    let mut indexers = (0..2)
        .map(|number| cluster.place.start(&format!("indexer-{number}"), "indexer", &[])?.ready())
        .collect::<Result<Vec<Node>, _>>()?;
    until("the indexers to be known", || {
        let known = cluster.broker.sql("SELECT COUNT(*) FROM sys.servers WHERE server_type = 'indexer'");
        Ok((known.as_deref() == Ok("2")).then_some(()))
    })?;
    let file = many_rows(&cluster.place, 150_000)?;
    let id = cluster.broker.hand_in("wiki", &file, false)?;
    // It runs on one of them, and whoever asks is told.
    let port = runs(&cluster, &id)?;
    let at = indexers.iter().position(|node| node.http.port() == port);
    let at = at.ok_or_else(|| format!("{port} is none of the indexers' ports"))?;
    until("its place in `sys.tasks`", || {
        let place = cluster.broker.sql("SELECT location FROM sys.tasks")?;
        Ok((place == indexers[at].name()).then_some(()))
    })?;
    let ports = indexers.remove(at).kill()?;
    // The other one begins it anew once it is certain that nobody runs it.
    let (ended, error) = cluster.broker.ended(&id)?;
    ensure(ended == "SUCCESS", || error.to_string())?;
    contains(&indexers[0].printed(), &["a task begins", "attempt=2"])?;
    cluster.broker.becomes(SUM, "150000")?;
    let segments = cluster.broker.sql("SELECT COUNT(*) FROM sys.segments")?;
    let files = num_files(&cluster.place.path("deep"))?;
    ensure(segments == files.to_string(), || format!("{files} files of {segments} segments"))?;
    let (code, reports) = cluster.broker.ask(&format!("/druid/indexer/v1/task/{id}/reports"), None)?;
    let processed = &reports["ingestionStatsAndErrors"]["payload"]["rowStats"]["processed"];
    ensure(code == 200 && *processed == 150_000, || reports.to_string())?;

    // One that ends in order hands its task back, and the other takes it at once.
    let again = cluster.place.start_again("indexer-again", "indexer", &[], &ports)?.ready()?;
    let first = indexers.remove(0);
    first.signal("STOP")?;
    let id = cluster.broker.hand_in("wiki", &file, true)?;
    ensure(runs(&cluster, &id)? == again.http.port(), || "somebody that hangs runs it".to_owned())?;
    first.signal("CONT")?;
    let began = Instant::now();
    let (_, code) = again.end()?;
    ensure(code.success(), || code.to_string())?;
    let (ended, error) = cluster.broker.ended(&id)?;
    ensure(ended == "SUCCESS", || error.to_string())?;
    ensure(began.elapsed() < Duration::from_secs(60), || format!("{:?}", began.elapsed()))?;
    cluster.broker.becomes(SUM, "300000")?;

    // What fails says why, and what is called off publishes nothing.
    let (ended, error) = cluster.broker.ingest("wiki", &cluster.place.path("nowhere.json"), true)?;
    ensure(ended == "FAILED", || ended.clone())?;
    contains(&error.to_string(), &["nowhere.json"])?;
    let id = cluster.broker.hand_in("wiki", &file, true)?;
    runs(&cluster, &id)?;
    let (code, words) = cluster.broker.ask(&format!("/druid/indexer/v1/task/{id}/shutdown"), Some(&json!({})))?;
    ensure(code == 200, || words.to_string())?;
    let (ended, error) = cluster.broker.ended(&id)?;
    ensure(ended == "FAILED" && error.to_string().contains("canceled"), || format!("{ended}: {error}"))?;
    until("the indexer to give it up", || {
        let printed = first.printed();
        Ok((printed.contains("its lease is lost") || printed.contains("a task failed")).then_some(()))
    })?;
    cluster.sum_is(300_000)?;
    let (code, words) = cluster.broker.ask("/druid/indexer/v1/task", Some(&json!({"type": "index_hadoop"})))?;
    ensure(code == 400 || code == 501, || format!("{code}: {words}"))?;
    contains(&words.to_string(), &["index_hadoop"])
}

/// Without an indexer the coordinator that leads runs tasks; one of them merges what was appended.
fn merged() -> Result<(), Failed> {
    let cluster = Cluster::with(Place::new()?, &[&[]])?;
    cluster.load(2, 5)?;
    let file = edits(&cluster.place, "more.json", 2, 3, 7)?;
    for _ in 0..2 {
        let (ended, error) = cluster.coordinator.ingest("wiki", &file, true)?;
        ensure(ended == "SUCCESS", || error.to_string())?;
    }
    cluster.broker.becomes(SUM, "114")?;
    cluster.broker.becomes("SELECT COUNT(*) FROM sys.segments WHERE is_available = 1", "6")?;
    let (code, words) =
        cluster.broker.ask("/druid/indexer/v1/task", Some(&json!({"type": "compact", "dataSource": "wiki"})))?;
    let id = words["task"].as_str().ok_or_else(|| format!("{code}: {words}"))?;
    let (ended, error) = cluster.broker.ended(id)?;
    ensure(ended == "SUCCESS", || error.to_string())?;
    // As long as it takes until the merged ones are served, every answer is right.
    until("two segments", || {
        cluster.sum_is(114)?;
        let segments = cluster.broker.sql("SELECT COUNT(*) FROM sys.segments")?;
        Ok((segments == "2").then_some(()))
    })?;
    cluster.sum_is(114)
}
