use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{Cluster, Limits, ReplicaState, SegmentIndex, ServerIndex, ServerState};

/// Servers looked at for one load: two random ones would do to keep fills close to each other; a few more leave a choice
/// of zones.
const CHOICES: usize = 4;
/// After so many that will not do, all of the tier are looked at.
const TRIES: usize = 24;
/// Of how much of a server's room the fill counts for as much as one more segment of the same chunk.
const CHUNK_SHARE: f64 = 0.02;
/// A zone that has a replica already weighs more than any fill.
const ZONE: f64 = 10.0;
const DAY_MS: i64 = 86_400_000;

/// What the servers have room for, as the plan grows.
#[derive(Debug)]
pub(super) struct Room<'a> {
    cluster: &'a Cluster,
    used: Vec<u64>,
    /// Loads on their way to each server.
    queued: Vec<u32>,
    queue_len: u32,
    /// Replica loads that each tier may still begin.
    turns: Vec<u32>,
    /// The servers of each tier that take segments.
    by_tier: Vec<Vec<ServerIndex>>,
    /// How many segments of a data source and day a server has.
    chunks: HashMap<u64, u32, BuildHasherDefault<Mixed>>,
    /// Servers that this run gives a segment, beyond its replicas.
    given: HashMap<SegmentIndex, Vec<ServerIndex>, BuildHasherDefault<Mixed>>,
    random: u64,
}

/// Keys are mixed already, or small numbers that one multiplication spreads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value);
    }
}

/// The finalizer of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl<'a> Room<'a> {
    pub(super) fn new(cluster: &'a Cluster, limits: &Limits, seed: u64) -> Self {
        let mut by_tier = vec![Vec::new(); cluster.num_tiers as usize];
        for (index, server) in (0..).zip(&cluster.servers) {
            if server.state == ServerState::Serving {
                by_tier[server.tier as usize].push(index);
            }
        }
        let mut room = Self {
            cluster,
            used: vec![0; cluster.servers.len()],
            queued: vec![0; cluster.servers.len()],
            queue_len: limits.queue_len,
            turns: vec![limits.replicas_per_tier; cluster.num_tiers as usize],
            by_tier,
            chunks: HashMap::with_capacity_and_hasher(cluster.segments.len(), BuildHasherDefault::default()),
            given: HashMap::default(),
            random: mix(seed),
        };
        for (index, segment) in (0..).zip(&cluster.segments) {
            for replica in &segment.replicas {
                // What is being dropped takes its room until it is gone.
                room.used[replica.server as usize] += segment.size_bytes;
                room.queued[replica.server as usize] += u32::from(replica.state == ReplicaState::Loading);
                *room.chunks.entry(chunk(cluster, index, replica.server)).or_default() += 1;
            }
        }
        room
    }

    /// Counts one replica load of a tier, if it may still begin one.
    pub(super) fn take_turn(&mut self, tier: u32) -> bool {
        let turns = &mut self.turns[tier as usize];
        let has_one = *turns > 0;
        *turns = turns.saturating_sub(1);
        has_one
    }

    pub(super) fn servers(&self, tier: u32) -> &[ServerIndex] {
        &self.by_tier[tier as usize]
    }

    /// How full a server will be.
    pub(super) fn fill(&self, server: ServerIndex) -> f64 {
        let max_bytes = self.cluster.servers[server as usize].max_bytes.max(1);
        self.used[server as usize] as f64 / max_bytes as f64
    }

    /// Keeps room for a load, if there is enough.
    pub(super) fn reserve(&mut self, server: ServerIndex, size_bytes: u64) -> bool {
        if !self.has_room(server, size_bytes) {
            return false;
        }
        self.used[server as usize] += size_bytes;
        self.queued[server as usize] += 1;
        true
    }

    fn has_room(&self, server: ServerIndex, size_bytes: u64) -> bool {
        let max_bytes = self.cluster.servers[server as usize].max_bytes;
        let fits = self.used[server as usize].checked_add(size_bytes).is_some_and(|used| used <= max_bytes);
        fits && self.queued[server as usize] < self.queue_len
    }

    /// Whether this run gives the segment to anybody.
    pub(super) fn is_given(&self, segment: SegmentIndex) -> bool {
        self.given.contains_key(&segment)
    }

    /// Whether a server has the segment, or will have it.
    pub(super) fn has(&self, segment: SegmentIndex, server: ServerIndex) -> bool {
        let replicas = &self.cluster.segments[segment as usize].replicas;
        let given = self.given.get(&segment);
        replicas.iter().any(|replica| replica.server == server)
            || given.is_some_and(|servers| servers.contains(&server))
    }

    /// Gives a segment to a server, if that is possible.
    pub(super) fn give(&mut self, segment: SegmentIndex, server: ServerIndex) -> bool {
        let size_bytes = self.cluster.segments[segment as usize].size_bytes;
        if self.has(segment, server) || !self.reserve(server, size_bytes) {
            return false;
        }
        self.given.entry(segment).or_default().push(server);
        *self.chunks.entry(chunk(self.cluster, segment, server)).or_default() += 1;
        true
    }

    /// Finds the best of a few servers for a segment, and gives it to that one.
    pub(super) fn find(&mut self, segment: SegmentIndex, tier: u32) -> Option<ServerIndex> {
        let num_servers = self.by_tier[tier as usize].len();
        let size_bytes = self.cluster.segments[segment as usize].size_bytes;
        let (mut best, mut looked_at) = (None::<(f64, ServerIndex)>, 0);
        if num_servers > TRIES {
            for _ in 0..TRIES {
                let at = self.next(num_servers);
                let server = self.by_tier[tier as usize][at];
                looked_at += usize::from(self.consider(segment, server, size_bytes, &mut best));
                if looked_at == CHOICES {
                    break;
                }
            }
        }
        if best.is_none() {
            // Few servers, or most of them full: all are looked at, from a random one on.
            let first = if num_servers == 0 { 0 } else { self.next(num_servers) };
            for step in 0..num_servers {
                let server = self.by_tier[tier as usize][(first + step) % num_servers];
                self.consider(segment, server, size_bytes, &mut best);
            }
        }
        let (_, server) = best?;
        self.give(segment, server).then_some(server)
    }

    /// Whether a server will do; remembers the better one.
    fn consider(
        &self,
        segment: SegmentIndex,
        server: ServerIndex,
        size_bytes: u64,
        best: &mut Option<(f64, ServerIndex)>,
    ) -> bool {
        if !self.has_room(server, size_bytes) || self.has(segment, server) {
            return false;
        }
        let alike = self.chunks.get(&chunk(self.cluster, segment, server)).copied().unwrap_or(0);
        let zone = if self.has_zone(segment, server) { ZONE } else { 0.0 };
        let cost = self.fill(server) + CHUNK_SHARE * f64::from(alike) + zone;
        if best.is_none_or(|(least, known)| cost < least || cost == least && server < known) {
            *best = Some((cost, server));
        }
        true
    }

    /// Whether another server of its zone has the segment.
    fn has_zone(&self, segment: SegmentIndex, server: ServerIndex) -> bool {
        let zone = self.cluster.servers[server as usize].zone;
        let is_there = |server: ServerIndex| self.cluster.servers[server as usize].zone == zone;
        let replicas = &self.cluster.segments[segment as usize].replicas;
        replicas.iter().any(|replica| is_there(replica.server))
            || self.given.get(&segment).is_some_and(|servers| servers.iter().any(|server| is_there(*server)))
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn next(&mut self, bound: usize) -> usize {
        self.random = mix(self.random);
        (self.random % bound as u64) as usize
    }
}

/// Names a data source, a day and a server.
fn chunk(cluster: &Cluster, segment: SegmentIndex, server: ServerIndex) -> u64 {
    let segment = &cluster.segments[segment as usize];
    let day = segment.interval.start().millis().div_euclid(DAY_MS);
    mix(mix(u64::from(segment.data_source) << 32 | u64::from(server)) ^ day.cast_unsigned())
}
