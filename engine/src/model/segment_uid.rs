use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;
use crate::error::{Error, Result};

/// Names the bytes of one segment for ever: never used twice, even after the segment was killed and its
/// [`SegmentId`](super::SegmentId) taken again. A ULID: 48 bits of milliseconds, 80 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentUid(u128);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TEXT_LEN: usize = 26;

impl SegmentUid {
    /// Made of the time and of `random`, of which 80 bits are used. The caller has the clock and the dice.
    pub fn new(now: Timestamp, random: u128) -> Self {
        let millis = u128::from(now.millis().max(0).cast_unsigned() & ((1 << 48) - 1));
        Self(millis << 80 | random & ((1 << 80) - 1))
    }

    /// One of a fixed list of segments that no catalog knows.
    pub fn numbered(number: u32) -> Self {
        Self(u128::from(number))
    }

    /// All of it, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for SegmentUid {
    /// 26 digits of Crockford's base 32, which sort as the uids do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for digit in (0..TEXT_LEN).rev() {
            let value = (self.0 >> (5 * digit)) & 31;
            write!(f, "{}", char::from(ALPHABET[value as usize]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for SegmentUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentUid({self})")
    }
}

impl FromStr for SegmentUid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid_input(format!("`{text}` is not a segment uid of 26 characters"));
        if text.len() != TEXT_LEN || text.as_bytes()[0] > b'7' {
            return Err(wrong());
        }
        text.bytes()
            .try_fold(0_u128, |uid, byte| {
                let value = ALPHABET.iter().position(|digit| *digit == byte).ok_or_else(wrong)?;
                Ok(uid << 5 | value as u128)
            })
            .map(Self)
    }
}

impl Serialize for SegmentUid {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentUid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_and_sorts_by_time() -> Result<()> {
        let early = SegmentUid::new(Timestamp::from_millis(1_375_315_200_000), u128::MAX);
        let late = SegmentUid::new(Timestamp::from_millis(1_375_315_200_001), 0);
        assert_eq!(early.to_string().parse::<SegmentUid>()?, early);
        assert!(early < late && early.to_string() < late.to_string());
        assert!("Z".repeat(26).parse::<SegmentUid>().is_err());
        assert!("é".repeat(13).parse::<SegmentUid>().is_err());
        Ok(())
    }
}
