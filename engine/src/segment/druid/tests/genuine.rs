//! Segments that Druid wrote, with the rows that they must give.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::rows_of;
use crate::model::{ColumnType, Timestamp};
use crate::segment::druid::{DruidSegment, Nulls, unpack};
use crate::segment::{Column, Segment};

/// The genuine segments lie beside the repository.
const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/druid-v9");

pub(crate) const NAMES: [&str; 5] = [
    "test-segment",
    "v8SegmentPersistDir",
    "v9SegmentPersistDir/segmentWithDamagedFile",
    "nested_segment_v3",
    "nested_segment_v4",
];

/// The directory of a genuine segment; `None`, with a word on standard error, where they are not at hand.
#[allow(clippy::print_stderr)]
pub(crate) fn dir(name: &str) -> Option<PathBuf> {
    let dir = Path::new(DIR).join(name);
    if !dir.is_dir() {
        eprintln!("skipped: there are no genuine Druid segments at {DIR}");
        return None;
    }
    Some(dir)
}

/// The files of a genuine segment, unpacked if it is zipped.
pub(crate) fn files(name: &str) -> Option<BTreeMap<String, Bytes>> {
    let dir = dir(name)?;
    let unpacked = tempfile::tempdir().unwrap();
    let zip = dir.join("index.zip");
    let from = match zip.is_file() {
        true => {
            unpack(&zip, unpacked.path()).unwrap();
            unpacked.path()
        }
        false => &dir,
    };
    let entries = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap());
    Some(
        entries
            .filter(|entry| entry.path().is_file())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap().into()))
            .collect(),
    )
}

pub(crate) fn open(name: &str, nulls: Nulls) -> Option<DruidSegment> {
    Some(DruidSegment::from_files(name, files(name)?, nulls).unwrap())
}

/// The expected rows, as we show them: lists stay lists, objects of sketches are their base64, documents are text.
pub(crate) fn expected(name: &str, segment: &DruidSegment) -> Vec<Map<String, Value>> {
    let text = std::fs::read_to_string(dir(name).unwrap().join("expected.ndjson")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('{'));
    let schema = segment.schema();
    let shown = |name: &String, value: Value| {
        let column = &schema.columns()[schema.index_of(name).unwrap()];
        match value {
            Value::Null if column.multi_value => Value::Array(Vec::new()),
            Value::String(text) if column.multi_value => Value::Array(vec![Value::from(text)]),
            Value::Object(object) if object.contains_key("base64") => object["base64"].clone(),
            Value::Object(_) if column.column_type == ColumnType::String => Value::from(value.to_string()),
            value => value,
        }
    };
    rows.map(|line| {
        let row = serde_json::from_str::<Map<String, Value>>(line).unwrap();
        row.into_iter().map(|(name, value)| (name.clone(), shown(&name, value))).collect()
    })
    .collect()
}

/// Maps without their order.
fn sorted(rows: Vec<Map<String, Value>>) -> Vec<BTreeMap<String, Value>> {
    rows.into_iter().map(|row| row.into_iter().collect()).collect()
}

#[test]
fn genuine_segments_give_their_expected_rows() {
    for name in NAMES {
        let Some(segment) = open(name, Nulls::AsStored) else { return };
        let (rows, errors) = rows_of(&segment);
        assert_eq!(sorted(rows), sorted(expected(name, &segment)), "{name}");
        assert_eq!(errors.len(), usize::from(name.contains("Damaged")), "{name}: {errors:?}");
        if !name.contains("Damaged") {
            segment.verify().unwrap();
        }
    }
}

#[test]
fn the_damaged_segment_fails_in_one_column_and_names_it() {
    let Some(segment) = open(NAMES[2], Nulls::AsStored) else { return };
    let index = segment.schema().index_of("count").unwrap();
    let error = segment.column(index).unwrap_err().to_string();
    assert!(error.contains("`llll`") && error.contains("column `count`"), "{error}");
    assert_eq!(segment.schema().columns()[index].column_type, ColumnType::Long);
    assert!(segment.verify().is_err());
    assert!(segment.inspect().to_string().contains("cannot be read: columns stored as `llll` are not known"));
}

#[test]
fn a_mapped_directory_reads_as_its_files_do() {
    let Some(dir) = dir("v8SegmentPersistDir") else { return };
    let segment = DruidSegment::open(&dir, Nulls::AsStored).unwrap();
    let from_files = open("v8SegmentPersistDir", Nulls::AsStored).unwrap();
    assert_eq!(rows_of(&segment), rows_of(&from_files));
    let millis = |millis| Timestamp::from_millis(millis);
    assert_eq!(segment.time_range(), Some((millis(1_388_534_400_000), millis(1_388_534_400_005))));
}

#[test]
fn an_empty_text_of_old_segments_is_null_if_wanted() {
    let Some(segment) = open("v8SegmentPersistDir", Nulls::EmptyIsNull) else { return };
    let schema = segment.schema();
    let Column::String(column) = segment.column(schema.index_of("dim1").unwrap()).unwrap() else { panic!("a string") };
    assert!(column.dictionary().has_null());
    assert_eq!(column.dictionary().code_of("").unwrap(), None);
    assert_eq!(column.rows_of(0).unwrap().unwrap().iter().collect::<Vec<_>>(), [2, 3, 5]);
    let Column::MultiString(column) = segment.column(schema.index_of("dim0").unwrap()).unwrap() else {
        panic!("lists")
    };
    assert!(column.dictionary().has_null());
    // Its bitmap has the rows without values too.
    assert!(column.rows_of(0).unwrap().is_none());
    assert_eq!(column.rows_of(1).unwrap().unwrap().iter().collect::<Vec<_>>(), [0, 2]);
    segment.verify().unwrap();
}
