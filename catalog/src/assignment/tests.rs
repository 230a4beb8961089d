use std::collections::{BTreeMap, HashSet};

use henge_engine::model::Timestamp;
use proptest::prelude::*;

use super::*;

fn day(number: i64) -> Interval {
    let at = |day: i64| Timestamp::from_millis(1_375_315_200_000 + day * 86_400_000);
    Interval::new(at(number), at(number + 1)).expect("not empty")
}

fn server(tier: u32, max_bytes: u64) -> Server {
    Server { tier, zone: 0, max_bytes, state: ServerState::Serving }
}

fn segment(number: i64, size_bytes: u64, want: u32) -> Segment {
    Segment { data_source: 0, interval: day(number), size_bytes, want, replicas: Vec::new() }
}

fn served(servers: &[ServerIndex]) -> Vec<Replica> {
    servers.iter().map(|server| Replica { server: *server, state: ReplicaState::Served }).collect()
}

/// Servers of one tier, segments of one byte, two replicas wanted.
fn cluster(num_servers: u32, num_segments: i64) -> Cluster {
    Cluster {
        servers: (0..num_servers).map(|_| server(0, 1_000)).collect(),
        segments: (0..num_segments).map(|number| segment(number, 1, 0)).collect(),
        wants: vec![Want::Load(vec![(0, 2)]), Want::Drop, Want::Unload, Want::Broadcast],
        num_tiers: 1,
        num_data_sources: 1,
    }
}

/// Servers do as they were told, at once.
fn apply(cluster: &mut Cluster, plan: &Plan) {
    for drop in &plan.drops {
        cluster.segments[drop.segment as usize].replicas.retain(|replica| replica.server != drop.server);
    }
    for load in &plan.loads {
        let replica = Replica { server: load.server, state: ReplicaState::Served };
        cluster.segments[load.segment as usize].replicas.push(replica);
    }
    for segment in &plan.mark_unused {
        // Its place stays, so that others keep their numbers.
        cluster.segments[*segment as usize].want = 2;
    }
}

/// Plans and applies until there is nothing to do. Returns how many rounds that took.
fn settle(cluster: &mut Cluster, limits: &Limits) -> u64 {
    for round in 0..300 {
        let plan = plan(cluster, limits, round);
        check(cluster, limits, &plan);
        if plan.loads.is_empty() && plan.drops.is_empty() && plan.mark_unused.is_empty() {
            return round;
        }
        apply(cluster, &plan);
    }
    panic!("it does not come to rest");
}

/// What every plan must keep to.
fn check(cluster: &Cluster, limits: &Limits, plan: &Plan) {
    let mut bytes = vec![0; cluster.servers.len()];
    let mut queued = vec![0_u32; cluster.servers.len()];
    let mut held = HashSet::new();
    for (index, segment) in (0_u32..).zip(&cluster.segments) {
        for replica in &segment.replicas {
            bytes[replica.server as usize] += segment.size_bytes;
            queued[replica.server as usize] += u32::from(replica.state == ReplicaState::Loading);
            held.insert((index, replica.server));
        }
    }
    let full_before = bytes.clone();
    let mut turns: BTreeMap<(LoadReason, u32), u32> = BTreeMap::new();
    for load in &plan.loads {
        let to = &cluster.servers[load.server as usize];
        assert_eq!(to.state, ServerState::Serving);
        assert!(held.insert((load.segment, load.server)), "two replicas on one server");
        bytes[load.server as usize] += cluster.segments[load.segment as usize].size_bytes;
        queued[load.server as usize] += 1;
        assert!(queued[load.server as usize] <= limits.queue_len);
        let segment = &cluster.segments[load.segment as usize];
        let is_broadcast = cluster.wants[segment.want as usize] == Want::Broadcast;
        *turns.entry((load.reason, to.tier)).or_default() += u32::from(!is_broadcast);
    }
    for (server, (bytes, before)) in cluster.servers.iter().zip(bytes.iter().zip(full_before)) {
        assert!(*bytes <= server.max_bytes.max(before), "no room");
    }
    for ((reason, _), turns) in turns {
        match reason {
            LoadReason::Replica => assert!(turns <= limits.replicas_per_tier),
            LoadReason::Move => assert!(turns <= limits.moves_per_tier),
            LoadReason::Unavailable => {}
        }
    }
    assert!(plan.loads.is_sorted_by_key(|load| load.reason == LoadReason::Move), "moves come last");
    let first = plan.loads.iter().filter(|load| load.reason == LoadReason::Unavailable);
    assert!(first.is_sorted_by_key(|load| std::cmp::Reverse(cluster.segments[load.segment as usize].interval.end())));
    never_too_few(cluster, plan);
}

/// Whatever is dropped, as many replicas stay served as were wanted.
fn never_too_few(cluster: &Cluster, plan: &Plan) {
    let dropped = plan.drops.iter().map(|drop| (drop.segment, drop.server)).collect::<HashSet<_>>();
    assert_eq!(dropped.len(), plan.drops.len());
    let touched = plan.drops.iter().map(|drop| drop.segment).collect::<HashSet<_>>();
    for index in touched {
        let segment = &cluster.segments[index as usize];
        let Want::Load(wanted) = &attainable(cluster)[segment.want as usize] else { continue };
        for (tier, want) in wanted {
            let stays = segment.replicas.iter().filter(|replica| {
                let server = &cluster.servers[replica.server as usize];
                let is_served = replica.state == ReplicaState::Served && server.state == ServerState::Serving;
                is_served && server.tier == *tier && !dropped.contains(&(index, replica.server))
            });
            assert!(stays.count() as u32 >= *want, "segment {index} is dropped too often");
        }
    }
}

#[test]
fn all_segments_get_their_replicas_spread_evenly() {
    let mut cluster = cluster(5, 200);
    let rounds = settle(&mut cluster, &Limits::default());
    assert!(rounds <= 3, "{rounds} rounds");
    let mut counts = vec![0; 5];
    for segment in &cluster.segments {
        assert_eq!(segment.replicas.len(), 2);
        segment.replicas.iter().for_each(|replica| counts[replica.server as usize] += 1);
    }
    assert!(counts.iter().all(|count| (70..=90).contains(count)), "{counts:?}");
}

#[test]
fn what_nobody_serves_comes_first_and_the_newest_of_it() {
    let mut cluster = cluster(3, 6);
    cluster.segments[5].replicas = served(&[0]);
    let limits = Limits { queue_len: 2, ..Limits::default() };
    let plan = plan(&cluster, &limits, 1);
    check(&cluster, &limits, &plan);
    let loads = plan.loads.iter().map(|load| (load.segment, load.reason)).collect::<Vec<_>>();
    let unavailable = [4, 3, 2, 1, 0].map(|segment| (segment, LoadReason::Unavailable));
    assert_eq!(loads[..5], unavailable);
    assert_eq!(loads.len(), 6, "and then, as the queues allow, replicas");
}

#[test]
fn replicas_beyond_those_wanted_are_dropped_by_the_fullest_once_all_are_served() {
    let mut cluster = cluster(3, 12);
    for segment in &mut cluster.segments {
        segment.replicas = served(&[0, 1]);
    }
    cluster.segments[0].replicas = served(&[0, 1, 2]);
    let plan_now = plan(&cluster, &Limits { imbalance_percent: 90, ..Limits::default() }, 1);
    assert_eq!(plan_now.drops.len(), 1);
    assert!(plan_now.drops[0].server < 2, "server 2 is the emptiest");
    cluster.segments[0].replicas[0].state = ReplicaState::Loading;
    let plan_now = plan(&cluster, &Limits { imbalance_percent: 90, ..Limits::default() }, 1);
    assert_eq!(plan_now.drops, [Drop { segment: 0, server: 0 }], "what is still on its way goes first");
}

#[test]
fn a_server_that_is_drained_is_emptied_without_a_moment_of_too_few() {
    let mut cluster = cluster(3, 30);
    settle(&mut cluster, &Limits::default());
    cluster.servers[0].state = ServerState::Draining;
    settle(&mut cluster, &Limits::default());
    for segment in &cluster.segments {
        let mut servers = segment.replicas.iter().map(|replica| replica.server).collect::<Vec<_>>();
        servers.sort_unstable();
        assert_eq!(servers, [1, 2]);
    }
}

#[test]
fn a_server_that_is_absent_is_waited_for_unless_nobody_else_serves() {
    let mut cluster = cluster(4, 2);
    cluster.segments[0].replicas = served(&[0, 1]);
    cluster.segments[1].replicas = served(&[0]);
    cluster.segments[1].want = 4;
    cluster.wants.push(Want::Load(vec![(0, 1)]));
    cluster.servers[0].state = ServerState::Absent;
    let plan_now = plan(&cluster, &Limits::default(), 1);
    check(&cluster, &Limits::default(), &plan_now);
    let loads = plan_now.loads.iter().map(|load| (load.segment, load.reason)).collect::<Vec<_>>();
    assert_eq!(loads, [(1, LoadReason::Unavailable)]);
    assert!(plan_now.drops.is_empty());
}

#[test]
fn when_many_servers_vanish_at_once_nobody_is_replaced() {
    let mut cluster = cluster(10, 50);
    settle(&mut cluster, &Limits::default());
    for server in &mut cluster.servers[..4] {
        server.state = ServerState::Absent;
    }
    // One of the others is drained meanwhile: that would want replicas too.
    cluster.servers[9].state = ServerState::Draining;
    let plan_now = plan(&cluster, &Limits::default(), 1);
    assert_eq!(plan_now.frozen_tiers, [0]);
    assert!(plan_now.loads.iter().all(|load| load.reason == LoadReason::Unavailable));
}

#[test]
fn a_slip_of_the_pen_takes_nothing_away_until_it_is_confirmed() {
    let mut cluster = cluster(3, 1_000);
    for segment in &mut cluster.segments {
        segment.replicas = served(&[0]);
    }
    let drop_first = |cluster: &mut Cluster, count: usize| {
        cluster.segments.iter_mut().take(count).for_each(|segment| segment.want = 1);
    };
    drop_first(&mut cluster, 100);
    let usual = plan(&cluster, &Limits::default(), 1);
    assert_eq!((usual.mark_unused.len(), usual.held_back.len()), (100, 0));
    drop_first(&mut cluster, 500);
    let unusual = plan(&cluster, &Limits::default(), 1);
    assert!(unusual.mark_unused.is_empty() && unusual.drops.is_empty());
    assert_eq!(unusual.held_back, [HeldBack { data_source: 0, dropped: 500, of: 1_000 }]);
    let guard = Guard { confirmed: vec![0], ..Guard::default() };
    let confirmed = plan(&cluster, &Limits { guard, ..Limits::default() }, 1);
    assert_eq!((confirmed.mark_unused.len(), confirmed.drops.len()), (500, 500));
}

#[test]
fn a_tier_that_is_not_wanted_any_more_is_left_once_the_other_serves() {
    let mut cluster = cluster(2, 4);
    cluster.servers.extend([server(1, 1_000), server(1, 1_000)]);
    cluster.num_tiers = 2;
    settle(&mut cluster, &Limits::default());
    cluster.wants[0] = Want::Load(vec![(1, 1)]);
    let plan_now = plan(&cluster, &Limits::default(), 7);
    assert!(plan_now.drops.is_empty() && plan_now.loads.len() == 4);
    settle(&mut cluster, &Limits::default());
    for segment in &cluster.segments {
        assert!(matches!(segment.replicas.as_slice(), [Replica { server: 2 | 3, .. }]));
    }
}

#[test]
fn what_is_hidden_goes_and_what_is_broadcast_is_everywhere() {
    let mut cluster = cluster(3, 2);
    cluster.segments[0].want = 2;
    cluster.segments[0].replicas = served(&[0, 1]);
    cluster.segments[1].want = 3;
    let plan_now = plan(&cluster, &Limits::default(), 1);
    check(&cluster, &Limits::default(), &plan_now);
    assert_eq!((plan_now.drops.len(), plan_now.loads.len(), plan_now.mark_unused.len()), (2, 3, 0));
    apply(&mut cluster, &plan_now);
    assert_eq!(plan(&cluster, &Limits::default(), 2), Plan::default());
}

#[test]
fn replicas_go_to_different_zones() {
    let mut cluster = cluster(6, 40);
    for (server, zone) in cluster.servers.iter_mut().zip([0, 0, 0, 0, 1, 1]) {
        server.zone = zone;
    }
    let plan_now = plan(&cluster, &Limits::default(), 3);
    apply(&mut cluster, &plan_now);
    for segment in &cluster.segments {
        let zones = segment.replicas.iter().map(|replica| cluster.servers[replica.server as usize].zone);
        assert_eq!(zones.collect::<HashSet<_>>().len(), 2);
    }
}

#[test]
fn a_new_server_takes_its_share_by_moves_and_then_there_is_rest() {
    let mut cluster = cluster(4, 1_000);
    settle(&mut cluster, &Limits::default());
    cluster.servers.push(server(0, 1_000));
    let limits = Limits { moves_per_tier: 50, ..Limits::default() };
    let rounds = settle(&mut cluster, &limits);
    assert!((4..60).contains(&rounds), "{rounds} rounds");
    let share = cluster.segments.iter().filter(|segment| segment.replicas.iter().any(|r| r.server == 4)).count();
    // 400 would be exact; servers may differ by five percent of 1,000.
    assert!((340..=420).contains(&share), "{share}");
}

fn clusters() -> impl Strategy<Value = Cluster> {
    let servers = proptest::collection::vec((0..2_u32, 0..3_u32, 20..200_u64, 0..8_u8), 1..9);
    let segments =
        proptest::collection::vec((0..40_i64, 0..9_u64, 0..6_u32, proptest::collection::vec(0..9_u32, 0..4)), 0..60);
    (servers, segments).prop_map(|(servers, segments)| {
        let servers = servers.into_iter().map(|(tier, zone, max_bytes, state)| Server {
            tier,
            zone,
            max_bytes,
            state: match state {
                0 => ServerState::Draining,
                1 => ServerState::Absent,
                _ => ServerState::Serving,
            },
        });
        let servers = servers.collect::<Vec<_>>();
        let segments = segments.into_iter().map(|(number, size_bytes, want, mut on)| {
            on.retain(|server| (*server as usize) < servers.len());
            on.sort_unstable();
            on.dedup();
            let states = [ReplicaState::Served, ReplicaState::Loading, ReplicaState::Dropping, ReplicaState::Served];
            let replica =
                |server: ServerIndex| Replica { server, state: states[(server as usize + number as usize) % 4] };
            Segment {
                data_source: number.unsigned_abs() as u32 % 2,
                replicas: on.into_iter().map(replica).collect(),
                ..segment(number, size_bytes, want)
            }
        });
        let segments = segments.collect();
        let load = |tiers: &[(u32, u32)]| Want::Load(tiers.to_vec());
        let wants =
            vec![load(&[(0, 2)]), Want::Drop, Want::Unload, Want::Broadcast, load(&[(0, 1), (1, 1)]), load(&[(1, 3)])];
        Cluster { servers, segments, wants, num_tiers: 2, num_data_sources: 2 }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_plan_keeps_its_promises(cluster in clusters(), seed in any::<u64>(), queue_len in 1..9_u32) {
        let limits = Limits { queue_len, replicas_per_tier: 7, moves_per_tier: 3, ..Limits::default() };
        check(&cluster, &limits, &plan(&cluster, &limits, seed));
    }

    /// Once servers have done what they were told, and with nothing changing around them.
    #[test]
    fn it_comes_to_rest_with_all_that_there_is_room_for(mut cluster in clusters()) {
        for segment in &mut cluster.segments {
            segment.replicas.retain(|replica| replica.state == ReplicaState::Served);
        }
        for server in &mut cluster.servers {
            server.max_bytes = 1_000;
        }
        settle(&mut cluster, &Limits::default());
        for segment in &cluster.segments {
            let Want::Load(wanted) = &cluster.wants[segment.want as usize] else { continue };
            for (tier, want) in wanted {
                let serving = cluster.servers.iter().filter(|s| s.tier == *tier && s.state == ServerState::Serving);
                let absent = cluster.servers.iter().filter(|s| s.tier == *tier && s.state == ServerState::Absent);
                // Who is absent may hold some, and may keep the tier from being touched.
                if absent.count() == 0 {
                    let have = count(&cluster, segment, *tier).served;
                    prop_assert!(have >= (*want).min(serving.count() as u32));
                }
            }
        }
    }
}
