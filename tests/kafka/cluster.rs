//! The same in a cluster, whose realtime processes run supervisors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use libtest_mimic::Failed;
use serde_json::json;

use super::{SUPERVISOR, Writing, spec, write};
use crate::harness::ensure;
use crate::harness::kafka::Broker;
use crate::harness::process::until;
use crate::harness::servers::{Node, Place};

const COUNT: &str = "SELECT COUNT(*)::text || ' ' || COUNT(DISTINCT n)::text FROM wiki";
const REALTIME: &[&str] = &["--drop-delay", "PT1S"];
const TOPIC: &str = "clustered";

/// Records are counted once, and never fewer than in the answer before, through hand-offs, while the process that reads
/// them is killed, hangs or ends and another one takes over.
pub(super) fn taken_over(broker: &Broker) -> Result<(), Failed> {
    broker.make_topic(TOPIC, 2)?;
    write(&broker.writer()?, TOPIC, 2, 0..100)?;
    let place = Place::new()?;
    let coordinator = place.start("coordinator", "coordinator", &[])?;
    let _historical = place.start("historical", "historical", crate::servers::HISTORICAL)?;
    let mut runners = vec![
        place.start("first", "realtime", REALTIME)?.ready()?,
        place.start("second", "realtime", REALTIME)?.ready()?,
    ];
    let asked = place.start("broker", "broker", &[])?.ready()?;
    until("a coordinator that takes the spec", || {
        let (status, answer) = coordinator.ask(SUPERVISOR, Some(&spec(broker, TOPIC)))?;
        ensure(status == 200 || status == 503, || answer.to_string())?;
        Ok((status == 200).then_some(()))
    })?;
    asked.becomes(COUNT, "100 100")?;
    is_told(&asked, &coordinator)?;

    let writing = Writing::new(broker, TOPIC);
    writing.begun.store(100, Ordering::SeqCst);
    let asking = Asking::default();
    std::thread::scope(|scope| {
        let written = scope.spawn(|| writing.run(2, 40));
        let answered = scope.spawn(|| asking.run(&asked, &writing));
        let done = (|| {
            for _ in 0..3 {
                asking.sees_more(50)?;
                hand_off(&coordinator)?;
            }
            ensure(asking.failures.load(Ordering::SeqCst) == 0, || "queries failed while nobody died".to_owned())?;
            asking.sees_more(50)?;
            let runner = runs(&runners)?;
            let ports = runners.remove(runner).kill()?;
            asking.sees_more(500)?;
            hand_off(&coordinator)?;
            // The name of the first one, again: it has lost what it had, and begins anew.
            let name = if runner == 0 { "first" } else { "second" };
            runners.push(place.start_again(name, "realtime", REALTIME, &ports)?.ready()?);
            asking.sees_more(50)?;
            // One that hangs until another one has its lease, and goes on, changes nothing.
            let hung = runners.remove(0);
            hung.signal("STOP")?;
            asking.sees_more(500)?;
            hand_off(&coordinator)?;
            hung.signal("CONT")?;
            until("the one that hung to see that it lost the lease", || {
                Ok((hung.ask(SUPERVISOR, None)?.1 == json!([])).then_some(()))
            })?;
            asking.sees_more(50)?;
            hand_off(&coordinator)?;
            // One that ends as it should is followed at once.
            runners.remove(0).end()?;
            runners.push(hung);
            asking.sees_more(500)?;
            hand_off(&coordinator)
        })();
        writing.stop.store(true, Ordering::Release);
        written.join().expect("no panic")?;
        asking.is_over.store(true, Ordering::SeqCst);
        answered.join().expect("no panic")?;
        done
    })?;
    let all = writing.done.load(Ordering::SeqCst);
    asked.becomes(COUNT, &format!("{all} {all}"))?;
    terminate(&coordinator, &asked)?;
    asked.becomes(COUNT, &format!("{all} {all}"))
}

/// Both the broker and the coordinator say how it is.
fn is_told(asked: &Node, coordinator: &Node) -> Result<(), Failed> {
    asked.becomes(
        "SELECT supervisor_id || ' ' || state || ' ' || source FROM sys.supervisors LIMIT 1",
        "wiki RUNNING clustered",
    )?;
    let (status, list) = coordinator.ask(&format!("{SUPERVISOR}?state=true"), None)?;
    ensure(status == 200 && list[0]["state"] == "RUNNING", || list.to_string())?;
    let (status, one) = coordinator.ask(&format!("{SUPERVISOR}/wiki/status"), None)?;
    ensure(status == 200 && one["payload"]["state"] == "RUNNING", || one.to_string())?;
    let (status, none) = coordinator.ask(&format!("{SUPERVISOR}/none/status"), None)?;
    ensure(status == 404, || none.to_string())?;
    let (status, refused) = asked.ask(&format!("{SUPERVISOR}/wiki/reset"), Some(&json!({})))?;
    ensure(status == 400 && refused["errorMessage"].as_str().is_some_and(|m| m.contains("confirm=true")), || {
        refused.to_string()
    })
}

fn hand_off(coordinator: &Node) -> Result<(), Failed> {
    until("a hand-off", || {
        let (status, done) = coordinator.ask(&format!("{SUPERVISOR}/wiki/taskGroups/handoff"), Some(&json!({})))?;
        ensure(status == 200 || status == 503, || format!("{status}: {done}"))?;
        Ok((status == 200).then_some(()))
    })
}

/// Which of them runs it.
fn runs(nodes: &[Node]) -> Result<usize, Failed> {
    for (at, node) in nodes.iter().enumerate() {
        if node.ask(SUPERVISOR, None)?.1 == json!(["wiki"]) {
            return Ok(at);
        }
    }
    Err("nobody runs it".into())
}

fn terminate(coordinator: &Node, asked: &Node) -> Result<(), Failed> {
    let (status, done) = coordinator.ask(&format!("{SUPERVISOR}/wiki/terminate"), Some(&json!({})))?;
    ensure(status == 200, || format!("{status}: {done}"))?;
    asked.becomes("SELECT COUNT(*) FROM sys.sinks", "0")?;
    asked.becomes("SELECT COUNT(*) FROM sys.supervisors", "0")?;
    let (_, history) = coordinator.ask(&format!("{SUPERVISOR}/history"), None)?;
    ensure(history.as_array().is_some_and(|entries| entries.len() >= 2), || history.to_string())
}

/// Who asks again and again.
#[derive(Default)]
struct Asking {
    seen: AtomicU64,
    failures: AtomicU64,
    is_over: AtomicBool,
}

impl Asking {
    fn run(&self, node: &Node, writing: &Writing<'_>) -> Result<(), Failed> {
        while !self.is_over.load(Ordering::SeqCst) {
            let least = self.seen.load(Ordering::SeqCst);
            let Ok(answer) = node.sql(COUNT) else {
                // Clear, since nobody has the rows: what it says is not looked at here.
                self.failures.fetch_add(1, Ordering::SeqCst);
                continue;
            };
            let most = writing.begun.load(Ordering::SeqCst);
            let (rows, different) = answer.split_once(' ').ok_or("two numbers")?;
            let (rows, different): (u64, u64) = (rows.parse()?, different.parse()?);
            ensure(rows == different && (least..=most).contains(&rows), || {
                format!("{rows} rows, {different} different, is not within {least}..={most}")
            })?;
            self.seen.store(rows, Ordering::SeqCst);
        }
        Ok(())
    }

    fn sees_more(&self, rows: u64) -> Result<(), Failed> {
        let before = self.seen.load(Ordering::SeqCst);
        until("answers with more rows", || Ok((self.seen.load(Ordering::SeqCst) >= before + rows).then_some(())))
    }
}
