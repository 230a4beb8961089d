use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use henge_engine::ingest::Reason;
use henge_engine::ingest::stream::{Partition, Polled, Record, RecordSupplier, StreamPlace, StreamSource, Survey};
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::database::tests::{Place, number};
use crate::realtime::supervisor::Gap;

/// A stream in memory: the double of a broker.
#[derive(Clone, Debug, Default)]
struct MemoryStream(Arc<Mutex<Topic>>);

#[derive(Debug, Default)]
struct Topic {
    source: StreamSource,
    /// Of each partition, the offset of its first record and the records.
    partitions: Vec<(u64, Vec<String>)>,
    is_away: bool,
}

impl MemoryStream {
    fn new(partitions: usize) -> Self {
        let stream = Self::default();
        stream.make_anew("a", partitions);
        stream
    }

    fn make_anew(&self, id: &str, partitions: usize) {
        let mut topic = self.0.lock();
        topic.source.topic_id = Some(id.to_owned());
        topic.partitions = vec![(0, Vec::new()); partitions];
    }

    fn write(&self, partition: usize, record: &str) {
        self.0.lock().partitions[partition].1.push(record.to_owned());
    }

    /// Rows of one hour, each of which adds 1, over all partitions.
    fn write_rows(&self, rows: Range<u64>) {
        let partitions = self.0.lock().partitions.len() as u64;
        for row in rows {
            let json = json!({"time": format!("2013-08-01T{:02}:00:00Z", row % 24), "page": format!("p{}", row % 5), "added": 1});
            self.write((row % partitions) as usize, &json.to_string());
        }
    }

    fn remove_before(&self, partition: usize, offset: u64) {
        let (start, records) = &mut self.0.lock().partitions[partition];
        records.drain(..(offset - *start) as usize);
        *start = offset;
    }

    fn set_away(&self, is_away: bool) {
        self.0.lock().is_away = is_away;
    }
}

impl StreamConnector for MemoryStream {
    fn check(&self, _place: &StreamPlace) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn connect(&self, _place: &StreamPlace) -> Result<Box<dyn RecordSupplier>> {
        Ok(Box::new(MemorySupplier { stream: self.clone(), next: BTreeMap::new() }))
    }
}

#[derive(Debug)]
struct MemorySupplier {
    stream: MemoryStream,
    next: BTreeMap<Partition, u64>,
}

fn away() -> Error {
    Error::runtime_failure("the broker is away")
}

impl RecordSupplier for MemorySupplier {
    fn survey(&mut self) -> Result<Survey> {
        let topic = self.stream.0.lock();
        if topic.is_away {
            return Err(away());
        }
        let partitions = topic.partitions.iter().map(|(start, records)| *start..*start + records.len() as u64);
        Ok(Survey { source: topic.source.clone(), partitions: (0..).zip(partitions).collect() })
    }

    fn assign(&mut self, from: &BTreeMap<Partition, u64>) -> Result<()> {
        self.next = from.clone();
        Ok(())
    }

    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(&Record<'_>)) -> Polled {
        let polled = {
            let topic = self.stream.0.lock();
            if topic.is_away { Polled::Trouble(away()) } else { give(&topic, &mut self.next, take) }
        };
        if !matches!(polled, Polled::Record) {
            std::thread::sleep(wait.min(Duration::from_millis(2)));
        }
        polled
    }
}

fn give(topic: &Topic, next: &mut BTreeMap<Partition, u64>, take: &mut dyn FnMut(&Record<'_>)) -> Polled {
    for (partition, next) in next {
        let Some((start, records)) = topic.partitions.get(*partition as usize) else { return Polled::OutOfRange };
        let Some(at) = next.checked_sub(*start) else { return Polled::OutOfRange };
        if at > records.len() as u64 {
            return Polled::OutOfRange;
        }
        if let Some(record) = records.get(at as usize) {
            let value = Some(record.as_bytes());
            take(&Record {
                partition: *partition,
                offset: *next,
                timestamp: None,
                key: None,
                value,
                headers: Vec::new(),
            });
            *next += 1;
            return Polled::Record;
        }
    }
    Polled::Nothing
}

fn spec(changes: &[(&str, Value)]) -> Value {
    let mut spec = json!({"type": "kafka", "spec": {
        "dataSchema": {
            "dataSource": "wiki",
            "timestampSpec": {"column": "time"},
            "dimensionsSpec": {"dimensions": ["page"]},
            "metricsSpec": [{"type": "longSum", "name": "added", "fieldName": "added"}],
            "granularitySpec": {"segmentGranularity": "DAY", "rollup": false}
        },
        "ioConfig": {
            "topic": "edits", "inputFormat": {"type": "json"}, "consumerProperties": {}, "useEarliestOffset": true
        },
        "tuningConfig": {}
    }});
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    spec
}

async fn open(place: &Place, stream: &MemoryStream) -> Database {
    Database::builder(place.data()).streams(Arc::new(stream.clone())).open().await.unwrap()
}

async fn sum(database: &Database) -> i64 {
    match database.data_source("wiki") {
        Ok(_) => number(database, "SELECT COALESCE(SUM(added), 0) FROM wiki").await.unwrap(),
        Err(_) => 0,
    }
}

/// Waits for a state.
async fn until(what: &str, database: &Database, reached: impl Fn(&SupervisorStatus) -> bool) -> SupervisorStatus {
    let wait = async {
        loop {
            let status = database.supervisor("wiki").unwrap();
            if reached(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("{what}: {:?}", database.supervisor("wiki")))
}

fn has_read(records: u64) -> impl Fn(&SupervisorStatus) -> bool {
    move |status| status.reached.values().sum::<u64>() >= records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_shown_at_once_and_counted_once_after_a_hand_off_and_a_restart() -> Result<()> {
    let (place, stream) = (Place::new(), MemoryStream::new(2));
    stream.write_rows(0..100);
    let database = open(&place, &stream).await;
    let submitted = database.submit_supervisor(&spec(&[("/spec/ioConfig/taskCount", json!(2))]), "ann").await?;
    assert_eq!(submitted, Submitted { id: "wiki".to_owned(), notes: Vec::new() });
    until("read", &database, has_read(100)).await;
    assert_eq!(sum(&database).await, 100);
    let done = database.hand_off_supervisor("wiki").await?;
    assert_eq!((done.rows, done.segments.len()), (100, 1));
    assert_eq!(database.hand_off_supervisor("wiki").await?, HandOff::default(), "there is nothing more");
    stream.write_rows(100..150);
    let status = until("read on", &database, has_read(150)).await;
    assert_eq!((status.rows, status.live_rows, status.published.values().sum::<u64>()), (150, 50, 100));
    let lag = "SELECT SUM(current_offset - published_offset) FROM sys.supervisors WHERE state = 'RUNNING'";
    assert_eq!((sum(&database).await, number(&database, lag).await?), (150, 50));
    database.close().await;

    // What was not published is read again.
    stream.write_rows(150..160);
    let database = open(&place, &stream).await;
    let status = until("read again", &database, has_read(160)).await;
    assert_eq!((status.rows, sum(&database).await), (60, 160));
    database.hand_off_supervisor("wiki").await?;
    let published = "SELECT SUM(num_rows) FROM sys.segments WHERE is_published = 1";
    assert_eq!((sum(&database).await, number(&database, published).await?), (160, 160));
    database.close().await;
    Ok(())
}

/// 20 hand-offs while records come and queries run: no answer is less than one before it, nor more than was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_dips_or_exceeds_during_hand_offs() -> Result<()> {
    let (place, stream) = (Place::new(), MemoryStream::new(3));
    stream.write_rows(0..1);
    let database = open(&place, &stream).await;
    database.submit_supervisor(&spec(&[("/spec/ioConfig/taskCount", json!(2))]), "").await?;
    until("read", &database, has_read(1)).await;
    let done = AtomicBool::new(false);
    let written = Mutex::new(1_u64);
    let writing = async {
        while !done.load(Ordering::Acquire) {
            {
                let mut written = written.lock();
                *written += 50;
                stream.write_rows(*written - 50..*written);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let asking = async {
        let mut least = 1;
        while !done.load(Ordering::Acquire) {
            let answer = sum(&database).await;
            let most = *written.lock() as i64;
            assert!((least..=most).contains(&answer), "{answer} is not within {least}..={most}");
            least = answer;
        }
    };
    let handing_off = async {
        for _ in 0..20 {
            let so_far = database.supervisor("wiki").unwrap().rows;
            until("more", &database, |status| status.rows > so_far + 100).await;
            assert!(database.hand_off_supervisor("wiki").await.unwrap().rows > 0);
        }
        done.store(true, Ordering::Release);
    };
    tokio::join!(writing, asking, handing_off);
    let all = *written.lock();
    until("all", &database, has_read(all)).await;
    assert_eq!(sum(&database).await, all as i64);
    database.close().await;
    Ok(())
}

/// F38, F39: an offset that is gone stops its partition and is named; only a person has it go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_stops_its_partition_and_is_named_until_it_is_reset() -> Result<()> {
    let (place, stream) = (Place::new(), MemoryStream::new(2));
    stream.write_rows(0..20);
    let database = open(&place, &stream).await;
    database.submit_supervisor(&spec(&[]), "").await?;
    until("read", &database, has_read(20)).await;
    database.hand_off_supervisor("wiki").await?;
    database.close().await;

    stream.write_rows(20..40);
    stream.remove_before(0, 15);
    let database = open(&place, &stream).await;
    let decides = |status: &SupervisorStatus| matches!(status.state, SupervisorState::NeedsDecision(_));
    let status = until("stopped", &database, decides).await;
    assert_eq!(
        status.state,
        SupervisorState::NeedsDecision(vec![Gap::Lost { partition: 0, wanted: 10, there: 15..20 }])
    );
    assert!(status.errors[0].message.contains("5 records (10 to 14)"), "{:?}", status.errors);
    // The other partition goes on.
    until("the other", &database, |status| status.reached.get(&1) == Some(&20)).await;
    assert_eq!(sum(&database).await, 30);
    let positions = database.reset_supervisor("wiki", ResetTo::Gaps).await?;
    assert_eq!(positions, BTreeMap::from([(0, 15), (1, 20)]));
    let status = until("on", &database, has_read(40)).await;
    assert_eq!((status.state, sum(&database).await), (SupervisorState::Running, 35));

    // The topic is made anew, and grows beyond where the old one was.
    database.hand_off_supervisor("wiki").await?;
    stream.make_anew("b", 2);
    stream.write_rows(0..100);
    let status = until("another", &database, decides).await;
    let SupervisorState::NeedsDecision(gaps) = &status.state else { panic!("{status:?}") };
    assert!(gaps.iter().any(|gap| gap.to_string().contains("not the one that was read")), "{gaps:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspending_resuming_terminating_and_submitting_again_lose_and_repeat_nothing() -> Result<()> {
    let (place, stream) = (Place::new(), MemoryStream::new(1));
    stream.write_rows(0..10);
    let database = open(&place, &stream).await;
    database.submit_supervisor(&spec(&[]), "").await?;
    until("read", &database, has_read(10)).await;
    database.suspend_supervisor("wiki", "").await?;
    // What was read is handed off without being asked.
    until("handed off", &database, |status| status.handed_off_rows == 10).await;
    stream.write_rows(10..20);
    database.close().await;
    let database = open(&place, &stream).await;
    assert!(database.supervisor("wiki")?.is_suspended(), "it survives a restart");
    assert_eq!(sum(&database).await, 10);
    database.resume_supervisor("wiki", "").await?;
    until("read on", &database, has_read(20)).await;
    // Another spec goes on where the one before was.
    let limited = spec(&[("/spec/tuningConfig/maxTotalRows", json!(7))]);
    database.submit_supervisor(&limited, "").await?;
    stream.write_rows(20..30);
    until("handed off by its rows", &database, |status| status.handed_off_rows == 10).await;
    assert_eq!(sum(&database).await, 30);
    let other = spec(&[("/id", json!("other"))]);
    let error = database.submit_supervisor(&other, "").await.unwrap_err().to_string();
    assert!(error.contains("supervisor `wiki` fills `wiki`"), "{error}");
    stream.write_rows(30..35);
    until("read", &database, has_read(35)).await;
    database.terminate_supervisor("wiki", "").await?;
    assert!(database.supervisors().is_empty());
    stream.write_rows(35..40);
    assert_eq!(sum(&database).await, 35);
    database.submit_supervisor(&spec(&[]), "").await?;
    until("read", &database, has_read(40)).await;
    assert_eq!(sum(&database).await, 40);
    database.close().await;
    Ok(())
}

/// F37, F40, F42: the broker goes and comes, partitions are added, rows are broken: what can be read is, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_or_away_is_counted_and_told() -> Result<()> {
    let (place, stream) = (Place::new(), MemoryStream::new(1));
    stream.write_rows(0..5);
    for record in ["{\"time\":", "", "{\"page\":\"no time\"}", "{\"time\":\"2000-01-01T00:00:00Z\",\"added\":1}"] {
        stream.write(0, record);
    }
    let database = open(&place, &stream).await;
    let late = spec(&[("/spec/ioConfig/lateMessageRejectionStartDateTime", json!("2013-01-01T00:00:00Z"))]);
    database.submit_supervisor(&late, "").await?;
    let status = until("read", &database, has_read(9)).await;
    assert_eq!((status.rows, status.unparseable, status.thrown_away, status.empty), (5, 2, 1, 1), "{status:?}");
    assert_eq!(status.reasons[&Reason::Late], 1);
    assert!(status.bad_rows[0].contains("partition 0, offset 5"), "{:?}", status.bad_rows);
    stream.set_away(true);
    let status = until("away", &database, |status| status.state == SupervisorState::LostContact).await;
    assert!(!status.state.is_healthy() && status.errors.iter().any(|error| error.message.contains("away")));
    assert_eq!(sum(&database).await, 5, "what was read is shown");
    stream.set_away(false);
    stream.0.lock().partitions.push((0, Vec::new()));
    stream.write_rows(0..10);
    until("back", &database, has_read(19)).await;
    assert_eq!((sum(&database).await, database.hand_off_supervisor("wiki").await?.rows), (15, 15));
    database.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_broken_rows_stop_reading_where_it_is() -> Result<()> {
    let (place, stream) = (Place::new(), MemoryStream::new(1));
    stream.write_rows(0..5);
    let database = open(&place, &stream).await;
    let strict = |limit: i64| spec(&[("/spec/tuningConfig/maxParseExceptions", json!(limit))]);
    database.submit_supervisor(&strict(0), "").await?;
    until("read", &database, has_read(5)).await;
    stream.write(0, "no json");
    stream.write_rows(5..10);
    let stopped = |status: &SupervisorStatus| status.state == SupervisorState::TooManyParseExceptions;
    let status = until("stopped", &database, stopped).await;
    assert!(status.errors[0].message.contains("offset 5"), "{:?}", status.errors);
    assert_eq!(status.reached[&0], 5);
    database.submit_supervisor(&strict(1), "").await?;
    until("read on", &database, has_read(11)).await;
    assert_eq!(sum(&database).await, 10);
    database.close().await;
    Ok(())
}

/// F36: whoever publishes second what was published before publishes nothing, and goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_published_is_not_published_again() -> Result<()> {
    let (place, stream) = (Place::new(), MemoryStream::new(1));
    stream.write_rows(0..10);
    let database = open(&place, &stream).await;
    database.submit_supervisor(&spec(&[]), "").await?;
    until("read", &database, has_read(10)).await;
    // As if another one had published the first four.
    let moved = crate::store::StreamRecord { source: None, positions: BTreeMap::from([(0, 4)]) };
    database.store().reset_stream("kafka/wiki/edits", &moved).await?;
    let error = database.hand_off_supervisor("wiki").await.unwrap_err().to_string();
    assert!(error.contains("published by another process"), "{error}");
    until("again", &database, has_read(10)).await;
    assert_eq!((sum(&database).await, database.hand_off_supervisor("wiki").await?.rows), (6, 6));
    database.close().await;
    Ok(())
}
