//! Real time as a role of a cluster: rows that are pushed are counted once, wherever they are, whoever dies.
//!
//! Rows are numbered as they are acknowledged. An answer must hold every row that was acknowledged before it was asked,
//! no row that was not sent before it came, each of them once, and never less than the answer before.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::HISTORICAL;
use crate::harness::door::{Door, Postgres, Protocol};
use crate::harness::process::{LIMIT, until};
use crate::harness::servers::{Node, Place, Ports};
use crate::harness::{block_on, contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("servers::realtime::f45_rows_are_counted_once_through_hand_offs", handed_off),
        Trial::test("servers::realtime::f34_what_was_acknowledged_survives_kill_nine_once", killed),
        Trial::test("servers::realtime::f46_f56_a_hand_off_outlives_coordinator_and_historical", left_alone),
        Trial::test("servers::realtime::one_that_hangs_is_named", hung),
        Trial::test("servers::realtime::two_processes_take_rows_of_one_data_source", two),
    ]
}

/// Rows of a request.
const ROWS: u64 = 10;
const REALTIME: &[&str] = &["--drop-delay", "PT1S"];
const COUNT: &str = "SELECT COUNT(*)::text || ' ' || COALESCE(SUM(n), 0)::text FROM live";

/// A coordinator, a historical, a realtime process and a broker.
struct Cluster {
    place: Place,
    coordinator: Option<Node>,
    historical: Option<Node>,
    realtime: Mutex<Option<Node>>,
    broker: Node,
}

impl Cluster {
    fn start() -> Result<Self, Failed> {
        let place = Place::new()?;
        let coordinator = place.start("coordinator", "coordinator", &["--replace-after", "PT8S"])?;
        let historical = place.start("historical", "historical", HISTORICAL)?;
        let realtime = place.start("realtime", "realtime", REALTIME)?.ready()?;
        let broker = place.start("broker", "broker", &[])?.ready()?;
        let cluster = Self {
            place,
            coordinator: Some(coordinator),
            historical: Some(historical),
            realtime: Mutex::new(Some(realtime)),
            broker,
        };
        let (status, words) = cluster.at_realtime(declare)??;
        ensure(status == 200, || words.to_string())?;
        cluster.broker.becomes(COUNT, "0 0")?;
        Ok(cluster)
    }

    /// Does something with the realtime process, if there is one just now.
    fn at_realtime<T>(&self, what: impl FnOnce(&Node) -> T) -> Result<T, Failed> {
        let realtime = self.realtime.lock().expect("nothing panics while it is held");
        Ok(what(realtime.as_ref().ok_or("there is no realtime process just now")?))
    }

    fn kill_realtime(&self) -> Result<Ports, Failed> {
        let node = self.realtime.lock().expect("nothing panics while it is held").take();
        node.ok_or("there is none")?.kill()
    }

    fn start_realtime(&self, before: &Ports) -> Result<(), Failed> {
        let node = self.place.start_again("realtime", "realtime", REALTIME, before)?;
        *self.realtime.lock().expect("nothing panics while it is held") = Some(node);
        Ok(())
    }

    fn hand_off(&self) -> Result<(u16, Value), Failed> {
        self.at_realtime(|node| node.ask("/v1/push/live/handoff", Some(&json!({}))))?
    }

    /// Waits until queries read all rows from segments.
    fn is_passed_on(&self) -> Result<(), Failed> {
        until("all rows to be read from segments", || {
            let (_, status) = self.at_realtime(|node| node.ask("/v1/push/live", None))??;
            Ok((status["walPosition"] == status["publishedPosition"]).then_some(()))
        })
    }
}

fn declare(node: &Node) -> Result<(u16, Value), Failed> {
    node.ask(
        "/v1/push/live/spec",
        Some(&json!({"type": "push", "spec": {"dataSchema": {
            "dataSource": "live",
            "timestampSpec": {"column": "time"},
            "dimensionsSpec": {"dimensions": ["page", {"type": "long", "name": "n"}]},
            "granularitySpec": {"segmentGranularity": "DAY", "rollup": false},
        }}})),
    )
}

/// Numbered rows, over two days.
fn rows(first: u64) -> String {
    let row = |n: u64| {
        let day = 1 + n % 2;
        format!("{{\"time\":\"2013-08-{day:02}T00:00:00Z\",\"page\":\"P{}\",\"n\":{n}}}\n", n % 7)
    };
    (first..first + ROWS).map(row).collect()
}

fn push(http: SocketAddr, first: u64, key: &str) -> Result<u16, Failed> {
    let url = format!("http://{http}/v1/push/live");
    let request = reqwest::Client::new().post(url).body(rows(first)).timeout(LIMIT);
    let request = request.header("content-type", "application/x-ndjson").header("idempotency-key", key);
    Ok(block_on(async { request.send().await.map(|response| response.status().as_u16()) })?)
}

/// What was sent and acknowledged, and what answers said.
#[derive(Default)]
struct Oracle {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// The most rows that an answer had.
    seen: AtomicU64,
    answers: AtomicU64,
    errors: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Oracle {
    /// Sends requests one after the other, each until it is acknowledged.
    fn send(&self, cluster: &Cluster, requests: u64) -> Result<(), Failed> {
        for _ in 0..requests {
            let first = self.sent.fetch_add(ROWS, Ordering::SeqCst) + 1;
            until("a request to be acknowledged", || {
                // The address alone, so that the process can be killed meanwhile.
                let Ok(http) = cluster.at_realtime(|node| node.http) else { return Ok(None) };
                Ok(matches!(push(http, first, &format!("rows {first}")), Ok(200)).then_some(()))
            })?;
            self.acknowledged.fetch_add(ROWS, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Asks until it is over. Whatever is answered must be right; errors are kept.
    fn ask(&self, broker: &Node) -> Result<(), Failed> {
        while !self.is_over.load(Ordering::SeqCst) {
            self.ask_once(broker)?;
        }
        Ok(())
    }

    fn ask_once(&self, broker: &Node) -> Result<(), Failed> {
        let (least, seen) = (self.acknowledged.load(Ordering::SeqCst), self.seen.load(Ordering::SeqCst));
        let answer = broker.sql(COUNT);
        let most = self.sent.load(Ordering::SeqCst);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.errors.lock().expect("nothing panics while it is held").push(error);
                return Ok(());
            }
        };
        self.answers.fetch_add(1, Ordering::SeqCst);
        let (count, sum) = answer.split_once(' ').ok_or_else(|| answer.clone())?;
        let (count, sum): (u64, u64) = (count.parse()?, sum.parse()?);
        let is_right = count >= least.max(seen) && count <= most && sum == count * (count + 1) / 2;
        ensure(is_right, || format!("`{answer}` where {least} to {most} rows are there, and {seen} were seen"))?;
        self.seen.fetch_max(count, Ordering::SeqCst);
        Ok(())
    }

    /// Has two clients ask while something happens. Returns the errors that they were given.
    fn while_asked(
        &self,
        cluster: &Cluster,
        happens: impl FnOnce() -> Result<(), Failed>,
    ) -> Result<Vec<String>, Failed> {
        self.is_over.store(false, Ordering::SeqCst);
        let (happened, asked) = std::thread::scope(|scope| {
            let asking = [(), ()].map(|()| scope.spawn(|| self.ask(&cluster.broker)));
            let happened = happens();
            self.is_over.store(true, Ordering::SeqCst);
            (happened, asking.map(|asking| asking.join().expect("it does not panic")))
        });
        happened?;
        asked.into_iter().collect::<Result<(), _>>()?;
        Ok(std::mem::take(&mut *self.errors.lock().expect("nothing panics while it is held")))
    }

    /// All rows are there, each once.
    fn is_complete(&self, broker: &Node) -> Result<(), Failed> {
        let all = self.acknowledged.load(Ordering::SeqCst);
        broker.becomes(COUNT, &format!("{all} {}", all * (all + 1) / 2))
    }
}

fn handed_off() -> Result<(), Failed> {
    let cluster = Cluster::start()?;
    let oracle = Oracle::default();
    let errors = oracle.while_asked(&cluster, || {
        for _ in 0..3 {
            oracle.send(&cluster, 12)?;
            let (status, words) = cluster.hand_off()?;
            ensure(status == 200, || words.to_string())?;
            // More come while those pass on.
            oracle.send(&cluster, 12)?;
        }
        let (status, words) = cluster.hand_off()?;
        ensure(status == 200, || words.to_string())?;
        cluster.is_passed_on()
    })?;
    ensure(errors.is_empty(), || format!("{errors:?}"))?;
    oracle.is_complete(&cluster.broker)?;
    let published = cluster.broker.sql("SELECT SUM(num_rows) FROM sys.segments WHERE is_published = 1");
    ensure(published.as_deref() == Ok("720"), || format!("{published:?}"))?;
    let sink =
        "SELECT server || ' ' || settled_position || ' ' || published_position || ' ' || is_served FROM sys.sinks";
    let (name, requests) = (cluster.at_realtime(Node::name)?, 72);
    cluster.broker.becomes(sink, &format!("{name} {requests} {requests} 1"))?;
    let answers = oracle.answers.load(Ordering::SeqCst);
    ensure(answers > 20, || format!("only {answers} answers"))?;

    // By the broker, rows go to the realtime process, by HTTP and with SQL.
    let pushed = push(cluster.broker.http, 721, "by the broker")?;
    ensure(pushed == 200, || pushed.to_string())?;
    let inserted = cluster.broker.sql("INSERT INTO live (__time, page, n) VALUES ('2013-08-02', 'x', 731)");
    ensure(inserted.is_ok(), || format!("{inserted:?}"))?;
    cluster.broker.becomes(COUNT, &format!("731 {}", 731 * 732 / 2))?;
    // Nobody declared this one, and nobody asked to make it.
    let url = format!("http://{}/v1/push/unknown", cluster.broker.http);
    let request = reqwest::Client::new().post(url).body(rows(1)).header("content-type", "application/x-ndjson");
    let status = block_on(async { request.send().await.map(|response| response.status().as_u16()) })?;
    ensure(status == 404, || status.to_string())
}

fn killed() -> Result<(), Failed> {
    let cluster = Cluster::start()?;
    let oracle = Oracle::default();
    let errors = oracle.while_asked(&cluster, || {
        for round in 0..3 {
            std::thread::scope(|scope| {
                let sending = scope.spawn(|| oracle.send(&cluster, 30));
                let least = oracle.acknowledged.load(Ordering::SeqCst) + ROWS * 5 * (round + 1);
                until("some rows", || Ok((oracle.acknowledged.load(Ordering::SeqCst) >= least).then_some(())))?;
                if round > 0 {
                    // It dies between publishing and letting go, or a little earlier or later.
                    let (status, words) = cluster.hand_off()?;
                    ensure(status == 200, || words.to_string())?;
                }
                let ports = cluster.kill_realtime()?;
                cluster.start_realtime(&ports)?;
                sending.join().expect("it does not panic")
            })?;
        }
        oracle.is_complete(&cluster.broker)?;
        cluster.hand_off()?;
        cluster.is_passed_on()
    })?;
    let name = cluster.at_realtime(Node::name)?;
    let unclear = errors.iter().find(|error| !error.contains(&name));
    ensure(unclear.is_none(), || format!("{unclear:?}"))?;
    oracle.is_complete(&cluster.broker)
}

fn left_alone() -> Result<(), Failed> {
    let mut cluster = Cluster::start()?;
    let oracle = Oracle::default();
    oracle.send(&cluster, 10)?;
    // Nobody can load what is published: it stays where it is, and more comes.
    let historical = cluster.historical.take().ok_or("no historical")?.kill()?;
    let coordinator = cluster.coordinator.take().ok_or("no coordinator")?.kill()?;
    let errors = oracle.while_asked(&cluster, || {
        let (status, words) = cluster.hand_off()?;
        ensure(status == 200, || words.to_string())?;
        oracle.send(&cluster, 20)
    })?;
    ensure(errors.is_empty(), || format!("{errors:?}"))?;
    // The realtime process starts anew in the middle of that.
    let ports = cluster.kill_realtime()?;
    cluster.start_realtime(&ports)?;
    oracle.is_complete(&cluster.broker)?;
    let again = cluster.place.start_again("historical", "historical", HISTORICAL, &historical)?;
    let leads = cluster.place.start_again("coordinator", "coordinator", &["--replace-after", "PT8S"], &coordinator)?;
    (cluster.historical, cluster.coordinator) = (Some(again), Some(leads));
    let errors = oracle.while_asked(&cluster, || {
        oracle.send(&cluster, 20)?;
        let (status, words) = cluster.hand_off()?;
        ensure(status == 200, || words.to_string())?;
        cluster.is_passed_on()
    })?;
    ensure(errors.is_empty(), || format!("{errors:?}"))?;
    oracle.is_complete(&cluster.broker)
}

fn hung() -> Result<(), Failed> {
    let cluster = Cluster::start()?;
    let oracle = Oracle::default();
    oracle.send(&cluster, 10)?;
    cluster.hand_off()?;
    cluster.is_passed_on()?;
    oracle.send(&cluster, 5)?;
    let name = cluster.at_realtime(Node::name)?;
    cluster.at_realtime(|node| node.signal("STOP"))??;
    let began = Instant::now();
    let refused = cluster.broker.sql(COUNT).expect_err("it hangs");
    let took = began.elapsed();
    contains(&refused, &["realtime process", &name, "not published"])?;
    ensure(took < Duration::from_secs(8), || format!("{took:?}"))?;
    let pg = cluster.broker.pg.ok_or("a broker answers queries")?;
    let partial = block_on(async {
        let mut door = Postgres::connect(pg, Protocol::Simple).await.map_err(|failed| format!("{failed:?}"))?;
        door.ask("SET henge.allow_partial_results = on").await?;
        door.ask(COUNT).await
    })?;
    ensure(partial[0][0] == "100 5050", || format!("{partial:?}"))?;
    cluster.at_realtime(|node| node.signal("CONT"))??;
    oracle.is_complete(&cluster.broker)?;
    // One that is lost for good is given up by a person; what it published stays.
    cluster.kill_realtime()?;
    let coordinator = cluster.coordinator.as_ref().ok_or("no coordinator")?;
    let path = format!("/druid/coordinator/v1/datasources/live/realtime/{name}/giveUp");
    let (status, words) = coordinator.ask(&path, Some(&json!({})))?;
    ensure(status == 409 && words.to_string().contains("acceptLoss"), || format!("{status}: {words}"))?;
    let (status, words) = coordinator.ask(&format!("{path}?acceptLoss=true"), Some(&json!({})))?;
    ensure(status == 200, || words.to_string())?;
    cluster.broker.becomes(COUNT, "100 5050")
}

fn two() -> Result<(), Failed> {
    let cluster = Cluster::start()?;
    let second = cluster.place.start("realtime-2", "realtime", REALTIME)?.ready()?;
    let (status, words) = declare(&second)?;
    ensure(status == 200, || words.to_string())?;
    let take = |node: &Node, request: u64| -> Result<(), Failed> {
        let status = push(node.http, 1 + request * ROWS, &format!("request {request}"))?;
        ensure(status == 200, || status.to_string())
    };
    for request in 0..20 {
        match request % 2 {
            0 => cluster.at_realtime(|node| take(node, request))??,
            _ => take(&second, request)?,
        }
    }
    let all = format!("200 {}", 200 * 201 / 2);
    cluster.broker.becomes(COUNT, &all)?;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| cluster.hand_off());
        let other = second.ask("/v1/push/live/handoff", Some(&json!({})))?;
        let first = first.join().expect("it does not panic")?;
        ensure(first.0 == 200 && other.0 == 200, || format!("{first:?} {other:?}"))
    })?;
    cluster.is_passed_on()?;
    let passed =
        "SELECT COUNT(*) FROM sys.sinks WHERE settled_position = published_position AND published_position = 10";
    cluster.broker.becomes(passed, "2")?;
    let found = cluster.broker.sql(COUNT);
    ensure(found.as_deref() == Ok(&all), || format!("{found:?}"))?;
    let ids = cluster
        .broker
        .sql("SELECT COUNT(DISTINCT segment_id) || ' ' || SUM(num_rows) FROM sys.segments WHERE is_published = 1");
    ensure(ids.as_deref() == Ok("4 200"), || format!("{ids:?}"))
}
