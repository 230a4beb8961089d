use std::io;
use std::path::Path;

const MAGIC: &[u8; 8] = b"HENGELG1";
/// Of a header, before its preamble.
pub(super) const HEADER_BYTES: usize = 24;
/// Of a frame, before its entries.
pub(super) const FRAME_BYTES: usize = 20;
/// A longer frame, or preamble, is not written and not read.
pub(super) const MAX_FRAME_BYTES: usize = 1 << 30;

/// The ending of a file that has no name yet.
pub(super) const BEGUN: &str = "begun";

pub(super) fn file_name(first: u64) -> String {
    format!("{first:016x}.log")
}

/// The first entry of a file, by its name.
pub(super) fn first_of(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".log")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "too many bytes for one frame")
}

pub(super) fn header(first: u64, preamble: &[u8]) -> io::Result<Vec<u8>> {
    let length =
        u32::try_from(preamble.len()).ok().filter(|_| preamble.len() < MAX_FRAME_BYTES).ok_or_else(too_long)?;
    let mut checked = Vec::with_capacity(12 + preamble.len());
    checked.extend_from_slice(&first.to_le_bytes());
    checked.extend_from_slice(&length.to_le_bytes());
    checked.extend_from_slice(preamble);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + preamble.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&checked[..12]);
    bytes.extend_from_slice(&crc_fast::crc32_iscsi(&checked).to_le_bytes());
    bytes.extend_from_slice(preamble);
    Ok(bytes)
}

pub(super) fn frame(first: u64, entries: &[impl AsRef<[u8]>]) -> io::Result<Vec<u8>> {
    let payload = entries.iter().map(|entry| 4 + entry.as_ref().len()).sum::<usize>();
    let length = u32::try_from(12 + payload).ok().filter(|_| payload < MAX_FRAME_BYTES).ok_or_else(too_long)?;
    let count = u32::try_from(entries.len()).map_err(|_| too_long())?;
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    for entry in entries {
        let entry = entry.as_ref();
        bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        bytes.extend_from_slice(entry);
    }
    let checksum = crc_fast::crc32_iscsi(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The preamble of a file that begins with entry `first`; `None` if its header is not whole.
pub(super) fn read_header(bytes: &[u8], first: u64) -> Option<&[u8]> {
    let length = u32_at(bytes, 16)? as usize;
    let preamble = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
    let mut digest = Vec::with_capacity(12 + length);
    digest.extend_from_slice(bytes.get(8..20)?);
    digest.extend_from_slice(preamble);
    let whole =
        bytes.starts_with(MAGIC) && u64_at(bytes, 8)? == first && u32_at(bytes, 20)? == crc_fast::crc32_iscsi(&digest);
    whole.then_some(preamble)
}

/// A frame that was read.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) first: u64,
    pub(super) entries: Vec<&'a [u8]>,
    /// Of the whole frame.
    pub(super) bytes: usize,
}

/// The frame that begins here; `None` if there is no whole one.
pub(super) fn read_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let length = u32_at(bytes, 0)? as usize;
    if !(12..MAX_FRAME_BYTES + 12).contains(&length) {
        return None;
    }
    let checked = bytes.get(8..8 + length)?;
    if u32_at(bytes, 4)? != crc_fast::crc32_iscsi(checked) {
        return None;
    }
    let (first, count) = (u64_at(checked, 0)?, u32_at(checked, 8)?);
    let (mut rest, mut entries) = (&checked[12..], Vec::new());
    for _ in 0..count {
        let length = u32_at(rest, 0)? as usize;
        entries.push(rest.get(4..4 + length)?);
        rest = &rest[4 + length..];
    }
    rest.is_empty().then_some(Frame { first, entries, bytes: 8 + length })
}
