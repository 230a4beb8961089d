//! More of the fault matrix, with whole clusters: disks that are full, a server that comes and goes, clients that do not read, and more of them than a broker lets in.

use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::{Value, json};

use super::cold::long_edits;
use super::{COORDINATOR, Cluster, HISTORICAL, LEADS, SUM};
use crate::harness::process::until;
use crate::harness::servers::{Node, Place};
use crate::harness::small_disk::SmallDisk;
use crate::harness::{contains, ensure};
use crate::wire::Raw;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::ignorable_test("servers::matrix::f13_the_disk_of_the_cache_is_full", full_cache_disk),
        Trial::ignorable_test("servers::matrix::f28_the_disk_for_spilled_data_is_full", full_spill_disk),
        Trial::test("servers::matrix::f24_f29_clients_do_not_read_and_there_are_too_many", crowded),
        Trial::test("servers::matrix::f61_a_historical_comes_and_goes", flapping),
    ]
}

fn start(place: Place, historicals: &[&[&str]], broker: &[&str]) -> Result<Cluster, Failed> {
    let coordinator = place.start("coordinator", "coordinator", COORDINATOR)?;
    let historicals = historicals.iter().enumerate().map(|(number, flags)| {
        place.start(&format!("historical-{number}"), "historical", &[flags, HISTORICAL].concat())
    });
    let historicals = historicals.collect::<Result<Vec<_>, _>>()?;
    let broker = place.start("broker", "broker", broker)?.ready()?;
    let cluster = Cluster { place, coordinator, historicals, broker };
    until("a leader", || Ok((cluster.coordinator.ask(LEADS, None)?.0 == 200).then_some(())))?;
    Ok(cluster)
}

fn ingest(cluster: &Cluster, file: &Path) -> Result<(), Failed> {
    let (status, error) = cluster.coordinator.ingest("wiki", file, false)?;
    ensure(status == "SUCCESS", || error.to_string())
}

fn served(historical: &Node) -> Result<Value, Failed> {
    Ok(historical.ask("/status", None)?.1["segments"].clone())
}

/// How often a coordinator has had something loaded.
fn loads(coordinator: &Node) -> usize {
    coordinator.printed().matches("ordered to load").count()
}

/// The limit of the cache is far, and its file system is full: what does not fit is told, tried again later, and served by
/// others meanwhile.
fn full_cache_disk() -> Result<Completion, Failed> {
    let place = Place::new()?;
    let cache = place.path("small");
    let disk = match SmallDisk::mount(&cache, 48)? {
        Ok(disk) => disk,
        Err(missing) => return Ok(missing),
    };
    let flag = format!("{}=1GB", cache.display());
    let cluster = start(place, &[&["--segment-cache", &flag], &[]], &[])?;
    ingest(&cluster, &long_edits(&cluster.place, 10, 1_000)?)?;
    cluster.broker.becomes(SUM, "1000")?;
    until("all to be served by one, and some not by the other", || {
        let is_told = cluster.historicals[0].printed().contains("a segment cannot be loaded");
        Ok((is_told && served(&cluster.historicals[1])? == 10 && served(&cluster.historicals[0])? != 10).then_some(()))
    })?;
    contains(&cluster.historicals[0].printed(), &["No space left on device"])?;
    for _ in 0..10 {
        cluster.sum_is(1_000)?;
    }
    until("what was begun to be removed", || Ok((std::fs::read_dir(cache.join("tmp"))?.count() == 0).then_some(())))?;
    disk.grow(1_000)?;
    until("all to be served by both", || Ok((served(&cluster.historicals[0])? == 10).then_some(())))?;
    cluster.sum_is(1_000)?;
    Ok(Completion::Completed)
}

/// Groups that do not fit in 64 MB, of rows that the broker makes by itself.
const LARGE: &str = "SELECT COUNT(*) FROM (SELECT v::text || 'a text that is long enough to take some memory' AS t, \
                     COUNT(*) FROM generate_series(1, 1500000) AS g(v) GROUP BY 1) AS x";

fn full_spill_disk() -> Result<Completion, Failed> {
    let place = Place::new()?;
    let _disk = match SmallDisk::mount(&place.path("broker"), 4_000)? {
        Ok(disk) => disk,
        Err(missing) => return Ok(missing),
    };
    let cluster = start(place, &[&[]], &["--memory-limit", "64MB"])?;
    cluster.load(2, 5)?;
    cluster.broker.becomes(SUM, "30")?;
    let refused = cluster.broker.sql(LARGE).expect_err("it fits nowhere");
    contains(&refused, &["the disk for spilled data is full"])?;
    cluster.sum_is(30)?;
    let spill = cluster.place.path("broker/broker/tmp/spill");
    until("what was spilled to be removed", || {
        let left = std::fs::read_dir(&spill)?.collect::<Result<Vec<_>, _>>()?;
        let files = left.iter().map(|dir| std::fs::read_dir(dir.path()).map_or(0, Iterator::count));
        Ok((files.sum::<usize>() == 0).then_some(()))
    })?;
    Ok(Completion::Completed)
}

/// Millions of rows, the first of which are there at once.
const HUGE: &[u8] = b"SELECT a.*, b.*, c.*, d.* FROM wiki a, wiki b, wiki c, wiki d\0";
/// What clients that do not read may cost a broker, beside what it has.
const MORE: u64 = 128 << 20;

fn crowded() -> Result<(), Failed> {
    let limits = ["--max-queries", "2", "--max-waiting-queries", "3"];
    let cluster = start(Place::new()?, &[&[]], &limits)?;
    cluster.load(24, 5)?;
    cluster.broker.becomes(SUM, "360")?;
    let before = cluster.broker.memory()?;
    let pg = cluster.broker.pg.ok_or("a broker answers")?;
    let unread = || {
        let mut raw = Raw::connect(pg)?;
        raw.send(b'Q', HUGE)?;
        raw.until(b'D')?;
        Ok::<_, Failed>(raw)
    };
    let first = unread()?;
    for _ in 0..20 {
        let asked = Instant::now();
        cluster.sum_is(360)?;
        ensure(asked.elapsed() < Duration::from_secs(5), || format!("{:?}", asked.elapsed()))?;
    }
    let second = unread()?;
    let asking = json!({"query": SUM, "context": {"timeout": 200}});
    let (status, _, words) = cluster.broker.ask_for("/druid/v2/sql", &asking)?;
    ensure(status == 504, || format!("{status}: {words}"))?;
    // What reads no data source does not wait.
    for sql in ["SELECT 1", "SELECT COUNT(*) FROM sys.segments"] {
        ensure(cluster.broker.sql(sql).is_ok(), || format!("{sql} waits"))?;
    }
    let answers = std::thread::scope(|scope| {
        let broker = &cluster.broker;
        let waiting = (0..3).map(|_| scope.spawn(move || broker.sql(SUM))).collect::<Vec<_>>();
        let refused = until("no more to be let in", || {
            let (status, headers, words) = broker.ask_for("/druid/v2/sql", &asking)?;
            Ok((status == 429).then_some((headers, words)))
        });
        let healthy = Instant::now();
        let health = broker.ask("/status/health", None);
        let (health, took) = (health.map(|(status, _)| status), healthy.elapsed());
        let grown = broker.memory().map(|now| now.saturating_sub(before));
        drop((first, second));
        let answers = waiting.into_iter().filter_map(|waiting| waiting.join().ok()).collect::<Vec<_>>();
        (refused, health, took, grown, answers)
    });
    let (refused, health, took, grown, answers) = answers;
    let (headers, words) = refused?;
    ensure(headers.contains_key("retry-after"), || format!("{headers:?}"))?;
    contains(&words.to_string(), &["--max-queries", "3 wait already"])?;
    ensure(health? == 200 && took < Duration::from_millis(500), || format!("{took:?}"))?;
    let grown = grown?;
    ensure(grown < MORE, || format!("{} MB more for rows that nobody reads", grown >> 20))?;
    ensure(answers.len() == 3 && answers.iter().all(|answer| answer.as_deref() == Ok("360")), || {
        format!("{answers:?}")
    })?;
    until("the workers to be idle", || {
        Ok((cluster.historicals[0].ask("/status", None)?.1["queries"] == 0).then_some(()))
    })
}

/// A historical dies and comes back, again and again: all answers are right, and nothing is fetched for it.
fn flapping() -> Result<(), Failed> {
    let mut cluster = start(Place::new()?, &[&[], &[]], &[])?;
    cluster.load(6, 5)?;
    cluster.broker.becomes(SUM, "90")?;
    let before = loads(&cluster.coordinator);
    for _ in 0..6 {
        let ports = cluster.historicals.remove(0).kill()?;
        for _ in 0..5 {
            cluster.sum_is(90)?;
        }
        let again = cluster.place.start_again("historical-0", "historical", HISTORICAL, &ports)?;
        cluster.historicals.insert(0, again);
        cluster.sum_is(90)?;
        until("all to be served again", || Ok((served(&cluster.historicals[0])? == 6).then_some(())))?;
    }
    cluster.broker.becomes("SELECT COUNT(*) FROM sys.server_segments", "12")?;
    ensure(loads(&cluster.coordinator) == before, || cluster.coordinator.printed())?;
    cluster.sum_is(90)
}
