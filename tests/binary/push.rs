//! Rows that are pushed, at the real process: seen at once, durable when acknowledged, counted once throughout.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use libtest_mimic::{Completion, Failed, Trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::task::http;
use super::{Place, ask};
use crate::harness::process::{LIMIT, Server, henge, until};
use crate::harness::{block_on, contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("binary::push::f47_what_was_acknowledged_survives_kill_nine_once", killed),
        Trial::test("binary::push::f53_a_request_that_comes_again_adds_nothing", again),
        Trial::test("binary::push::every_form_of_a_body_is_read", forms),
        Trial::test("binary::push::f54_what_is_too_large_or_wrong_is_refused", refused),
        Trial::test("binary::push::f54_a_body_that_trickles_is_given_up", trickling),
        Trial::ignorable_test("binary::push::f52_a_full_disk_is_told_and_rows_are_taken_again", full),
        Trial::test("binary::push::is_declared_handed_off_and_watched", declared),
        Trial::test("binary::push::inserted_rows_are_pushed", inserted),
        Trial::test("binary::push::generated_edits_flow_from_pipe_to_query", piped),
    ]
}

/// Headers of a request.
pub(super) type Headers<'a> = &'a [(&'a str, &'a str)];

/// How often the process is killed.
const KILLS: u64 = 8;
const CLIENTS: u64 = 4;

/// The answer to a POST of rows: the status, the JSON, and when to come again.
pub(super) fn post(http: SocketAddr, path: &str, headers: Headers<'_>, body: Vec<u8>) -> Result<(u16, Value), Failed> {
    let mut request = reqwest::Client::new().post(format!("http://{http}{path}")).body(body).timeout(LIMIT);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = block_on(async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    });
    let (status, text) = answer?;
    let json = serde_json::from_str(&text).map_err(|error| format!("{path}: {status}: {error}: {text}"))?;
    Ok((status, json))
}

pub(super) const JSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// Rows of one request: each says whose it is.
fn rows(client: u64, sequence: u64, rows: u64) -> Vec<u8> {
    let row = |n: u64| json!({"time": format!("2013-08-01T{:02}:00:00Z", (sequence + n) % 24), "client": client, "sequence": sequence, "page": format!("p{n}")});
    (0..rows).map(|n| format!("{}\n", row(n))).collect::<String>().into_bytes()
}

const ROWS: u64 = 5;

/// What a client knows.
#[derive(Default)]
struct Known {
    /// The last request that was acknowledged; the one after it may have been sent.
    acknowledged: u64,
}

/// O1 under kill -9 at any moment, of requests and of hand-offs alike: what was acknowledged is there once, the request
/// that was under way is there once or not at all, and no answer is less than what was acknowledged before it was asked.
fn killed() -> Result<(), Failed> {
    let place = Place::new()?;
    let mut dice = StdRng::seed_from_u64(7);
    let known = (0..CLIENTS).map(|_| Mutex::new(Known::default())).collect::<Vec<_>>();
    for life in 0..KILLS {
        let server = place.serve()?;
        check(&server, &known)?;
        let dies_after = Duration::from_millis(dice.random_range(50..1500));
        let (dead, answers) = (AtomicBool::new(false), AtomicU64::new(0));
        let address = server.http;
        std::thread::scope(|scope| -> Result<(), Failed> {
            let clients = (0..CLIENTS).map(|client| {
                let (known, dead) = (&known, &dead);
                scope.spawn(move || send_until(address, client, &known[client as usize], dead))
            });
            let clients = clients.collect::<Vec<_>>();
            let handing_off = scope.spawn(|| {
                while !dead.load(Ordering::Acquire) {
                    let _ = post(address, "/v1/push/wiki/handoff", &[JSON], Vec::new());
                }
            });
            let born = Instant::now();
            let mut least = 0;
            while born.elapsed() < dies_after {
                let before = total(&known);
                if before == 0 {
                    continue;
                }
                let answer = count(&server)?;
                ensure(answer >= before.max(least), || {
                    format!("{answer} rows, after {before} acknowledged and {least} seen")
                })?;
                least = answer;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            server.kill()?;
            dead.store(true, Ordering::Release);
            clients.into_iter().for_each(|client| drop(client.join()));
            let _ = handing_off.join();
            Ok(())
        })
        .map_err(|error| format!("life {life}: {}", super::message(&error)))?;
    }
    let server = place.serve()?;
    check(&server, &known)?;
    let sent = total(&known);
    ensure(sent > KILLS * CLIENTS * ROWS, || format!("{sent} rows were acknowledged: nothing is shown by that"))?;
    let (status, done) = post(server.http, "/v1/push/wiki/handoff", &[JSON], Vec::new())?;
    ensure(status == 200, || done.to_string())?;
    check(&server, &known)
}

fn total(known: &[Mutex<Known>]) -> u64 {
    known.iter().map(|known| known.lock().expect("no panic").acknowledged * ROWS).sum()
}

fn count(server: &Server) -> Result<u64, Failed> {
    Ok(ask(server, "SELECT COUNT(*) FROM wiki")?[0][0].parse()?)
}

/// One request after another, each under the next number; the one that failed is sent again by the next life.
fn send_until(http: SocketAddr, client: u64, known: &Mutex<Known>, dead: &AtomicBool) {
    while !dead.load(Ordering::Acquire) {
        let sequence = known.lock().expect("no panic").acknowledged + 1;
        let path = format!("/v1/push/wiki?producer=client{client}&sequence={sequence}");
        match post(http, &path, &[JSON], rows(client, sequence, ROWS)) {
            Ok((200, answer)) if answer["rows"] == ROWS => {
                known.lock().expect("no panic").acknowledged = sequence;
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Every client's requests up to the last acknowledged one are there, once and whole; the next one may be.
fn check(server: &Server, known: &[Mutex<Known>]) -> Result<(), Failed> {
    if total(known) == 0 {
        return Ok(());
    }
    let found = ask(server, "SELECT client, sequence, COUNT(*) FROM wiki GROUP BY 1, 2")?;
    let mut found = found
        .into_iter()
        .map(|row| Ok(((row[0].parse()?, row[1].parse()?), row[2].parse()?)))
        .collect::<Result<BTreeMap<(u64, u64), u64>, std::num::ParseIntError>>()?;
    for (client, known) in (0..).zip(known) {
        let acknowledged = known.lock().expect("no panic").acknowledged;
        for sequence in 1..=acknowledged + 1 {
            let rows = found.remove(&(client, sequence));
            let right = rows == Some(ROWS) || (rows.is_none() && sequence > acknowledged);
            ensure(right, || {
                format!("request {sequence} of client {client}, {acknowledged} acknowledged: {rows:?} rows")
            })?;
        }
    }
    ensure(found.is_empty(), || format!("rows that nobody sent: {found:?}"))
}

fn again() -> Result<(), Failed> {
    let place = Place::new()?;
    let server = place.serve()?;
    let send = |server: &Server| post(server.http, "/v1/push/wiki", &[JSON, ("idempotency-key", "one")], rows(1, 1, 5));
    let (status, first) = send(&server)?;
    ensure(status == 200 && first["delivery"] == "exactly_once" && first["duplicate"] == false, || first.to_string())?;
    let is_first = |answer: &Value| {
        ensure(answer["duplicate"] == true && answer["rows"] == 5 && answer["position"] == first["position"], || {
            answer.to_string()
        })
    };
    is_first(&send(&server)?.1)?;
    server.kill()?;
    let server = place.serve()?;
    is_first(&send(&server)?.1)?;
    let (_, done) = post(server.http, "/v1/push/wiki/handoff", &[JSON], Vec::new())?;
    ensure(
        done["rows"] == 5 && done["segments"][0].as_str().is_some_and(|id| id.starts_with("wiki_2013-08-01")),
        || done.to_string(),
    )?;
    is_first(&send(&server)?.1)?;
    server.kill()?;
    let server = place.serve()?;
    is_first(&send(&server)?.1)?;
    ensure(count(&server)? == 5, || "not once".to_owned())?;
    let (_, keyless) = post(server.http, "/v1/push/wiki", &[JSON], rows(1, 2, 1))?;
    ensure(keyless["delivery"] == "at_least_once", || keyless.to_string())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(text).expect("memory");
    out.finish().expect("memory")
}

fn forms() -> Result<(), Failed> {
    let place = Place::new()?;
    let server = place.serve()?;
    let lines = rows(1, 1, 3);
    let array = format!("[{}]", String::from_utf8(lines.clone())?.trim_end().replace('\n', ",\n"));
    let csv = "time,client,sequence,page\n2013-08-01,1,1,\"a,b\"\n2013-08-01,1,1,\n";
    let forms: [(&str, Headers<'_>, Vec<u8>); 6] = [
        ("", &[JSON], lines.clone()),
        ("", &[("content-type", "application/json")], array.into_bytes()),
        ("", &[JSON, ("content-encoding", "gzip")], gzip(&lines)),
        ("", &[JSON, ("content-encoding", "zstd")], zstd::encode_all(&lines[..], 1)?),
        ("", &[("content-type", "text/csv")], csv.into()),
        (
            "?columns=time,client,sequence,page",
            &[("content-type", "text/csv; charset=utf-8")],
            "2013-08-01,1,1,x\n".into(),
        ),
    ];
    let mut expected = 0;
    for (query, headers, body) in forms {
        let (status, answer) = post(server.http, &format!("/v1/push/wiki{query}"), headers, body)?;
        ensure(status == 200, || format!("{headers:?}: {answer}"))?;
        expected += answer["rows"].as_u64().unwrap_or(0);
    }
    ensure(expected == 15, || expected.to_string())?;
    ensure(count(&server)? == 15, || "not all are seen".to_owned())?;
    let found = ask(
        &server,
        "SELECT page, COUNT(*) FROM wiki WHERE page IS NULL OR page IN ('a,b', 'p0') GROUP BY 1 ORDER BY 1",
    )?;
    ensure(found.len() == 3, || format!("{found:?}"))
}

fn refused() -> Result<(), Failed> {
    let place = Place::new()?;
    let server = place.serve()?;
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let bad = b"{\"time\": \"2013-08-01\", \"a\": 1}\n{\"time\": \n".to_vec();
    let cases: [(&str, Headers<'_>, Vec<u8>, u16, &str); 9] = [
        ("", &[JSON, ("content-encoding", "gzip")], bomb.clone(), 413, "expands to more than"),
        ("", &[JSON], vec![b' '; (16 << 20) + 1], 413, "longer than"),
        ("", &[JSON], bomb, 400, "content-encoding"),
        ("", &[("content-type", "text/plain")], rows(1, 1, 1), 400, "content-type"),
        ("", &[JSON, ("content-encoding", "br")], rows(1, 1, 1), 400, "gzip or zstd"),
        ("?sequence=1", &[JSON], rows(1, 1, 1), 400, "together"),
        ("?create=false", &[JSON], rows(1, 1, 1), 404, "create=true"),
        ("", &[JSON], b"{\"when\": 1}\n".to_vec(), 400, "timeColumn="),
        ("", &[JSON], bad.clone(), 400, "line 2"),
    ];
    for (query, headers, body, expected, words) in cases {
        let (status, answer) = post(server.http, &format!("/v1/push/wiki{query}"), headers, body)?;
        ensure(status == expected, || format!("{words}: {status}, not {expected}: {answer}"))?;
        contains(answer["errorMessage"].as_str().unwrap_or_default(), &[words])?;
    }
    let (status, answer) = post(server.http, "/v1/push/wiki?onError=skip", &[JSON], bad)?;
    ensure(
        status == 200 && answer["rows"] == 1 && answer["rejected"] == 1 && answer["errors"][0]["line"] == 2,
        || answer.to_string(),
    )?;
    for name in ["..%2fx", "a%00b", "a%2Fb"] {
        let (status, answer) = post(server.http, &format!("/v1/push/{name}"), &[JSON], rows(1, 1, 1))?;
        ensure(status == 400, || format!("{name}: {status} {answer}"))?;
    }
    ensure(count(&server)? == 1, || "something that was refused is seen".to_owned())
}

/// Half a request, and then nothing: the connection is answered, and others are served meanwhile.
fn trickling() -> Result<(), Failed> {
    use std::io::Read;

    let place = Place::new()?;
    let server = place.serve()?;
    let mut slow = std::net::TcpStream::connect(server.http)?;
    write!(
        slow,
        "POST /v1/push/wiki HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n{{"
    )?;
    let began = Instant::now();
    let (status, answer) = post(server.http, "/v1/push/wiki", &[JSON], rows(1, 1, 1))?;
    ensure(status == 200, || answer.to_string())?;
    let mut answer = [0; 12];
    slow.set_read_timeout(Some(LIMIT))?;
    slow.read_exact(&mut answer)?;
    ensure(answer == *b"HTTP/1.1 408", || String::from_utf8_lossy(&answer).into_owned())?;
    ensure(began.elapsed() >= Duration::from_secs(9), || format!("{:?}", began.elapsed()))?;
    ensure(count(&server)? == 1, || "something that was refused is seen".to_owned())
}

/// A file system of its own; unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` if this user may not mount any.
    fn mount(path: &std::path::Path) -> Result<Option<Self>, Failed> {
        std::fs::create_dir_all(path)?;
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path).stderr(Stdio::null()).status()?;
        Ok(mounted.success().then(|| Self(path.to_owned())))
    }

    fn grow(&self) -> Result<(), Failed> {
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status()?;
        ensure(grown.success(), || grown.to_string())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The directory that it is in goes next, and says so if this failed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn full() -> Result<Completion, Failed> {
    let place = Place::new()?;
    let Some(disk) = SmallDisk::mount(&place.data().join("realtime"))? else {
        return Ok(Completion::ignored_with("the right to mount a file system"));
    };
    let server = place.serve()?;
    let mut taken = 0;
    let refused = loop {
        // 400 kB or so.
        let (status, answer) = post(server.http, "/v1/push/wiki", &[JSON], rows(1, taken, 5_000))?;
        match status {
            200 => taken += 1,
            _ => break (status, answer),
        }
        ensure(taken < 100, || "the disk is never full".to_owned())?;
    };
    ensure(refused.0 == 503, || format!("{refused:?}"))?;
    contains(refused.1["errorMessage"].as_str().unwrap_or_default(), &["is full", "make room"])?;
    ensure(taken > 1 && count(&server)? == taken * 5_000, || format!("{taken} requests"))?;
    let (status, _) = post(server.http, "/v1/push/wiki", &[JSON], rows(1, 0, 5_000))?;
    ensure(status == 503 && count(&server)? == taken * 5_000, || status.to_string())?;
    disk.grow()?;
    let (status, answer) = post(server.http, "/v1/push/wiki", &[JSON], rows(1, taken, 5_000))?;
    ensure(status == 200 && count(&server)? == (taken + 1) * 5_000, || answer.to_string())?;
    // What was refused is not there after a restart either.
    server.kill()?;
    let server = place.serve()?;
    ensure(count(&server)? == (taken + 1) * 5_000, || "not what was acknowledged".to_owned())?;
    server.kill()?;
    drop(disk);
    Ok(Completion::Completed)
}

fn declared() -> Result<(), Failed> {
    let place = Place::new()?;
    let server = place.serve()?;
    let spec = json!({"type": "push", "spec": {
        "dataSchema": {
            "dataSource": "wiki",
            "timestampSpec": {"column": "time"},
            "dimensionsSpec": {"dimensions": ["page"]},
            "metricsSpec": [{"type": "count", "name": "count"}],
            "granularitySpec": {"segmentGranularity": "HOUR", "queryGranularity": "HOUR", "rollup": true},
        },
        "ioConfig": {"type": "push", "earlyMessageRejectionPeriod": "P1D"},
    }});
    let (status, answer) = http(&server, "/v1/push/wiki/spec", Some(&spec))?;
    ensure(status == 200, || answer.to_string())?;
    let (_, answer) = post(server.http, "/v1/push/wiki", &[JSON], [rows(1, 1, 12), rows(1, 1, 12)].concat())?;
    ensure(answer["rows"] == 24, || answer.to_string())?;
    let (_, answer) =
        post(server.http, "/v1/push/wiki", &[JSON], b"{\"time\": \"2999-01-01\", \"page\": \"x\"}\n".to_vec())?;
    ensure(answer["rows"] == 0 && answer["ignored"] == 1, || answer.to_string())?;
    let events = |server: &Server| ask(server, "SELECT SUM(\"count\"), COUNT(DISTINCT page) FROM wiki");
    ensure(events(&server)? == [["24", "12"]], || "not all are seen".to_owned())?;
    let live = "SELECT COUNT(*) FROM sys.segments WHERE is_realtime = 1 AND is_published = 0";
    ensure(ask(&server, live)? == [["12"]], || format!("{:?}", ask(&server, live)))?;
    let (_, done) = post(server.http, "/v1/push/wiki/handoff", &[JSON], Vec::new())?;
    ensure(done["segments"].as_array().is_some_and(|segments| segments.len() == 12), || done.to_string())?;
    ensure(ask(&server, live)? == [["0"]] && events(&server)? == [["24", "12"]], || "the hand-off is seen".to_owned())?;
    ensure(ask(&server, "SELECT COUNT(*) FROM wiki")? == [["12"]], || "rows that agree are one".to_owned())?;
    let metrics = block_on(async { reqwest::get(format!("http://{}/metrics", server.http)).await?.text().await })?;
    contains(
        &metrics,
        &[
            "henge_realtime_events_total{datasource=\"wiki\"} 24",
            "henge_realtime_handoffs_total{datasource=\"wiki\"} 1",
            "henge_realtime_rejected_events_total{datasource=\"wiki\",reason=\"early\"} 1",
            "henge_realtime_live_rows{datasource=\"wiki\"} 0",
        ],
    )?;
    let (_, status) = http(&server, "/v1/push/wiki", None)?;
    ensure(status["state"] == "RUNNING" && status["walPosition"] == status["publishedPosition"], || status.to_string())
}

fn inserted() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let insert =
        "INSERT INTO wiki (__time, page, added) VALUES ('2013-08-01 10:00:00', 'D', 16), ('2013-08-05', 'E', 32)";
    ensure(ask(&server, insert)?.is_empty(), || "rows for an INSERT".to_owned())?;
    super::sum_is(&server, 55)?;
    server.kill()?;
    let server = place.serve()?;
    super::sum_is(&server, 55)?;
    let (_, done) = post(server.http, "/v1/push/wiki/handoff", &[JSON], Vec::new())?;
    ensure(done["rows"] == 2, || done.to_string())?;
    super::sum_is(&server, 55)
}

/// `henge generate wikipedia --rate N | henge push wikipedia`, and the count is seen to grow.
fn piped() -> Result<(), Failed> {
    const EDITS: &str = "3000";
    let place = Place::new()?;
    let server = place.serve()?;
    let mut generate = henge(&["generate", "wikipedia", "--rate", "4000", "--rows", EDITS]);
    let mut generate = generate.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let from: Stdio = generate.stdout.take().ok_or("no pipe")?.into();
    let mut push: Command = place.henge(&["push", "wikipedia", "--batch", "200"]);
    let push = push.stdin(from).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let seen = |server: &Server| match ask(server, "SELECT COUNT(*), COUNT(user) FROM wikipedia") {
        Ok(rows) => Ok(Some(rows[0].clone())),
        Err(_) => Ok(None),
    };
    until("the first edits", || seen(&server))?;
    let ended = push.wait_with_output()?;
    generate.wait()?;
    ensure(ended.status.success(), || String::from_utf8_lossy(&ended.stderr).into_owned())?;
    let last = seen(&server)?;
    ensure(last == Some(vec![EDITS.to_owned(); 2]), || format!("{last:?}"))
}
