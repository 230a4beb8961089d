//! Assignment: which historical loads or drops what, from what is wanted and what is there.
//!
//! [`plan`] is a pure function of one [`Cluster`]; nothing here acts. What it promises, whatever it is given:
//!
//! * one server never has two replicas of one segment, and never more bytes, with those on their way, than it has room for;
//! * a replica is dropped only if as many as are wanted are *served* without it;
//! * segments that nobody serves come first, the newest first; then missing replicas; then moves;
//! * each server, each tier and each run has a bounded number of loads; a tier that lost many servers at once is left as it
//!   is, since it is probably the network of the coordinator;
//! * a run that would take away an unusual part of a data source takes none of it away, and says so;
//! * with nothing changing around it, it comes to rest.
//!
//! Cost: a few passes over the segments, and a handful of candidates for each load; no pair of segments is ever compared.

mod balance;
mod guard;
mod place;

use henge_engine::model::Interval;

pub use guard::{Guard, HeldBack};
use place::Room;

/// A server, by its place in [`Cluster::servers`].
pub type ServerIndex = u32;
/// A segment, by its place in [`Cluster::segments`].
pub type SegmentIndex = u32;

/// Everything that a plan is made from.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub servers: Vec<Server>,
    pub segments: Vec<Segment>,
    /// What the rules want; many segments share one of these.
    pub wants: Vec<Want>,
    pub num_tiers: u32,
    pub num_data_sources: u32,
}

/// A historical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub tier: u32,
    /// Replicas of one segment go to different zones where that is possible.
    pub zone: u32,
    pub max_bytes: u64,
    pub state: ServerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    Serving,
    /// Serves what it has, and is to be emptied.
    Draining,
    /// Has not been heard of, and may come back with all it had: it serves nothing, and is not replaced yet.
    Absent,
}

/// What is known of a used segment, but its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub data_source: u32,
    pub interval: Interval,
    pub size_bytes: u64,
    /// In [`Cluster::wants`].
    pub want: u32,
    pub replicas: Vec<Replica>,
}

/// A copy of a segment, or one that is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    pub server: ServerIndex,
    pub state: ReplicaState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    Served,
    Loading,
    Dropping,
}

/// What the rules want of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Replicas by tier.
    Load(Vec<(u32, u32)>),
    /// One on every server that is not draining.
    Broadcast,
    /// None, for good: it is marked unused.
    Drop,
    /// None: something newer hides it.
    Unload,
}

/// How much one run may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Loads on their way to one server.
    pub queue_len: u32,
    /// Loads of segments that are served already, in one tier and run.
    pub replicas_per_tier: u32,
    /// Moves in one tier and run.
    pub moves_per_tier: u32,
    /// A tier is left alone while its fullest and emptiest server differ by less, in percent of their room.
    pub imbalance_percent: u32,
    /// More of a tier's servers than this being absent at once means that nobody is replaced there.
    pub absent_percent: u32,
    pub guard: Guard,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_len: 500,
            replicas_per_tier: 5_000,
            moves_per_tier: 1_000,
            imbalance_percent: 5,
            absent_percent: 20,
            guard: Guard::default(),
        }
    }
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The most urgent first.
    pub loads: Vec<Load>,
    pub drops: Vec<Drop>,
    /// Segments that the rules drop.
    pub mark_unused: Vec<SegmentIndex>,
    /// What was not taken away, and waits for somebody to confirm it.
    pub held_back: Vec<HeldBack>,
    /// Tiers in which too many servers are absent to replace them.
    pub frozen_tiers: Vec<u32>,
    /// Loads for which no server of the tier has room.
    pub unplaced: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub segment: SegmentIndex,
    pub server: ServerIndex,
    pub reason: LoadReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadReason {
    /// Nobody serves it.
    Unavailable,
    /// Fewer serve it than are wanted.
    Replica,
    /// It is to be dropped elsewhere afterwards.
    Move,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    pub segment: SegmentIndex,
    pub server: ServerIndex,
}

/// A replica that a tier lacks.
#[derive(Clone, Copy, Debug)]
struct Missing {
    segment: SegmentIndex,
    tier: u32,
    count: u32,
}

/// Plans one run. `seed` chooses among equals: another one each run.
pub fn plan(cluster: &Cluster, limits: &Limits, seed: u64) -> Plan {
    let mut room = Room::new(cluster, limits, seed);
    let mut plan = Plan { frozen_tiers: frozen_tiers(cluster, limits), ..Plan::default() };
    let removed = limits.guard.removals(cluster, &mut plan.held_back);
    let (mut unavailable, mut short, mut broadcasts) = (Vec::new(), Vec::new(), Vec::new());
    let wants = attainable(cluster);
    for (index, segment) in (0..).zip(&cluster.segments) {
        match &wants[segment.want as usize] {
            Want::Drop | Want::Unload => {
                if removed[segment.data_source as usize] {
                    take_away(cluster, index, segment, &mut plan);
                }
            }
            Want::Load(tiers) => {
                if examine(cluster, index, segment, tiers, (&mut unavailable, &mut short)) {
                    superfluous(cluster, index, segment, tiers, &room, &mut plan);
                }
            }
            Want::Broadcast => broadcasts.push(index),
        }
    }
    newest_first(cluster, &mut unavailable);
    newest_first(cluster, &mut short);
    fill(&unavailable, LoadReason::Unavailable, &mut room, &mut plan);
    fill(&short, LoadReason::Replica, &mut room, &mut plan);
    for index in broadcasts {
        broadcast(cluster, index, &mut room, &mut plan);
    }
    balance::moves(cluster, limits, &mut room, &mut plan);
    plan
}

/// What can be had of what is wanted: no more replicas than a tier has servers, those that are absent among them; but
/// always one, so that a tier without servers does not pass for one that serves.
pub(crate) fn attainable(cluster: &Cluster) -> Vec<Want> {
    let mut servers = vec![0_u32; cluster.num_tiers as usize];
    for server in cluster.servers.iter().filter(|server| server.state != ServerState::Draining) {
        servers[server.tier as usize] += 1;
    }
    let attainable = |want: &Want| match want {
        Want::Load(tiers) => {
            let tiers = tiers.iter().map(|(tier, want)| (*tier, (*want).min(servers[*tier as usize].max(1))));
            Want::Load(tiers.collect())
        }
        other => other.clone(),
    };
    cluster.wants.iter().map(attainable).collect()
}

fn frozen_tiers(cluster: &Cluster, limits: &Limits) -> Vec<u32> {
    let is_frozen = |tier: &u32| {
        let servers = cluster.servers.iter().filter(|server| server.tier == *tier);
        let (mut all, mut absent) = (0_u64, 0_u64);
        for server in servers {
            all += 1;
            absent += u64::from(server.state == ServerState::Absent);
        }
        absent > 1 && absent * 100 > all * u64::from(limits.absent_percent)
    };
    (0..cluster.num_tiers).filter(is_frozen).collect()
}

/// Everything that has a segment which is no longer wanted at all drops it; it is marked unused first if rules drop it.
fn take_away(cluster: &Cluster, index: SegmentIndex, segment: &Segment, plan: &mut Plan) {
    if cluster.wants[segment.want as usize] == Want::Drop {
        plan.mark_unused.push(index);
    }
    let held = segment.replicas.iter().filter(|replica| replica.state != ReplicaState::Dropping);
    plan.drops.extend(held.map(|replica| Drop { segment: index, server: replica.server }));
}

/// Replicas of one segment in one tier.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// By servers that stay.
    served: u32,
    /// On their way, or on a server that is absent and may come back.
    coming: u32,
    /// By servers that are to be emptied.
    draining: u32,
}

fn count(cluster: &Cluster, segment: &Segment, tier: u32) -> Count {
    let mut count = Count::default();
    for replica in &segment.replicas {
        let server = &cluster.servers[replica.server as usize];
        if server.tier != tier {
            continue;
        }
        match (replica.state, server.state) {
            (ReplicaState::Dropping, _) => {}
            (ReplicaState::Served, ServerState::Serving) => count.served += 1,
            (ReplicaState::Served, ServerState::Draining) => count.draining += 1,
            (ReplicaState::Loading, ServerState::Draining) => {}
            (ReplicaState::Served, ServerState::Absent) | (ReplicaState::Loading, _) => count.coming += 1,
        }
    }
    count
}

/// Finds what a segment lacks. Returns whether it is served as often as is wanted.
fn examine(
    cluster: &Cluster,
    index: SegmentIndex,
    segment: &Segment,
    wanted: &[(u32, u32)],
    (unavailable, short): (&mut Vec<Missing>, &mut Vec<Missing>),
) -> bool {
    let is_served = segment.replicas.iter().any(|replica| {
        replica.state == ReplicaState::Served && cluster.servers[replica.server as usize].state != ServerState::Absent
    });
    let mut is_first = !is_served;
    let mut is_satisfied = true;
    for &(tier, want) in wanted {
        let have = count(cluster, segment, tier);
        is_satisfied &= have.served >= want;
        let mut lacks = want.saturating_sub(have.served + have.coming);
        if is_first && want > 0 {
            // What is coming from a server that is absent may never come: one more, for now.
            let is_loading = segment.replicas.iter().any(|replica| {
                replica.state == ReplicaState::Loading
                    && cluster.servers[replica.server as usize].state == ServerState::Serving
            });
            if !is_loading {
                unavailable.push(Missing { segment: index, tier, count: 1 });
                lacks = lacks.saturating_sub(1);
            }
            is_first = false;
        }
        if lacks > 0 {
            short.push(Missing { segment: index, tier, count: lacks });
        }
    }
    is_satisfied
}

/// Of a segment that is served as often as is wanted: what is too much. The fullest servers drop it, and all that are to
/// be emptied.
fn superfluous(
    cluster: &Cluster,
    index: SegmentIndex,
    segment: &Segment,
    wanted: &[(u32, u32)],
    room: &Room<'_>,
    plan: &mut Plan,
) {
    if segment.replicas.len() <= 1 && wanted.iter().any(|(_, want)| *want > 0) {
        return;
    }
    let mut left: Vec<(u32, u32)> = wanted.to_vec();
    let mut replicas = segment.replicas.clone();
    // Who stays longest comes first: the later ones are dropped.
    replicas.retain(|replica| replica.state != ReplicaState::Dropping);
    let is_leaving = |replica: &Replica| {
        let server = &cluster.servers[replica.server as usize];
        (server.state != ServerState::Serving, replica.state != ReplicaState::Served)
    };
    let fill = |replica: &Replica| room.fill(replica.server);
    replicas.sort_by(|a, b| is_leaving(a).cmp(&is_leaving(b)).then(fill(a).total_cmp(&fill(b))));
    for replica in replicas {
        let server = &cluster.servers[replica.server as usize];
        let left = left.iter_mut().find(|(tier, left)| *tier == server.tier && *left > 0);
        match (left, server.state) {
            (Some((_, left)), ServerState::Serving) => *left -= 1,
            // It may come back; then it is superfluous.
            (_, ServerState::Absent) => {}
            _ => plan.drops.push(Drop { segment: index, server: replica.server }),
        }
    }
}

fn broadcast(cluster: &Cluster, index: SegmentIndex, room: &mut Room<'_>, plan: &mut Plan) {
    let segment = &cluster.segments[index as usize];
    let mut has = vec![false; cluster.servers.len()];
    for replica in &segment.replicas {
        has[replica.server as usize] = true;
    }
    for (server, has) in (0..).zip(has) {
        let state = cluster.servers[server as usize].state;
        if has && state == ServerState::Draining {
            plan.drops.push(Drop { segment: index, server });
        }
        if has || state != ServerState::Serving {
            continue;
        }
        match room.reserve(server, segment.size_bytes) {
            true => plan.loads.push(Load { segment: index, server, reason: LoadReason::Replica }),
            false => plan.unplaced += 1,
        }
    }
}

fn newest_first(cluster: &Cluster, missing: &mut [Missing]) {
    missing.sort_by_key(|missing| {
        let interval = &cluster.segments[missing.segment as usize].interval;
        std::cmp::Reverse((interval.end(), interval.start()))
    });
}

/// Finds a server for each replica that is lacking, as far as the limits allow.
fn fill(missing: &[Missing], reason: LoadReason, room: &mut Room<'_>, plan: &mut Plan) {
    for &Missing { segment, tier, count } in missing {
        if reason == LoadReason::Replica && plan.frozen_tiers.contains(&tier) {
            continue;
        }
        for _ in 0..count {
            if reason == LoadReason::Replica && !room.take_turn(tier) {
                break;
            }
            match room.find(segment, tier) {
                Some(server) => plan.loads.push(Load { segment, server, reason }),
                None => {
                    plan.unplaced += 1;
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
