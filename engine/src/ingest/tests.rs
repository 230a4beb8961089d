use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use arrow::array::{Array, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::segment::{BLOCK_ROWS, Column, Segment, SegmentFile};

/// A row read back from a segment: its columns by name, text as text, nulls left out.
pub(super) type Stored = BTreeMap<String, String>;

pub(super) fn rows_of(segment: &dyn Segment) -> Vec<Stored> {
    let mut rows = vec![Stored::new(); segment.num_rows()];
    for (index, column) in segment.schema().columns().iter().enumerate() {
        let mut set = |row: usize, value: Option<String>| {
            value.and_then(|value| rows[row].insert(column.name.clone(), value));
        };
        for block in 0..segment.num_rows().div_ceil(BLOCK_ROWS) {
            let base = block * BLOCK_ROWS;
            match segment.column(index).unwrap() {
                Column::Long(numbers) => {
                    let mut values = Vec::new();
                    let valid = numbers.read(block, &mut values).unwrap();
                    for (i, value) in values.iter().enumerate() {
                        set(base + i, valid.as_ref().is_none_or(|v| v.value(i)).then(|| value.to_string()));
                    }
                }
                Column::Float(numbers) => {
                    let mut values = Vec::new();
                    let valid = numbers.read(block, &mut values).unwrap();
                    for (i, value) in values.iter().enumerate() {
                        set(base + i, valid.as_ref().is_none_or(|v| v.value(i)).then(|| format!("{value:?}")));
                    }
                }
                Column::Double(numbers) => {
                    let mut values = Vec::new();
                    let valid = numbers.read(block, &mut values).unwrap();
                    for (i, value) in values.iter().enumerate() {
                        set(base + i, valid.as_ref().is_none_or(|v| v.value(i)).then(|| format!("{value:?}")));
                    }
                }
                Column::String(texts) => {
                    let values = texts.dictionary().values().unwrap();
                    let mut codes = Vec::new();
                    texts.read_codes(block, &mut codes).unwrap();
                    for (i, code) in codes.iter().map(|code| *code as usize).enumerate() {
                        set(base + i, values.is_valid(code).then(|| values.value(code).to_owned()));
                    }
                }
                Column::MultiString(lists) => {
                    let values = lists.dictionary().values().unwrap();
                    let (mut offsets, mut codes) = (Vec::new(), Vec::new());
                    lists.read_codes(block, &mut offsets, &mut codes).unwrap();
                    for (i, ends) in offsets.windows(2).enumerate() {
                        let items = codes[ends[0] as usize..ends[1] as usize].iter();
                        let items = items.map(|code| values.value(*code as usize)).collect::<Vec<_>>();
                        set(base + i, (!items.is_empty()).then(|| format!("[{}]", items.join("|"))));
                    }
                }
            }
        }
    }
    rows
}

/// All rows of all segments, sorted; and a check that each segment is what it is said to be.
fn stored(outcome: &IngestOutcome) -> Vec<Stored> {
    let mut rows = Vec::new();
    for segment in &outcome.segments {
        let file = SegmentFile::open(&segment.path).unwrap();
        file.verify().unwrap();
        assert_eq!(file.num_rows(), segment.summary.num_rows);
        let (first, last) = file.time_range().unwrap();
        assert!(segment.interval.contains(first) && segment.interval.contains(last));
        rows.extend(rows_of(&file));
    }
    rows.sort();
    rows
}

struct Given {
    dir: tempfile::TempDir,
}

impl Given {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn options(&self) -> IngestOptions {
        let work = self.dir.path().join("work");
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).unwrap();
        IngestOptions { threads: 2, ..IngestOptions::new(work) }
    }
}

/// A spec of files; `schema` and `tuning` are merged over what is usual.
fn spec(files: &[String], schema: Json) -> IngestionSpec {
    let mut data_schema = json!({
        "dataSource": "test",
        "timestampSpec": {"column": "t"},
        "dimensionsSpec": {"useSchemaDiscovery": true},
        "granularitySpec": {"rollup": false},
    });
    for (key, value) in schema.as_object().unwrap() {
        data_schema[key] = value.clone();
    }
    let json = json!({
        "dataSchema": data_schema,
        "ioConfig": {"inputSource": {"type": "local", "files": files}},
    });
    IngestionSpec::from_json(&json.to_string()).unwrap()
}

fn row(pairs: &[(&str, &str)]) -> Stored {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn json_lines_become_segments_by_granule() {
    let given = Given::new();
    let file = given.file(
        "a.json",
        "{\"t\":\"2013-08-02T01:00:00Z\",\"page\":\"B\",\"n\":1}\n\n{\"t\":\"2013-08-01T02:00:00Z\",\"page\":\"A\",\"n\":2.5,\"x\":{\"y\":[1]}}\r\n{\"t\":\"2013-08-01\",\"page\":null,\"tags\":[\"b\",\"a\"]}",
    );
    let outcome = run(&spec(&[file], json!({})), &given.options()).unwrap();
    assert_eq!(outcome.segments.len(), 2);
    assert_eq!(outcome.segments[0].interval, "2013-08-01/P1D".parse().unwrap());
    assert_eq!(
        stored(&outcome),
        [
            row(&[("__time", "1375315200000"), ("tags", "[b|a]")]),
            row(&[("__time", "1375322400000"), ("n", "2.5"), ("page", "A"), ("x", "{\"y\":[1]}")]),
            row(&[("__time", "1375405200000"), ("n", "1.0"), ("page", "B")]),
        ]
    );
    let names = outcome.segments[1].summary.schema.columns().iter().map(|c| c.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["__time", "page", "n", "x", "tags"]);
    assert_eq!(outcome.report.row_stats.processed, 3);
    assert_eq!(outcome.report.rows_written, 3);
}

#[test]
fn csv_tsv_gzip_zstd_and_parquet_give_the_same_rows() {
    let given = Given::new();
    let expected = [
        row(&[("__time", "1375315200000"), ("code", "007"), ("n", "1"), ("page", "a, \"b\"\nc")]),
        row(&[("__time", "1375315201000"), ("code", "8"), ("n", "-2"), ("x", "1.5")]),
    ];
    let csv = "t,page,n,x,code\n2013-08-01,\"a, \"\"b\"\"\nc\",1,,007\n2013-08-01T00:00:01Z,,-2,1.50,8\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv.as_bytes()).unwrap();
    let times = vec![1_375_315_200_000, 1_375_315_201_000];
    let batch = RecordBatch::try_from_iter([
        ("t", Arc::new(TimestampMillisecondArray::from(times)) as Arc<dyn Array>),
        ("page", Arc::new(StringArray::from(vec![Some("a, \"b\"\nc"), None]))),
        ("n", Arc::new(Int64Array::from(vec![1, -2]))),
        ("x", Arc::new(Float64Array::from(vec![None, Some(1.5)]))),
        ("code", Arc::new(StringArray::from(vec!["007", "8"]))),
    ])
    .unwrap();
    let mut parquet = Vec::new();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    for file in [
        given.file("a.csv", csv),
        given.file("a.csv.gz", gzip.finish().unwrap()),
        given.file("a.csv.zst", zstd::encode_all(csv.as_bytes(), 1).unwrap()),
        given.file(
            "a.tsv",
            "t\tpage\tn\tx\tcode\n2013-08-01\ta, \"b\"\\nc\t1\t\t007\n2013-08-01T00:00:01Z\t\t-2\t1.50\t8\n",
        ),
        given.file("a.parquet", parquet),
    ] {
        let outcome = run(&spec(std::slice::from_ref(&file), json!({})), &given.options()).unwrap();
        let mut expected = expected.to_vec();
        if file.ends_with("tsv") {
            expected[0].insert("page".to_owned(), "a, \"b\"\\nc".to_owned());
        }
        assert_eq!(stored(&outcome), expected, "{file}");
    }
    let outcome = run_batches(&spec(&[], json!({})), std::iter::once(Ok(batch)), &given.options()).unwrap();
    assert_eq!(stored(&outcome), expected);
}

#[test]
fn a_list_delimiter_and_given_columns_are_honoured() {
    let given = Given::new();
    let file = given.file("a.dat", "skipped\n2013-08-01;x|y\n2013-08-02;z\n");
    let mut spec = spec(&[file], json!({}));
    spec.io_config.input_format = serde_json::from_value(json!({
        "type": "tsv", "delimiter": ";", "columns": ["t", "tags"], "listDelimiter": "|", "skipHeaderRows": 1,
    }))
    .unwrap();
    let outcome = run(&spec, &given.options()).unwrap();
    assert_eq!(
        stored(&outcome),
        [row(&[("__time", "1375315200000"), ("tags", "[x|y]")]), row(&[("__time", "1375401600000"), ("tags", "[z]")]),]
    );
}

#[test]
fn every_bad_row_is_counted_and_shown_with_its_line() {
    let given = Given::new();
    let good = "{\"t\":\"2013-08-01\",\"n\":1}\n";
    let long = format!("{{\"t\":\"2013-08-01\",\"s\":\"{}\"}}\n", "x".repeat(2 << 20));
    let content = [
        good.as_bytes(),
        b"{\"t\":\"2013-08-01\",\"n\":}\n",
        b"{\"n\":1}\n",
        b"{\"t\":\"soon\"}\n",
        b"{\"t\":\"2014-08-01\"}\n",
        b"{\"t\":\"2013-08-01\",\"n\":\"many\"}\n",
        b"{\"t\":\"2013-08-01\",\"s\":\"\xff\"}\n",
        b"{\"t\":\"2013-08-01\",\"drop\":1}\n",
        long.as_bytes(),
        b"{\n",
        good.as_bytes(),
    ]
    .concat();
    let file = given.file("a.json", content);
    let spec = spec(
        std::slice::from_ref(&file),
        json!({
            "dimensionsSpec": {"dimensions": ["s"]},
            "metricsSpec": [{"type": "longSum", "name": "n", "fieldName": "n"}],
            "granularitySpec": {"rollup": false, "intervals": ["2013-08-01/P1D"]},
            "transformSpec": {"filter": {"type": "null", "column": "drop"}},
        }),
    );
    let bad_rows = given.dir.path().join("bad.json");
    let options = IngestOptions { bad_rows: Some(bad_rows.clone()), memory_limit_bytes: 1, ..given.options() };
    let report = run(&spec, &options).unwrap().report;
    let seen = report.unparseable_events.iter().map(|bad| (bad.line, bad.column, bad.reason)).collect::<Vec<_>>();
    assert_eq!(
        seen,
        [
            (2, Some(23), Reason::Unparseable),
            (3, None, Reason::MissingTimestamp),
            (4, None, Reason::BadTimestamp),
            (6, None, Reason::BadNumber),
            (7, Some(24), Reason::Unparseable),
            (9, None, Reason::TooLong),
            (10, Some(2), Reason::Unparseable),
        ]
    );
    assert!(report.unparseable_events.iter().all(|bad| *bad.file == *file));
    let stats = report.row_stats;
    assert_eq!((stats.processed, stats.processed_with_error, stats.thrown_away, stats.unparseable), (2, 1, 2, 6));
    assert_eq!((report.count(Reason::Filtered), report.count(Reason::OutsideIntervals)), (1, 1));
    assert_eq!(report.rows_read(), 11);
    let kept = std::fs::read_to_string(bad_rows).unwrap();
    let lines = kept.lines().map(|line| serde_json::from_str::<BadRow>(line).unwrap().line);
    let mut lines = lines.collect::<Vec<_>>();
    lines.sort_unstable();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7, 9, 10]);
}

#[test]
fn an_object_over_several_lines_is_refused_with_its_lines() {
    let given = Given::new();
    let file = given.file("a.json", "{\n  \"t\": \"2013-08-01\"\n}\n");
    let error = run(&spec(std::slice::from_ref(&file), json!({})), &given.options()).unwrap_err().to_string();
    assert!(error.contains("none of the 3 rows") && error.contains("must stand on one line"), "{error}");
    assert!(error.contains(&format!("{file}:1")), "{error}");
}

#[test]
fn an_unclosed_quote_spoils_one_line_only() {
    let given = Given::new();
    let file = given.file("a.csv", "t,s\n2013-08-01,a\n2013-08-02,\"b\n2013-08-03,c\n");
    let outcome = run(&spec(&[file], json!({})), &given.options()).unwrap();
    assert_eq!(outcome.report.row_stats.processed, 2);
    assert_eq!(outcome.report.unparseable_events[0].line, 3);
}

#[test]
fn too_many_bad_rows_fail_and_a_cancellation_too() {
    let given = Given::new();
    let file = given.file("a.json", "{\"t\":1}\n{\n{\n");
    let mut spec = spec(std::slice::from_ref(&file), json!({}));
    spec.tuning_config.max_parse_exceptions = Some(1);
    let error = run(&spec, &given.options()).unwrap_err().to_string();
    assert!(error.contains(&format!("{file}:2")), "{error}");
    spec.tuning_config.max_parse_exceptions = None;
    let options = given.options();
    options.cancel.cancel();
    let error = run(&spec, &options).unwrap_err();
    assert_eq!(error.category(), crate::error::Category::Canceled);
}

#[test]
fn a_damaged_archive_fails_by_name() {
    let given = Given::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all("{\"t\":1}\n".repeat(1000).as_bytes()).unwrap();
    let mut bytes = gzip.finish().unwrap();
    bytes.truncate(bytes.len() - 9);
    let file = given.file("a.json.gz", bytes);
    let error = run(&spec(std::slice::from_ref(&file), json!({})), &given.options()).unwrap_err().to_string();
    assert!(error.contains(&file), "{error}");
}

#[test]
fn rows_roll_up_perfectly_and_keep_first_and_last() {
    let given = Given::new();
    let lines = |hour: u32| {
        let rows =
            (0..30).map(|n| format!("{{\"t\":\"2013-08-01T{hour:02}:{n:02}:00Z\",\"p\":\"{}\",\"n\":{n}}}\n", n % 2));
        rows.collect::<String>()
    };
    let files = [given.file("a.json", lines(1) + &lines(2)), given.file("b.json", lines(1))];
    let spec = spec(
        &files,
        json!({
            "dimensionsSpec": {"dimensions": ["p"]},
            "metricsSpec": [
                {"type": "count", "name": "count"},
                {"type": "longSum", "name": "sum", "fieldName": "n"},
                {"type": "doubleMax", "name": "max", "fieldName": "n"},
                {"type": "longFirst", "name": "first", "fieldName": "n"},
                {"type": "longLast", "name": "last", "fieldName": "n"},
            ],
            "granularitySpec": {"queryGranularity": "hour", "rollup": true},
        }),
    );
    let outcome = run(&spec, &given.options()).unwrap();
    assert_eq!(outcome.report.row_stats.processed, 90);
    let rows = stored(&outcome).into_iter().map(|mut row| {
        row.retain(|key, _| !key.starts_with("__event_time"));
        row
    });
    let rows = rows.collect::<Vec<_>>();
    let expected = |time: &str, p: &str, count: &str, sum: &str, max: &str, first: &str, last: &str| {
        row(&[
            ("__time", time),
            ("count", count),
            ("first", first),
            ("last", last),
            ("max", max),
            ("p", p),
            ("sum", sum),
        ])
    };
    assert_eq!(
        rows,
        [
            expected("1375318800000", "0", "30", "420", "28.0", "0", "28"),
            expected("1375318800000", "1", "30", "450", "29.0", "1", "29"),
            expected("1375322400000", "0", "15", "210", "28.0", "0", "28"),
            expected("1375322400000", "1", "15", "225", "29.0", "1", "29"),
        ]
    );
}

#[test]
fn transforms_and_time_of_its_own_making() {
    let given = Given::new();
    let file = given.file("a.json", "{\"day\":\"01/08/2013\",\"a\":\"x\",\"n\":2}\n");
    let spec = spec(
        &[file],
        json!({
            "timestampSpec": {"column": "absent", "missingValue": "2000-01-01T00:00:00Z"},
            "transformSpec": {"transforms": [
                {"type": "expression", "name": "__time", "expression": "timestamp_parse(day, 'dd/MM/yyyy')"},
                {"type": "expression", "name": "b", "expression": "concat(a, n * 10)"},
            ]},
        }),
    );
    let outcome = run(&spec, &given.options()).unwrap();
    assert_eq!(
        stored(&outcome),
        [row(&[("__time", "1375315200000"), ("a", "x"), ("b", "x20"), ("day", "01/08/2013"), ("n", "2")])]
    );
}

#[test]
fn memory_stays_within_its_limit_by_spilling() {
    let given = Given::new();
    // About 60 MB with distinct texts, four times the least limit.
    let mut content = String::new();
    for n in 0..400_000_u64 {
        let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let minute = key % 1440;
        content += &format!(
            "{{\"t\":\"2013-08-01T{:02}:{:02}:00Z\",\"id\":\"{key:016x}-{key:016x}-{key:016x}-{key:016x}\",\"n\":{n}}}\n",
            minute / 60,
            minute % 60
        );
    }
    let bytes = content.len();
    let file = given.file("a.json", content);
    let options = IngestOptions { memory_limit_bytes: 16 << 20, ..given.options() };
    let mut spec = spec(&[file], json!({}));
    spec.tuning_config.max_rows_per_segment = Some(150_000);
    let outcome = run(&spec, &options).unwrap();
    assert!(bytes > 2 * options.memory_limit_bytes, "{bytes}");
    assert!(outcome.report.spills >= 8, "{} spills", outcome.report.spills);
    let sizes = outcome.segments.iter().map(|s| (s.summary.num_rows, s.partition, s.partitions)).collect::<Vec<_>>();
    assert_eq!(sizes, [(133_333, 0, 3), (133_333, 1, 3), (133_334, 2, 3)]);
    let rows = stored(&outcome);
    let sum = rows.iter().map(|row| row["n"].parse::<u64>().unwrap()).sum::<u64>();
    assert_eq!(sum, 400_000 * 399_999 / 2);
    assert_eq!(rows.iter().map(|row| &row["id"]).collect::<std::collections::HashSet<_>>().len(), 400_000);
}

#[test]
fn the_wikiticker_day_is_read_whole() {
    let path = "/work/shared/data/wikiticker-2015-09-12-sampled.json.gz";
    if !Path::new(path).exists() {
        // Not part of the repository; the generated edits stand in for it elsewhere.
        return;
    }
    let given = Given::new();
    let spec = spec(&[path.to_owned()], json!({"timestampSpec": {"column": "time"}}));
    let outcome = run(&spec, &given.options()).unwrap();
    assert_eq!(outcome.report.row_stats.processed, 39_244);
    assert_eq!(outcome.report.rows_read(), 39_244);
    let rows = stored(&outcome);
    let sum = |name: &str| rows.iter().map(|row| row[name].parse::<i64>().unwrap()).sum::<i64>();
    assert_eq!((sum("added"), sum("deleted"), sum("delta")), (9_385_573, 394_298, 8_991_275));
    let distinct =
        |name: &str| rows.iter().filter_map(|row| row.get(name)).collect::<std::collections::HashSet<_>>().len();
    assert_eq!((distinct("user"), distinct("page")), (10_531, 35_143));
}

/// A value of a random row, and what a column makes of it.
fn value() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        (-3_i64..3).prop_map(Json::from),
        prop::sample::select(vec![0.5, -1.25, 3.0]).prop_map(Json::from),
        prop::sample::select(vec!["a", "b", "1", "2.50", "é"]).prop_map(Json::from),
    ]
}

#[derive(Clone, Debug)]
struct Division {
    files: usize,
    threads: usize,
    /// Rows after which a buffer is written out.
    spill: bool,
}

fn division() -> impl Strategy<Value = Division> {
    (1_usize..4, 1_usize..4, any::<bool>()).prop_map(|(files, threads, spill)| Division { files, threads, spill })
}

/// Ingests rows divided among files; with `spill` every chunk is written out.
fn divided(rows: &[Json], division: &Division, schema: &Json) -> Vec<Stored> {
    let given = Given::new();
    let share = rows.len().div_ceil(division.files).max(1);
    let files = rows.chunks(share).enumerate().map(|(n, rows)| {
        given.file(&format!("{n}.json"), rows.iter().map(|row| format!("{row}\n")).collect::<String>())
    });
    let spec = spec(&files.collect::<Vec<_>>(), schema.clone());
    let inputs = source::list(&spec.io_config.input_source, None, &StoreOptions::default()).unwrap();
    let options = IngestOptions { threads: division.threads, ..given.options() };
    let limits = Limits {
        lines: LineOptions { chunk_bytes: 200, max_row_bytes: 10_000 },
        buffer_bytes: if division.spill { 0 } else { usize::MAX },
    };
    let outcome = ingest_within(&spec, Vec::new(), inputs, &options, limits).unwrap();
    assert_eq!(outcome.report.rows_read(), rows.len() as u64);
    stored(&outcome)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rows_do_not_depend_on_how_they_are_divided(
        rows in prop::collection::vec((0_i64..5, prop::collection::btree_map("[p-r]", value(), 0..3)), 1..40),
        division in division(),
    ) {
        let rows = rows.into_iter().map(|(hour, mut row)| {
            row.insert("t".to_owned(), Json::from(1_375_315_200_000_i64 + hour * 40_000_000));
            Json::Object(row.into_iter().collect())
        });
        let rows = rows.collect::<Vec<_>>();
        let whole = divided(&rows, &Division { files: 1, threads: 1, spill: false }, &json!({}));
        prop_assert_eq!(divided(&rows, &division, &json!({})), &whole[..]);
        let mut reversed = rows.clone();
        reversed.reverse();
        prop_assert_eq!(divided(&reversed, &division, &json!({})), &whole[..]);
        // The naive model: a column is text if one value is, else double if one is, else long.
        let mut expected = rows.iter().map(|row| naive(row, &rows)).collect::<Vec<_>>();
        expected.sort();
        prop_assert_eq!(whole, expected);
    }

    #[test]
    fn rolled_up_rows_are_those_of_the_naive_model(
        rows in prop::collection::vec((0_i64..3, prop::option::of("[ab]"), prop::option::of(-2_i64..2), -5_i64..5), 1..60),
        division in division(),
    ) {
        let json = |(hour, a, b, n): &(i64, Option<String>, Option<i64>, i64)| {
            json!({"t": 1_375_315_200_000_i64 + hour * 40_000_000 + (n + 5), "a": a, "b": b, "n": n})
        };
        let schema = json!({
            "dimensionsSpec": {"dimensions": ["a", {"type": "long", "name": "b"}]},
            "metricsSpec": [
                {"type": "count", "name": "count"},
                {"type": "longSum", "name": "sum", "fieldName": "n"},
                {"type": "longMin", "name": "min", "fieldName": "n"},
            ],
            "granularitySpec": {"queryGranularity": "minute", "rollup": true},
        });
        let mut groups: BTreeMap<_, (u64, i64, i64)> = BTreeMap::new();
        for (hour, a, b, n) in &rows {
            let group = groups.entry((*hour, a.clone(), *b)).or_insert((0, 0, i64::MAX));
            *group = (group.0 + 1, group.1 + n, group.2.min(*n));
        }
        let expected = groups.into_iter().map(|((hour, a, b), (count, sum, min))| {
            let time = (1_375_315_200_000_i64 + hour * 40_000_000).div_euclid(60_000) * 60_000;
            let mut row = Stored::from([
                ("__time".to_owned(), time.to_string()),
                ("count".to_owned(), count.to_string()),
                ("min".to_owned(), min.to_string()),
                ("sum".to_owned(), sum.to_string()),
            ]);
            a.and_then(|a| row.insert("a".to_owned(), a));
            b.and_then(|b| row.insert("b".to_owned(), b.to_string()));
            row
        });
        let mut expected = expected.collect::<Vec<_>>();
        expected.sort();
        let rows = rows.iter().map(json).collect::<Vec<_>>();
        prop_assert_eq!(divided(&rows, &division, &schema), expected);
    }
}

/// A row as it must be stored, given all the others.
fn naive(row: &Json, all: &[Json]) -> Stored {
    let of_column = |name: &str, is: fn(&Json) -> bool| all.iter().filter_map(|row| row.get(name)).any(is);
    let stored = row.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        if name == "t" {
            return ("__time".to_owned(), value.to_string());
        }
        let value = match value {
            Json::String(text) => text.clone(),
            value if of_column(name, Json::is_string) || !of_column(name, Json::is_f64) => value.to_string(),
            value => format!("{:?}", value.as_f64().unwrap()),
        };
        (name.clone(), value)
    });
    stored.collect()
}
