//! Bitmap indexes: for each value of a dictionary the rows that have it, as concise or roaring bitmaps.

use roaring::RoaringBitmap;

use super::indexed::Indexed;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BitmapKind {
    Concise,
    Roaring,
}

impl BitmapKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Concise => "concise",
            Self::Roaring => "roaring",
        }
    }

    /// The rows of a bitmap. Fails when one of them is not below `num_rows`.
    pub(super) fn decode(self, bytes: &[u8], num_rows: usize) -> Result<RoaringBitmap> {
        if bytes.is_empty() {
            return Ok(RoaringBitmap::new());
        }
        let rows = match self {
            Self::Concise => concise(bytes, num_rows)?,
            Self::Roaring => RoaringBitmap::deserialize_from(bytes)
                .map_err(|error| Error::corrupt("a roaring bitmap is damaged").with_source(error))?,
        };
        match rows.max() {
            Some(last) if last as usize >= num_rows => Err(beyond(num_rows)),
            _ => Ok(rows),
        }
    }
}

fn beyond(num_rows: usize) -> Error {
    Error::corrupt(format!("a bitmap has rows beyond the segment's {num_rows}"))
}

/// Words of 32 bits, each for one or more blocks of 31 rows.
fn concise(bytes: &[u8], num_rows: usize) -> Result<RoaringBitmap> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Error::corrupt("a concise bitmap does not consist of whole words"));
    }
    let mut rows = RoaringBitmap::new();
    let mut base = 0u64;
    for word in words {
        let word = u32::from_be_bytes(*word);
        if word >> 31 == 1 {
            let mut bits = word & 0x7fff_ffff;
            while bits != 0 {
                rows.insert(row(base + u64::from(bits.trailing_zeros()), num_rows)?);
                bits &= bits - 1;
            }
            base += 31;
            continue;
        }
        let (is_ones, position) = (word >> 30 == 1, u64::from(word >> 25 & 31));
        let end = base + (u64::from(word & 0x01ff_ffff) + 1) * 31;
        if is_ones {
            let last = row(end - 1, num_rows)?;
            rows.insert_range(base as u32..=last);
        }
        if let Some(odd) = position.checked_sub(1) {
            let odd = row(base + odd, num_rows)?;
            if is_ones {
                rows.remove(odd)
            } else {
                rows.insert(odd)
            };
        }
        base = end;
    }
    Ok(rows)
}

/// Nothing is set that the segment does not have, so that a lying fill costs nothing.
fn row(row: u64, num_rows: usize) -> Result<u32> {
    let row = u32::try_from(row).ok().filter(|row| (*row as usize) < num_rows);
    row.ok_or_else(|| beyond(num_rows))
}

/// The bitmaps of a column's values.
#[derive(Debug)]
pub(super) struct Bitmaps {
    list: Indexed,
    kind: BitmapKind,
}

impl Bitmaps {
    /// Fails unless there is one for each of `cardinality` values.
    pub(super) fn new(list: Indexed, kind: BitmapKind, cardinality: usize) -> Result<Self> {
        if list.len() != cardinality {
            return Err(Error::corrupt(format!("there are {} bitmaps for {cardinality} values", list.len())));
        }
        Ok(Self { list, kind })
    }

    pub(super) fn kind(&self) -> BitmapKind {
        self.kind
    }

    /// How many bytes the bitmap of a value has.
    pub(super) fn bytes_of(&self, index: usize) -> Result<usize> {
        Ok(self.list.get(index)?.map_or(0, <[u8]>::len))
    }

    pub(super) fn rows_of(&self, index: usize, num_rows: usize) -> Result<RoaringBitmap> {
        let bytes = self.list.get(index)?.unwrap_or_default();
        self.kind.decode(bytes, num_rows).map_err(|error| error.context("bitmap", index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concise_rows(words: &[u32], num_rows: usize) -> Result<Vec<u32>> {
        let bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        BitmapKind::Concise.decode(&bytes, num_rows).map(|rows| rows.iter().collect())
    }

    #[test]
    fn concise_literals_and_fills_are_read() {
        assert_eq!(concise_rows(&[0x8000_003a], 6).unwrap(), [1, 3, 4, 5]);
        // 62 zeros of which row 2 is set, then a literal.
        assert_eq!(concise_rows(&[3 << 25 | 1, 0x8000_0001], 93).unwrap(), [2, 62]);
        // 62 ones of which row 0 is clear.
        let ones = concise_rows(&[1 << 30 | 1 << 25 | 1], 62).unwrap();
        assert_eq!((ones.len(), ones[0], ones[60]), (61, 1, 61));
        assert_eq!(concise_rows(&[], 6).unwrap(), Vec::<u32>::new());
    }

    #[test]
    fn rows_that_are_not_there_are_refused_before_they_take_memory() {
        assert!(concise_rows(&[0x8000_003a], 5).is_err());
        assert!(concise_rows(&[0x41ff_ffff], 1000).is_err());
        assert!(concise_rows(&[0x01ff_ffff; 1000], 1000).is_ok());
        assert!(BitmapKind::Concise.decode(&[1, 2, 3], 10).is_err());
        assert!(BitmapKind::Roaring.decode(&[1, 2, 3], 10).is_err());
        let mut bytes = Vec::new();
        RoaringBitmap::from_iter([1u32, 7]).serialize_into(&mut bytes).unwrap();
        assert!(BitmapKind::Roaring.decode(&bytes, 7).is_err());
        assert_eq!(BitmapKind::Roaring.decode(&bytes, 8).unwrap().len(), 2);
    }
}
