//! Inner loops of aggregates: the rows of a block into the states of their groups.

use arrow::buffer::NullBuffer;

use crate::exec::kernel;
use crate::widened::widened;

/// To which group each row belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Groups<'a> {
    /// Runs of rows of one group: the group, and where the run ends.
    Runs(&'a [(u32, usize)]),
    /// One a row.
    Each(&'a [u32]),
}

/// Combines each of `others` with the state whose number it has here.
pub(super) fn combine<A: Copy, B: Copy>(states: &mut [A], others: &[B], numbers: &[u32], add: impl Fn(A, B) -> A) {
    for (&number, &other) in numbers.iter().zip(others) {
        let state = &mut states[number as usize];
        *state = add(*state, other);
    }
}

pub(super) fn add_valid(valid: &mut [u64], groups: Groups<'_>, validity: Option<&NullBuffer>) {
    match groups {
        Groups::Runs(runs) => {
            let mut start = 0;
            for &(group, end) in runs {
                let nulls = validity.map_or(0, |validity| validity.slice(start, end - start).null_count());
                valid[group as usize] += (end - start - nulls) as u64;
                start = end;
            }
        }
        Groups::Each(groups) => match validity {
            None => count(valid, Groups::Each(groups)),
            Some(validity) => groups.iter().zip(validity.iter()).for_each(|(&group, is_valid)| {
                valid[group as usize] += u64::from(is_valid);
            }),
        },
    }
}

/// With few groups, neighbouring rows are often of the same one, and each would wait for the one before to be stored:
/// so many tables are filled in turn, and then put together.
const LANES: usize = 4;

/// With more groups than this, it costs more to put the tables together.
const FEW_GROUPS: usize = 512;

/// Counts the rows of each group.
pub(super) fn count(counts: &mut [u64], groups: Groups<'_>) {
    match groups {
        Groups::Runs(runs) => {
            let mut start = 0;
            for &(group, end) in runs {
                counts[group as usize] += (end - start) as u64;
                start = end;
            }
        }
        Groups::Each(groups) => count_those(counts, groups, |_| true),
    }
}

/// Counts the rows of each group whose code is not 0.
pub(super) fn count_codes(counts: &mut [u64], groups: Groups<'_>, codes: &[u32]) {
    match groups {
        Groups::Runs(runs) => {
            let mut start = 0;
            for &(group, end) in runs {
                counts[group as usize] += codes[start..end].iter().map(|&code| u64::from(code != 0)).sum::<u64>();
                start = end;
            }
        }
        Groups::Each(groups) => {
            let mut bits = vec![0; codes.len().div_ceil(64)];
            let not_null = kernel::mark_range(codes, 1, u32::MAX, &mut bits);
            if not_null * FEW_OF > codes.len() {
                let codes = &codes[..groups.len()];
                return count_those(counts, groups, |row| codes[row] != 0);
            }
            let mut rows = Vec::new();
            kernel::places(&bits, &mut rows);
            rows.iter().for_each(|&row| counts[groups[row as usize] as usize] += 1);
        }
    }
}

/// Where at most one in so many rows counts, those are looked for first.
const FEW_OF: usize = 4;

/// Counts the rows of each group for which `counts_in` says so.
fn count_those(counts: &mut [u64], groups: &[u32], counts_in: impl Fn(usize) -> bool) {
    let num_groups = counts.len();
    if num_groups > FEW_GROUPS || groups.len() < num_groups * LANES * 2 {
        for (row, &group) in groups.iter().enumerate() {
            counts[group as usize] += u64::from(counts_in(row));
        }
        return;
    }
    let mut lanes = vec![0_u32; num_groups * LANES];
    let (first, rest) = lanes.split_at_mut(num_groups);
    let (second, rest) = rest.split_at_mut(num_groups);
    let (third, fourth) = rest.split_at_mut(num_groups);
    let mut chunks = groups.chunks_exact(LANES);
    let mut row = 0;
    for chunk in &mut chunks {
        first[chunk[0] as usize] += u32::from(counts_in(row));
        second[chunk[1] as usize] += u32::from(counts_in(row + 1));
        third[chunk[2] as usize] += u32::from(counts_in(row + 2));
        fourth[chunk[3] as usize] += u32::from(counts_in(row + 3));
        row += LANES;
    }
    for &group in chunks.remainder() {
        first[group as usize] += u32::from(counts_in(row));
        row += 1;
    }
    for lane in [first, second, third, fourth] {
        counts.iter_mut().zip(lane).for_each(|(count, lane)| *count += u64::from(*lane));
    }
}

/// Bits of a packed count and sum that are the sum.
const SUM_BITS: u32 = 50;

/// Rows that [`count_and_sum`] takes at once: the count of so many fits in the bits that are left, and if no value is
/// [`SMALL`] or more, their sum in the others.
const MOST_ROWS: usize = 1 << 13;
const SMALL: u64 = 1 << (SUM_BITS - 13);

/// More groups than this are counted and summed apart.
const MOST_GROUPS: usize = 2048;

/// Whether [`count_and_sum`] can be used: for rows of so many groups, with values from `least` to `greatest`.
pub(super) fn fits_one_word(num_groups: usize, num_rows: usize, least: i64, greatest: i64) -> bool {
    num_groups <= MOST_GROUPS && num_rows <= MOST_ROWS && num_rows >= num_groups && greatest.abs_diff(least) < SMALL
}

/// Counts the rows of each group and sums their values, which are `least` or more: both in one word, so that each row
/// is one addition. What [`fits_one_word`] asks must hold.
pub(super) fn count_and_sum(counts: &mut [u64], sums: &mut [i64], groups: &[u32], values: &[i64], least: i64) {
    let num_groups = counts.len();
    let packed = |value: i64| (1 << SUM_BITS) + value.wrapping_sub(least) as u64;
    let lanes_pay = num_groups <= FEW_GROUPS && groups.len() >= num_groups * LANES * 2;
    let mut lanes = vec![0_u64; num_groups * if lanes_pay { LANES } else { 1 }];
    if lanes_pay {
        let (first, rest) = lanes.split_at_mut(num_groups);
        let (second, rest) = rest.split_at_mut(num_groups);
        let (third, fourth) = rest.split_at_mut(num_groups);
        let (mut chunks, mut chunks_of_values) = (groups.chunks_exact(LANES), values.chunks_exact(LANES));
        for (groups, values) in (&mut chunks).zip(&mut chunks_of_values) {
            first[groups[0] as usize] += packed(values[0]);
            second[groups[1] as usize] += packed(values[1]);
            third[groups[2] as usize] += packed(values[2]);
            fourth[groups[3] as usize] += packed(values[3]);
        }
        let rest = chunks.remainder().iter().zip(chunks_of_values.remainder());
        rest.for_each(|(&group, &value)| first[group as usize] += packed(value));
    } else {
        groups.iter().zip(values).for_each(|(&group, &value)| lanes[group as usize] += packed(value));
    }
    for lane in lanes.chunks_exact(num_groups) {
        for ((count, sum), packed) in counts.iter_mut().zip(sums.iter_mut()).zip(lane) {
            let rows = packed >> SUM_BITS;
            *count += rows;
            // The whole is known to fit, its parts need not.
            let others = (packed & ((1 << SUM_BITS) - 1)) as i64;
            *sum = sum.wrapping_add(others).wrapping_add((rows as i64).wrapping_mul(least));
        }
    }
}

/// Values that are looked at together: where none is better than the worst end, none changes anything.
const STRETCH: usize = 32;

/// Puts each valid value in the place of its group's if it is less.
pub(super) fn fold_least(ends: &mut [i64], groups: Groups<'_>, values: &[i64], validity: Option<&NullBuffer>) {
    fold_ends(ends, groups, values, validity, |value, end| value < end, any_less);
}

/// Puts each valid value in the place of its group's if it is greater.
pub(super) fn fold_greatest(ends: &mut [i64], groups: Groups<'_>, values: &[i64], validity: Option<&NullBuffer>) {
    fold_ends(ends, groups, values, validity, |value, end| value > end, any_greater);
}

/// Few values are better, once some have been seen: stretches of which none is are passed over, and a branch that is
/// foreseen costs less than storing each.
fn fold_ends(
    ends: &mut [i64],
    groups: Groups<'_>,
    values: &[i64],
    validity: Option<&NullBuffer>,
    is_better: impl Fn(i64, i64) -> bool,
    any_better: fn(&[i64], i64) -> bool,
) {
    let (Groups::Each(groups), None) = (groups, validity) else {
        return fold(ends, groups, values, validity, |end, value| if is_better(value, end) { value } else { end });
    };
    // Of a group without a row yet it is one that every value is better than.
    let worst = ends.iter().copied().reduce(|worst, end| if is_better(worst, end) { end } else { worst });
    let worst = worst.filter(|_| ends.len() * 4 <= values.len());
    for (groups, values) in groups.chunks(STRETCH).zip(values.chunks(STRETCH)) {
        if worst.is_some_and(|worst| !any_better(values, worst)) {
            continue;
        }
        for (&group, &value) in groups.iter().zip(values) {
            let end = &mut ends[group as usize];
            if is_better(value, *end) {
                *end = value;
            }
        }
    }
}

widened! {
    fn any_less(values: &[i64], bound: i64) -> bool {
        values.iter().fold(false, |any, &value| any | (value < bound))
    }
}

widened! {
    fn any_greater(values: &[i64], bound: i64) -> bool {
        values.iter().fold(false, |any, &value| any | (value > bound))
    }
}

widened! {
    /// The sum of values, which is known to fit.
    fn sum_of(values: &[i64]) -> i64 {
        values.iter().fold(0, |sum, &value| sum.wrapping_add(value))
    }
}

/// Sums each valid value into the state of its group, with tables filled in turn where that pays.
pub(super) fn sum_in_lanes(states: &mut [i64], groups: Groups<'_>, values: &[i64], validity: Option<&NullBuffer>) {
    if let (Groups::Runs(runs), None) = (groups, validity) {
        let mut start = 0;
        for &(group, end) in runs {
            states[group as usize] += sum_of(&values[start..end]);
            start = end;
        }
        return;
    }
    let num_groups = states.len();
    let add = |sum: i64, value: i64| sum + value;
    let (Groups::Each(each), None) = (groups, validity) else { return fold(states, groups, values, validity, add) };
    if num_groups > FEW_GROUPS || each.len() < num_groups * LANES * 2 {
        return fold(states, groups, values, validity, add);
    }
    let mut lanes = vec![0; num_groups * LANES];
    let (first, rest) = lanes.split_at_mut(num_groups);
    let (second, rest) = rest.split_at_mut(num_groups);
    let (third, fourth) = rest.split_at_mut(num_groups);
    let put = |lane: &mut [i64], group: u32, value: i64| {
        let state = &mut lane[group as usize];
        *state = add(*state, value);
    };
    let (mut chunks, mut chunks_of_values) = (each.chunks_exact(LANES), values.chunks_exact(LANES));
    for (groups, values) in (&mut chunks).zip(&mut chunks_of_values) {
        put(first, groups[0], values[0]);
        put(second, groups[1], values[1]);
        put(third, groups[2], values[2]);
        put(fourth, groups[3], values[3]);
    }
    let rest = chunks.remainder().iter().zip(chunks_of_values.remainder());
    rest.for_each(|(&group, &value)| put(first, group, value));
    for lane in [first, second, third, fourth] {
        states.iter_mut().zip(lane).for_each(|(state, lane)| *state = add(*state, *lane));
    }
}

/// Folds each valid value into the state of its group.
pub(super) fn fold<T: Copy, A: Copy>(
    states: &mut [A],
    groups: Groups<'_>,
    values: &[T],
    validity: Option<&NullBuffer>,
    add: impl Fn(A, T) -> A,
) {
    match (groups, validity) {
        (Groups::Runs(runs), None) => {
            let mut start = 0;
            for &(group, end) in runs {
                let state = &mut states[group as usize];
                *state = values[start..end].iter().fold(*state, |state, &value| add(state, value));
                start = end;
            }
        }
        (Groups::Runs(runs), Some(validity)) => {
            let mut start = 0;
            for &(group, end) in runs {
                let state = &mut states[group as usize];
                for (from, to) in validity.slice(start, end - start).valid_slices() {
                    *state = values[start + from..start + to].iter().fold(*state, |state, &value| add(state, value));
                }
                start = end;
            }
        }
        (Groups::Each(groups), None) => {
            for (&group, &value) in groups.iter().zip(values) {
                let state = &mut states[group as usize];
                *state = add(*state, value);
            }
        }
        (Groups::Each(groups), Some(validity)) => {
            for row in validity.valid_indices() {
                let state = &mut states[groups[row] as usize];
                *state = add(*state, values[row]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_and_summing_in_one_word_is_what_it_is_apart() {
        for (num_groups, num_rows) in
            [(1, 1), (1, MOST_ROWS), (51, MOST_ROWS), (51, 52), (700, MOST_ROWS), (2048, 3000)]
        {
            for (least, span) in [(0, 1), (-5, 11), (i64::MIN, SMALL), (i64::MAX - 4711, 4711), (-(1 << 36), SMALL)] {
                let groups = (0..num_rows as u32).map(|i| i * i % num_groups as u32).collect::<Vec<_>>();
                let values =
                    (0..num_rows as u64).map(|i| least.wrapping_add((i.wrapping_mul(i << 33 | 7) % span) as i64));
                let values = values.collect::<Vec<_>>();
                let greatest = least.wrapping_add((span - 1) as i64);
                assert!(fits_one_word(num_groups, num_rows, least, greatest));
                let (mut counts, mut sums) = (vec![7; num_groups], vec![-1_i64; num_groups]);
                let (mut expected_counts, mut expected_sums) = (counts.clone(), sums.clone());
                count_and_sum(&mut counts, &mut sums, &groups, &values, least);
                count(&mut expected_counts, Groups::Each(&groups));
                fold(&mut expected_sums, Groups::Each(&groups), &values, None, i64::wrapping_add);
                assert_eq!((counts, sums), (expected_counts, expected_sums), "{num_groups} groups, from {least}");
            }
        }
        assert!(!fits_one_word(4, 100, 0, SMALL as i64));
        assert!(!fits_one_word(4, 100, i64::MIN, i64::MAX));
        assert!(!fits_one_word(4, MOST_ROWS + 1, 0, 1));
    }

    #[test]
    fn ends_are_those_of_all_values_whatever_is_passed_over() {
        let values = (0..5000_i64).map(|i| (i * 7919) % 1013 - 500).collect::<Vec<_>>();
        let groups = (0..5000_u32).map(|i| i * i % 11).collect::<Vec<_>>();
        // Of the last group there is no row.
        for num_groups in [12, 3000] {
            let (mut least, mut greatest) = (vec![i64::MAX; num_groups], vec![i64::MIN; num_groups]);
            for at in [0..100, 100..4000, 4000..5000] {
                fold_least(&mut least, Groups::Each(&groups[at.clone()]), &values[at.clone()], None);
                fold_greatest(&mut greatest, Groups::Each(&groups[at.clone()]), &values[at], None);
            }
            for group in 0..num_groups {
                let of_group = || values.iter().zip(&groups).filter(|(_, of)| **of as usize == group).map(|(v, _)| *v);
                assert_eq!(least[group], of_group().min().unwrap_or(i64::MAX));
                assert_eq!(greatest[group], of_group().max().unwrap_or(i64::MIN));
            }
        }
    }

    #[test]
    fn codes_that_are_not_null_are_counted() {
        let codes = (0..1000_u32).map(|i| i % 3).collect::<Vec<_>>();
        let groups = (0..1000_u32).map(|i| i % 7).collect::<Vec<_>>();
        let mut counts = vec![0; 7];
        count_codes(&mut counts, Groups::Each(&groups), &codes);
        let expected =
            |group| codes.iter().zip(&groups).filter(|(code, of)| **code > 0 && **of == group).count() as u64;
        assert_eq!(counts, (0..7).map(expected).collect::<Vec<_>>());
        let mut of_runs = vec![0; 2];
        count_codes(&mut of_runs, Groups::Runs(&[(1, 4), (0, 1000)]), &codes);
        assert_eq!(of_runs, [664, 2]);
        let few = (0..1000_u32).map(|i| u32::from(i % 9 == 0)).collect::<Vec<_>>();
        let mut counts = vec![1; 7];
        count_codes(&mut counts, Groups::Each(&groups), &few);
        let expected = |group| 1 + (0..1000).filter(|i| i % 9 == 0 && i % 7 == group).count() as u64;
        assert_eq!(counts, (0..7).map(expected).collect::<Vec<_>>());
    }
}
