//! Longs packed into fewer bits: as differences from a base, or as indices into a table.

use std::ops::Range;

use super::blocks::too_short;
use super::codec::Codec;
use super::cursor::Cursor;
use crate::error::{Error, Result};

/// The greatest table.
const MAX_TABLE: usize = 256;
/// Zero bytes behind packed values.
const PADDING: usize = 4;

/// How the numbers of a list are written.
#[derive(Clone, Debug)]
pub(super) enum Packing {
    /// As they are.
    Plain,
    /// `base` and what is stored, added with wrapping.
    Delta {
        base: i64,
        bits: usize,
    },
    Table {
        values: Vec<i64>,
        bits: usize,
    },
}

/// The codec and the packing of a list of longs, whose second byte may be either. `None` is a list of version 1.
pub(super) fn read_packing(cursor: &mut Cursor, first: Option<u8>) -> Result<(Codec, Packing)> {
    let Some(first) = first else { return Ok((Codec::Lzf, Packing::Plain)) };
    let signed = first.cast_signed();
    if signed >= -2 {
        return Ok((Codec::of(first)?, Packing::Plain));
    }
    let codec = Codec::of(signed.wrapping_add(126).cast_unsigned())?;
    let packing = match cursor.u8()? {
        0xff => Packing::Plain,
        0x00 => {
            expect_version(cursor)?;
            let base = cursor.i64()?;
            Packing::Delta { base, bits: bits(cursor.length()?)? }
        }
        0x01 => {
            expect_version(cursor)?;
            let len = cursor.length()?;
            if len > MAX_TABLE {
                return Err(cursor.damaged("has a table of more than 256 numbers"));
            }
            let values = (0..len).map(|_| cursor.i64()).collect::<Result<Vec<_>>>()?;
            Packing::Table { bits: bits_for(values.len()), values }
        }
        id => return Err(Error::unsupported(format!("encoding {id:#04x} of longs is not known"))),
    };
    Ok((codec, packing))
}

fn expect_version(cursor: &mut Cursor) -> Result<()> {
    match cursor.u8()? {
        1 => Ok(()),
        version => Err(Error::unsupported(format!("version {version} of packed longs is not known, only 1"))),
    }
}

fn bits(bits: usize) -> Result<usize> {
    match bits {
        1 | 2 | 4 | 8 | 12 | 16 | 20 | 24 | 32 | 40 | 48 | 56 | 64 => Ok(bits),
        _ => Err(Error::corrupt(format!("longs are said to be packed into {bits} bits"))),
    }
}

/// The bits that Druid takes for an index into a table.
fn bits_for(len: usize) -> usize {
    match len {
        0..=2 => 1,
        3..=4 => 2,
        5..=16 => 4,
        _ => 8,
    }
}

impl Packing {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Plain => "numbers",
            Self::Delta { .. } => "delta",
            Self::Table { .. } => "table",
        }
    }

    /// Bytes that `len` values take at least.
    pub(super) fn bytes_of(&self, len: usize, width: usize) -> usize {
        match self {
            Self::Plain => len.saturating_mul(width),
            Self::Delta { bits, .. } | Self::Table { bits, .. } => len.saturating_mul(*bits).div_ceil(8),
        }
    }

    /// The same with what is written behind them.
    pub(super) fn stored_bytes_of(&self, len: usize, width: usize) -> usize {
        let padding = if matches!(self, Self::Plain) { 0 } else { PADDING };
        self.bytes_of(len, width).saturating_add(padding)
    }

    /// Appends some of the packed values in `bytes`.
    pub(super) fn append(&self, bytes: &[u8], range: Range<usize>, out: &mut Vec<i64>) -> Result<()> {
        let bits = match self {
            Self::Plain => return Err(Error::defensive("longs that are not packed")),
            Self::Delta { bits, .. } | Self::Table { bits, .. } => *bits,
        };
        if self.bytes_of(range.end, 8) > bytes.len() {
            return Err(too_short());
        }
        for index in range {
            let packed = unpack(bytes, index, bits);
            out.push(match self {
                Self::Table { values, .. } => {
                    let value = usize::try_from(packed).ok().and_then(|packed| values.get(packed));
                    *value.ok_or_else(|| Error::corrupt("a packed long is not in its table"))?
                }
                Self::Delta { base, .. } => base.wrapping_add(packed.cast_signed()),
                Self::Plain => 0,
            });
        }
        Ok(())
    }
}

/// Value `index` of a stream of values of `bits` bits, the most significant bit first.
fn unpack(bytes: &[u8], index: usize, bits: usize) -> u64 {
    let first = index * bits;
    let rest = &bytes[first / 8..];
    let word = match rest.first_chunk::<8>() {
        Some(word) => u64::from_be_bytes(*word),
        None => {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(word)
        }
    };
    // Widths that are no whole bytes begin at half ones at most, and have 20 bits at most.
    word << (first % 8) >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unpacked_most_significant_bit_first() {
        assert_eq!((0..8).map(|i| unpack(&[0b1010_0001], i, 1)).collect::<Vec<_>>(), [1, 0, 1, 0, 0, 0, 0, 1]);
        assert_eq!((0..2).map(|i| unpack(&[0xab, 0xcd, 0xef], i, 12)).collect::<Vec<_>>(), [0xabc, 0xdef]);
        assert_eq!(
            (0..2).map(|i| unpack(&[0xab, 0xcd, 0xef, 0x12, 0x34], i, 20)).collect::<Vec<_>>(),
            [0xabcde, 0xf1234]
        );
        assert_eq!(unpack(&[0xff; 8], 0, 64), u64::MAX);
    }

    #[test]
    fn differences_wrap() {
        let packing = Packing::Delta { base: i64::MAX, bits: 8 };
        let mut out = Vec::new();
        packing.append(&[0, 1], 0..2, &mut out).unwrap();
        assert_eq!(out, [i64::MAX, i64::MIN]);
        assert!(packing.append(&[0, 1], 0..3, &mut out).is_err());
        let table = Packing::Table { values: vec![7], bits: 1 };
        assert!(table.append(&[0x80], 0..1, &mut out).is_err());
    }
}
