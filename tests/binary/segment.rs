use std::path::Path;

use libtest_mimic::{Failed, Trial};

use super::Place;
use crate::harness::contains;
use crate::harness::process::{Ended, henge, run};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("binary::segment::inspect_shows_what_a_file_holds", inspected),
        Trial::test("binary::segment::what_is_no_segment_or_damaged_is_named", damaged),
    ]
}

fn segment(verb: &str, file: &Path) -> Result<Ended, Failed> {
    let mut command = henge(&["segment", verb]);
    command.arg(file);
    run(command)
}

fn inspected() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let file = place.segment_files()?.pop().ok_or("no segment was written")?;
    let printed = segment("inspect", &file)?.ok()?;
    contains(&printed, &["rows       3", "__time", "page", "added", "2013-08-01T01:00:00.000Z"])?;
    contains(&segment("verify", &file)?.ok()?, &["whole"])
}

fn damaged() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let whole = std::fs::read(place.segment_files()?.pop().ok_or("no segment was written")?)?;
    let copy = place.path().join("copy.henge");
    for verb in ["inspect", "verify"] {
        for bytes in [&b"garbage"[..], &[0; 4096], &whole[..whole.len() / 2]] {
            std::fs::write(&copy, bytes)?;
            contains(&segment(verb, &copy)?.failed_with(1)?, &["copy.henge", "segment"])?;
        }
    }
    let mut flipped = whole;
    flipped[100] ^= 0x10;
    std::fs::write(&copy, flipped)?;
    contains(&segment("verify", &copy)?.failed_with(1)?, &["copy.henge", "checksum"])?;
    contains(&segment("inspect", &place.path().join("none.henge"))?.failed_with(2)?, &["none.henge"])
}
