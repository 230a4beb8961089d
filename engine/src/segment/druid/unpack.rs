//! Unpacking an `index.zip`, and what else Druid may keep a segment in.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
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
/// How a gzipped file begins.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How a zip begins: with its first entry, or, without any, with its end.
const ZIP: [[u8; 4]; 2] = [*b"PK\x03\x04", *b"PK\x05\x06"];

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

/// Whether bytes begin as a zip does.
pub(super) fn is_zip(head: &[u8]) -> bool {
    ZIP.iter().any(|begin| head.starts_with(begin))
}

/// Unpacks a zip that was gzipped once more, as [`unpack`] does. Druid can keep a single file so; of version 9 no segment
/// is one.
fn ungzip(from: &Path, dir: &Path, always_bytes: u64) -> Result<u64> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::corrupt("the gzipped file is damaged").with_source(error)
        }
        _ => Error::runtime_failure("the gzipped file cannot be read").with_source(error),
    };
    let file = File::open(from).map_err(failed)?;
    let most = always_bytes.max(file.metadata().map_err(failed)?.len().saturating_mul(MOST_RATIO));
    let mut unpacked = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let written = io::copy(&mut MultiGzDecoder::new(io::BufReader::new(file)).take(most + 1), &mut unpacked);
    if written.map_err(failed)? > most {
        return Err(Error::capacity_exceeded(format!(
            "it unpacks to more than the {most} bytes that a segment may have"
        )));
    }
    let mut head = [0; 4];
    let is_whole = File::open(unpacked.path()).and_then(|mut file| file.read_exact(&mut head)).is_ok();
    if !is_whole || !is_zip(&head) {
        return Err(Error::unsupported(
            "it is a single file that is gzipped; a segment of version 9 is several: a zip or a directory of them",
        ));
    }
    unpack_within(unpacked.path(), dir, always_bytes)
}

/// Puts the files of a segment into `dir`, which must be there and empty, as [`unpack`] does: from a zip, a zip that is
/// gzipped, or a directory. Fails where there are none.
pub fn gather(from: &Path, dir: &Path) -> Result<u64> {
    if !from.is_dir() {
        let mut head = [0; 2];
        let is_gzip = File::open(from).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == GZIP;
        return match is_gzip {
            true => ungzip(from, dir, ALWAYS_BYTES).map_err(|error| error.context("gzip", from.display())),
            false => unpack(from, dir),
        };
    }
    let failed = |error: io::Error| {
        Error::runtime_failure("the files of the segment cannot be copied")
            .context("directory", from.display())
            .with_source(error)
    };
    let mut copied = 0;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_segment_file(&name) && entry.file_type().map_err(failed)?.is_file() {
            copied += std::fs::copy(entry.path(), dir.join(name)).map_err(failed)?;
        }
    }
    match copied {
        0 => Err(Error::not_found("there are no files of a segment").context("directory", from.display())),
        copied => Ok(copied),
    }
}

/// Whether a file of this name belongs to a segment. None of these names leads out of a directory.
pub fn is_segment_file(name: &str) -> bool {
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
