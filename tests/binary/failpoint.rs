//! F34: the process ends at each of the steps that a row takes from a request to a published segment. What was
//! acknowledged is there afterwards, once.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::push::{JSON, post};
use super::{Place, ask};
use crate::harness::ensure;
use crate::harness::process::Server;

/// Where the process ends, at which time of passing there, and how many rows a request has.
const STEPS: [(&str, u64, u64); 12] = [
    ("log.written", 4, 5),
    ("log.synced", 4, 5),
    // Only full chunks are moved to files.
    ("chunk.written", 2, 20_000),
    ("generation.closed", 1, 5),
    ("segments.sealed", 2, 5),
    ("pushes.intended", 1, 5),
    ("segment.pushed", 2, 5),
    ("segments.pushed", 1, 5),
    ("publication.committed", 2, 5),
    ("publication.shown", 1, 5),
    ("log.passed", 1, 5),
    ("log.removed", 1, 5),
];
const CLIENTS: u64 = 2;

pub fn trials() -> Vec<Trial> {
    let trial = |(step, time, rows): (&'static str, u64, u64)| {
        Trial::test(format!("binary::failpoint::f34_the_process_ends_at_{step}"), move || ends_at(step, time, rows))
    };
    STEPS.into_iter().map(trial).collect()
}

/// What was acknowledged to each client; the request after that may have been sent.
type Acknowledged = [Mutex<u64>; CLIENTS as usize];

fn ends_at(step: &str, time: u64, rows: u64) -> Result<(), Failed> {
    let place = Place::new()?;
    let mut command = place.henge(&["server", "--pg-port", "0", "--http-port", "0", "--memory-limit", "64MB"]);
    command.env("HENGE_CRASH_AT", format!("{step}:{time}"));
    let mut server = Server::spawn(command)?;
    let (acknowledged, is_over) = (Acknowledged::default(), AtomicBool::new(false));
    let address = server.http;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (acknowledged, is_over) = (&acknowledged[client as usize], &is_over);
            scope.spawn(move || send(address, client, rows, acknowledged, is_over));
        }
        // A hand-off of rows that fill chunks would let no chunk wait for room.
        if step != "chunk.written" {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let _ = post(address, "/v1/push/wiki/handoff", &[JSON], Vec::new());
                }
            });
        }
        let ended = server.ends();
        is_over.store(true, Ordering::Release);
        ended
    })
    .map_err(|error| format!("{step} was not passed: {}", super::message(&error)))?;
    drop(server);
    let server = place.serve()?;
    check(&server, &acknowledged, rows)?;
    let (status, done) = post(server.http, "/v1/push/wiki/handoff", &[JSON], Vec::new())?;
    // Where nothing was acknowledged, nobody knows the data source.
    let had_any = acknowledged.iter().any(|number| *number.lock().expect("no panic") > 0);
    ensure(status == 200 || !had_any, || done.to_string())?;
    check(&server, &acknowledged, rows)
}

fn body(client: u64, sequence: u64, rows: u64) -> Vec<u8> {
    let row = |n: u64| {
        let (day, hour) = (1 + n % 2, n % 24);
        let page = if rows > 100 { format!("page {sequence} {n} {}", "x".repeat(100)) } else { format!("p{n}") };
        let time = format!("2013-08-0{day}T{hour:02}:00:00Z");
        format!("{}\n", json!({"time": time, "client": client, "sequence": sequence, "page": page}))
    };
    (0..rows).map(row).collect::<String>().into_bytes()
}

/// One request after another until one fails.
fn send(http: SocketAddr, client: u64, rows: u64, acknowledged: &Mutex<u64>, is_over: &AtomicBool) {
    for sequence in 1.. {
        if is_over.load(Ordering::Acquire) {
            return;
        }
        let path = format!("/v1/push/wiki?producer=client{client}&sequence={sequence}");
        let body = body(client, sequence, rows);
        loop {
            match post(http, &path, &[JSON], body.clone()) {
                Ok((200, answer)) if answer["rows"] == rows => break,
                // There is no room just now.
                Ok((429, _)) if !is_over.load(Ordering::Acquire) => {}
                _ => return,
            }
        }
        *acknowledged.lock().expect("no panic") = sequence;
    }
}

/// Every request that was acknowledged is there once and whole; the next one of each client may be.
fn check(server: &Server, acknowledged: &Acknowledged, rows: u64) -> Result<(), Failed> {
    let acknowledged = acknowledged.iter().map(|number| *number.lock().expect("no panic")).collect::<Vec<_>>();
    if acknowledged.iter().all(|number| *number == 0) {
        return Ok(());
    }
    let found = ask(server, "SELECT client, sequence, COUNT(*) FROM wiki GROUP BY 1, 2 ORDER BY 1, 2")?;
    let mut next = vec![1; acknowledged.len()];
    for row in found {
        let (client, sequence, count): (usize, u64, u64) = (row[0].parse()?, row[1].parse()?, row[2].parse()?);
        ensure(sequence == next[client] && count == rows, || {
            format!("client {client}: {count} rows of request {sequence}, {} was expected", next[client])
        })?;
        next[client] += 1;
    }
    for (client, (next, acknowledged)) in next.into_iter().zip(acknowledged).enumerate() {
        let there = next - 1;
        ensure(there == acknowledged || there == acknowledged + 1, || {
            format!("client {client}: {acknowledged} requests were acknowledged, and {there} are there")
        })?;
    }
    Ok(())
}
