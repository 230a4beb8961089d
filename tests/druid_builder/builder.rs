//! A builder of segments in Druid's format for tests, written from the specification: in all the ways that Druid has
//! written them since 2013, whether or not a genuine segment of that kind is at hand. Included as `encode.rs` is.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow::array::Array;
use bytes::Bytes;
use henge_engine::model::{ColumnRole, TIME_COLUMN};
use henge_engine::segment::{BLOCK_ROWS, Column, Dictionary, Number, NumericColumn, Segment};
use rand::Rng;
use rand::rngs::StdRng;
use roaring::RoaringBitmap;
use serde_json::json;

use super::encode::{
    Blocking, ByteOrder, CODECS, Files, Longs, concise, flat_int_lists, flat_ints, floats, front_coded, indexed,
    int_lists, ints, longs, put_i32, roaring, sized, width_of,
};

/// How strings are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strings {
    /// Versions 0 and 1.
    Uncompressed,
    /// Version 3.
    UncompressedWithFlags,
    /// Version 2; lists in version 2 or 3.
    Compressed { lists: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dictionaries {
    Plain,
    /// Plain behind the byte that says so.
    Wrapped,
    FrontCoded {
        version: u8,
        bucket: usize,
    },
}

/// All that can be chosen when a segment is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) codec: u8,
    pub(crate) order: ByteOrder,
    pub(crate) is_concise: bool,
    pub(crate) has_bitmaps: bool,
    pub(crate) strings: Strings,
    pub(crate) dictionaries: Dictionaries,
    pub(crate) longs: Longs,
    /// Lists in several files, of `2^shift` entries each.
    pub(crate) split: Option<u32>,
    /// Values a block, instead of what Druid takes.
    pub(crate) per: Option<usize>,
    /// `A`, `B` or `C` of the specification.
    pub(crate) index: char,
    /// Bytes after which another data file begins.
    pub(crate) chunk_bytes: usize,
}

impl Style {
    /// What Druid writes today.
    pub(crate) const TODAY: Self = Self {
        codec: super::encode::LZ4,
        order: ByteOrder::Little,
        is_concise: false,
        has_bitmaps: true,
        strings: Strings::Compressed { lists: 3 },
        dictionaries: Dictionaries::Plain,
        longs: Longs::Plain,
        split: None,
        per: None,
        index: 'C',
        chunk_bytes: usize::MAX,
    };

    pub(crate) fn random(random: &mut StdRng) -> Self {
        let one_of = |random: &mut StdRng, most: usize| random.random_range(0..most);
        Self {
            codec: CODECS[one_of(random, CODECS.len())],
            order: [ByteOrder::Little, ByteOrder::Little, ByteOrder::Big][one_of(random, 3)],
            is_concise: random.random(),
            has_bitmaps: one_of(random, 4) > 0,
            strings: [
                Strings::Uncompressed,
                Strings::UncompressedWithFlags,
                Strings::Compressed { lists: 2 },
                Strings::Compressed { lists: 3 },
            ][one_of(random, 4)],
            dictionaries: [
                Dictionaries::Plain,
                Dictionaries::Wrapped,
                Dictionaries::FrontCoded { version: 0, bucket: 4 },
                Dictionaries::FrontCoded { version: 1, bucket: 16 },
                Dictionaries::FrontCoded { version: 1, bucket: 1 },
            ][one_of(random, 5)],
            longs: [Longs::Old, Longs::Plain, Longs::Marked, Longs::Delta, Longs::Table][one_of(random, 5)],
            split: [None, None, Some(0), Some(3)][one_of(random, 4)],
            per: [None, None, Some(64), Some(4096)][one_of(random, 4)],
            index: ['B', 'B', 'C'][one_of(random, 3)],
            chunk_bytes: [usize::MAX, 10_000][one_of(random, 2)],
        }
    }

    fn blocking<'a>(&self, base: &'a str) -> Blocking<'a> {
        let split = self.split.map(|shift| (shift, base));
        Blocking { codec: self.codec, order: self.order, per: self.per, split }
    }

    fn order_name(&self) -> &'static str {
        if self.order == ByteOrder::Little { "LITTLE_ENDIAN" } else { "BIG_ENDIAN" }
    }

    pub(crate) fn bitmap(&self, rows: &RoaringBitmap) -> Vec<u8> {
        match rows.is_empty() {
            true => Vec::new(),
            false if self.is_concise => concise(rows),
            false => roaring(rows),
        }
    }

    fn bitmap_json(&self) -> serde_json::Value {
        json!({"type": if self.is_concise { "concise" } else { "roaring" }})
    }

    /// A column's file: its description, and `body`.
    pub(crate) fn column_file(&self, value_type: &str, mut part: serde_json::Value, body: &[u8]) -> Vec<u8> {
        part["byteOrder"] = json!(self.order_name());
        part["bitmapSerdeFactory"] = self.bitmap_json();
        let json = json!({"valueType": value_type, "hasMultipleValues": false, "parts": [part]}).to_string();
        [sized(json.as_bytes()), body.to_vec()].concat()
    }
}

/// The files of a segment with the rows of another. Columns without any value are named as such where the style can.
pub(crate) fn encode(segment: &dyn Segment, style: &Style) -> BTreeMap<String, Bytes> {
    let mut files = Files::new();
    let (mut dimensions, mut metrics) = (Vec::new(), Vec::new());
    for (index, schema) in segment.schema().columns().iter().enumerate() {
        let column = segment.column(index).unwrap();
        let file = column_of(&schema.name, &column, segment.num_rows(), style, &mut files);
        files.push((schema.name.clone(), file));
        match schema.role {
            ColumnRole::Dimension => dimensions.push(schema.name.clone()),
            ColumnRole::Metric(_) => metrics.push(schema.name.clone()),
            _ => {}
        }
    }
    let interval = segment.time_range().map_or((0, 0), |(first, last)| (first.millis(), last.millis() + 1));
    files.push(("index.drd".to_owned(), index_drd(&dimensions, &metrics, interval, style)));
    smoosh(files, style.chunk_bytes)
}

/// The list of columns and what follows it.
pub(crate) fn index_drd(dimensions: &[String], metrics: &[String], interval: (i64, i64), style: &Style) -> Vec<u8> {
    let list = |names: &[Option<&String>]| {
        let names = names.iter().map(|name| name.map(|name| name.as_bytes().to_vec())).collect::<Vec<_>>();
        indexed(&names, None, ByteOrder::Little, &mut Files::new())
    };
    let columns = metrics.iter().chain(dimensions).map(Some).collect::<Vec<_>>();
    let dimensions = dimensions.iter().map(Some).collect::<Vec<_>>();
    let mut out = [list(&columns), list(&dimensions)].concat();
    out.extend(interval.0.to_be_bytes());
    out.extend(interval.1.to_be_bytes());
    if style.index == 'A' {
        return out;
    }
    out.extend(sized(style.bitmap_json().to_string().as_bytes()));
    if style.index == 'C' {
        out.extend(list(&vec![None; columns.len()]));
        out.extend(list(&vec![None; dimensions.len()]));
    }
    out
}

/// Puts named files into data files, with their table of contents.
pub(crate) fn smoosh(mut files: Files, chunk_bytes: usize) -> BTreeMap<String, Bytes> {
    files.sort();
    let (mut table, mut chunks) = (String::new(), vec![Vec::new()]);
    for (name, bytes) in files {
        let mut last = chunks.len() - 1;
        if !chunks[last].is_empty() && chunks[last].len() + bytes.len() > chunk_bytes {
            chunks.push(Vec::new());
            last += 1;
        }
        let start = chunks[last].len();
        chunks[last].extend(bytes);
        writeln!(table, "{name},{last},{start},{}", chunks[last].len()).unwrap();
    }
    let table = format!("v1,2147483647,{}\n{table}", chunks.len());
    let mut out = BTreeMap::from([
        ("version.bin".to_owned(), Bytes::from_static(&[0, 0, 0, 9])),
        ("meta.smoosh".to_owned(), Bytes::from(table)),
    ]);
    out.extend(
        chunks.into_iter().enumerate().map(|(number, chunk)| (format!("{number:05}.smoosh"), Bytes::from(chunk))),
    );
    out
}

fn column_of(name: &str, column: &Column, num_rows: usize, style: &Style, files: &mut Files) -> Vec<u8> {
    match column {
        Column::Long(column) => {
            let (values, nulls) = numbers(column.as_ref(), num_rows);
            let base = format!("{name}.long_column");
            let list = longs(&values, style.longs, style.blocking(&base), files);
            number_file(name, "long", list, &nulls, style)
        }
        Column::Float(column) => {
            let (values, nulls) = numbers(column.as_ref(), num_rows);
            let bits = values.iter().map(|value| u64::from(value.to_bits())).collect::<Vec<_>>();
            let base = format!("{name}.float_column");
            let list = floats(&bits, 4, style.longs == Longs::Old, style.blocking(&base), files);
            number_file(name, "float", list, &nulls, style)
        }
        Column::Double(column) => {
            let (values, nulls) = numbers(column.as_ref(), num_rows);
            let bits = values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let base = format!("{name}.double_column");
            let list = floats(&bits, 8, style.longs == Longs::Old, style.blocking(&base), files);
            number_file(name, "double", list, &nulls, style)
        }
        Column::String(column) => {
            let mut rows = Vec::with_capacity(num_rows);
            let mut codes = Vec::new();
            for block in 0..num_rows.div_ceil(BLOCK_ROWS) {
                column.read_codes(block, &mut codes).unwrap();
                rows.extend(codes.iter().map(|code| vec![*code]));
            }
            string_file(name, column.dictionary(), &rows, IsMulti::No, style, files)
        }
        Column::MultiString(column) => {
            let mut rows = Vec::with_capacity(num_rows);
            let (mut offsets, mut codes) = (Vec::new(), Vec::new());
            for block in 0..num_rows.div_ceil(BLOCK_ROWS) {
                column.read_codes(block, &mut offsets, &mut codes).unwrap();
                rows.extend(offsets.windows(2).map(|ends| codes[ends[0] as usize..ends[1] as usize].to_vec()));
            }
            string_file(name, column.dictionary(), &rows, IsMulti::Yes, style, files)
        }
    }
}

fn numbers<T: Number>(column: &dyn NumericColumn<T>, num_rows: usize) -> (Vec<T>, RoaringBitmap) {
    let (mut values, mut block, mut nulls) = (Vec::new(), Vec::new(), RoaringBitmap::new());
    for number in 0..num_rows.div_ceil(BLOCK_ROWS) {
        if let Some(valid) = column.read(number, &mut block).unwrap() {
            nulls.extend((!&valid).set_indices().map(|row| (number * BLOCK_ROWS + row) as u32));
        }
        values.extend_from_slice(&block);
    }
    (values, nulls)
}

/// The first version where there are no nulls and the style is old, else the second.
fn number_file(name: &str, part: &str, list: Vec<u8>, nulls: &RoaringBitmap, style: &Style) -> Vec<u8> {
    let value_type = part.to_uppercase();
    if nulls.is_empty() && (name == TIME_COLUMN || style.longs == Longs::Old) {
        return style.column_file(&value_type, json!({"type": part}), &list);
    }
    let mut body = sized(&list);
    if !nulls.is_empty() {
        body.extend(sized(&style.bitmap(nulls)));
    }
    style.column_file(&value_type, json!({"type": format!("{part}V2")}), &body)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IsMulti {
    Yes,
    No,
}

/// `rows` have codes of `dictionary`, which may be in any order.
fn string_file(
    name: &str,
    dictionary: &dyn Dictionary,
    rows: &[Vec<u32>],
    is_multi: IsMulti,
    style: &Style,
    files: &mut Files,
) -> Vec<u8> {
    let values = dictionary.values().unwrap();
    let value = |code: u32| values.is_valid(code as usize).then(|| values.value(code as usize).as_bytes().to_vec());
    let mut entries = rows.iter().flatten().map(|code| value(*code)).collect::<Vec<_>>();
    entries.sort_by(|a, b| match (a, b) {
        (Some(a), Some(b)) => utf16(a).cmp(&utf16(b)),
        _ => a.is_some().cmp(&b.is_some()),
    });
    entries.dedup();
    let ids = entries.iter().zip(0u32..).map(|(value, id)| (value.clone(), id)).collect::<BTreeMap<_, _>>();
    let rows = rows.iter().map(|row| row.iter().map(|code| ids[&value(*code)]).collect()).collect::<Vec<Vec<u32>>>();
    let mut bitmaps = vec![RoaringBitmap::new(); entries.len()];
    let is_null_like = entries.first().is_some_and(|first| first.as_ref().is_none_or(Vec::is_empty));
    for (row, number) in rows.iter().zip(0u32..) {
        for id in row {
            bitmaps[*id as usize].insert(number);
        }
        if row.is_empty() && is_null_like {
            bitmaps[0].insert(number);
        }
    }
    let flags = flags_of(is_multi, style);
    let mut body = Vec::new();
    match style.strings {
        Strings::Uncompressed if flags & 4 == 0 => body.push(u8::from(is_multi == IsMulti::Yes)),
        Strings::Uncompressed | Strings::UncompressedWithFlags => body.push(3),
        Strings::Compressed { .. } => body.push(2),
    }
    if body[0] >= 2 {
        put_i32(&mut body, flags);
    }
    body.extend(dictionary_of(&entries, &format!("{name}.dim_values"), style, files));
    body.extend(ids_of(name, &rows, entries.len(), is_multi, style, files));
    if style.has_bitmaps {
        let bitmaps = bitmaps.iter().map(|rows| Some(style.bitmap(rows))).collect::<Vec<_>>();
        let base = format!("{name}.inverted");
        body.extend(indexed(&bitmaps, style.split.map(|shift| (shift, base.as_str())), style.order, files));
    }
    style.column_file("STRING", json!({"type": "stringDictionary"}), &body)
}

/// What Java compares.
fn utf16(text: &[u8]) -> Vec<u16> {
    std::str::from_utf8(text).unwrap().encode_utf16().collect()
}

fn flags_of(is_multi: IsMulti, style: &Style) -> usize {
    let multi = match (is_multi, style.strings) {
        (IsMulti::No, _) => 0,
        (IsMulti::Yes, Strings::Compressed { lists: 3 }) => 2,
        (IsMulti::Yes, _) => 1,
    };
    multi | if style.has_bitmaps { 0 } else { 4 }
}

pub(crate) fn dictionary_of(entries: &[Option<Vec<u8>>], base: &str, style: &Style, files: &mut Files) -> Vec<u8> {
    match style.dictionaries {
        Dictionaries::Plain => indexed(entries, style.split.map(|shift| (shift, base)), style.order, files),
        Dictionaries::Wrapped => [vec![0x7f, 0], indexed(entries, None, style.order, files)].concat(),
        Dictionaries::FrontCoded { version, bucket } => {
            [vec![0x7f, 1], front_coded(entries, (version, version == 1, 1), bucket, style.order)].concat()
        }
    }
}

fn ids_of(
    name: &str,
    rows: &[Vec<u32>],
    cardinality: usize,
    is_multi: IsMulti,
    style: &Style,
    files: &mut Files,
) -> Vec<u8> {
    let width = width_of(cardinality);
    let base = format!("{name}.forward_dim");
    match (style.strings, is_multi) {
        (Strings::Compressed { .. }, IsMulti::No) => ints(&rows.concat(), width, false, style.blocking(&base), files),
        (Strings::Compressed { lists }, IsMulti::Yes) => int_lists(rows, width, lists, style.blocking(&base), files),
        (_, IsMulti::No) => flat_ints(&rows.concat(), width),
        (_, IsMulti::Yes) => flat_int_lists(rows, width),
    }
}
