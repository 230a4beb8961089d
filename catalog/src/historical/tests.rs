mod cold;

use std::path::Path;
use std::time::Instant;

use henge_engine::ingest::{self, FinishedSegment, IngestOptions, IngestionSpec};
use henge_engine::model::{SegmentId, ShardSpec, Timestamp};
use henge_engine::storage::{CacheLocation, DeepStorageUrl};
use tempfile::TempDir;

use super::*;
use crate::inventory::FeedChange;
use crate::store::Standing;

/// A deep storage with segments, and the directory of a historical.
struct Place {
    dir: TempDir,
    storage: DeepStorage,
}

const SPEC: &str = r#"{
  "dataSchema": {"dataSource": "wiki", "timestampSpec": {"column": "time"},
    "dimensionsSpec": {"dimensions": ["page"]}, "granularitySpec": {"segmentGranularity": "hour", "rollup": false}},
  "ioConfig": {"inputFormat": {"type": "json"}, "inputSource": {"type": "inline",
    "data": "{\"time\":\"2013-08-01T00:00:00Z\",\"page\":\"A\"}\n{\"time\":\"2013-08-01T01:00:00Z\",\"page\":\"B\"}"}}
}"#;

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let storage = DeepStorage::local(dir.path().join("deep"), dir.path().join("other-cache"))?;
        Ok(Self { dir, storage })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Two segments in deep storage, of one row each.
    async fn segments(&self) -> Result<Vec<SegmentRecord>> {
        self.segments_of(SPEC).await
    }

    /// Those that a spec makes.
    async fn segments_of(&self, spec: &str) -> Result<Vec<SegmentRecord>> {
        let work = self.path("work");
        std::fs::create_dir_all(&work).expect("created");
        let outcome = ingest::run(&IngestionSpec::from_json(spec)?, &IngestOptions::new(&work))?;
        let mut records = Vec::new();
        for (number, segment) in (0..).zip(outcome.segments) {
            records.push(self.push(segment, number).await?);
        }
        Ok(records)
    }

    async fn push(&self, segment: FinishedSegment, number: u128) -> Result<SegmentRecord> {
        let uid = SegmentUid::new(Timestamp::from_millis(1), number);
        let version = "2013-08-08T00:00:00.000Z".to_owned();
        let id = SegmentId { data_source: "wiki".to_owned(), interval: segment.interval, version, partition: 0 };
        let pushed = self.storage.push(&segment.path, &id, uid).await?;
        Ok(SegmentRecord {
            id,
            uid,
            shard_spec: ShardSpec::None,
            load_spec: pushed.load_spec,
            schema: segment.summary.schema,
            num_rows: segment.summary.num_rows as u64,
            size_bytes: pushed.size_bytes,
            hash: pushed.hash,
            time_range: segment.summary.time_range,
            created: Timestamp::from_millis(1),
            created_rev: 1,
            standing: Standing::Active,
        })
    }

    async fn open(&self, max_bytes: u64) -> Result<Historical> {
        self.open_with(max_bytes, false).await
    }

    async fn open_with(&self, max_bytes: u64, on_demand: bool) -> Result<Historical> {
        let url = DeepStorageUrl::Local(self.path("deep"));
        let location = CacheLocation { dir: self.path("historical/segment-cache"), max_bytes };
        Historical::open(HistoricalOptions {
            dir: self.path("historical"),
            storage: DeepStorage::caching(&url, vec![location], Vec::new())?,
            druids: Druids::default(),
            drop_delay: Duration::ZERO,
            on_demand,
        })
        .await
    }

    fn cached(&self) -> Vec<PathBuf> {
        files(&self.path("historical/segment-cache"))
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("listed").path());
    entries.filter(|path| path.is_file()).collect()
}

fn load(epoch: u64, load: &[SegmentRecord]) -> Orders {
    Orders { epoch, load: load.to_vec(), drop: Vec::new() }
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not reached");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_is_loaded_is_announced_again_without_being_fetched() -> Result<()> {
    let place = Place::new()?;
    let records = place.segments().await?;
    let historical = place.open(1 << 20).await?;
    historical.order(load(1, &records)).await?;
    until("both are served", || historical.num_served() == 2).await;
    assert!(place.open(1 << 20).await.is_err_and(|error| error.to_string().contains("in use by another historical")));
    historical.close().await;
    drop(historical);

    std::fs::remove_dir_all(place.path("deep")).expect("removed");
    let historical = place.open(1 << 20).await?;
    assert_eq!(historical.num_served(), 2);
    let segment = historical.segment(records[0].uid).expect("it is here");
    assert!(segment.column(1).is_ok());
    historical.order(Orders { epoch: 1, load: Vec::new(), drop: vec![records[0].uid] }).await?;
    assert_eq!(historical.num_served(), 1);
    until("its file is gone", || place.cached().len() == 1).await;
    assert!(segment.column(1).is_ok(), "who holds it reads on");
    historical.close().await;
    drop(historical);
    assert_eq!(place.open(1 << 20).await?.num_served(), 1, "what was dropped is not announced again");
    Ok(())
}

#[tokio::test]
async fn orders_of_a_coordinator_that_does_not_lead_any_more_are_refused_for_ever() -> Result<()> {
    let place = Place::new()?;
    let historical = place.open(1 << 20).await?;
    historical.order(load(7, &[])).await?;
    assert!(historical.order(load(6, &[])).await.is_err());
    historical.close().await;
    drop(historical);
    let historical = place.open(1 << 20).await?;
    assert!(historical.order(load(6, &[])).await.is_err());
    historical.order(load(7, &[])).await
}

#[tokio::test]
async fn a_load_without_room_fails_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let records = place.segments().await?;
    let historical = place.open(records[0].size_bytes + 10).await?;
    historical.order(load(1, &records)).await?;
    until("one is served and one failed", || historical.num_served() == 1 && historical.num_loading() == 0).await;
    let server = crate::inventory::tests::server("a:1", "x");
    let known = Position { incarnation: "x".to_owned(), seq: 0 };
    let page = historical.feed(&server, &known, Duration::ZERO).await;
    let reason = page.changes.iter().find_map(|change| match change {
        FeedChange::Failed(_, reason) => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.is_some_and(|reason| reason.contains("has no room")));
    assert_eq!(place.cached().len(), 1);
    Ok(())
}

/// F16: the file is whole, but another than was published.
#[tokio::test]
async fn another_file_than_was_published_is_not_served() -> Result<()> {
    let place = Place::new()?;
    let mut records = place.segments().await?;
    records[0].hash = records[1].hash.clone();
    let historical = place.open(1 << 20).await?;
    historical.order(load(1, &records)).await?;
    until("one is served and one failed", || historical.num_served() == 1 && historical.num_loading() == 0).await;
    assert!(historical.segment(records[0].uid).is_none());
    Ok(())
}

/// F10: whatever byte of a cached file changes, it is noticed, and the segment is fetched again.
#[tokio::test]
async fn damage_is_noticed_and_repaired() -> Result<()> {
    let place = Place::new()?;
    let records = place.segments().await?;
    let historical = place.open(1 << 20).await?;
    historical.order(load(1, &records)).await?;
    until("both are served", || historical.num_served() == 2).await;
    let path = place.path(&format!("historical/segment-cache/{}.henge", records[0].uid));
    let whole = std::fs::read(&path).expect("read");
    for at in (0..whole.len()).step_by(whole.len() / 50) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).expect("written");
        historical.doubt(records[0].uid);
        until("it is whole again", || {
            historical.num_served() == 2 && std::fs::read(&path).is_ok_and(|bytes| bytes == whole)
        })
        .await;
        assert!(historical.segment(records[0].uid).expect("it is here").column(1).is_ok(), "byte {at}");
    }
    Ok(())
}

/// Not run by default: `cargo test --workspace -- --ignored hundred_thousand`.
#[tokio::test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "it is what is measured")]
async fn hundred_thousand_cached_segments_are_announced_soon() -> Result<()> {
    let place = Place::new()?;
    let record = place.segments().await?.remove(0);
    let cache = place.path("historical/segment-cache");
    let info = InfoDir::open(place.path("historical/segment-info"))?;
    std::fs::create_dir_all(&cache).expect("created");
    let source = files_below(&place.path("deep")).remove(0);
    for number in 0..100_000 {
        let uid = SegmentUid::new(Timestamp::from_millis(2), number);
        let record = SegmentRecord { uid, ..record.clone() };
        std::fs::copy(&source, cache.join(format!("{uid}.henge"))).expect("copied");
        info.add_unsynced(&record);
    }
    let began = Instant::now();
    let historical = place.open(1 << 40).await?;
    assert_eq!(historical.num_served(), 100_000);
    println!("100,000 cached segments announced: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10));
    Ok(())
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = files(dir);
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("listed").path()) {
        if entry.is_dir() {
            found.extend(files_below(&entry));
        }
    }
    found.sort();
    found
}
