//! What a cluster does while nothing goes wrong.

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::json;

use super::{Cluster, SUM, edits};
use crate::harness::database::{Database, python};
use crate::harness::process::{henge, run, until};
use crate::harness::servers::{Place, SECRET};
use crate::harness::{contains, ensure, missing, root};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("servers::life::what_is_ingested_is_loaded_and_answered", ingested),
        Trial::test("servers::life::f32_a_replacement_is_seen_as_a_whole", replaced),
        Trial::test("servers::life::strangers_are_not_let_in", strangers),
        Trial::test("servers::life::servers_are_restarted_one_by_one", rolled),
        Trial::ignorable_test("servers::life::the_example_runs_on_postgres", || example("postgres")),
        Trial::ignorable_test("servers::life::the_example_runs_on_mariadb", || example("mariadb")),
    ]
}

fn ingested() -> Result<(), Failed> {
    let cluster = Cluster::start(Place::new()?)?;
    let Cluster { broker, coordinator, historicals, place } = &cluster;
    // By way of the broker, which sends tasks on to who leads.
    let file = edits(place, "edits.json", 4, 3, 5)?;
    let (status, error) = broker.ingest("wiki", &file, false)?;
    ensure(status == "SUCCESS", || error.to_string())?;
    cluster.is_loaded()?;
    broker.becomes(SUM, "60")?;
    broker.becomes("SELECT COUNT(DISTINCT page) FROM wiki WHERE __time >= '2013-08-01 02:00'", "3")?;

    for (sql, expected) in [
        ("SELECT COUNT(*) FROM sys.segments WHERE num_replicas = 2 AND is_available = 1", "4"),
        ("SELECT COUNT(*) FROM sys.server_segments", "8"),
        ("SELECT COUNT(*) FROM sys.servers", "4"),
        ("SELECT COUNT(*) FROM sys.servers WHERE server_type = 'historical' AND current_size > 0", "2"),
        ("SELECT server_type FROM sys.servers WHERE is_leader = 1", "coordinator"),
        ("SELECT COUNT(*) FROM sys.tasks WHERE status = 'SUCCESS'", "1"),
    ] {
        broker.becomes(sql, expected)?;
    }
    let api = |path: &str| coordinator.ask(&format!("/druid/coordinator/v1/{path}"), None);
    let (_, leader) = broker.ask("/druid/coordinator/v1/leader", None)?;
    ensure(leader == format!("http://{}", coordinator.name()), || leader.to_string())?;
    let (_, servers) = api("servers?simple")?;
    ensure(servers.as_array().is_some_and(|s| s.len() == 2), || servers.to_string())?;
    let (_, segments) = api(&format!("servers/{}/segments", historicals[0].name()))?;
    ensure(segments.as_array().is_some_and(|s| s.len() == 4), || segments.to_string())?;
    let (_, described) = api("datasources/wiki")?;
    ensure(described["tiers"]["_default_tier"]["segmentCount"] == 8, || described.to_string())?;
    let (_, queue) = api("loadqueue?simple")?;
    ensure(queue[historicals[0].name()]["segmentsToLoad"] == 0, || queue.to_string())?;
    let (_, page) = coordinator.ask("/", None)?;
    contains(page.as_str().unwrap_or_default(), &["Is it loaded?", "wiki", "100.0 %", &historicals[0].name()])?;
    let (status, words) = historicals[0].ask("/druid/v2/sql", Some(&json!({"query": "SELECT 1"})))?;
    ensure(status == 404 && words.to_string().contains("ask a broker"), || words.to_string())?;
    let (status, words) = broker.ask("/druid/v2/sql", Some(&json!({"query": "SELECT SUM(added) AS s FROM wiki"})))?;
    ensure(status == 200 && words == json!([{"s": 60}]), || words.to_string())?;

    // From the command line, to whoever leads.
    let mut command = henge(&["ingest", "--server", &broker.name(), "--data-source", "wiki", "--time-column", "time"]);
    command.args(["--segment-granularity", "hour", "--append", "--dimensions", "page,added:long"]).arg(&file);
    contains(&run(command)?.ok()?, &["Read 12 rows"])?;
    broker.becomes(SUM, "120")
}

/// While a day is replaced by another, whoever asks sees the one or the other, and at the end the other.
fn replaced() -> Result<(), Failed> {
    let cluster = Cluster::start(Place::new()?)?;
    cluster.load(6, 1)?;
    cluster.broker.becomes(SUM, "18")?;
    let file = edits(&cluster.place, "other.json", 6, 3, 10)?;
    let (status, error) = cluster.coordinator.ingest("wiki", &file, false)?;
    ensure(status == "SUCCESS", || error.to_string())?;
    let mut seen = Vec::new();
    until("the new day", || {
        let sum = cluster.broker.sql(SUM).map_err(Failed::from)?;
        if seen.last() != Some(&sum) {
            seen.push(sum.clone());
        }
        Ok((sum == "180").then_some(()))
    })?;
    ensure(seen == ["18", "180"] || seen == ["180"], || format!("{seen:?}"))?;
    // What is hidden is marked unused, and nobody serves it any more.
    cluster.broker.becomes("SELECT COUNT(*) FROM sys.segments", "6")?;
    for historical in &cluster.historicals {
        until("the old day to be dropped", || Ok((historical.ask("/status", None)?.1["segments"] == 6).then_some(())))?;
    }
    cluster.sum_is(180)
}

/// The script of `examples/cluster/`, with the database's and the S3 server's real programs.
fn example(kind: &str) -> Result<Completion, Failed> {
    if let Err(program) = Database::start(kind)? {
        return missing(program);
    }
    if let Some(missing) = crate::object_storage::no_server()? {
        return Ok(missing);
    }
    let mut command = std::process::Command::new(python());
    command.arg(root().join("examples/cluster/cluster.py")).args(["--henge", env!("CARGO_BIN_EXE_henge")]);
    command.args(["--metadata", kind, "--rows", "2000", "--once"]);
    let printed = run(command)?.ok()?;
    contains(&printed, &["(5 rows)", "segments", "(2 rows)", "status: http://"])?;
    Ok(Completion::Completed)
}

fn strangers() -> Result<(), Failed> {
    let place = Place::new()?;
    let historical = place.start("historical", "historical", &[])?;
    let order = json!({"epoch": 99, "load": [], "drop": []});
    for secret in [None, Some("only-for-test"), Some("only-for-tests-"), Some("")] {
        let (status, words) = historical.ask_with("/internal/v1/orders", Some(&order), secret)?;
        ensure(status == 401 && words.to_string().contains("secret"), || format!("{status}: {words}"))?;
        let feed = historical.ask_with("/internal/v1/segments?incarnation=x&seq=0", None, secret)?;
        ensure(feed.0 == 401, || format!("{feed:?}"))?;
    }
    let (status, words) = historical.ask_with("/internal/v1/orders", Some(&order), Some(SECRET))?;
    ensure(status == 200, || format!("{status}: {words}"))?;
    let old = json!({"epoch": 98, "load": [], "drop": []});
    let (status, words) = historical.ask_with("/internal/v1/orders", Some(&old), Some(SECRET))?;
    ensure(status == 409 && words.to_string().contains("too late"), || format!("{status}: {words}"))?;
    // Also after a restart.
    let ports = historical.kill()?;
    let historical = place.start_again("historical", "historical", &[], &ports)?;
    let (status, _) = historical.ask_with("/internal/v1/orders", Some(&old), Some(SECRET))?;
    ensure(status == 409, || status.to_string())?;

    let open =
        ["server", "--role", "historical", "--host", "0.0.0.0", "--metadata", "sqlite:///x", "--deep-storage", "/y"];
    let refused = run(henge(&open))?.failed_with(2)?;
    contains(&refused, &["--cluster-secret"])?;
    let both = ["server", "--role", "realtime,historical", "--metadata", "sqlite:///x", "--deep-storage", "/y"];
    contains(&run(henge(&both))?.failed_with(2)?, &["each role a process"])
}

/// Every server ends when it is asked to and comes back, while queries are asked: all answers are right.
fn rolled() -> Result<(), Failed> {
    let mut cluster = Cluster::start(Place::new()?)?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    let place = &cluster.place;
    for number in 0..2 {
        let old = cluster.historicals.remove(number);
        let asked = std::thread::scope(|scope| {
            let broker = &cluster.broker;
            let asking = scope.spawn(move || (0..30).map(|_| broker.sql(SUM)).collect::<Vec<_>>());
            let ended = old.end();
            (ended, asking.join())
        });
        let (ports, status) = asked.0?;
        ensure(status.success(), || status.to_string())?;
        let answers = asked.1.map_err(|_| "the asking thread panicked")?;
        let wrong = answers.iter().find(|answer| answer.as_deref() != Ok("60"));
        ensure(wrong.is_none(), || format!("{wrong:?}"))?;
        let again = place.start_again(&format!("historical-{number}"), "historical", super::HISTORICAL, &ports)?;
        cluster.historicals.insert(number, again);
        cluster.broker.becomes("SELECT COUNT(*) FROM sys.server_segments", "8")?;
        cluster.sum_is(60)?;
    }
    let (_, status) = cluster.coordinator.end()?;
    ensure(status.success(), || status.to_string())?;
    let (_, status) = cluster.broker.end()?;
    ensure(status.success(), || status.to_string())?;
    let broker = place.start("broker", "broker", &[])?.ready()?;
    // Without any coordinator, and just started.
    let found = broker.sql(SUM);
    ensure(found.as_deref() == Ok("60"), || format!("{found:?}"))
}
