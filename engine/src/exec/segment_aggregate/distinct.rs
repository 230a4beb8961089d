//! Sets of ordinals, one a group, for exact counts of distinct values.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use arrow::buffer::NullBuffer;
use datafusion::error::Result;

use super::interner::NumberHasher;
use super::loops::Groups;

/// Sets of bits are used while those of all groups take at most this many words; otherwise one set of pairs.
const MOST_WORDS: usize = 16 << 20;

type Pairs = HashSet<u64, BuildHasherDefault<NumberHasher>>;

/// Ordinal 0, the null, is in no set.
#[derive(Debug)]
pub(super) enum DistinctSets {
    Bits {
        words_per_group: usize,
        words: Vec<u64>,
    },
    /// Of a group and an ordinal.
    Pairs {
        pairs: Pairs,
        num_groups: usize,
    },
}

impl DistinctSets {
    /// All ordinals are less than `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self::Bits { words_per_group: limit.div_ceil(64), words: Vec::new() }
    }

    /// Bytes that a group takes, roughly.
    pub(super) fn group_bytes(&self) -> usize {
        match self {
            Self::Bits { words_per_group, .. } => words_per_group * 8,
            Self::Pairs { pairs, num_groups } => pairs.len() * 16 / (*num_groups).max(1) + 1,
        }
    }

    pub(super) fn resize(&mut self, groups: usize) {
        match self {
            Self::Bits { words_per_group, words } if groups * *words_per_group <= MOST_WORDS => {
                words.resize(groups * *words_per_group, 0);
            }
            Self::Bits { .. } => {
                let mut pairs = Pairs::default();
                self.for_each(|group, ordinal| {
                    pairs.insert(pair(group, ordinal));
                });
                *self = Self::Pairs { pairs, num_groups: groups };
            }
            Self::Pairs { num_groups, .. } => *num_groups = groups,
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Bits { words, .. } => *words = Vec::new(),
            Self::Pairs { pairs, num_groups } => {
                *pairs = Pairs::default();
                *num_groups = 0;
            }
        }
    }

    /// Adds the ordinal of each valid row to the set of its group.
    pub(super) fn add(&mut self, groups: Groups<'_>, ordinals: &[u32], validity: Option<&NullBuffer>) {
        // What is not valid is the null, or was filtered out: the null is in no set, so it stands for both.
        let masked = validity.map(|validity| {
            ordinals.iter().zip(validity.iter()).map(|(&ordinal, valid)| if valid { ordinal } else { 0 }).collect()
        });
        let masked: Option<Vec<u32>> = masked;
        let ordinals = masked.as_deref().unwrap_or(ordinals);
        match (groups, self) {
            (Groups::Each(groups), Self::Bits { words_per_group, words }) => {
                for (&group, &ordinal) in groups.iter().zip(ordinals) {
                    words[group as usize * *words_per_group + ordinal as usize / 64] |= 1 << (ordinal % 64);
                }
            }
            (Groups::Each(groups), sets) => {
                groups.iter().zip(ordinals).for_each(|(&group, &ordinal)| sets.put(group, ordinal));
            }
            (Groups::Runs(runs), sets) => {
                let mut start = 0;
                for &(group, end) in runs {
                    ordinals[start..end].iter().for_each(|&ordinal| sets.put(group, ordinal));
                    start = end;
                }
            }
        }
    }

    fn put(&mut self, group: u32, ordinal: u32) {
        match self {
            Self::Bits { words_per_group, words } => {
                words[group as usize * *words_per_group + ordinal as usize / 64] |= 1 << (ordinal % 64);
            }
            Self::Pairs { pairs, .. } => {
                pairs.insert(pair(group, ordinal));
            }
        }
    }

    /// Takes over the sets of another table's groups, each by its number here. There is room for all.
    pub(super) fn adopt(&mut self, other: &Self, numbers: &[u32]) {
        match (&mut *self, other) {
            (Self::Bits { words_per_group, words }, Self::Bits { words: others, .. }) => {
                let width = *words_per_group;
                for (&number, set) in numbers.iter().zip(others.chunks(width.max(1))) {
                    let start = number as usize * width;
                    words[start..start + width].iter_mut().zip(set).for_each(|(word, other)| *word |= other);
                }
            }
            (_, other) => other.for_each(|group, ordinal| self.put(numbers[group as usize], ordinal)),
        }
    }

    fn for_each(&self, mut f: impl FnMut(u32, u32)) {
        match self {
            Self::Bits { words_per_group, words } => {
                for (group, set) in (0..).zip(words.chunks((*words_per_group).max(1))) {
                    for_each_bit(set, |ordinal| f(group, ordinal));
                }
            }
            Self::Pairs { pairs, .. } => pairs.iter().for_each(|pair| f((pair >> 32) as u32, *pair as u32)),
        }
    }

    /// Calls `f` with the set of each of `groups`, in their order, without the null.
    pub(super) fn for_each_set(&self, groups: &[u32], mut f: impl FnMut(&[u32]) -> Result<()>) -> Result<()> {
        let mut set = Vec::new();
        match self {
            Self::Bits { words_per_group, words } => {
                for &group in groups {
                    let start = group as usize * words_per_group;
                    set.clear();
                    for_each_bit(&words[start..start + words_per_group], |ordinal| set.push(ordinal));
                    f(if set.first() == Some(&0) { &set[1..] } else { &set })?;
                }
            }
            Self::Pairs { pairs, .. } => {
                let mut sorted = pairs.iter().copied().filter(|pair| *pair as u32 != 0).collect::<Vec<_>>();
                sorted.sort_unstable();
                for &group in groups {
                    let start = sorted.partition_point(|pair| *pair < u64::from(group) << 32);
                    set.clear();
                    set.extend(
                        sorted[start..]
                            .iter()
                            .take_while(|pair| *pair >> 32 == u64::from(group))
                            .map(|pair| *pair as u32),
                    );
                    f(&set)?;
                }
            }
        }
        Ok(())
    }

    /// How many values other than null each group has.
    pub(super) fn counts(&self) -> Vec<i64> {
        match self {
            Self::Bits { words_per_group, words } => {
                let count = |set: &[u64]| {
                    let null = set.first().map_or(0, |first| first & 1);
                    set.iter().map(|word| i64::from(word.count_ones())).sum::<i64>() - null as i64
                };
                words.chunks((*words_per_group).max(1)).map(count).collect()
            }
            Self::Pairs { pairs, num_groups } => {
                let mut counts = vec![0; *num_groups];
                pairs.iter().filter(|pair| **pair as u32 != 0).for_each(|pair| counts[(pair >> 32) as usize] += 1);
                counts
            }
        }
    }
}

fn for_each_bit(words: &[u64], mut f: impl FnMut(u32)) {
    for (word, base) in words.iter().zip((0..).step_by(64)) {
        let mut left = *word;
        while left != 0 {
            f(base + left.trailing_zeros());
            left &= left - 1;
        }
    }
}

fn pair(group: u32, ordinal: u32) -> u64 {
    u64::from(group) << 32 | u64::from(ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_pairs_count_alike_and_leave_the_null_out() {
        let rows: Vec<(u32, u32)> = (0..1000).map(|i| (i * i % 7, i * 13 % 201)).chain([(3, 0), (6, 0)]).collect();
        let (groups, ordinals): (Vec<u32>, Vec<u32>) = rows.iter().copied().unzip();
        let mut bits = DistinctSets::new(201);
        bits.resize(7);
        bits.add(Groups::Each(&groups), &ordinals, None);
        let mut pairs = DistinctSets::Pairs { pairs: Pairs::default(), num_groups: 7 };
        pairs.add(Groups::Each(&groups), &ordinals, None);
        let naive = |group| rows.iter().filter(|row| row.0 == group && row.1 != 0).collect::<HashSet<_>>().len() as i64;
        let expected: Vec<i64> = (0..7).map(naive).collect();
        assert_eq!((bits.counts(), pairs.counts()), (expected.clone(), expected.clone()));
        let mut many = DistinctSets::new(201);
        many.resize(7);
        many.adopt(&pairs, &[0, 1, 2, 3, 4, 5, 6]);
        many.adopt(&bits, &[0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(many.counts(), expected);
        many.resize(MOST_WORDS);
        assert!(matches!(many, DistinctSets::Pairs { .. }));
        assert_eq!(many.counts()[..7], expected);
        for sets in [bits, pairs] {
            let mut sizes = Vec::new();
            sets.for_each_set(&[6, 0, 3], |set| {
                assert!(set.is_sorted() && !set.contains(&0));
                sizes.push(set.len() as i64);
                Ok(())
            })
            .unwrap();
            assert_eq!(sizes, [expected[6], expected[0], expected[3]]);
        }
    }
}
