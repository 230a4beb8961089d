//! A tier whose historicals read segments on demand, from a deep storage that may be away.

use std::fmt::Write;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use super::{COORDINATOR, Cluster, HISTORICAL, LEADS, SUM};
use crate::harness::process::until;
use crate::harness::servers::{Node, Place};
use crate::harness::{contains, ensure};
use crate::object_storage::S3;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("servers::cold::columns_are_read_when_they_are_asked_for", local),
        Trial::ignorable_test("servers::cold::columns_are_read_from_s3_when_they_are_asked_for", s3),
    ]
}

const ROWS: u64 = 20_000;
const FLAGS: &[&str] = &["--on-demand", "1GB", "--segment-cache-size", "4MB"];

/// Edits with long names, of which each adds 1, in some hours of a day.
pub(super) fn long_edits(place: &Place, hours: u64, rows: u64) -> Result<std::path::PathBuf, Failed> {
    let (mut text, mut random) = (String::new(), 88_172_645_463_325_252_u64);
    for row in 0..rows {
        let mut page = String::new();
        for _ in 0..8 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            write!(page, "{random:016x}")?;
        }
        let (hour, minute) = (row % hours, row % 60);
        writeln!(text, r#"{{"time":"2013-08-01T{hour:02}:{minute:02}:00Z","page":"{page}","added":1}}"#)?;
    }
    let path = place.path("long.json");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn figures(historical: &Node) -> Result<Value, Failed> {
    Ok(historical.ask("/status", None)?.1["onDemand"].clone())
}

fn number(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or(u64::MAX)
}

fn start(place: Place) -> Result<Cluster, Failed> {
    let coordinator = place.start("coordinator", "coordinator", COORDINATOR)?;
    let historical = place.start("historical-0", "historical", &[FLAGS, HISTORICAL].concat())?;
    let broker = place.start("broker", "broker", &[])?.ready()?;
    let cluster = Cluster { place, coordinator, historicals: vec![historical], broker };
    until("a leader", || Ok((cluster.coordinator.ask(LEADS, None)?.0 == 200).then_some(())))?;
    let file = long_edits(&cluster.place, 2, ROWS)?;
    let (status, error) = cluster.coordinator.ingest("wiki", &file, false)?;
    ensure(status == "SUCCESS", || error.to_string())?;
    cluster.is_loaded()?;
    Ok(cluster)
}

/// What a few columns cost, and what another one then costs. `hide` takes deep storage away, and brings it back.
fn demanded(mut cluster: Cluster, hide: impl Fn(&Cluster, bool) -> Result<(), Failed>) -> Result<(), Failed> {
    cluster.broker.becomes(SUM, &ROWS.to_string())?;
    let size: u64 = cluster.broker.sql("SELECT SUM(size) FROM sys.segments")?.parse()?;
    let few = figures(&cluster.historicals[0])?;
    ensure(number(&few, "bytesRead") * 10 < size, || format!("{few} of {size} bytes"))?;
    let (_, server) =
        cluster.coordinator.ask(&format!("/druid/coordinator/v1/servers/{}", cluster.historicals[0].name()), None)?;
    ensure(server["maxSize"] == 1 << 30 && server["currSize"] == size, || server.to_string())?;

    // What was read is answered without deep storage; what was not is an error that says so, of that query alone.
    hide(&cluster, true)?;
    cluster.sum_is(u32::try_from(ROWS)?)?;
    let asked = Instant::now();
    let refused = cluster.broker.sql("SELECT COUNT(DISTINCT page) FROM wiki").expect_err("nobody has the pages");
    contains(&refused, &["read on demand cannot be read from deep storage"])?;
    ensure(asked.elapsed() < Duration::from_secs(40), || format!("{:?}", asked.elapsed()))?;
    cluster.sum_is(u32::try_from(ROWS)?)?;
    hide(&cluster, false)?;
    cluster.broker.becomes("SELECT COUNT(DISTINCT page) FROM wiki", &ROWS.to_string())?;
    let all = figures(&cluster.historicals[0])?;
    ensure(number(&all, "bytesRead") > size / 2, || format!("{all} of {size} bytes"))?;
    ensure(number(&all, "bytesCached") <= 4 << 20, || all.to_string())?;

    // It comes back with what it had read.
    let ports = cluster.historicals.remove(0).kill()?;
    let again = cluster.place.start_again("historical-0", "historical", &[FLAGS, HISTORICAL].concat(), &ports)?;
    cluster.broker.becomes(SUM, &ROWS.to_string())?;
    let none = figures(&again)?;
    ensure(number(&none, "bytesRead") == 0, || none.to_string())
}

fn local() -> Result<(), Failed> {
    demanded(start(Place::new()?)?, |cluster, hide| {
        let (here, hidden) = (cluster.place.path("deep"), cluster.place.path("hidden"));
        match hide {
            true => std::fs::rename(here, hidden)?,
            false => std::fs::rename(hidden, here)?,
        }
        Ok(())
    })
}

fn s3() -> Result<Completion, Failed> {
    if let Some(missing) = crate::object_storage::no_server()? {
        return Ok(missing);
    }
    let s3 = S3::start(&[])?;
    let place = Place::new()?.storing("s3://edits/cold", s3.variables());
    // It hangs: that is worse than an error.
    demanded(start(place)?, |_, hide| s3.signal(if hide { "STOP" } else { "CONT" }))?;
    Ok(Completion::Completed)
}
