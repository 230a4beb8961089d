//! Segments of the test builder give the rows that they were made of, in every style.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Float64Array, Int64Array, ListBuilder, RecordBatch, StringViewArray,
    StringViewBuilder, TimestampMillisecondArray,
};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::builder::{Dictionaries, Strings, Style, encode};
use super::encode::{ByteOrder, CODECS, Longs};
use super::values_of;
use crate::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema};
use crate::segment::druid::{DruidSegment, Nulls};
use crate::segment::memory::MemorySegment;
use crate::segment::{Column, Segment};

/// Rows in which every kind of column, with and without nulls, has few values or many.
pub(super) fn rows(seed: u64, num_rows: usize) -> MemorySegment {
    let mut random = StdRng::seed_from_u64(seed);
    let times = (0..num_rows).map(|_| random.random_range(0..1_000_000_000i64)).collect::<Vec<_>>();
    let few = (0..num_rows)
        .map(|_| [None, Some("x"), Some(""), Some("\u{ffff}"), Some("\u{10000}")][random.random_range(0..5)]);
    let few = few.collect::<StringViewArray>();
    let many = (0..num_rows).map(|_| Some(format!("a rather long value {}", random.random_range(0..70_000))));
    let many = many.collect::<StringViewArray>();
    let runs = (0..num_rows).map(|row| Some(format!("{}", row / 700))).collect::<StringViewArray>();
    let mut tags = ListBuilder::new(StringViewBuilder::new());
    for _ in 0..num_rows {
        for _ in 0..random.random_range(0..4) {
            tags.values().append_option([None, Some(""), Some("x"), Some("y")][random.random_range(0..4)]);
        }
        tags.append(true);
    }
    let width = random.random_range(0..63);
    let long = (0..num_rows)
        .map(|_| (random.random_range(0..9) > 0).then(|| random.random_range(-(1i64 << width)..=1 << width)));
    let long = long.collect::<Int64Array>();
    let table = (0..num_rows).map(|_| random.random_range(0..40i64) * 1_000_000_007).collect::<Vec<_>>();
    let floats = (0..num_rows)
        .map(|_| (random.random_range(0..5) > 0).then(|| random.random::<f32>()))
        .collect::<Float32Array>();
    let doubles = (0..num_rows).map(|_| random.random::<f64>() - 0.5).collect::<Vec<_>>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("__time", Arc::new(TimestampMillisecondArray::from(times))),
        ("few", Arc::new(few)),
        ("many", Arc::new(many)),
        ("runs", Arc::new(runs)),
        ("tags", Arc::new(tags.finish())),
        ("long", Arc::new(long)),
        ("table", Arc::new(Int64Array::from(table))),
        ("floats", Arc::new(floats)),
        ("doubles", Arc::new(Float64Array::from(doubles))),
    ];
    let schema = SegmentSchema::new([
        ColumnSchema::dimension("few", ColumnType::String),
        ColumnSchema::dimension("many", ColumnType::String),
        ColumnSchema::dimension("runs", ColumnType::String),
        ColumnSchema::multi_value_dimension("tags"),
        ColumnSchema::dimension("long", ColumnType::Long),
        ColumnSchema::metric("table", ColumnType::Long, MetricCombine::Sum),
        ColumnSchema::metric("floats", ColumnType::Float, MetricCombine::Sum),
        ColumnSchema::metric("doubles", ColumnType::Double, MetricCombine::Sum),
    ]);
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    MemorySegment::from_batches(Arc::new(schema.unwrap()), &[batch]).unwrap()
}

/// Everything that both segments say of their rows is the same.
fn assert_same(source: &MemorySegment, style: &Style) {
    let druid = DruidSegment::from_files("made", encode(source, style), Nulls::AsStored).unwrap();
    assert_eq!((druid.num_rows(), druid.time_range()), (source.num_rows(), source.time_range()), "{style:?}");
    druid.verify().unwrap_or_else(|error| panic!("{error} with {style:?}"));
    for (index, schema) in druid.schema().columns().iter().enumerate() {
        let from = source.schema().index_of(&schema.name).unwrap();
        let (ours, theirs) = (source.column(from).unwrap(), druid.column(index).unwrap());
        assert_eq!(
            values_of(&theirs, druid.num_rows()).unwrap(),
            values_of(&ours, source.num_rows()).unwrap(),
            "{} {style:?}",
            schema.name
        );
        assert_same_indexes(&ours, &theirs, source.num_rows(), &format!("{} {style:?}", schema.name));
    }
}

/// Dictionaries and bitmaps find the rows that a scan finds.
fn assert_same_indexes(ours: &Column, theirs: &Column, num_rows: usize, what: &str) {
    let (Column::String(ours), Column::String(theirs)) = (ours, theirs) else { return };
    let (mut codes, mut their_codes) = (Vec::new(), Vec::new());
    for block in 0..num_rows.div_ceil(crate::segment::BLOCK_ROWS) {
        ours.read_codes(block, &mut codes).unwrap();
        theirs.read_codes(block, &mut their_codes).unwrap();
        let (least, greatest) = theirs.code_range(block).unwrap();
        assert_eq!((Some(&least), Some(&greatest)), (their_codes.iter().min(), their_codes.iter().max()), "{what}");
        let values = ours.dictionary().values().unwrap();
        for (code, their_code) in
            codes.iter().zip(&their_codes).take(50).filter(|(code, _)| values.is_valid(**code as usize))
        {
            let value = values.value(*code as usize);
            assert_eq!(theirs.dictionary().code_of(value).unwrap(), Some(*their_code), "{what}");
            if theirs.dictionary().is_sorted() {
                assert_eq!(theirs.dictionary().lower_bound(value).unwrap(), *their_code, "{what}");
            }
        }
    }
    assert_eq!(theirs.dictionary().code_of("no such value").unwrap(), None);
}

#[test]
fn every_codec_and_layout_gives_back_its_rows() {
    let source = rows(1, 9_000);
    for codec in CODECS {
        assert_same(&source, &Style { codec, ..Style::TODAY });
    }
    for longs in [Longs::Old, Longs::Plain, Longs::Marked, Longs::Delta, Longs::Table] {
        for codec in [super::encode::LZ4, super::encode::NONE, super::encode::LZF] {
            assert_same(&source, &Style { longs, codec, ..Style::TODAY });
        }
    }
    for strings in [Strings::Uncompressed, Strings::UncompressedWithFlags, Strings::Compressed { lists: 2 }] {
        assert_same(&source, &Style { strings, is_concise: true, index: 'A', ..Style::TODAY });
        assert_same(&source, &Style { strings, has_bitmaps: false, ..Style::TODAY });
    }
    for bucket in [1, 4, 128] {
        for version in [0, 1] {
            assert_same(&source, &Style { dictionaries: Dictionaries::FrontCoded { version, bucket }, ..Style::TODAY });
        }
    }
    assert_same(&source, &Style { dictionaries: Dictionaries::Wrapped, ..Style::TODAY });
    assert_same(&source, &Style { split: Some(5), chunk_bytes: 1, ..Style::TODAY });
    assert_same(&source, &Style { order: ByteOrder::Big, split: Some(2), per: Some(64), ..Style::TODAY });
}

#[test]
fn segments_without_rows_are_read() {
    let source = rows(2, 0);
    assert_same(&source, &Style::TODAY);
    assert_same(&source, &Style { strings: Strings::Uncompressed, is_concise: true, ..Style::TODAY });
}

#[test]
fn more_values_than_two_bytes_can_count_are_read() {
    let source = rows(3, 70_000);
    assert_same(&source, &Style::TODAY);
    assert_same(&source, &Style { strings: Strings::Uncompressed, codec: super::encode::NONE, ..Style::TODAY });
    assert_same(&source, &Style { order: ByteOrder::Big, codec: super::encode::ZSTD, ..Style::TODAY });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_back_whatever_the_style(seed: u64, num_rows in 1usize..9000) {
        let style = Style::random(&mut StdRng::seed_from_u64(seed));
        assert_same(&rows(seed, num_rows), &style);
    }
}
