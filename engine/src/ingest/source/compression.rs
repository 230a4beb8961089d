use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// Reads what is compressed with gzip or zstd, told by its first bytes, and anything else as it is.
pub(super) fn decompressed(read: impl Read + Send + 'static, name: &str) -> Result<Box<dyn Read + Send>> {
    let mut read = BufReader::with_capacity(64 * 1024, read);
    let failed = |e| Error::runtime_failure(format!("`{name}` cannot be read")).with_source(e);
    let start = read.fill_buf().map_err(failed)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(read)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(read).map_err(failed)?),
        _ => Box::new(read),
    })
}
