//! Unpacks vectors in the instructions of the processor at hand: AVX-512 or AVX2 where they are, what `fastlanes`
//! compiles to elsewhere.
//!
//! The layout is that of `fastlanes` (Afroozeh and Boncz, "The FastLanes Compression Layout", VLDB 2023): a vector of 1024
//! values is as many lanes as fit 1024 bits; row after row of the lanes is packed, each lane on its own, and the rows
//! are values in an order that suits all word sizes.

use super::integer::{Lane, VECTOR};

/// Where the values of a row of lanes go.
#[cfg(target_arch = "x86_64")]
const fn place(row: usize) -> usize {
    const ORDER: [usize; 8] = [0, 4, 2, 6, 1, 5, 3, 7];
    ORDER[row / 8] * 16 + row % 8 * 128
}

/// A vector of `width` bits a value into `out`, `reference` added to each.
pub(super) fn unpack_u32(packed: &[u8], width: u8, reference: u32, out: &mut [u32]) {
    check(packed, width, 32, out);
    if width == 0 {
        out.fill(reference);
        return;
    }
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature, and the lengths were checked.
            return unsafe { x86::u32_avx512(packed, width, reference, out) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { x86::u32_avx2(packed, width, reference, out) };
        }
    }
    plainly(packed, width, reference, out);
}

/// Like [`unpack_u32`].
pub(super) fn unpack_u64(packed: &[u8], width: u8, reference: u64, out: &mut [u64]) {
    check(packed, width, 64, out);
    if width == 0 {
        out.fill(reference);
        return;
    }
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature, and the lengths were checked.
            return unsafe { x86::u64_avx512(packed, width, reference, out) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { x86::u64_avx2(packed, width, reference, out) };
        }
    }
    plainly(packed, width, reference, out);
}

fn check<L>(packed: &[u8], width: u8, most: u8, out: &[L]) {
    let fits = width <= most && packed.len() == usize::from(width) * VECTOR / 8 && out.len() == VECTOR;
    assert!(fits, "whole vectors");
}

fn plainly<L: Lane>(packed: &[u8], width: u8, reference: L, out: &mut [L]) {
    // SAFETY: every bit pattern is a `u32` and a `u64`.
    let (before, words, after) = unsafe { packed.align_to::<L>() };
    if before.is_empty() && after.is_empty() {
        // SAFETY: the lengths are as the function asks: 1024 * width / WIDTH words in, 1024 out.
        unsafe { L::unchecked_unfor_pack(usize::from(width), words, reference, out) };
        return;
    }
    // Bytes that did not come from a mapped file may lie anywhere.
    let mut words = [L::default(); VECTOR];
    let words = &mut words[..usize::from(width) * L::LANES];
    // SAFETY: both hold `width * 128` bytes, do not overlap, and any bytes make words.
    unsafe { std::ptr::copy_nonoverlapping(packed.as_ptr(), words.as_mut_ptr().cast::<u8>(), packed.len()) };
    // SAFETY: as above.
    unsafe { L::unchecked_unfor_pack(usize::from(width), words, reference, out) };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_cvtsi32_si128, _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256, _mm256_loadu_si256,
        _mm256_or_si256, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_sll_epi32, _mm256_sll_epi64, _mm256_srl_epi32,
        _mm256_srl_epi64, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512,
        _mm512_loadu_si512, _mm512_or_si512, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_sll_epi32, _mm512_sll_epi64,
        _mm512_srl_epi32, _mm512_srl_epi64, _mm512_storeu_si512,
    };

    use super::place;

    // One function a word and an instruction set. A value may begin in one word of its lane and end in the next. Both are
    // always read, the last one twice rather than one too many: the bits that do not belong are above the value's and masked away, and
    // a shift by all bits gives zero.
    //
    // SAFETY of all: the callers checked that `packed` has `width` words for each lane, all lanes together 128 bytes, and
    // `out` 1024 words; rows, lanes and places stay within.
    macro_rules! unpack {
        ($name:ident, $feature:literal, $word:ty, $signed:ty, $vector:ty, $load:ident, $store:ident, $set:ident, $srl:ident,
         $sll:ident, $or:ident, $and:ident, $add:ident) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(packed: &[u8], width: u8, reference: $word, out: &mut [$word]) {
                const BITS: usize = <$word>::BITS as usize;
                const PER_VECTOR: usize = size_of::<$vector>() / size_of::<$word>();
                const VECTORS: usize = 128 / size_of::<$vector>();
                let width = usize::from(width);
                let mask = $set((<$word>::MAX >> (BITS - width)) as $signed);
                let references = $set(reference as $signed);
                for row in 0..BITS {
                    let (word, shift) = (row * width / BITS, row * width % BITS);
                    let next = (word + 1).min(width - 1);
                    let down = _mm_cvtsi32_si128(shift as i32);
                    let up = _mm_cvtsi32_si128((BITS - shift) as i32);
                    for vector in 0..VECTORS {
                        let offset = vector * size_of::<$vector>();
                        // SAFETY: see above.
                        let low = unsafe { $load(packed.as_ptr().add(word * 128 + offset).cast::<$vector>()) };
                        // SAFETY: see above.
                        let high = unsafe { $load(packed.as_ptr().add(next * 128 + offset).cast::<$vector>()) };
                        let value = $and($or($srl(low, down), $sll(high, up)), mask);
                        let at = place(row) + vector * PER_VECTOR;
                        // SAFETY: see above.
                        unsafe { $store(out.as_mut_ptr().add(at).cast::<$vector>(), $add(value, references)) };
                    }
                }
            }
        };
    }

    unpack!(
        u32_avx512,
        "avx512f",
        u32,
        i32,
        __m512i,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_set1_epi32,
        _mm512_srl_epi32,
        _mm512_sll_epi32,
        _mm512_or_si512,
        _mm512_and_si512,
        _mm512_add_epi32
    );
    unpack!(
        u64_avx512,
        "avx512f",
        u64,
        i64,
        __m512i,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_set1_epi64,
        _mm512_srl_epi64,
        _mm512_sll_epi64,
        _mm512_or_si512,
        _mm512_and_si512,
        _mm512_add_epi64
    );
    unpack!(
        u32_avx2,
        "avx2",
        u32,
        i32,
        __m256i,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_set1_epi32,
        _mm256_srl_epi32,
        _mm256_sll_epi32,
        _mm256_or_si256,
        _mm256_and_si256,
        _mm256_add_epi32
    );
    unpack!(
        u64_avx2,
        "avx2",
        u64,
        i64,
        __m256i,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_set1_epi64x,
        _mm256_srl_epi64,
        _mm256_sll_epi64,
        _mm256_or_si256,
        _mm256_and_si256,
        _mm256_add_epi64
    );
}

#[cfg(test)]
mod tests {
    use fastlanes::BitPacking;

    use super::*;

    type Way<L> = fn(&[u8], u8, L, &mut [L]);

    fn bytes<L: Lane>(words: &[L]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_bits().to_le_bytes()[..size_of::<L>()].to_vec()).collect()
    }

    /// Every way to unpack gives back what `fastlanes` packed, at every width.
    fn all_widths<L: Lane + BitPacking + std::fmt::Debug>(ways: &[Way<L>]) {
        for width in 0..=L::WIDTH as u8 {
            let most = if width == 0 { 0 } else { u64::MAX >> (64 - u32::from(width)) };
            let value = |i: u64| L::from_bits(i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) & most);
            let values = (0..VECTOR as u64).map(value).collect::<Vec<_>>();
            let mut words = vec![L::default(); usize::from(width) * L::LANES];
            // SAFETY: the lengths are as the function asks.
            unsafe { L::unchecked_pack(usize::from(width), &values, &mut words) };
            let reference = L::from_bits(L::from_bits(u64::MAX >> (64 - L::WIDTH)).to_bits() - 4711);
            let expected = values.iter().map(|value| value.plus(reference)).collect::<Vec<_>>();
            let packed = bytes(&words);
            for way in ways {
                let mut out = vec![L::default(); VECTOR];
                way(&packed, width, reference, &mut out);
                assert_eq!(out, expected, "{width} bits");
                // The same bytes, but where words are not aligned.
                let shifted = std::iter::once(0).chain(packed.iter().copied()).collect::<Vec<_>>();
                way(&shifted[1..], width, reference, &mut out);
                assert_eq!(out, expected, "{width} bits, not aligned");
            }
        }
    }

    #[test]
    fn every_form_unpacks_the_same() {
        let mut narrow: Vec<Way<u32>> = vec![unpack_u32, plainly];
        let mut wide: Vec<Way<u64>> = vec![unpack_u64, plainly];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            narrow.push(|packed, width, reference, out| match width {
                0 => plainly(packed, width, reference, out),
                // SAFETY: the processor has the feature, and the lengths are right.
                _ => unsafe { x86::u32_avx2(packed, width, reference, out) },
            });
            wide.push(|packed, width, reference, out| match width {
                0 => plainly(packed, width, reference, out),
                // SAFETY: as above.
                _ => unsafe { x86::u64_avx2(packed, width, reference, out) },
            });
        }
        all_widths(&narrow);
        all_widths(&wide);
    }
}
