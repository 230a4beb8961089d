use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use henge_engine::ingest::SimpleIngestion;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::*;
use crate::database::IngestRun;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Database {
        Database::open(self.dir.path().join("data")).await.unwrap()
    }

    /// Adds rows of the form (hour, page, added).
    async fn append(&self, database: &Database, rows: &[(u32, u32, i64)], rollup: bool) {
        let mut json = String::new();
        for (hour, page, added) in rows {
            let tags = if page % 3 == 0 { "[\"x\",\"y\"]" } else { "\"x\"" };
            writeln!(
                json,
                r#"{{"time":"2013-08-0{}T{:02}:00:00Z","page":"p{page}","tags":{tags},"added":{added}}}"#,
                1 + hour / 24,
                hour % 24
            )
            .unwrap();
        }
        let file = self.dir.path().join(format!("{}.json", rand::random::<u64>()));
        std::fs::write(&file, json).unwrap();
        let mut simple = SimpleIngestion {
            files: vec![file.display().to_string()],
            data_source: "wiki".to_owned(),
            time_column: "time".to_owned(),
            append: true,
            rollup,
            ..SimpleIngestion::default()
        };
        if rollup {
            simple.dimensions = vec!["page".to_owned(), "tags".to_owned()];
            simple.metrics = vec!["count".to_owned(), "longSum:added".to_owned(), "most=doubleMax:added".to_owned()];
        }
        let spec = henge_engine::ingest::IngestionSpec::simple(&simple).unwrap();
        database.ingest(spec, IngestRun::default()).await.unwrap();
    }
}

async fn numbers(database: &Database, sql: &str) -> Vec<i64> {
    let batches = database.sql(sql).await.unwrap();
    let row = batches.iter().find(|batch| batch.num_rows() > 0).expect("a row");
    (0..row.num_columns()).map(|column| row.column(column).as_primitive::<Int64Type>().value(0)).collect()
}

const ALL: &str = "SELECT COUNT(*), COALESCE(SUM(added), 0), COUNT(DISTINCT page), \
    SUM(CASE WHEN array_to_string(tags, ',') = 'x,y' THEN 2 ELSE 1 END) FROM wiki";

async fn compact(database: &Database, spec: CompactionSpec) -> CompactionReport {
    database.compact(spec, None, Cancellation::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_become_as_few_as_can_be_with_the_same_rows() {
    let place = Place::new();
    let database = place.open().await;
    for batch in 0..5 {
        let rows = (0..40).map(|n| (n % 48, n * 7 % 11 + batch, i64::from(n) - 13)).collect::<Vec<_>>();
        place.append(&database, &rows, false).await;
    }
    let before = numbers(&database, ALL).await;
    let report = compact(&database, CompactionSpec { max_rows_per_segment: 60, ..CompactionSpec::new("wiki") }).await;
    assert_eq!((report.num_granules, report.segments_before, report.rows_before), (2, 10, 200), "{report:?}");
    assert_eq!((report.segments_after, report.rows_after, report.skipped.len()), (4, 200, 0), "{report:?}");
    assert_eq!(numbers(&database, ALL).await, before);
    assert_eq!(numbers(&database, "SELECT COUNT(*) FROM sys.segments").await, [4]);
    let again = compact(&database, CompactionSpec { max_rows_per_segment: 60, ..CompactionSpec::new("wiki") }).await;
    assert_eq!(again.num_granules, 0);

    // What is hidden can be killed, and nothing is missed.
    let killed = database.kill("wiki", Interval::ETERNITY).await.unwrap();
    assert_eq!(killed.num_segments, 10);
    database.close().await;
    let database = place.open().await;
    assert_eq!(numbers(&database, ALL).await, before);
    let tasks = database.tasks(10).await.unwrap();
    assert!(tasks.iter().any(|task| task.task_type == "compact" && task.status == TaskStatus::Success));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_rolled_up_are_combined_and_others_are_not() {
    let place = Place::new();
    let database = place.open().await;
    let rows = [(1, 1, 5), (1, 1, 6), (2, 3, 7)];
    place.append(&database, &rows, true).await;
    place.append(&database, &rows, true).await;
    let sums = "SELECT CAST(SUM(\"count\") AS BIGINT), CAST(SUM(added) AS BIGINT), COUNT(*) FROM wiki";
    assert_eq!(numbers(&database, sums).await, [6, 36, 4]);
    compact(&database, CompactionSpec::new("wiki")).await;
    assert_eq!(numbers(&database, sums).await, [6, 36, 2]);
    let refused = CompactionSpec { rollup: Some(true), ..CompactionSpec::new("wiki") };
    place.append(&database, &rows, true).await;
    compact(&database, CompactionSpec { rollup: Some(false), ..refused.clone() }).await;
    assert_eq!(numbers(&database, sums).await, [9, 54, 4]);
    place.append(&database, &rows, true).await;
    // One of the two was not rolled up.
    let report = compact(&database, refused).await;
    assert_eq!(report.num_granules, 0);
    assert!(report.skipped[0].reason.contains("rolled up"), "{report:?}");
    assert_eq!(numbers(&database, sums).await, [12, 72, 6]);
}

/// Rows are appended and removed, granules are replaced, all of it while compactions run and queries ask. Every answer is
/// one that is right for what was published before or while it was asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_are_right_at_every_moment_of_a_compaction() {
    for seed in 0..3 {
        let place = Arc::new(Place::new());
        let database = place.open().await;
        let mut random = StdRng::seed_from_u64(seed);
        place.append(&database, &[(0, 0, 1)], false).await;
        let (least, most) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicI64::new(1)));
        let (mut asking, mut merging) = (JoinSet::new(), JoinSet::new());
        asking.spawn(asked(database.clone(), Arc::clone(&least), Arc::clone(&most)));
        merging.spawn(compacting(database.clone(), seed));
        for _ in 0..25 {
            let rows =
                (0..random.random_range(1..5)).map(|_| (random.random_range(0..48), random.random_range(0..9), 1));
            let rows = rows.collect::<Vec<_>>();
            most.fetch_add(rows.len() as i64, Ordering::SeqCst);
            place.append(&database, &rows, false).await;
            least.fetch_add(rows.len() as i64, Ordering::SeqCst);
        }
        let granules = merging.join_next().await.unwrap().unwrap();
        assert!(granules > 0, "nothing was compacted with seed {seed}");
        // It ends only by a wrong answer.
        asking.abort_all();
        let ended = asking.join_next().await.unwrap().unwrap_err();
        assert!(ended.is_cancelled(), "{ended} with seed {seed}");
        let rows = least.load(Ordering::SeqCst);
        assert_eq!(numbers(&database, "SELECT COUNT(*), SUM(added) FROM wiki").await, [rows, rows], "seed {seed}");
        compact(&database, CompactionSpec::new("wiki")).await;
        assert_eq!(numbers(&database, "SELECT COUNT(*), SUM(added) FROM wiki").await, [rows, rows], "seed {seed}");

        // What was removed stays removed.
        let day = "2013-08-01/2013-08-02".parse().unwrap();
        let left = numbers(&database, "SELECT COUNT(*) FROM wiki WHERE __time >= TIMESTAMP '2013-08-02'").await[0];
        place.append(&database, &[(0, 0, 1), (1, 1, 1)], false).await;
        let (merged, removed) =
            tokio::join!(compact(&database, CompactionSpec::new("wiki")), database.mark_unused("wiki", day));
        assert!(removed.unwrap() > 0, "{merged:?}");
        if left > 0 {
            assert_eq!(numbers(&database, "SELECT COUNT(*) FROM wiki").await, [left], "seed {seed}, {merged:?}");
        }
        database.close().await;
    }
}

async fn asked(database: Database, least: Arc<AtomicI64>, most: Arc<AtomicI64>) {
    loop {
        let before = least.load(Ordering::SeqCst);
        let found = numbers(&database, "SELECT COUNT(*), SUM(added) FROM wiki").await;
        let after = most.load(Ordering::SeqCst);
        assert!(
            found[0] == found[1] && (before..=after).contains(&found[0]),
            "{before} to {after} rows, but {found:?}"
        );
    }
}

async fn compacting(database: Database, seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut granules = 0;
    for _ in 0..12 {
        let max_rows_per_segment = random.random_range(3..50);
        let spec = CompactionSpec { max_rows_per_segment, ..CompactionSpec::new("wiki") };
        granules += compact(&database, spec).await.num_granules;
    }
    granules
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_leaves_the_latest_granules_alone() {
    let place = Place::new();
    let auto = "wiki=PT1H".parse::<AutoCompaction>().unwrap();
    let database = Database::builder(place.dir.path().join("data")).auto_compaction([auto]).open().await.unwrap();
    for _ in 0..3 {
        place.append(&database, &[(3, 1, 1), (30, 2, 1)], false).await;
    }
    // The second day still grows.
    let intervals = || async {
        let batches = database.sql("SELECT \"start\", COUNT(*) FROM sys.segments GROUP BY 1 ORDER BY 1").await.unwrap();
        let counts = batches.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec());
        counts.collect::<Vec<_>>()
    };
    let seen = tokio::time::timeout(std::time::Duration::from_secs(120), async {
        while intervals().await != [1, 3] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    seen.await.expect("the first day is compacted, and the second is not");
    let tasks = database.tasks(20).await.unwrap();
    let data_sources = tasks.iter().filter(|task| task.task_type == "compact").map(|task| task.data_source.as_str());
    assert_eq!(data_sources.collect::<BTreeSet<_>>(), BTreeSet::from(["wiki"]));
}
