//! Unpacking an `index.zip`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use zip::ZipArchive;
use zip::read::ZipFile;

use crate::error::{Error, Result};

/// What a zip may unpack to, whatever its size.
const ALWAYS_BYTES: u64 = 1 << 30;
/// What it may unpack to for each of its bytes; segments are compressed before they are zipped.
const MOST_RATIO: u64 = 64;
/// The greatest file that Druid writes.
const MAX_FILE_BYTES: u64 = i32::MAX as u64;
/// A zip of more entries is no segment.
const MAX_ENTRIES: usize = 100_000;

/// Unpacks the files of a segment into `dir`, which must be there and empty. Entries of other names are left out, so
/// nothing is written anywhere else. Returns how many bytes were written. Fails, leaving what was written so far, when
/// the zip is damaged or unpacks to more than a segment can.
pub fn unpack(zip: &Path, dir: &Path) -> Result<u64> {
    unpack_within(zip, dir, ALWAYS_BYTES).map_err(|error| error.context("zip", zip.display()))
}

/// The same with another limit for small zips.
pub(super) fn unpack_within(zip: &Path, dir: &Path, always_bytes: u64) -> Result<u64> {
    let file = File::open(zip).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found("there is no such file"),
        _ => Error::runtime_failure("the file cannot be read").with_source(error),
    })?;
    let size = file.metadata().map_err(|error| Error::runtime_failure("the file cannot be read").with_source(error))?;
    let most = always_bytes.max(size.len().saturating_mul(MOST_RATIO));
    let mut archive = ZipArchive::new(io::BufReader::new(file))
        .map_err(|error| Error::corrupt("the file is no zip that can be read").with_source(error))?;
    if archive.len() > MAX_ENTRIES {
        return Err(Error::corrupt(format!("a zip of {} entries is no segment", archive.len())));
    }
    let mut written = 0;
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| Error::corrupt(format!("entry {index} of the zip cannot be read")).with_source(error))?;
        // A name that cannot be read is none of a segment's.
        let name = entry.name().map(|name| name.into_owned()).unwrap_or_default();
        if is_segment_file(&name) {
            let limit = MAX_FILE_BYTES.min(most - written);
            written +=
                unpack_entry(&mut entry, &dir.join(&name), limit).map_err(|error| error.context("entry", &name))?;
        }
    }
    Ok(written)
}

fn is_segment_file(name: &str) -> bool {
    let is_chunk = || {
        let number = name.strip_suffix(".smoosh");
        number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    matches!(name, "version.bin" | "meta.smoosh" | "factory.json" | "index.drd") || (name.len() < 32 && is_chunk())
}

fn unpack_entry(entry: &mut ZipFile<'_, io::BufReader<File>>, target: &Path, limit: u64) -> Result<u64> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::corrupt("the zip has a file twice"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Error::corrupt("the entry is damaged").with_source(error)
        }
        _ => Error::runtime_failure(format!("cannot unpack to `{}`", target.display())).with_source(error),
    };
    let mut out = BufWriter::new(File::create_new(target).map_err(failed)?);
    // One byte more than is allowed, to see whether there are any.
    let written = io::copy(&mut entry.take(limit + 1), &mut out).map_err(failed)?;
    if written > limit {
        return Err(Error::capacity_exceeded(format!(
            "it unpacks to more than the {limit} bytes that a segment may have"
        )));
    }
    out.flush().map_err(failed)?;
    Ok(written)
}
