use std::collections::BTreeSet;
use std::time::Instant;

use henge_engine::model::Timestamp;
use proptest::prelude::*;

use super::*;

fn interval(start: i64, end: i64) -> Interval {
    Interval::new(Timestamp::from_millis(start), Timestamp::from_millis(end)).expect("not empty")
}

fn data(span: (i64, i64), version: &str, core_size: u32, partition: u32) -> Addition<u32> {
    Addition {
        interval: interval(span.0, span.1),
        version: version.into(),
        kind: GroupKind::Data,
        core_size,
        partition,
        segment: partition,
    }
}

fn removal(addition: &Addition<u32>) -> Removal {
    Removal { interval: addition.interval, version: Arc::clone(&addition.version), partition: addition.partition }
}

fn shown(timeline: &Timeline<u32>) -> Vec<(i64, i64, String, Vec<u32>)> {
    let entries = timeline.visible().entries().map(|entry| {
        let partitions = entry.group.partitions().iter().map(|(number, _)| *number).collect();
        (entry.clip.start().millis(), entry.clip.end().millis(), entry.group.version().to_string(), partitions)
    });
    entries.collect()
}

fn timeline(additions: Vec<Addition<u32>>) -> Timeline<u32> {
    let mut timeline = Timeline::new();
    timeline.apply(&[], additions).expect("valid additions");
    timeline
}

#[test]
fn newer_version_overshadows_older_where_it_is_and_clips_it_elsewhere() {
    let timeline = timeline(vec![data((0, 24), "1", 1, 0), data((8, 10), "2", 1, 0)]);
    let expected =
        vec![(0, 8, "1".to_owned(), vec![0]), (8, 10, "2".to_owned(), vec![0]), (10, 24, "1".to_owned(), vec![0])];
    assert_eq!(shown(&timeline), expected);
    assert!(!timeline.is_overshadowed(&interval(0, 24), "1"));
}

#[test]
fn a_group_is_hidden_until_its_core_is_complete() {
    let mut timeline = timeline(vec![data((0, 24), "1", 1, 0), data((0, 24), "2", 2, 1), data((0, 24), "2", 2, 2)]);
    assert_eq!(shown(&timeline), vec![(0, 24, "1".to_owned(), vec![0])]);
    timeline.apply(&[], vec![data((0, 24), "2", 2, 0)]).expect("valid");
    assert_eq!(shown(&timeline), vec![(0, 24, "2".to_owned(), vec![0, 1, 2])]);
    assert!(timeline.is_overshadowed(&interval(0, 24), "1"));
}

#[test]
fn appended_partitions_are_visible_at_once_and_need_not_begin_at_zero() {
    let mut timeline = timeline(vec![data((0, 24), "1", 0, 3)]);
    timeline.apply(&[], vec![data((0, 24), "1", 0, 7)]).expect("valid");
    assert_eq!(shown(&timeline), vec![(0, 24, "1".to_owned(), vec![3, 7])]);
}

#[test]
fn what_a_removed_version_hid_is_seen_again() {
    let newer = data((0, 10), "2", 1, 0);
    let mut timeline = timeline(vec![data((0, 5), "1", 1, 0), data((5, 24), "0", 1, 0), newer.clone()]);
    timeline.apply(&[removal(&newer)], vec![]).expect("valid");
    let expected = vec![(0, 5, "1".to_owned(), vec![0]), (5, 24, "0".to_owned(), vec![0])];
    assert_eq!(shown(&timeline), expected);
}

#[test]
fn tombstones_shadow_and_are_not_scanned() {
    let tombstone = Addition { kind: GroupKind::Tombstone, ..data((0, 10), "2", 1, 0) };
    let timeline = timeline(vec![data((0, 10), "1", 1, 0), tombstone]);
    assert_eq!(timeline.visible().data(interval(0, 24)).count(), 0);
    assert!(timeline.is_overshadowed(&interval(0, 10), "1"));
}

#[test]
fn unequal_overlapping_intervals_of_one_version_are_refused() {
    let mut timeline = timeline(vec![data((0, 24), "1", 1, 0)]);
    for addition in [data((0, 10), "1", 1, 0), data((23, 30), "1", 1, 0), data((-5, 40), "1", 1, 0)] {
        assert!(timeline.apply(&[], vec![addition]).is_err());
    }
    let both = vec![data((30, 34), "1", 1, 0), data((33, 40), "1", 1, 0)];
    assert!(timeline.apply(&[], both).is_err());
    assert_eq!(shown(&timeline).len(), 1);
    timeline.apply(&[removal(&data((0, 24), "1", 1, 0))], vec![data((0, 10), "1", 1, 0)]).expect("the other goes");
}

#[test]
fn the_same_partition_twice_and_unlike_core_sizes_are_refused() {
    let mut timeline = timeline(vec![data((0, 24), "1", 1, 0)]);
    assert!(timeline.apply(&[], vec![data((0, 24), "1", 1, 0)]).is_err());
    assert!(timeline.apply(&[], vec![data((0, 24), "1", 2, 1)]).is_err());
    let twice = vec![data((0, 24), "2", 0, 1), data((0, 24), "2", 0, 1)];
    assert!(timeline.apply(&[], twice).is_err());
}

#[test]
fn a_view_taken_before_a_change_stays_as_it_was() {
    let mut timeline = timeline(vec![data((0, 24), "1", 1, 0)]);
    let before = timeline.visible().clone();
    timeline.apply(&[], vec![data((0, 24), "2", 1, 0)]).expect("valid");
    let versions = before.entries().map(|entry| entry.group.version().to_string()).collect::<Vec<_>>();
    assert_eq!(versions, ["1"]);
}

/// The definition, instant by instant over a short day, from the segments themselves.
fn naive(
    segments: &BTreeSet<(i64, i64, u8, u32)>,
    core_sizes: &dyn Fn(i64, i64, u8) -> u32,
) -> Vec<Option<(u8, Vec<u32>)>> {
    let at = |t: i64| {
        let groups = segments.iter().map(|(start, end, version, _)| (*start, *end, *version)).collect::<BTreeSet<_>>();
        let partitions = |group: &(i64, i64, u8)| {
            let of_group = segments.iter().filter(|s| (s.0, s.1, s.2) == *group);
            of_group.map(|s| s.3).collect::<Vec<_>>()
        };
        let complete = groups.into_iter().filter(|group| {
            let core = core_sizes(group.0, group.1, group.2);
            group.0 <= t && t < group.1 && (0..core).all(|number| partitions(group).contains(&number))
        });
        complete.max_by_key(|group| group.2).map(|group| (group.2, partitions(&group)))
    };
    (0..SHORT_DAY).map(at).collect()
}

const SHORT_DAY: i64 = 24;

#[derive(Clone, Debug)]
enum Step {
    Add { slot: i64, version: u8, partition: u32 },
    Remove { index: usize },
}

/// Within a version all groups have one width, so that they are equal or disjoint; versions differ in width.
fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let add =
        (0..24_i64, 0..6_u8, 0..3_u32).prop_map(|(slot, version, partition)| Step::Add { slot, version, partition });
    let step = prop_oneof![3 => add, 2 => (0..64_usize).prop_map(|index| Step::Remove { index })];
    proptest::collection::vec(proptest::collection::vec(step, 1..6), 1..30)
}

fn core_size(start: i64, _end: i64, version: u8) -> u32 {
    u32::from(version) % 3 * u32::from(start % 2 == 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_timeline_equals_its_naive_definition(batches in steps(), width_of in proptest::array::uniform6(0..4_usize)) {
        let mut timeline = Timeline::new();
        let mut segments = BTreeSet::new();
        for batch in batches {
            let (mut removals, mut additions) = (Vec::new(), Vec::new());
            let before = segments.clone();
            for step in batch {
                match step {
                    Step::Add { slot, version, partition } => {
                        let width = [1, 2, 6, 24][width_of[usize::from(version)]];
                        let start = slot / width * width;
                        let key = (start, start + width, version, partition);
                        if !before.contains(&key) && segments.insert(key) {
                            let core = core_size(start, start + width, version);
                            additions.push(data((start, start + width), &version.to_string(), core, partition));
                        }
                    }
                    Step::Remove { index } => {
                        let Some(key) = before.iter().nth(index).copied() else { continue };
                        segments.remove(&key);
                        removals.push(removal(&data((key.0, key.1), &key.2.to_string(), 0, key.3)));
                    }
                }
            }
            timeline.apply(&removals, additions).expect("valid steps");
            check(&timeline, &segments);
        }
    }
}

fn check(timeline: &Timeline<u32>, segments: &BTreeSet<(i64, i64, u8, u32)>) {
    let expected = naive(segments, &core_size);
    let entries = timeline.visible().entries().cloned().collect::<Vec<_>>();
    assert!(entries.windows(2).all(|pair| pair[0].clip.end() <= pair[1].clip.start()), "disjoint and ordered");
    for (t, expected) in (0_i64..).zip(&expected) {
        let mut found = timeline.visible().lookup(interval(t, t + 1)).map(|entry| {
            assert!(entry.clip.contains(Timestamp::from_millis(t)));
            let partitions = entry.group.partitions().iter().map(|(number, _)| *number).collect::<Vec<_>>();
            (entry.group.version().parse::<u8>().expect("a number"), partitions)
        });
        assert_eq!(&found.next(), expected, "at {t} of {segments:?}");
        assert!(found.next().is_none());
    }
    for (start, end, version, _) in segments {
        let hidden = (*start..*end).all(|t| expected[t as usize].as_ref().is_some_and(|(seen, _)| seen > version));
        assert_eq!(timeline.is_overshadowed(&interval(*start, *end), &version.to_string()), hidden);
    }
    let (first, last) = (5, 17);
    let overlapping = entries.iter().filter(|entry| entry.clip.overlaps(&interval(first, last))).count();
    assert_eq!(timeline.visible().lookup(interval(first, last)).count(), overlapping);
}

/// More than one leaf, at which the short day above never arrives.
#[test]
fn many_chunks_are_found_again_after_changes_anywhere() {
    let span = |i: i64| (i * 10, i * 10 + 10);
    let mut timeline = timeline((0..5000).map(|i| data(span(i * 7 % 5000), "1", 1, 0)).collect());
    for i in (0..5000).step_by(3) {
        timeline.apply(&[removal(&data(span(i), "1", 1, 0))], vec![]).expect("valid");
    }
    timeline.apply(&[], vec![data((12_345, 23_456), "2", 1, 0), data((0, 50_000), "0", 1, 0)]).expect("valid");
    for t in 0..50_000 {
        let expected = if (12_345..23_456).contains(&t) {
            "2"
        } else if t / 10 % 3 == 0 {
            "0"
        } else {
            "1"
        };
        let found = timeline.visible().lookup(interval(t, t + 1)).map(|e| e.group.version().to_string());
        assert_eq!(found.collect::<Vec<_>>(), [expected], "at {t}");
    }
    timeline.apply(&[removal(&data((12_345, 23_456), "2", 1, 0))], vec![]).expect("valid");
    assert_eq!(timeline.visible().entries().count(), 5000);
}

/// Figures, not a test: `cargo test --release -p henge-catalog -- --ignored --nocapture timeline_figures`.
#[test]
#[ignore = "prints figures; takes memory"]
#[allow(clippy::print_stdout)]
fn timeline_figures() {
    const DAY: i64 = 86_400_000;
    let count = 1_000_000_i64;
    let version: Arc<str> = "2026-01-01T00:00:00.000Z".into();
    let additions = (0..count)
        .map(|i| Addition { version: Arc::clone(&version), ..data((i * 60_000, (i + 1) * 60_000), "", 1, 0) });
    let additions = additions.collect::<Vec<_>>();
    let began = Instant::now();
    let mut timeline = Timeline::new();
    timeline.apply(&[], additions).expect("valid");
    println!("build: {:.0} segments/s", count as f64 / began.elapsed().as_secs_f64());
    let began = Instant::now();
    let found: usize = (0..1000)
        .map(|i| {
            let start = (i * 7919 % 690) * DAY;
            timeline.visible().lookup(interval(start, start + DAY)).count()
        })
        .sum();
    println!("one day of minutes: {:.1} µs, {found} found", began.elapsed().as_secs_f64() * 1e6 / 1000.0);
    let began = Instant::now();
    for i in 0..1000 {
        let seen = timeline.visible().clone();
        timeline.apply(&[], vec![data((i * DAY, i * DAY + 1), "3", 1, 0)]).expect("valid");
        drop(seen);
    }
    println!("one change with readers: {:.1} µs", began.elapsed().as_secs_f64() * 1e6 / 1000.0);
}
