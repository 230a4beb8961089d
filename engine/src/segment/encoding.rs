//! How the values of one block become bytes and values again. Knows no column, no file and no checksum.
//!
//! Invariants: what is decoded equals what was encoded, bit for bit; decoding any bytes whatever gives values or an
//! error, and never allocates more than the number of values asked for.

pub(super) mod bits;
pub(super) mod float;
pub(super) mod integer;
mod unpack;
pub(super) mod validity;

use std::fmt;

/// What the first byte of a block says about the rest. Numbers are for ever; see `FORMAT.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Encoding {
    Constant = 0,
    Packed = 1,
    Runs = 2,
    Delta = 3,
    Raw = 16,
    Compressed = 17,
    Decimal = 18,
}

impl Encoding {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        use Encoding::{Compressed, Constant, Decimal, Delta, Packed, Raw, Runs};
        [Constant, Packed, Runs, Delta, Raw, Compressed, Decimal].into_iter().find(|encoding| *encoding as u8 == byte)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Packed => "packed",
            Self::Runs => "runs",
            Self::Delta => "delta",
            Self::Raw => "raw",
            Self::Compressed => "compressed",
            Self::Decimal => "decimal",
        })
    }
}
