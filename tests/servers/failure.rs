//! What a cluster does when servers die, hang, or lose what they had. The numbers are those of the fault matrix.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};

use super::{COORDINATOR, Cluster, HISTORICAL, LEADS, SUM, edits};
use crate::harness::database::Database;
use crate::harness::process::until;
use crate::harness::servers::Place;
use crate::harness::{contains, ensure, missing};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("servers::failure::f01_f09_a_historical_is_killed_and_comes_back_with_all_it_had", killed),
        Trial::test("servers::failure::f02_a_historical_hangs", hung),
        Trial::test("servers::failure::f03_all_replicas_are_dead", all_dead),
        Trial::test("servers::failure::f10_f18_cached_files_are_damaged_and_stale", damaged),
        Trial::test("servers::failure::f12_the_cache_is_full", full),
        Trial::test("servers::failure::f56_f57_another_coordinator_takes_over", taken_over),
        Trial::ignorable_test("servers::failure::f62_the_metadata_database_is_away", away),
    ]
}

fn killed() -> Result<(), Failed> {
    let mut cluster = Cluster::start(Place::new()?)?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    let victim = cluster.historicals.remove(0);
    let answers = std::thread::scope(|scope| {
        let broker = &cluster.broker;
        let asking = (0..4).map(|_| scope.spawn(move || (0..25).map(|_| broker.sql(SUM)).collect::<Vec<_>>()));
        let asking = asking.collect::<Vec<_>>();
        let ports = victim.kill();
        (ports, asking.into_iter().filter_map(|asking| asking.join().ok()).flatten().collect::<Vec<_>>())
    });
    let (ports, answers) = (answers.0?, answers.1);
    let wrong = answers.iter().find(|answer| answer.as_deref() != Ok("60"));
    ensure(answers.len() == 100 && wrong.is_none(), || format!("{} answers, {wrong:?}", answers.len()))?;
    let began = Instant::now();
    cluster.sum_is(60)?;
    ensure(began.elapsed() < Duration::from_secs(1), || format!("{:?} after the kill", began.elapsed()))?;

    // It comes back with what it had: deep storage is away meanwhile, so nothing can be fetched.
    std::fs::rename(cluster.place.path("deep"), cluster.place.path("hidden"))?;
    let again = cluster.place.start_again("historical-0", "historical", HISTORICAL, &ports)?;
    until("all to be served again", || Ok((again.ask("/status", None)?.1["segments"] == 4).then_some(())))?;
    let other = cluster.historicals.remove(0);
    cluster.broker.becomes("SELECT COUNT(*) FROM sys.server_segments", "8")?;
    other.kill()?;
    cluster.sum_is(60)?;
    std::fs::rename(cluster.place.path("hidden"), cluster.place.path("deep"))?;
    Ok(())
}

fn hung() -> Result<(), Failed> {
    let cluster = Cluster::start(Place::new()?)?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    cluster.historicals[1].signal("STOP")?;
    let first = Instant::now();
    cluster.sum_is(60)?;
    let first = first.elapsed();
    until("the hung one to be suspected", || {
        let (_, server) = cluster
            .coordinator
            .ask(&format!("/druid/coordinator/v1/servers/{}", cluster.historicals[1].name()), None)?;
        Ok((server["health"] == "suspect").then_some(()))
    })?;
    let next = Instant::now();
    cluster.sum_is(60)?;
    let next = next.elapsed();
    cluster.historicals[1].signal("CONT")?;
    ensure(first < Duration::from_secs(3) && next < Duration::from_secs(3), || format!("{first:?}, then {next:?}"))?;
    for _ in 0..5 {
        cluster.sum_is(60)?;
    }
    Ok(())
}

fn all_dead() -> Result<(), Failed> {
    let mut cluster = Cluster::with(Place::new()?, &[&["--tier", "a"], &["--tier", "b"]])?;
    let rules = serde_json::json!([
        {"type": "loadByInterval", "interval": "2013-08-01T00/2013-08-01T02", "tieredReplicants": {"a": 1}},
        {"type": "loadForever", "tieredReplicants": {"b": 1}},
    ]);
    let (status, words) = cluster.coordinator.ask("/druid/coordinator/v1/rules/wiki", Some(&rules))?;
    ensure(status == 200, || words.to_string())?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    let ports = cluster.historicals.remove(0).kill()?;
    let refused = cluster.broker.sql(SUM).expect_err("two hours are nowhere");
    contains(&refused, &["2013-08-01T0"])?;
    let late = "SELECT SUM(added) FROM wiki WHERE __time >= '2013-08-01 02:00'";
    let found = cluster.broker.sql(late);
    ensure(found.as_deref() == Ok("30"), || format!("{found:?}"))?;
    // A broker that starts only now knows what is missing too.
    let fresh = cluster.place.start("broker-2", "broker", &[])?.ready()?;
    let refused = fresh.sql(SUM).expect_err("two hours are nowhere");
    contains(&refused, &["2013-08-01T0"])?;
    let flags = [&["--tier", "a"], HISTORICAL].concat();
    let _again = cluster.place.start_again("historical-0", "historical", &flags, &ports)?;
    cluster.broker.becomes(SUM, "60")?;
    fresh.becomes(SUM, "60")
}

/// The segment files in a historical's cache.
fn cached(cluster: &Cluster, number: usize) -> Result<Vec<PathBuf>, Failed> {
    let dir = cluster.place.path(&format!("historical-{number}")).join("historical/segment-cache");
    let entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

fn damaged() -> Result<(), Failed> {
    let mut cluster = Cluster::start(Place::new()?)?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    let victim = cluster.historicals.remove(0);
    let ports = victim.kill()?;
    let files = cached(&cluster, 0)?;
    ensure(files.len() == 4, || format!("{files:?}"))?;
    // One byte of each of two files, one cut, one gone.
    for file in &files[..2] {
        let mut bytes = std::fs::read(file)?;
        let at = bytes.len() / 3;
        bytes[at] ^= 0x20;
        std::fs::write(file, bytes)?;
    }
    let bytes = std::fs::read(&files[2])?;
    std::fs::write(&files[2], &bytes[..bytes.len() / 2])?;
    std::fs::remove_file(&files[3])?;
    let again = cluster.place.start_again("historical-0", "historical", HISTORICAL, &ports)?;
    until("the damage to be seen", || Ok(again.printed().contains("is damaged; it is fetched again").then_some(())))?;
    for _ in 0..20 {
        cluster.sum_is(60)?;
    }
    until("all to be whole again", || Ok((again.ask("/status", None)?.1["segments"] == 4).then_some(())))?;
    let other = cluster.historicals.remove(0);
    cluster.broker.becomes("SELECT COUNT(*) FROM sys.server_segments", "8")?;
    other.kill()?;
    cluster.sum_is(60)?;

    // What becomes unused while a historical is down is not served when it is back, and removed.
    let ports = again.kill()?;
    let unused = serde_json::json!({"interval": "2013-08-01T00/2013-08-01T03"});
    let (status, words) =
        cluster.coordinator.ask("/druid/coordinator/v1/datasources/wiki/markUnused", Some(&unused))?;
    ensure(status == 200, || words.to_string())?;
    let again = cluster.place.start_again("historical-0", "historical", HISTORICAL, &ports)?;
    cluster.broker.becomes(SUM, "15")?;
    until("the unused ones to be dropped", || Ok((again.ask("/status", None)?.1["segments"] == 1).then_some(())))?;
    until("their files to be removed", || Ok((cached(&cluster, 0)?.len() == 1).then_some(())))?;
    cluster.sum_is(15)
}

/// A cache of 3 kB and ten segments, of which each has some hundred bytes: what has no room is told, and nothing is lost.
fn full() -> Result<(), Failed> {
    let cluster = Cluster::with(Place::new()?, &[&["--segment-cache-size", "3KB"]])?;
    let file = edits(&cluster.place, "edits.json", 10, 3, 5)?;
    let (status, error) = cluster.coordinator.ingest("wiki", &file, false)?;
    ensure(status == "SUCCESS", || error.to_string())?;
    let unplaced = until("the lack of room to be told", || {
        let (_, page) = cluster.coordinator.ask("/", None)?;
        let (_, status) = cluster.coordinator.ask("/druid/coordinator/v1/loadqueue?simple", None)?;
        let idle = status[cluster.historicals[0].name()]["segmentsToLoad"] == 0;
        Ok((idle && page.to_string().contains("have no room anywhere")).then_some(()))
    });
    unplaced?;
    let bytes =
        cached(&cluster, 0)?.iter().map(|path| Ok(path.metadata()?.len())).collect::<Result<Vec<_>, Failed>>()?;
    ensure(bytes.iter().sum::<u64>() <= 3 << 10, || format!("{bytes:?}"))?;
    // A publication of which not all is loaded is not seen: it is not seen in part either.
    let asked = cluster.broker.sql(SUM).expect_err("nothing woke");
    contains(&asked, &["wiki"])?;
    let _room = cluster.place.start("historical-1", "historical", HISTORICAL)?;
    cluster.broker.becomes(SUM, "150")
}

fn taken_over() -> Result<(), Failed> {
    let mut cluster = Cluster::start(Place::new()?)?;
    cluster.load(2, 5)?;
    let second = cluster.place.start("coordinator-2", "coordinator", COORDINATOR)?;
    until("the second to know who leads", || {
        Ok((second.ask("/druid/coordinator/v1/leader", None)?.1 == format!("http://{}", cluster.coordinator.name()))
            .then_some(()))
    })?;
    ensure(second.ask(LEADS, None)?.0 == 404, || "two lead".to_owned())?;
    let first = std::mem::replace(&mut cluster.coordinator, second);
    // One that hangs: it must not do anything when it goes on.
    first.signal("STOP")?;
    let began = Instant::now();
    until("the second to lead", || Ok((cluster.coordinator.ask(LEADS, None)?.0 == 200).then_some(())))?;
    let took = began.elapsed();
    ensure(took < Duration::from_secs(20), || format!("{took:?}"))?;
    cluster.sum_is(30)?;
    first.signal("CONT")?;
    cluster.load(3, 7)?;
    cluster.broker.becomes(SUM, "63")?;
    until("the first to see that it does not lead", || Ok((first.ask(LEADS, None)?.0 == 404).then_some(())))?;
    contains(&first.printed(), &["does not lead any more"])
}

fn away() -> Result<Completion, Failed> {
    let mut database = match Database::start("postgres")? {
        Ok(database) => database,
        Err(program) => return missing(program),
    };
    let cluster = Cluster::start(Place::on(&database.url)?)?;
    cluster.load(2, 5)?;
    cluster.broker.becomes(SUM, "30")?;
    database.order("stop")?;
    for _ in 0..20 {
        cluster.sum_is(30)?;
    }
    let file = edits(&cluster.place, "more.json", 3, 3, 7)?;
    let refused = cluster.coordinator.ingest("wiki", &file, false);
    ensure(refused.is_err(), || format!("{refused:?}"))?;
    until("the leader to step back", || Ok((cluster.coordinator.ask(LEADS, None)?.0 == 404).then_some(())))?;
    cluster.sum_is(30)?;
    database.order("start")?;
    until("a leader again", || Ok((cluster.coordinator.ask(LEADS, None)?.0 == 200).then_some(())))?;
    cluster.load(3, 7)?;
    cluster.broker.becomes(SUM, "63")?;
    Ok(Completion::Completed)
}
