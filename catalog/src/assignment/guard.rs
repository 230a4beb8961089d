use super::{Cluster, Want};

/// How much a run may take away before somebody has to confirm it: so that a clock that jumps, or a rule with a slip of
/// the pen, does not empty a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Of the segments of a data source, so many percent at most,
    pub percent: u32,
    /// but this many in any case,
    pub always: u64,
    /// and never more than this.
    pub most: u64,
    /// Data sources of which somebody has confirmed it.
    pub confirmed: Vec<u32>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { percent: 10, always: 20, most: 1_000, confirmed: Vec::new() }
    }
}

/// What was not taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    pub data_source: u32,
    /// How many segments the rules drop.
    pub dropped: u64,
    /// Of how many.
    pub of: u64,
}

impl Guard {
    /// Whether so many segments of so many of a data source may be taken away without a word from anybody.
    pub fn allows(&self, dropped: u64, of: u64) -> bool {
        let share = of * u64::from(self.percent) / 100;
        dropped <= share.max(self.always).min(self.most.max(self.always))
    }

    /// Of which data sources segments are taken away.
    pub(super) fn removals(&self, cluster: &Cluster, held_back: &mut Vec<HeldBack>) -> Vec<bool> {
        let num_data_sources = cluster.num_data_sources as usize;
        let (mut all, mut dropped) = (vec![0_u64; num_data_sources], vec![0_u64; num_data_sources]);
        for segment in &cluster.segments {
            all[segment.data_source as usize] += 1;
            // What something newer hides is not lost.
            dropped[segment.data_source as usize] += u64::from(cluster.wants[segment.want as usize] == Want::Drop);
        }
        let allowed = |(data_source, (all, dropped)): (u32, (&u64, &u64))| {
            self.allows(*dropped, *all) || self.confirmed.contains(&data_source)
        };
        let allowed = (0..).zip(all.iter().zip(&dropped)).map(allowed).collect::<Vec<_>>();
        for data_source in (0..num_data_sources).filter(|data_source| !allowed[*data_source]) {
            let (dropped, of) = (dropped[data_source], all[data_source]);
            held_back.push(HeldBack { data_source: data_source as u32, dropped, of });
        }
        allowed
    }
}
