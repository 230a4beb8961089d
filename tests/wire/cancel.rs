//! A query that is no longer wanted: its client is told at once, and the processors are free soon after.

use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use tokio_postgres::{Client, NoTls};

use super::Turn;
use crate::harness::{block_on, ensure};

/// Queries that would run for minutes, by what they spend them in. None gives a row before its end.
const ENDLESS: &[(&str, &str)] = &[
    ("cross_join", "SELECT SUM(a.added + b.added + c.added) FROM wikiticker a, wikiticker b, wikiticker c"),
    (
        "join_on_a_condition",
        "SELECT COUNT(*) FROM wikiticker a JOIN wikiticker b ON a.added < b.added JOIN wikiticker c ON c.added + a.added > b.deleted + 1000000000",
    ),
    (
        "hash_join",
        "SELECT COUNT(*) FROM wikiticker a JOIN (SELECT b.\"isRobot\" AS robot FROM wikiticker b, generate_series(1, 1000000) AS n) AS b ON a.\"isRobot\" = b.robot",
    ),
    (
        "sort_that_spills",
        "SELECT COUNT(*) FROM (SELECT page, ROW_NUMBER() OVER (ORDER BY page, other) AS place FROM (SELECT a.page, b.page AS other FROM wikiticker a, wikiticker b) AS pairs) AS sorted WHERE place < 0",
    ),
    (
        "aggregate_that_spills",
        "SELECT MAX(n) FROM (SELECT a.page || b.page || c.channel AS pages, COUNT(*) AS n FROM wikiticker a, wikiticker b, wikiticker c GROUP BY 1) AS grouped",
    ),
    (
        "window",
        "SELECT MAX(r) FROM (SELECT SUM(a.added) OVER (PARTITION BY a.channel ORDER BY b.page, a.page) AS r FROM wikiticker a, wikiticker b) AS windows",
    ),
    ("distinct", "SELECT COUNT(DISTINCT a.page || b.page) FROM wikiticker a, wikiticker b"),
    ("series", "SELECT SUM(n) FROM generate_series(1, 1000000000000) AS n"),
    ("recursion", "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT MAX(n) FROM t"),
    (
        "union",
        "SELECT COUNT(*) FROM (SELECT a.page FROM wikiticker a, wikiticker b, wikiticker c UNION SELECT b.channel FROM wikiticker a, wikiticker b, wikiticker c) AS both",
    ),
];

/// How long an answer to a cancel request may take. A tenth of a second is what is aimed at; machines that test are busy.
const ANSWER: Duration = Duration::from_millis(500);
/// How long the processors may be busy after it: half a second. What was not optimized takes several times as long for the piece of
/// work that it has begun, the merge of two runs of a sort, say.
const RELEASE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 500 });

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("wire::cancel::every_operator_lets_go_of_the_processor", every_operator),
        Trial::test("wire::cancel::a_timeout_ends_the_work_too", timeout),
        Trial::test("wire::cancel::planning_ends_too", planning),
        Trial::test("wire::cancel::who_leaves_takes_the_query_along", disconnect),
    ]
}

fn every_operator() -> Result<(), Failed> {
    let turn = Turn::take()?;
    block_on(async {
        let client = turn.connect().await?;
        let mut slow = Vec::new();
        for (name, sql) in ENDLESS {
            match cancelled(&turn, &client, sql).await {
                Ok(()) => {}
                Err(failed) => slow.push(format!("{name}: {}", failed.message().unwrap_or("failed"))),
            }
        }
        ensure(slow.is_empty(), || slow.join("\n"))
    })
}

/// Runs it, cancels it, and runs another.
async fn cancelled(turn: &Turn, client: &Client, sql: &str) -> Result<(), Failed> {
    turn.idle(Duration::from_secs(20))?;
    let token = client.cancel_token();
    let canceler = async {
        busy(turn).await?;
        let asked = Instant::now();
        token.cancel_query(NoTls).await?;
        Ok::<_, Failed>(asked)
    };
    let (answer, asked) = tokio::join!(client.simple_query(sql), canceler);
    let asked = asked?;
    let told = asked.elapsed();
    let Err(error) = answer else { return Err("it ended before it was cancelled".into()) };
    let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    ensure(code == "57014", || format!("{code}: {error}"))?;
    let released = turn.idle(Duration::from_secs(5))?;
    ensure(told < ANSWER, || format!("told after {told:?}"))?;
    ensure(released < RELEASE, || format!("busy for {released:?} more"))?;
    let rows = client.simple_query("SELECT COUNT(*) FROM wikiticker WHERE added >= 0").await?;
    ensure(!rows.is_empty(), || "no answer after a cancelled query".into())
}

/// Waits until a query has been at work for a while.
async fn busy(turn: &Turn) -> Result<(), Failed> {
    let (began, before) = (Instant::now(), turn.cpu()?);
    while turn.cpu()? - before < Duration::from_millis(300) {
        if began.elapsed() > Duration::from_secs(60) {
            return Err("it did not come to work".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn timeout() -> Result<(), Failed> {
    let turn = Turn::take()?;
    block_on(async {
        let client = turn.connect().await?;
        client.batch_execute("SET statement_timeout = 300").await?;
        for (name, sql) in ENDLESS.iter().take(3) {
            turn.idle(Duration::from_secs(20))?;
            let began = Instant::now();
            let answer = client.simple_query(sql).await;
            let told = began.elapsed();
            let code = answer.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
            ensure(code.as_deref() == Some("57014"), || format!("{name}: {code:?}"))?;
            ensure(told >= Duration::from_millis(300) && told < Duration::from_secs(3), || {
                format!("{name}: {told:?}")
            })?;
            let released = turn.idle(Duration::from_secs(5)).map_err(|failed| format!("{name}: {failed:?}"))?;
            ensure(released < RELEASE, || format!("{name}: busy for {released:?} more"))?;
        }
        Ok(())
    })
}

/// Long expressions, many times: what takes seconds to plan and no time to run.
fn planning() -> Result<(), Failed> {
    let turn = Turn::take()?;
    block_on(async {
        let client = turn.connect().await?;
        let sum = vec!["added"; 200].join(" + ");
        let sums = (0..300).map(|at| format!("{sum} + {at} AS s{at}")).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {sums} FROM wikiticker WHERE added < -1");
        cancelled(&turn, &client, &sql).await?;
        turn.idle(Duration::from_secs(20))?;
        let mut raw = super::Raw::connect(turn.address())?;
        raw.send(b'Q', &[sql.as_bytes(), b"\0"].concat())?;
        busy(&turn).await?;
        drop(raw);
        let released = turn.idle(Duration::from_secs(5))?;
        ensure(released < RELEASE, || format!("busy for {released:?} more"))
    })
}

fn disconnect() -> Result<(), Failed> {
    let turn = Turn::take()?;
    block_on(async {
        for (name, sql) in ENDLESS {
            turn.idle(Duration::from_secs(20))?;
            let mut raw = super::Raw::connect(turn.address())?;
            raw.send(b'Q', &[sql.as_bytes(), b"\0"].concat())?;
            busy(&turn).await.map_err(|failed| format!("{name}: {failed:?}"))?;
            drop(raw);
            let released = turn.idle(Duration::from_secs(5)).map_err(|failed| format!("{name}: {failed:?}"))?;
            ensure(released < RELEASE, || format!("{name}: busy for {released:?} more"))?;
        }
        Ok(())
    })
}
