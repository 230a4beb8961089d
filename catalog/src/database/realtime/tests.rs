use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use henge_engine::ingest::InputFormat;

use super::*;
use crate::database::IngestRun;
use crate::database::tests::{Place, number};
use crate::realtime::{OnError, Payload, PushKey};

fn push(rows: &str, key: Option<&str>) -> Push {
    Push {
        payload: Payload::Text { format: InputFormat::named("json").unwrap(), text: rows.to_owned().into() },
        key: key.map(|key| PushKey::Idempotency(key.to_owned())),
        on_error: OnError::Fail,
        max_row_bytes: 1 << 20,
    }
}

/// Rows of hours of one day: each adds 1.
fn rows(hours: std::ops::Range<u64>, each: u64) -> String {
    let row = |hour: u64, n: u64| {
        format!("{{\"time\":\"2013-08-01T{:02}:{:02}:00Z\",\"page\":\"p{}\",\"added\":1}}\n", hour, n % 60, n % 5)
    };
    hours.flat_map(|hour| (0..each).map(move |n| row(hour, n))).collect()
}

async fn taken(database: &Database, rows: &str, key: Option<&str>) -> (u64, bool) {
    match database.push("wiki", push(rows, key)).await.unwrap() {
        Pushed::Taken { rows, duplicate, .. } => (rows, duplicate),
        other => panic!("{other:?}"),
    }
}

async fn sum(database: &Database) -> i64 {
    number(database, "SELECT SUM(added) FROM wiki").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_shown_at_once_after_a_restart_and_after_their_hand_off() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    let refused = database.push("wiki", push(&rows(0..1, 1), None)).await.err().map(|error| error.to_string());
    assert!(refused.is_some_and(|error| error.contains("create=true")));
    assert!(database.discover_push("wiki", "time").await?.is_some());
    assert!(database.discover_push("wiki", "time").await?.is_none());
    assert_eq!(taken(&database, &rows(0..2, 10), Some("a")).await, (20, false));
    assert_eq!(sum(&database).await, 20);
    assert_eq!(taken(&database, &rows(0..2, 10), Some("a")).await, (20, true));
    let live = "SELECT COUNT(*) FROM sys.segments WHERE is_realtime = 1 AND is_published = 0";
    assert_eq!((sum(&database).await, number(&database, live).await?), (20, 1));
    database.close().await;

    let database = place.open().await;
    assert_eq!(sum(&database).await, 20);
    assert_eq!(taken(&database, &rows(0..2, 10), Some("a")).await, (20, true));
    assert_eq!(taken(&database, &rows(30..30, 0), None).await, (0, false));
    assert_eq!(taken(&database, &rows(2..3, 5), None).await, (5, false));
    let done = database.hand_off("wiki", false).await?;
    assert_eq!((done.rows, done.segments.len()), (25, 1));
    assert_eq!((sum(&database).await, number(&database, live).await?), (25, 0));
    assert_eq!(number(&database, "SELECT COUNT(*) FROM sys.segments WHERE is_published = 1").await?, 1);
    assert_eq!(database.hand_off("wiki", false).await?, HandOff::default(), "there is nothing more");
    assert_eq!(number(&database, "SELECT hand_offs FROM sys.realtime WHERE live_rows = 0").await?, 1);

    // Late rows open a further partition, and keys are known across hand-offs and restarts.
    assert_eq!(taken(&database, &rows(0..1, 7), Some("b")).await, (7, false));
    assert_eq!(taken(&database, &rows(0..2, 10), Some("a")).await, (20, true));
    database.hand_off("wiki", false).await?;
    database.close().await;
    let database = place.open().await;
    assert_eq!(taken(&database, &rows(0..2, 10), Some("a")).await, (20, true));
    assert_eq!(taken(&database, &rows(0..1, 7), Some("b")).await, (7, true));
    assert_eq!(
        (sum(&database).await, number(&database, "SELECT MAX(partition_num) FROM sys.segments").await?),
        (32, 1)
    );
    database.close().await;
    Ok(())
}

/// F45: 20 hand-offs while rows come and queries run: no answer is less than what was acknowledged when it was asked, nor
/// less than one before it, nor more than what was sent when it was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_dips_or_exceeds_during_twenty_hand_offs() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.discover_push("wiki", "time").await?;
    taken(&database, &rows(0..1, 1), None).await;
    let (sent, acknowledged, done) = (AtomicI64::new(1), AtomicI64::new(1), AtomicBool::new(false));
    let pushing = async {
        let mut request = 0_u64;
        while !done.load(Ordering::Acquire) {
            let hour = request % 24;
            sent.fetch_add(20, Ordering::SeqCst);
            taken(&database, &rows(hour..hour + 1, 20), Some(&format!("request {request}"))).await;
            acknowledged.fetch_add(20, Ordering::SeqCst);
            request += 1;
        }
    };
    let asking = async {
        let (mut least, mut answers) = (0, 0_u64);
        while !done.load(Ordering::Acquire) {
            let before = acknowledged.load(Ordering::SeqCst);
            let answer = sum(&database).await;
            let after = sent.load(Ordering::SeqCst);
            assert!(
                (before.max(least)..=after).contains(&answer),
                "{answer} is not within {before}..={after}, least {least}"
            );
            (least, answers) = (answer, answers + 1);
        }
        answers
    };
    let handing_off = async {
        for _ in 0..20 {
            let began = acknowledged.load(Ordering::SeqCst);
            while acknowledged.load(Ordering::SeqCst) < began + 40 {
                tokio::task::yield_now().await;
            }
            assert!(database.hand_off("wiki", false).await.unwrap().rows > 0);
        }
        done.store(true, Ordering::Release);
    };
    let ((), answers, ()) = tokio::join!(pushing, asking, handing_off);
    assert!(answers >= 20, "{answers} answers");
    database.hand_off("wiki", false).await?;
    assert_eq!(sum(&database).await, acknowledged.load(Ordering::SeqCst));
    assert_eq!(
        number(&database, "SELECT SUM(num_rows) FROM sys.segments WHERE is_published = 1").await?,
        sum(&database).await
    );
    database.close().await;
    Ok(())
}

/// Rows find their chunk whatever granularity what is there has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_handed_off_into_coarser_and_between_finer_segments() -> Result<()> {
    for (there, pushed) in [(Granularity::DAY, Granularity::HOUR), (Granularity::HOUR, Granularity::DAY)] {
        let place = Place::new();
        let database = place.open().await;
        let mut spec = place.spec(&rows(0..3, 2), false);
        spec.data_schema.granularity_spec.segment_granularity = there;
        database.ingest(spec, IngestRun::default()).await?;
        let mut schema = discovered("wiki", "time", None, pushed)?;
        schema.granularity_spec.rollup = Some(false);
        database.declare_push(PushSpec::new(schema)).await?;
        taken(&database, &rows(1..5, 3), None).await;
        assert_eq!(sum(&database).await, 18);
        database.hand_off("wiki", false).await?;
        assert_eq!(sum(&database).await, 18);
        let (live, hours) =
            (database.stream_statuses()[0].live_rows, number(&database, "SELECT COUNT(*) FROM sys.segments").await?);
        assert_eq!(live, 0);
        assert!(hours > 1, "{hours}");
        database.close().await;
    }
    Ok(())
}

/// A data source that rolls up: `SUM("count")` counts events whatever was combined with what, also across another spec.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollup_counts_every_event_once() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    let mut schema = DataSchema::new("wiki", "time");
    schema.dimensions_spec.dimensions =
        vec![DimensionSchema::new("page", Some(henge_engine::model::ColumnType::String))];
    schema.metrics_spec =
        vec![MetricSpec::of_kind("count", "count", None)?, MetricSpec::of_kind("longSum", "added", Some("added"))?];
    schema.granularity_spec.query_granularity = Granularity::HOUR;
    schema.granularity_spec.rollup = Some(true);
    let spec = PushSpec::new(schema);
    database.declare_push(spec.clone()).await?;
    for _ in 0..3 {
        taken(&database, &rows(0..4, 50), None).await;
    }
    let events = "SELECT SUM(\"count\") FROM wiki";
    assert_eq!((number(&database, events).await?, sum(&database).await), (600, 600));
    let mut other = spec.clone();
    other.data_schema.granularity_spec.query_granularity = Granularity::DAY;
    database.declare_push(other).await?;
    assert_eq!(number(&database, events).await?, 600);
    let stored = "SELECT COUNT(*) FROM wiki";
    assert_eq!(number(&database, stored).await?, 20, "4 hours of 5 pages");
    taken(&database, &rows(0..4, 50), None).await;
    assert_eq!((number(&database, events).await?, sum(&database).await), (800, 800));
    database.hand_off("wiki", false).await?;
    assert_eq!((number(&database, events).await?, number(&database, stored).await?), (800, 25));
    // Each hand-off rolled up its own rows; compaction combines those of all.
    let spec = crate::database::CompactionSpec::new("wiki");
    database.compact(spec, None, henge_engine::ingest::Cancellation::default()).await?;
    assert_eq!((number(&database, events).await?, sum(&database).await), (800, 800));
    assert_eq!(number(&database, stored).await?, 20);
    database.close().await;
    Ok(())
}

/// Rows that are inserted are pushed: durable, seen at once, and taken as rows of the data source's columns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserted_rows_are_seen_at_once_and_stay() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(&rows(0..1, 3), false), IngestRun::default()).await?;
    let session = database.session(henge_engine::session::SessionOptions {
        writer: Some(Arc::new(database.clone())),
        ..henge_engine::session::SessionOptions::default()
    });
    let insert = async |sql: &str| {
        let statement = session.parse(sql)?.remove(0);
        let plan = session.plan(statement).await?;
        session.execute(plan).await.map(drop)
    };
    insert("INSERT INTO wiki (__TIME, Page, added) VALUES ('2013-08-01 05:00:00', 'x', 10), ('2013-08-01 06:00:00', NULL, 20)").await?;
    assert_eq!(sum(&database).await, 33);
    insert("INSERT INTO wiki SELECT __time, page, added FROM wiki WHERE page = 'x'").await?;
    assert_eq!(number(&database, "SELECT COUNT(*) FROM wiki WHERE page = 'x'").await?, 2);
    for (wrong, word) in [
        ("INSERT INTO wiki (page, added) VALUES ('x', 1)", "time"),
        ("INSERT INTO wiki (__time, nope) VALUES ('2013-08-01', 1)", "nope"),
        ("INSERT INTO wiki (__time) VALUES ('2013-08-01') RETURNING page", "RETURNING"),
        ("INSERT INTO nowhere VALUES (1)", "INSERT"),
    ] {
        let error = insert(wrong).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(word), "{wrong}: {error}");
    }
    assert!(database.sql("INSERT INTO wiki (__time) VALUES ('2013-08-01')").await.is_err(), "nobody takes them there");
    database.close().await;
    let database = place.open().await;
    assert_eq!(sum(&database).await, 43);
    database.hand_off("wiki", false).await?;
    assert_eq!(sum(&database).await, 43);
    database.close().await;
    Ok(())
}

/// Columns that numbers and texts meet in are shown as what holds both, before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_meet_across_what_is_published_and_what_is_not() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.discover_push("wiki", "time").await?;
    taken(&database, "{\"time\":\"2013-08-01T00:00:00Z\",\"added\":1,\"v\":1}\n", None).await;
    database.hand_off("wiki", false).await?;
    taken(&database, "{\"time\":\"2013-08-01T01:00:00Z\",\"added\":1,\"v\":\"x\",\"new\":5}\n", None).await;
    let both = "SELECT COUNT(*) FROM wiki WHERE v IN ('1', 'x')";
    assert_eq!((number(&database, both).await?, number(&database, "SELECT SUM(new) FROM wiki").await?), (2, 5));
    database.hand_off("wiki", false).await?;
    assert_eq!((number(&database, both).await?, sum(&database).await), (2, 2));
    database.close().await;
    Ok(())
}

/// Ingesting in place of a chunk keeps rows that were pushed and not published: they came later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_not_published_survive_a_replacement() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.discover_push("wiki", "time").await?;
    taken(&database, &rows(0..1, 10), None).await;
    database.hand_off("wiki", false).await?;
    taken(&database, &rows(0..1, 3), None).await;
    database.ingest(place.spec(&rows(0..1, 4), false), IngestRun::default()).await?;
    assert_eq!(sum(&database).await, 7);
    database.hand_off("wiki", false).await?;
    assert_eq!(sum(&database).await, 7);
    database.close().await;
    Ok(())
}
