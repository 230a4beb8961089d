//! Statements and bytes that mean harm end their own connection at most.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Raw, Turn};
use crate::harness::{block_on, ensure, root};

pub fn trials() -> Vec<Trial> {
    // The bytes themselves are fuzzed in `server/src/pgwire/fuzz.rs`.
    vec![
        Trial::test("wire::hostile::deep_statements_are_answered_or_refused", deep),
        Trial::test("wire::hostile::messages_that_are_too_long_are_refused_before_they_come", long),
        Trial::test("wire::hostile::mutated_conversations_end_their_own_connection_only", mutated),
    ]
}

/// Few, as people and tools write them, and many, as nobody does. What was not optimized takes minutes to plan some hundreds.
const DEPTHS: [usize; 3] = [if cfg!(debug_assertions) { 60 } else { 490 }, 5_000, 100_000];
/// Mutated conversations.
const ROUNDS: u64 = 600;

/// A tree as deep as a statement is long: whoever walks it without care runs out of stack.
fn deep() -> Result<(), Failed> {
    let turn = Turn::take()?;
    let nested = |before: &str, after: &str, n: usize| format!("SELECT {}1{}", before.repeat(n), after.repeat(n));
    block_on(async {
        let client = turn.connect().await?;
        client.batch_execute("SET statement_timeout = '60s'").await?;
        for n in DEPTHS {
            let statements = [
                ("sum", format!("SELECT 1{}", " + 1".repeat(n))),
                ("or", format!("SELECT COUNT(*) FROM wikiticker WHERE added = 0{}", " OR added = 1".repeat(n))),
                ("and", format!("SELECT COUNT(*) FROM wikiticker WHERE added = 0{}", " AND page <> 'a'".repeat(n))),
                ("text", format!("SELECT 'a'{}", " || 'a'".repeat(n))),
                ("columns", format!("SELECT MAX(added{}) FROM wikiticker", " + deleted".repeat(n))),
                ("union", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(n))),
                ("cast", format!("SELECT 1{}", "::bigint".repeat(n))),
                ("brackets", nested("(", ")", n)),
                ("not", format!("SELECT {}true", "NOT ".repeat(n))),
                ("minus", nested("- ", "", n)),
                ("case", nested("CASE WHEN true THEN ", " END", n)),
                ("functions", nested("abs(", ")", n)),
                (
                    "subqueries",
                    format!("SELECT * FROM {}wikiticker{} LIMIT 1", "(SELECT * FROM ".repeat(n), ") AS t".repeat(n)),
                ),
                ("arrays", nested("ARRAY[", "]", n)),
                ("list", format!("SELECT 1 IN ({}1)", "1, ".repeat(n))),
            ];
            for (name, sql) in statements {
                if let Err(error) = client.simple_query(&sql).await {
                    let code = error.code().map(|code| code.code().to_owned());
                    let refused =
                        matches!(code.as_deref(), Some("54001" | "57014" | "42601" | "0A000" | "54000" | "22023"));
                    ensure(refused, || format!("{name} x {n}: {error} {:?}", error.as_db_error()))?;
                } else {
                    // Few are always taken, a list of any length too.
                    ensure(n <= 1_000 || name == "list", || format!("{name} x {n} was taken"))?;
                }
            }
        }
        turn.answers().await
    })
}

fn long() -> Result<(), Failed> {
    let turn = Turn::take()?;
    let before = turn.memory()?;
    let mut raw = Raw::connect(turn.address())?;
    raw.0.write_all(b"Q\x7f\xff\xff\xff")?;
    let mut answer = Vec::new();
    raw.0.read_to_end(&mut answer)?;
    ensure(String::from_utf8_lossy(&answer).contains("08P01"), || format!("{answer:?}"))?;
    // One that may come is kept as it comes, no sooner.
    let mut announced = Raw::connect(turn.address())?;
    announced.0.write_all(b"Q\x0f\xff\xff\xff")?;
    announced.0.write_all(&[b'x'; 1024])?;
    let grown = turn.memory()?.saturating_sub(before);
    ensure(grown < (32 << 20), || format!("{} MB for a message that did not come", grown >> 20))?;
    block_on(turn.answers())
}

/// Conversations of the corpus, whole and with a few bytes changed, cut off or put twice.
fn mutated() -> Result<(), Failed> {
    let turn = Turn::take()?;
    let bystander = block_on(turn.connect())?;
    let mut corpus = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(root().join("fuzz/corpus/conversation"))?.collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::path);
    for file in files {
        corpus.push(std::fs::read(file.path())?);
    }
    ensure(corpus.len() >= 5, || "the corpus is missing".into())?;
    for seed in 0..ROUNDS {
        let whole = &corpus[seed as usize % corpus.len()];
        let bytes = if seed < corpus.len() as u64 { whole.clone() } else { mutate(whole, seed) };
        converse(&turn, &bytes).map_err(|failed| format!("seed {seed}: {failed:?}"))?;
    }
    block_on(async {
        let rows = bystander.simple_query("SELECT COUNT(*) FROM wikiticker").await;
        ensure(rows.is_ok(), || format!("a connection that did no harm: {rows:?}"))?;
        turn.answers().await
    })
}

/// Says all of it, and waits until the server has said everything.
fn converse(turn: &Turn, bytes: &[u8]) -> Result<(), Failed> {
    let mut stream = TcpStream::connect(turn.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    // The server may have closed it already.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    match std::io::copy(&mut stream, &mut std::io::sink()) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err("it hangs".into()),
        _ => Ok(()),
    }
}

fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match random.random_range(0..6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if !bytes.is_empty() => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.random()),
            4 if !bytes.is_empty() => {
                let end = (at + random.random_range(1..40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ if bytes.len() > at + 4 => bytes[at..at + 4].copy_from_slice(&random.random::<u32>().to_be_bytes()),
            _ => {}
        }
    }
    bytes
}
