//! Bytes of a Druid segment, read forward with every length checked.

use bytes::Bytes;

use crate::error::{Error, Result};

/// In which order the bytes of a number come. Where Druid calls the order "native", a column says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(super) fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }
}

/// Reads forward through bytes; `what` names them in errors. Numbers are big-endian unless an order is given.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    rest: Bytes,
    what: &'static str,
}

impl Cursor {
    pub(super) fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn damaged(&self, how: &str) -> Error {
        Error::corrupt(format!("{} {how}", self.what))
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// What is left, all of it.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// What is left, without taking it.
    pub(super) fn peek(&self) -> &[u8] {
        &self.rest
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.rest.len() {
            return Err(self.damaged("ends too early"));
        }
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(head) = self.rest.first_chunk::<N>().copied() else {
            return Err(self.damaged("ends too early"));
        };
        self.rest = self.rest.slice(N..);
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A length or count: 32 bits, not negative.
    pub(super) fn length(&mut self) -> Result<usize> {
        self.length_in(ByteOrder::Big)
    }

    pub(super) fn length_in(&mut self, order: ByteOrder) -> Result<usize> {
        let length = order.u32(self.array()?).cast_signed();
        usize::try_from(length).map_err(|_| self.damaged("holds a negative length"))
    }

    /// A count of things that take `width` bytes each of what is left.
    pub(super) fn count_in(&mut self, order: ByteOrder, width: usize) -> Result<usize> {
        let count = self.length_in(order)?;
        if count > self.remaining() / width {
            return Err(self.damaged("claims more entries than it has bytes for"));
        }
        Ok(count)
    }

    /// Seven bits a byte, the lowest first; the last byte has its top bit set.
    pub(super) fn vbyte(&mut self) -> Result<usize> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 != 0 {
                let fits = i32::try_from(value).ok().and_then(|value| usize::try_from(value).ok());
                return fits.ok_or_else(|| self.damaged("holds a length beyond 31 bits"));
            }
        }
        Err(self.damaged("holds a length that does not end"))
    }

    /// Bytes behind their length.
    pub(super) fn sized(&mut self) -> Result<Bytes> {
        let length = self.length()?;
        self.take(length)
    }

    /// Text behind its length.
    pub(super) fn text(&mut self) -> Result<String> {
        let bytes = self.sized()?;
        self.utf8(&bytes)
    }

    pub(super) fn utf8(&self, bytes: &[u8]) -> Result<String> {
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|error| self.damaged("holds text that is not UTF-8").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_seven_bits_a_byte_end_with_the_top_bit() {
        let read = |bytes: &'static [u8]| Cursor::new(Bytes::from_static(bytes), "test").vbyte();
        assert_eq!(read(&[0x80]).unwrap(), 0);
        assert_eq!(read(&[0xff]).unwrap(), 127);
        assert_eq!(read(&[0x00, 0x81]).unwrap(), 128);
        assert_eq!(read(&[0x2c, 0x82]).unwrap(), 300);
        assert!(read(&[0; 6]).is_err());
        assert!(read(&[0x7f, 0x7f, 0x7f, 0x7f, 0xff]).is_err());
        assert!(read(&[0x7f]).is_err());
    }

    #[test]
    fn nothing_is_taken_that_is_not_there() {
        let mut cursor = Cursor::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]), "test");
        assert!(cursor.clone().length().is_err());
        assert!(cursor.clone().take(6).is_err());
        assert_eq!((cursor.i32().unwrap(), cursor.remaining()), (-1, 1));
        assert!(cursor.i64().is_err());
    }
}
