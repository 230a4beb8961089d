//! Chance in integers only, so that every machine draws the same.

/// splitmix64 (Steele, Lea and Flood, 2014): small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of one row: streams of different rows or seeds do not resemble each other.
    pub(super) fn for_row(seed: u64, row: u64) -> Self {
        Self(mix(seed ^ mix(row)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `0..bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        scale(self.next(), bound)
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A hash of `value`: what belongs to a thing for ever (the channel of a user, the namespace of a page) comes of it.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Maps all of `u64` evenly onto `0..bound`.
pub(super) fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Picks an index by fixed weights.
#[derive(Debug)]
pub(super) struct Weighted(Vec<u64>);

impl Weighted {
    /// `weights` must hold one that is not zero.
    pub(super) fn new(weights: impl IntoIterator<Item = u64>) -> Self {
        let sums = weights.into_iter().scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self(sums.collect())
    }

    pub(super) fn pick(&self, random: u64) -> usize {
        let at = scale(random, self.0.last().copied().unwrap_or(1));
        self.0.partition_point(|sum| *sum <= at)
    }
}

/// Ranks `0..n`, where rank `k` is drawn in proportion to `(k + 1)^-3/4`: few are drawn often, most seldom.
///
/// Held as steps, each of ranks that are drawn alike: one a rank at the head, then eight for each doubling.
#[derive(Debug)]
pub(super) struct Skew {
    steps: Vec<Step>,
    total: u64,
}

#[derive(Debug)]
struct Step {
    /// Weight of this and all earlier steps.
    sum: u64,
    first_rank: u64,
    rank_weight: u64,
}

impl Skew {
    /// `ranks` is at least 1 and below 2^31.
    pub(super) fn new(ranks: u64) -> Self {
        let (mut steps, mut first_rank, mut total) = (Vec::new(), 0, 0);
        while first_rank < ranks {
            let length = (first_rank / 8).max(1).min(ranks - first_rank);
            let rank_weight = weight(first_rank + length.div_ceil(2));
            total += length * rank_weight;
            steps.push(Step { sum: total, first_rank, rank_weight });
            first_rank += length;
        }
        Self { steps, total }
    }

    pub(super) fn pick(&self, random: u64) -> u64 {
        let at = scale(random, self.total);
        let step = self.steps.partition_point(|step| step.sum <= at);
        let before = if step == 0 { 0 } else { self.steps[step - 1].sum };
        self.steps[step].first_rank + (at - before) / self.steps[step].rank_weight
    }
}

/// 2^40 / k^(3/4), by integer roots: k^3 below 2^93 leaves room for 32 bits of fraction.
fn weight(k: u64) -> u64 {
    let cube = u128::from(k).pow(3);
    let root = (cube << 32).isqrt().isqrt() as u64;
    (1 << 48) / root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_its_published_sequence() {
        let mut random = Random(1_234_567);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn skew_reaches_every_rank_and_prefers_the_first() {
        let skew = Skew::new(1000);
        let mut counts = vec![0_u32; 1000];
        let mut random = Random::for_row(1, 1);
        for _ in 0..1_000_000 {
            counts[skew.pick(random.next()) as usize] += 1;
        }
        assert!(counts.iter().all(|count| *count > 0));
        let ratio = f64::from(counts[0]) / f64::from(counts[255]);
        assert!((50.0..80.0).contains(&ratio), "256^(3/4) is 64, drawn {ratio}");
    }

    #[test]
    fn both_ends_of_the_draw_are_in_range() {
        for ranks in [1, 2, 7, 8, 9, 100, 5_000_000] {
            assert_eq!(Skew::new(ranks).pick(0), 0);
            assert_eq!(Skew::new(ranks).pick(u64::MAX), ranks - 1);
        }
        let weighted = Weighted::new([1, 0, 2]);
        assert_eq!((weighted.pick(0), weighted.pick(u64::MAX)), (0, 2));
    }
}
