//! Segments that are read on demand.

use std::fmt::Write as _;

use henge_engine::segment::{Column, SegmentFile};

use super::*;

const ROWS: usize = 20_000;

/// Two segments of an hour each, with a long text in every row.
fn spec() -> String {
    let mut data = String::new();
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for row in 0..2 * ROWS {
        let hour = row / ROWS;
        let page = (0..8).map(|_| format!("{:016x}", next())).collect::<String>();
        writeln!(data, r#"{{"time":"2013-08-01T0{hour}:00:00Z","page":"{page}","added":{}}}"#, next() >> 34)
            .expect("a string takes all");
    }
    let spec = serde_json::json!({
        "dataSchema": {"dataSource": "wiki", "timestampSpec": {"column": "time"},
            "dimensionsSpec": {"dimensions": ["page", {"type": "long", "name": "added"}]},
            "granularitySpec": {"segmentGranularity": "hour", "rollup": false}},
        "ioConfig": {"inputFormat": {"type": "json"}, "inputSource": {"type": "inline", "data": data}},
    });
    spec.to_string()
}

/// What a column of numbers adds up to, read row by row.
fn sum(segment: &dyn Segment, column: &str) -> Result<i64> {
    let index = segment.schema().index_of(column).expect("a column");
    let Column::Long(column) = segment.column(index)? else { panic!("no numbers") };
    let (mut sum, mut values) = (0, Vec::new());
    for block in 0..segment.num_rows().div_ceil(henge_engine::segment::BLOCK_ROWS) {
        column.read(block, &mut values)?;
        sum += values.iter().sum::<i64>();
    }
    Ok(sum)
}

/// All texts of a column.
fn texts(segment: &dyn Segment, column: &str) -> Result<usize> {
    let index = segment.schema().index_of(column).expect("a column");
    let Column::String(column) = segment.column(index)? else { panic!("no texts") };
    let (mut codes, mut rows) = (Vec::new(), 0);
    for block in 0..segment.num_rows().div_ceil(henge_engine::segment::BLOCK_ROWS) {
        column.read_codes(block, &mut codes)?;
        rows += codes.len();
    }
    assert_eq!(rows, segment.num_rows());
    Ok(column.dictionary().values()?.iter().flatten().map(str::len).sum())
}

struct Cold {
    place: Place,
    records: Vec<SegmentRecord>,
    files: Vec<PathBuf>,
    sums: Vec<i64>,
}

impl Cold {
    async fn new() -> Result<Self> {
        let place = Place::new()?;
        let records = place.segments_of(&spec()).await?;
        let deep = |record: &SegmentRecord| place.storage.file_here(record.uid, &record.load_spec);
        let files = records.iter().map(|record| Ok(deep(record)?.expect("a file"))).collect::<Result<Vec<_>>>()?;
        let sums = files.iter().map(|file| sum(&SegmentFile::open(file)?, "added")).collect::<Result<Vec<_>>>()?;
        Ok(Self { place, records, files, sums })
    }

    /// A historical that announces both segments.
    async fn open(&self, max_bytes: u64) -> Result<Historical> {
        let historical = self.place.open_with(max_bytes, true).await?;
        historical.order(load(1, &self.records)).await?;
        until("both are served", || historical.num_served() == 2).await;
        Ok(historical)
    }

    fn segment(&self, historical: &Historical, number: usize) -> Arc<dyn Segment> {
        historical.segment(self.records[number].uid).expect("it is served")
    }

    fn added_is_right(&self, historical: &Historical, number: usize) -> Result<()> {
        assert_eq!(sum(self.segment(historical, number).as_ref(), "added")?, self.sums[number]);
        Ok(())
    }

    fn part(&self, number: usize) -> PathBuf {
        self.place.path(&format!("historical/segment-cache/{}.partial", self.records[number].uid))
    }
}

fn figures(historical: &Historical) -> ColdFigures {
    historical.cold_figures().expect("it reads on demand")
}

async fn end(historical: Historical) {
    historical.close().await;
    drop(historical);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_read_and_kept_and_the_rest_stays_where_it_is() -> Result<()> {
    let cold = Cold::new().await?;
    let size = cold.records[0].size_bytes;
    assert!(size > 1_500_000, "{size}");
    let historical = cold.open(64 << 20).await?;
    let announced = figures(&historical);
    assert!(announced.requests == 2 && announced.bytes_read <= 2 * (16 << 10), "{announced:?}");
    let server = crate::inventory::tests::server("a:1", "x");
    let page = historical.feed(&server, &Position::default(), Duration::ZERO).await;
    assert_eq!(page.used_bytes, cold.records.iter().map(|record| record.size_bytes).sum::<u64>());

    cold.added_is_right(&historical, 0)?;
    let once = figures(&historical);
    assert!(once.bytes_read * 4 < size, "{once:?} of {size}");
    cold.added_is_right(&historical, 0)?;
    assert_eq!(figures(&historical).bytes_read, once.bytes_read);
    assert_eq!(texts(cold.segment(&historical, 0).as_ref(), "page")?, ROWS * 128);
    let all = figures(&historical);
    assert!(all.bytes_read < announced.bytes_read + size + (64 << 10), "{all:?} of {size}");

    // As it was left, without deep storage: what was read is there, and nothing else.
    end(historical).await;
    std::fs::rename(cold.place.path("deep"), cold.place.path("away")).expect("renamed");
    let historical = cold.place.open_with(64 << 20, true).await?;
    assert_eq!(historical.num_served(), 2);
    cold.added_is_right(&historical, 0)?;
    let other = cold.segment(&historical, 1);
    let error = sum(other.as_ref(), "added").expect_err("it was never read");
    assert!(error.to_string().contains("cannot be read from deep storage"), "{error}");
    assert_eq!(figures(&historical).requests, 0);
    std::fs::rename(cold.place.path("away"), cold.place.path("deep")).expect("renamed");
    cold.added_is_right(&historical, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_here_is_mended_and_damage_there_is_told() -> Result<()> {
    let cold = Cold::new().await?;
    let historical = cold.open(64 << 20).await?;
    cold.added_is_right(&historical, 0)?;
    end(historical).await;
    let whole = std::fs::read(cold.part(0)).expect("read");
    let written = (0..whole.len()).filter(|at| whole[*at] != 0).collect::<Vec<_>>();
    for number in 0..8 {
        // A power loss may leave anything in it, and any length.
        let mut bytes = whole.clone();
        for at in written.iter().skip(number).step_by(5_000) {
            bytes[*at] ^= 0x40;
        }
        bytes.truncate(if number == 0 { 100 } else { bytes.len() });
        std::fs::write(cold.part(0), &bytes).expect("written");
        let historical = cold.open(64 << 20).await?;
        cold.added_is_right(&historical, 0)?;
        assert!(figures(&historical).requests > 0);
        end(historical).await;
    }

    // In deep storage, every part of the file in turn.
    let (deep, whole) = (&cold.files[0], std::fs::read(&cold.files[0]).expect("read"));
    let (mut told, mut unread) = (0, 0);
    for at in (16..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(deep, &bytes).expect("written");
        let _ = std::fs::remove_file(cold.part(0));
        let historical = cold.place.open_with(64 << 20, true).await?;
        let segment = cold.segment(&historical, 0);
        let read = sum(segment.as_ref(), "added").and_then(|sum| Ok((sum, texts(segment.as_ref(), "page")?)));
        match read {
            Ok(read) => {
                assert_eq!(read, (cold.sums[0], ROWS * 128), "byte {at}");
                unread += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("other bytes than were put there"), "byte {at}: {error}");
                told += 1;
            }
        }
        std::fs::write(deep, &whole).expect("written");
        assert_eq!((sum(segment.as_ref(), "added")?, texts(segment.as_ref(), "page")?), (cold.sums[0], ROWS * 128));
        drop(segment);
        end(historical).await;
    }
    assert!(told > 30 && unread < 8, "{told} told, {unread} in what nobody asked for");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_segment_under_the_same_name_is_not_announced() -> Result<()> {
    let mut cold = Cold::new().await?;
    std::fs::copy(&cold.files[1], &cold.files[0]).expect("copied");
    cold.records[0].size_bytes = cold.records[1].size_bytes;
    let historical = cold.place.open_with(64 << 20, true).await?;
    historical.order(load(1, &cold.records)).await?;
    until("one is served and one failed", || historical.num_served() == 1 && historical.num_loading() == 0).await;
    assert!(historical.segment(cold.records[0].uid).is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_within_its_limit_and_what_is_being_read_stays() -> Result<()> {
    let cold = Cold::new().await?;
    let limit = 120 << 10;
    let historical = cold.open(limit).await?;
    for round in 0..6 {
        cold.added_is_right(&historical, round % 2)?;
        let cached = figures(&historical).bytes_cached;
        assert!(cached <= limit, "{cached}");
    }
    let evicted = figures(&historical);
    assert!(evicted.segments_evicted >= 4 && evicted.bytes_evicted > limit, "{evicted:?}");

    let (first, second) = (cold.segment(&historical, 0), cold.segment(&historical, 1));
    let index = first.schema().index_of("added").expect("a column");
    let Column::Long(held) = first.column(index)? else { panic!("no numbers") };
    let mut values = Vec::new();
    held.read(0, &mut values)?;
    let error = texts(second.as_ref(), "page").expect_err("it is larger than the cache");
    assert!(error.to_string().contains("--segment-cache-size"), "{error}");
    let (before, requests) = (values.clone(), figures(&historical).requests);
    held.read(0, &mut values)?;
    assert_eq!((values, figures(&historical).requests), (before, requests), "who reads it reads on");
    drop(held);
    cold.added_is_right(&historical, 1)?;
    // What was fetched as a whole before is used, and may go.
    end(historical).await;
    let historical = cold.place.open(64 << 20).await?;
    assert_eq!(historical.num_served(), 0, "a part is no segment");
    historical.order(load(1, &cold.records)).await?;
    until("both are here", || historical.num_served() == 2).await;
    end(historical).await;
    let historical = cold.place.open_with(64 << 20, true).await?;
    cold.added_is_right(&historical, 0)?;
    assert_eq!(figures(&historical).requests, 0);
    Ok(())
}
