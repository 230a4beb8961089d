//! Files that are not what Druid wrote: no panic, no large allocation, an error or an answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::builder::{Style, encode};
use super::columns::made_of_everything;
use super::genuine;
use super::round_trip::rows;
use crate::segment::druid::fuzz::use_segment;

type SegmentFiles = BTreeMap<String, Bytes>;

fn use_it(files: SegmentFiles) {
    use_segment(files, |_| true);
}

fn changed(files: &SegmentFiles, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> SegmentFiles {
    let mut files = files.clone();
    let mut bytes = files[name].to_vec();
    change(&mut bytes);
    files.insert(name.to_owned(), bytes.into());
    files
}

/// What a byte is replaced by: all bits, each end, nothing, the next.
const FLIPS: [fn(u8) -> u8; 5] = [|b| b ^ 0xff, |b| b ^ 1, |b| b ^ 0x80, |_| 0, |b| b.wrapping_add(1)];

/// Replaces each byte of all files, by turns in so many of these ways.
fn flip_all(files: &SegmentFiles, ways: usize) -> usize {
    let mut tried = 0;
    let table = String::from_utf8(files["meta.smoosh"].to_vec()).unwrap();
    let names = table.lines().skip(1).map(named_range).collect::<Vec<_>>();
    for (name, bytes) in files {
        for at in 0..bytes.len() {
            for way in 0..ways {
                let flip = FLIPS[(at + way) % FLIPS.len()];
                let owner = names
                    .iter()
                    .find(|(range, _)| name.ends_with(".smoosh") && name != "meta.smoosh" && range.contains(&at));
                let owner = owner.map_or("", |(_, owner)| owner.as_str());
                // What all columns need is tried with all of them, what belongs to one column with that one.
                let is_wanted = |column: &str| owner.is_empty() || owner.ends_with(".drd") || owner.starts_with(column);
                use_segment(changed(files, name, |bytes| bytes[at] = flip(bytes[at])), is_wanted);
                tried += 1;
            }
        }
    }
    tried
}

#[test]
fn every_byte_of_genuine_segments_may_be_any_other() {
    for name in genuine::NAMES {
        let Some(files) = genuine::files(name) else { return };
        assert!(flip_all(&files, 1) > 1000, "{name}");
    }
}

#[test]
#[ignore = "takes minutes; the same in one way for each byte runs always"]
fn every_byte_of_genuine_segments_may_be_any_other_in_every_way() {
    for name in genuine::NAMES {
        let Some(files) = genuine::files(name) else { return };
        assert!(flip_all(&files, FLIPS.len()) > 5000, "{name}");
    }
}

#[test]
fn genuine_segments_may_end_anywhere() {
    for name in genuine::NAMES {
        let Some(files) = genuine::files(name) else { return };
        for (file, bytes) in &files {
            for length in (0..bytes.len()).filter(|length| length % 3 == 0 || bytes.len() < 1000) {
                use_it(changed(&files, file, |bytes| bytes.truncate(length)));
            }
            let mut less = files.clone();
            less.remove(file);
            use_it(less);
        }
    }
}

#[test]
fn segments_of_every_style_may_have_damaged_bytes() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let style = Style::random(&mut random);
        let files = encode(&rows(seed, 300), &style);
        for _ in 0..25 {
            damage(&files, &mut random);
        }
    }
}

#[test]
fn columns_of_every_kind_may_have_damaged_bytes() {
    let files = made_of_everything();
    assert!(flip_all(&files, 2) > 1000);
}

/// A few random bytes, some of them where a length is likely.
fn damage(files: &SegmentFiles, random: &mut StdRng) {
    let name = files.keys().nth(random.random_range(0..files.len())).unwrap().clone();
    use_it(changed(files, &name, |bytes| {
        for _ in 0..random.random_range(1..4) {
            if bytes.is_empty() {
                return;
            }
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 => bytes[at] = random.random(),
                1 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                2 => bytes[at..].iter_mut().take(4).zip([0x7f, 0xff, 0xff, 0xff]).for_each(|(byte, to)| *byte = to),
                _ => drop(bytes.drain(at..(at + random.random_range(1..9)).min(bytes.len()))),
            }
        }
    }));
}

/// A line of the table of contents of a segment with one data file.
fn named_range(line: &str) -> (std::ops::Range<usize>, String) {
    let fields = line.split(',').collect::<Vec<_>>();
    (fields[2].parse().unwrap()..fields[3].parse().unwrap(), fields[0].to_owned())
}
