//! What every metadata store must do, run alike on all of them.

use henge_engine::model::{ColumnSchema, ColumnType, SegmentSchema, ShardSpec};

use super::*;
use std::sync::Arc;

fn time(text: &str) -> Timestamp {
    text.parse().expect("valid time")
}

fn interval(text: &str) -> Interval {
    text.parse().expect("valid interval")
}

fn record(span: &str, version: &str, partition: u32, rev: u64) -> SegmentRecord {
    let columns = [ColumnSchema::dimension("page", ColumnType::String)];
    let uid = SegmentUid::new(time("2026-01-01"), rev.into());
    SegmentRecord {
        id: SegmentId {
            data_source: "wiki".to_owned(),
            interval: interval(span),
            version: version.to_owned(),
            partition,
        },
        uid,
        shard_spec: ShardSpec::Numbered { partition_num: partition, partitions: 0 },
        load_spec: LoadSpec::Local { path: format!("wiki/{uid}-{partition}.henge") },
        schema: Arc::new(SegmentSchema::new(columns).expect("valid schema")),
        num_rows: 7,
        size_bytes: 700,
        hash: "crc64nvme:0".to_owned(),
        time_range: Some((time("2013-08-01"), time("2013-08-01T23:00"))),
        created: time("2026-01-01"),
        created_rev: rev,
    }
}

fn publication(publish_id: &str, span: &str) -> Publication {
    Publication {
        publish_id: publish_id.to_owned(),
        data_source: "wiki".to_owned(),
        spans: vec![interval(span)],
        now: time("2026-01-01"),
    }
}

async fn add(store: &dyn MetadataStore, publish_id: &str, records: Vec<SegmentRecord>) -> Result<u64> {
    let decide = |_: &Overlap| Ok(Decision { add: records.clone(), mark_unused: Vec::new() });
    match store.publish(&publication(publish_id, "2013-08-01/2013-08-02"), &decide).await? {
        Publish::Done(published) => Ok(published.rev),
        Publish::DoneBefore { rev } => Ok(rev),
    }
}

const DAY: &str = "2013-08-01/2013-08-02";

async fn what_is_published_reads_back(store: &dyn MetadataStore) -> Result<()> {
    let records = vec![record(DAY, "1", 0, 1), record(DAY, "1", 1, 1)];
    store.intend_pushes("p", &[records[0].load_spec.clone(), LoadSpec::Local { path: "x".to_owned() }]).await?;
    assert_eq!(store.rev("wiki").await?, 0);
    assert_eq!(add(store, "p", records.clone()).await?, 1);
    let snapshot = store.snapshot().await?;
    assert_eq!(snapshot.segments, records);
    assert_eq!(snapshot.data_sources[0].rev, 1);
    assert!(store.intended_pushes().await?.is_empty());
    Ok(())
}

async fn a_publish_id_publishes_once(store: &dyn MetadataStore) -> Result<()> {
    assert_eq!(add(store, "p", vec![record(DAY, "1", 0, 1)]).await?, 1);
    assert_eq!(add(store, "p", vec![record(DAY, "1", 1, 1)]).await?, 1);
    assert_eq!(store.snapshot().await?.segments.len(), 1);
    assert_eq!(store.rev("wiki").await?, 1);
    Ok(())
}

async fn a_refused_or_failed_publication_leaves_nothing(store: &dyn MetadataStore) -> Result<()> {
    let refuse = |_: &Overlap| Err(henge_engine::Error::conflict("no"));
    assert!(store.publish(&publication("p", DAY), &refuse).await.is_err());
    add(store, "q", vec![record(DAY, "1", 0, 1)]).await?;
    let taken = add(store, "r", vec![record(DAY, "1", 1, 2), record(DAY, "1", 0, 2)]).await;
    assert!(taken.is_err());
    assert_eq!(store.snapshot().await?.segments.len(), 1);
    assert_eq!(store.rev("wiki").await?, 1);
    Ok(())
}

async fn a_decision_sees_what_overlaps_and_what_overlaps_that(store: &dyn MetadataStore) -> Result<()> {
    let hour = "2013-08-01T05/2013-08-01T06";
    let other_hour = "2013-08-01T07/2013-08-01T08";
    let records =
        vec![record(DAY, "1", 0, 1), record(other_hour, "2", 3, 1), record("2013-08-02/2013-08-03", "1", 0, 1)];
    add(store, "p", records).await?;
    let marked = store.mark_unused("wiki", interval(other_hour), time("2026-01-02")).await?;
    assert_eq!(marked.segments.len(), 1);
    let decide = |overlap: &Overlap| {
        assert_eq!(overlap.rev, 3);
        let used = overlap.used.iter().map(|record| record.id.interval).collect::<Vec<_>>();
        assert_eq!(used, [interval(DAY)], "the unused is not shown, what only abuts neither");
        let taken = overlap.taken.iter().map(|group| (group.interval, group.max_partition)).collect::<Vec<_>>();
        assert_eq!(taken.len(), 2);
        assert!(taken.contains(&(interval(other_hour), 3)));
        let mark_unused = overlap.used.iter().map(|record| record.id.clone()).collect();
        Ok(Decision { add: vec![record(hour, "3", 0, overlap.rev)], mark_unused })
    };
    store.publish(&publication("q", hour), &decide).await?;
    let left = store.snapshot().await?.segments.into_iter().map(|record| record.id.interval).collect::<Vec<_>>();
    assert_eq!(left, [interval(hour), interval("2013-08-02/2013-08-03")]);
    Ok(())
}

async fn killing_spares_what_is_used_in_use_or_shared_and_burns_the_id(store: &dyn MetadataStore) -> Result<()> {
    let (old, busy, kept) = (record(DAY, "1", 0, 1), record(DAY, "1", 1, 2), record(DAY, "2", 0, 3));
    let alias = SegmentRecord { id: SegmentId { version: "3".to_owned(), ..kept.id.clone() }, ..kept.clone() };
    add(store, "p", vec![old.clone(), busy.clone(), kept.clone()]).await?;
    store.mark_unused("wiki", Interval::ETERNITY, time("2026-01-02")).await?;
    add(store, "q", vec![alias.clone()]).await?;

    let in_use = HashSet::from([busy.uid]);
    let candidates = store.begin_kill("wiki", Interval::ETERNITY, &in_use).await?;
    let found = candidates.iter().map(|c| (c.id.clone(), c.is_shared)).collect::<Vec<_>>();
    assert_eq!(found, [(old.id.clone(), false), (kept.id.clone(), true)]);
    let again = store.begin_kill("wiki", Interval::ETERNITY, &in_use).await?;
    assert_eq!(again.len(), 2, "an interrupted kill is taken up again");
    store.finish_kill(&[old.id.clone(), kept.id]).await?;
    assert!(store.begin_kill("wiki", Interval::ETERNITY, &in_use).await?.is_empty());
    assert!(add(store, "r", vec![old]).await.is_err(), "the id stays taken");
    assert_eq!(store.snapshot().await?.segments, [alias]);
    Ok(())
}

async fn tasks_are_replaced_and_listed_newest_first(store: &dyn MetadataStore) -> Result<()> {
    let task = |id: &str, created: &str, status| TaskRecord {
        id: id.to_owned(),
        task_type: "index_parallel".to_owned(),
        data_source: "wiki".to_owned(),
        created: time(created),
        status,
        duration_ms: None,
        error: None,
        payload: "{}".to_owned(),
        report: None,
    };
    store.save_task(&task("a", "2026-01-01", TaskStatus::Running)).await?;
    store.save_task(&task("b", "2026-01-02", TaskStatus::Waiting)).await?;
    let done = TaskRecord { duration_ms: Some(5), ..task("a", "2026-01-01", TaskStatus::Success) };
    store.save_task(&done).await?;
    assert_eq!(store.task("a").await?, Some(done));
    assert_eq!(store.task("c").await?, None);
    let ids = store.tasks(9).await?.into_iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids, ["b", "a"]);
    assert_eq!(store.tasks(1).await?.len(), 1);
    Ok(())
}

async fn users_are_replaced_listed_by_name_and_removed(store: &dyn MetadataStore) -> Result<()> {
    let user = |name: &str, verifier: &str| UserRecord {
        name: name.to_owned(),
        verifier: verifier.to_owned(),
        created: time("2026-01-01"),
    };
    assert!(store.users().await?.is_empty());
    store.save_user(&user("zoe", "1")).await?;
    store.save_user(&user("amy", "2")).await?;
    store.save_user(&user("zoe", "3")).await?;
    assert_eq!(store.users().await?, [user("amy", "2"), user("zoe", "3")]);
    assert!(store.remove_user("amy").await?);
    assert!(!store.remove_user("amy").await?);
    assert_eq!(store.users().await?, [user("zoe", "3")]);
    Ok(())
}

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod memory_store {
            use super::*;
            $(#[tokio::test] async fn $test() -> Result<()> { super::$test(&MemoryStore::new()).await })*
        }
        mod sqlite_store {
            use super::*;
            $(#[tokio::test] async fn $test() -> Result<()> {
                let dir = tempfile::tempdir().expect("temporary directory");
                let store = SqliteStore::open(&dir.path().join("metadata.sqlite")).await?;
                super::$test(&store).await?;
                store.close().await;
                assert!(store.snapshot().await.is_err());
                Ok(())
            })*
        }
    };
}

suite!(
    what_is_published_reads_back,
    a_publish_id_publishes_once,
    a_refused_or_failed_publication_leaves_nothing,
    a_decision_sees_what_overlaps_and_what_overlaps_that,
    killing_spares_what_is_used_in_use_or_shared_and_burns_the_id,
    tasks_are_replaced_and_listed_newest_first,
    users_are_replaced_listed_by_name_and_removed,
);
