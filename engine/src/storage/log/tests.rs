use std::io::Read;
use std::path::Path;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::storage::MemoryDisk;

const DIR: &str = "log";

/// Each with its number.
type Entries = Vec<(u64, Vec<u8>)>;

/// A log, read: its preamble, its entries, and the log itself.
fn recover(disk: &MemoryDisk, needed: u64) -> (Vec<u8>, Entries, Recovered) {
    let (mut preamble, mut entries) = (Vec::new(), Vec::new());
    let recovered = Log::recover(Arc::new(disk.clone()), DIR, needed, |item| {
        match item {
            LogItem::Preamble(bytes) => preamble = bytes.to_vec(),
            LogItem::Entry { number, bytes } => entries.push((number, bytes.to_vec())),
        }
        Ok(())
    });
    (preamble, entries, recovered.unwrap())
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    let entries = disk.list(Path::new(DIR)).unwrap();
    entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect()
}

fn entry(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + size, number as u8);
    bytes
}

#[test]
fn what_was_appended_is_read_in_its_order() {
    let disk = MemoryDisk::new();
    let (_, _, mut recovered) = recover(&disk, 1);
    assert_eq!(recovered.log.append(&[entry(1, 3), entry(2, 0)], || b"first".to_vec()).unwrap(), 1);
    assert_eq!(recovered.log.append(&[entry(3, 900)], || b"not asked for".to_vec()).unwrap(), 3);
    let (preamble, entries, recovered) = recover(&disk, 1);
    assert_eq!(preamble, b"first");
    assert_eq!(entries, [(1, entry(1, 3)), (2, entry(2, 0)), (3, entry(3, 900))]);
    assert_eq!((recovered.log.next(), recovered.torn_bytes, recovered.damage), (4, 0, None));
}

#[test]
fn files_that_nobody_needs_are_removed_and_numbers_go_on() {
    let disk = MemoryDisk::new();
    let (_, _, Recovered { mut log, .. }) = recover(&disk, 1);
    for number in 1..=6 {
        log.append(&[entry(number, 10)], || format!("before {number}").into_bytes()).unwrap();
        if number % 2 == 0 {
            log.end_file();
        }
    }
    assert_eq!(names(&disk).len(), 3);
    log.remove_up_to(3).unwrap();
    assert_eq!(names(&disk), ["0000000000000003.log", "0000000000000005.log"]);
    let (preamble, entries, recovered) = recover(&disk, 4);
    assert_eq!(preamble, b"before 3");
    assert_eq!(entries.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert_eq!(recovered.damage, None);
    // What is needed lies beyond what there is: all of it was published.
    assert_eq!(recover(&disk, 9).2.log.next(), 9);
}

/// Every length of a last frame that was torn, and every length of one that others follow.
#[test]
fn a_torn_end_is_left_out_whatever_its_length() {
    let disk = MemoryDisk::new();
    let (_, _, mut recovered) = recover(&disk, 1);
    recovered.log.append(&[entry(1, 20)], Vec::new).unwrap();
    let whole = read(&disk, "0000000000000001.log");
    recovered.log.append(&[entry(2, 20), entry(3, 5)], Vec::new).unwrap();
    let longer = read(&disk, "0000000000000001.log");
    for length in whole.len()..longer.len() {
        let torn = MemoryDisk::new();
        write(&torn, "0000000000000001.log", &longer[..length]);
        let (_, entries, mut recovered) = recover(&torn, 1);
        assert_eq!(entries.len(), 1, "length {length}");
        assert_eq!(recovered.damage, None, "length {length}");
        assert_eq!(recovered.torn_bytes, (length - whole.len()) as u64);
        assert_eq!(recovered.log.append(&[entry(2, 1)], Vec::new).unwrap(), 2);
        let (_, entries, recovered) = recover(&torn, 1);
        assert_eq!(entries, [(1, entry(1, 20)), (2, entry(2, 1))]);
        assert_eq!(recovered.damage, None, "length {length}");
    }
}

/// F49: a byte flipped anywhere but in the last frame is told, with the numbers of the entries that are missing.
#[test]
fn a_flipped_byte_is_told_with_its_entries() {
    let disk = MemoryDisk::new();
    let (_, _, mut recovered) = recover(&disk, 1);
    let mut ends = Vec::new();
    for number in 1..=4 {
        recovered.log.append(&[entry(number, 30)], || b"keys".to_vec()).unwrap();
        ends.push(read(&disk, "0000000000000001.log").len());
    }
    let good = read(&disk, "0000000000000001.log");
    for at in 0..ends[2] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let damaged = MemoryDisk::new();
        write(&damaged, "0000000000000001.log", &bytes);
        let (_, entries, recovered) = recover(&damaged, 1);
        let damage = recovered.damage.unwrap_or_else(|| panic!("byte {at} is not told"));
        let hit = ends.iter().position(|end| at < *end).unwrap() as u64 + 1;
        let missing = entries.iter().map(|(number, _)| *number).collect::<Vec<_>>();
        match at < 24 + 4 {
            true => assert_eq!(damage.missing, (1, 1), "byte {at}"),
            false => {
                assert_eq!(damage.missing, (hit, hit), "byte {at}");
                assert_eq!(missing, (1..=4).filter(|number| *number != hit).collect::<Vec<_>>(), "byte {at}");
            }
        }
        assert_eq!(recovered.log.next(), 5);
    }
}

#[test]
fn a_file_that_is_missing_between_others_is_told() {
    let disk = MemoryDisk::new();
    let (_, _, Recovered { mut log, .. }) = recover(&disk, 1);
    for number in 1..=6 {
        log.append(&[entry(number, 1)], Vec::new).unwrap();
        if number % 2 == 0 {
            log.end_file();
        }
    }
    disk.remove_file(&Path::new(DIR).join("0000000000000003.log")).unwrap();
    let damage = recover(&disk, 1).2.damage.unwrap();
    assert_eq!(damage.missing, (3, 4));
    assert!(damage.message.contains("3 to 4"), "{}", damage.message);
    assert_eq!(recover(&disk, 5).2.damage, None, "nobody needs them");
}

fn read(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    disk.open(&Path::new(DIR).join(name)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn write(disk: &MemoryDisk, name: &str, bytes: &[u8]) {
    disk.create_dir_durably(Path::new(DIR)).unwrap();
    disk.create(&Path::new(DIR).join(name)).unwrap().write_all(bytes).unwrap();
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let disk = MemoryDisk::new();
        write(&disk, "0000000000000001.log", &bytes);
        recover(&disk, 1);
    }
}

/// What a writer knows: which entries were acknowledged, and which may be there although nobody was told so.
#[derive(Default)]
struct Truth {
    acknowledged: Vec<Vec<u8>>,
    /// Published, and so no longer needed.
    published: u64,
    /// Of the appends that failed since: all of one may be there.
    pending: Vec<Vec<Vec<u8>>>,
}

/// F48, F50-F52: the power goes at any moment, again and again, and the disk fails in between; whatever was acknowledged
/// is there, once and in its order, and of the rest all of an append or nothing.
#[test]
fn what_was_acknowledged_survives_every_power_loss() {
    let seeds = crash_points();
    let mut losses = 0;
    for seed in 0..seeds {
        losses += play(seed);
    }
    assert!(losses > seeds, "the power went {losses} times in {seeds} lives");
}

/// 10,000 unless said otherwise.
fn crash_points() -> u64 {
    option_env!("HENGE_CRASH_POINTS").and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

/// A few lives of one log. Returns how often the power went.
fn play(seed: u64) -> u64 {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut disk = MemoryDisk::new();
    let mut truth = Truth::default();
    let lives = dice.random_range(1..5);
    for life in 0..lives {
        disk.fail_after(dice.random_range(0..40));
        live(&disk, &mut truth, &mut dice, seed);
        disk = disk.after_power_loss(seed * 31 + life);
    }
    let (preamble, entries, recovered) = recover(&disk, truth.published + 1);
    check(&mut truth, &preamble, &entries, &recovered, seed);
    lives
}

/// One process: reads the log, appends, publishes, until the power is off.
fn live(disk: &MemoryDisk, truth: &mut Truth, dice: &mut StdRng, seed: u64) {
    let (mut preamble, mut entries) = (Vec::new(), Vec::new());
    let recovered = Log::recover(Arc::new(disk.clone()), DIR, truth.published + 1, |item| {
        match item {
            LogItem::Preamble(bytes) => preamble = bytes.to_vec(),
            LogItem::Entry { number, bytes } => entries.push((number, bytes.to_vec())),
        }
        Ok(())
    });
    // The power may be off already.
    let Ok(recovered) = recovered else { return };
    check(truth, &preamble, &entries, &recovered, seed);
    let mut log = recovered.log;
    log.set_file_bytes(600);
    for _ in 0..dice.random_range(1..20) {
        let count = truth.acknowledged.len() as u64;
        let wanted = (0..dice.random_range(1..4)).map(|i| entry(count + 1 + i, dice.random_range(0..700)));
        let wanted = wanted.collect::<Vec<_>>();
        match log.append(&wanted, || count.to_le_bytes().to_vec()) {
            Ok(first) => {
                assert_eq!(first, count + 1, "seed {seed}");
                truth.acknowledged.extend(wanted);
                truth.pending.clear();
            }
            Err(_) => {
                truth.pending.push(wanted);
                // Not the power, but the disk.
                if dice.random_bool(0.5) {
                    disk.fail_after(dice.random_range(0..20));
                }
            }
        }
        if dice.random_bool(0.2) {
            truth.published = dice.random_range(truth.published..=truth.acknowledged.len() as u64);
            log.end_file();
            let _ = log.remove_up_to(truth.published);
        }
    }
}

fn check(truth: &mut Truth, preamble: &[u8], entries: &[(u64, Vec<u8>)], recovered: &Recovered, seed: u64) {
    assert_eq!(recovered.damage, None, "seed {seed}");
    if let Some(before) = preamble.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) {
        assert!(before <= truth.published, "seed {seed}: entries between the preamble and what was published are gone");
    }
    let acknowledged = truth.acknowledged.len() as u64;
    let mut pending = Vec::new();
    for (number, bytes) in entries {
        match truth.acknowledged.get(*number as usize - 1) {
            Some(known) => assert_eq!(known, bytes, "seed {seed}: entry {number}"),
            None => pending.push(bytes.clone()),
        }
    }
    let numbers = entries.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "seed {seed}: {numbers:?}");
    let first_needed = truth.published + 1;
    assert!(
        first_needed > acknowledged || numbers.first().is_some_and(|first| *first <= first_needed),
        "seed {seed}: entry {first_needed} is gone"
    );
    assert!(acknowledged <= truth.published || numbers.last() >= Some(&acknowledged), "seed {seed}: the end is gone");
    if !pending.is_empty() {
        assert!(truth.pending.contains(&pending), "seed {seed}: part of what failed");
        truth.acknowledged.extend(pending);
    }
    truth.pending.clear();
    assert_eq!(recovered.log.next(), truth.acknowledged.len() as u64 + 1, "seed {seed}");
}
