//! The catalog at size: `cargo bench --bench catalog -- [segments=10000000]`.
//!
//! A timeline of ten million segments: how fast it is built, what it weighs, how long look-ups take; and one plan of the
//! coordinator for 1,000 servers and a tenth of the segments. Everything is made up, in memory. Nothing is asserted.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_catalog::assignment::{self, Cluster, Limits, Replica, ReplicaState, Segment, Server, ServerState, Want};
use henge_catalog::timeline::{Addition, GroupKind, Timeline};
use henge_engine::model::{Interval, Timestamp};

type Done<T = ()> = Result<T, Box<dyn Error>>;

const START_MS: i64 = 1_375_315_200_000;
const MINUTE_MS: i64 = 60_000;
const LOOKUPS: usize = 20_000;
/// Segments that one publication brings.
const BATCH: i64 = 10_000;

fn main() -> Done {
    // What `cargo test --all-targets` runs is built without optimisation: nothing to measure there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let given = std::env::args().find_map(|argument| argument.strip_prefix("segments=").map(str::to_owned));
    let segments: i64 = given.map_or(Ok(10_000_000), |text| text.parse())?;
    for partitions in [10, 1] {
        timeline(segments, partitions)?;
    }
    planning(segments / 10)
}

/// Chunks of a minute each.
fn timeline(segments: i64, partitions: i64) -> Done {
    let before = resident_bytes();
    let began = Instant::now();
    let mut timeline = Timeline::new();
    let version: Arc<str> = "2013-08-08T21:22:48.989Z".into();
    for first in (0..segments).step_by(BATCH as usize) {
        let additions = (first..(first + BATCH).min(segments)).map(|number| -> Done<_> {
            let chunk = number / partitions;
            Ok(Addition {
                interval: minutes(chunk, 1)?,
                version: Arc::clone(&version),
                kind: GroupKind::Data,
                core_size: 0,
                partition: u32::try_from(number % partitions)?,
                segment: u32::try_from(number)?,
            })
        });
        timeline.apply(&[], additions.collect::<Done<Vec<_>>>()?)?;
    }
    let took = began.elapsed();
    let bytes = resident_bytes().saturating_sub(before) as f64 / segments as f64;
    let rate = segments as f64 / took.as_secs_f64() / 1e3;
    println!("timeline of {segments} segments, {partitions} in a chunk: {rate:.0} k/s, {bytes:.0} bytes a segment");
    let chunks = segments / partitions;
    for (name, length) in [("one hour", 60), ("one day", 1440), ("30 days", 43_200), ("all", chunks)] {
        let length = length.min(chunks);
        let lookups = if length == chunks { 20 } else { LOOKUPS };
        lookup(&timeline, name, (chunks, length), lookups)?;
    }
    Ok(())
}

fn lookup(timeline: &Timeline<u32>, name: &str, (chunks, length): (i64, i64), lookups: usize) -> Done {
    let visible = timeline.visible();
    let mut times = Vec::with_capacity(lookups);
    let mut at = 1_u64;
    for _ in 0..lookups {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let first = ((at >> 33) as i64) % (chunks - length + 1);
        let interval = minutes(first, length)?;
        let began = Instant::now();
        let found: usize = visible.data(interval).map(|entry| entry.group.partitions().len()).sum();
        times.push(began.elapsed());
        black_box(found);
    }
    times.sort_unstable();
    let at = |percent: usize| micros(times[(times.len() - 1) * percent / 100]);
    println!("  look-up of {name}: median {}, p99 {}", at(50), at(99));
    Ok(())
}

fn micros(duration: Duration) -> String {
    format!("{:.1} µs", duration.as_secs_f64() * 1e6)
}

fn minutes(first: i64, count: i64) -> Done<Interval> {
    let at = |minute: i64| Timestamp::from_millis(START_MS + minute * MINUTE_MS);
    Ok(Interval::new(at(first), at(first + count))?)
}

/// A cluster that has settled, then one that lost a server, then one that gets another, then one that knows nothing.
fn planning(segments: i64) -> Done {
    const SERVERS: u32 = 1_000;
    let servers = (0..SERVERS).map(|number| Server {
        tier: 0,
        zone: number % 3,
        max_bytes: 100 * segments.unsigned_abs(),
        state: ServerState::Serving,
    });
    let new = (0..segments).map(|number| -> Done<_> {
        let (interval, size_bytes) = (minutes(number / 10, 1)?, 10_000 + number.unsigned_abs() % 1_000);
        Ok(Segment { data_source: (number % 100) as u32, interval, size_bytes, want: 0, replicas: Vec::new() })
    });
    let mut cluster = Cluster {
        servers: servers.collect(),
        segments: new.collect::<Done<_>>()?,
        wants: vec![Want::Load(vec![(0, 2)])],
        num_tiers: 1,
        num_data_sources: 100,
    };
    let limits = Limits { queue_len: u32::MAX, replicas_per_tier: u32::MAX, ..Limits::default() };
    println!("plans for {SERVERS} servers and {segments} segments of two replicas each:");
    let plan = planned("nothing is loaded, and nothing limits", &cluster, &limits);
    for load in &plan.loads {
        let replica = Replica { server: load.server, state: ReplicaState::Served };
        cluster.segments[load.segment as usize].replicas.push(replica);
    }
    planned("everything is loaded", &cluster, &Limits::default());
    cluster.servers.push(Server { ..cluster.servers[0].clone() });
    planned("a new server", &cluster, &Limits::default());
    cluster.servers[0].state = ServerState::Draining;
    planned("a server to be emptied", &cluster, &limits);
    Ok(())
}

fn planned(what: &str, cluster: &Cluster, limits: &Limits) -> assignment::Plan {
    let began = Instant::now();
    let plan = assignment::plan(cluster, limits, 1);
    let took = began.elapsed().as_secs_f64() * 1e3;
    println!("  {what}: {took:.0} ms, {} loads, {} drops", plan.loads.len(), plan.drops.len());
    plan
}

/// What this process holds, where the system tells; 0 elsewhere.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
