//! Inner loops of aggregates: the rows of a block into the states of their groups.

use arrow::buffer::NullBuffer;

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
            None => count(valid, groups),
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
pub(super) fn count(counts: &mut [u64], groups: &[u32]) {
    let num_groups = counts.len();
    if num_groups > FEW_GROUPS || groups.len() < num_groups * LANES * 2 {
        groups.iter().for_each(|&group| counts[group as usize] += 1);
        return;
    }
    let mut lanes = vec![0_u32; num_groups * LANES];
    let (first, rest) = lanes.split_at_mut(num_groups);
    let (second, rest) = rest.split_at_mut(num_groups);
    let (third, fourth) = rest.split_at_mut(num_groups);
    let mut chunks = groups.chunks_exact(LANES);
    for chunk in &mut chunks {
        first[chunk[0] as usize] += 1;
        second[chunk[1] as usize] += 1;
        third[chunk[2] as usize] += 1;
        fourth[chunk[3] as usize] += 1;
    }
    chunks.remainder().iter().for_each(|&group| first[group as usize] += 1);
    for lane in [first, second, third, fourth] {
        counts.iter_mut().zip(lane).for_each(|(count, lane)| *count += u64::from(*lane));
    }
}

/// Like [`fold`], with tables filled in turn where that pays; `none` is the state of no rows.
pub(super) fn fold_in_lanes(
    states: &mut [i64],
    groups: Groups<'_>,
    values: &[i64],
    validity: Option<&NullBuffer>,
    none: i64,
    add: impl Fn(i64, i64) -> i64,
) {
    let num_groups = states.len();
    let (Groups::Each(each), None) = (groups, validity) else { return fold(states, groups, values, validity, add) };
    if num_groups > FEW_GROUPS || each.len() < num_groups * LANES * 2 {
        return fold(states, groups, values, validity, add);
    }
    let mut lanes = vec![none; num_groups * LANES];
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
