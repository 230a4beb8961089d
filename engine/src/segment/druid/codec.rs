//! How blocks are compressed. A block never decompresses to more than 64 KiB, whatever it claims.

use crate::error::{Error, Result};

/// The greatest block.
pub(super) const BLOCK_BYTES: usize = 65536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Lzf,
    Lz4,
    Zstd,
    /// Blocks of bytes as they are.
    Uncompressed,
    /// No blocks: where numbers are kept, they follow one after the other.
    None,
}

impl Codec {
    pub(super) fn of(id: u8) -> Result<Self> {
        Ok(match id {
            0x00 => Self::Lzf,
            0x01 => Self::Lz4,
            0x02 => Self::Zstd,
            0xff => Self::Uncompressed,
            0xfe => Self::None,
            _ => return Err(Error::unsupported(format!("compression {id:#04x} is not known"))),
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lzf => "LZF",
            Self::Lz4 => "LZ4",
            Self::Zstd => "ZSTD",
            Self::Uncompressed => "uncompressed",
            Self::None => "unblocked",
        }
    }

    pub(super) fn is_compressed(self) -> bool {
        matches!(self, Self::Lzf | Self::Lz4 | Self::Zstd)
    }

    /// Replaces `out`, which never gets longer than [`BLOCK_BYTES`].
    pub(super) fn decompress(self, block: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::corrupt(format!("a block of {} bytes does not decompress with {}", block.len(), self.name()))
                .with_source(error)
        };
        match self {
            Self::Lzf => return lzf(block, out),
            Self::Lz4 => {
                out.resize(BLOCK_BYTES, 0);
                let length = lz4_flex::block::decompress_into(block, out).map_err(|error| failed(error.into()))?;
                out.truncate(length);
            }
            Self::Zstd => {
                out.resize(BLOCK_BYTES, 0);
                let read = zstd::bulk::decompress_to_buffer(block, out.as_mut_slice());
                out.truncate(read.map_err(|error| failed(error.into()))?);
            }
            Self::Uncompressed | Self::None => {
                if block.len() > BLOCK_BYTES {
                    return Err(Error::corrupt("a block is larger than 64 KiB"));
                }
                out.clear();
                out.extend_from_slice(block);
            }
        }
        Ok(())
    }
}

/// A stream of chunks: `ZV`, whether compressed, the lengths, the data.
fn lzf(mut stream: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let damaged = || Error::corrupt("a block does not decompress with LZF");
    out.clear();
    while !stream.is_empty() {
        let (data, length) = match *stream {
            [b'Z', b'V', 0, a, b, ..] => {
                let length = usize::from(u16::from_be_bytes([a, b]));
                let data = stream.get(5..5 + length).ok_or_else(damaged)?;
                out.extend_from_slice(data);
                stream = &stream[5 + length..];
                (&[][..], 0)
            }
            [b'Z', b'V', 1, a, b, c, d, ..] => {
                let stored = usize::from(u16::from_be_bytes([a, b]));
                let data = stream.get(7..7 + stored).ok_or_else(damaged)?;
                stream = &stream[7 + stored..];
                (data, usize::from(u16::from_be_bytes([c, d])))
            }
            _ => return Err(damaged()),
        };
        if out.len() + length > BLOCK_BYTES {
            return Err(Error::corrupt("a block decompresses to more than 64 KiB"));
        }
        lzf_chunk(data, length, out).ok_or_else(damaged)?;
    }
    Ok(())
}

/// Appends exactly `length` bytes, or fails.
fn lzf_chunk(mut data: &[u8], length: usize, out: &mut Vec<u8>) -> Option<()> {
    let end = out.len() + length;
    // A reference reaches back within its own chunk only.
    let start = out.len();
    while let Some((&control, rest)) = data.split_first() {
        if control < 32 {
            let (literal, rest) = rest.split_at_checked(usize::from(control) + 1)?;
            out.extend_from_slice(literal);
            data = rest;
        } else {
            let (more, rest) = if control >> 5 == 7 { rest.split_first().map(|(m, r)| (*m, r))? } else { (0, rest) };
            let (&low, rest) = rest.split_first()?;
            let distance = (usize::from(control & 31) << 8 | usize::from(low)) + 1;
            let count = usize::from(control >> 5) + usize::from(more) + 2;
            let from = out.len().checked_sub(distance).filter(|from| *from >= start)?;
            if out.len() + count > end {
                return None;
            }
            // Byte by byte: what is copied may reach into what is being written.
            for at in from..from + count {
                out.push(out[at]);
            }
            data = rest;
        }
        if out.len() > end {
            return None;
        }
    }
    (out.len() == end).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lzf_copies_what_it_is_writing() {
        let mut out = Vec::new();
        // Two literals, then seven bytes from two back.
        lzf(&[b'Z', b'V', 1, 0, 5, 0, 9, 1, b'a', b'b', 0xa0, 1], &mut out).unwrap();
        assert_eq!(out, b"ababababa");
        lzf(&[b'Z', b'V', 0, 0, 2, b'x', b'y', b'Z', b'V', 1, 0, 2, 0, 1, 0, b'z'], &mut out).unwrap();
        assert_eq!(out, b"xyz");
    }

    #[test]
    fn lzf_that_lies_is_refused() {
        let mut out = Vec::new();
        // Too long a chunk, a reference before the start, a length that differs, a torn chunk, no chunk at all.
        for bad in [
            &[b'Z', b'V', 0, 0, 9, b'x'][..],
            &[b'Z', b'V', 1, 0, 3, 0, 4, 0, b'a', 0x20],
            &[b'Z', b'V', 1, 0, 4, 0, 4, 0, b'a', 0x20, 9],
            &[b'Z', b'V', 1, 0, 2, 0, 2, 0, b'a'],
            &[b'Z', b'V', 1],
            b"no",
        ] {
            assert!(lzf(bad, &mut out).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_block_grows_beyond_64_kib() {
        let zeros = vec![0; BLOCK_BYTES + 1];
        let mut out = Vec::new();
        let lz4 = lz4_flex::block::compress(&zeros);
        assert!(Codec::Lz4.decompress(&lz4, &mut out).is_err());
        let zstd = zstd::bulk::compress(&zeros, 3).unwrap();
        assert!(Codec::Zstd.decompress(&zstd, &mut out).is_err());
        assert!(Codec::Uncompressed.decompress(&zeros, &mut out).is_err());
        for codec in [Codec::Lz4, Codec::Zstd, Codec::Lzf] {
            assert!(codec.decompress(b"\xff\xff\xff\xff", &mut out).is_err() || out.len() <= BLOCK_BYTES, "{codec:?}");
        }
        let lz4 = lz4_flex::block::compress(&zeros[..BLOCK_BYTES]);
        Codec::Lz4.decompress(&lz4, &mut out).unwrap();
        assert_eq!(out.len(), BLOCK_BYTES);
    }
}
