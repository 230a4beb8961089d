use std::time::Duration;

use henge_engine::ingest::SimpleIngestion;
use henge_engine::storage::DeepStorageUrl;

use super::*;
use crate::lease::COORDINATOR;
use crate::store::{MetadataUrl, Standing};
use crate::{Clock, SystemClock};

const DAY: &str = r#"{"time":"2013-08-01T01:00:00Z","page":"A","added":1}
{"time":"2013-08-01T02:00:00Z","page":"B","added":2}
"#;

/// A cluster's metadata database and deep storage.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn builder(&self, name: &str) -> crate::DatabaseBuilder {
        Database::builder(self.dir.path().join(name))
            .metadata(MetadataUrl::Sqlite(self.dir.path().join("metadata.sqlite")))
            .deep_storage(DeepStorageUrl::Local(self.dir.path().join("deep")))
    }

    async fn leader(&self) -> Database {
        let store = MetadataUrl::Sqlite(self.dir.path().join("metadata.sqlite")).open().await.unwrap();
        let lease = crate::lease::take(store.as_ref(), COORDINATOR, "leader").await.unwrap();
        self.builder("leader").lead(lease).open().await.unwrap()
    }

    async fn worker(&self, name: &str) -> Database {
        self.builder(name).work().open().await.unwrap()
    }

    fn spec(&self, data_source: &str) -> TaskWork {
        let file = self.dir.path().join(format!("{}.json", rand::random::<u64>()));
        std::fs::write(&file, DAY).unwrap();
        let spec = IngestionSpec::simple(&SimpleIngestion {
            files: vec![file.display().to_string()],
            data_source: data_source.to_owned(),
            time_column: "time".to_owned(),
            append: true,
            ..SimpleIngestion::default()
        });
        TaskWork::Ingest(Box::new(spec.unwrap()))
    }

    /// The files in deep storage.
    fn num_files(&self) -> usize {
        fn below(dir: &std::path::Path) -> usize {
            let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
            entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { below(&path) } else { 1 }).sum()
        }
        below(&self.dir.path().join("deep"))
    }
}

async fn status(database: &Database, id: &str) -> (TaskStatus, String) {
    let record = database.task(id).await.unwrap().unwrap();
    (record.status, record.error.unwrap_or_default())
}

/// Somebody begins a task and is not heard of again.
async fn begun_by_the_dead(database: &Database, id: &str, holder: &str) -> Lease {
    let store = database.store();
    let outcome = store.acquire_lease(&TaskRecord::lease_role(id), holder, Duration::from_millis(1)).await.unwrap();
    let LeaseOutcome::Held(lease) = outcome else { panic!("{outcome:?}") };
    while store.lease_holder(&TaskRecord::lease_role(id)).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lease
}

#[tokio::test]
async fn a_task_is_handed_in_run_elsewhere_and_published() {
    let place = Place::new();
    let (leader, worker) = (place.leader().await, place.worker("worker").await);
    assert_eq!(worker.work("w").await.unwrap(), None);
    leader.hand_in("first", &place.spec("wiki")).await.unwrap();
    let again = leader.hand_in("first", &place.spec("wiki")).await.unwrap_err();
    assert!(again.to_string().contains("another id"), "{again}");
    assert_eq!(status(&leader, "first").await.0, TaskStatus::Waiting);
    assert_eq!(worker.work("w").await.unwrap().as_deref(), Some("first"));
    let record = leader.task("first").await.unwrap().unwrap();
    assert_eq!((record.status, record.error), (TaskStatus::Success, None));
    let report: Value = serde_json::from_str(&record.report.unwrap()).unwrap();
    assert_eq!(report["rowStats"]["processed"], 2, "{report}");
    let (_, used) = leader.store().used("wiki").await.unwrap();
    assert_eq!(used.iter().map(|record| record.standing).collect::<Vec<_>>(), [Standing::Dormant]);
    assert_eq!(leader.store().lease_holder(&TaskRecord::lease_role("first")).await.unwrap(), None);
    assert_eq!(worker.work("w").await.unwrap(), None);
    worker.close().await;
    leader.close().await;
}

#[tokio::test]
async fn tasks_of_one_data_source_wait_for_one_another_and_others_do_not() {
    let place = Place::new();
    let (leader, worker) = (place.leader().await, place.worker("worker").await);
    for (id, data_source) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        leader.hand_in(id, &place.spec(data_source)).await.unwrap();
        // Tasks are told apart by the millisecond in which they came.
        let came = leader.task(id).await.unwrap().unwrap().created;
        while SystemClock.now() <= came {
            tokio::task::yield_now().await;
        }
    }
    let role = TaskRecord::lease_role("a1");
    leader.store().acquire_lease(&role, "another", Duration::from_secs(60)).await.unwrap();
    assert_eq!(worker.work("w").await.unwrap().as_deref(), Some("b1"));
    assert_eq!(worker.work("w").await.unwrap(), None);
    leader.store().remove_lease(&role).await.unwrap();
    assert_eq!(worker.work("w").await.unwrap().as_deref(), Some("a1"));
    assert_eq!(worker.work("w").await.unwrap().as_deref(), Some("a2"));
    assert_eq!(leader.store().used("a").await.unwrap().1.len(), 2);
    worker.close().await;
    leader.close().await;
}

#[tokio::test]
async fn a_task_whose_server_died_is_begun_again_and_the_dead_write_nothing() {
    let place = Place::new();
    let (leader, worker) = (place.leader().await, place.worker("worker").await);
    leader.hand_in("t", &place.spec("wiki")).await.unwrap();
    let dead = begun_by_the_dead(&leader, "t", "dead").await;
    // What the dead one had put into deep storage.
    let store = MetadataUrl::Sqlite(place.dir.path().join("metadata.sqlite")).open().await.unwrap();
    store.act_under(Some(dead));
    let left = place.dir.path().join("deep/left.henge");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "half a segment").unwrap();
    let load_spec = henge_engine::storage::LoadSpec::Local { path: "left.henge".to_owned() };
    store.intend_pushes("t", &[load_spec]).await.unwrap();
    // A leader that starts meanwhile leaves it alone: whoever takes the task removes it.
    leader.close().await;
    let leader = place.leader().await;
    assert_eq!(place.num_files(), 1);

    assert_eq!(worker.work("w").await.unwrap().as_deref(), Some("t"));
    assert_eq!(status(&leader, "t").await.0, TaskStatus::Success);
    assert!(!left.exists());
    assert_eq!(place.num_files(), 1, "its own segment");
    let late = store.note_progress("t", "{}").await.unwrap_err();
    assert!(late.to_string().contains("taken over"), "{late}");
    worker.close().await;
    leader.close().await;
}

#[tokio::test]
async fn what_was_published_is_not_published_again() {
    let place = Place::new();
    let (leader, worker) = (place.leader().await, place.worker("worker").await);
    leader.hand_in("t", &place.spec("wiki")).await.unwrap();
    worker.work("w").await.unwrap();
    // As if its server had died between publishing and saying so.
    let record = leader.task("t").await.unwrap().unwrap();
    leader.store().save_task(&TaskRecord { status: TaskStatus::Running, report: None, ..record }).await.unwrap();
    assert_eq!(worker.work("w").await.unwrap().as_deref(), Some("t"));
    assert_eq!(status(&leader, "t").await.0, TaskStatus::Success);
    assert_eq!(leader.store().used("wiki").await.unwrap().1.len(), 1);
    worker.close().await;
    leader.close().await;
}

#[tokio::test]
async fn a_task_that_kills_whoever_runs_it_fails_after_some_attempts() {
    let place = Place::new();
    let (leader, worker) = (place.leader().await, place.worker("worker").await);
    leader.hand_in("t", &place.spec("wiki")).await.unwrap();
    for attempt in 0..ATTEMPTS {
        begun_by_the_dead(&leader, "t", &format!("victim {attempt}")).await;
    }
    worker.work("w").await.unwrap();
    let (status, error) = status(&leader, "t").await;
    assert_eq!(status, TaskStatus::Failed);
    assert!(error.contains("begun 5 times"), "{error}");
    assert_eq!(leader.store().used("wiki").await.unwrap().1.len(), 0);
    worker.close().await;
    leader.close().await;
}

#[tokio::test]
async fn a_task_that_was_called_off_is_not_begun() {
    let place = Place::new();
    let (leader, worker) = (place.leader().await, place.worker("worker").await);
    leader.hand_in("t", &place.spec("wiki")).await.unwrap();
    assert!(leader.call_off("t").await.unwrap());
    let (found, error) = status(&leader, "t").await;
    assert_eq!((found, error.contains("canceled")), (TaskStatus::Failed, true), "{error}");
    assert!(!leader.call_off("t").await.unwrap());
    assert_eq!(worker.work("w").await.unwrap(), None);
    worker.close().await;
    leader.close().await;
}

#[tokio::test]
async fn partitions_are_merged_by_a_task() {
    let place = Place::new();
    let (leader, worker) = (place.leader().await, place.worker("worker").await);
    for id in ["a", "b"] {
        leader.hand_in(id, &place.spec("wiki")).await.unwrap();
        worker.work("w").await.unwrap();
    }
    let (_, used) = leader.store().used("wiki").await.unwrap();
    let ids = used.iter().map(|record| record.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids.len(), 2);
    leader.catch_up().await.unwrap();
    leader.set_standing("wiki", &ids, Standing::Active).await.unwrap();
    leader.hand_in("c", &TaskWork::Compact(CompactionSpec::new("wiki"))).await.unwrap();
    worker.work("w").await.unwrap();
    assert_eq!(status(&leader, "c").await, (TaskStatus::Success, String::new()));
    let (_, used) = leader.store().used("wiki").await.unwrap();
    let dormant = used.iter().filter(|record| record.standing == Standing::Dormant).collect::<Vec<_>>();
    assert_eq!(dormant.iter().map(|record| record.num_rows).collect::<Vec<_>>(), [4]);
    worker.close().await;
    leader.close().await;
}
