//! Topics of a real Apache Kafka that flow into data sources of the real binary: seen at once, published once.

mod cluster;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::door::{Door, Postgres, Protocol};
use crate::harness::kafka::{Broker, Writer, Written};
use crate::harness::process::{LIMIT, Server, henge, run, until};
use crate::harness::render::Row;
use crate::harness::{block_on, contains, ensure, missing};

/// What is tested at the broker that all share.
type Test = fn(&Broker) -> Result<(), Failed>;

const TESTS: [(&str, Test); 8] = [
    ("records_are_counted_once_through_hand_offs_under_queries", counted_once),
    ("f34_kill_nine_loses_and_repeats_nothing", killed),
    ("f38_records_that_are_gone_are_named_and_a_person_decides", gone),
    ("f39_a_topic_made_anew_is_not_taken_for_the_one_before", made_anew),
    ("f40_f41_f42_partitions_transactions_and_broken_records", mixed),
    ("is_declared_watched_suspended_reset_and_terminated", lived),
    ("f36_in_a_cluster_another_process_takes_over", cluster::taken_over),
    ("generated_edits_flow_through_a_topic_into_a_query", generated),
];

pub fn trials() -> Vec<Trial> {
    let trial = |(name, test): (&str, Test)| {
        Trial::ignorable_test(format!("kafka::{name}"), move || {
            // One that stops the broker waits for all others.
            let _reading = OTHERS.read().expect("nothing panics while it is held");
            with_broker(test)
        })
    };
    let mut trials = TESTS.into_iter().map(trial).collect::<Vec<_>>();
    trials.push(Trial::ignorable_test("kafka::f37_the_broker_stops_and_starts", || {
        let _alone = OTHERS.write().expect("nothing panics while it is held");
        with_broker(away)
    }));
    trials
}

static OTHERS: RwLock<()> = RwLock::new(());
/// Started by who needs it first.
static BROKER: Mutex<Option<Arc<Broker>>> = Mutex::new(None);

pub fn end_broker() {
    BROKER.lock().expect("nothing panics while it is held").take();
}

fn with_broker(test: Test) -> Result<Completion, Failed> {
    let broker = {
        let mut shared = BROKER.lock().expect("nothing panics while it is held");
        match shared.as_ref() {
            Some(broker) => Arc::clone(broker),
            None => match Broker::start()? {
                Ok(broker) => Arc::clone(shared.insert(Arc::new(broker))),
                Err(program) => return missing(program),
            },
        }
    };
    test(&broker).map(|()| Completion::Completed).map_err(|error| {
        let log = std::fs::read_to_string(broker.log()).unwrap_or_default();
        let end = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
        format!("{}\nthe broker says:\n{end}", error.message().unwrap_or_default()).into()
    })
}

const SUPERVISOR: &str = "/druid/indexer/v1/supervisor";

/// The status, and the JSON of the answer. Without a body it is a GET.
fn http(server: &Server, path: &str, body: Option<&Value>) -> Result<(u16, Value), Failed> {
    let url = format!("http://{}{SUPERVISOR}{path}", server.http);
    let client = reqwest::Client::new();
    let request = body.map_or_else(|| client.get(&url), |body| client.post(&url).json(body));
    let (status, text) = block_on(async {
        let response = request.timeout(LIMIT).send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    })?;
    let json = serde_json::from_str(&text).map_err(|error| format!("{path}: {status}: {error}: {text}"))?;
    Ok((status, json))
}

/// The answer to a POST that is to succeed.
fn post(server: &Server, path: &str, body: &Value) -> Result<Value, Failed> {
    let (status, answer) = http(server, path, Some(body))?;
    ensure(status == 200, || format!("{path}: {status}: {answer}"))?;
    Ok(answer)
}

/// What its status says.
fn payload(server: &Server) -> Result<Value, Failed> {
    let (status, mut answer) = http(server, "/wiki/status", None)?;
    ensure(status == 200, || format!("{status}: {answer}"))?;
    Ok(answer["payload"].take())
}

fn ask(server: &Server, sql: &str) -> Result<Vec<Row>, Failed> {
    let answer = block_on(async {
        let mut door = Postgres::connect(server.pg, Protocol::Extended)
            .await
            .map_err(|failed| failed.message().unwrap_or("no connection").to_owned())?;
        door.ask(sql).await
    });
    Ok(answer.map_err(|error| format!("{sql}: {error}"))?)
}

/// How many rows there are, and how many different ones: none while there is no data source.
fn counts(server: &Server) -> Result<(u64, u64), Failed> {
    let there = ask(server, "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'wiki'")?;
    if there == [["0"]] {
        return Ok((0, 0));
    }
    let answer = ask(server, "SELECT COUNT(*), COUNT(DISTINCT n) FROM wiki")?;
    Ok((answer[0][0].parse()?, answer[0][1].parse()?))
}

fn until_counted(server: &Server, rows: u64) -> Result<(), Failed> {
    until(&format!("{rows} rows"), || {
        let counted = counts(server)?;
        ensure(counted.0 <= rows && counted.0 == counted.1, || format!("{counted:?} of {rows}: there twice"))?;
        Ok((counted.0 == rows).then_some(()))
    })
    .map_err(|error| {
        let state = payload(server).map_or_else(|_| String::new(), |payload| payload.to_string());
        format!("{}; {state}", error.message().unwrap_or_default()).into()
    })
}

fn spec(broker: &Broker, topic: &str) -> Value {
    json!({"type": "kafka", "spec": {
        "dataSchema": {
            "dataSource": "wiki",
            "timestampSpec": {"column": "time"},
            "dimensionsSpec": {"dimensions": ["page", {"type": "long", "name": "n"}]},
            "granularitySpec": {"segmentGranularity": "DAY", "rollup": false}
        },
        "ioConfig": {
            "type": "kafka",
            "topic": topic,
            "inputFormat": {"type": "json"},
            "consumerProperties": {"bootstrap.servers": broker.address()},
            "taskCount": 2,
            "useEarliestOffset": true
        },
        "tuningConfig": {"type": "kafka"}
    }})
}

/// Row `n`, of one of three days.
fn row(n: u64) -> String {
    json!({"time": format!("2013-08-0{}T{:02}:00:00Z", 1 + n % 3, n % 24), "page": format!("p{}", n % 7), "n": n})
        .to_string()
}

fn write(writer: &Writer, topic: &str, partitions: u64, rows: std::ops::Range<u64>) -> Result<(), Failed> {
    for n in rows {
        writer.write(topic, i32::try_from(n % partitions)?, &row(n))?;
    }
    writer.flush()
}

/// Writes rows until told to stop; how many are there at most, and how many at least, is known throughout.
struct Writing<'a> {
    broker: &'a Broker,
    topic: &'a str,
    begun: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

impl<'a> Writing<'a> {
    fn new(broker: &'a Broker, topic: &'a str) -> Self {
        Self { broker, topic, begun: AtomicU64::new(0), done: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    fn run(&self, partitions: u64, each: u64) -> Result<(), Failed> {
        let writer = self.broker.writer()?;
        while !self.stop.load(Ordering::Acquire) {
            let from = self.begun.fetch_add(each, Ordering::SeqCst);
            write(&writer, self.topic, partitions, from..from + each)?;
            self.done.store(from + each, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// 10 hand-offs while records come and queries run: no answer is less than one before, nor more than was written, and in
/// the end all are there once, in published segments.
fn counted_once(broker: &Broker) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    broker.make_topic("counted", 2)?;
    write(&broker.writer()?, "counted", 2, 0..100)?;
    let server = Server::start(dir.path())?;
    post(&server, "", &spec(broker, "counted"))?;
    until_counted(&server, 100)?;
    let writing = Writing::new(broker, "counted");
    writing.begun.store(100, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let written = scope.spawn(|| writing.run(2, 40));
        let asking = scope.spawn(|| {
            let (mut least, mut answers) = (100, 0_u64);
            while !writing.stop.load(Ordering::Acquire) {
                let (rows, different) = counts(&server)?;
                let most = writing.begun.load(Ordering::SeqCst);
                ensure(rows == different && (least..=most).contains(&rows), || {
                    format!("{rows} rows, {different} different, is not within {least}..={most}")
                })?;
                (least, answers) = (rows, answers + 1);
            }
            ensure(answers > 10, || format!("{answers} answers show nothing"))
        });
        let handed_off = (0..10).try_for_each(|_| {
            let before = counts(&server)?.0;
            until("more rows", || Ok((counts(&server)?.0 > before + 50).then_some(())))?;
            let done = post(&server, "/wiki/taskGroups/handoff", &json!({"taskGroupIds": [0]}))?;
            ensure(done["rows"].as_u64().is_some_and(|rows| rows > 0), || done.to_string())
        });
        writing.stop.store(true, Ordering::Release);
        written.join().expect("no panic")?;
        asking.join().expect("no panic")?;
        handed_off
    })?;
    let all = writing.done.load(Ordering::SeqCst);
    until_counted(&server, all)?;
    post(&server, "/wiki/taskGroups/handoff", &json!({}))?;
    let published = ask(&server, "SELECT SUM(num_rows) FROM sys.segments WHERE is_published = 1")?;
    ensure(published == [[all.to_string()]], || format!("{published:?} of {all} are published"))?;
    let offsets = ask(&server, "SELECT SUM(published_offset), SUM(lag), MIN(state) FROM sys.supervisors")?;
    ensure(offsets[0][0] == all.to_string() && offsets[0][2] == "RUNNING", || format!("{offsets:?}"))
}

/// How often the process is killed.
const KILLS: u64 = 6;

/// F34: killed at random moments, of reading and of hand-offs: after every start all records are there once.
fn killed(broker: &Broker) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    broker.make_topic("killed", 2)?;
    let writing = Writing::new(broker, "killed");
    let mut dice = StdRng::seed_from_u64(7);
    std::thread::scope(|scope| {
        let written = scope.spawn(|| writing.run(2, 25));
        let lived = (0..KILLS).try_for_each(|life| {
            let server = Server::start(dir.path())?;
            if life == 0 {
                post(&server, "", &spec(broker, "killed"))?;
            }
            // It has caught up, and goes on to be killed in the middle of it.
            let least = writing.done.load(Ordering::SeqCst);
            until("it has caught up", || {
                let (rows, different) = counts(&server)?;
                let most = writing.begun.load(Ordering::SeqCst);
                ensure(rows == different && rows <= most, || format!("life {life}: {rows}, {different} of {most}"))?;
                Ok((rows >= least).then_some(()))
            })?;
            let dead = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let handing_off = scope.spawn(|| {
                    while !dead.load(Ordering::Acquire) {
                        // The last one is not answered.
                        let _ = http(&server, "/wiki/taskGroups/handoff", Some(&json!({})));
                    }
                });
                let dies_after = Duration::from_millis(dice.random_range(10..700));
                let born = std::time::Instant::now();
                let mut asked = Ok(());
                while born.elapsed() < dies_after && asked.is_ok() {
                    asked = counts(&server).and_then(|(rows, different)| {
                        ensure(rows == different, || format!("life {life}: {rows} rows, {different} different"))
                    });
                }
                crate::harness::process::signal(server.pid(), "KILL")?;
                dead.store(true, Ordering::Release);
                let _ = handing_off.join();
                asked
            })?;
            server.kill()
        });
        writing.stop.store(true, Ordering::Release);
        written.join().expect("no panic")?;
        lived
    })?;
    let server = Server::start(dir.path())?;
    let all = writing.done.load(Ordering::SeqCst);
    until_counted(&server, all)?;
    post(&server, "/wiki/taskGroups/handoff", &json!({}))?;
    until_counted(&server, all)?;
    let published: u64 =
        ask(&server, "SELECT SUM(num_rows) FROM sys.segments WHERE is_published = 1")?[0][0].parse()?;
    ensure(published == all, || format!("{published} of {all} are published"))
}

/// F37: the broker is away: what was read is answered, its absence is told, and then reading goes on where it was.
fn away(broker: &Broker) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    broker.make_topic("away", 1)?;
    write(&broker.writer()?, "away", 1, 0..50)?;
    let server = Server::start(dir.path())?;
    post(&server, "", &spec(broker, "away"))?;
    until_counted(&server, 50)?;
    broker.stop()?;
    until("its absence is told", || {
        let payload = payload(&server)?;
        Ok((payload["detailedState"] == "LOST_CONTACT_WITH_STREAM" && payload["healthy"] == false).then_some(()))
    })?;
    ensure(counts(&server)? == (50, 50), || "what was read is not answered".to_owned())?;
    // A hand-off needs no broker; and a start without one waits for it.
    let done = post(&server, "/wiki/taskGroups/handoff", &json!({}))?;
    ensure(done["rows"] == 50, || done.to_string())?;
    server.kill()?;
    let server = Server::start(dir.path())?;
    until("its absence is told", || {
        Ok((payload(&server)?["detailedState"] == "UNABLE_TO_CONNECT_TO_STREAM").then_some(()))
    })?;
    broker.go()?;
    write(&broker.writer()?, "away", 1, 50..80)?;
    until_counted(&server, 80)?;
    until("it is well", || Ok((payload(&server)?["state"] == "RUNNING").then_some(())))
}

/// F38: records were removed before they were read.
fn gone(broker: &Broker) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    broker.make_topic("gone", 2)?;
    let writer = broker.writer()?;
    write(&writer, "gone", 2, 0..20)?;
    let server = Server::start(dir.path())?;
    post(&server, "", &spec(broker, "gone"))?;
    until_counted(&server, 20)?;
    post(&server, "/wiki/suspend", &json!({}))?;
    until("it is handed off", || Ok((payload(&server)?["handedOffRows"] == 20).then_some(())))?;
    write(&writer, "gone", 2, 20..60)?;
    broker.remove_records("gone", 0, 25)?;
    post(&server, "/wiki/resume", &json!({}))?;
    // The other partition goes on.
    until_counted(&server, 40)?;
    let payload = payload(&server)?;
    ensure(payload["detailedState"] == "NEEDS_DECISION" && payload["healthy"] == false, || payload.to_string())?;
    let named = payload["recentErrors"].to_string();
    contains(&named, &["partition 0: offset 10 is next and is gone", "15 records (10 to 24)", "offsets 25 to 30"])?;
    let (status, refused) = http(&server, "/wiki/reset", Some(&json!({})))?;
    ensure(status == 400, || refused.to_string())?;
    contains(&refused.to_string(), &["confirm=true"])?;
    // It is not forgotten by a restart.
    server.kill()?;
    let server = Server::start(dir.path())?;
    until("it waits still", || Ok((self::payload(&server)?["detailedState"] == "NEEDS_DECISION").then_some(())))?;
    let reset = post(&server, "/wiki/reset?confirm=true", &json!({}))?;
    ensure(reset["offsets"] == json!({"0": 25, "1": 30}), || reset.to_string())?;
    until_counted(&server, 45)?;
    until("it is well", || Ok((self::payload(&server)?["healthy"] == true).then_some(())))
}

/// F39: a topic of the same name, with more records than were read of the one before.
fn made_anew(broker: &Broker) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    broker.make_topic("anew", 1)?;
    write(&broker.writer()?, "anew", 1, 0..10)?;
    let server = Server::start(dir.path())?;
    post(&server, "", &spec(broker, "anew"))?;
    until_counted(&server, 10)?;
    post(&server, "/wiki/suspend", &json!({}))?;
    broker.remove_topic("anew")?;
    broker.make_topic("anew", 1)?;
    write(&broker.writer()?, "anew", 1, 100..130)?;
    post(&server, "/wiki/resume", &json!({}))?;
    let payload = until("it is noticed", || {
        let payload = payload(&server)?;
        Ok((payload["detailedState"] == "NEEDS_DECISION").then_some(payload))
    })?;
    contains(&payload["recentErrors"].to_string(), &["the topic is not the one that was read"])?;
    ensure(counts(&server)? == (10, 10), || "records of the new topic were taken for the old one's".to_owned())?;
    post(&server, "/wiki/reset?confirm=true", &json!({}))?;
    until_counted(&server, 40)
}

/// F40, F41, F42: partitions are added, transactions are aborted, and records are broken, late or empty; the fields of the
/// records themselves are columns.
fn mixed(broker: &Broker) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    broker.make_topic("mixed", 1)?;
    let transactions = broker.transactions("mixed")?;
    transactions.begin()?;
    (0..10).try_for_each(|n| transactions.write("mixed", 0, &row(n)))?;
    transactions.commit()?;
    transactions.begin()?;
    (10..20).try_for_each(|n| transactions.write("mixed", 0, &row(n)))?;
    transactions.abort()?;
    let writer = broker.writer()?;
    for value in ["{\"time\":", "{\"page\":\"no time\"}", "{\"time\":\"1999-01-01T00:00:00Z\",\"n\":1000}"] {
        writer.write("mixed", 0, value)?;
    }
    let bad_text = Written { value: Some(b"{\"time\":\"2013-08-01\",\"page\":\"\xff\"}"), ..Written::default() };
    writer.write_record("mixed", bad_text)?;
    writer.write_record("mixed", Written::default())?;
    let told = row(20);
    writer.write_record(
        "mixed",
        Written { partition: 0, key: Some("the key"), value: Some(told.as_bytes()), header: Some(("trace", "abc")) },
    )?;
    writer.flush()?;
    let server = Server::start(dir.path())?;
    let mut spec = spec(broker, "mixed");
    spec["spec"]["dataSchema"]["dimensionsSpec"]["dimensions"].as_array_mut().ok_or("no dimensions")?.extend([
        json!("kafka.key"),
        json!("kafka.header.trace"),
        json!({"type": "long", "name": "kafka.timestamp"}),
    ]);
    spec["spec"]["ioConfig"]["inputFormat"] = json!({
        "type": "kafka", "valueFormat": {"type": "json"}, "headerFormat": {"type": "string", "encoding": "UTF-8"},
        "keyFormat": {"type": "tsv", "findColumnsFromHeader": false, "columns": ["key"]}
    });
    spec["spec"]["ioConfig"]["lateMessageRejectionStartDateTime"] = json!("2010-01-01T00:00:00Z");
    post(&server, "", &spec)?;
    until_counted(&server, 11)?;
    let record = ask(
        &server,
        "SELECT \"kafka.key\", \"kafka.header.trace\", \"kafka.timestamp\" > 1500000000000 FROM wiki WHERE n = 20",
    )?;
    ensure(record[0][..2] == ["the key", "abc"] && record[0][2] == "t" || record[0][2] == "true", || {
        format!("{record:?}")
    })?;
    let payload = payload(&server)?;
    // A record without a value has the fields of the record, and no time.
    ensure(payload["reasons"] == json!({"unparseable": 2, "missingTimestamp": 2, "late": 1}), || payload.to_string())?;
    let (_, errors) = http(&server, "/wiki/parseErrors", None)?;
    contains(&errors.to_string(), &["`mixed`, partition 0, offset"])?;
    broker.add_partitions("mixed", 3)?;
    // One that knows of them.
    let writer = broker.writer()?;
    for n in 21..60 {
        writer.write("mixed", i32::try_from(n % 3)?, &row(n))?;
    }
    writer.flush()?;
    until_counted(&server, 50)?;
    let done = post(&server, "/wiki/taskGroups/handoff", &json!({}))?;
    ensure(done["rows"] == 50, || done.to_string())?;
    let ends: i64 = broker.ends("mixed", 3)?.values().sum();
    let published = ask(&server, "SELECT SUM(published_offset) FROM sys.supervisors")?[0][0].parse::<i64>()?;
    ensure(published > 50 && published <= ends, || format!("{published} of {ends}"))
}

/// All that its API does, and where it is seen.
fn lived(broker: &Broker) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    broker.make_topic("lived", 2)?;
    let writer = broker.writer()?;
    write(&writer, "lived", 2, 0..30)?;
    let server = Server::start(dir.path())?;
    let mut wrong = spec(broker, "lived");
    wrong["spec"]["ioConfig"]["consumerProperties"]["auto.offset.reset"] = json!("earliest");
    let (status, refused) = http(&server, "", Some(&wrong))?;
    ensure(status != 200, || refused.to_string())?;
    contains(&refused.to_string(), &["auto.offset.reset", "never reset"])?;
    let mut noted = spec(broker, "lived");
    noted["spec"]["tuningConfig"]["intermediatePersistPeriod"] = json!("PT10M");
    let submitted = post(&server, "", &noted)?;
    ensure(submitted["id"] == "wiki", || submitted.to_string())?;
    contains(&submitted["warnings"].to_string(), &["intermediatePersistPeriod"])?;
    until_counted(&server, 30)?;
    let (_, ids) = http(&server, "", None)?;
    ensure(ids == json!(["wiki"]), || ids.to_string())?;
    let (_, full) = http(&server, "?full", None)?;
    ensure(full[0]["state"] == "RUNNING" && full[0]["spec"]["spec"]["ioConfig"]["topic"] == "lived", || {
        full.to_string()
    })?;
    let lag = until("the lag is known", || {
        let payload = payload(&server)?;
        Ok((payload["aggregateLag"] == 0 && payload["partitions"] == 2).then_some(payload))
    })?;
    ensure(lag["activeTasks"][0]["currentOffsets"] == json!({"0": 15, "1": 15}), || lag.to_string())?;
    let metrics = block_on(async { reqwest::get(format!("http://{}/metrics", server.http)).await?.text().await })?;
    contains(
        &metrics,
        &[
            "henge_supervisor_lag{supervisor=\"wiki\",datasource=\"wiki\",partition=\"1\"} 0",
            "henge_supervisor_events_total{supervisor=\"wiki\",datasource=\"wiki\"} 30",
        ],
    )?;
    let suspended = post(&server, "/wiki/suspend", &json!({}))?;
    ensure(suspended["suspended"] == true, || suspended.to_string())?;
    write(&writer, "lived", 2, 30..40)?;
    // Across a restart as well.
    server.kill()?;
    let server = Server::start(dir.path())?;
    ensure(payload(&server)?["state"] == "SUSPENDED", || "it forgot that it is suspended".to_owned())?;
    let sys = ask(&server, "SELECT supervisor_id, state, type, source, suspended FROM sys.supervisors")?;
    ensure(sys == [["wiki", "SUSPENDED", "kafka", "lived", "1"]], || format!("{sys:?}"))?;
    post(&server, "/wiki/resume", &json!({}))?;
    until_counted(&server, 40)?;
    let (status, refused) = http(&server, "/wiki/reset?confirm=true", Some(&json!({})))?;
    ensure(status == 400, || refused.to_string())?;
    contains(&refused.to_string(), &["nothing is missing", "to=earliest"])?;
    // What a person asks for is done: the last five of one partition once more.
    let offsets =
        json!({"type": "kafka", "partitions": {"type": "end", "stream": "lived", "partitionOffsetMap": {"0": 15}}});
    post(&server, "/wiki/resetOffsets?confirm=true", &offsets)?;
    until("read again", || Ok((counts(&server)? == (45, 40)).then_some(())))?;
    let terminated = post(&server, "/wiki/terminate", &json!({}))?;
    ensure(terminated == json!({"id": "wiki"}), || terminated.to_string())?;
    ensure(http(&server, "/wiki/status", None)?.0 == 404, || "it is there still".to_owned())?;
    ensure(counts(&server)? == (45, 40), || "its rows went with it".to_owned())?;
    let (_, history) = http(&server, "/wiki/history", None)?;
    ensure(history.as_array().is_some_and(|entries| entries.len() == 4), || history.to_string())
}

fn generated(broker: &Broker) -> Result<(), Failed> {
    const EDITS: &str = "2000";
    let dir = TempDir::new()?;
    broker.make_topic("generated", 2)?;
    let to = format!("{}/generated", broker.address());
    run(henge(&["generate", "wikipedia", "--rate", "4000", "--rows", EDITS, "--to-kafka", &to]))?.ok()?;
    let server = Server::start(dir.path())?;
    let mut spec = spec(broker, "generated");
    spec["spec"]["dataSchema"]["dimensionsSpec"] = json!({"useSchemaDiscovery": true});
    spec["spec"]["dataSchema"]["timestampSpec"] = json!({"column": "timestamp"});
    post(&server, "", &spec)?;
    let counted = until("all edits", || {
        let answer = match ask(&server, "SELECT COUNT(*), COUNT(user), COUNT(added) FROM wiki") {
            Ok(answer) => answer,
            // It has no rows yet.
            Err(_) => return Ok(None),
        };
        Ok((answer[0][0] == EDITS).then_some(answer))
    })?;
    ensure(counted == [[EDITS; 3]], || format!("{counted:?}"))
}
