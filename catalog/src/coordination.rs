//! What a coordinator decides: who loads and drops what, what wakes, what is marked unused.
//!
//! [`decide`] is a pure function of what is published, who serves what, what is under way and what the rules want. It
//! puts [`crate::assignment`] to work and adds what belongs to publishing:
//!
//! * a publication *wakes*, all of it in one transaction, as soon as somebody serves each of its segments: queries see
//!   the old rows or the new ones, and never neither;
//! * what newer segments hide is marked unused, and what is not used is dropped wherever it is served;
//! * a segment that the rules want nowhere sleeps: no query asks for it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_engine::model::{Interval, SegmentId, SegmentUid, Timestamp};
use serde::{Deserialize, Serialize};

use crate::assignment::{self, Cluster, Limits, Plan, Replica, ReplicaState, ServerState, Want};
use crate::inventory::{Health, Inventory, ServerView};
use crate::rule::{self, DEFAULT_RULES, Rule, Wanted};
use crate::store::Standing;
use crate::timeline::GroupKind;
use crate::view::ViewedSegment;

/// A server that has not answered for this long serves nothing, as far as loads are planned.
pub const ABSENT: Duration = Duration::from_secs(6);

/// What can be set while a coordinator runs, under Druid's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Moves in one tier and run.
    pub max_segments_to_move: u32,
    /// Loads of segments that are served already, in one tier and run.
    pub replication_throttle_limit: u32,
    /// Loads on their way to one server.
    pub max_segments_in_node_loading_queue: u32,
    /// Servers that are to be emptied.
    pub decommissioning_nodes: Vec<String>,
    /// Nothing is loaded, dropped or marked; publications still wake.
    pub pause_coordination: bool,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            max_segments_to_move: limits.moves_per_tier,
            replication_throttle_limit: limits.replicas_per_tier,
            max_segments_in_node_loading_queue: limits.queue_len,
            decommissioning_nodes: Vec::new(),
            pause_coordination: false,
        }
    }
}

/// What a coordinator has ordered and not seen done, by server and segment.
pub type UnderWay = HashMap<(Arc<str>, SegmentUid), Step>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Loading,
    Dropping,
    /// It was tried and failed: not there, and not to be tried there for a while.
    Failed,
}

/// Everything that is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Used segments that queries ask for, with whether something newer hides them.
    pub active: &'a [(Arc<ViewedSegment>, bool)],
    /// Used segments that they do not ask for, with the same.
    pub dormant: &'a [(Arc<ViewedSegment>, bool)],
    pub inventory: &'a Inventory,
    pub under_way: &'a UnderWay,
    pub rules: &'a BTreeMap<String, Vec<Rule>>,
    pub config: &'a CoordinatorConfig,
    /// Data sources of which somebody has confirmed that rules may take much away.
    pub confirmed: &'a [String],
    /// A server that has not answered for this long is replaced.
    pub replace_after: Duration,
    pub now: Timestamp,
    pub instant: Instant,
    /// Chooses among equals.
    pub seed: u64,
}

/// Segments of one data source.
pub type Named = BTreeMap<String, Vec<SegmentId>>;

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// By server, the most urgent first.
    pub loads: BTreeMap<Arc<str>, Vec<Arc<ViewedSegment>>>,
    pub drops: BTreeMap<Arc<str>, Vec<SegmentUid>>,
    /// All of one data source wake at once.
    pub wake: Named,
    pub sleep: Named,
    /// What rules drop, and what newer segments hide.
    pub mark_unused: Named,
    /// What was not taken away until somebody confirms it: data source, how many segments, of how many.
    pub held_back: Vec<(String, u64, u64)>,
    pub frozen_tiers: Vec<String>,
    /// Loads for which no server has room.
    pub unplaced: u64,
    /// When time alone changes what the rules want.
    pub next: Option<Timestamp>,
    /// Replicas that are wanted and not served, by tier and data source.
    pub missing: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Names to numbers, in the order in which they come.
#[derive(Debug, Default)]
struct Numbers<T> {
    numbers: HashMap<T, u32>,
    names: Vec<T>,
}

impl<T: Clone + Eq + std::hash::Hash> Numbers<T> {
    fn of(&mut self, name: &T) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.clone(), number);
        self.names.push(name.clone());
        number
    }
}

/// The input of a plan, and what its numbers stand for.
struct Planning<'a> {
    situation: &'a Situation<'a>,
    cluster: Cluster,
    /// What stands at the same place in the cluster.
    segments: Vec<Arc<ViewedSegment>>,
    /// All that is used, with what is wanted of it. Several may have the same bytes: those are planned once.
    used: Vec<(Arc<ViewedSegment>, u32)>,
    uids: HashSet<SegmentUid>,
    /// What is under way, by segment; of servers that are there.
    steps: HashMap<SegmentUid, Vec<(u32, Step)>>,
    servers: Numbers<Arc<str>>,
    tiers: Numbers<String>,
    data_sources: Numbers<String>,
    wants: Numbers<Wanted>,
    next: Option<Timestamp>,
}

/// Decides one run.
pub fn decide(situation: &Situation<'_>) -> Decisions {
    let mut planning = Planning::new(situation);
    let mut decisions = Decisions::default();
    planning.add_servers();
    for (segment, is_hidden) in situation.active {
        match is_hidden {
            true => decisions.unuse(&segment.id),
            false => planning.add(segment),
        }
    }
    for (segment, is_hidden) in situation.dormant {
        match is_hidden {
            true => decisions.unuse(&segment.id),
            false => planning.add(segment),
        }
    }
    planning.make_room();
    planning.wake(&mut decisions);
    planning.count_missing(&mut decisions);
    decisions.next = planning.next;
    if situation.config.pause_coordination {
        return Decisions {
            wake: decisions.wake,
            next: decisions.next,
            missing: decisions.missing,
            ..Decisions::default()
        };
    }
    let plan = assignment::plan(&planning.cluster, &planning.limits(), situation.seed);
    planning.translate(plan, &mut decisions);
    planning.drop_unused(&mut decisions);
    decisions
}

impl Decisions {
    fn unuse(&mut self, id: &SegmentId) {
        self.mark_unused.entry(id.data_source.clone()).or_default().push(id.clone());
    }
}

impl<'a> Planning<'a> {
    fn new(situation: &'a Situation<'a>) -> Self {
        Self {
            situation,
            cluster: Cluster::default(),
            segments: Vec::new(),
            used: Vec::new(),
            uids: HashSet::new(),
            steps: HashMap::new(),
            servers: Numbers { numbers: HashMap::new(), names: Vec::new() },
            tiers: Numbers { numbers: HashMap::new(), names: Vec::new() },
            data_sources: Numbers { numbers: HashMap::new(), names: Vec::new() },
            wants: Numbers { numbers: HashMap::new(), names: Vec::new() },
            next: None,
        }
    }

    fn limits(&self) -> Limits {
        let CoordinatorConfig { max_segments_to_move, replication_throttle_limit, .. } = self.situation.config;
        let mut limits = Limits {
            queue_len: self.situation.config.max_segments_in_node_loading_queue,
            replicas_per_tier: *replication_throttle_limit,
            moves_per_tier: *max_segments_to_move,
            ..Limits::default()
        };
        let confirmed = self.situation.confirmed.iter().filter_map(|name| self.data_sources.numbers.get(name));
        limits.guard.confirmed = confirmed.copied().collect();
        limits
    }

    /// The servers that are there, or may come back.
    fn add_servers(&mut self) {
        let Situation { inventory, instant, replace_after, config, .. } = *self.situation;
        let mut zones = Numbers { numbers: HashMap::new(), names: Vec::new() };
        for view in inventory.servers().filter(|view| view.silence(instant) < replace_after) {
            self.servers.of(&Arc::from(view.server.name.as_str()));
            // A server that names no zone has one of its own.
            let zone = if view.server.zone.is_empty() { &view.server.name } else { &view.server.zone };
            self.cluster.servers.push(assignment::Server {
                tier: self.tiers.of(&view.server.tier),
                zone: zones.of(zone),
                max_bytes: view.server.max_bytes,
                state: state(view, instant, config),
            });
        }
        for ((name, uid), step) in self.situation.under_way {
            if let Some(server) = self.servers.numbers.get(name) {
                self.steps.entry(*uid).or_default().push((*server, *step));
            }
        }
    }

    fn add(&mut self, segment: &Arc<ViewedSegment>) {
        let record = &segment.record;
        if record.kind() == GroupKind::Tombstone {
            return;
        }
        let wanted = self.wanted(&record.id.data_source, &record.id.interval);
        self.used.push((Arc::clone(segment), wanted));
        if !self.uids.insert(record.uid) {
            return;
        }
        let replicas = self.replicas(record.uid);
        self.cluster.segments.push(assignment::Segment {
            data_source: self.data_sources.of(&record.id.data_source),
            interval: record.id.interval,
            size_bytes: record.size_bytes,
            want: wanted,
            replicas,
        });
        self.segments.push(Arc::clone(segment));
    }

    /// What the rules want, as a number of [`Cluster::wants`].
    fn wanted(&mut self, data_source: &str, interval: &Interval) -> u32 {
        let rules = self.situation.rules;
        let own = rules.get(data_source).map_or(&[][..], Vec::as_slice);
        let default = rules.get(DEFAULT_RULES).map_or(&[][..], Vec::as_slice);
        let next = rule::next_change(own, default, interval, self.situation.now);
        self.next = [self.next, next].into_iter().flatten().min();
        let wanted = rule::wanted(own, default, interval, self.situation.now);
        let known = self.wants.names.len();
        let number = self.wants.of(&wanted);
        if number as usize == known {
            let want = match wanted {
                Wanted::Load(replicas) => {
                    Want::Load(replicas.iter().map(|(tier, count)| (self.tiers.of(tier), *count)).collect())
                }
                Wanted::Broadcast => Want::Broadcast,
                Wanted::Drop => Want::Drop,
            };
            self.cluster.wants.push(want);
        }
        number
    }

    fn replicas(&self, uid: SegmentUid) -> Vec<Replica> {
        let mut replicas = Vec::new();
        for name in self.situation.inventory.holders(uid) {
            let Some(server) = self.servers.numbers.get(name) else { continue };
            let is_leaving = self.step(name, uid) == Some(Step::Dropping);
            let state = if is_leaving { ReplicaState::Dropping } else { ReplicaState::Served };
            replicas.push(Replica { server: *server, state });
        }
        for (server, step) in self.steps.get(&uid).map_or(&[][..], Vec::as_slice) {
            if replicas.iter().any(|replica| replica.server == *server) {
                continue;
            }
            let state = match step {
                Step::Loading => ReplicaState::Loading,
                // Not there, but not to be chosen either.
                Step::Failed => ReplicaState::Dropping,
                Step::Dropping => continue,
            };
            replicas.push(Replica { server: *server, state });
        }
        replicas
    }

    fn step(&self, server: &Arc<str>, uid: SegmentUid) -> Option<Step> {
        if self.situation.under_way.is_empty() {
            return None;
        }
        self.situation.under_way.get(&(Arc::clone(server), uid)).copied()
    }

    /// What is served and not planned with takes room too.
    fn make_room(&mut self) {
        self.cluster.num_tiers = self.tiers.names.len() as u32;
        self.cluster.num_data_sources = self.data_sources.names.len() as u32;
        let mut known = vec![0_u64; self.cluster.servers.len()];
        for (planned, segment) in self.cluster.segments.iter().zip(&self.segments) {
            for replica in &planned.replicas {
                let is_there = match replica.state {
                    ReplicaState::Served => true,
                    ReplicaState::Loading => false,
                    ReplicaState::Dropping => {
                        let name = &self.servers.names[replica.server as usize];
                        self.step(name, segment.record.uid) == Some(Step::Dropping)
                    }
                };
                known[replica.server as usize] += if is_there { planned.size_bytes } else { 0 };
            }
        }
        // Files that are on their way are counted by the server, and by the plan.
        let loading = self.situation.under_way.iter().filter(|(_, step)| **step == Step::Loading);
        let loading = loading.map(|((name, _), _)| name).collect::<HashSet<_>>();
        for ((server, known), name) in self.cluster.servers.iter_mut().zip(known).zip(&self.servers.names) {
            let used_bytes = self.situation.inventory.server(name).map_or(0, |view| view.used_bytes);
            if !loading.contains(name) {
                server.max_bytes = server.max_bytes.saturating_sub(used_bytes.saturating_sub(known));
            }
        }
    }

    /// Whether a server that answers serves a segment.
    fn is_served(&self, uid: SegmentUid) -> bool {
        let Situation { inventory, instant, .. } = self.situation;
        let alive = |name: &Arc<str>| inventory.server(name).is_some_and(|v| v.health(*instant) == Health::Alive);
        inventory.holders(uid).iter().any(alive)
    }

    /// Whether the rules want a segment somewhere.
    fn is_wanted(&self, want: u32) -> bool {
        match &self.cluster.wants[want as usize] {
            Want::Load(tiers) => tiers.iter().any(|(_, count)| *count > 0),
            Want::Broadcast => true,
            Want::Drop | Want::Unload => false,
        }
    }

    /// Publications of which all that is wanted is served wake; active segments that are wanted nowhere sleep.
    fn wake(&self, decisions: &mut Decisions) {
        let mut publications: BTreeMap<(&str, u64), (bool, Vec<SegmentId>)> = BTreeMap::new();
        let dormant = self.situation.dormant.iter().filter(|(_, is_hidden)| !is_hidden);
        for (segment, _) in dormant.filter(|(segment, _)| segment.record.kind() == GroupKind::Tombstone) {
            let key = (segment.id.data_source.as_str(), segment.record.created_rev);
            publications.entry(key).or_insert((true, Vec::new())).1.push(SegmentId::clone(&segment.id));
        }
        for (segment, want) in &self.used {
            let (record, is_wanted) = (&segment.record, self.is_wanted(*want));
            if record.standing == Standing::Active {
                if !is_wanted && matches!(self.cluster.wants[*want as usize], Want::Load(_)) {
                    let named = decisions.sleep.entry(record.id.data_source.clone()).or_default();
                    named.push(record.id.clone());
                }
                continue;
            }
            if !is_wanted {
                continue;
            }
            let publication =
                publications.entry((&record.id.data_source, record.created_rev)).or_insert((true, Vec::new()));
            publication.0 &= self.is_served(record.uid);
            publication.1.push(record.id.clone());
        }
        for ((data_source, _), (is_ready, ids)) in publications {
            if is_ready {
                decisions.wake.entry(data_source.to_owned()).or_default().extend(ids);
            }
        }
    }

    /// How many replicas are wanted, as far as there are servers for them, and not served.
    fn count_missing(&self, decisions: &mut Decisions) {
        let wants = assignment::attainable(&self.cluster);
        for segment in &self.cluster.segments {
            let Want::Load(tiers) = &wants[segment.want as usize] else { continue };
            for (tier, count) in tiers {
                let served = segment.replicas.iter().filter(|replica| {
                    let server = &self.cluster.servers[replica.server as usize];
                    replica.state == ReplicaState::Served && server.tier == *tier && server.state != ServerState::Absent
                });
                let missing = u64::from(*count).saturating_sub(served.count() as u64);
                let by_source = decisions.missing.entry(self.tiers.names[*tier as usize].clone()).or_default();
                *by_source.entry(self.data_sources.names[segment.data_source as usize].clone()).or_default() += missing;
            }
        }
    }

    fn translate(&self, plan: Plan, decisions: &mut Decisions) {
        for load in plan.loads {
            let server = Arc::clone(&self.servers.names[load.server as usize]);
            decisions.loads.entry(server).or_default().push(Arc::clone(&self.segments[load.segment as usize]));
        }
        for drop in plan.drops {
            let (server, segment) = (&self.servers.names[drop.server as usize], &self.segments[drop.segment as usize]);
            if self.step(server, segment.record.uid) != Some(Step::Failed) {
                decisions.drops.entry(Arc::clone(server)).or_default().push(segment.record.uid);
            }
        }
        for segment in plan.mark_unused {
            decisions.unuse(&self.segments[segment as usize].id);
        }
        for held in plan.held_back {
            let data_source = self.data_sources.names[held.data_source as usize].clone();
            decisions.held_back.push((data_source, held.dropped, held.of));
        }
        decisions.frozen_tiers =
            plan.frozen_tiers.iter().map(|tier| self.tiers.names[*tier as usize].clone()).collect();
        decisions.unplaced = plan.unplaced;
    }

    /// Whatever is served and not used any more is dropped.
    fn drop_unused(&self, decisions: &mut Decisions) {
        let Situation { active, dormant, inventory, .. } = self.situation;
        // What is hidden is used until it is marked otherwise.
        let hidden = active.iter().chain(dormant.iter()).filter(|(_, is_hidden)| *is_hidden);
        let hidden = hidden.map(|(segment, _)| segment.record.uid).collect::<HashSet<_>>();
        for (name, view) in self.servers.names.iter().filter_map(|name| Some((name, inventory.server(name)?))) {
            for uid in view.served().filter(|uid| !self.uids.contains(uid) && !hidden.contains(uid)) {
                if self.step(name, uid) != Some(Step::Dropping) {
                    decisions.drops.entry(Arc::clone(name)).or_default().push(uid);
                }
            }
        }
    }
}

fn state(view: &ServerView, instant: Instant, config: &CoordinatorConfig) -> ServerState {
    match view.silence(instant) >= ABSENT {
        true => ServerState::Absent,
        false if config.decommissioning_nodes.contains(&view.server.name) => ServerState::Draining,
        false => ServerState::Serving,
    }
}

/// How many segments of a data source rules would drop, of how many.
pub fn dropped_by<'a>(
    intervals: impl Iterator<Item = &'a Interval>,
    own: &[Rule],
    default: &[Rule],
    now: Timestamp,
) -> (u64, u64) {
    let (mut dropped, mut all) = (0, 0);
    for interval in intervals {
        all += 1;
        dropped += u64::from(rule::wanted(own, default, interval, now) == Wanted::Drop);
    }
    (dropped, all)
}

#[cfg(test)]
mod tests;
