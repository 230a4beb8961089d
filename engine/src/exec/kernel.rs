//! Inner loops in the instructions of the processor at hand: AVX-512 or AVX2 where they are, plain Rust elsewhere.

/// Sets a bit for each code that lies in `start..start + len`, 64 codes a word; `bits` has a word for each 64 codes,
/// all zero. Returns how many bits it set that were not.
pub(super) fn mark_range(codes: &[u32], start: u32, len: u32, bits: &mut [u64]) -> usize {
    if len == 0 {
        return 0;
    }
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature.
            return unsafe { x86::mark_range_avx512(codes, start, len, bits) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the feature.
            return unsafe { x86::mark_range_avx2(codes, start, len, bits) };
        }
    }
    mark_range_plainly(codes, start, len, bits)
}

fn mark_range_plainly(codes: &[u32], start: u32, len: u32, bits: &mut [u64]) -> usize {
    let mut marked = 0;
    for (word, codes) in bits.iter_mut().zip(codes.chunks(64)) {
        let before = word.count_ones();
        for (i, code) in codes.iter().enumerate() {
            *word |= u64::from(code.wrapping_sub(start) < len) << i;
        }
        marked += (word.count_ones() - before) as usize;
    }
    marked
}

/// The places of the set bits, ascending, into `rows`.
pub(super) fn places(bits: &[u64], rows: &mut Vec<u32>) {
    rows.clear();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the feature.
        unsafe { x86::places_avx512(bits, rows) };
        return;
    }
    for (word, base) in bits.iter().zip((0_u32..).step_by(64)) {
        let mut left = *word;
        while left != 0 {
            rows.push(base + left.trailing_zeros());
            left &= left - 1;
        }
    }
}

/// The sum of the values whose bit is set, which is known to fit; there is no bit for what is not a value.
pub(super) fn sum_marked(values: &[i64], bits: &[u64]) -> i64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the feature.
        return unsafe { x86::sum_marked_avx512(values, bits) };
    }
    sum_marked_plainly(values, bits)
}

fn sum_marked_plainly(values: &[i64], bits: &[u64]) -> i64 {
    let mut sum = 0_i64;
    for (word, values) in bits.iter().zip(values.chunks(64)) {
        let mut left = *word;
        while left != 0 {
            sum = sum.wrapping_add(values[left.trailing_zeros() as usize]);
            left &= left - 1;
        }
    }
    sum
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_loadu_si256, _mm256_min_epu32, _mm256_movemask_ps,
        _mm256_set1_epi32, _mm256_sub_epi32, _mm512_add_epi32, _mm512_add_epi64, _mm512_cmplt_epu32_mask,
        _mm512_loadu_si512, _mm512_mask_add_epi64, _mm512_maskz_compress_epi32, _mm512_reduce_add_epi64,
        _mm512_set1_epi32, _mm512_setr_epi32, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_sub_epi32,
    };

    use super::{mark_range_plainly, sum_marked_plainly};

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_marked_avx512(values: &[i64], bits: &[u64]) -> i64 {
        let whole = values.len() / 64;
        let mut sums = [_mm512_setzero_si512(); 2];
        for (word, values) in bits.iter().zip(values.chunks_exact(64)) {
            if *word == 0 {
                continue;
            }
            for (i, lane) in values.chunks_exact(8).enumerate() {
                // SAFETY: the lane has eight values.
                let values = unsafe { _mm512_loadu_si512(lane.as_ptr().cast()) };
                let sum = &mut sums[i % 2];
                *sum = _mm512_mask_add_epi64(*sum, (word >> (i * 8)) as u8, *sum, values);
            }
        }
        let rest = sum_marked_plainly(&values[whole * 64..], bits.get(whole..).unwrap_or_default());
        let [even, odd] = sums;
        rest.wrapping_add(_mm512_reduce_add_epi64(_mm512_add_epi64(even, odd)))
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn mark_range_avx512(codes: &[u32], start: u32, len: u32, bits: &mut [u64]) -> usize {
        let (starts, lens) = (_mm512_set1_epi32(start as i32), _mm512_set1_epi32(len as i32));
        let mut marked = 0;
        let whole = codes.len() / 64;
        for (word, codes) in bits.iter_mut().zip(codes.chunks_exact(64)) {
            let mut found = 0;
            for (i, lane) in codes.chunks_exact(16).enumerate() {
                // SAFETY: the lane has 16 codes.
                let values = unsafe { _mm512_loadu_si512(lane.as_ptr().cast()) };
                found |= u64::from(_mm512_cmplt_epu32_mask(_mm512_sub_epi32(values, starts), lens)) << (i * 16);
            }
            marked += (found & !*word).count_ones() as usize;
            *word |= found;
        }
        marked + mark_range_plainly(&codes[whole * 64..], start, len, bits.get_mut(whole..).unwrap_or_default())
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn mark_range_avx2(codes: &[u32], start: u32, len: u32, bits: &mut [u64]) -> usize {
        let (starts, lasts) = (_mm256_set1_epi32(start as i32), _mm256_set1_epi32(len.wrapping_sub(1) as i32));
        let mut marked = 0;
        let whole = codes.len() / 64;
        for (word, codes) in bits.iter_mut().zip(codes.chunks_exact(64)) {
            let mut found = 0;
            for (i, lane) in codes.chunks_exact(8).enumerate() {
                // SAFETY: the lane has eight codes; the load may be unaligned.
                let values = unsafe { _mm256_loadu_si256(lane.as_ptr().cast::<__m256i>()) };
                let values = _mm256_sub_epi32(values, starts);
                let within = _mm256_cmpeq_epi32(_mm256_min_epu32(values, lasts), values);
                found |= u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(within)) as u8) << (i * 8);
            }
            marked += (found & !*word).count_ones() as usize;
            *word |= found;
        }
        marked + mark_range_plainly(&codes[whole * 64..], start, len, bits.get_mut(whole..).unwrap_or_default())
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn places_avx512(bits: &[u64], rows: &mut Vec<u32>) {
        // Sixteen more than there are: a store is of that many, of which those after the last are not counted.
        let count: usize = bits.iter().map(|word| word.count_ones() as usize).sum();
        rows.reserve(count + 16);
        let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut at = 0;
        for (word, base) in bits.iter().zip((0_i32..).step_by(64)) {
            for i in 0..4 {
                let mask = (word >> (i * 16)) as u16;
                if mask == 0 {
                    continue;
                }
                let places = _mm512_add_epi32(lane, _mm512_set1_epi32(base + i * 16));
                // In two steps: storing some lanes only is done in microcode by AMD's processors (Zen 4), and took
                // nearly half of a filtered sum's time.
                let packed = _mm512_maskz_compress_epi32(mask, places);
                // SAFETY: room for `count + 16` was reserved, and `at` is at most `count` less the bits of this mask.
                unsafe { _mm512_storeu_si512(rows.as_mut_ptr().add(at).cast(), packed) };
                at += mask.count_ones() as usize;
            }
        }
        // SAFETY: as many were written.
        unsafe { rows.set_len(at) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_marks_the_same_codes_and_finds_the_same_places() {
        for count in [0, 1, 15, 63, 64, 65, 200, 8192] {
            let codes: Vec<u32> = (0..count).map(|i: u32| i.wrapping_mul(2_654_435_761) >> 24).collect();
            for (start, len) in [(0, 1), (7, 0), (100, 57), (255, 1), (0, u32::MAX), (200, 1000)] {
                let words = codes.len().div_ceil(64);
                let (mut fast, mut plain) = (vec![0; words], vec![0; words]);
                let marked = mark_range(&codes, start, len, &mut fast);
                assert_eq!(mark_range_plainly(&codes, start, len, &mut plain), marked);
                assert_eq!(fast, plain, "{count} codes, {start}+{len}");
                let mut rows = vec![1, 2, 3];
                places(&fast, &mut rows);
                let expected = (0..count).filter(|&i| codes[i as usize].wrapping_sub(start) < len);
                assert_eq!(rows, expected.collect::<Vec<_>>());
                assert_eq!(mark_range(&codes, start, len, &mut fast), 0, "nothing is marked twice");
                let values: Vec<i64> = codes.iter().map(|&code| i64::from(code) * 1_000_003 - 77_000_000).collect();
                let expected = rows.iter().map(|&row| values[row as usize]).sum::<i64>();
                assert_eq!(sum_marked(&values, &fast), expected);
                assert_eq!(sum_marked_plainly(&values, &fast), expected);
            }
        }
    }
}
