//! What a cluster does because somebody says so: rules, what is set, rows by hand.

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::json;

use super::{Cluster, SUM};
use crate::harness::database::Database;
use crate::harness::process::{henge, run, until};
use crate::harness::servers::{Node, Place};
use crate::harness::{contains, ensure, missing};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("servers::order::f21_rules_move_data_between_tiers_while_queries_go_on", tiers),
        Trial::test("servers::order::f60_a_slip_of_the_pen_takes_nothing_away", slip),
        Trial::test("servers::order::a_historical_is_emptied", emptied),
        Trial::ignorable_test("servers::order::a_row_by_hand_is_loaded", || by_hand("postgres")),
        Trial::ignorable_test("servers::order::a_row_by_hand_is_loaded_on_mariadb", || by_hand("mariadb")),
    ]
}

fn serves(historical: &Node, expected: u32) -> Result<(), Failed> {
    until(&format!("{expected} segments to be served"), || {
        Ok((historical.ask("/status", None)?.1["segments"] == expected).then_some(()))
    })
}

fn tiers() -> Result<(), Failed> {
    let cluster = Cluster::with(Place::new()?, &[&[], &["--tier", "hot"]])?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    serves(&cluster.historicals[0], 4)?;
    serves(&cluster.historicals[1], 0)?;
    let set = |tier: &str| {
        let rules = json!([{"type": "loadForever", "tieredReplicants": {tier: 1}}]);
        let (status, words) = cluster.coordinator.ask("/druid/coordinator/v1/rules/wiki", Some(&rules))?;
        ensure(status == 200, || words.to_string())
    };
    for (tier, full, empty) in [("hot", 1, 0), ("_default_tier", 0, 1), ("hot", 1, 0)] {
        set(tier)?;
        // As long as it takes, every answer is right.
        until("all to be moved", || {
            cluster.sum_is(60)?;
            let segments =
                |at: usize| Ok::<_, Failed>(cluster.historicals[at].ask("/status", None)?.1["segments"].clone());
            Ok((segments(full)? == 4 && segments(empty)? == 0).then_some(()))
        })?;
    }
    let (_, rules) = cluster.coordinator.ask("/druid/coordinator/v1/rules/wiki?full", None)?;
    ensure(rules.as_array().is_some_and(|rules| rules.len() == 2), || rules.to_string())?;
    let (_, history) = cluster.coordinator.ask("/druid/coordinator/v1/rules/wiki/history?count=2", None)?;
    ensure(history.as_array().is_some_and(|entries| entries.len() == 2), || history.to_string())
}

fn slip() -> Result<(), Failed> {
    let cluster = Cluster::with(Place::new()?, &[&[]])?;
    cluster.load(30, 1)?;
    cluster.broker.becomes(SUM, "90")?;
    let rules = json!([{"type": "dropForever"}]);
    let (status, words) = cluster.coordinator.ask("/druid/coordinator/v1/rules/wiki", Some(&rules))?;
    ensure(status == 409, || format!("{status}: {words}"))?;
    contains(&words.to_string(), &["30 of the 30 segments of `wiki`", "force=true"])?;
    cluster.sum_is(90)?;
    let (status, _) = cluster.coordinator.ask("/druid/coordinator/v1/rules/wiki?force=true", Some(&rules))?;
    ensure(status == 200, || status.to_string())?;
    cluster.broker.becomes("SELECT COUNT(*) FROM sys.segments", "0")?;
    serves(&cluster.historicals[0], 0)
}

fn emptied() -> Result<(), Failed> {
    let cluster = Cluster::start(Place::new()?)?;
    let rules = json!([{"type": "loadForever", "tieredReplicants": {"_default_tier": 1}}]);
    let (status, words) = cluster.coordinator.ask("/druid/coordinator/v1/rules/_default", Some(&rules))?;
    ensure(status == 200, || words.to_string())?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    let config = json!({"decommissioningNodes": [cluster.historicals[0].name()]});
    let (status, words) = cluster.coordinator.ask("/druid/coordinator/v1/config", Some(&config))?;
    ensure(status == 200, || words.to_string())?;
    until("one to be empty and the other full", || {
        cluster.sum_is(60)?;
        let segments = |at: usize| Ok::<_, Failed>(cluster.historicals[at].ask("/status", None)?.1["segments"].clone());
        Ok((segments(0)? == 0 && segments(1)? == 4).then_some(()))
    })?;
    let (_, config) = cluster.coordinator.ask("/druid/coordinator/v1/config", None)?;
    ensure(config["decommissioningNodes"][0] == cluster.historicals[0].name(), || config.to_string())?;
    let (status, _) =
        cluster.coordinator.ask("/druid/coordinator/v1/config", Some(&json!({"maxSegmentsToMoove": 1})))?;
    ensure(status == 400, || status.to_string())
}

/// The tutorial of 2013: a segment made elsewhere, and a row for it.
fn by_hand(kind: &str) -> Result<Completion, Failed> {
    let database = match Database::start(kind)? {
        Ok(database) => database,
        Err(program) => return missing(program),
    };
    let cluster = Cluster::start(Place::on(&database.url)?)?;
    let file = super::edits(&cluster.place, "edits.json", 1, 3, 5)?;
    let mut elsewhere = henge(&["ingest", "--data-source", "x", "--time-column", "time", "--data-dir"]);
    elsewhere.arg(cluster.place.path("elsewhere")).arg(file);
    run(elsewhere)?.ok()?;
    let segment = crate::metadata::segment_below(&cluster.place.path("elsewhere/segments"))?.ok_or("no segment")?;
    let row = |version: &str, file| crate::metadata::tutorial(&database, "wiki", version, file);
    database.sql(&row("2013-08-08T21:22:48.989Z", &segment))?;
    database.sql(&row("2013-08-09T00:00:00.000Z", std::path::Path::new("/nowhere/index.zip")))?;
    cluster.broker.becomes(SUM, "15")?;
    contains(&cluster.coordinator.printed(), &["was inserted by hand", "there is no such segment file"])?;
    let (_, page) = cluster.coordinator.ask("/", None)?;
    contains(page.as_str().unwrap_or_default(), &["is not served", "/nowhere/index.zip"])?;
    Ok(Completion::Completed)
}
