//! The versioned interval timeline: which segments of one data source are seen, and on which part of time.
//!
//! Segments with the same interval and version form a *group*. A group is *complete* when its core partitions are all
//! there, or, if it has none, any partition. At an instant the complete group with the greatest version is visible,
//! with all its partitions. Pure: no I/O, no clock; generic over what stands for a segment.
//!
//! Invariants: visible entries are disjoint and in the order of time, and equal the naive definition (property test);
//! groups of one version have equal or disjoint intervals; a [`Visible`] never changes.
//!
//! Cost: the visible set is an ordered list of leaves shared between versions of itself, so a look-up is a binary
//! search and a walk over what it finds. A new group touches only what it covers. Taking a group away asks, for each
//! distinct interval *length* (few: an hour, a day, four months, two years), for the groups that overlap the hole.

mod visible;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::ops::Bound;
use std::sync::Arc;

use henge_engine::model::Interval;
use henge_engine::{Error, Result};
use smallvec::{SmallVec, smallvec};

pub use visible::{Visible, VisibleEntry};

/// Whether a group holds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupKind {
    Data,
    /// Shadows older versions and is never scanned.
    Tombstone,
}

/// One segment to add.
#[derive(Clone, Debug)]
pub struct Addition<T> {
    pub interval: Interval,
    pub version: Arc<str>,
    pub kind: GroupKind,
    /// How many partitions, from 0, must be there before any is visible; 0 where each stands alone.
    pub core_size: u32,
    pub partition: u32,
    pub segment: T,
}

/// One segment to take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub interval: Interval,
    pub version: Arc<str>,
    pub partition: u32,
}

/// The segments of one interval and version.
#[derive(Clone, Debug)]
pub struct Group<T> {
    interval: Interval,
    version: Arc<str>,
    kind: GroupKind,
    core_size: u32,
    /// By partition number, ascending. Most groups of a data source with small chunks have one.
    partitions: SmallVec<[(u32, T); 1]>,
}

impl<T> Group<T> {
    pub fn interval(&self) -> Interval {
        self.interval
    }

    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    pub fn kind(&self) -> GroupKind {
        self.kind
    }

    pub fn core_size(&self) -> u32 {
        self.core_size
    }

    /// Partition numbers and segments, ascending.
    pub fn partitions(&self) -> &[(u32, T)] {
        &self.partitions
    }

    /// Whether it can be visible.
    pub fn is_complete(&self) -> bool {
        let core = self.core_size as usize;
        match core.checked_sub(1) {
            None => !self.partitions.is_empty(),
            // Numbers are distinct and ascend, so the last core number stands in its own place only if all are there.
            Some(last) => self.partitions.get(last).is_some_and(|(number, _)| *number as usize == last),
        }
    }

    fn position(&self, partition: u32) -> Result<usize, usize> {
        self.partitions.binary_search_by_key(&partition, |(number, _)| *number)
    }
}

/// Nearly always one.
type Versions<T> = SmallVec<[Arc<Group<T>>; 1]>;

/// The segments of one data source, and what of them is visible.
#[derive(Clone, Debug)]
pub struct Timeline<T> {
    /// By length of the interval in milliseconds, then by its start: the groups, versions ascending.
    groups: BTreeMap<i64, BTreeMap<i64, Versions<T>>>,
    visible: Visible<T>,
}

impl<T: Clone> Default for Timeline<T> {
    fn default() -> Self {
        Self::new()
    }
}

type Key = (Interval, Arc<str>);

impl<T: Clone> Timeline<T> {
    pub fn new() -> Self {
        Self { groups: BTreeMap::new(), visible: Visible::default() }
    }

    /// What is visible now: a view of its own that later changes leave alone. Cheap.
    pub fn visible(&self) -> &Visible<T> {
        &self.visible
    }

    /// Takes some segments away and adds others, as one change. Removing what is not there does nothing.
    ///
    /// Fails, and changes nothing, if an addition is there already, or if two groups of one version overlap without
    /// being equal, or disagree on their core size or kind.
    pub fn apply(&mut self, removals: &[Removal], additions: Vec<Addition<T>>) -> Result<()> {
        let mut changed: BTreeMap<Key, Group<T>> = BTreeMap::new();
        for removal in removals {
            if let Some(group) = self.changed_group(&mut changed, &removal.interval, &removal.version)
                && let Ok(at) = group.position(removal.partition)
            {
                group.partitions.remove(at);
            }
        }
        for addition in additions {
            self.add(&mut changed, addition)?;
        }
        self.check_versions(&changed)?;
        self.commit(changed);
        Ok(())
    }

    /// The group as changed so far; `None` when there is no such group.
    fn changed_group<'a>(
        &self,
        changed: &'a mut BTreeMap<Key, Group<T>>,
        interval: &Interval,
        version: &Arc<str>,
    ) -> Option<&'a mut Group<T>> {
        match changed.entry((*interval, Arc::clone(version))) {
            MapEntry::Occupied(entry) => Some(entry.into_mut()),
            MapEntry::Vacant(entry) => self.group(interval, version).map(|group| entry.insert(Group::clone(group))),
        }
    }

    fn add(&self, changed: &mut BTreeMap<Key, Group<T>>, addition: Addition<T>) -> Result<()> {
        let Addition { interval, version, kind, core_size, partition, segment } = addition;
        let Some(group) = self.changed_group(changed, &interval, &version) else {
            let key = (interval, Arc::clone(&version));
            let partitions = smallvec![(partition, segment)];
            changed.insert(key, Group { interval, version, kind, core_size, partitions });
            return Ok(());
        };
        if group.partitions.is_empty() {
            (group.kind, group.core_size) = (kind, core_size);
        }
        if (group.kind, group.core_size) != (kind, core_size) {
            return Err(Error::conflict(format!(
                "partition {partition} of {interval} in version `{version}` says there are {core_size} core \
                 partitions, others say {}",
                group.core_size
            )));
        }
        match group.position(partition) {
            Ok(_) => Err(Error::conflict(format!(
                "partition {partition} of {interval} in version `{version}` is there already"
            ))),
            Err(at) => {
                group.partitions.insert(at, (partition, segment));
                Ok(())
            }
        }
    }

    /// Groups of one version must have equal or disjoint intervals.
    fn check_versions(&self, changed: &BTreeMap<Key, Group<T>>) -> Result<()> {
        let mut present = changed.values().filter(|group| !group.partitions.is_empty()).collect::<Vec<_>>();
        for group in &present {
            let clash = self.overlapping(group.interval).find(|other| {
                other.version == group.version
                    && other.interval != group.interval
                    && changed
                        .get(&(other.interval, Arc::clone(&other.version)))
                        .is_none_or(|g| !g.partitions.is_empty())
            });
            if let Some(other) = clash {
                return Err(same_version(&group.interval, &other.interval, &group.version));
            }
        }
        present.sort_by(|a, b| (&a.version, a.interval).cmp(&(&b.version, b.interval)));
        let clash = present
            .windows(2)
            .find(|pair| pair[0].version == pair[1].version && pair[0].interval.overlaps(&pair[1].interval));
        match clash {
            Some(pair) => Err(same_version(&pair[0].interval, &pair[1].interval, &pair[0].version)),
            None => Ok(()),
        }
    }

    fn commit(&mut self, changed: BTreeMap<Key, Group<T>>) {
        let changed = changed.into_values().map(Arc::new).collect::<Vec<_>>();
        for group in &changed {
            self.store(group);
        }
        for group in changed.iter().filter(|group| !group.is_complete()) {
            self.hide(group);
        }
        for group in changed.iter().filter(|group| group.is_complete()) {
            self.visible.show(group);
        }
    }

    fn store(&mut self, group: &Arc<Group<T>>) {
        let starts = self.groups.entry(length(&group.interval)).or_default();
        let versions = starts.entry(group.interval.start().millis()).or_default();
        match versions.binary_search_by(|other| other.version.cmp(&group.version)) {
            Ok(at) if group.partitions.is_empty() => drop(versions.remove(at)),
            Ok(at) => versions[at] = Arc::clone(group),
            Err(_) if group.partitions.is_empty() => {}
            Err(at) => versions.insert(at, Arc::clone(group)),
        }
        if versions.is_empty() {
            starts.remove(&group.interval.start().millis());
        }
        if starts.is_empty() {
            self.groups.remove(&length(&group.interval));
        }
    }

    /// Fills the places where a group was visible with what else covers them.
    fn hide(&mut self, group: &Group<T>) {
        let holes = self.visible.lookup(group.interval).filter(|entry| entry.group.version == group.version);
        let holes = holes.map(|entry| entry.clip).collect::<Vec<_>>();
        for hole in holes {
            let candidates = self.overlapping(hole).filter(|group| group.is_complete());
            let filling = visible::fill(&hole, candidates.map(Arc::clone).collect());
            self.visible.replace(&hole, filling);
        }
    }

    /// The group of an interval and version, complete or not.
    pub fn group(&self, interval: &Interval, version: &str) -> Option<&Arc<Group<T>>> {
        let versions = self.groups.get(&length(interval))?.get(&interval.start().millis())?;
        let at = versions.binary_search_by(|group| group.version.as_ref().cmp(version)).ok()?;
        versions.get(at)
    }

    /// All groups, complete or not.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group<T>>> {
        self.groups.values().flat_map(BTreeMap::values).flatten()
    }

    /// The groups, complete or not, whose intervals overlap one.
    pub fn overlapping(&self, interval: Interval) -> impl Iterator<Item = &Arc<Group<T>>> {
        let (start, end) = (interval.start().millis(), interval.end().millis());
        self.groups.iter().flat_map(move |(length, starts)| {
            let bounds = (Bound::Excluded(start.saturating_sub(*length)), Bound::Excluded(end));
            starts.range(bounds).flat_map(|(_, versions)| versions)
        })
    }

    /// Whether a group is visible nowhere, and greater versions are visible at every instant of it: then it may be
    /// marked unused.
    pub fn is_overshadowed(&self, interval: &Interval, version: &str) -> bool {
        let mut covered = interval.start();
        for entry in self.visible.lookup(*interval) {
            if entry.clip.start() > covered || entry.group.version.as_ref() <= version {
                return false;
            }
            covered = entry.clip.end();
        }
        covered >= interval.end()
    }
}

/// In milliseconds. Instants lie within half of an `i64`, so this does not overflow.
fn length(interval: &Interval) -> i64 {
    interval.end().millis().saturating_sub(interval.start().millis())
}

fn same_version(a: &Interval, b: &Interval, version: &str) -> Error {
    Error::conflict(format!("intervals {a} and {b} overlap without being equal, both in version `{version}`"))
}

#[cfg(test)]
mod tests;
