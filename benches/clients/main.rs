//! What clients of PostgreSQL's protocol get from a server, ours or PostgreSQL itself: rows a second, and answers while many are
//! connected.
//!
//! ```text
//! cargo bench --bench clients -- URL TABLE [PID]
//! ```
//!
//! `URL` as `postgres://henge@127.0.0.1:5433/henge`; `TABLE` with a million rows; `PID` of the server, for its memory. Nothing is asserted.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const IDLE: usize = 500;
const ACTIVE: usize = 32;
const ASKING: Duration = Duration::from_secs(20);
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [url, table, rest @ ..] = arguments.as_slice() else {
        println!("usage: cargo bench --bench clients -- URL TABLE [PID]");
        return;
    };
    let pid = rest.first().cloned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for round in 1..=ROUNDS {
            rows(url, table, round).await;
        }
        connections(url, table, pid.as_deref()).await;
    });
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// All of the table by both protocols. Rows are taken apart, their values are not read.
async fn rows(url: &str, table: &str, round: usize) {
    let client = connect(url).await;
    let sql = format!("SELECT * FROM {table}");
    let began = Instant::now();
    let stream = client.simple_query_raw(&sql).await.unwrap();
    let count = async |total: u64, message| Ok(total + u64::from(matches!(message, SimpleQueryMessage::Row(_))));
    let text = stream.try_fold(0, count).await.unwrap();
    say(round, "text", text, began.elapsed());
    let began = Instant::now();
    let stream = client.query_raw(&sql, std::iter::empty::<i32>()).await.unwrap();
    let binary = stream.try_fold(0, |total, _| async move { Ok(total + 1) }).await.unwrap();
    say(round, "binary", binary, began.elapsed());
}

fn say(round: usize, form: &str, rows: u64, took: Duration) {
    println!("round {round}  {form:6}  {rows} rows in {took:.2?}: {:.0} rows/s", rows as f64 / took.as_secs_f64());
}

/// Many that say nothing, and some that always ask something small.
async fn connections(url: &str, table: &str, pid: Option<&str>) {
    let before = memory(pid);
    let began = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(connect(url).await);
    }
    println!("{IDLE} connections in {:.2?}", began.elapsed());
    if let (Some(before), Some(after)) = (before, memory(pid)) {
        println!("{} kB each", after.saturating_sub(before) / IDLE as u64);
    }
    let sql = format!(
        "SELECT channel, COUNT(*), SUM(added) FROM {table} WHERE page LIKE 'A%' GROUP BY channel ORDER BY 2 DESC LIMIT 10"
    );
    let mut asking = JoinSet::new();
    for _ in 0..ACTIVE {
        let (client, sql) = (connect(url).await, sql.clone());
        asking.spawn(async move {
            let statement = client.prepare(&sql).await.unwrap();
            let (began, mut took) = (Instant::now(), Vec::new());
            while began.elapsed() < ASKING {
                let asked = Instant::now();
                client.query(&statement, &[]).await.unwrap();
                took.push(asked.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = asking.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let rate = took.len() as f64 / ASKING.as_secs_f64();
    println!("{ACTIVE} asking: {rate:.0} answers/s, p50 {:.1?}, p99 {:.1?}", at(0.5), at(0.99));
    drop(idle);
}

/// In kilobytes. PostgreSQL has a process for each connection, whose shared pages are not told apart: its figure is left out.
fn memory(pid: Option<&str>) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid?)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}
