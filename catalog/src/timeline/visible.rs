use std::sync::Arc;

use henge_engine::model::{Interval, Timestamp};

use super::{Group, GroupKind};

/// A leaf is cut in two beyond twice this many entries.
const LEAF_ENTRIES: usize = 256;

/// A part of time, and the group that is visible there.
#[derive(Debug)]
pub struct VisibleEntry<T> {
    /// Within the group's interval.
    pub clip: Interval,
    pub group: Arc<Group<T>>,
}

impl<T> Clone for VisibleEntry<T> {
    fn clone(&self) -> Self {
        Self { clip: self.clip, group: Arc::clone(&self.group) }
    }
}

type Leaf<T> = Arc<Vec<VisibleEntry<T>>>;

/// What a timeline shows: disjoint parts of time in their order, each with its group. A clone costs one count, and
/// shares all leaves that later changes leave alone.
#[derive(Debug)]
pub struct Visible<T> {
    /// None is empty.
    leaves: Arc<Vec<Leaf<T>>>,
}

impl<T> Clone for Visible<T> {
    fn clone(&self) -> Self {
        Self { leaves: Arc::clone(&self.leaves) }
    }
}

impl<T> Default for Visible<T> {
    fn default() -> Self {
        Self { leaves: Arc::default() }
    }
}

impl<T> Visible<T> {
    /// Everything visible, tombstones too.
    pub fn entries(&self) -> impl Iterator<Item = &VisibleEntry<T>> {
        self.leaves.iter().flat_map(|leaf| leaf.iter())
    }

    /// The entries that overlap `interval`, whole (their clip may reach out of it), tombstones too.
    pub fn lookup(&self, interval: Interval) -> impl Iterator<Item = &VisibleEntry<T>> {
        let (first, _) = self.leaf_range(&interval);
        let after = self.leaves.get(first).map_or(0, |leaf| ends_before(leaf, &interval));
        let leaves = self.leaves[first..].iter().flat_map(|leaf| leaf.iter());
        leaves.skip(after).take_while(move |entry| entry.clip.start() < interval.end())
    }

    /// The entries that overlap `interval` and hold rows.
    pub fn data(&self, interval: Interval) -> impl Iterator<Item = &VisibleEntry<T>> {
        self.lookup(interval).filter(|entry| entry.group.kind == GroupKind::Data)
    }

    /// The leaves that have an entry overlapping `interval`.
    fn leaf_range(&self, interval: &Interval) -> (usize, usize) {
        let ends_before = |leaf: &Leaf<T>| leaf.last().is_some_and(|last| last.clip.end() <= interval.start());
        let starts_before = |leaf: &Leaf<T>| leaf.first().is_some_and(|first| first.clip.start() < interval.end());
        (self.leaves.partition_point(ends_before), self.leaves.partition_point(starts_before))
    }

    /// Lets a complete group be seen wherever no greater version is.
    pub(super) fn show(&mut self, group: &Arc<Group<T>>) {
        let interval = group.interval;
        let (mut parts, mut tail) = (Parts::default(), Parts::default());
        let mut shown_until = interval.start();
        for entry in self.lookup(with_neighbours(&interval)) {
            parts.push(entry.clip.start(), interval.start(), &entry.group);
            tail.push(interval.end(), entry.clip.end(), &entry.group);
            if entry.group.version > group.version {
                let (start, end) = (entry.clip.start().max(interval.start()), entry.clip.end().min(interval.end()));
                parts.push(shown_until, start, group);
                parts.push(start, end, &entry.group);
                shown_until = end;
            }
        }
        parts.push(shown_until, interval.end(), group);
        parts.extend(&tail.entries);
        self.splice(&with_neighbours(&interval), parts.entries);
    }

    /// Puts `entries`, which lie within `hole`, in place of what is visible there.
    pub(super) fn replace(&mut self, hole: &Interval, entries: Vec<VisibleEntry<T>>) {
        let (mut parts, mut tail) = (Parts::default(), Parts::default());
        for entry in self.lookup(with_neighbours(hole)) {
            parts.push(entry.clip.start(), hole.start(), &entry.group);
            tail.push(hole.end(), entry.clip.end(), &entry.group);
        }
        parts.extend(&entries);
        parts.extend(&tail.entries);
        self.splice(&with_neighbours(hole), parts.entries);
    }

    /// Puts `entries` in place of all entries that overlap `interval`.
    fn splice(&mut self, interval: &Interval, entries: Vec<VisibleEntry<T>>) {
        let (mut first, mut end) = self.leaf_range(interval);
        let leaves = Arc::make_mut(&mut self.leaves);
        if leaves.is_empty() {
            leaves.push(Arc::default());
        }
        if first >= end {
            // Between two leaves: into the earlier one.
            first = first.saturating_sub(1).min(leaves.len() - 1);
            end = first + 1;
        }
        let merged = leaves.drain(first + 1..end).collect::<Vec<_>>();
        let leaf = Arc::make_mut(&mut leaves[first]);
        leaf.extend(merged.iter().flat_map(|leaf| leaf.iter().cloned()));
        let from = ends_before(leaf, interval);
        let to = leaf.partition_point(|entry| entry.clip.start() < interval.end());
        leaf.splice(from..to, entries);
        if leaf.is_empty() {
            leaves.remove(first);
        } else if leaf.len() > 2 * LEAF_ENTRIES {
            let rest = leaf.split_off(LEAF_ENTRIES);
            let rest = rest.chunks(LEAF_ENTRIES).map(|chunk| Arc::new(chunk.to_vec())).collect::<Vec<_>>();
            leaves.splice(first + 1..first + 1, rest);
        }
    }
}

/// An interval that overlaps what abuts `interval`, so that parts of one group are joined again.
fn with_neighbours(interval: &Interval) -> Interval {
    let moved = |instant: Timestamp, by: i64| Timestamp::from_millis(instant.millis().saturating_add(by));
    Interval::new(moved(interval.start(), -1), moved(interval.end(), 1)).unwrap_or(*interval)
}

/// How many entries of a leaf end before `interval` starts.
fn ends_before<T>(leaf: &[VisibleEntry<T>], interval: &Interval) -> usize {
    leaf.partition_point(|entry| entry.clip.end() <= interval.start())
}

/// Entries being put together: empty ones are left out, abutting ones of one group are joined.
struct Parts<T> {
    entries: Vec<VisibleEntry<T>>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> Parts<T> {
    fn push(&mut self, start: Timestamp, end: Timestamp, group: &Arc<Group<T>>) {
        let Ok(clip) = Interval::new(start, end) else { return };
        match self.entries.last_mut() {
            Some(last) if Arc::ptr_eq(&last.group, group) && last.clip.end() == start => {
                if let Ok(joined) = Interval::new(last.clip.start(), end) {
                    last.clip = joined;
                }
            }
            _ => self.entries.push(VisibleEntry { clip, group: Arc::clone(group) }),
        }
    }

    fn extend(&mut self, entries: &[VisibleEntry<T>]) {
        for entry in entries {
            self.push(entry.clip.start(), entry.clip.end(), &entry.group);
        }
    }
}

/// The greatest versions over a stretch of time, from groups that overlap it.
pub(super) fn fill<T>(hole: &Interval, mut groups: Vec<Arc<Group<T>>>) -> Vec<VisibleEntry<T>> {
    let greatest = groups.iter().max_by(|a, b| a.version.cmp(&b.version));
    if let Some(group) = greatest.filter(|group| group.interval.contains_interval(hole)) {
        return vec![VisibleEntry { clip: *hole, group: Arc::clone(group) }];
    }
    groups.sort_unstable_by(|a, b| a.version.cmp(&b.version));
    let mut filled = Visible::default();
    for group in groups {
        filled.show(&group);
    }
    let clipped = filled.entries().filter_map(|entry| {
        Some(VisibleEntry { clip: entry.clip.intersection(hole)?, group: Arc::clone(&entry.group) })
    });
    clipped.collect()
}
