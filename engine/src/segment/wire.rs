//! Little-endian bytes, read with every length checked: a lying length gives an error, never a panic and never a
//! large allocation.

use crate::error::{Error, Result};

/// Sections, pages and directories begin at multiples of this many bytes, so that packed words can be read in place.
pub(super) const ALIGNMENT: usize = 8;

/// `length` rounded up to the next multiple of [`ALIGNMENT`].
pub(super) fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// Appends zeros up to the next multiple of [`ALIGNMENT`].
pub(super) fn pad(out: &mut Vec<u8>) {
    out.resize(aligned(out.len()), 0);
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A length or count of ours as the 32 bits that the format has for it.
pub(super) fn to_u32(value: usize, what: &str) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::capacity_exceeded(format!("{what} of a segment cannot exceed 2^32")))
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads forward through bytes; `what` names them in errors.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// What is left, all of it.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn damaged(&self, how: &str) -> Error {
        Error::corrupt(format!("{} {how}", self.what))
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.bytes.split_at_checked(length) else {
            return Err(self.damaged("ends too early"));
        };
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((head, tail)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.damaged("ends too early"));
        };
        self.bytes = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A 64-bit length or count that must fit this machine.
    pub(super) fn length(&mut self) -> Result<usize> {
        usize::try_from(self.u64()?).map_err(|_| self.damaged("holds a length beyond this machine"))
    }

    /// A count of records, each of which takes at least `record_bytes` of what is left.
    pub(super) fn count(&mut self, record_bytes: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        if count > self.remaining() / record_bytes.max(1) {
            return Err(self.damaged("claims more records than it has bytes for"));
        }
        Ok(count)
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged("holds a number beyond 64 bits"))
    }

    pub(super) fn varint_length(&mut self) -> Result<usize> {
        usize::try_from(self.varint()?).map_err(|_| self.damaged("holds a length beyond this machine"))
    }

    pub(super) fn string(&mut self) -> Result<&'a str> {
        let length = self.varint_length()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("holds text that is not UTF-8"))
    }

    /// Takes the padding behind something that began when `start` bytes remained.
    pub(super) fn skip_padding(&mut self, start: usize) -> Result<()> {
        let length = start - self.remaining();
        self.take(aligned(length) - length).map(drop)
    }

    /// Fails unless only padding is left.
    pub(super) fn finish_padded(&mut self) -> Result<()> {
        if self.remaining() < ALIGNMENT && self.rest().iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        Err(self.damaged("has bytes left over"))
    }

    /// Fails unless everything was read.
    pub(super) fn finish(&self) -> Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.damaged("has bytes left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_back_as_written() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes, "test");
            assert_eq!(reader.varint().unwrap(), value);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        assert!(Reader::new(&[0xff; 11], "test").varint().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "test").varint().is_err());
    }

    #[test]
    fn a_count_cannot_promise_more_than_there_are_bytes() {
        let bytes = [255, 255, 255, 255, 0, 0];
        assert!(Reader::new(&bytes, "test").count(1).is_err());
    }
}
