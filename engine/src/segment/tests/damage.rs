//! Damaged files: every flipped byte and every truncation is found and named; nothing panics.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::fixture::{full_schema, memory, written};
use super::laws::rows;
use crate::segment::{Rollup, RowIndexPolicy, SegmentFile, WriteOptions};

fn small_file(num_rows: usize) -> Vec<u8> {
    let schema = full_schema();
    let rows = rows(num_rows..num_rows + 1).new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let options = WriteOptions::default().row_index("page", RowIndexPolicy::Always);
    written(&[memory(&schema, &rows)], &schema, Rollup::Off, &options)
}

/// What reading all of it says.
fn read(bytes: Vec<u8>) -> Result<(), String> {
    SegmentFile::from_bytes("damaged.segment", bytes).and_then(|file| file.verify()).map_err(|error| error.to_string())
}

fn assert_found(bytes: Vec<u8>, what: &str) {
    let error = read(bytes).expect_err(what);
    assert!(error.contains("damaged.segment"), "{what}: {error}");
}

#[test]
fn every_flipped_byte_is_found() {
    let bytes = small_file(40);
    read(bytes.clone()).unwrap();
    for at in 0..bytes.len() {
        for flip in [1 << (at % 8), 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            assert_found(damaged, &format!("byte {at} of {} flipped by {flip:#x}", bytes.len()));
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let bytes = small_file(40);
    for length in 0..bytes.len() {
        assert_found(bytes[..length].to_vec(), &format!("cut to {length} of {} bytes", bytes.len()));
    }
    let mut longer = bytes;
    longer.push(0);
    assert_found(longer, "a byte too many");
}

#[test]
fn an_error_says_where() {
    let bytes = small_file(40);
    let mut damaged = bytes.clone();
    damaged[16] ^= 1;
    let error = read(damaged).unwrap_err();
    assert_eq!(error, "damaged bytes: the checksum differs (block `0`, column `__time`, segment `damaged.segment`)");
    let error = read(bytes[..100].to_vec()).unwrap_err();
    assert!(error.contains("cut short"), "{error}");
    let error = read(b"PK\x03\x04 not a segment at all, but long enough to be one".to_vec()).unwrap_err();
    assert!(error.contains("not a segment"), "{error}");
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = small_file(3);
    let version_in_tail = bytes.len() - 16;
    bytes[8] = 2;
    bytes[version_in_tail] = 2;
    let error = read(bytes).unwrap_err();
    assert!(error.contains("format version 2"), "{error}");
}

/// Bytes changed by somebody who recomputes the checksums: any outcome but a panic.
fn resealed(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    let tail = bytes.len() - 32;
    let footer = tail - u64::from_le_bytes(bytes[tail..tail + 8].try_into().unwrap()) as usize;
    let at = footer + at % (tail - footer);
    bytes[at] = value;
    let end = bytes.len() - 12;
    let checksum = crate::segment::page::checksum(&bytes[footer..end]);
    bytes[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_lying_footer_does_not_panic(at in any::<usize>(), value in any::<u8>()) {
        let _ = read(resealed(small_file(5), at, value));
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(bytes).is_err());
    }
}

#[test]
fn flips_in_a_large_file_are_found() {
    let bytes = small_file(20_000);
    // A prime step, so that all places in blocks are met.
    for at in (0..bytes.len()).step_by(50_021) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert_found(damaged, &format!("byte {at} of {}", bytes.len()));
    }
}
