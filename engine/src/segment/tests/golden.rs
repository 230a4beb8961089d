//! The golden segment of format version 1: read for ever, and written the same today.

use std::path::PathBuf;

use super::fixture::{Row, Value, double, float, full_schema, list, memory, opened, rows_of, text, written};
use crate::segment::{Rollup, RowIndexPolicy, Segment, SegmentFile, WriteOptions};

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/format/v1.segment"))
}

/// Rows that need every encoding: computed from their number alone, so that they are the same for ever.
fn rows() -> Vec<Row> {
    (0..10_000u64).map(row).collect()
}

fn row(i: u64) -> Row {
    let hash = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let page = match i % 10 {
        0 => Value::Null,
        1 => text(""),
        2 => text(&format!("Überschrift/{}", hash % 40)),
        _ => text(&format!("Page {}", i / 500)),
    };
    let tags = match i % 100 {
        7 => list(&[Some("a"), None, Some("b")]),
        8 => list(&[Some("c"), Some("c")]),
        _ => list(&[]),
    };
    let long = |value: u64| Value::Long(value as i64);
    let sometimes = |every: u64, value: Value| if i.is_multiple_of(every) { value } else { Value::Null };
    vec![
        Value::Long(1_375_315_200_000 + (i * 864 + hash % 800) as i64),
        page,
        tags,
        sometimes(3, long(hash % 1000)),
        double((hash % 100) as f64 / 4.0),
        if i == 4321 { Value::Long(i64::MIN) } else { long(hash % 16) },
        float(if i % 2000 < 1990 { 1.5 } else { f32::NAN }),
        double(if i < 8192 { -0.0 } else { ((hash % 7) as f64).sqrt() }),
        sometimes(1000, long(i)),
        sometimes(1000, long(1_375_315_200_000 + i)),
        Value::Null,
        Value::Null,
    ]
}

fn bytes_of_today() -> Vec<u8> {
    let schema = full_schema();
    let options = WriteOptions::default().row_index("page", RowIndexPolicy::Always);
    written(&[memory(&schema, &rows())], &schema, Rollup::Off, &options)
}

#[test]
fn the_golden_segment_reads_as_it_was_written() {
    let segment = SegmentFile::open(&path()).unwrap();
    segment.verify().unwrap();
    assert_eq!(segment.schema(), &full_schema());
    assert!(rows_of(&segment) == rows(), "the golden segment holds other rows");
}

#[test]
fn the_same_rows_give_the_same_bytes_today() {
    let golden = std::fs::read(path()).unwrap();
    assert!(bytes_of_today() == golden, "version 1 is written differently: that needs a new version, or is a mistake");
}

/// Run by hand, once a version: `cargo test -p henge-engine write_the_golden -- --ignored`.
#[test]
#[ignore = "writes tests/format/v1.segment"]
fn write_the_golden_segment() {
    let bytes = bytes_of_today();
    assert_eq!(rows_of(&opened(bytes.clone())), rows());
    std::fs::create_dir_all(path().parent().unwrap()).unwrap();
    std::fs::write(path(), bytes).unwrap();
}
