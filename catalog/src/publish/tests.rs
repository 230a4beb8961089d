use std::collections::BTreeMap;

use proptest::prelude::*;

use henge_engine::storage::LoadSpec;

use super::*;
use crate::store::{MemoryStore, Published};

fn time(text: &str) -> Timestamp {
    text.parse().expect("valid time")
}

pub(super) fn interval(text: &str) -> Interval {
    text.parse().expect("valid interval")
}

fn hours(from: i64, to: i64) -> Interval {
    let hour = |n: i64| Timestamp::from_millis(time("2013-08-01").millis() + n * 3_600_000);
    Interval::new(hour(from), hour(to)).expect("not empty")
}

fn segment(interval: Interval, number: u64) -> NewSegment {
    let uid = SegmentUid::new(time("2026-01-01"), number.into());
    NewSegment {
        interval,
        uid,
        pushed: PushedSegment {
            load_spec: LoadSpec::Local { path: uid.to_string() },
            size_bytes: 1,
            hash: String::new(),
        },
        schema: Arc::new(SegmentSchema::new([]).expect("valid schema")),
        num_rows: number,
        time_range: None,
    }
}

/// A lone segment.
pub(super) fn record_of(interval: Interval, version: &str) -> SegmentRecord {
    let request = request("", PublishMode::Append, Vec::new());
    let place = Place { interval, version, partition: 0, core_size: 1 };
    record(&request, &Overlap::default(), &segment(interval, 1), place)
}

fn request(publish_id: &str, mode: PublishMode, segments: Vec<NewSegment>) -> PublishRequest {
    PublishRequest {
        publish_id: publish_id.to_owned(),
        data_source: "wiki".to_owned(),
        mode,
        segments,
        now: time("2026-01-01"),
        intended_pushes: 0,
        advances: Vec::new(),
        sink: None,
        tombstone_uids: |now| SegmentUid::new(now, rand::random()),
        standing: crate::store::Standing::Active,
    }
}

fn replace(intervals: Vec<Interval>, since_rev: u64) -> PublishMode {
    PublishMode::Replace { intervals, since_rev }
}

async fn done(store: &MemoryStore, request: &PublishRequest) -> Result<Published> {
    match publish(store, request).await? {
        Publish::Done(published) => Ok(published),
        Publish::DoneBefore { .. } => panic!("published before"),
    }
}

/// What is visible: for each hour of the day, the numbers of the segments whose rows are seen.
async fn seen(store: &MemoryStore) -> Result<BTreeMap<i64, Vec<u64>>> {
    let records = store.snapshot().await?.segments;
    let number_of = |id: &SegmentId| records.iter().find(|record| record.id == *id).map(|record| record.num_rows);
    let mut timeline = Timeline::new();
    timeline.apply(&[], records.iter().map(addition).collect())?;
    let mut seen = BTreeMap::new();
    for hour in -48..72 {
        for entry in timeline.visible().data(hours(hour, hour + 1)) {
            let mut numbers = entry.group.partitions().iter().filter_map(|(_, id)| number_of(id)).collect::<Vec<_>>();
            numbers.sort_unstable();
            seen.insert(hour, numbers);
        }
    }
    Ok(seen)
}

fn ids(published: &Published) -> Vec<String> {
    published.added.iter().map(|record| record.id.to_string()).collect()
}

#[tokio::test]
async fn the_first_append_opens_a_chunk_and_later_ones_number_on() -> Result<()> {
    let store = MemoryStore::new();
    let day = interval("2013-08-01/2013-08-02");
    let first = done(&store, &request("a", PublishMode::Append, vec![segment(day, 1), segment(day, 2)])).await?;
    let prefix = "wiki_2013-08-01T00:00:00.000Z_2013-08-02T00:00:00.000Z_1970-01-01T00:00:00.000Z";
    assert_eq!(ids(&first), [prefix.to_owned(), format!("{prefix}_1")]);
    let second = done(&store, &request("b", PublishMode::Append, vec![segment(day, 3)])).await?;
    assert_eq!(ids(&second), [format!("{prefix}_2")]);
    assert_eq!(seen(&store).await?[&0], [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn replacing_overshadows_and_marks_unused_and_appends_join_the_new_version() -> Result<()> {
    let store = MemoryStore::new();
    let day = hours(0, 24);
    done(&store, &request("a", PublishMode::Append, vec![segment(day, 1)])).await?;
    let replaced = done(&store, &request("b", replace(vec![], 1), vec![segment(day, 2), segment(day, 3)])).await?;
    assert_eq!(replaced.marked_unused.len(), 1);
    assert_eq!(replaced.added[0].id.version, "2026-01-01T00:00:00.000Z");
    assert_eq!(replaced.added[1].shard_spec, ShardSpec::Numbered { partition_num: 1, partitions: 2 });
    let appended = done(&store, &request("c", PublishMode::Append, vec![segment(day, 4)])).await?;
    assert_eq!(appended.added[0].shard_spec, ShardSpec::Numbered { partition_num: 2, partitions: 2 });
    assert_eq!(seen(&store).await?[&0], [2, 3, 4]);
    Ok(())
}

#[tokio::test]
async fn a_clock_that_steps_back_cannot_hide_a_replacement() -> Result<()> {
    let store = MemoryStore::new();
    done(&store, &request("a", replace(vec![], 0), vec![segment(hours(0, 24), 1)])).await?;
    let earlier =
        PublishRequest { now: time("2020-01-01"), ..request("b", replace(vec![], 1), vec![segment(hours(0, 24), 2)]) };
    let published = done(&store, &earlier).await?;
    assert_eq!(published.added[0].id.version, "2026-01-01T00:00:00.001Z");
    assert_eq!(seen(&store).await?[&0], [2]);
    assert_eq!(after("v1"), "v1.1");
    Ok(())
}

#[tokio::test]
async fn finer_replacements_clip_and_the_last_one_marks_the_day_unused() -> Result<()> {
    let store = MemoryStore::new();
    done(&store, &request("a", replace(vec![], 0), vec![segment(hours(0, 24), 1)])).await?;
    let first = done(&store, &request("b", replace(vec![], 1), vec![segment(hours(0, 12), 2)])).await?;
    assert!(first.marked_unused.is_empty());
    let visible = seen(&store).await?;
    assert_eq!((&visible[&11], &visible[&12]), (&vec![2], &vec![1]));
    let second = done(&store, &request("c", replace(vec![], 2), vec![segment(hours(12, 24), 3)])).await?;
    assert_eq!(second.marked_unused.len(), 1);
    Ok(())
}

#[tokio::test]
async fn appends_go_into_a_coarser_chunk_and_refuse_to_cut_across() -> Result<()> {
    let store = MemoryStore::new();
    done(&store, &request("a", replace(vec![], 0), vec![segment(hours(0, 24), 1)])).await?;
    let late = done(&store, &request("b", PublishMode::Append, vec![segment(hours(3, 4), 2)])).await?;
    assert_eq!(late.added[0].id.interval, hours(0, 24));
    let across = publish(&store, &request("c", PublishMode::Append, vec![segment(hours(20, 30), 3)])).await;
    let message = across.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("use the segment granularity that is there, or replace"), "{message}");
    assert_eq!(store.rev("wiki").await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_replaced_interval_without_rows_is_empty_even_under_a_coarser_segment() -> Result<()> {
    let store = MemoryStore::new();
    done(&store, &request("a", replace(vec![], 0), vec![segment(hours(0, 24), 1)])).await?;
    done(&store, &request("b", replace(vec![], 1), vec![segment(hours(3, 4), 2)])).await?;
    let emptied = done(&store, &request("c", replace(vec![hours(2, 6)], 2), vec![])).await?;
    assert_eq!(emptied.added.len(), 1);
    assert_eq!(emptied.added[0].load_spec, LoadSpec::Tombstone);
    let visible = seen(&store).await?;
    assert_eq!(visible.keys().copied().filter(|hour| (0..24).contains(hour)).collect::<Vec<_>>().len(), 20);
    assert!(!visible.contains_key(&3) && visible.contains_key(&6));

    let whole = done(&store, &request("d", replace(vec![hours(0, 24)], 3), vec![])).await?;
    assert!(whole.added.is_empty(), "what lies within is marked unused, no tombstone is needed");
    assert!(store.snapshot().await?.segments.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_append_onto_a_tombstone_is_visible() -> Result<()> {
    let store = MemoryStore::new();
    done(&store, &request("a", replace(vec![], 0), vec![segment(hours(0, 24), 1)])).await?;
    done(&store, &request("b", replace(vec![hours(2, 6)], 1), vec![])).await?;
    done(&store, &request("c", PublishMode::Append, vec![segment(hours(3, 4), 5)])).await?;
    let visible = seen(&store).await?;
    assert_eq!((visible.get(&2), visible.get(&3), &visible[&7]), (None, Some(&vec![5]), &vec![1]));
    Ok(())
}

/// An append that was acknowledged while a replacement of the same day was being made must not vanish with it.
#[tokio::test]
async fn what_was_appended_meanwhile_is_issued_anew_with_the_same_bytes() -> Result<()> {
    let store = MemoryStore::new();
    done(&store, &request("a", replace(vec![], 0), vec![segment(hours(0, 24), 1)])).await?;
    let since = store.rev("wiki").await?;
    let appended = done(&store, &request("b", PublishMode::Append, vec![segment(hours(0, 24), 2)])).await?;
    let replaced = done(&store, &request("c", replace(vec![], since), vec![segment(hours(0, 24), 3)])).await?;
    assert_eq!(seen(&store).await?[&5], [2, 3]);
    assert_eq!(replaced.added[1].uid, appended.added[0].uid);
    assert_eq!(replaced.marked_unused.len(), 2);

    let cut = publish(&store, &request("d", replace(vec![], since), vec![segment(hours(0, 12), 4)])).await;
    assert!(cut.is_err_and(|error| error.is_retryable()));
    done(&store, &request("e", replace(vec![hours(0, 24)], since), vec![])).await?;
    assert_eq!(seen(&store).await?[&5], [2], "only the append is left");
    Ok(())
}

/// The law behind all of it: after any run of publications an hour shows exactly the rows of the last replacement
/// of it, and of the appends to it since. Refusals change nothing.
#[derive(Clone, Debug)]
struct Step {
    append: bool,
    start: i64,
    width: i64,
    with_rows: bool,
    whole: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<bool>(), 0..8_i64, prop_oneof![Just(1_i64), Just(2), Just(4), Just(8)], 0..4_u8, any::<bool>());
    let step = step.prop_map(|(append, slot, width, rows, whole)| Step {
        append,
        start: slot / width * width,
        width,
        with_rows: append || rows > 0,
        whole,
    });
    proptest::collection::vec(step, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_hour_shows_its_last_replacement_and_the_appends_since(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(check(steps)).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
}

async fn check(steps: Vec<Step>) -> Result<()> {
    let store = MemoryStore::new();
    let mut model: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    let mut spans = BTreeMap::new();
    for (number, step) in (1_u64..).zip(steps) {
        let span = hours(step.start, step.start + step.width);
        spans.insert(number, span);
        let segments = if step.with_rows { vec![segment(span, number)] } else { vec![] };
        let mode = match step.append {
            true => PublishMode::Append,
            false => replace(if step.whole || !step.with_rows { vec![span] } else { vec![] }, store.rev("wiki").await?),
        };
        let Ok(Publish::Done(_)) = publish(&store, &request(&number.to_string(), mode, segments)).await else {
            assert!(step.append, "a replacement is never refused");
            continue;
        };
        for hour in step.start..step.start + step.width {
            let numbers = model.entry(hour).or_default();
            match (step.append, step.with_rows) {
                (true, _) => numbers.push(number),
                (false, true) => *numbers = vec![number],
                (false, false) => numbers.clear(),
            }
        }
    }
    let seen = seen(&store).await?;
    for hour in 0..8 {
        let expected = model.remove(&hour).unwrap_or_default();
        let found = seen.get(&hour).cloned().unwrap_or_default();
        // A segment appended to a coarser chunk shows all over it, its rows only where they are.
        let has_rows = |number: &u64| spans[number].overlaps(&hours(hour, hour + 1));
        let found = found.into_iter().filter(has_rows).collect::<Vec<_>>();
        assert_eq!(found, expected, "hour {hour}");
    }
    Ok(())
}

/// What may happen around a compaction.
#[derive(Clone, Debug)]
enum Event {
    Append,
    /// A new segment in place of what is there from one hour to another.
    Replace(i64, i64),
    /// Nothing in place of it.
    Empty(i64, i64),
    /// Whatever lies within is marked unused.
    MarkUnused(i64, i64),
    /// One of the groups that are seen whole is begun to be merged.
    Begin(usize),
    /// What was begun is published.
    End,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let span = || prop_oneof![Just((0_i64, 8_i64)), Just((0, 4)), Just((4, 8)), Just((2, 4))];
    let event = prop_oneof![
        4 => Just(Event::Append),
        1 => span().prop_map(|(from, to)| Event::Replace(from, to)),
        1 => span().prop_map(|(from, to)| Event::Empty(from, to)),
        1 => span().prop_map(|(from, to)| Event::MarkUnused(from, to)),
        3 => (0..4_usize).prop_map(Event::Begin),
        3 => Just(Event::End),
    ];
    proptest::collection::vec(event, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_compaction_changes_no_hour_whatever_happens_meanwhile(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(check_compactions(events)).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
}

/// Each segment has a bit of its own as its number of rows; a merged one, those of its inputs.
async fn check_compactions(events: Vec<Event>) -> Result<()> {
    let store = MemoryStore::new();
    let mut begun: Option<(Compacted, u64)> = None;
    let mut expected = BTreeMap::new();
    for (number, event) in events.into_iter().enumerate() {
        let name = number.to_string();
        let bit = 1_u64 << number;
        let is_compaction = matches!(event, Event::Begin(_) | Event::End);
        match event {
            Event::Append => {
                drop(publish(&store, &request(&name, PublishMode::Append, vec![segment(hours(0, 8), bit)])).await)
            }
            Event::Replace(from, to) => {
                let mode = replace(vec![hours(from, to)], store.rev("wiki").await?);
                done(&store, &request(&name, mode, vec![segment(hours(from, to), bit)])).await?;
            }
            Event::Empty(from, to) => {
                let mode = replace(vec![hours(from, to)], store.rev("wiki").await?);
                done(&store, &request(&name, mode, vec![])).await?;
            }
            Event::MarkUnused(from, to) => drop(store.mark_unused("wiki", hours(from, to), time("2026-01-01")).await?),
            Event::Begin(which) => begun = begin(&store, which).await?.or(begun),
            Event::End => {
                if let Some((compacted, bits)) = begun.take() {
                    let merged = segment(compacted.interval, bits);
                    let published =
                        publish(&store, &request(&name, PublishMode::Compact(compacted), vec![merged])).await;
                    assert!(published.as_ref().err().is_none_or(Error::is_retryable), "{published:?}");
                }
            }
        }
        let seen = seen(&store).await?;
        for (hour, numbers) in &seen {
            let all = numbers.iter().fold(0, |all, number| all | number);
            assert_eq!(all, numbers.iter().sum::<u64>(), "rows are seen twice in hour {hour}: {numbers:?}");
        }
        let rows =
            seen.into_iter().map(|(hour, numbers)| (hour, numbers.iter().sum::<u64>())).collect::<BTreeMap<_, _>>();
        if is_compaction {
            assert_eq!(rows, expected, "event {number}");
        }
        expected = rows;
    }
    Ok(())
}

/// The group to merge, and what its segments hold together.
async fn begin(store: &MemoryStore, which: usize) -> Result<Option<(Compacted, u64)>> {
    let records = store.snapshot().await?.segments;
    let mut timeline = Timeline::new();
    timeline.apply(&[], records.iter().map(addition).collect())?;
    let whole = timeline.visible().data(Interval::ETERNITY).filter(|entry| entry.clip == entry.group.interval());
    let whole = whole.collect::<Vec<_>>();
    let Some(entry) = whole.get(which % whole.len().max(1)) else { return Ok(None) };
    let inputs = entry.group.partitions().iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
    let bits = records.iter().filter(|record| inputs.contains(&record.id)).map(|record| record.num_rows).sum();
    let compacted = Compacted { interval: entry.group.interval(), inputs, since_rev: store.rev("wiki").await? };
    Ok(Some((compacted, bits)))
}

#[tokio::test]
async fn what_was_appended_while_it_was_merged_stays_and_what_was_replaced_does_not_come_back() -> Result<()> {
    let store = MemoryStore::new();
    done(&store, &request("a", PublishMode::Append, vec![segment(hours(0, 24), 1)])).await?;
    done(&store, &request("b", PublishMode::Append, vec![segment(hours(0, 24), 2)])).await?;
    let (compacted, bits) = begin(&store, 0).await?.expect("a group");
    done(&store, &request("c", PublishMode::Append, vec![segment(hours(0, 24), 4)])).await?;
    let merged = request("d", PublishMode::Compact(compacted), vec![segment(hours(0, 24), bits)]);
    let published = done(&store, &merged).await?;
    assert_eq!((published.added.len(), published.marked_unused.len()), (2, 3));
    assert_eq!(seen(&store).await?[&5], [3, 4]);

    let (compacted, bits) = begin(&store, 0).await?.expect("a group");
    done(&store, &request("e", replace(vec![hours(3, 4)], store.rev("wiki").await?), vec![])).await?;
    let late = publish(&store, &request("f", PublishMode::Compact(compacted), vec![segment(hours(0, 24), bits)])).await;
    assert!(late.is_err_and(|error| error.is_retryable() && error.to_string().contains("while its rows were merged")));
    assert!(!seen(&store).await?.contains_key(&3));
    Ok(())
}
