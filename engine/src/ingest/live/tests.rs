use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::ingest::tests::{Stored, rows_of};
use crate::ingest::{Cancellation, InputFormat, Reason};
use crate::model::{DataSchema, Granularity};
use crate::segment::{Segment, SegmentFile};

fn parser(schema: &Json) -> RowParser {
    let mut data_schema = json!({
        "dataSource": "test",
        "timestampSpec": {"column": "t"},
        "dimensionsSpec": {"useSchemaDiscovery": true},
        "granularitySpec": {"rollup": false, "segmentGranularity": "hour"},
    });
    for (key, value) in schema.as_object().unwrap() {
        data_schema[key] = value.clone();
    }
    RowParser::new(&serde_json::from_value::<DataSchema>(data_schema).unwrap()).unwrap()
}

fn rolled_up() -> Json {
    json!({
        "dimensionsSpec": {"dimensions": ["a", {"name": "n", "type": "long"}]},
        "metricsSpec": [
            {"type": "count", "name": "count"},
            {"type": "longSum", "name": "m", "fieldName": "m"},
            {"type": "longLast", "name": "last", "fieldName": "m"},
        ],
        "granularitySpec": {"rollup": true, "segmentGranularity": "hour", "queryGranularity": "minute"},
    })
}

fn stage(parser: &RowParser, rows: &[Json]) -> StagedRows {
    let text = rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let format = InputFormat::named("json").unwrap();
    parser.parse("test", &format, Bytes::from(text), &ParseOptions::default()).unwrap()
}

/// All rows that are shown, sorted; the types of the columns are part of each.
fn shown(snapshot: &LiveSnapshot) -> Vec<Stored> {
    let mut rows = Vec::new();
    for LiveSegment { segment, .. } in &snapshot.segments {
        for column in segment.schema().columns() {
            let index = snapshot.schema.index_of(&column.name).expect("the snapshot has the column");
            let wanted = &snapshot.schema.columns()[index];
            assert_eq!((column.column_type, column.multi_value), (wanted.column_type, wanted.multi_value));
        }
        let times = rows_of(segment.as_ref());
        assert!(times.is_sorted_by_key(|row| row["__time"].parse::<i64>().unwrap()));
        rows.extend(times);
    }
    rows.sort();
    rows
}

fn sealed(index: &LiveIndex, granularity: Option<Granularity>) -> Vec<Stored> {
    let dir = tempfile::tempdir().unwrap();
    let options = SealOptions {
        work_dir: dir.path().to_owned(),
        threads: 1,
        max_rows_per_segment: 7,
        granularity,
        cancel: Cancellation::default(),
    };
    let mut rows = Vec::new();
    for segment in index.seal(&options).unwrap() {
        let file = SegmentFile::open(&segment.path).unwrap();
        let (first, last) = file.time_range().unwrap();
        assert!(segment.interval.contains(first) && segment.interval.contains(last));
        rows.extend(rows_of(&file));
    }
    rows.sort();
    rows
}

/// Values of every kind that meet in one column, sooner or later.
fn value() -> impl Strategy<Value = Json> {
    prop_oneof![
        3 => (-3_i64..4).prop_map(|n| json!(n)),
        1 => Just(json!(1.5)),
        1 => Just(json!(2.0)),
        1 => Just(json!("1.50")),
        3 => "[ab]{1,2}".prop_map(|text| json!(text)),
        1 => prop::collection::vec("[ab]", 0..3).prop_map(|list| json!(list)),
        1 => Just(Json::Null),
    ]
}

/// Rows over a few hours, in any order, that lack some of their fields.
fn rows() -> impl Strategy<Value = Vec<Json>> {
    let kinds = prop_oneof![
        Just(["a"].as_slice()),
        Just(["a", "b"].as_slice()),
        Just(["b", "c"].as_slice()),
        Just([].as_slice()),
    ];
    let row = (0_i64..4 * 3_600_000, kinds, value(), -5_i64..6);
    let row = row.prop_map(|(time, names, value, number)| {
        let mut row = json!({"t": time, "n": number});
        names.iter().for_each(|name| row[name] = value.clone());
        row
    });
    prop::collection::vec(row, 0..60)
}

fn pieces(rows: &[Json], cuts: &[usize]) -> Vec<Vec<Json>> {
    let mut cuts = cuts.iter().map(|cut| cut % (rows.len() + 1)).chain([0, rows.len()]).collect::<Vec<_>>();
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| rows[cut[0]..cut[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// However rows are cut into requests and chunks, and whatever of them is in files: shown are the rows, with the types
    /// that all of them need, and so they are sealed.
    #[test]
    fn rows_are_the_same_however_they_come(
        rows in rows(),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
        chunk_rows in 1_usize..40,
        spilled in 0_usize..3,
    ) {
        let parser = parser(&json!({}));
        let whole = LiveIndex::new(&parser);
        whole.append(&stage(&parser, &rows), 1).unwrap();
        let expected = shown(&whole.snapshot().unwrap());
        prop_assert_eq!(expected.len(), rows.len());
        prop_assert_eq!(&sealed(&whole, None), &expected);

        let dir = tempfile::tempdir().unwrap();
        let index = LiveIndex::with_chunks_of(&parser, chunk_rows);
        let mut before: Vec<(Arc<LiveSnapshot>, Vec<Stored>)> = Vec::new();
        for (number, piece) in pieces(&rows, &cuts).iter().enumerate() {
            index.append(&stage(&parser, piece), number as u64 + 1).unwrap();
            let snapshot = index.snapshot().unwrap();
            let rows = shown(&snapshot);
            before.push((snapshot, rows));
            for _ in 0..spilled {
                index.spill_one(dir.path(), &Cancellation::default()).unwrap();
            }
        }
        prop_assert_eq!(&shown(&index.snapshot().unwrap()), &expected);
        prop_assert_eq!(index.num_rows(), rows.len() as u64);
        prop_assert_eq!(&sealed(&index, None), &expected);
        prop_assert_eq!(&sealed(&index, Some(Granularity::DAY)), &expected);
        prop_assert_eq!(&shown(&index.snapshot().unwrap()), &expected);
        for (snapshot, rows) in before {
            prop_assert_eq!(shown(&snapshot), rows, "what was shown once stays");
        }
    }

    /// Rolled up as they come, in chunks, or at the end: the metrics amount to the same, and at the end each key is there
    /// once.
    #[test]
    fn rollup_amounts_to_the_same_however_rows_come(
        rows in rows(),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
        chunk_rows in 1_usize..40,
    ) {
        let parser = parser(&rolled_up());
        let rows = rows.into_iter().map(|mut row| {
            row["m"] = row["n"].clone();
            if !row["a"].is_string() {
                row["a"] = json!("x");
            }
            row
        });
        let rows = rows.collect::<Vec<_>>();
        let index = LiveIndex::with_chunks_of(&parser, chunk_rows);
        for (number, piece) in pieces(&rows, &cuts).iter().enumerate() {
            index.append(&stage(&parser, piece), number as u64 + 1).unwrap();
        }
        let sums = |rows: &[Stored]| {
            let sum = |name: &str| rows.iter().map(|row| row[name].parse::<i64>().unwrap()).sum::<i64>();
            (sum("count"), sum("m"))
        };
        let expected = (rows.len() as i64, rows.iter().map(|row| row["m"].as_i64().unwrap()).sum::<i64>());
        prop_assert_eq!(sums(&shown(&index.snapshot().unwrap())), expected);
        let whole = LiveIndex::new(&parser);
        whole.append(&stage(&parser, &rows), 1).unwrap();
        let sealed_whole = sealed(&whole, None);
        prop_assert_eq!(sums(&sealed_whole), expected);
        let without_last = |rows: &[Stored]| {
            rows.iter().cloned().map(|mut row| { row.retain(|name, _| !name.contains("last")); row }).collect::<Vec<_>>()
        };
        // Of two events of one instant, either may be the last.
        prop_assert_eq!(without_last(&sealed(&index, None)), without_last(&sealed_whole));
        let mut keys = sealed_whole.iter().map(|row| (&row["__time"], row.get("a"), row.get("n"))).collect::<Vec<_>>();
        let len = keys.len();
        keys.dedup();
        prop_assert_eq!(keys.len(), len);
    }

    #[test]
    fn an_array_is_its_elements(rows in rows(), spaces in "[ \n]{0,3}") {
        let text = rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(&format!("{spaces},{spaces}"));
        let lines = split_array(format!("{spaces}[{spaces}{text}{spaces}]{spaces}").as_bytes()).unwrap().unwrap();
        let lines = String::from_utf8(lines).unwrap();
        let read = lines.lines().filter(|line| !line.trim().is_empty());
        let read = read.map(|line| serde_json::from_str::<Json>(line).unwrap()).collect::<Vec<_>>();
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn nothing_makes_splitting_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = split_array(&text);
    }
}

#[test]
fn what_is_no_array_is_told() {
    assert!(split_array(b" {\"a\": [1]}").is_none());
    assert!(split_array(b"").is_none());
    for wrong in ["[1, 2", "[1] 2", "[\"]", "["] {
        assert!(split_array(wrong.as_bytes()).unwrap().is_err(), "{wrong}");
    }
}

/// Every snapshot that is taken while rows are appended holds some first rows, and no part of a request.
#[test]
fn readers_see_whole_requests_while_a_writer_appends() {
    const REQUESTS: u64 = 400;
    const ROWS: u64 = 7;
    let parser = parser(&json!({}));
    let index = LiveIndex::with_chunks_of(&parser, 100);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = (0..2).map(|_| {
            scope.spawn(|| {
                let (mut snapshots, mut least) = (0, 0);
                loop {
                    let ended = done.load(Ordering::Acquire);
                    let snapshot = index.snapshot().unwrap();
                    let rows = snapshot.segments.iter().flat_map(|chunk| rows_of(chunk.segment.as_ref()));
                    let mut numbers = rows.map(|row| row["n"].parse::<u64>().unwrap()).collect::<Vec<_>>();
                    numbers.sort_unstable();
                    let count = numbers.len() as u64;
                    assert_eq!(count % ROWS, 0, "a request in part");
                    assert!(count >= least, "rows that were shown are gone");
                    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
                    (snapshots, least) = (snapshots + 1, count);
                    if ended {
                        assert_eq!(count, REQUESTS * ROWS);
                        return snapshots;
                    }
                }
            })
        });
        let readers = readers.collect::<Vec<_>>();
        for request in 0..REQUESTS {
            let rows = (0..ROWS)
                .map(|row| json!({"t": (request * 31) % 5000, "n": request * ROWS + row, "p": format!("p{row}")}));
            index.append(&stage(&parser, &rows.collect::<Vec<_>>()), request + 1).unwrap();
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}

/// F42: what is wrong with a row is told with its line, and the others are read.
#[test]
fn bad_rows_are_told_by_line_and_reason() {
    let parser = parser(&json!({"dimensionsSpec": {"dimensions": ["a", {"name": "n", "type": "long"}]}}));
    let deep = format!("{{\"t\": 1, \"a\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("{{\"t\": 1, \"a\": \"{}\"}}", "x".repeat(2_000));
    let mut text = Vec::new();
    for line in [
        r#"{"t": 1, "a": "good", "n": 1}"#,
        r#"{"t": 2, "a": "#,
        r#"{"a": "no time"}"#,
        r#"{"t": "yesterday"}"#,
        &long,
        r#"{"t": 3, "n": 99999999999999999999}"#,
        r#"{"t": 4, "n": NaN}"#,
        "\u{0}",
        r#"{"t": 5, "a": "good too", "n": "7"}"#,
    ] {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"{\"t\": 6, \"a\": \"\xff\"}\n");
    let options = ParseOptions { max_row_bytes: 1_000, ..ParseOptions::default() };
    let format = InputFormat::named("json").unwrap();
    let staged = parser.parse("test", &format, text.into(), &options).unwrap();
    let lines = staged.bad_rows.iter().map(|bad| (bad.line, bad.reason)).collect::<Vec<_>>();
    assert_eq!(
        lines,
        [
            (2, Reason::Unparseable),
            (3, Reason::MissingTimestamp),
            (4, Reason::BadTimestamp),
            (5, Reason::TooLong),
            (6, Reason::BadNumber),
            (7, Reason::Unparseable),
            (8, Reason::Unparseable),
            (10, Reason::Unparseable),
        ]
    );
    assert_eq!((staged.num_rows(), staged.stats.unparseable), (3, 7));
    let deep = parser.parse("test", &format, deep.into(), &ParseOptions::default()).unwrap();
    assert_eq!(deep.num_rows() + deep.bad_rows.len(), 1, "taken or told, and no panic");
}

/// F43: rows outside the window are counted, and the others taken.
#[test]
fn rows_that_are_late_or_early_are_counted() {
    let parser = parser(&json!({}));
    let window = crate::ingest::Window { earliest: 100, latest: 200 };
    let options = ParseOptions { window, ..ParseOptions::default() };
    let text = [99, 100, 200, 201, 300].map(|time| format!("{{\"t\": {time}}}\n")).concat();
    let staged = parser.parse("test", &InputFormat::named("json").unwrap(), text.into(), &options).unwrap();
    assert_eq!((staged.num_rows(), staged.stats.thrown_away, staged.stats.unparseable), (2, 3, 0));
    assert_eq!((staged.reasons[&Reason::Late], staged.reasons[&Reason::Early]), (1, 2));
}

/// More columns than a chunk may have begin another chunk, and are told before there are too many altogether.
#[test]
fn columns_are_bounded() {
    let parser = parser(&json!({}));
    let index = LiveIndex::new(&parser);
    let wide = |first: usize| {
        let mut row = json!({"t": 1});
        (first..first + 6_000).for_each(|n| row[format!("c{n}")] = json!(n));
        stage(&parser, &[row])
    };
    index.append(&wide(0), 1).unwrap();
    assert!(!index.would_have_too_many_columns(&wide(0)));
    assert!(index.would_have_too_many_columns(&wide(6_000)));
    // As a log may hold them that was written in two generations.
    index.append(&wide(6_000), 2).unwrap();
    let snapshot = index.snapshot().unwrap();
    assert_eq!((snapshot.segments.len(), snapshot.schema.columns().len()), (2, 12_001));
}
