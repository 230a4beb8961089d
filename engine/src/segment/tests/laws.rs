//! What is written reads back, whatever it is.

use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{Row, Value, double, float, full_schema, list, memory, opened, rows_of, text, written};
use crate::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema, Timestamp};
use crate::segment::{BLOCK_ROWS, Column, Rollup, RowIndexPolicy, Segment, WriteOptions};

pub(super) fn row() -> impl Strategy<Value = Row> {
    let texts = prop_oneof![
        1 => Just(Value::Null),
        2 => Just(text("")),
        4 => "[a-c]{0,3}".prop_map(|t| text(&t)),
        2 => "\\PC{0,30}".prop_map(|t| text(&t)),
    ];
    let lists = prop::collection::vec(prop::option::of("[x-z]{0,2}"), 0..4).prop_map(Value::List);
    let longs = || {
        prop_oneof![
            1 => Just(Value::Null),
            3 => (-3i64..3).prop_map(Value::Long),
            1 => any::<i64>().prop_map(Value::Long),
            1 => Just(Value::Long(i64::MIN)),
            1 => Just(Value::Long(i64::MAX)),
        ]
    };
    let floats = prop_oneof![
        1 => Just(Value::Null), 2 => any::<f32>().prop_map(float), 1 => Just(float(-0.0)),
    ];
    let doubles = || {
        prop_oneof![
            1 => Just(Value::Null),
            3 => (-100i32..100).prop_map(|v| double(f64::from(v) / 4.0)),
            1 => any::<f64>().prop_map(double),
            1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-0.0), Just(f64::MIN_POSITIVE)].prop_map(double),
        ]
    };
    let counts = prop_oneof![1 => Just(Value::Null), 5 => (-1000i64..1000).prop_map(Value::Long)];
    // An event time is there when its metric is.
    let first = prop::option::of((-5i64..5, 0i64..50)).prop_map(timed);
    let last = prop::option::of((-5i64..5, 0i64..50)).prop_map(|v| {
        let (value, time) = timed(v);
        (if let Value::Long(v) = value { double(v as f64) } else { Value::Null }, time)
    });
    let dimensions = ((-2i64..6).prop_map(Value::Long), texts, lists, longs(), doubles());
    (dimensions, counts, floats, doubles(), first, last).prop_map(|(d, count, least, most, first, last)| {
        vec![d.0, d.1, d.2, d.3, d.4, count, least, most, first.0, first.1, last.0, last.1]
    })
}

fn timed(value: Option<(i64, i64)>) -> (Value, Value) {
    value.map_or((Value::Null, Value::Null), |(value, time)| (Value::Long(value), Value::Long(time)))
}

pub(super) fn rows(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec(row(), size).prop_map(|mut rows| {
        rows.sort_by(|a, b| a[0].cmp(&b[0]));
        rows
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_rows_read_back(rows in rows(0..80), index in any::<bool>()) {
        let schema = full_schema();
        let policy = if index { RowIndexPolicy::Always } else { RowIndexPolicy::Auto };
        let options = WriteOptions::default().row_index("page", policy).row_index("tags", policy);
        let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::Off, &options));
        prop_assert_eq!(rows_of(&segment), rows.clone());
        prop_assert_eq!(segment.schema(), &schema);
        let times = rows.iter().map(|row| if let Value::Long(time) = row[0] { time } else { 0 });
        let range = times.clone().min().zip(times.max());
        prop_assert_eq!(segment.time_range(), range.map(|(a, b)| (Timestamp::from_millis(a), Timestamp::from_millis(b))));
        if index && !rows.is_empty() {
            check_index(&segment, &rows);
        }
    }
}

/// The index lists just the rows that have a value.
fn check_index(segment: &dyn Segment, rows: &[Row]) {
    let (Column::String(page), Column::MultiString(tags)) = (segment.column(1).unwrap(), segment.column(2).unwrap())
    else {
        panic!("two columns of texts");
    };
    for (code, value) in page.dictionary().values().unwrap().iter().enumerate() {
        let wanted = value.map_or(Value::Null, text);
        let found = page.rows_of(code as u32).unwrap().unwrap();
        let expected = (0..rows.len() as u32).filter(|&row| rows[row as usize][1] == wanted);
        assert!(found.iter().eq(expected), "{wanted:?}");
    }
    for (code, value) in tags.dictionary().values().unwrap().iter().enumerate() {
        let found = tags.rows_of(code as u32).unwrap().unwrap();
        let has = |row: &Row| matches!(&row[2], Value::List(list) if list.iter().any(|v| v.as_deref() == value));
        assert!(found.iter().eq((0..rows.len() as u32).filter(|&row| has(&rows[row as usize]))), "{value:?}");
    }
}

fn two_columns() -> Arc<SegmentSchema> {
    Arc::new(
        SegmentSchema::new([
            ColumnSchema::dimension("page", ColumnType::String),
            ColumnSchema::metric("added", ColumnType::Long, MetricCombine::Sum),
        ])
        .unwrap(),
    )
}

fn numbered(count: usize, distinct: usize) -> Vec<Row> {
    let page = |i: usize| if i % 97 == 5 { Value::Null } else { text(&format!("page {:06}", i * 7919 % distinct)) };
    let added = |i: usize| if i % 31 == 3 { Value::Null } else { Value::Long((i * i % 1000) as i64 - 300) };
    (0..count).map(|i| vec![Value::Long(i as i64 * 250), page(i), added(i)]).collect()
}

#[test]
fn blocks_end_anywhere() {
    for count in [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS] {
        let (schema, rows) = (two_columns(), numbered(count, 50));
        let bytes = written(&[memory(&schema, &rows)], &schema, Rollup::Off, &WriteOptions::default());
        assert_eq!(rows_of(&opened(bytes)), rows, "{count} rows");
    }
}

#[test]
fn dictionaries_of_any_size_read_back() {
    for distinct in [1, 2, 255, 256, 257, 65_535, 65_537] {
        let (schema, rows) = (two_columns(), numbered(70_000, distinct));
        let options = WriteOptions::default().row_index("page", RowIndexPolicy::Always);
        let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::Off, &options));
        assert_eq!(rows_of(&segment), rows, "{distinct} values");
    }
}

#[test]
fn statistics_say_what_the_rows_hold() {
    let (schema, rows) = (two_columns(), numbered(BLOCK_ROWS * 2 + 77, 300));
    let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::Off, &WriteOptions::default()));
    let (Column::String(page), Column::Long(added)) = (segment.column(1).unwrap(), segment.column(2).unwrap()) else {
        panic!("a text and a number");
    };
    for (block, rows) in rows.chunks(BLOCK_ROWS).enumerate() {
        let values = rows.iter().filter_map(|row| if let Value::Long(v) = row[2] { Some(v) } else { None });
        let stats = added.block_stats(block).unwrap();
        assert_eq!(stats.rows as usize, rows.len());
        assert_eq!(stats.nulls as usize, rows.len() - values.clone().count());
        assert_eq!(stats.min_max, values.clone().min().zip(values.clone().max()));
        assert_eq!(stats.sum, values.map(i128::from).sum::<i128>());
        let codes = rows.iter().map(|row| match &row[1] {
            Value::Text(value) => page.dictionary().code_of(value).unwrap().unwrap(),
            _ => 0,
        });
        assert_eq!(Some(page.code_range(block).unwrap()), codes.clone().min().zip(codes.max()));
    }
    let counts = page.row_counts().unwrap().unwrap();
    assert_eq!(counts.iter().sum::<u32>() as usize, rows.len());
    assert_eq!(counts[0] as usize, rows.iter().filter(|row| row[1] == Value::Null).count());
}

#[test]
fn times_are_found_by_search() {
    let (schema, rows) = (two_columns(), numbered(BLOCK_ROWS * 2 + 77, 300));
    let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::Off, &WriteOptions::default()));
    let Column::Long(time) = segment.column(0).unwrap() else { panic!("a time") };
    for bound in [i64::MIN, 0, 1, 250, 8191 * 250, 8192 * 250, 8192 * 250 + 1, 16_460 * 250, 16_461 * 250, i64::MAX] {
        let expected = rows.partition_point(|row| row[0] < Value::Long(bound));
        assert_eq!(time.lower_bound(bound).unwrap(), expected, "{bound}");
    }
}

#[test]
fn common_values_are_left_out_of_the_index() {
    let schema = two_columns();
    let page = |i: usize| if i.is_multiple_of(50) { text(&format!("rare {}", i % 5000)) } else { text("common") };
    let rows = (0..50_000).map(|i| vec![Value::Long(i as i64), page(i), Value::Long(1)]).collect::<Vec<_>>();
    let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::Off, &WriteOptions::default()));
    let Column::String(page) = segment.column(1).unwrap() else { panic!("a text") };
    assert!(page.has_row_index());
    let common = page.dictionary().code_of("common").unwrap().unwrap();
    assert_eq!(page.rows_of(common).unwrap(), None);
    let rare = page.dictionary().code_of("rare 50").unwrap().unwrap();
    assert!(page.rows_of(rare).unwrap().unwrap().iter().eq((0..10).map(|i| 50 + i * 5000)));
}

#[test]
fn an_inspection_names_every_column() {
    let (schema, rows) = (two_columns(), numbered(100, 5));
    let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::Off, &WriteOptions::default()));
    let shown = segment.inspect().unwrap().to_string();
    for word in ["rows       100", "__time", "page", "added", "long sum", "1970-01-01T00:00:24.750Z", "packed"] {
        assert!(shown.contains(word), "{word} in\n{shown}");
    }
}

#[test]
fn lists_may_be_empty_or_hold_nulls_and_repeats() {
    let schema = Arc::new(SegmentSchema::new([ColumnSchema::multi_value_dimension("tags")]).unwrap());
    let rows = [list(&[]), list(&[None]), list(&[Some("b"), Some("a"), Some("b")]), list(&[Some(""), None])];
    let rows = rows.into_iter().map(|tags| vec![Value::Long(7), tags]).collect::<Vec<_>>();
    let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::Off, &WriteOptions::default()));
    assert_eq!(rows_of(&segment), rows);
    let empty = rows[..1].to_vec();
    let segment = opened(written(&[memory(&schema, &empty)], &schema, Rollup::Off, &WriteOptions::default()));
    assert_eq!(rows_of(&segment), empty);
}
