use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use henge_engine::ingest::InputFormat;
use henge_engine::model::{DataSchema, SegmentUid, Timestamp};
use henge_engine::storage::{DeepStorage, DeepStorageUrl, Disk, MemoryDisk};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::clock::Clock;
use crate::store::Snapshot;
use crate::view::{Druids, Generation, Reads, RemoteRows, View};

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_225_600_000)
    }
}

const NAME: &str = "wiki";
/// Lives of streams whose power goes.
const SEEDS: u64 = 200;

fn spec() -> PushSpec {
    let mut schema = DataSchema::new(NAME, "t");
    schema.dimensions_spec.use_schema_discovery = true;
    PushSpec::new(schema)
}

fn limits(dir: &Path) -> Limits {
    Limits {
        memory_bytes: 1 << 30,
        wal_bytes: 1 << 30,
        pending_bytes: 1 << 30,
        granules: 100,
        threads: 2,
        spill_dir: dir.join("tmp"),
    }
}

fn streams(disk: &MemoryDisk, dir: &Path) -> Arc<Streams> {
    streams_of(disk, dir, limits(dir))
}

fn streams_of(disk: &MemoryDisk, dir: &Path, limits: Limits) -> Arc<Streams> {
    let storage =
        DeepStorage::open(&DeepStorageUrl::Local(dir.join("segments")), dir.join("cache"), Vec::new()).unwrap();
    let view = Arc::new(
        View::new(storage, Druids::default(), Reads::Here, RemoteRows::Refused, None, Snapshot::default()).unwrap(),
    );
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Streams::new("realtime".into(), disk, view, Arc::new(FixedClock), limits).unwrap()
}

fn request(number: u64, rows: u64, key: Option<PushKey>) -> Push {
    let text = (0..rows).map(|row| format!("{{\"t\": {row}, \"request\": {number}}}\n")).collect::<String>();
    Push {
        payload: Payload::Text { format: InputFormat::named("json").unwrap(), text: text.into() },
        key,
        on_error: OnError::Fail,
        max_row_bytes: 1000,
    }
}

/// How many rows of each request are shown.
fn shown(stream: &Stream) -> BTreeMap<i64, u64> {
    shown_of(&stream.generation())
}

/// What a client knows of its requests: of each, how many rows it has, and whether it was acknowledged.
#[derive(Default)]
struct Client {
    requests: BTreeMap<u64, (u64, bool)>,
    next: u64,
}

/// I7, F47, F48, F53: the power goes in the middle of requests, again and again. What was acknowledged is there once,
/// whole; what was not, once or not at all; and a request that is sent again under its key adds nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_once_after_every_power_loss() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for seed in 0..SEEDS {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut disk = MemoryDisk::new();
        let mut client = Client::default();
        let mut published = (0, BTreeMap::new());
        for life in 0..dice.random_range(1..4) {
            disk.fail_after(dice.random_range(5..60));
            live(&disk, dir.path(), &mut client, &mut published, &mut dice).await;
            disk = disk.after_power_loss(seed * 17 + life);
        }
        let streams = streams(&disk, dir.path());
        let Some(stream) = open(&streams, published.0) else {
            assert!(client.requests.values().all(|(_, acknowledged)| !acknowledged), "seed {seed}");
            continue;
        };
        check(&client, &published.1, &stream, seed);
        // All are sent once more: then all are there, and none twice.
        for (number, (rows, _)) in &client.requests {
            let pushed = stream.push(request(*number, *rows, Some(key(*number)))).await.unwrap();
            assert!(matches!(pushed, Pushed::Taken { .. }), "seed {seed}: {pushed:?}");
        }
        let mut all = published.1.clone();
        shown(&stream).into_iter().for_each(|(number, rows)| *all.entry(number).or_insert(0) += rows);
        let expected = client.requests.iter().map(|(number, (rows, _))| (*number as i64, *rows));
        assert_eq!(all, expected.collect(), "seed {seed}");
        acknowledged += client.requests.values().filter(|(_, acknowledged)| *acknowledged).count() as u64;
        streams.close(NAME);
    }
    assert!(acknowledged > SEEDS, "{acknowledged} requests were acknowledged: the test shows nothing");
}

fn key(number: u64) -> PushKey {
    PushKey::Idempotency(format!("request {number}"))
}

/// The stream as a process finds it; declared if it is not there. `None` when the power is off.
fn open(streams: &Arc<Streams>, position: u64) -> Option<Arc<Stream>> {
    let found = match streams.find().unwrap().pop() {
        Some(found) => found,
        None => streams.write(&SegmentUid::new(FixedClock.now(), 7), &spec()).ok()?,
    };
    streams.open(found, position).ok()
}

async fn live(
    disk: &MemoryDisk,
    dir: &Path,
    client: &mut Client,
    published: &mut (u64, BTreeMap<i64, u64>),
    dice: &mut StdRng,
) {
    let storage = streams_or_off(disk, dir);
    let Some(streams) = storage else { return };
    let Some(stream) = open(&streams, published.0) else { return };
    for _ in 0..dice.random_range(1..12) {
        // Some are new, some come again although they were acknowledged or failed.
        let number = dice.random_range(client.next.saturating_sub(3)..=client.next);
        client.next = client.next.max(number + 1);
        let (rows, was_acknowledged) =
            client.requests.get(&number).copied().unwrap_or((dice.random_range(1..30), false));
        client.requests.entry(number).or_insert((rows, false));
        let pushed = stream.push(request(number, rows, Some(key(number)))).await;
        if let Ok(Pushed::Taken { rows: taken, duplicate, .. }) = pushed {
            assert_eq!(taken, rows);
            assert!(duplicate || !was_acknowledged, "acknowledged, and taken once more");
            client.requests.insert(number, (rows, true));
        }
        if dice.random_bool(0.2)
            && let Ok(Some(closed)) = stream.rotate().await
        {
            // The metadata database is another disk, and does not fail here.
            let rows = shown_of(&closed.generation);
            published.0 = closed.to;
            rows.into_iter().for_each(|(number, rows)| *published.1.entry(number).or_insert(0) += rows);
            let _ = stream.published(closed.to, std::time::Duration::ZERO, 0).await;
        }
    }
    streams.close(NAME);
}

fn streams_or_off(disk: &MemoryDisk, dir: &Path) -> Option<Arc<Streams>> {
    disk.create_dir_durably(Path::new("realtime")).ok()?;
    Some(streams(disk, dir))
}

fn shown_of(generation: &Generation) -> BTreeMap<i64, u64> {
    let mut rows = BTreeMap::new();
    let snapshot = generation.index.snapshot().unwrap();
    for chunk in &snapshot.segments {
        let index = chunk.segment.schema().index_of("request").unwrap();
        let henge_engine::segment::Column::Long(numbers) = chunk.segment.column(index).unwrap() else { panic!() };
        let mut values = Vec::new();
        for block in 0..chunk.segment.num_rows().div_ceil(henge_engine::segment::BLOCK_ROWS) {
            numbers.read(block, &mut values).unwrap();
            values.iter().for_each(|number| *rows.entry(*number).or_insert(0) += 1);
        }
    }
    rows
}

fn check(client: &Client, published: &BTreeMap<i64, u64>, stream: &Stream, seed: u64) {
    assert!(!stream.is_quarantined(), "seed {seed}");
    let mut all = published.clone();
    shown(stream).into_iter().for_each(|(number, rows)| *all.entry(number).or_insert(0) += rows);
    for (number, (rows, acknowledged)) in &client.requests {
        match all.remove(&(*number as i64)) {
            Some(found) => assert_eq!(found, *rows, "seed {seed}: request {number}"),
            None => assert!(!acknowledged, "seed {seed}: request {number} was acknowledged and is gone"),
        }
    }
    assert_eq!(all, BTreeMap::new(), "seed {seed}: rows that nobody sent");
}

/// Requests of many clients are synced together, and each is answered for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_that_come_together_are_synced_together() {
    let dir = tempfile::tempdir().unwrap();
    let streams = streams(&MemoryDisk::new(), dir.path());
    let stream = open(&streams, 0).unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..50 {
        let stream = Arc::clone(&stream);
        clients.spawn(async move {
            for sequence in 1..=10 {
                // Every third one is sent twice.
                for _ in 0..1 + usize::from(sequence % 3 == 0) {
                    let key = PushKey::Producer { producer: format!("client {client}"), sequence };
                    let pushed = stream.push(request(client, 3, Some(key))).await.unwrap();
                    assert!(matches!(pushed, Pushed::Taken { rows: 3, .. }), "{pushed:?}");
                }
            }
        });
    }
    clients.join_all().await;
    assert_eq!(shown(&stream), (0..50).map(|client| (client, 30)).collect());
    let status = stream.status();
    assert_eq!((status.requests, status.duplicates, status.rows), (500, 150, 1500));
    assert!(status.syncs <= 500, "{}", status.syncs);
    streams.close(NAME);
}

/// F42: one bad row, and nothing of its request is taken unless that was asked for.
#[tokio::test]
async fn a_request_with_a_bad_row_is_refused_as_a_whole_or_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let streams = streams(&MemoryDisk::new(), dir.path());
    let stream = open(&streams, 0).unwrap();
    let push = |on_error| Push {
        payload: Payload::Text {
            format: InputFormat::named("json").unwrap(),
            text: "{\"t\": 1, \"request\": 1}\n{\"t\": \n{\"t\": 3, \"request\": 1}\n".into(),
        },
        key: None,
        on_error,
        max_row_bytes: 1000,
    };
    let Pushed::Refused { bad_rows, .. } = stream.push(push(OnError::Fail)).await.unwrap() else { panic!("taken") };
    assert_eq!(bad_rows.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2]);
    assert_eq!(stream.generation().index.num_rows(), 0);
    let pushed = stream.push(push(OnError::Skip)).await.unwrap();
    assert!(matches!(pushed, Pushed::Taken { rows: 2, unparseable: 1, .. }), "{pushed:?}");
    assert_eq!(shown(&stream), BTreeMap::from([(1, 2)]));
    streams.close(NAME);
}

/// F49: damage is told, what is left is shown, and nothing is added until a person decides.
#[tokio::test]
async fn a_damaged_log_is_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    {
        let streams = streams(&disk, dir.path());
        let stream = open(&streams, 0).unwrap();
        for number in 0..3 {
            stream.push(request(number, 5, None)).await.unwrap();
        }
        streams.close(NAME);
    }
    let log = Path::new("realtime").join(SegmentUid::new(FixedClock.now(), 7).to_string()).join("wal");
    let path = log.join("0000000000000001.log");
    let mut bytes = Vec::new();
    disk.open(&path).unwrap().read_to_end(&mut bytes).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.remove_file(&path).unwrap();
    disk.create(&path).unwrap().write_all(&bytes).unwrap();
    let streams = streams(&disk, dir.path());
    let stream = open(&streams, 0).unwrap();
    assert_eq!(shown(&stream), BTreeMap::from([(0, 5), (2, 5)]));
    assert_eq!(stream.status().state, StreamState::Quarantined);
    let Pushed::Full { message } = stream.push(request(9, 1, None)).await.unwrap() else { panic!("taken") };
    assert!(message.contains("entries 2 to 2"), "{message}");
    stream.accept_loss();
    assert!(matches!(stream.push(request(9, 1, None)).await.unwrap(), Pushed::Taken { position: 4, .. }));
    streams.close(NAME);
}

/// F52: a disk that is full refuses rows, and takes them again once there is room.
#[tokio::test]
async fn a_full_disk_refuses_rows_for_as_long_as_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let streams = streams(&disk, dir.path());
    let stream = open(&streams, 0).unwrap();
    stream.push(request(1, 5, Some(key(1)))).await.unwrap();
    disk.fail_after(0);
    for _ in 0..3 {
        assert!(stream.push(request(2, 5, Some(key(2)))).await.is_err());
        assert_eq!(shown(&stream), BTreeMap::from([(1, 5)]), "what was not taken is not shown");
    }
    disk.fail_after(u64::MAX);
    let pushed = stream.push(request(2, 5, Some(key(2)))).await.unwrap();
    assert!(matches!(pushed, Pushed::Taken { duplicate: false, .. }), "{pushed:?}");
    assert_eq!(shown(&stream), BTreeMap::from([(1, 5), (2, 5)]));
    streams.close(NAME);
}

/// F44, F55: rows that memory has no room for are in files, also those that a log has at the start.
#[tokio::test]
async fn a_log_is_read_within_the_memory_that_there_is() {
    const REQUESTS: u64 = 12;
    const ROWS: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let few = Limits { memory_bytes: 1 << 20, ..limits(dir.path()) };
    let streams = streams_of(&disk, dir.path(), few.clone());
    let stream = open(&streams, 0).unwrap();
    for number in 0..REQUESTS {
        let pushed = stream.push(request(number, ROWS, None)).await.unwrap();
        assert!(matches!(pushed, Pushed::Taken { .. }), "{pushed:?}");
        if streams.is_short_of_memory() {
            streams.spill(&stream.generation(), || streams.memory_bytes() <= few.memory_bytes / 2).unwrap();
        }
    }
    let all = (0..REQUESTS as i64).map(|number| (number, ROWS)).collect::<BTreeMap<_, _>>();
    assert_eq!(shown(&stream), all);
    streams.close(NAME);

    let streams = streams_of(&disk, dir.path(), few.clone());
    let stream = open(&streams, 0).unwrap();
    let status = stream.status();
    assert!(status.persists > 0, "nothing was moved to files");
    // The chunk that grows stays.
    assert!(status.memory_bytes <= 2 * few.memory_bytes as u64, "{} bytes", status.memory_bytes);
    assert_eq!(shown(&stream), all);
    streams.close(NAME);
}
