use std::fs;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use henge_engine::ingest::SimpleIngestion;

use super::*;
use crate::store::TaskStatus;

const DAY_ONE: &str = r#"{"time":"2013-08-01T01:00:00Z","page":"A","added":1}
{"time":"2013-08-01T02:00:00Z","page":"B","added":2}
{"time":"2013-08-01T23:00:00Z","page":"A","added":4}
"#;
const DAY_TWO: &str = r#"{"time":"2013-08-02T01:00:00Z","page":"C","added":8}
"#;

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_225_600_000)
    }
}

pub(super) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) async fn open(&self) -> Database {
        Database::builder(self.data()).clock(Arc::new(FixedClock)).open().await.unwrap()
    }

    pub(super) fn spec(&self, rows: &str, append: bool) -> henge_engine::ingest::IngestionSpec {
        let file = self.dir.path().join(format!("{}.json", rand::random::<u64>()));
        fs::write(&file, rows).unwrap();
        henge_engine::ingest::IngestionSpec::simple(&SimpleIngestion {
            files: vec![file.display().to_string()],
            data_source: "wiki".to_owned(),
            time_column: "time".to_owned(),
            append,
            ..SimpleIngestion::default()
        })
        .unwrap()
    }

    fn segment_files(&self) -> Vec<PathBuf> {
        files_below(&self.data().join("segments"))
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

pub(super) async fn number(database: &Database, sql: &str) -> Result<i64> {
    let batches = database.sql(sql).await?;
    Ok(batches[0].column(0).as_primitive::<Int64Type>().value(0))
}

async fn added(database: &Database) -> i64 {
    number(database, "SELECT SUM(added) FROM wiki").await.unwrap()
}

#[tokio::test]
async fn what_was_ingested_is_there_after_a_restart() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    assert_eq!(database.table("wiki").err().map(|e| e.category()), Some(henge_engine::error::Category::NotFound));
    let report = database.ingest(place.spec(&format!("{DAY_ONE}{DAY_TWO}"), false), IngestRun::default()).await?;
    assert_eq!((report.rows_written, report.segments_written), (4, 2));
    assert_eq!(added(&database).await, 15);
    database.close().await;

    let database = place.open().await;
    assert_eq!(added(&database).await, 15);
    assert_eq!(number(&database, "SELECT COUNT(*) FROM wiki WHERE __time < TIMESTAMP '2013-08-02'").await?, 3);
    let left = fs::read_dir(place.data().join("tmp")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["spill"]);
    Ok(())
}

#[tokio::test]
async fn replacing_replaces_the_days_it_has_and_appending_adds() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(&format!("{DAY_ONE}{DAY_TWO}"), false), IngestRun::default()).await?;
    database.ingest(place.spec(DAY_TWO, true), IngestRun::default()).await?;
    assert_eq!(added(&database).await, 23);
    database.ingest(place.spec(DAY_TWO, false), IngestRun::default()).await?;
    assert_eq!(added(&database).await, 15);
    assert_eq!(number(&database, "SELECT COUNT(*) FROM sys.segments").await?, 2);
    assert_eq!(place.segment_files().len(), 4, "what is overshadowed stays until it is killed");

    let killed = database.kill("wiki", Interval::ETERNITY).await?;
    assert_eq!(killed.num_segments, 2);
    assert_eq!(place.segment_files().len(), 2);
    assert_eq!(database.kill("wiki", Interval::ETERNITY).await?, KillReport::default());
    Ok(())
}

#[tokio::test]
async fn dropping_what_exists_empties_the_days_without_new_rows() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(&format!("{DAY_ONE}{DAY_TWO}"), false), IngestRun::default()).await?;
    let mut spec = place.spec(DAY_TWO, false);
    spec.io_config.drop_existing = true;
    let interval = "2013-08-01/2013-08-03".parse()?;
    spec.data_schema.granularity_spec.intervals = vec![interval];
    database.ingest(spec, IngestRun::default()).await?;
    assert_eq!(added(&database).await, 8);
    Ok(())
}

#[tokio::test]
async fn a_query_that_was_planned_keeps_its_segments_through_replacement_and_kill() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(DAY_ONE, false), IngestRun::default()).await?;
    let session = database.session(SessionOptions::default());
    let frame = session.sql("SELECT SUM(added) FROM wiki").await?;
    let plan = frame.create_physical_plan().await.unwrap();
    database.ingest(place.spec(DAY_ONE, false), IngestRun::default()).await?;
    assert_eq!(database.kill("wiki", Interval::ETERNITY).await?.num_segments, 0);
    let batches = datafusion::physical_plan::collect(plan, session.context().task_ctx()).await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 7);
    drop((batches, frame, session));
    // What a query's tasks hold is let go once they have been polled to their end.
    for _ in 0..1000 {
        if database.inner.view.in_use().is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(database.kill("wiki", Interval::ETERNITY).await?.num_segments, 1);
    Ok(())
}

#[tokio::test]
async fn a_second_database_on_the_directory_is_told_who_has_it() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    let address = ServerAddress { host: None, pg_port: Some(5433), http_port: Some(8888) };
    database.announce(address.clone())?;
    let error = Database::open(place.data()).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error.contains(&format!("process {}, PostgreSQL on port 5433, HTTP on port 8888", std::process::id())),
        "{error}"
    );
    let Opening::Held(holder) = Database::builder(place.data()).try_open().await? else { panic!("opened twice") };
    assert_eq!(holder.address, address);
    database.close().await;
    assert!(matches!(Database::builder(place.data()).try_open().await?, Opening::Opened(_)));
    Ok(())
}

#[tokio::test]
async fn a_failed_ingestion_publishes_nothing_and_leaves_no_file() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    let mut spec = place.spec(&format!("{DAY_ONE}not json\n"), false);
    spec.tuning_config.max_parse_exceptions = Some(0);
    let run = IngestRun { task_id: Some("t".to_owned()), ..IngestRun::default() };
    assert!(database.ingest(spec, run).await.is_err());
    let task = database.task("t").await?.unwrap();
    assert_eq!(task.status, TaskStatus::Failed);
    assert!(task.error.is_some_and(|error| error.contains("maxParseExceptions")));
    assert!(database.data_sources().is_empty() && place.segment_files().is_empty());
    Ok(())
}

/// As after a kill between a push and its commit: the file is there and noted, nothing is published.
#[tokio::test]
async fn files_that_were_pushed_and_not_published_are_removed_at_the_next_start() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(DAY_ONE, false), IngestRun::default()).await?;
    let orphan = henge_engine::storage::LoadSpec::Local { path: "wiki/orphan.henge".to_owned() };
    database.inner.store.intend_pushes("p", &[orphan]).await?;
    let task = TaskRecord { status: TaskStatus::Running, id: "r".to_owned(), ..database.tasks(1).await?.remove(0) };
    database.inner.store.save_task(&task).await?;
    database.close().await;
    fs::write(place.data().join("segments/wiki/orphan.henge"), "x").unwrap();
    fs::write(place.data().join("segments/wiki/by-hand.henge"), "x").unwrap();

    let database = place.open().await;
    assert_eq!(place.segment_files().len(), 2, "only what was noted goes");
    assert_eq!(database.task("r").await?.map(|task| task.status), Some(TaskStatus::Failed));
    assert_eq!(added(&database).await, 7);
    Ok(())
}

#[tokio::test]
async fn a_missing_or_exchanged_segment_file_is_an_error_that_names_it() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(&format!("{DAY_ONE}{DAY_TWO}"), false), IngestRun::default()).await?;
    database.close().await;
    let files = place.segment_files();
    fs::copy(&files[0], &files[1]).unwrap();
    let database = place.open().await;
    let error = database.sql("SELECT SUM(added) FROM wiki").await.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("not the segment that was published") && error.contains(".henge"), "{error}");
    database.close().await;
    fs::remove_file(&files[1]).unwrap();
    let database = place.open().await;
    let error = database.sql("SELECT SUM(added) FROM wiki").await.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("no such segment file"), "{error}");
    Ok(())
}

#[tokio::test]
async fn columns_whose_type_changed_answer_in_the_wider_type() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(DAY_ONE, false), IngestRun::default()).await?;
    let later = r#"{"time":"2013-08-02T01:00:00Z","page":7,"added":0.5,"tags":["x","y"]}"#;
    database.ingest(place.spec(later, false), IngestRun::default()).await?;
    let sum = database.sql("SELECT SUM(added) FROM wiki").await?;
    assert_eq!(sum[0].column(0).as_primitive::<arrow::datatypes::Float64Type>().value(0), 7.5);
    assert_eq!(number(&database, "SELECT COUNT(*) FROM wiki WHERE page IN ('A', '7')").await?, 3);
    // Lists are never null: rows of the older segment have empty ones.
    assert_eq!(number(&database, "SELECT COUNT(*) FROM wiki WHERE cardinality(tags) > 0").await?, 1);
    assert_eq!(number(&database, "SELECT COUNT(tags) FROM wiki").await?, 4);
    Ok(())
}

#[tokio::test]
async fn system_tables_tell_of_segments_servers_and_tasks() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(DAY_ONE, false), IngestRun::default()).await?;
    let one = [
        "SELECT COUNT(*) FROM sys.segments WHERE is_active = 1 AND is_overshadowed = 0 AND num_rows = 3",
        "SELECT COUNT(*) FROM sys.servers WHERE server_type = 'all'",
        "SELECT COUNT(*) FROM sys.tasks WHERE status = 'SUCCESS' AND datasource = 'wiki'",
        "SELECT COUNT(*) FROM sys.data_sources WHERE min_time = '2013-08-01T01:00:00.000Z'",
        "SELECT COUNT(*) FROM sys.server_segments",
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'druid' AND table_type = 'BASE TABLE'",
        "SELECT COUNT(*) FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'wiki' AND COLUMN_NAME = '__time' \
         AND DATA_TYPE = 'timestamp without time zone' AND IS_NULLABLE = 'NO'",
        "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'druid'",
    ];
    for sql in one {
        assert_eq!(number(&database, sql).await?, 1, "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn marking_unused_empties_a_data_source_and_appending_fills_it_again() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.ingest(place.spec(DAY_ONE, false), IngestRun::default()).await?;
    assert_eq!(database.mark_unused("wiki", Interval::ETERNITY).await?, 1);
    assert!(database.data_sources().is_empty());
    database.ingest(place.spec(DAY_TWO, true), IngestRun::default()).await?;
    assert_eq!(added(&database).await, 8);
    Ok(())
}

#[tokio::test]
async fn a_closed_database_cancels_what_waits() -> Result<()> {
    let place = Place::new();
    let database = place.open().await;
    database.close().await;
    assert!(database.ingest(place.spec(DAY_ONE, false), IngestRun::default()).await.is_err());
    Ok(())
}

/// Figures, not a test: `cargo test --workspace --lib -- --ignored --nocapture opening_figures`.
#[tokio::test]
#[ignore = "prints figures"]
#[allow(clippy::print_stdout)]
async fn opening_figures() -> Result<()> {
    use crate::publish::{NewSegment, PublishMode, PublishRequest, publish};

    let place = Place::new();
    let database = place.open().await;
    let schema = Arc::new(henge_engine::model::SegmentSchema::new((0..20).map(|i| {
        henge_engine::model::ColumnSchema::dimension(format!("d{i}"), henge_engine::model::ColumnType::String)
    }))?);
    let hour = |n: i64| Timestamp::from_millis(n * 3_600_000);
    let uid = |n: i64| henge_engine::model::SegmentUid::new(hour(n), 0);
    let segments = (0..10_000).map(|n| NewSegment {
        interval: Interval::new(hour(n), hour(n + 1)).unwrap(),
        uid: uid(n),
        pushed: henge_engine::storage::PushedSegment {
            load_spec: henge_engine::storage::LoadSpec::Local { path: uid(n).to_string() },
            size_bytes: 1_000_000,
            hash: String::new(),
        },
        schema: Arc::clone(&schema),
        num_rows: 1000,
        time_range: Some((hour(n), hour(n))),
    });
    let request = PublishRequest {
        intended_pushes: 0,
        advances: Vec::new(),
        sink: None,
        publish_id: "p".to_owned(),
        data_source: "wiki".to_owned(),
        mode: PublishMode::Append,
        segments: segments.collect(),
        now: hour(500_000),
        tombstone_uids: |now| henge_engine::model::SegmentUid::new(now, 0),
        standing: crate::store::Standing::Active,
    };
    let began = std::time::Instant::now();
    publish(database.inner.store.as_ref(), &request).await?;
    println!("publishing 10,000 segments: {:?}", began.elapsed());
    database.close().await;
    let began = std::time::Instant::now();
    let database = place.open().await;
    println!("opening 10,000 segments: {:?}", began.elapsed());
    assert_eq!(number(&database, "SELECT COUNT(*) FROM sys.segments").await?, 10_000);
    Ok(())
}
