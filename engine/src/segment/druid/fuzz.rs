//! What the fuzzers in `fuzz/druid` call, and the tests that run their corpora: bytes in, and whatever they are, an
//! answer or an error. Only tests and fuzzers have it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::bitmap::BitmapKind;
use super::columns;
use super::container::{Container, Source};
use super::cursor::{ByteOrder, Cursor};
use super::dictionary::{DruidDictionary, Texts};
use super::{DruidSegment, Nulls, smile, verify};
use crate::error::Result;
use crate::segment::{BLOCK_ROWS, Column, Dictionary, Number, NumericColumn, Segment};

/// So many rows can be said in a few bytes; reading them all takes long.
const MOST_ROWS: usize = 1_000_000;
/// Values of a dictionary that are looked at one by one.
const MOST_CODES: u32 = 50;
/// What an input may keep in memory once it is read.
const MOST_BYTES: usize = 64 << 20;

/// A fuzzer's name, and what it does with its input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each has a corpus in `fuzz/druid/corpus`.
pub const TARGETS: [Target; 5] =
    [("segment", segment), ("column", column), ("dictionary", dictionary), ("bitmap", bitmap), ("smile", document)];

/// A whole segment: named files as [`pack`] puts them together.
pub fn segment(input: &[u8]) {
    use_segment(unpack(input), |_| true);
}

/// One column, `c`: two bytes with the number of rows, and its files. Their table of contents is right.
pub fn column(input: &[u8]) {
    let Some((rows, files)) = input.split_first_chunk::<2>() else { return };
    let rows = usize::from(u16::from_le_bytes(*rows));
    let Ok(container) = container(&unpack(files)) else { return };
    for nulls in [Nulls::AsStored, Nulls::EmptyIsNull] {
        if let Ok(opened) = columns::open(&container, "c", nulls, Some(rows)) {
            use_column(&opened.column, rows);
            let bytes = opened.memory.memory_bytes();
            assert!(bytes < MOST_BYTES, "{bytes} bytes");
        }
    }
    let _ = columns::shape_of(&container, "c");
}

/// A dictionary of texts, and what else lies in its files: the main one has no name.
pub fn dictionary(input: &[u8]) {
    let mut files = unpack(input);
    let main = files.remove("").unwrap_or_default();
    let Ok(container) = container(&files) else { return };
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let mut cursor = Cursor::new(main.clone(), "a dictionary");
        let texts = Texts::read(&mut cursor, &container, order);
        if let Ok(dictionary) = texts.and_then(|texts| DruidDictionary::open(texts, Nulls::EmptyIsNull)) {
            use_dictionary(&dictionary);
        }
    }
}

/// Two bytes with the number of rows, and a bitmap of either kind.
pub fn bitmap(input: &[u8]) {
    let Some((rows, bytes)) = input.split_first_chunk::<2>() else { return };
    let rows = usize::from(u16::from_le_bytes(*rows));
    for kind in [BitmapKind::Concise, BitmapKind::Roaring] {
        if let Ok(bitmap) = kind.decode(bytes, rows) {
            assert!(bitmap.max().is_none_or(|last| (last as usize) < rows));
            assert!(bitmap.len() <= rows as u64);
        }
    }
}

/// A document in Smile.
pub fn document(input: &[u8]) {
    let mut json = Vec::new();
    if smile::to_json(input, &mut json).is_ok() {
        let text = std::str::from_utf8(&json).expect("JSON is UTF-8");
        // Not of any depth: serde_json's own limit is lower than ours.
        let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
        assert!(
            parsed.as_ref().err().is_none_or(|error| error.to_string().contains("recursion")),
            "{parsed:?}: {text}"
        );
    }
}

/// Files, one behind the other: the length of the name, the name, the length of the file, the file.
pub fn pack(files: &BTreeMap<String, Bytes>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

/// The files of an input, as far as it goes.
fn unpack(mut input: &[u8]) -> BTreeMap<String, Bytes> {
    let mut files = BTreeMap::new();
    while let Some((&length, rest)) = input.split_first() {
        let (name, rest) = rest.split_at(rest.len().min(usize::from(length)));
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { break };
        let (bytes, rest) = rest.split_at(rest.len().min(u32::from_le_bytes(*length) as usize));
        files.insert(String::from_utf8_lossy(name).into_owned(), Bytes::copy_from_slice(bytes));
        input = rest;
    }
    files
}

/// A container with these named files.
fn container(files: &BTreeMap<String, Bytes>) -> Result<Container> {
    let (mut table, mut chunk) = ("v1,2147483647,1\n".to_owned(), Vec::new());
    for (name, bytes) in files {
        let start = chunk.len();
        chunk.extend_from_slice(bytes);
        table.push_str(&format!("{name},0,{start},{}\n", chunk.len()));
    }
    let all = [("version.bin", vec![0, 0, 0, 9]), ("meta.smoosh", table.into_bytes()), ("00000.smoosh", chunk)];
    Container::open(Source::Memory(all.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect()))
}

/// Does everything with a segment that a query may do, with some of its columns. What it says does not matter.
pub fn use_segment(files: BTreeMap<String, Bytes>, is_wanted: impl Fn(&str) -> bool) {
    let Ok(segment) = DruidSegment::from_files("damaged", files, Nulls::EmptyIsNull) else { return };
    if segment.num_rows() > MOST_ROWS {
        return;
    }
    for (index, schema) in segment.schema().columns().iter().enumerate() {
        if is_wanted(&schema.name)
            && let Ok(column) = segment.column(index)
        {
            use_column(&column, segment.num_rows());
        }
    }
    assert!(segment.memory_bytes() < MOST_BYTES, "{} bytes", segment.memory_bytes());
}

fn use_column(column: &Column, num_rows: usize) {
    let blocks = 0..num_rows.div_ceil(BLOCK_ROWS);
    match column {
        Column::String(column) => {
            use_dictionary(column.dictionary());
            let mut codes = Vec::new();
            blocks.for_each(|block| drop(column.read_codes(block, &mut codes).and_then(|()| column.code_range(block))));
            let cardinality = column.dictionary().cardinality() as u32;
            (0..cardinality.min(MOST_CODES)).for_each(|code| drop(column.rows_of(code)));
        }
        Column::MultiString(column) => {
            use_dictionary(column.dictionary());
            let (mut offsets, mut codes) = (Vec::new(), Vec::new());
            blocks.for_each(|block| drop(column.read_codes(block, &mut offsets, &mut codes)));
            let cardinality = column.dictionary().cardinality() as u32;
            (0..cardinality.min(MOST_CODES)).for_each(|code| drop(column.rows_of(code)));
        }
        Column::Long(column) => use_numbers(column.as_ref(), blocks, 1_500_000_000_000),
        Column::Float(column) => use_numbers(column.as_ref(), blocks, 0.5),
        Column::Double(column) => use_numbers(column.as_ref(), blocks, 0.5),
    }
    let _ = verify(column, num_rows);
}

fn use_numbers<T: Number>(column: &dyn NumericColumn<T>, blocks: std::ops::Range<usize>, bound: T) {
    let mut values = Vec::new();
    blocks.for_each(|block| drop(column.read(block, &mut values).and_then(|_| column.block_stats(block))));
    let _ = column.lower_bound(bound);
}

fn use_dictionary(dictionary: &dyn Dictionary) {
    let codes = (0..(dictionary.cardinality() as u32).min(MOST_CODES)).collect::<Vec<_>>();
    if let Ok(values) = dictionary.values_of(&codes) {
        for (value, code) in values.iter().zip(codes) {
            let found = value.map(|value| dictionary.code_of(value));
            assert!(
                !matches!(found, Some(Ok(found)) if found != Some(code)),
                "{value:?} has code {code}, found {found:?}"
            );
        }
    }
    let _ = dictionary.code_of("x");
    if dictionary.is_sorted() {
        let _ = dictionary.lower_bound("x");
    }
    let _ = dictionary.values();
}
