//! Results of any size in little memory, also for clients that do not read; and limits.

use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use super::{Raw, Turn};
use crate::harness::{block_on, ensure};

/// Gigabytes of rows, the first of which are there at once.
const HUGE: &str = "SELECT a.*, b.* FROM wikiticker a, wikiticker b";
/// Answers that would take gigabytes, of functions that keep all they are given.
const TOO_MUCH: &[&str] = &[
    "SELECT LENGTH(STRING_AGG(a.page || b.page || b.comment, ',')) FROM wikiticker a, wikiticker b",
    "SELECT CARDINALITY(ARRAY_AGG(a.added + b.added)) FROM wikiticker a, wikiticker b",
    "SELECT CARDINALITY(ARRAY_AGG(a.page || b.page)) FROM wikiticker a, wikiticker b",
    "SELECT CARDINALITY(ARRAY_AGG(a.page ORDER BY b.page)) FROM wikiticker a, wikiticker b",
    "SELECT PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY a.added + b.added) FROM wikiticker a, wikiticker b",
];

/// What a result may need beyond what the server has anyway: batches under way, encoded chunks, buffers of sockets.
const MORE: u64 = 64 << 20;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("wire::memory::a_client_that_does_not_read_costs_little", unread),
        Trial::test("wire::memory::the_first_row_comes_long_before_the_last", first_row),
        Trial::test("wire::memory::what_does_not_fit_is_an_error_and_nothing_else", too_much),
        Trial::test("wire::memory::idle_connections_cost_little", idle_connections),
    ]
}

fn unread() -> Result<(), Failed> {
    let turn = Turn::take()?;
    let query = [HUGE.as_bytes(), b"\0"].concat();
    let parse = [b"\0", query.as_slice(), b"\0\0"].concat();
    let extended: [(u8, &[u8]); 4] =
        [(b'P', &parse), (b'B', b"\0\0\0\x01\0\x01\0\0\0\x01\0\x01"), (b'E', b"\0\0\0\0\0"), (b'S', b"")];
    let simple: [(u8, &[u8]); 1] = [(b'Q', &query)];
    for messages in [&simple[..], &extended[..]] {
        turn.idle(Duration::from_secs(20))?;
        // What a first run leaves behind is not the result's.
        let mut warm = Raw::connect(turn.address())?;
        warm.send(b'Q', b"SELECT a.*, b.* FROM wikiticker a, wikiticker b LIMIT 1\0")?;
        warm.until(b'Z')?;
        let before = turn.memory()?;
        let mut raw = Raw::connect(turn.address())?;
        for (kind, body) in messages {
            raw.send(*kind, body)?;
        }
        raw.until(b'D')?;
        // It runs until nobody takes its rows.
        turn.idle(Duration::from_secs(60))?;
        let grown = turn.memory()?.saturating_sub(before);
        ensure(grown < MORE, || format!("{} MB more for rows that nobody reads", grown >> 20))?;
        drop(raw);
        turn.idle(Duration::from_secs(5))?;
    }
    Ok(())
}

fn first_row() -> Result<(), Failed> {
    let turn = Turn::take()?;
    turn.idle(Duration::from_secs(20))?;
    let mut raw = Raw::connect(turn.address())?;
    let began = Instant::now();
    raw.send(b'Q', &[HUGE.as_bytes(), b"\0"].concat())?;
    raw.until(b'D')?;
    let first = began.elapsed();
    // 25 million rows take minutes here.
    ensure(first < Duration::from_secs(5), || format!("the first row came after {first:?}"))
}

/// Asks for more than the server may use.
fn too_much() -> Result<(), Failed> {
    let turn = Turn::take()?;
    block_on(async {
        let client = turn.connect().await?;
        for sql in TOO_MUCH {
            let before = turn.memory()?;
            client.batch_execute("SET statement_timeout = '60s'").await?;
            let answer = client.simple_query(sql).await;
            let code =
                answer.err().map(|error| error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()));
            ensure(code.as_deref() == Some("53200"), || format!("{code:?} of {sql}"))?;
            let grown = turn.memory()?.saturating_sub(before);
            ensure(grown < (512 << 20), || format!("{} MB more after {sql}", grown >> 20))?;
        }
        turn.answers().await
    })
}

fn idle_connections() -> Result<(), Failed> {
    const CONNECTIONS: u64 = 90;
    let turn = Turn::take()?;
    // Threads, caches and pools are there before it is measured.
    drop((0..10).map(|_| Raw::connect(turn.address())).collect::<Result<Vec<_>, _>>()?);
    turn.idle(Duration::from_secs(20))?;
    let before = turn.memory()?;
    let connections = (0..CONNECTIONS).map(|_| Raw::connect(turn.address())).collect::<Result<Vec<_>, _>>()?;
    let each = turn.memory()?.saturating_sub(before) / CONNECTIONS;
    ensure(connections.len() as u64 == CONNECTIONS, || "connections are missing".into())?;
    ensure(each < (512 << 10), || format!("{} kB for each idle connection", each >> 10))
}
