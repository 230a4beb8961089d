//! Workers that die, hang, lie or are asked to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use henge_engine::distributed::{PLAN_VERSION, ServedBy};
use henge_engine::error::Category;
use henge_engine::segment::Segment;
use henge_engine::session::{Cancel, Session};
use henge_server::grpc::PeerSecurity;
use libtest_mimic::{Failed, Trial};

use crate::harness::cluster::{Cluster, Served, answer, answer_until, holds_within};
use crate::harness::data::GENERATED;
use crate::harness::door::served;
use crate::harness::proxy::Proxy;
use crate::harness::render::{self, Row};
use crate::harness::slow::{Reads, Slow};
use crate::harness::{block_on, contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("cluster::a_query_survives_the_death_of_a_worker", a_query_survives_the_death_of_a_worker),
        Trial::test("cluster::a_dead_worker_is_not_asked", a_dead_worker_is_not_asked),
        Trial::test("cluster::f31_a_hung_worker_is_noticed", a_hung_worker_is_noticed),
        Trial::test("cluster::what_nobody_serves_is_named", what_nobody_serves_is_named),
        Trial::test("cluster::f07_a_worker_that_dropped_a_segment_is_passed_over", a_dropped_segment),
        Trial::test("cluster::a_worker_of_another_version_is_not_planned_on", another_version),
        Trial::test("cluster::strangers_are_not_answered", strangers_are_not_answered),
        Trial::test("cluster::a_canceled_query_stops_on_the_workers", a_canceled_query_stops_on_the_workers),
        Trial::test("cluster::f26_a_query_out_of_time_stops_on_the_workers", a_query_out_of_time),
        Trial::test("cluster::f08_what_many_segments_are_missing_is_told_in_full", many_segments),
        Trial::test("cluster::f19_what_a_dead_broker_asked_ends_on_the_workers", the_broker_dies),
        Trial::test("cluster::f25_clients_leave_at_any_time", clients_leave),
        Trial::test("cluster::errors_of_workers_arrive_as_they_were", errors_arrive_as_they_were),
        Trial::test("cluster::explain_shows_the_stages", explain_shows_the_stages),
        Trial::test("cluster::functions_of_a_session_run_on_the_broker", functions_of_a_session),
    ]
}

const GROUPS: &str = "SELECT channel, COUNT(*), SUM(added) FROM wikiticker GROUP BY channel ORDER BY channel";

pub(super) fn generated() -> Vec<Served> {
    GENERATED.iter().map(served).collect()
}

/// Two workers that both serve everything.
fn replicated() -> Cluster {
    Cluster::with(generated(), 2, PeerSecurity::default(), |_| vec![0, 1])
}

pub(super) async fn ask(session: &Session, sql: &str) -> henge_engine::Result<Vec<Row>> {
    Ok(render::rows(&answer(session, sql).await?.1))
}

fn within(limit: Duration, since: Instant, what: &str) -> Result<(), Failed> {
    let took = since.elapsed();
    ensure(took < limit, || format!("{what} took {took:?}, more than {limit:?}"))
}

/// A data source of one segment that is slow to read, on both of two workers.
fn slow(reads: &Arc<Reads>) -> Cluster {
    let segment: Arc<dyn Segment> = Arc::new(Slow::new(Arc::clone(reads)));
    let served = Served { name: "slow", schema: Arc::clone(segment.schema()), segments: vec![segment] };
    Cluster::with(vec![served], 2, PeerSecurity::default(), |_| vec![0, 1])
}

fn a_query_survives_the_death_of_a_worker() -> Result<(), Failed> {
    block_on(async {
        let reads = Arc::new(Reads::default());
        let mut cluster = slow(&reads);
        let session = cluster.session();
        let sql = "SELECT added, COUNT(*) FROM slow WHERE added % 2 = 1 GROUP BY added";
        let asked = tokio::spawn(async move { ask(&session, sql).await });
        ensure(holds_within(Duration::from_secs(10), || reads.count() > 2).await, || "nothing is read".to_owned())?;
        let busy = cluster.workers.iter().position(|node| node.worker.num_running() > 0);
        let busy = busy.ok_or("a worker runs the query")?;
        cluster.workers[busy].kill();
        reads.hurry();
        let rows = asked.await?.map_err(|error| format!("the query failed: {error:?}"))?;
        let expected = vec![vec!["1".to_owned(), Slow::ROWS.to_string()]];
        ensure(rows == expected, || format!("{rows:?}, not {expected:?}"))
    })
}

fn a_dead_worker_is_not_asked() -> Result<(), Failed> {
    block_on(async {
        let mut cluster = replicated();
        let session = cluster.session();
        let expected = ask(&session, GROUPS).await?;
        cluster.workers[0].kill();
        for _ in 0..20 {
            let asked = Instant::now();
            let rows = ask(&session, GROUPS).await.map_err(|error| format!("{error:?}"))?;
            ensure(rows == expected, || format!("{rows:?}"))?;
            within(Duration::from_secs(1), asked, "a query after the death of a worker")?;
        }
        Ok(())
    })
}

fn a_hung_worker_is_noticed() -> Result<(), Failed> {
    block_on(async {
        let cluster = replicated();
        let uids = cluster.uids("wikiticker").to_vec();
        let proxy = Proxy::to(cluster.workers[0].address).await;
        cluster.placement.leave(&cluster.workers[0].url());
        cluster.placement.announce(proxy.url(), ServedBy::Historical, uids);
        let session = cluster.session();
        let expected = ask(&session, GROUPS).await?;
        for sql in ["SET henge.shuffle = off", "SET henge.shuffle = on"] {
            ask(&session, sql).await?;
            proxy.freeze();
            let asked = Instant::now();
            let rows = ask(&session, GROUPS).await.map_err(|error| format!("{sql}: {error:?}"))?;
            ensure(rows == expected, || format!("{rows:?}"))?;
            within(Duration::from_secs(3), asked, "the first query after a worker hung")?;
            let asked = Instant::now();
            ask(&session, GROUPS).await.map_err(|error| format!("{sql}: {error:?}"))?;
            within(Duration::from_secs(1), asked, "the second query after a worker hung")?;
            proxy.thaw();
            // It is asked again by itself when it is well.
            let is_used = async {
                while ask(&session, &format!("EXPLAIN {GROUPS}"))
                    .await
                    .is_ok_and(|plan| !shows(&plan, proxy.url().as_str()))
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), is_used).await.map_err(|_| "the worker stays suspected")?;
        }
        Ok(())
    })
}

fn shows(plan: &[Row], text: &str) -> bool {
    plan.iter().flatten().any(|cell| cell.contains(text))
}

fn what_nobody_serves_is_named() -> Result<(), Failed> {
    block_on(async {
        let mut cluster = Cluster::with(generated(), 3, PeerSecurity::default(), |segment| {
            if segment == 0 { vec![0, 1] } else { vec![1, 2, 0] }
        });
        // Of segment 0 both replicas go; all others are served by the third worker too.
        let session = cluster.session();
        let whole = ask(&session, "SELECT COUNT(*) FROM wikipedia WHERE added + 0 >= 0 OR added IS NULL").await?;
        cluster.workers[0].kill();
        cluster.workers[1].kill();
        let sql = "SELECT COUNT(*) FROM wikipedia WHERE added + 0 >= 0 OR added IS NULL";
        let error = ask(&session, sql).await.expect_err("a segment is served nowhere");
        ensure(error.category() == Category::ServiceUnavailable, || format!("{error:?}"))?;
        ensure(error.sqlstate() == Some("57P03"), || format!("{error:?}"))?;
        contains(&error.to_string(), &["1 segment", "`wikipedia` "])?;
        let others = ask(&session, GROUPS).await.map_err(|error| format!("another data source: {error:?}"))?;
        ensure(!others.is_empty(), || "no rows".to_owned())?;
        ask(&session, "SET henge.allow_partial_results = on").await?;
        let part = ask(&session, sql).await.map_err(|error| format!("partial results: {error:?}"))?;
        ensure(part[0][0].parse::<u64>()? + 1024 == whole[0][0].parse::<u64>()?, || format!("{part:?} of {whole:?}"))?;
        let notices = session.take_notices();
        ensure(notices.len() == 1, || format!("{notices:?}"))?;
        contains(&notices[0], &["1 segment", "`wikipedia` "])
    })
}

fn a_dropped_segment() -> Result<(), Failed> {
    block_on(async {
        let cluster = replicated();
        let session = cluster.session();
        let expected = ask(&session, GROUPS).await?;
        let uids = cluster.uids("wikiticker").to_vec();
        // Each worker has dropped some that the other has, and the broker has not heard of it.
        for (number, uid) in uids.iter().enumerate() {
            cluster.workers[number % 2].segments.remove(*uid);
        }
        for sql in ["SET henge.shuffle = off", "SET henge.shuffle = on"] {
            ask(&session, sql).await?;
            let rows = ask(&session, GROUPS).await.map_err(|error| format!("{sql}: {error:?}"))?;
            ensure(rows == expected, || format!("{rows:?}"))?;
        }
        cluster.workers[1].segments.remove(uids[0]);
        cluster.workers[0].segments.remove(uids[0]);
        let error = ask(&session, GROUPS).await.expect_err("a segment is served nowhere");
        ensure(error.category() == Category::ServiceUnavailable, || format!("{error:?}"))
    })
}

fn another_version() -> Result<(), Failed> {
    block_on(async {
        let cluster = replicated();
        let session = cluster.session();
        let uids = cluster.uids("wikiticker").to_vec();
        for node in &cluster.workers {
            cluster.placement.announce_version(node.url(), ServedBy::Historical, uids.clone(), "0.0.1/0");
        }
        let error = ask(&session, GROUPS).await.expect_err("nobody of this version serves anything");
        ensure(error.category() == Category::ServiceUnavailable, || format!("{error:?}"))?;
        ensure(PLAN_VERSION != "0.0.1/0", || "the version is real".to_owned())
    })
}

fn strangers_are_not_answered() -> Result<(), Failed> {
    block_on(async {
        let secret = |text: &str| PeerSecurity { secret: Some(text.to_owned()), tls: None };
        let cluster = Cluster::with(generated(), 2, secret("one of us"), |_| vec![0, 1]);
        ask(&cluster.session(), GROUPS).await.map_err(|error| format!("those who know it: {error:?}"))?;
        let strange = Cluster::with(Vec::new(), 0, secret("a guess"), |_| vec![]);
        let nobody = Cluster::with(Vec::new(), 0, PeerSecurity::default(), |_| vec![]);
        for stranger in [strange, nobody] {
            use henge_engine::distributed::WorkerChannels;
            let mut channel = stranger.broker.peers.channel(&cluster.workers[0].url()).await?;
            let answered = channel.get_worker_info(henge_engine::distributed::GetWorkerInfoRequest {}).await;
            let error = answered.err().ok_or("a stranger was answered")?;
            contains(&error.to_string(), &["only processes of its cluster"])?;
        }
        Ok(())
    })
}

/// Queries that read row by row: with DataFusion's operators over the scan, and with ours.
const SLOW_QUERIES: [&str; 3] = [
    "SELECT added % 7, COUNT(*) FROM slow WHERE added % 2 = 1 GROUP BY 1",
    "SELECT added, COUNT(*), SUM(added) FROM slow WHERE added % 2 = 1 GROUP BY added",
    "SELECT SUM(added) FROM slow WHERE added % 2 = 1",
];

fn a_canceled_query_stops_on_the_workers() -> Result<(), Failed> {
    block_on(async {
        for shuffle in ["off", "on"] {
            for sql in SLOW_QUERIES {
                let reads = Arc::new(Reads::default());
                let cluster = slow(&reads);
                let session = cluster.session();
                ask(&session, &format!("SET henge.shuffle = {shuffle}")).await?;
                let asked = tokio::spawn(async move { ask(&session, sql).await });
                let begun = holds_within(Duration::from_secs(10), || reads.count() > 2).await;
                ensure(begun, || format!("{sql}: nothing is read"))?;
                asked.abort();
                ensure(asked.await.is_err_and(|error| error.is_cancelled()), || "it was too fast".to_owned())?;
                stops(&reads, sql).await?;
            }
        }
        Ok(())
    })
}

/// Whether reading ends within half a second. What is being read then, some blocks, still is.
async fn stops(reads: &Reads, sql: &str) -> Result<(), Failed> {
    let quiet = Duration::from_millis(300);
    let asked = Instant::now();
    loop {
        let before = reads.count();
        // Reading a block takes much less than this.
        tokio::time::sleep(quiet).await;
        if reads.count() == before {
            break;
        }
        within(Duration::from_millis(500) + quiet, asked, sql)?;
    }
    ensure(reads.count() < Slow::BLOCKS, || format!("{sql}: all was read"))
}

fn a_query_out_of_time() -> Result<(), Failed> {
    block_on(async {
        for sql in SLOW_QUERIES {
            let reads = Arc::new(Reads::default());
            let cluster = slow(&reads);
            let session = cluster.session();
            let asked = Instant::now();
            let cancel = Cancel::until(Some(asked + Duration::from_millis(400)));
            let error = answer_until(&session, sql, &cancel).await.expect_err("it takes much longer");
            ensure(error.sqlstate() == Some("57014"), || format!("{error:?}"))?;
            within(Duration::from_millis(900), asked, sql)?;
            stops(&reads, sql).await?;
        }
        Ok(())
    })
}

/// Twenty thousand segments, of which one worker of two has dropped all; then both have dropped a hundred.
fn many_segments() -> Result<(), Failed> {
    const SEGMENTS: usize = 20_000;
    block_on(async {
        let reads = Arc::new(Reads::default());
        reads.hurry();
        let segment: Arc<dyn Segment> = Arc::new(Slow::of(reads, 3));
        let schema = Arc::clone(segment.schema());
        let served = Served { name: "many", schema, segments: vec![segment; SEGMENTS] };
        let cluster = Cluster::with(vec![served], 2, PeerSecurity::default(), |_| vec![0, 1]);
        let session = cluster.session();
        let sql = "SELECT COUNT(*) FROM many WHERE added % 2 = 1";
        let expected = vec![vec![(3 * SEGMENTS).to_string()]];
        ensure(ask(&session, sql).await? == expected, || "with all of them".to_owned())?;
        let uids = cluster.uids("many");
        for uid in uids {
            cluster.workers[0].segments.remove(*uid);
        }
        let rows = ask(&session, sql).await.map_err(|error| format!("{error:?}"))?;
        ensure(rows == expected, || format!("{rows:?}, not {expected:?}"))?;
        for uid in &uids[..100] {
            cluster.workers[1].segments.remove(*uid);
        }
        let error = ask(&session, sql).await.expect_err("a hundred are nowhere");
        ensure(error.category() == Category::ServiceUnavailable, || format!("{error:?}"))?;
        contains(&error.to_string(), &["100 segments"])
    })
}

fn the_broker_dies() -> Result<(), Failed> {
    block_on(async {
        let reads = Arc::new(Reads::default());
        let mut cluster = slow(&reads);
        let session = cluster.session();
        let asked = tokio::spawn(async move { ask(&session, SLOW_QUERIES[0]).await });
        ensure(holds_within(Duration::from_secs(10), || reads.count() > 2).await, || "nothing is read".to_owned())?;
        cluster.broker.kill();
        stops(&reads, "the query of a broker that died").await?;
        let idle = || cluster.workers.iter().all(|node| node.worker.num_running() == 0);
        ensure(holds_within(Duration::from_secs(1), idle).await, || "a worker goes on".to_owned())?;
        asked.abort();
        Ok(())
    })
}

fn clients_leave() -> Result<(), Failed> {
    block_on(async {
        let reads = Arc::new(Reads::default());
        let cluster = slow(&reads);
        for (number, sql) in (0..10).zip(SLOW_QUERIES.iter().cycle()) {
            let session = cluster.session();
            let asked = tokio::spawn(async move { ask(&session, sql).await });
            // Somewhere between the first plan and the last rows.
            let _ = tokio::time::timeout(Duration::from_millis(number * 37), std::future::pending::<()>()).await;
            asked.abort();
            let idle = || cluster.workers.iter().all(|node| node.worker.num_running() == 0);
            // Half a second where nothing else runs.
            let ended = holds_within(Duration::from_secs(2), idle).await;
            ensure(ended, || format!("{sql}, left after {} ms, goes on", number * 37))?;
        }
        Ok(())
    })
}

fn errors_arrive_as_they_were() -> Result<(), Failed> {
    block_on(async {
        let cluster = replicated();
        let session = cluster.session();
        for (sql, sqlstate) in [
            ("SELECT page, 1 / (added - added) FROM wikiticker WHERE added IS NOT NULL", "22012"),
            ("SELECT SUM(added * 9223372036854775807) FROM wikiticker WHERE added > 2", "22003"),
            ("SELECT channel, COUNT(*) FROM wikiticker WHERE CAST(page AS BIGINT) > 0 GROUP BY channel", "22P02"),
        ] {
            let error = ask(&session, sql).await.expect_err(sql);
            ensure(error.sqlstate() == Some(sqlstate), || format!("{sql}: {error:?}"))?;
        }
        Ok(())
    })
}

/// Functions that only the broker's session knows, as the PostgreSQL door adds some.
fn functions_of_a_session() -> Result<(), Failed> {
    block_on(async {
        let cluster = replicated();
        let session = cluster.session();
        let same = create_udf(
            "only_here",
            vec![DataType::Utf8View],
            DataType::Utf8View,
            Volatility::Immutable,
            Arc::new(|arguments: &[ColumnarValue]| Ok(arguments[0].clone())),
        );
        session.context().register_udf(same);
        for sql in [
            "SELECT f(channel), COUNT(*) FROM wikiticker GROUP BY 1 ORDER BY 1",
            "SELECT COUNT(*) FROM wikiticker WHERE f(channel) = '#en.wikipedia'",
            "SELECT COUNT(*) FROM wikiticker WHERE f(channel) || page LIKE '#en%a'",
            "SELECT f(page), added FROM wikiticker ORDER BY added DESC, page LIMIT 5",
            "SELECT SUM(added) FILTER (WHERE f(channel) > '#f') FROM wikiticker",
        ] {
            for shuffle in ["off", "on"] {
                ask(&session, &format!("SET henge.shuffle = {shuffle}")).await?;
                let expected = ask(&session, &sql.replace("f(", "(")).await?;
                let rows = ask(&session, &sql.replace("f(", "only_here(")).await;
                let rows = rows.map_err(|error| format!("{sql}: {error:?}"))?;
                ensure(rows == expected, || format!("{sql}: {rows:?}, not {expected:?}"))?;
            }
        }
        Ok(())
    })
}

fn explain_shows_the_stages() -> Result<(), Failed> {
    block_on(async {
        let cluster = replicated();
        let session = cluster.session();
        let text = |rows: Vec<Row>| rows.into_iter().flatten().collect::<Vec<_>>().join("\n");
        let plan = text(ask(&session, &format!("EXPLAIN {GROUPS}")).await?);
        contains(
            &plan,
            &["DistributedExec", "NetworkCoalesceExec", "mode=Partial", cluster.workers[0].url().as_str()],
        )?;
        ensure(!plan.contains("NetworkShuffleExec"), || plan.clone())?;
        ask(&session, "SET henge.shuffle = on").await?;
        let plan = text(ask(&session, &format!("EXPLAIN {GROUPS}")).await?);
        contains(&plan, &["NetworkShuffleExec", "mode=FinalPartitioned"])?;
        let analyzed = text(ask(&session, &format!("EXPLAIN ANALYZE {GROUPS}")).await?);
        contains(&analyzed, &["NetworkShuffleExec", "output_rows=", "Stage 1"])?;
        let here = text(ask(&session, "EXPLAIN SELECT 1").await?);
        ensure(!here.contains("Distributed"), || here.clone())
    })
}
