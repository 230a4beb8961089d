//! What every metadata store must do, run alike on all of them.

pub(crate) mod server;

use std::sync::Arc;

use henge_engine::error::Category;
use henge_engine::model::{ColumnSchema, ColumnType, SegmentSchema, ShardSpec};

use super::*;
use crate::rule::Load;

/// A store, and somebody who changes its rows by hand.
struct Fixture {
    store: Arc<dyn MetadataStore>,
    hand: Hand,
}

enum Hand {
    Memory(Arc<MemoryStore>),
    /// Of a database.
    Sql(String),
}

impl Fixture {
    fn memory() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self { store: Arc::clone(&store) as _, hand: Hand::Memory(store) }
    }

    async fn open(url: &str) -> Result<Self> {
        let store = url.parse::<MetadataUrl>()?.open().await?;
        Ok(Self { store, hand: Hand::Sql(url.to_owned()) })
    }

    /// As the tutorial of 2013 does it, word for word on MySQL; elsewhere `end` is a word of SQL and wants quotes.
    async fn insert(&self, record: &SegmentRecord) -> Result<()> {
        let SegmentRecord { id, created, load_spec, shard_spec, .. } = record.clone();
        let url = match &self.hand {
            Hand::Memory(store) => return store.insert_by_hand(Inserted { id, created, load_spec, shard_spec }),
            Hand::Sql(url) => url,
        };
        let end = if url.starts_with("mysql") { "end" } else { "\"end\"" };
        let (data_source, version) = (&id.data_source, &id.version);
        let (start, until) = (id.interval.start(), id.interval.end());
        let (load_spec, shard_spec) = (payload::to_json(&load_spec)?, payload::to_json(&shard_spec)?);
        let sql = format!(
            "insert into segments (id, dataSource, created_date, start, {end}, partitioned, version, used, payload) \
             values ('{id}', '{data_source}', '{created}', '{start}', '{until}', '0', '{version}', '1', \
             '{{\"dataSource\":\"{data_source}\",\"interval\":\"{start}/{until}\",\"version\":\"{version}\",\
             \"loadSpec\":{load_spec},\"dimensions\":\"page,user\",\"metrics\":\"count,added\",\
             \"shardSpec\":{shard_spec},\"binaryVersion\":9,\"size\":24664730,\"identifier\":\"{id}\"}}')"
        );
        server::run(url, &sql).await;
        Ok(())
    }

    async fn mark(&self, id: &SegmentId, used: bool) -> Result<()> {
        match &self.hand {
            Hand::Memory(store) => return store.mark_by_hand(id, used),
            Hand::Sql(url) => server::run(url, &format!("UPDATE segments SET used = {used} WHERE id = '{id}'")).await,
        }
        Ok(())
    }
}

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
        standing: Standing::Active,
    }
}

fn publication(publish_id: &str, span: &str) -> Publication {
    Publication {
        publish_id: publish_id.to_owned(),
        data_source: "wiki".to_owned(),
        spans: vec![interval(span)],
        intended_pushes: 0,
        advances: Vec::new(),
        sink: None,
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

async fn what_is_published_reads_back(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let records = vec![record(DAY, "1", 0, 1), record(DAY, "1", 1, 1)];
    let pushes = [records[0].load_spec.clone(), LoadSpec::Local { path: "x".to_owned() }];
    store.intend_pushes("p", &pushes).await?;
    assert_eq!(store.rev("wiki").await?, 0);
    assert_eq!(add(store, "p", records.clone()).await?, 1);
    let snapshot = store.snapshot().await?;
    assert_eq!(snapshot.segments, records);
    assert_eq!(store.used("wiki").await?, (1, records));
    assert_eq!(store.used("other").await?, (0, vec![]));
    assert_eq!(store.revs().await?, BTreeMap::from([("wiki".to_owned(), 1)]));
    assert_eq!(snapshot.data_sources[0].rev, 1);
    assert!(store.intended_pushes().await?.is_empty());
    Ok(())
}

async fn a_publish_id_publishes_once(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    assert_eq!(add(store, "p", vec![record(DAY, "1", 0, 1)]).await?, 1);
    assert_eq!(add(store, "p", vec![record(DAY, "1", 1, 1)]).await?, 1);
    assert_eq!(store.snapshot().await?.segments.len(), 1);
    assert_eq!(store.rev("wiki").await?, 1);
    Ok(())
}

async fn a_refused_or_failed_publication_leaves_nothing(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let refuse = |_: &Overlap| Err(henge_engine::Error::conflict("no"));
    assert!(store.publish(&publication("p", DAY), &refuse).await.is_err());
    add(store, "q", vec![record(DAY, "1", 0, 1)]).await?;
    let taken = add(store, "r", vec![record(DAY, "1", 1, 2), record(DAY, "1", 0, 2)]).await;
    assert!(taken.is_err());
    assert_eq!(store.snapshot().await?.segments.len(), 1);
    assert_eq!(store.rev("wiki").await?, 1);
    Ok(())
}

async fn a_decision_sees_what_overlaps_and_what_overlaps_that(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
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

async fn killing_spares_what_is_used_in_use_or_shared_and_burns_the_id(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let (old, busy, kept) = (record(DAY, "1", 0, 1), record(DAY, "1", 1, 2), record(DAY, "2", 0, 3));
    let alias = SegmentRecord { id: SegmentId { version: "3".to_owned(), ..kept.id.clone() }, ..kept.clone() };
    add(store, "p", vec![old.clone(), busy.clone(), kept.clone()]).await?;
    store.mark_unused("wiki", Interval::ETERNITY, time("2026-01-02")).await?;
    add(store, "q", vec![alias.clone()]).await?;

    let in_use = HashSet::from([busy.uid]);
    let candidates = store.begin_kill("wiki", Interval::ETERNITY, None, &in_use).await?;
    let found = candidates.iter().map(|c| (c.id.clone(), c.is_shared)).collect::<Vec<_>>();
    assert_eq!(found, [(old.id.clone(), false), (kept.id.clone(), true)]);
    let again = store.begin_kill("wiki", Interval::ETERNITY, None, &in_use).await?;
    assert_eq!(again.len(), 2, "an interrupted kill is taken up again");
    store.finish_kill(&[old.id.clone(), kept.id]).await?;
    assert!(store.begin_kill("wiki", Interval::ETERNITY, None, &in_use).await?.is_empty());
    assert!(add(store, "r", vec![old]).await.is_err(), "the id stays taken");
    assert_eq!(store.snapshot().await?.segments, [alias]);
    Ok(())
}

async fn tasks_are_replaced_and_listed_newest_first(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
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

async fn users_are_replaced_listed_by_name_and_removed(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
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

/// The process that put files into deep storage must not publish them once another has begun to remove them.
async fn files_taken_for_left_behind_are_not_published(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let specs = |names: [&str; 2]| names.map(|name| LoadSpec::Local { path: name.to_owned() });
    store.intend_pushes("old", &specs(["a", "b"])).await?;
    store.intend_pushes("new", &specs(["c", "d"])).await?;
    assert_eq!(store.doom_pushes(Pushes::Of("old")).await?, specs(["a", "b"]));
    let decide =
        |overlap: &Overlap| Ok(Decision { add: vec![record(DAY, "1", 0, overlap.rev)], mark_unused: Vec::new() });
    let intended = |publish_id| Publication { intended_pushes: 2, ..publication(publish_id, DAY) };
    let swept = store.publish(&intended("old"), &decide).await.err().map(|error| error.to_string());
    assert!(swept.is_some_and(|error| error.contains("left behind")));
    store.forget_pushes(&specs(["a", "b"])).await?;
    assert!(store.publish(&intended("old"), &decide).await.is_err(), "forgotten is gone for good");
    assert_eq!(store.snapshot().await?.segments.len(), 0);
    assert!(matches!(store.publish(&intended("new"), &decide).await?, Publish::Done(_)));
    assert!(store.doom_pushes(Pushes::Of("new")).await?.is_empty());
    assert!(store.intended_pushes().await?.is_empty());
    store.intend_pushes("last", &specs(["e", "f"])).await?;
    assert_eq!(store.doom_pushes(Pushes::All).await?, specs(["e", "f"]));
    Ok(())
}

/// A stream moves on together with the segments that hold its rows, or not at all.
async fn a_stream_advances_with_its_segments(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let publish = async |id: &str, part, from, to, segments: Vec<SegmentRecord>| {
        let stretch = StreamAdvance { stream: "wiki".to_owned(), part, from, to };
        let publication = Publication { advances: vec![stretch], ..publication(id, DAY) };
        let decide = move |_: &Overlap| Ok(Decision { add: segments.clone(), mark_unused: Vec::new() });
        store.publish(&publication, &decide).await
    };
    assert_eq!(store.stream_position("wiki", 0).await?, 0);
    assert!(matches!(publish("a", 0, 0, 7, vec![record(DAY, "1", 0, 1)]).await?, Publish::Done(_)));
    assert_eq!((store.stream_position("wiki", 0).await?, store.stream_position("wiki", 1).await?), (7, 0));
    for (from, to) in [(0, 9), (6, 9), (8, 9)] {
        let refused = publish("b", 0, from, to, vec![record(DAY, "1", 1, 2)]).await;
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("another process"), "{refused}");
    }
    let known = publish("a", 0, 0, 7, Vec::new()).await?;
    assert!(matches!(known, Publish::DoneBefore { .. }), "asked again, it was published before");
    assert_eq!(store.snapshot().await?.segments.len(), 1);
    assert!(matches!(publish("c", 1, 0, 3, Vec::new()).await?, Publish::Done(_)), "no rows, and yet further");
    assert!(matches!(publish("d", 0, 7, 8, Vec::new()).await?, Publish::Done(_)));
    assert_eq!((store.stream_position("wiki", 0).await?, store.stream_position("wiki", 1).await?), (8, 3));
    Ok(())
}

/// Parts of one stream move on together or not at all, from where each was said to begin; who resets it wins.
async fn parts_of_a_stream_begin_advance_and_are_reset_together(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let stream = "kafka/wiki/edits";
    let record = |source: &str, positions: &[(u32, u64)]| StreamRecord {
        source: Some(source.to_owned()),
        positions: positions.iter().copied().collect(),
    };
    let advance = |part, from, to| StreamAdvance { stream: stream.to_owned(), part, from, to };
    let publish = async |id: &str, advances: Vec<StreamAdvance>| {
        let publication = Publication { advances, ..publication(id, DAY) };
        store.publish(&publication, &|_| Ok(Decision::default())).await
    };
    assert_eq!(store.stream(stream).await?, StreamRecord::default());
    assert_eq!(store.begin_stream(stream, &record("a", &[(0, 5), (1, 0)])).await?, record("a", &[(0, 5), (1, 0)]));
    // What was said first stands.
    let begun = store.begin_stream(stream, &record("b", &[(1, 7), (2, 9)])).await?;
    assert_eq!(begun, record("a", &[(0, 5), (1, 0), (2, 9)]));
    assert_eq!(store.stream(stream).await?, begun);
    publish("one", vec![advance(0, 5, 8), advance(1, 0, 3)]).await?;
    let refused = publish("two", vec![advance(0, 8, 9), advance(1, 0, 4)]).await;
    assert!(refused.is_err(), "one of them is out of step, and neither moves");
    assert_eq!(store.stream(stream).await?.positions, BTreeMap::from([(0, 8), (1, 3), (2, 9)]));
    store.reset_stream(stream, &record("c", &[(0, 2), (1, 3)])).await?;
    assert_eq!(store.stream(stream).await?, record("c", &[(0, 2), (1, 3)]));
    assert!(publish("three", vec![advance(0, 8, 9)]).await.is_err(), "it is elsewhere now");
    publish("four", vec![advance(0, 2, 9), advance(1, 3, 4)]).await?;
    assert_eq!(store.stream(stream).await?.positions, BTreeMap::from([(0, 9), (1, 4)]));
    assert_eq!(store.stream("kafka/wiki/other").await?, StreamRecord::default());
    Ok(())
}

async fn supervisors_are_replaced_listed_by_id_and_removed(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let record = |id: &str, is_suspended| SupervisorRecord {
        id: id.to_owned(),
        data_source: "wiki".to_owned(),
        created: time("2026-01-01"),
        is_suspended,
        payload: "{}".to_owned(),
    };
    let audit = |id: &str| AuditEntry {
        key: id.to_owned(),
        kind: "supervisor".to_owned(),
        author: "ann".to_owned(),
        comment: String::new(),
        created: time("2026-01-01"),
        payload: "{}".to_owned(),
    };
    for (id, is_suspended) in [("b", false), ("a", false), ("b", true)] {
        store.save_supervisor(&record(id, is_suspended), &audit(id)).await?;
    }
    assert_eq!(store.supervisors().await?, [record("a", false), record("b", true)]);
    assert!(store.remove_supervisor("a", &audit("a")).await?);
    assert!(!store.remove_supervisor("a", &audit("a")).await?);
    assert_eq!(store.supervisors().await?, [record("b", true)]);
    assert_eq!(store.audit("supervisor", Some("a"), 10).await?.len(), 2);
    Ok(())
}

/// A sink is recorded in the order of its data source's changes, and with a publication or not at all.
async fn a_sink_changes_with_the_segments_that_hold_its_rows(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let opened = SinkRecord {
        uid: SegmentUid::numbered(7),
        data_source: "wiki".to_owned(),
        server: "127.0.0.1:8888".to_owned(),
        term: 0,
        schema: record(DAY, "1", 0, 1).schema,
        settled: 0,
        published: 0,
        pending: Vec::new(),
    };
    let other = SinkRecord { uid: SegmentUid::numbered(8), data_source: "other".to_owned(), ..opened.clone() };
    let now = time("2026-01-01");
    assert_eq!((store.save_sink(&opened, now).await?, store.save_sink(&other, now).await?), (1, 1));
    let state = store.state("wiki").await?;
    assert_eq!(state, DataSourceState { rev: 1, used: Vec::new(), sinks: vec![opened.clone()] });

    let published = SinkRecord { published: 7, pending: vec![SegmentUid::numbered(9)], ..opened.clone() };
    let publish = async |id: &str, from, to| {
        let stretch = StreamAdvance { stream: "wiki".to_owned(), part: 0, from, to };
        let sink = Some(published.clone());
        let publication = Publication { advances: vec![stretch], sink, ..publication(id, DAY) };
        let add = vec![record(DAY, "1", 0, 2)];
        let decide = move |_: &Overlap| Ok(Decision { add: add.clone(), mark_unused: Vec::new() });
        store.publish(&publication, &decide).await
    };
    assert!(publish("a", 3, 7).await.is_err(), "it is not published up to 3");
    assert_eq!(store.state("wiki").await?, state);
    assert!(matches!(publish("a", 0, 7).await?, Publish::Done(_)));
    let state = store.state("wiki").await?;
    assert_eq!((state.rev, state.used.len(), state.sinks), (2, 1, vec![published.clone()]));
    assert_eq!(store.snapshot().await?.sinks, [published.clone(), other.clone()]);

    // Who lost the lease under which it is written changes neither it nor the segments.
    let taken_over = SinkRecord { term: 2, server: "127.0.0.1:9999".to_owned(), ..published.clone() };
    store.save_sink(&taken_over, now).await?;
    let state = store.state("wiki").await?;
    let stale = SinkRecord { term: 1, ..published.clone() };
    assert_eq!(store.save_sink(&stale, now).await.unwrap_err().category(), Category::Conflict);
    let stretch = StreamAdvance { stream: "wiki".to_owned(), part: 0, from: 7, to: 8 };
    let publication = Publication { advances: vec![stretch], sink: Some(stale), ..publication("stale", DAY) };
    let refused = store.publish(&publication, &|_| Ok(Decision::default())).await;
    assert_eq!(refused.unwrap_err().category(), Category::Conflict);
    assert_eq!(store.state("wiki").await?, state);
    assert_eq!(store.stream_position("wiki", 0).await?, 7);
    store.save_sink(&SinkRecord { term: 2, ..published.clone() }, now).await?;

    assert!(store.remove_sink(&published, now).await?);
    assert!(!store.remove_sink(&published, now).await?);
    assert_eq!(store.snapshot().await?.sinks, [other]);
    Ok(())
}

/// Many at once, on one data source: each sees all before it, and none is lost.
async fn concurrent_publications_come_in_one_order(fixture: &Fixture) -> Result<()> {
    const WRITERS: u32 = 16;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&fixture.store);
        writers.spawn(async move {
            let decide = |overlap: &Overlap| {
                let partition = overlap.taken.first().map_or(0, |group| group.max_partition + 1);
                assert_eq!(overlap.used.len(), partition as usize);
                let mut record = record(DAY, "1", partition, overlap.rev);
                // Different writers, different schemas, and every second one the same.
                let columns = [ColumnSchema::dimension(format!("column {}", writer / 2), ColumnType::String)];
                record.schema = Arc::new(SegmentSchema::new(columns).expect("valid schema"));
                Ok(Decision { add: vec![record], mark_unused: Vec::new() })
            };
            store.publish(&publication(&format!("writer {writer}"), DAY), &decide).await
        });
    }
    let mut revs = std::collections::BTreeSet::new();
    while let Some(done) = writers.join_next().await {
        match done.expect("no panic")? {
            Publish::Done(published) => assert!(revs.insert(published.rev)),
            Publish::DoneBefore { .. } => panic!("each has its own id"),
        }
    }
    assert_eq!(revs, (1..=u64::from(WRITERS)).collect());
    assert_eq!(fixture.store.snapshot().await?.segments.len(), WRITERS as usize);
    Ok(())
}

/// Two processes run the same task: one of them publishes it.
async fn of_the_same_publication_at_once_one_is_done(fixture: &Fixture) -> Result<()> {
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = Arc::clone(&fixture.store);
        writers.spawn(async move {
            let decide = |overlap: &Overlap| {
                Ok(Decision { add: vec![record(DAY, "1", 0, overlap.rev)], mark_unused: Vec::new() })
            };
            store.publish(&publication("same", DAY), &decide).await
        });
    }
    let mut done = 0;
    while let Some(outcome) = writers.join_next().await {
        match outcome.expect("no panic")? {
            Publish::Done(_) => done += 1,
            Publish::DoneBefore { rev } => assert_eq!(rev, 1),
        }
    }
    assert_eq!((done, fixture.store.rev("wiki").await?), (1, 1));
    Ok(())
}

async fn a_row_inserted_by_hand_is_found_and_becomes_a_segment(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    add(store, "p", vec![record(DAY, "1", 0, 1)]).await?;
    let by_hand = SegmentRecord { shard_spec: ShardSpec::None, ..record(DAY, "2013-08-08T21:22:48.989Z", 0, 2) };
    fixture.insert(&by_hand).await?;
    assert_eq!(store.snapshot().await?.segments.len(), 1, "nothing is known of its rows yet");

    let rows = store.by_hand("").await?;
    let [HandRow { id, data_source, change: Change::Inserted(Ok(inserted)) }] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!((id.as_str(), data_source.as_str()), (by_hand.id.to_string().as_str(), "wiki"));
    let SegmentRecord { id, created, load_spec, shard_spec, .. } = by_hand.clone();
    assert_eq!(**inserted, Inserted { id, created, load_spec, shard_spec });
    assert!(store.by_hand(&by_hand.id.to_string()).await?.is_empty());

    let refuse = |_: &Overlap| Err(henge_engine::Error::conflict("no"));
    let adopt = Settlement::Adopt(by_hand.clone());
    assert!(store.settle(&adopt, time("2026-01-02"), &refuse).await.is_err());
    assert_eq!(store.by_hand("").await?.len(), 1);
    let accept = |overlap: &Overlap| {
        assert_eq!(overlap.used.len(), 1);
        Ok(Decision::default())
    };
    assert_eq!(store.settle(&adopt, time("2026-01-02"), &accept).await?, Some(2));
    assert_eq!(store.settle(&adopt, time("2026-01-02"), &|_| Ok(Decision::default())).await?, None, "once is enough");
    assert!(store.by_hand("").await?.is_empty());
    assert_eq!(store.used("wiki").await?.1, [record(DAY, "1", 0, 1), by_hand]);
    Ok(())
}

async fn segments_marked_by_hand_are_found_and_noted(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let (now, kept) = (time("2026-01-02"), record(DAY, "1", 0, 1));
    add(store, "p", vec![kept.clone(), record(DAY, "1", 1, 1)]).await?;
    fixture.mark(&kept.id, false).await?;
    let rows = store.by_hand("").await?;
    assert!(matches!(&rows[..], [HandRow { change: Change::MarkedUnused(Ok(id)), .. }] if *id == kept.id), "{rows:?}");
    assert!(
        store.begin_kill("wiki", Interval::ETERNITY, None, &HashSet::new()).await?.is_empty(),
        "it may be read still"
    );
    let accept = |_: &Overlap| Ok(Decision::default());
    assert_eq!(store.settle(&Settlement::Unuse(kept.id.clone()), now, &accept).await?, Some(2));
    assert_eq!(store.snapshot().await?.segments, [record(DAY, "1", 1, 1)]);

    fixture.mark(&kept.id, true).await?;
    let rows = store.by_hand("").await?;
    let [HandRow { change: Change::MarkedUsed(Some(found)), .. }] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(found.id, kept.id);
    assert_eq!(store.settle(&Settlement::Use(SegmentRecord::clone(found)), now, &accept).await?, Some(3));
    assert_eq!(store.used("wiki").await?.1.len(), 2);

    store.mark_unused("wiki", Interval::ETERNITY, now).await?;
    assert_eq!(store.begin_kill("wiki", Interval::ETERNITY, None, &HashSet::new()).await?.len(), 2);
    fixture.mark(&kept.id, true).await?;
    let rows = store.by_hand("").await?;
    assert!(matches!(&rows[..], [HandRow { change: Change::MarkedUsedTooLate, .. }]), "{rows:?}");
    assert_eq!(store.settle(&Settlement::Use(kept), now, &accept).await?, None);
    Ok(())
}

async fn segments_are_marked_used_as_if_by_hand(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let (now, ids) = (time("2026-01-02"), [0, 1].map(|partition| record(DAY, "1", partition, 1).id));
    add(store, "p", vec![record(DAY, "1", 0, 1), record(DAY, "1", 1, 1)]).await?;
    assert_eq!(store.mark_used("wiki", Interval::ETERNITY, None).await?, 0);
    store.mark_unused("wiki", Interval::ETERNITY, now).await?;
    assert_eq!(store.mark_used("wiki", Interval::ETERNITY, Some(&ids[..1])).await?, 1);
    let rows = store.by_hand("").await?;
    let [HandRow { change: Change::MarkedUsed(Some(found)), .. }] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(found.id, ids[0]);
    assert_eq!(store.mark_used("other", Interval::ETERNITY, Some(&ids)).await?, 0);
    assert_eq!(store.mark_used("wiki", "2013-09-01/2013-09-02".parse()?, None).await?, 0);
    assert_eq!(store.mark_used("wiki", DAY.parse()?, None).await?, 1);
    store.mark_unused("wiki", Interval::ETERNITY, now).await?;
    Ok(())
}

async fn tasks_that_have_not_ended_are_listed_in_their_order(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
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
    for task in [
        task("late", "2026-01-03", TaskStatus::Waiting),
        task("early", "2026-01-01", TaskStatus::Running),
        task("done", "2026-01-02", TaskStatus::Success),
    ] {
        store.save_task(&task).await?;
    }
    let ids = store.unfinished_tasks().await?.into_iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids, ["early", "late"]);
    for id in ["early", "done"] {
        store.note_progress(id, "half").await?;
    }
    assert_eq!(store.task("early").await?.and_then(|task| task.report).as_deref(), Some("half"));
    assert_eq!(store.task("done").await?.and_then(|task| task.report), None);
    // The files of tasks that have not ended are left alone.
    let file = |name: &str| LoadSpec::Local { path: name.to_owned() };
    store.intend_pushes("early_1", &[file("a")]).await?;
    store.intend_pushes("gone", &[file("b")]).await?;
    assert!(store.doom_pushes(Pushes::BegunBy(&["another".to_owned()])).await?.is_empty());
    assert_eq!(store.doom_pushes(Pushes::AllBut(&["early".to_owned()])).await?, [file("b")]);
    assert_eq!(store.published("early_1").await?, None);
    Ok(())
}

async fn a_lease_is_taken_from_whoever_holds_it(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let LeaseOutcome::Held(held) = store.acquire_lease("task/t", "a", TTL).await? else { panic!("nobody had it") };
    let seized = store.seize_lease("task/t", "b", TTL).await?;
    assert!(seized.epoch > held.epoch);
    assert!(!store.renew_lease(&held, TTL).await?);
    assert!(matches!(store.acquire_lease("task/t", "a", TTL).await?, LeaseOutcome::HeldBy { .. }));
    store.remove_lease("task/t").await?;
    assert_eq!(store.lease_holder("task/t").await?, None);
    assert!(!store.renew_lease(&seized, TTL).await?);
    let LeaseOutcome::Held(anew) = store.acquire_lease("task/t", "c", TTL).await? else { panic!("nobody had it") };
    // Its epochs begin again; those of before are others' all the same.
    store.act_under(Some(Lease { holder: "a".to_owned(), ..anew }));
    assert!(store.note_progress("t", "").await.is_err());
    store.act_under(None);
    Ok(())
}

const TTL: Duration = Duration::from_secs(60);

async fn a_lease_has_one_holder_and_its_epoch_grows(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let LeaseOutcome::Held(first) = store.acquire_lease("coordinator/0", "a", TTL).await? else { panic!("free") };
    let LeaseOutcome::HeldBy { holder, left } = store.acquire_lease("coordinator/0", "b", TTL).await? else {
        panic!("held by two");
    };
    assert!(holder == "a" && left <= TTL && left > TTL / 2, "{left:?}");
    assert!(store.renew_lease(&first, TTL).await?);
    assert!(matches!(store.acquire_lease("coordinator/1", "b", TTL).await?, LeaseOutcome::Held(_)));
    store.release_lease(&first).await?;
    assert!(!store.renew_lease(&first, TTL).await?);
    let LeaseOutcome::Held(second) = store.acquire_lease("coordinator/0", "b", TTL).await? else { panic!("free") };
    assert!(second.epoch > first.epoch);
    store.release_lease(&first).await?;
    assert!(store.renew_lease(&second, TTL).await?, "who lost it cannot end it");
    let LeaseOutcome::Held(again) = store.acquire_lease("coordinator/0", "b", TTL).await? else { panic!("its own") };
    assert!(again.epoch > second.epoch);
    Ok(())
}

async fn a_lease_that_is_not_renewed_ends(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let LeaseOutcome::Held(first) = store.acquire_lease("r", "a", Duration::from_millis(30)).await? else {
        panic!("free");
    };
    let second = loop {
        match store.acquire_lease("r", "b", TTL).await? {
            LeaseOutcome::Held(lease) => break lease,
            LeaseOutcome::HeldBy { left, .. } => tokio::time::sleep(left).await,
        }
    };
    assert!(!store.renew_lease(&first, TTL).await?);
    assert!(second.epoch > first.epoch);
    Ok(())
}

/// A process that was stopped, lost its lease and goes on must not write: not even what it began before.
async fn who_lost_the_lease_writes_nothing(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let LeaseOutcome::Held(first) = store.acquire_lease("r", "a", Duration::ZERO).await? else { panic!("free") };
    store.act_under(Some(first.clone()));
    add(store, "p", vec![record(DAY, "1", 0, 1)]).await?;
    let LeaseOutcome::Held(second) = store.acquire_lease("r", "b", TTL).await? else { panic!("free") };
    let refused = add(store, "q", vec![record(DAY, "1", 1, 2)]).await.err().map(|error| error.to_string());
    assert!(refused.is_some_and(|error| error.contains("taken over the lease `r`")));
    assert!(store.mark_unused("wiki", Interval::ETERNITY, time("2026-01-02")).await.is_err());
    store.act_under(Some(second));
    assert_eq!(add(store, "q", vec![record(DAY, "1", 1, 2)]).await?, 2);
    Ok(())
}

async fn rules_are_replaced_and_audited(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let entry = |created: &str| AuditEntry {
        key: "wiki".to_owned(),
        kind: "rules".to_owned(),
        author: "o'brien".to_owned(),
        comment: "why?".to_owned(),
        created: time(created),
        payload: "[]".to_owned(),
    };
    let rules = [Rule::LoadForever { load: Load::in_default_tier(1) }, Rule::DropForever];
    store.set_rules("wiki", &rules, &entry("2026-01-01")).await?;
    store.set_rules("wiki", &rules[..1], &entry("2026-01-02")).await?;
    assert_eq!(store.rules().await?, BTreeMap::from([("wiki".to_owned(), rules[..1].to_vec())]));
    store.set_rules("wiki", &[], &entry("2026-01-03")).await?;
    assert!(store.rules().await?.is_empty());
    assert_eq!(store.audit("rules", Some("wiki"), 2).await?, [entry("2026-01-03"), entry("2026-01-02")]);
    assert_eq!(store.audit("rules", None, 9).await?.len(), 3);
    assert!(store.audit("rules", Some("other"), 9).await?.is_empty());
    Ok(())
}

/// Names that a collation would take for one another.
async fn segments_sleep_and_wake_together(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let asleep = |partition| SegmentRecord { standing: Standing::Dormant, ..record(DAY, "1", partition, 1) };
    let (one, two, awake) = (asleep(0), asleep(1), record(DAY, "1", 2, 1));
    add(store, "p", vec![one.clone(), two.clone(), awake.clone()]).await?;
    let standings = async || -> Result<Vec<Standing>> {
        Ok(store.used("wiki").await?.1.into_iter().map(|record| record.standing).collect())
    };
    assert_eq!(standings().await?, [Standing::Dormant, Standing::Dormant, Standing::Active]);
    let ids = [one.id.clone(), two.id.clone()];
    assert_eq!(store.set_standing("wiki", &ids, Standing::Active, time("2026-01-02")).await?, 2);
    assert_eq!(standings().await?, [Standing::Active; 3]);
    assert_eq!(store.set_standing("wiki", &[awake.id], Standing::Dormant, time("2026-01-02")).await?, 3);
    assert_eq!(standings().await?[2], Standing::Dormant);
    store.wake_all(time("2026-01-03")).await?;
    assert_eq!((standings().await?, store.rev("wiki").await?), (vec![Standing::Active; 3], 4));
    store.wake_all(time("2026-01-03")).await?;
    assert_eq!(store.rev("wiki").await?, 4, "nothing was asleep");
    Ok(())
}

async fn of_unused_segments_the_older_ones_are_killed(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let (old, new, kept) = (record(DAY, "1", 0, 1), record(DAY, "1", 1, 2), record(DAY, "1", 2, 3));
    add(store, "p", vec![old.clone(), new.clone(), kept.clone()]).await?;
    store.mark_segments_unused("wiki", std::slice::from_ref(&old.id), time("2026-01-02")).await?;
    let marked = store.mark_segments_unused("wiki", std::slice::from_ref(&new.id), time("2026-01-09")).await?;
    assert_eq!((marked.rev, marked.segments), (3, vec![new.id]));
    assert_eq!(store.used("wiki").await?.1, [kept]);
    let before = Some(time("2026-01-05"));
    let candidates = store.begin_kill("wiki", Interval::ETERNITY, before, &HashSet::new()).await?;
    assert_eq!(candidates.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>(), [old.id]);
    Ok(())
}

async fn servers_are_registered_until_they_take_it_back(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    let server = |name: &str, incarnation: &str| ServerRecord {
        name: name.to_owned(),
        incarnation: incarnation.to_owned(),
        roles: vec!["historical".to_owned()],
        pg_port: None,
        grpc_port: Some(8889),
        is_encrypted: false,
        tier: "hot".to_owned(),
        zone: String::new(),
        max_bytes: 1 << 40,
        plan_version: "1".to_owned(),
        version: "0.1.0".to_owned(),
        started: time("2026-01-01"),
    };
    store.register(&server("b:1", "x")).await?;
    store.register(&server("a:1", "y")).await?;
    store.register(&server("b:1", "z")).await?;
    let found = store.servers().await?;
    assert!(found.iter().all(|registered| registered.age < Duration::from_secs(60)));
    let servers = found.into_iter().map(|registered| registered.server).collect::<Vec<_>>();
    assert_eq!(servers, [server("a:1", "y"), server("b:1", "z")]);
    store.unregister("b:1", "x").await?;
    assert_eq!(store.servers().await?.len(), 2, "another incarnation registered since");
    store.unregister("b:1", "z").await?;
    assert_eq!(store.servers().await?.len(), 1);
    let now = store.now().await?;
    assert!(now > time("2026-01-01") && now <= store.now().await?);
    Ok(())
}

async fn who_holds_a_lease_is_known_to_all(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    assert_eq!(store.lease_holder("r").await?, None);
    let LeaseOutcome::Held(lease) = store.acquire_lease("r", "a:1", Duration::from_secs(60)).await? else {
        return Err(henge_engine::Error::conflict("nobody else asked"));
    };
    assert_eq!(store.lease_holder("r").await?.as_deref(), Some("a:1"));
    store.release_lease(&lease).await?;
    assert_eq!(store.lease_holder("r").await?, None);
    Ok(())
}

async fn what_is_set_reads_back_and_is_audited(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    assert_eq!(store.config("c").await?, None);
    let audit = |payload: &str| AuditEntry {
        key: "c".to_owned(),
        kind: "config".to_owned(),
        author: "amy".to_owned(),
        comment: "why not".to_owned(),
        created: time("2026-01-01"),
        payload: payload.to_owned(),
    };
    store.set_config("c", "{}", &audit("{}")).await?;
    store.set_config("c", "[1]", &audit("[1]")).await?;
    assert_eq!(store.config("c").await?.as_deref(), Some("[1]"));
    assert_eq!(store.audit("config", Some("c"), 9).await?, [audit("[1]"), audit("{}")]);
    Ok(())
}

async fn names_are_compared_byte_by_byte(fixture: &Fixture) -> Result<()> {
    let store = fixture.store.as_ref();
    for (number, name) in ["wiki", "Wiki", "wikí", "WIKI"].into_iter().enumerate() {
        let mut record = record(DAY, "1", 0, 1);
        record.id.data_source = name.to_owned();
        let publication = Publication { data_source: name.to_owned(), ..publication(&format!("p{number}"), DAY) };
        let decide = |overlap: &Overlap| {
            assert_eq!(overlap.rev, 1);
            assert!(overlap.used.is_empty());
            Ok(Decision { add: vec![record.clone()], mark_unused: Vec::new() })
        };
        assert!(matches!(store.publish(&publication, &decide).await?, Publish::Done(_)));
    }
    let ids = store.snapshot().await?.segments.into_iter().map(|record| record.id.to_string()).collect::<Vec<_>>();
    assert!(ids.is_sorted() && ids.len() == 4, "{ids:?}");
    Ok(())
}

macro_rules! suite {
    ($($test:ident),* $(,)?) => {
        mod memory_store {
            use super::*;
            $(#[tokio::test] async fn $test() -> Result<()> { super::$test(&Fixture::memory()).await })*
        }
        mod sqlite_store {
            use super::*;
            $(#[tokio::test] async fn $test() -> Result<()> {
                let dir = tempfile::tempdir().expect("temporary directory");
                let url = format!("sqlite://{}", dir.path().join("metadata.sqlite").display());
                on_database(&url, async |fixture| super::$test(fixture).await).await
            })*
        }
        mod postgres_store {
            use super::*;
            $(#[tokio::test] async fn $test() -> Result<()> {
                let Some(url) = server::shared_database("postgres").await else { return Ok(()) };
                on_database(&url, async |fixture| super::$test(fixture).await).await
            })*
        }
        mod mariadb_store {
            use super::*;
            $(#[tokio::test] async fn $test() -> Result<()> {
                let Some(url) = server::shared_database("mariadb").await else { return Ok(()) };
                on_database(&url, async |fixture| super::$test(fixture).await).await
            })*
        }
    };
}

async fn on_database(url: &str, test: impl AsyncFnOnce(&Fixture) -> Result<()>) -> Result<()> {
    let fixture = Fixture::open(url).await?;
    test(&fixture).await?;
    fixture.store.close().await;
    assert!(fixture.store.snapshot().await.is_err());
    Ok(())
}

suite!(
    segments_are_marked_used_as_if_by_hand,
    tasks_that_have_not_ended_are_listed_in_their_order,
    a_lease_is_taken_from_whoever_holds_it,
    what_is_published_reads_back,
    a_publish_id_publishes_once,
    a_refused_or_failed_publication_leaves_nothing,
    a_decision_sees_what_overlaps_and_what_overlaps_that,
    killing_spares_what_is_used_in_use_or_shared_and_burns_the_id,
    tasks_are_replaced_and_listed_newest_first,
    users_are_replaced_listed_by_name_and_removed,
    files_taken_for_left_behind_are_not_published,
    a_stream_advances_with_its_segments,
    parts_of_a_stream_begin_advance_and_are_reset_together,
    supervisors_are_replaced_listed_by_id_and_removed,
    a_sink_changes_with_the_segments_that_hold_its_rows,
    concurrent_publications_come_in_one_order,
    of_the_same_publication_at_once_one_is_done,
    a_row_inserted_by_hand_is_found_and_becomes_a_segment,
    segments_marked_by_hand_are_found_and_noted,
    a_lease_has_one_holder_and_its_epoch_grows,
    a_lease_that_is_not_renewed_ends,
    who_lost_the_lease_writes_nothing,
    rules_are_replaced_and_audited,
    segments_sleep_and_wake_together,
    of_unused_segments_the_older_ones_are_killed,
    servers_are_registered_until_they_take_it_back,
    who_holds_a_lease_is_known_to_all,
    what_is_set_reads_back_and_is_audited,
    names_are_compared_byte_by_byte,
);

/// The database goes, and comes back on the same port: what was refused meanwhile says so and may be tried again, and
/// the store needs no help to find back.
async fn comes_back_by_itself(kind: &str) -> Result<()> {
    let Some(mut server) = server::Server::start(kind) else { return Ok(()) };
    let fixture = Fixture::open(&server.fresh_database().await).await?;
    let store = fixture.store.as_ref();
    assert_eq!(add(store, "p", vec![record(DAY, "1", 0, 1)]).await?, 1);
    server.order("stop");
    let refused = add(store, "q", vec![record(DAY, "1", 1, 2)]).await.expect_err("it is gone");
    assert!(refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains("cannot be reached"), "{refused}");
    assert!(store.snapshot().await.is_err_and(|error| error.is_retryable()));
    server.order("start");
    assert_eq!(add(store, "q", vec![record(DAY, "1", 1, 2)]).await?, 2);
    assert_eq!(store.snapshot().await?.segments.len(), 2);
    Ok(())
}

#[tokio::test]
async fn postgres_comes_back_by_itself() -> Result<()> {
    comes_back_by_itself("postgres").await
}

#[tokio::test]
async fn mariadb_comes_back_by_itself() -> Result<()> {
    comes_back_by_itself("mariadb").await
}
