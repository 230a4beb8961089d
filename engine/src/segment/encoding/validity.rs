//! Which rows of a block are null: not said at all, a bitmap, or a list of the rarer kind.

use arrow::buffer::{BooleanBuffer, MutableBuffer};
use arrow::util::bit_util;

use crate::error::Result;
use crate::segment::wire::{Reader, pad};

const ALL_VALID: u8 = 0;
const BITMAP: u8 = 1;
const NULL_ROWS: u8 = 2;
const VALID_ROWS: u8 = 3;

/// Appends what [`decode`] reads; a multiple of eight bytes if `out` was one.
pub(in crate::segment) fn encode(validity: Option<&BooleanBuffer>, out: &mut Vec<u8>) {
    let Some(validity) = validity.filter(|validity| validity.count_set_bits() < validity.len()) else {
        out.extend_from_slice(&[ALL_VALID, 0, 0, 0, 0, 0, 0, 0]);
        return;
    };
    let valid = validity.count_set_bits();
    let nulls = validity.len() - valid;
    let bitmap_bytes = validity.len().div_ceil(8);
    let kind = match valid.min(nulls) * 2 {
        listed if listed >= bitmap_bytes => BITMAP,
        _ if valid < nulls => VALID_ROWS,
        _ => NULL_ROWS,
    };
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&(if kind == VALID_ROWS { valid } else { nulls } as u32).to_le_bytes());
    match kind {
        BITMAP => out.extend_from_slice(&validity.sliced().as_slice()[..bitmap_bytes]),
        VALID_ROWS => validity.set_indices().for_each(|row| out.extend_from_slice(&(row as u16).to_le_bytes())),
        _ => (!validity).set_indices().for_each(|row| out.extend_from_slice(&(row as u16).to_le_bytes())),
    }
    pad(out);
}

/// Which of `count` rows are valid; `None` if all are.
pub(in crate::segment) fn decode(reader: &mut Reader<'_>, count: usize) -> Result<Option<BooleanBuffer>> {
    let kind = reader.u8()?;
    reader.take(3)?;
    let listed = reader.u32()? as usize;
    match kind {
        ALL_VALID => Ok(None),
        BITMAP => {
            let bytes = count.div_ceil(8);
            let mut bits = MutableBuffer::from(reader.take(bytes)?.to_vec());
            reader.take(bytes.next_multiple_of(8) - bytes)?;
            bits.resize(bytes.next_multiple_of(8), 0);
            Ok(Some(BooleanBuffer::new(bits.into(), 0, count)))
        }
        NULL_ROWS | VALID_ROWS => {
            let mut bits = vec![if kind == NULL_ROWS { 0xff } else { 0 }; count.div_ceil(8)];
            let bytes = listed.saturating_mul(2);
            for row in reader.take(bytes)?.chunks_exact(2) {
                let row = usize::from(u16::from_le_bytes([row[0], row[1]]));
                if row >= count {
                    return Err(reader.damaged("lists a null that it does not have"));
                }
                if kind == NULL_ROWS {
                    bit_util::unset_bit(&mut bits, row);
                } else {
                    bit_util::set_bit(&mut bits, row);
                }
            }
            reader.take(bytes.next_multiple_of(8) - bytes)?;
            Ok(Some(BooleanBuffer::new(bits.into(), 0, count)))
        }
        _ => Err(reader.damaged("has an unknown way of telling nulls")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(validity: &BooleanBuffer) -> usize {
        let mut bytes = Vec::new();
        encode(Some(validity), &mut bytes);
        assert_eq!(bytes.len() % 8, 0);
        let mut reader = Reader::new(&bytes, "test");
        let read = decode(&mut reader, validity.len()).unwrap();
        reader.finish().unwrap();
        assert_eq!(read.unwrap_or_else(|| BooleanBuffer::new_set(validity.len())), *validity);
        bytes.len()
    }

    #[test]
    fn nulls_read_back_however_many_there_are() {
        for count in [1, 7, 8, 9, 8191, 8192] {
            for step in [1, 2, 3, 50, 1000, 10_000] {
                let some = BooleanBuffer::collect_bool(count, |row| row % step == step / 2);
                round_trip(&some);
                round_trip(&!&some);
                round_trip(&some.slice(count / 3, count - count / 3));
            }
        }
        assert!(round_trip(&BooleanBuffer::collect_bool(8192, |row| row == 77)) <= 16);
    }
}
