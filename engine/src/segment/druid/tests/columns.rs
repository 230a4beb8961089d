//! Columns of kinds that no genuine segment at hand has, made by the test encoders.

use std::collections::BTreeMap;

use bytes::Bytes;
use roaring::RoaringBitmap;
use serde_json::{Value, json};

use super::builder::{Style, dictionary_of, smoosh};
use super::encode::{
    Blocking, ByteOrder, Files, LZ4, Longs, ZSTD, blobs, fixed, floats, front_coded, indexed, ints, longs, native,
    put_i32, sized, vbyte,
};
use super::{rows_of, values_of};
use crate::segment::druid::{DruidSegment, Nulls};
use crate::segment::{Column, Segment};

const STYLE: Style = Style { is_concise: false, ..Style::TODAY };
const LITTLE: ByteOrder = ByteOrder::Little;
const BLOCKING: Blocking<'static> = Blocking { codec: LZ4, order: LITTLE, per: None, split: None };
const NUM_ROWS: usize = 5;

fn rows<const N: usize>(rows: [u32; N]) -> RoaringBitmap {
    rows.into_iter().collect()
}

fn texts<const N: usize>(texts: [Option<&str>; N]) -> Vec<Option<Vec<u8>>> {
    texts.into_iter().map(|text| text.map(|text| text.as_bytes().to_vec())).collect()
}

fn list(entries: &[Option<Vec<u8>>]) -> Vec<u8> {
    indexed(entries, None, LITTLE, &mut Files::new())
}

fn id_list(ids: &[u32]) -> Vec<u8> {
    ints(ids, 1, false, BLOCKING, &mut Files::new())
}

fn bitmaps(ids: &[u32], cardinality: u32) -> Vec<u8> {
    let rows =
        |id| ids.iter().zip(0..).filter(move |(of, _)| **of == id).map(|(_, row)| row).collect::<RoaringBitmap>();
    list(&(0..cardinality).map(|id| Some(STYLE.bitmap(&rows(id)))).collect::<Vec<_>>())
}

/// A column's file, and files that belong to it.
fn auto(name: &str, part: Value, rest: &[u8], own: &[(&str, Vec<u8>)], files: &mut Files) {
    let mut body = vec![0];
    vbyte(&mut body, name.len());
    body.extend(name.as_bytes());
    body.extend(rest);
    let mut whole = json!({"type": "nestedCommonFormat", "hasNulls": true, "isVariantType": false});
    whole.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    files.push((name.to_owned(), STYLE.column_file("COMPLEX", whole, &body)));
    files.extend(own.iter().map(|(file, bytes)| (format!("{name}.{file}"), bytes.clone())));
}

fn scalars(files: &mut Files) {
    let ids = [0, 1, 2, 1, 0];
    auto(
        "auto_string",
        json!({"logicalType": "STRING"}),
        &[],
        &[
            ("__stringDictionary", dictionary_of(&texts([None, Some("a"), Some("b")]), "", &STYLE, &mut Files::new())),
            ("__encodedColumn", id_list(&ids)),
            ("__valueIndexes", bitmaps(&ids, 3)),
        ],
        files,
    );
    auto(
        "auto_long",
        json!({"logicalType": "LONG"}),
        &[],
        &[
            ("__longDictionary", fixed(&[7, 9], true, 8, LITTLE)),
            ("__encodedColumn", id_list(&ids)),
            ("__longColumn", longs(&[0, 7, 9, 7, 0], Longs::Plain, BLOCKING, &mut Files::new())),
            ("__valueIndexes", bitmaps(&ids, 3)),
        ],
        files,
    );
    let doubles = [0.0, 0.5, -1.5, 0.5, 0.0].map(f64::to_bits);
    auto(
        "auto_double",
        json!({"logicalType": "DOUBLE"}),
        &[],
        &[
            ("__doubleDictionary", fixed(&[doubles[2], doubles[1]], true, 8, LITTLE)),
            ("__encodedColumn", id_list(&[0, 2, 1, 2, 0])),
            ("__doubleColumn", floats(&doubles, 8, false, BLOCKING, &mut Files::new())),
            ("__valueIndexes", bitmaps(&[0, 2, 1, 2, 0], 3)),
        ],
        files,
    );
}

/// Ids: null, `a`, 5, -0.5, `["a",null,5]`, `[]`.
fn variants(files: &mut Files) {
    let array = |ids: &[u32]| Some(ids.iter().flat_map(|id| native(LITTLE, *id)).collect::<Vec<_>>());
    let ids = [1, 2, 3, 4, 5];
    auto(
        "auto_variant",
        json!({"logicalType": "ARRAY<STRING>", "isVariantType": true}),
        &[0x11],
        &[
            ("__stringDictionary", list(&texts([None, Some("a")]))),
            ("__longDictionary", fixed(&[5], false, 8, LITTLE)),
            ("__doubleDictionary", fixed(&[(-0.5f64).to_bits()], false, 8, LITTLE)),
            ("__arrayDictionary", front_coded(&[array(&[1, 0, 2]), array(&[])], (0, true, 4), 4, LITTLE)),
            ("__arrayElementDictionary", fixed(&[0, 1, 2], false, 4, LITTLE)),
            ("__encodedColumn", id_list(&ids)),
            ("__valueIndexes", bitmaps(&ids, 6)),
            ("__arrayElementIndexes", list(&[])),
        ],
        files,
    );
}

/// `{"a":1}`, null, `[true]`, `"x"`, `{"a":{"a":0.5}}` with a name that refers back.
pub(super) fn documents() -> Vec<Vec<u8>> {
    let smile = |body: &[u8]| [b":)\n\x05", body].concat();
    let half = 0.5f64.to_bits();
    let seven = (0..10).rev().map(|group| (half >> (7 * group) & 0x7f) as u8).collect::<Vec<_>>();
    vec![
        smile(b"\xfa\x80a\xc2\xfb"),
        Vec::new(),
        smile(b"\xf8\x23\xf9"),
        smile(b"\x40x"),
        smile(&[b"\xfa\x80a\xfa\x40\x29", &seven[..], b"\xfb\xfb"].concat()),
    ]
}

fn nested(files: &mut Files) {
    files.extend(blobs("docs.__raw", &documents(), ZSTD, LITTLE));
    let about = json!({"byteOrder": "LITTLE_ENDIAN", "fileNameBase": "docs", "hasNulls": true, "bitmapSerdeFactory": {"type": "roaring"}});
    let mut body = vec![5];
    body.extend(sized(about.to_string().as_bytes()));
    body.extend(list(&texts([Some("$.a")])));
    body.push(4);
    files
        .push(("docs".to_owned(), STYLE.column_file("COMPLEX", json!({"type": "complex", "typeName": "json"}), &body)));
    let fields =
        [vec![0x7f, 1], front_coded(&texts([Some("$.a"), Some("$.a.a")]), (0, false, 1), 4, LITTLE), vec![4, 8]];
    let raw = blobs("auto_docs.__raw", &documents(), LZ4, LITTLE);
    auto("auto_docs", json!({"logicalType": "COMPLEX<json>"}), &fields.concat(), &[], files);
    files.extend(raw);
}

/// Documents of which the fields alone are stored.
fn fields_only(files: &mut Files) {
    let paths = texts([Some("$.a"), Some("$.a.a"), Some("$.b[1].c"), Some("$['x.y']")]);
    // Ids of values: null, `t`, 1, 2, 0.5, `[1,2]`.
    let array = [2, 3].into_iter().flat_map(|id| native(LITTLE, id)).collect::<Vec<_>>();
    let doubles = [0.0, 0.0, 0.5, 0.0, 0.0].map(f64::to_bits);
    let doubles = floats(&doubles, 8, false, BLOCKING, &mut Files::new());
    let own = [
        ("__stringDictionary", list(&texts([None, Some("t")]))),
        ("__longDictionary", fixed(&[1, 2], false, 8, LITTLE)),
        ("__doubleDictionary", fixed(&[0.5f64.to_bits()], false, 8, LITTLE)),
        ("__arrayDictionary", front_coded(&[Some(array)], (0, true, 4), 4, LITTLE)),
        ("__nullIndex", sized(&STYLE.bitmap(&rows([1])))),
        ("__field_0", field(&[0, 2, 5], &[1, 0, 0, 2, 0], &[])),
        ("__field_1", field(&[0, 4], &[0, 0, 1, 0, 0], &doubles)),
        ("__field_2", field(&[0, 1], &[1, 0, 0, 0, 0], &[])),
        ("__field_3", field(&[0, 1], &[0, 0, 1, 0, 0], &[])),
    ];
    let part = json!({"logicalType": "COMPLEX<json>", "columnFormatSpec": {"objectStorageEncoding": "none"}});
    auto("auto_fields_only", part, &[list(&paths), vec![0x24, 8, 1, 1]].concat(), &own, files);
}

fn field(dictionary: &[u64], ids: &[u32], doubles: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0];
    out.extend(fixed(dictionary, false, 4, LITTLE));
    out.extend(native(LITTLE, 0));
    out.extend(native(LITTLE, doubles.len() as u32));
    out.extend(doubles);
    [out, id_list(ids), bitmaps(ids, dictionary.len() as u32)].concat()
}

fn complex(files: &mut Files) {
    let objects = [&[1, 2, 3][..], &[], &[255], &[1, 2, 3], &[0; 40]].map(<[u8]>::to_vec);
    let entries = objects.iter().map(|object| Some(object.clone())).collect::<Vec<_>>();
    let part = json!({"type": "complex", "typeName": "thetaSketch"});
    files.push(("sketch".to_owned(), STYLE.column_file("COMPLEX", part.clone(), &list(&entries))));
    let about = json!({"byteOrder": "LITTLE_ENDIAN", "fileNameBase": "packed", "hasNulls": false});
    let body = [&[0x7f, 0][..], &sized(about.to_string().as_bytes())].concat();
    files.push(("packed".to_owned(), STYLE.column_file("COMPLEX", part, &body)));
    files.extend(blobs("packed.__complexColumn", &objects, LZ4, LITTLE));
}

/// A column of nulls, a place with an index behind it, and one of a kind that nobody knows.
fn odd_ones(files: &mut Files) {
    files.push(("nulls".to_owned(), STYLE.column_file("STRING", json!({"type": "null", "numRows": NUM_ROWS}), &[])));
    let mut geo = vec![0];
    geo.extend(list(&texts([Some("1.0,2.0")])));
    geo.extend([0, 1]);
    geo.extend(sized(&[0, 0, 0, 0, 0, 0, 0, 0]));
    geo.extend(list(&[Some(STYLE.bitmap(&rows([0, 1, 2, 3, 4])))]));
    geo.extend(sized(&[0, 0, 0, 0, 2, 0x80, 0]));
    files.push(("geo".to_owned(), STYLE.column_file("STRING", json!({"type": "stringDictionary"}), &geo)));
    files.push(("future".to_owned(), STYLE.column_file("LONG", json!({"type": "longV9"}), &[])));
    let short = longs(&[1, 2], Longs::Plain, BLOCKING, &mut Files::new());
    files.push(("short".to_owned(), STYLE.column_file("LONG", json!({"type": "long"}), &short)));
}

/// `index.drd` in which two columns are named among all, because they have no value: one with a file, one without.
fn index_drd(names: &[String]) -> Vec<u8> {
    let nameless = ["nulls", "unstored"];
    let with_values = names.iter().filter(|name| !nameless.contains(&name.as_str()));
    let with_values = with_values.map(|name| Some(name.as_bytes().to_vec())).collect::<Vec<_>>();
    let mut all = vec![Some(b"unstored".to_vec())];
    all.extend(vec![None; with_values.len()]);
    all.insert(3, Some(b"nulls".to_vec()));
    let mut out = [list(&with_values), list(&with_values)].concat();
    out.extend([0; 16]);
    out.extend(sized(br#"{"type":"roaring"}"#));
    [out, list(&all), list(&all)].concat()
}

/// A segment with a column of each of these kinds.
pub(super) fn made_of_everything() -> BTreeMap<String, Bytes> {
    let mut files = Files::new();
    scalars(&mut files);
    variants(&mut files);
    nested(&mut files);
    fields_only(&mut files);
    complex(&mut files);
    odd_ones(&mut files);
    let names = files.iter().map(|(name, _)| name).filter(|name| !name.contains('.')).cloned().collect::<Vec<_>>();
    let times = longs(&[1, 2, 3, 4, 5], Longs::Plain, BLOCKING, &mut Files::new());
    files.push(("__time".to_owned(), STYLE.column_file("LONG", json!({"type": "longV2"}), &sized(&times))));
    files.push(("index.drd".to_owned(), index_drd(&names)));
    files.push(("metadata.drd".to_owned(), b"no JSON".to_vec()));
    smoosh(files, usize::MAX)
}

fn values(segment: &DruidSegment, name: &str) -> Vec<Value> {
    let index = segment.schema().index_of(name).unwrap_or_else(|| panic!("no column `{name}`"));
    values_of(&segment.column(index).unwrap(), segment.num_rows()).unwrap()
}

#[test]
fn columns_of_every_kind_are_read() {
    let segment = DruidSegment::from_files("made", made_of_everything(), Nulls::AsStored).unwrap();
    let expected = json!({
        "auto_string": [null, "a", "b", "a", null],
        "auto_long": [null, 7, 9, 7, null],
        "auto_double": [null, 0.5, -1.5, 0.5, null],
        "auto_variant": ["a", "5", "-0.5", "[\"a\",null,5]", "[]"],
        "docs": ["{\"a\":1}", null, "[true]", "\"x\"", "{\"a\":{\"a\":0.5}}"],
        "auto_docs": ["{\"a\":1}", null, "[true]", "\"x\"", "{\"a\":{\"a\":0.5}}"],
        "auto_fields_only": [
            "{\"a\":1,\"b\":[null,{\"c\":\"t\"}]}", null, "{\"a\":{\"a\":0.5},\"x.y\":\"t\"}", "{\"a\":[1,2]}", "{}"
        ],
        "sketch": ["AQID", null, "/w==", "AQID", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="],
        "packed": ["AQID", null, "/w==", "AQID", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="],
        "nulls": [null, null, null, null, null],
        "unstored": [null, null, null, null, null],
        "geo": ["1.0,2.0", "1.0,2.0", "1.0,2.0", "1.0,2.0", "1.0,2.0"],
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(Value::from(values(&segment, name)), *expected, "{name}");
    }
    let names = segment.schema().columns().iter().map(|column| column.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names[..5], ["__time", "unstored", "auto_string", "auto_long", "nulls"]);
}

#[test]
fn columns_that_cannot_be_read_say_so_and_leave_the_others() {
    let segment = DruidSegment::from_files("made", made_of_everything(), Nulls::AsStored).unwrap();
    let (rows, errors) = rows_of(&segment);
    assert_eq!((rows.len(), rows[0].len()), (NUM_ROWS, segment.schema().columns().len() - 2));
    let errors = errors.join("\n");
    for words in [
        "columns stored as `longV9` are not known (column `future`",
        "the column has 2 rows, the segment 5 (stored as `long`, column `short`",
    ] {
        assert!(errors.contains(words), "{words} is not in {errors}");
    }
}

#[test]
fn null_rows_of_auto_numbers_are_no_zeros() {
    let segment = DruidSegment::from_files("made", made_of_everything(), Nulls::AsStored).unwrap();
    let index = segment.schema().index_of("auto_long").unwrap();
    let Column::Long(column) = segment.column(index).unwrap() else { panic!("a long") };
    let stats = column.block_stats(0).unwrap();
    assert_eq!((stats.nulls, stats.min_max, stats.sum), (2, Some((7, 9)), 23));
}

#[test]
fn rows_that_are_not_in_the_order_of_time_are_refused() {
    let times = longs(&[2, 1], Longs::Plain, BLOCKING, &mut Files::new());
    let mut files = vec![("__time".to_owned(), STYLE.column_file("LONG", json!({"type": "long"}), &times))];
    files.push(("index.drd".to_owned(), super::builder::index_drd(&[], &[], (0, 1), &STYLE)));
    let error = DruidSegment::from_files("made", smoosh(files, usize::MAX), Nulls::AsStored).unwrap_err();
    assert!(error.to_string().contains("another order than that of `__time`"), "{error}");
}

#[test]
fn lying_lengths_take_no_memory() {
    // A list of longs that claims 2^31 - 1 rows in blocks that are not there.
    let mut body = vec![2];
    put_i32(&mut body, i32::MAX as usize);
    put_i32(&mut body, 8192);
    body.push(LZ4);
    body.extend(list(&[]));
    let mut files = vec![("__time".to_owned(), STYLE.column_file("LONG", json!({"type": "long"}), &body))];
    files.push(("index.drd".to_owned(), super::builder::index_drd(&[], &[], (0, 1), &STYLE)));
    let error = DruidSegment::from_files("made", smoosh(files, usize::MAX), Nulls::AsStored).unwrap_err();
    assert!(error.to_string().contains("make 262144 blocks, but there are 0"), "{error}");
}
