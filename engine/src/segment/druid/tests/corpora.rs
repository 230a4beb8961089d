//! The fuzzers' corpora, run as tests: each input as it is, and with seeded mutations. What a fuzzer finds is put into
//! its corpus, and so is tried for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use roaring::RoaringBitmap;

use super::builder::{Dictionaries, Strings, Style, dictionary_of, encode};
use super::columns::{documents, made_of_everything};
use super::encode::{ByteOrder, CODECS, Files, Longs, concise, roaring};
use super::round_trip::rows;
use crate::segment::druid::container::{Container, Source};
use crate::segment::druid::fuzz::{TARGETS, pack};

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/druid/corpus");
/// Of each input.
const MUTATIONS: u64 = 120;

/// An input and its name.
type Named = (String, Vec<u8>);

/// The inputs of a fuzzer, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(Path::new(DIR).join(target)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths = entries.collect::<Vec<_>>();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn corpora_and_what_is_near_them_give_answers_or_errors() {
    for (target, run) in TARGETS {
        let inputs = corpus(target);
        assert!(inputs.len() >= 3, "the corpus of `{target}` has {} inputs", inputs.len());
        for (number, (path, input)) in inputs.iter().enumerate() {
            assert!(input.len() < 64 << 10, "{} is too large for a corpus", path.display());
            run(input);
            for seed in 0..MUTATIONS {
                let mut random = StdRng::seed_from_u64(seed << 32 | number as u64);
                let other = &inputs[random.random_range(0..inputs.len())].1;
                run(&mutated(input, other, &mut random));
            }
        }
    }
}

/// A few changes: bytes, bits, lengths, pieces that are gone, that come twice, that are of another input.
fn mutated(input: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.random_range(1..5) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..17)).min(bytes.len());
        match random.random_range(0..8) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
            3 => bytes[at..].iter_mut().take(4).zip([0x7f, 0xff, 0xff, 0xff]).for_each(|(byte, to)| *byte = to),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            6 if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                let piece = other[from..(from + end - at).min(other.len())].to_vec();
                drop(bytes.splice(at..end, piece));
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// The named files of a segment.
fn named(files: &BTreeMap<String, Bytes>) -> BTreeMap<String, Bytes> {
    let table = String::from_utf8(files["meta.smoosh"].to_vec()).unwrap();
    let container = Container::open(Source::Memory(files.clone())).unwrap();
    let names = table.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned());
    names.map(|name| (name.clone(), container.get(&name).unwrap().unwrap())).collect()
}

/// Segments of different styles, small ones.
fn segments() -> Vec<(String, BTreeMap<String, Bytes>)> {
    let mut segments = vec![("everything".to_owned(), made_of_everything())];
    let style = |style: Style| encode(&rows(7, 40), &style);
    for codec in CODECS {
        segments.push((format!("codec-{codec:02x}"), style(Style { codec, ..Style::TODAY })));
    }
    for (name, of) in [
        (
            "old",
            Style { longs: Longs::Old, strings: Strings::Uncompressed, is_concise: true, index: 'A', ..Style::TODAY },
        ),
        ("delta", Style { longs: Longs::Delta, strings: Strings::UncompressedWithFlags, index: 'B', ..Style::TODAY }),
        ("table", Style { longs: Longs::Table, strings: Strings::Compressed { lists: 2 }, ..Style::TODAY }),
        ("split", Style { split: Some(2), order: ByteOrder::Big, ..Style::TODAY }),
    ] {
        segments.push((name.to_owned(), style(of)));
    }
    segments
}

/// Columns of [`segments`], each with its files, under the name `c`.
fn columns() -> Vec<Named> {
    let mut columns = Vec::new();
    for (segment, files) in segments() {
        let files = named(&files);
        let names = files.keys().filter(|name| !name.contains('.') && *name != "__time");
        for name in names.filter(|name| segment == "everything" || segment == "split" || name.len() % 2 == 0) {
            let of =
                |file: &str| file == name || file.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.'));
            let own = files.iter().filter(|(file, _)| of(file));
            // The files that belong to it keep their names; the column itself is called `c`.
            let own =
                own.map(|(file, bytes)| (if file == name { "c".to_owned() } else { file.clone() }, bytes.clone()));
            let rows = if segment == "everything" { 5u16 } else { 40 };
            let packed = [&rows.to_le_bytes()[..], &pack(&own.collect())].concat();
            columns.push((format!("{segment}-{name}"), packed));
        }
    }
    columns
}

fn dictionaries() -> Vec<Named> {
    let texts = [None, Some(""), Some("a"), Some("ab"), Some("abc"), Some("\u{10000}"), Some("\u{ffff}")];
    let entries = texts.map(|text| text.map(|text| text.as_bytes().to_vec()));
    let styles = [
        ("plain", Style::TODAY),
        ("wrapped", Style { dictionaries: Dictionaries::Wrapped, ..Style::TODAY }),
        ("front-coded-0", Style { dictionaries: Dictionaries::FrontCoded { version: 0, bucket: 4 }, ..Style::TODAY }),
        ("front-coded-1", Style { dictionaries: Dictionaries::FrontCoded { version: 1, bucket: 2 }, ..Style::TODAY }),
        ("split", Style { split: Some(1), ..Style::TODAY }),
    ];
    let packed = styles.map(|(name, style)| {
        let mut files = Files::new();
        let main = dictionary_of(&entries, "d", &style, &mut files);
        files.push((String::new(), main));
        (name.to_owned(), pack(&files.into_iter().map(|(name, bytes)| (name, bytes.into())).collect()))
    });
    packed.into()
}

fn bitmaps() -> Vec<Named> {
    let sets: [(&str, RoaringBitmap); 4] = [
        ("few", [0, 3, 62, 900].into_iter().collect()),
        ("all", (0..1000).collect()),
        ("runs", (0..200).chain(300..310).chain([400]).chain(500..1000).collect()),
        ("many", (0..60_000).filter(|row| row % 3 > 0).collect()),
    ];
    let mut bitmaps = Vec::new();
    for (name, rows) in sets {
        let length = if name == "many" { 60_000u16 } else { 1000 }.to_le_bytes();
        bitmaps.push((format!("roaring-{name}"), [&length[..], &roaring(&rows)].concat()));
        bitmaps.push((format!("concise-{name}"), [&length[..], &concise(&rows)].concat()));
    }
    bitmaps
}

/// What documents rarely hold.
fn numbers_and_bytes() -> impl Iterator<Item = Named> {
    let bodies: [(&str, &[u8]); 6] = [
        ("integer", b"\x26\x89\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
        ("decimal", b"\x2a\x86\x82\x00\x7b\x00"),
        ("bytes", b"\xe8\x83\x00\x40\x40\x03"),
        ("raw-bytes", b"\xfd\x83\x01\x02\x03"),
        ("texts-again", b"\xf8\x40a\x40b\x01\x02\xf9"),
        ("long-text", b"\xe4long \xc3\xa9 text\xfc"),
    ];
    bodies.into_iter().map(|(name, body)| (name.to_owned(), [b":)\n\x07", body].concat()))
}

/// How the corpora began: what the test encoders write.
#[test]
#[ignore = "writes the corpora that are part of the repository"]
fn write_corpora() {
    let smiles = documents().into_iter().enumerate().map(|(number, bytes)| (format!("document-{number}"), bytes));
    let segments = segments().into_iter().map(|(name, files)| (name, pack(&files)));
    let corpora: [(&str, Vec<Named>); 5] = [
        ("segment", segments.collect()),
        ("column", columns()),
        ("dictionary", dictionaries()),
        ("bitmap", bitmaps()),
        ("smile", smiles.chain(numbers_and_bytes()).collect()),
    ];
    for (target, inputs) in corpora {
        let dir = Path::new(DIR).join(target);
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in inputs.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
}
