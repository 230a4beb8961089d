//! Integers: constant, packed by frame of reference with patches, runs, and differences.
//!
//! *Packed* is the usual case. Values are cut in vectors of 1024, each packed in as many bits as most of its values
//! need above a reference that the block shares; the others are patches, written apart. A column that is nearly
//! always one value thus takes no bits but for its patches, and decodes at memory speed like any other.

use fastlanes::{BitPacking, FoR};

use super::Encoding;
use super::bits::{self, width_of};
use super::unpack;
use crate::error::Result;
use crate::segment::wire::{Reader, pad};
use crate::widened::widened;

/// Values are packed by as many as `fastlanes` interleaves.
pub(in crate::segment) const VECTOR: usize = 1024;

/// Positions of patches are counted in stretches of this many rows, so that one byte says where.
const STRETCH: usize = 256;

/// How many values of a block are looked at to choose its reference.
const SAMPLE: usize = 256;

/// What a patch costs to decode, in bytes it would have to save.
const PATCH_PENALTY_BITS: usize = 4;

/// A word that values are packed from: `u32` for codes and counts, `u64` for signed numbers.
pub(in crate::segment) trait Lane: FoR + BitPacking + Copy + Default + Eq {
    const WIDTH: u32;

    /// Zero-extended. For signed numbers the order is turned into that of unsigned ones.
    fn key(self) -> u64;

    fn from_key(key: u64) -> Self;

    fn to_bits(self) -> u64;

    fn from_bits(bits: u64) -> Self;

    fn plus(self, other: Self) -> Self;

    fn minus(self, other: Self) -> Self;

    /// Replaces `out` by the vector that `packed` holds in `width` bits a value, `reference` added to each.
    fn unpack_vector(packed: &[u8], width: u8, reference: Self, out: &mut [Self]);
}

impl Lane for u32 {
    const WIDTH: u32 = 32;

    fn key(self) -> u64 {
        u64::from(self)
    }

    fn from_key(key: u64) -> Self {
        key as u32
    }

    fn to_bits(self) -> u64 {
        u64::from(self)
    }

    fn from_bits(bits: u64) -> Self {
        bits as u32
    }

    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn minus(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }

    fn unpack_vector(packed: &[u8], width: u8, reference: Self, out: &mut [Self]) {
        unpack::unpack_u32(packed, width, reference, out);
    }
}

impl Lane for u64 {
    const WIDTH: u32 = 64;

    fn key(self) -> u64 {
        self ^ (1 << 63)
    }

    fn from_key(key: u64) -> Self {
        key ^ (1 << 63)
    }

    fn to_bits(self) -> u64 {
        self
    }

    fn from_bits(bits: u64) -> Self {
        bits
    }

    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn minus(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }

    fn unpack_vector(packed: &[u8], width: u8, reference: Self, out: &mut [Self]) {
        unpack::unpack_u64(packed, width, reference, out);
    }
}

/// Signed numbers as the words they are packed from.
pub(in crate::segment) fn as_words(values: &[i64]) -> &[u64] {
    // SAFETY: `i64` and `u64` have the same size and alignment, and every bit pattern is a value of both.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// Signed numbers as the words they are unpacked to.
pub(in crate::segment) fn as_words_mut(values: &mut [i64]) -> &mut [u64] {
    // SAFETY: as in `as_words`; the exclusive borrow goes on in the result.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// Rows of whole vectors that hold `count` values: what [`decode`] needs room for.
pub(in crate::segment) fn padded(count: usize) -> usize {
    count.next_multiple_of(VECTOR)
}

/// Appends `values` in the smallest of the encodings; a multiple of eight bytes if `out` was one.
pub(in crate::segment) fn encode<L: Lane>(values: &[L], out: &mut Vec<u8>) {
    let (min, max) = key_range(values);
    if min == max {
        out.extend_from_slice(&[Encoding::Constant as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&L::from_key(min).to_bits().to_le_bytes());
        return;
    }
    let plan = Plan::of(values, min, max);
    let runs = 1 + values.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let run_bytes = 16 + runs * (width_of(max - min) as usize + 4) / 8;
    if runs * 4 <= values.len() && run_bytes * 5 < plan.size_bytes() * 4 {
        put_runs(values, min, max, runs, out);
    } else {
        plan.put(values, out);
    }
}

/// Like [`encode`], but looks also at the differences between neighbours: for times, counters and the like.
pub(in crate::segment) fn encode_with_deltas(values: &[u64], out: &mut Vec<u8>) {
    if values.len() < 3 || !deltas_look_smaller(values) {
        return encode(values, out);
    }
    let start = out.len();
    encode(values, out);
    let first = values[1].wrapping_sub(values[0]);
    let deltas =
        std::iter::once(first).chain(values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]))).collect::<Vec<_>>();
    let mut packed = vec![Encoding::Delta as u8, 0, 0, 0, 0, 0, 0, 0];
    packed.extend_from_slice(&values[0].to_le_bytes());
    encode(&deltas, &mut packed);
    // Differences are dearer to decode, so they must save something.
    if packed.len() * 8 < (out.len() - start) * 7 {
        out.truncate(start);
        out.append(&mut packed);
    }
}

/// Looks at a few stretches of neighbours.
fn deltas_look_smaller(values: &[u64]) -> bool {
    let mut widths = (0u64, 0u64);
    let (min, _) = key_range(values);
    for stretch in values.chunks(64).step_by((values.len() / 64 / 8).max(1)) {
        for pair in stretch.windows(2) {
            widths.0 += u64::from(width_of(pair[1].key() - min));
            widths.1 += u64::from(width_of((pair[1].wrapping_sub(pair[0]) as i64).unsigned_abs()) + 1);
        }
    }
    widths.1 * 8 < widths.0 * 7
}

fn key_range<L: Lane>(values: &[L]) -> (u64, u64) {
    let Some(first) = values.first() else { return (L::default().key(), L::default().key()) };
    values.iter().fold((first.key(), first.key()), |(min, max), v| (min.min(v.key()), max.max(v.key())))
}

/// How a block will be packed.
struct Plan<L> {
    reference: L,
    minimum: L,
    patch_width: u32,
    widths: Vec<u8>,
    patches: usize,
}

impl<L: Lane> Plan<L> {
    fn of(values: &[L], min: u64, max: u64) -> Self {
        let patch_width = width_of(max - min);
        let reference = choose_reference(values, min, patch_width);
        let patch_bits = 8 + patch_width as usize + PATCH_PENALTY_BITS;
        let (mut widths, mut patches) = (Vec::with_capacity(values.len().div_ceil(VECTOR)), 0);
        for vector in values.chunks(VECTOR) {
            let (width, patched) = choose_width(vector, reference, patch_bits);
            widths.push(width);
            patches += patched;
        }
        Self { reference, minimum: L::from_key(min), patch_width, widths, patches }
    }

    fn size_bytes(&self) -> usize {
        let vectors = self.widths.iter().map(|&width| usize::from(width) * VECTOR / 8).sum::<usize>();
        let patches = self.patches + bits::packed_bytes(self.patches, self.patch_width);
        32 + self.widths.len().next_multiple_of(8) + vectors + patches
    }

    fn put(&self, values: &[L], out: &mut Vec<u8>) {
        out.extend_from_slice(&[Encoding::Packed as u8, self.patch_width as u8, 0, 0]);
        out.extend_from_slice(&(self.patches as u32).to_le_bytes());
        out.extend_from_slice(&self.reference.to_bits().to_le_bytes());
        out.extend_from_slice(&self.minimum.to_bits().to_le_bytes());
        out.extend_from_slice(&self.widths);
        out.resize(out.len() + self.widths.len().next_multiple_of(8) - self.widths.len(), 0);
        for (vector, &width) in values.chunks(VECTOR).zip(&self.widths) {
            put_vector(vector, self.reference, width, out);
        }
        if self.patches > 0 {
            self.put_patches(values, out);
        }
        pad(out);
    }

    fn put_patches(&self, values: &[L], out: &mut Vec<u8>) {
        let mut positions = Vec::with_capacity(self.patches);
        let mut patched = Vec::with_capacity(self.patches);
        for (i, stretch) in values.chunks(STRETCH).enumerate() {
            let width = u32::from(self.widths[i * STRETCH / VECTOR]);
            let before = positions.len();
            for (position, &value) in stretch.iter().enumerate() {
                if width_of(value.minus(self.reference).to_bits()) > width {
                    positions.push(position as u8);
                    patched.push(value.minus(self.minimum).to_bits());
                }
            }
            out.extend_from_slice(&((positions.len() - before) as u16).to_le_bytes());
        }
        out.extend_from_slice(&positions);
        bits::pack(patched, self.patch_width, out);
    }
}

/// The value from which on most others need few bits: the start of the cheapest window over a sorted sample.
fn choose_reference<L: Lane>(values: &[L], min: u64, patch_width: u32) -> L {
    let step = (values.len() / SAMPLE).max(1);
    let mut sample = values.iter().step_by(step).map(|value| value.key() - min).collect::<Vec<_>>();
    sample.sort_unstable();
    let patch_bits = 8 + patch_width as usize + PATCH_PENALTY_BITS;
    let mut best = (sample.len() * patch_width as usize, 0);
    for width in 0..patch_width {
        let span = (1u64 << width) - 1;
        let (mut from, mut most, mut at) = (0, 0, 0);
        for to in 0..sample.len() {
            while sample[to] - sample[from] > span {
                from += 1;
            }
            if to + 1 - from > most {
                (most, at) = (to + 1 - from, from);
            }
        }
        let cost = sample.len() * width as usize + (sample.len() - most) * patch_bits;
        if cost < best.0 {
            // The sample misses values just outside: leave the room there is on both sides.
            let slack = span - (sample[at + most - 1] - sample[at]);
            best = (cost, sample[at].saturating_sub(slack / 2));
        }
    }
    L::from_key(min + best.1)
}

/// The cheapest width of one vector, and how many of its values need a patch then.
fn choose_width<L: Lane>(vector: &[L], reference: L, patch_bits: usize) -> (u8, usize) {
    let mut counts = [0u32; 65];
    for &value in vector {
        counts[width_of(value.minus(reference).to_bits()) as usize] += 1;
    }
    let mut wider = vector.len();
    let mut best = (usize::MAX, 0, 0);
    for (width, &count) in counts.iter().enumerate().take(L::WIDTH as usize + 1) {
        wider -= count as usize;
        let cost = width * VECTOR + wider * patch_bits;
        if cost < best.0 {
            best = (cost, width as u8, wider);
        }
    }
    (best.1, best.2)
}

fn put_vector<L: Lane>(vector: &[L], reference: L, width: u8, out: &mut Vec<u8>) {
    let mut residuals = [L::default(); VECTOR];
    for (residual, &value) in residuals.iter_mut().zip(vector) {
        *residual = value.minus(reference);
    }
    let mut packed = [L::default(); VECTOR];
    let packed = &mut packed[..usize::from(width) * L::LANES];
    // SAFETY: the input has 1024 values and the output 1024 * width / WIDTH words, as the function asks.
    unsafe { L::unchecked_pack(usize::from(width), &residuals, packed) };
    for word in packed {
        out.extend_from_slice(&word.to_bits().to_le_bytes()[..size_of::<L>()]);
    }
}

fn put_runs<L: Lane>(values: &[L], min: u64, max: u64, runs: usize, out: &mut Vec<u8>) {
    let (mut firsts, mut lengths) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
    for run in values.chunk_by(|a, b| a == b) {
        firsts.push(run[0].key() - min);
        lengths.push(run.len() as u64 - 1);
    }
    let value_width = width_of(max - min);
    let length_width = width_of(lengths.iter().copied().max().unwrap_or(0));
    out.extend_from_slice(&[Encoding::Runs as u8, value_width as u8, length_width as u8, 0]);
    out.extend_from_slice(&(runs as u32).to_le_bytes());
    out.extend_from_slice(&L::from_key(min).to_bits().to_le_bytes());
    bits::pack(firsts, value_width, out);
    bits::pack(lengths, length_width, out);
    pad(out);
}

/// Replaces the first `count` of `out` by what [`encode`] wrote. `out` is as long as [`padded`] says; what is beyond
/// `count` is overwritten with anything.
pub(in crate::segment) fn decode<L: Lane>(reader: &mut Reader<'_>, count: usize, out: &mut [L]) -> Result<()> {
    debug_assert_eq!(out.len(), padded(count), "room for whole vectors");
    let start = reader.remaining();
    decode_body(reader, count, out)?;
    reader.skip_padding(start)
}

fn decode_body<L: Lane>(reader: &mut Reader<'_>, count: usize, out: &mut [L]) -> Result<()> {
    match Encoding::from_byte(reader.u8()?) {
        Some(Encoding::Constant) => {
            reader.take(7)?;
            let value = word::<L>(reader)?;
            out[..count].fill(value);
            Ok(())
        }
        Some(Encoding::Packed) => decode_packed(reader, count, out),
        Some(Encoding::Runs) => decode_runs(reader, count, out),
        _ => Err(reader.damaged("has an unknown encoding")),
    }
}

/// Like [`decode`], for what [`encode_with_deltas`] wrote.
pub(in crate::segment) fn decode_with_deltas(reader: &mut Reader<'_>, count: usize, out: &mut [u64]) -> Result<()> {
    let mut ahead = reader.clone();
    if ahead.u8()? != Encoding::Delta as u8 {
        return decode(reader, count, out);
    }
    reader.take(8)?;
    let first = reader.u64()?;
    decode(reader, count, out)?;
    let mut before = first.wrapping_sub(out.first().copied().unwrap_or(0));
    // Of four at a time, so that each four wait for one addition of the four before, not for four.
    let mut fours = out[..count].chunks_exact_mut(4);
    for four in &mut fours {
        let (a, b, c, d) = (four[0], four[1], four[2], four[3]);
        let (ab, cd) = (a.wrapping_add(b), c.wrapping_add(d));
        four[0] = before.wrapping_add(a);
        four[1] = before.wrapping_add(ab);
        four[2] = before.wrapping_add(ab.wrapping_add(c));
        before = before.wrapping_add(ab.wrapping_add(cd));
        four[3] = before;
    }
    for slot in fours.into_remainder() {
        before = before.wrapping_add(*slot);
        *slot = before;
    }
    Ok(())
}

widened! {
    /// The greatest of some codes; 0 of none.
    pub(in crate::segment) fn greatest(codes: &[u32]) -> u32 {
        codes.iter().fold(0, |most, &code| most.max(code))
    }
}

fn word<L: Lane>(reader: &mut Reader<'_>) -> Result<L> {
    let bits = reader.u64()?;
    if L::WIDTH < 64 && bits >> L::WIDTH != 0 {
        return Err(reader.damaged("holds a number beyond its width"));
    }
    Ok(L::from_bits(bits))
}

fn decode_packed<L: Lane>(reader: &mut Reader<'_>, count: usize, out: &mut [L]) -> Result<()> {
    let patch_width = u32::from(reader.u8()?);
    reader.take(2)?;
    let patches = reader.u32()? as usize;
    let (reference, minimum) = (word::<L>(reader)?, word::<L>(reader)?);
    let vectors = count.div_ceil(VECTOR);
    let widths = reader.take(vectors.next_multiple_of(8))?;
    if widths.iter().any(|&width| u32::from(width) > L::WIDTH) || patch_width > L::WIDTH || patches > count {
        return Err(reader.damaged("has a width or count that cannot be"));
    }
    for (vector, &width) in out.chunks_exact_mut(VECTOR).zip(widths) {
        let packed = reader.take(usize::from(width) * VECTOR / 8)?;
        L::unpack_vector(packed, width, reference, vector);
    }
    if patches > 0 {
        patch(reader, count, patches, patch_width, minimum, out)?;
    }
    Ok(())
}

fn patch<L: Lane>(
    reader: &mut Reader<'_>,
    count: usize,
    patches: usize,
    width: u32,
    minimum: L,
    out: &mut [L],
) -> Result<()> {
    let counts = reader.take(count.div_ceil(STRETCH) * 2)?;
    let mut positions = reader.take(patches)?;
    let mut values = bits::unpack(reader, patches, width)?;
    for (stretch, patched) in out[..count].chunks_mut(STRETCH).zip(counts.chunks_exact(2)) {
        let patched = usize::from(u16::from_le_bytes([patched[0], patched[1]]));
        let Some((here, rest)) = positions.split_at_checked(patched) else {
            return Err(reader.damaged("has more patches than it says"));
        };
        positions = rest;
        // Every byte is a place of a whole stretch.
        if let Ok(stretch) = <&mut [L; STRETCH]>::try_from(&mut *stretch) {
            for (&position, value) in here.iter().zip(&mut values) {
                stretch[usize::from(position)] = minimum.plus(L::from_bits(value));
            }
            continue;
        }
        for (&position, value) in here.iter().zip(&mut values) {
            let Some(slot) = stretch.get_mut(usize::from(position)) else {
                return Err(reader.damaged("patches a row that it does not have"));
            };
            *slot = minimum.plus(L::from_bits(value));
        }
    }
    if positions.is_empty() { Ok(()) } else { Err(reader.damaged("has fewer patches than it says")) }
}

fn decode_runs<L: Lane>(reader: &mut Reader<'_>, count: usize, out: &mut [L]) -> Result<()> {
    let (value_width, length_width) = (u32::from(reader.u8()?), u32::from(reader.u8()?));
    reader.take(1)?;
    let runs = reader.u32()? as usize;
    let minimum = word::<L>(reader)?;
    if value_width > L::WIDTH || length_width > 32 || runs > count {
        return Err(reader.damaged("has a width or count that cannot be"));
    }
    let values = bits::unpack(reader, runs, value_width)?;
    let lengths = bits::unpack(reader, runs, length_width)?;
    let mut rest = &mut out[..count];
    for (value, length) in values.zip(lengths) {
        let Some((run, tail)) = rest.split_at_mut_checked(length as usize + 1) else {
            return Err(reader.damaged("has runs of more rows than there are"));
        };
        run.fill(minimum.plus(L::from_bits(value)));
        rest = tail;
    }
    if rest.is_empty() { Ok(()) } else { Err(reader.damaged("has runs of fewer rows than there are")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<L: Lane + std::fmt::Debug>(values: &[L]) -> usize {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        assert_eq!(bytes.len() % 8, 0);
        let mut out = vec![L::default(); padded(values.len())];
        let mut reader = Reader::new(&bytes, "test");
        decode(&mut reader, values.len(), &mut out).unwrap();
        reader.finish().unwrap();
        assert_eq!(&out[..values.len()], values);
        // The same bytes, but where words are not aligned.
        let shifted = std::iter::once(0).chain(bytes.iter().copied()).collect::<Vec<_>>();
        decode(&mut Reader::new(&shifted[1..], "test"), values.len(), &mut out).unwrap();
        assert_eq!(&out[..values.len()], values);
        bytes.len()
    }

    fn round_trip_deltas(values: &[i64]) -> usize {
        let mut bytes = Vec::new();
        encode_with_deltas(as_words(values), &mut bytes);
        let mut out = vec![0; padded(values.len())];
        decode_with_deltas(&mut Reader::new(&bytes, "test"), values.len(), as_words_mut(&mut out)).unwrap();
        assert_eq!(&out[..values.len()], values);
        bytes.len()
    }

    #[test]
    fn a_column_that_is_nearly_always_one_value_takes_next_to_nothing() {
        let values = (0..8192u32).map(|i| if i % 20 == 7 { i } else { 4711 }).collect::<Vec<_>>();
        let size = round_trip(&values);
        assert!(size < 410 * 3 + 200, "{size}");
    }

    #[test]
    fn outliers_on_both_sides_do_not_widen_the_rest() {
        let values = (0..8192i64)
            .map(|i| match i % 100 {
                3 => i64::MIN + i,
                5 => i64::MAX - i,
                _ => i % 16 - 8,
            })
            .collect::<Vec<_>>();
        let size = round_trip(as_words(&values));
        assert!(size < 8192 / 2 + 164 * 9 + 200, "{size}");
    }

    #[test]
    fn times_are_kept_as_differences() {
        let values = (0..8192i64).map(|i| 1_400_000_000_000 + i * 500 + (i * i) % 300).collect::<Vec<_>>();
        let size = round_trip_deltas(&values);
        assert!(size < 8192 * 11 / 8, "{size}");
    }

    #[test]
    fn sorted_dimensions_are_kept_as_runs() {
        let values = (0..8192u32).map(|i| i / 700 * 31).collect::<Vec<_>>();
        let size = round_trip(&values);
        assert!(size <= 64, "{size}");
    }

    #[test]
    fn any_number_of_values_reads_back() {
        for count in [0, 1, 2, 255, 256, 257, 1023, 1024, 1025, 8191, 8192, 8193, 20_000] {
            round_trip(&(0..count).map(|i: u32| i.wrapping_mul(2_654_435_761) >> 7).collect::<Vec<_>>());
            round_trip_deltas(&(0..count).map(|i| i64::from(i) * 977).collect::<Vec<_>>());
        }
    }

    fn longs() -> impl Strategy<Value = Vec<i64>> {
        let value = prop_oneof![
            5 => -100i64..100,
            1 => any::<i64>(),
            1 => Just(i64::MIN),
            1 => Just(i64::MAX),
            2 => 1_400_000_000_000i64..1_400_000_100_000,
        ];
        prop::collection::vec(value, 0..3000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn longs_read_back(values in longs(), sort in any::<bool>()) {
            let mut values = values;
            if sort {
                values.sort_unstable();
            }
            round_trip(as_words(&values));
            round_trip_deltas(&values);
        }

        #[test]
        fn codes_read_back(values in prop::collection::vec(prop_oneof![3 => 0u32..3, 1 => any::<u32>()], 0..3000)) {
            round_trip(&values);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0u8..5, count in 0usize..3000) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let mut out = vec![0u32; padded(count)];
            let _ = decode(&mut Reader::new(&bytes, "test"), count, &mut out);
            let mut out = vec![0u64; padded(count)];
            let _ = decode_with_deltas(&mut Reader::new(&bytes, "test"), count, &mut out);
        }
    }
}
