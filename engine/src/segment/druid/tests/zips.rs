//! Zips: genuine ones, bombs, liars, and those whose names lead elsewhere.

use std::fs;
use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::genuine;
use crate::error::Result;
use crate::segment::druid::unpack;
use crate::segment::druid::unpack::unpack_within;

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The names and sizes of what is unpacked. Nothing may appear outside.
fn unpacked(bytes: &[u8]) -> Result<Vec<(String, u64)>> {
    let outer = tempfile::tempdir().unwrap();
    let (file, dir) = (outer.path().join("index.zip"), outer.path().join("a/b"));
    fs::write(&file, bytes).unwrap();
    fs::create_dir_all(&dir).unwrap();
    let result = unpack(&file, &dir);
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "something was written outside");
    assert_eq!(fs::read_dir(outer.path().join("a")).unwrap().count(), 1, "something was written outside");
    let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
    let mut found = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect::<Vec<_>>();
    found.sort();
    assert_eq!(result?, found.iter().map(|(_, size)| size).sum::<u64>());
    Ok(found)
}

#[test]
fn genuine_zips_are_unpacked() {
    let Some(dir) = genuine::dir("test-segment") else { return };
    let found = unpacked(&fs::read(dir.join("index.zip")).unwrap()).unwrap();
    let names = found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["00000.smoosh", "meta.smoosh", "version.bin"]);
}

#[test]
fn other_names_are_left_out() {
    let names =
        ["../../00000.smoosh", "/meta.smoosh", "x/version.bin", "..\\version.bin", "a", "00000.smoosh\0", "1.smoosh"];
    let entries = names.map(|name| (name, &b"x"[..]));
    assert_eq!(unpacked(&zip(&entries)).unwrap(), []);
}

#[test]
fn bombs_are_stopped_at_a_limit() {
    let bytes = zip(&[("00000.smoosh", &vec![0; 4 << 20])]);
    assert!(bytes.len() < 10_000);
    let outer = tempfile::tempdir().unwrap();
    let (file, dir) = (outer.path().join("index.zip"), outer.path().join("out"));
    fs::write(&file, &bytes).unwrap();
    fs::create_dir(&dir).unwrap();
    let error = unpack_within(&file, &dir, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("more than the 1048576 bytes"), "{error}");
    assert!(dir.join("00000.smoosh").metadata().unwrap().len() <= (1 << 20) + 1);
}

#[test]
fn damaged_zips_are_errors() {
    let Some(dir) = genuine::dir("nested_segment_v4") else { return };
    let bytes = fs::read(dir.join("index.zip")).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        let _ = unpacked(&damaged);
        if at % 7 == 0 {
            assert!(unpacked(&bytes[..at]).is_err(), "{at}");
        }
    }
    assert!(unpacked(b"").is_err());
}
