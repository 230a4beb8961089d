use std::collections::HashSet;

use super::place::Room;
use super::{Cluster, Limits, Load, LoadReason, Plan, ReplicaState, SegmentIndex, ServerIndex, Want};

/// Segments of a server that are looked at for one that can be moved.
const TRIES: usize = 8;

/// Moves segments from the fullest servers of each tier to the emptiest, while they differ by more than the limit.
///
/// Each move brings the two closer together without exchanging their places, so that it comes to rest. A tier that still
/// lacks replicas is left alone: they come first.
pub(super) fn moves(cluster: &Cluster, limits: &Limits, room: &mut Room<'_>, plan: &mut Plan) {
    let is_short = |tier: u32| {
        let in_tier = |load: &Load| cluster.servers[load.server as usize].tier == tier;
        plan.loads.iter().any(in_tier) || plan.frozen_tiers.contains(&tier)
    };
    let tiers = (0..cluster.num_tiers).filter(|tier| !is_short(*tier)).collect::<Vec<_>>();
    let threshold = f64::from(limits.imbalance_percent) / 100.0;
    let tiers = tiers.into_iter().filter(|tier| spread(*tier, room) > threshold).collect::<Vec<_>>();
    if tiers.is_empty() {
        return;
    }
    let dropped = plan.drops.iter().map(|drop| drop.segment).collect::<HashSet<_>>();
    let movable = movable(cluster, &dropped);
    // What servers have too much of, and will be rid of.
    let mut leaving = vec![0_u64; cluster.servers.len()];
    for drop in &plan.drops {
        leaving[drop.server as usize] += cluster.segments[drop.segment as usize].size_bytes;
    }
    for tier in tiers {
        for _ in 0..limits.moves_per_tier {
            let Some((from, to)) = extremes(cluster, tier, room, &leaving, threshold) else { break };
            let Some(segment) = choose(cluster, &movable[from as usize], (from, to), room, &leaving) else { break };
            if !room.give(segment, to) {
                break;
            }
            leaving[from as usize] += cluster.segments[segment as usize].size_bytes;
            plan.loads.push(Load { segment, server: to, reason: LoadReason::Move });
        }
    }
}

fn spread(tier: u32, room: &Room<'_>) -> f64 {
    let fills = room.servers(tier).iter().map(|server| room.fill(*server));
    let (least, most) = fills.fold((f64::MAX, 0.0_f64), |(least, most), fill| (least.min(fill), most.max(fill)));
    most - least
}

/// What each server serves that may be moved: as often as is wanted, and nothing of it on its way.
fn movable(cluster: &Cluster, dropped: &HashSet<SegmentIndex>) -> Vec<Vec<SegmentIndex>> {
    let mut movable = vec![Vec::new(); cluster.servers.len()];
    for (index, segment) in (0..).zip(&cluster.segments) {
        let is_settled = segment.replicas.iter().all(|replica| replica.state == ReplicaState::Served);
        if is_settled && !dropped.contains(&index) && matches!(cluster.wants[segment.want as usize], Want::Load(_)) {
            for replica in &segment.replicas {
                movable[replica.server as usize].push(index);
            }
        }
    }
    movable
}

fn left_fill(cluster: &Cluster, server: ServerIndex, room: &Room<'_>, leaving: &[u64]) -> f64 {
    let max_bytes = cluster.servers[server as usize].max_bytes.max(1);
    room.fill(server) - leaving[server as usize] as f64 / max_bytes as f64
}

/// The fullest and the emptiest server, if they differ enough.
fn extremes(
    cluster: &Cluster,
    tier: u32,
    room: &Room<'_>,
    leaving: &[u64],
    threshold: f64,
) -> Option<(ServerIndex, ServerIndex)> {
    let fill = |server: &ServerIndex| left_fill(cluster, *server, room, leaving);
    let by_fill = |a: &&ServerIndex, b: &&ServerIndex| fill(a).total_cmp(&fill(b));
    let from = *room.servers(tier).iter().max_by(by_fill)?;
    let to = *room.servers(tier).iter().min_by(by_fill)?;
    (fill(&from) - fill(&to) > threshold).then_some((from, to))
}

/// A segment that the one has and the other has not, and that leaves the one as full as the other at least.
fn choose(
    cluster: &Cluster,
    movable: &[SegmentIndex],
    (from, to): (ServerIndex, ServerIndex),
    room: &mut Room<'_>,
    leaving: &[u64],
) -> Option<SegmentIndex> {
    let share =
        |server: ServerIndex, bytes: u64| bytes as f64 / cluster.servers[server as usize].max_bytes.max(1) as f64;
    let gap = left_fill(cluster, from, room, leaving) - left_fill(cluster, to, room, leaving);
    for _ in 0..TRIES.min(movable.len()) {
        let segment = movable[room.next(movable.len())];
        let size_bytes = cluster.segments[segment as usize].size_bytes;
        let closes = share(from, size_bytes) + share(to, size_bytes) <= gap;
        if closes && size_bytes > 0 && !room.has(segment, to) && !room.is_given(segment) {
            return Some(segment);
        }
    }
    None
}
