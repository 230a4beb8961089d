//! Servers that have too little of something: file descriptors, memory; and a broker that starts while another server
//! hangs. One cluster for all of it.

use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::{COORDINATOR, Cluster, HISTORICAL, LEADS, SUM};
use crate::harness::ensure;
use crate::harness::process::until;
use crate::harness::servers::{Node, Place};

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("servers::limits::f17_f20_f27_f30_servers_that_lack_something", lack)]
}

const HOURS: u32 = 120;
const ROWS: u32 = 400;

/// More segments than the first historical may open files.
fn start() -> Result<Cluster, Failed> {
    let place = Place::new()?;
    let coordinator = place.start("coordinator", "coordinator", COORDINATOR)?;
    let few_files = place.start_limited("historical-0", "historical", HISTORICAL, "ulimit -n 64")?;
    let other = place.start("historical-1", "historical", HISTORICAL)?;
    let broker = place.start("broker", "broker", &["--memory-limit", "64MB"])?.ready()?;
    let cluster = Cluster { place, coordinator, historicals: vec![few_files, other], broker };
    until("a leader", || Ok((cluster.coordinator.ask(LEADS, None)?.0 == 200).then_some(())))?;
    Ok(cluster)
}

fn num_files(dir: &Path) -> Result<usize, Failed> {
    let entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().filter(|entry| entry.path().is_file()).count())
}

fn lack() -> Result<(), Failed> {
    let cluster = start()?;
    let file = super::edits(&cluster.place, "edits.json", HOURS, ROWS, 1)?;
    let (status, error) = cluster.coordinator.ingest("wiki", &file, false)?;
    ensure(status == "SUCCESS", || error.to_string())?;
    let total = HOURS * ROWS;
    cluster.is_loaded()?;
    cluster.broker.becomes(SUM, &total.to_string())?;
    // F17: one historical alone serves all of it, with fewer file descriptors than segments.
    cluster.historicals[1].signal("STOP")?;
    cluster.broker.becomes("SELECT COUNT(*), SUM(added), COUNT(DISTINCT page) FROM wiki", &total.to_string())?;
    cluster.historicals[1].signal("CONT")?;
    ensure(cluster.historicals[0].ask("/status", None)?.1["segments"] == HOURS, || "some are elsewhere".to_owned())?;
    memory(&cluster, total)?;
    hostile(&cluster.broker)?;
    cluster.sum_is(total)?;
    hung(&cluster, total)
}

/// F27: what does not fit in memory is answered all the same or fails with a reason; what was spilled is removed.
fn memory(cluster: &Cluster, total: u32) -> Result<(), Failed> {
    let pairs = "SELECT COUNT(*) FROM (SELECT a.page AS x, a.__time AS t, b.__time AS u FROM wiki a JOIN wiki b ON a.page = b.page \
                 AND a.__time < b.__time WHERE a.page < 'P12' GROUP BY 1, 2, 3 ORDER BY 2, 3, 1)";
    match cluster.broker.sql(pairs) {
        Ok(count) => ensure(count.parse::<u64>().is_ok_and(|count| count > 0), || count.clone())?,
        Err(error) => {
            let is_clear = ["memory", "disk", "spill", "file"].iter().any(|word| error.to_lowercase().contains(word));
            ensure(is_clear, || error.clone())?;
        }
    }
    cluster.sum_is(total)?;
    let spill = cluster.place.path("broker/broker/tmp/spill");
    until("what was spilled to be removed", || {
        let left = std::fs::read_dir(&spill)?.collect::<Result<Vec<_>, _>>()?;
        Ok(left.iter().all(|dir| num_files(&dir.path()).unwrap_or(0) == 0).then_some(()))
    })
}

/// F30: statements that no person writes are refused or answered, in time, and nothing breaks.
fn hostile(broker: &Node) -> Result<(), Failed> {
    let list = (0..100_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let statements = [
        format!("SELECT '{}'", "x".repeat(10 << 20)),
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT COUNT(*) FROM wiki WHERE added IN ({list})"),
        vec!["SELECT 1"; 2_000].join(" UNION ALL "),
    ];
    for statement in statements {
        let (asked, shown) = (Instant::now(), statement[..40].to_owned());
        // Either will do; that it lives is asked after.
        let _ = broker.sql(&statement);
        ensure(asked.elapsed() < Duration::from_secs(60), || format!("{shown}: {:?}", asked.elapsed()))?;
        ensure(broker.ask("/status/health", None)?.0 == 200, || format!("{shown}: the broker is gone"))?;
    }
    Ok(())
}

/// F20: a broker that starts while a historical hangs is ready all the same, and right.
fn hung(cluster: &Cluster, total: u32) -> Result<(), Failed> {
    cluster.historicals[1].signal("STOP")?;
    let began = Instant::now();
    let broker = cluster.place.start("broker-2", "broker", &[])?.ready()?;
    let found = broker.sql(SUM);
    ensure(found.as_deref() == Ok(&total.to_string()), || format!("{found:?}"))?;
    ensure(began.elapsed() < Duration::from_secs(20), || format!("{:?}", began.elapsed()))?;
    cluster.historicals[1].signal("CONT")?;
    // By HTTP it can be said for how long to wait, and whether an answer may lack what is missing.
    for historical in &cluster.historicals {
        historical.signal("STOP")?;
    }
    let ask = |context: serde_json::Value| {
        broker.ask_for("/druid/v2/sql", &json!({"query": SUM, "resultFormat": "array", "context": context}))
    };
    let asked = Instant::now();
    let (status, _, words) = ask(json!({"timeout": 300}))?;
    ensure(status == 504, || format!("{status}: {words}"))?;
    ensure(asked.elapsed() < Duration::from_secs(2), || format!("{:?}", asked.elapsed()))?;
    let (status, _, words) = ask(json!({}))?;
    ensure(status == 503 && words.to_string().contains("wiki"), || format!("{status}: {words}"))?;
    let (status, headers, words) = ask(json!({"allowPartialResults": true}))?;
    ensure(status == 200 && words == json!([[null]]), || format!("{status}: {words}"))?;
    ensure(headers.get("x-partial").is_some_and(|value| value == "true"), || format!("{headers:?}"))?;
    let notice = headers.get("x-henge-notice").and_then(|value| value.to_str().ok()).unwrap_or_default();
    ensure(notice.contains("wiki") && notice.contains("120 segments"), || notice.to_owned())?;
    for historical in &cluster.historicals {
        historical.signal("CONT")?;
    }
    broker.becomes(SUM, &total.to_string())
}
