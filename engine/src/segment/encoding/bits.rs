//! Numbers of a fixed width packed one after the other, lowest bit first. For the few values that do not fill vectors.

use crate::error::Result;
use crate::segment::wire::Reader;

/// How many bits `value` needs; none for zero.
pub(in crate::segment) fn width_of(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Bytes that `count` numbers of `width` bits take.
pub(in crate::segment) fn packed_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends `values`, each below `2^width`.
pub(in crate::segment) fn pack(values: impl IntoIterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut word, mut filled) = (0u128, 0);
    for value in values {
        word |= u128::from(value) << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&(word as u64).to_le_bytes());
            word >>= 64;
            filled -= 64;
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Takes `count` numbers of `width` bits, at most 64.
pub(in crate::segment) fn unpack<'a>(
    reader: &mut Reader<'a>,
    count: usize,
    width: u32,
) -> Result<impl Iterator<Item = u64> + use<'a>> {
    if width > 64 || count > u32::MAX as usize {
        return Err(reader.damaged("holds numbers wider than 64 bits"));
    }
    let bytes = reader.take(packed_bytes(count, width))?;
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    Ok((0..count).map(move |i| {
        let bit = i * width as usize;
        // Eight bytes hold a value of so few bits wherever it begins, and there mostly are eight.
        match bytes.get(bit / 8..).and_then(|rest| rest.first_chunk()) {
            Some(chunk) if width <= NARROW => u64::from_le_bytes(*chunk) >> (bit % 8) & mask,
            _ => (window(bytes, bit / 8) >> (bit % 8)) as u64 & mask,
        }
    }))
}

/// Numbers of at most so many bits never reach into a ninth byte.
const NARROW: u32 = 57;

/// Sixteen bytes from `at` on, with zeros after the end.
fn window(bytes: &[u8], at: usize) -> u128 {
    let tail = &bytes[at.min(bytes.len())..];
    match tail.first_chunk() {
        Some(chunk) => u128::from_le_bytes(*chunk),
        None => {
            let mut chunk = [0; 16];
            chunk[..tail.len()].copy_from_slice(tail);
            u128::from_le_bytes(chunk)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_read_back() {
        for width in 0..=64u32 {
            let mask = if width == 64 { u64::MAX } else { (1u64 << width) - 1 };
            let values = (0..77u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect::<Vec<_>>();
            let mut bytes = Vec::new();
            pack(values.iter().copied(), width, &mut bytes);
            assert_eq!(bytes.len(), packed_bytes(values.len(), width));
            let mut reader = Reader::new(&bytes, "test");
            assert_eq!(unpack(&mut reader, values.len(), width).unwrap().collect::<Vec<_>>(), values);
            reader.finish().unwrap();
        }
    }
}
