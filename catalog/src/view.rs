//! What queries see: the timelines of all data sources, and their segments opened when first read.
//!
//! Invariants: a query holds one [`DataSourceView`] from its planning to its end, so it sees one consistent set of
//! segments whatever is published meanwhile; a change becomes visible as a whole, with one exchange of a pointer.
//! Knows no database: it is told what was published.

mod druids;
mod lazy_segment;
mod problems;
mod room;
mod schemas;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use henge_engine::model::{Interval, SegmentId, SegmentSchema, SegmentUid};
use henge_engine::segment::{PromotedSegment, Segment};
use henge_engine::storage::DeepStorage;
use henge_engine::table::{SegmentSource, VisibleSegment};
use henge_engine::{Error, Result};
use parking_lot::{Mutex, RwLock};

pub use druids::Druids;
use druids::Reading;
pub use lazy_segment::{Conversion, LazySegment};
pub use problems::{Problem, Problems};
use room::Room;
use schemas::SchemaCounts;
pub(crate) use schemas::union;

use crate::store::{SegmentRecord, Snapshot};
use crate::timeline::{Addition, Group, Removal, Timeline, Visible};

/// A segment of a view: what is recorded of it, and its rows.
#[derive(Debug)]
pub struct ViewedSegment {
    pub id: Arc<SegmentId>,
    pub record: SegmentRecord,
    pub segment: Arc<LazySegment>,
}

/// One data source, as of one moment.
#[derive(Debug)]
pub struct DataSourceView {
    name: String,
    rev: u64,
    schema: Arc<SegmentSchema>,
    visible: Visible<Arc<ViewedSegment>>,
    num_visible: usize,
    /// Segments whose columns have other types than the data source's, as they are shown to queries.
    promoted: Mutex<HashMap<SegmentUid, Arc<PromotedSegment>>>,
}

/// All data sources. Shared by everything in a process that asks for segments.
#[derive(Debug)]
pub struct View {
    storage: DeepStorage,
    druids: Druids,
    room: Arc<Room>,
    shown: RwLock<Arc<Shown>>,
    working: Mutex<Working>,
    changes: AtomicU64,
}

type Shown = BTreeMap<String, Arc<DataSourceView>>;

#[derive(Debug, Default)]
struct Working {
    timelines: HashMap<String, WorkingSource>,
    /// Segments that were shown once, for as long as a query may hold them.
    retired: Vec<(SegmentUid, Weak<LazySegment>)>,
}

#[derive(Debug, Default)]
struct WorkingSource {
    rev: u64,
    timeline: Timeline<Arc<ViewedSegment>>,
    schemas: SchemaCounts,
}

impl View {
    /// The view of what a store holds. Opens no segment. Segments that are cached take at most `cache_limit_bytes`, but
    /// for what queries need at one time.
    pub fn new(
        storage: DeepStorage,
        druids: Druids,
        cache_limit_bytes: Option<u64>,
        snapshot: Snapshot,
    ) -> Result<Self> {
        let (shown, working) = (RwLock::default(), Mutex::default());
        let room = Arc::new(Room::new(storage.clone(), cache_limit_bytes));
        let view = Self { storage, druids, room, shown, working, changes: AtomicU64::new(0) };
        let mut added: BTreeMap<String, Vec<SegmentRecord>> = BTreeMap::new();
        for record in snapshot.segments {
            added.entry(record.id.data_source.clone()).or_default().push(record);
        }
        for data_source in snapshot.data_sources {
            let records = added.remove(&data_source.name).unwrap_or_default();
            view.apply(&data_source.name, data_source.rev, records, &[])?;
        }
        Ok(view)
    }

    /// Makes a published change visible, all of it at once. Changes of one data source come in the order of their `rev`;
    /// one that is here already changes nothing.
    pub fn apply(&self, data_source: &str, rev: u64, added: Vec<SegmentRecord>, removed: &[SegmentId]) -> Result<()> {
        let mut working = self.working.lock();
        match working.timelines.get(data_source) {
            Some(source) if rev <= source.rev => Ok(()),
            _ => self.change(&mut working, data_source, rev, added, removed),
        }
    }

    /// Shows what a data source has as of `rev`, whatever was shown of it before.
    pub fn replace(&self, data_source: &str, rev: u64, used: Vec<SegmentRecord>) -> Result<()> {
        let mut working = self.working.lock();
        let source = working.timelines.entry(data_source.to_owned()).or_default();
        let groups = source.timeline.groups().flat_map(|group| group.partitions());
        let mut removed =
            groups.map(|(_, segment)| (segment.record.id.clone(), segment.record.uid)).collect::<HashMap<_, _>>();
        let mut added = Vec::new();
        for record in used {
            match removed.get(&record.id) {
                Some(uid) if *uid == record.uid => drop(removed.remove(&record.id)),
                _ => added.push(record),
            }
        }
        let removed = removed.into_keys().collect::<Vec<_>>();
        self.change(&mut working, data_source, rev, added, &removed)
    }

    /// Evicts from the segment cache what is beyond its limit and no query holds any more.
    pub fn trim_cache(&self) -> Result<()> {
        self.room.make(0)
    }

    /// Counts the changes of any data source, so that who looks at all segments need not do so for nothing.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The `rev` as of which a data source is shown; 0 if nothing of it is known.
    pub fn rev(&self, data_source: &str) -> u64 {
        self.working.lock().timelines.get(data_source).map_or(0, |source| source.rev)
    }

    fn change(
        &self,
        working: &mut Working,
        data_source: &str,
        rev: u64,
        added: Vec<SegmentRecord>,
        removed: &[SegmentId],
    ) -> Result<()> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        let Working { timelines, retired } = working;
        let source = timelines.entry(data_source.to_owned()).or_default();
        let before = source.take(removed);
        let removals = removed.iter().map(removal).collect::<Vec<_>>();
        let reading = self.druids.of(data_source);
        let additions =
            added.into_iter().map(|record| source.addition(&self.storage, &self.room, record, reading)).collect();
        source.timeline.apply(&removals, additions)?;
        source.rev = rev;
        retired.retain(|(_, segment)| segment.strong_count() > 0);
        retired.extend(before.iter().map(|segment| (segment.record.uid, Arc::downgrade(&segment.segment))));
        let shown = source.show(data_source)?;
        let mut next = Shown::clone(&self.shown.read());
        match shown {
            Some(shown) => drop(next.insert(data_source.to_owned(), shown)),
            None => drop(next.remove(data_source)),
        }
        *self.shown.write() = Arc::new(next);
        Ok(())
    }

    /// A data source as it is now. `None` if nothing of it is visible.
    pub fn data_source(&self, name: &str) -> Option<Arc<DataSourceView>> {
        self.shown.read().get(name).map(Arc::clone)
    }

    /// All data sources as they are now, in the order of their names.
    pub fn data_sources(&self) -> Vec<Arc<DataSourceView>> {
        self.shown.read().values().map(Arc::clone).collect()
    }

    /// All used segments, with whether something newer hides them altogether.
    pub fn segments(&self) -> Vec<(Arc<ViewedSegment>, bool)> {
        let working = self.working.lock();
        let mut segments = Vec::new();
        for source in working.timelines.values() {
            for group in source.timeline.groups() {
                let hidden = source.timeline.is_overshadowed(&group.interval(), group.version());
                segments.extend(group.partitions().iter().map(|(_, segment)| (Arc::clone(segment), hidden)));
            }
        }
        segments.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        segments
    }

    /// The segments that are no longer used but that a query may still read.
    pub fn in_use(&self) -> HashSet<SegmentUid> {
        let working = self.working.lock();
        let held = working.retired.iter().filter(|(_, segment)| segment.strong_count() > 0);
        held.map(|(uid, _)| *uid).collect()
    }
}

fn removal(id: &SegmentId) -> Removal {
    Removal { interval: id.interval, version: id.version.as_str().into(), partition: id.partition }
}

impl WorkingSource {
    fn addition(
        &mut self,
        storage: &DeepStorage,
        room: &Arc<Room>,
        mut record: SegmentRecord,
        reading: Reading,
    ) -> Addition<Arc<ViewedSegment>> {
        record.schema = self.schemas.add(&record.schema, record.created_rev);
        let id = Arc::new(record.id.clone());
        Addition {
            interval: id.interval,
            version: id.version.as_str().into(),
            kind: record.kind(),
            core_size: record.shard_spec.core_size(),
            partition: id.partition,
            segment: Arc::new(ViewedSegment {
                segment: LazySegment::new(storage.clone(), &record, reading, room),
                id,
                record,
            }),
        }
    }

    /// The segments that are about to be removed.
    fn take(&mut self, removed: &[SegmentId]) -> Vec<Arc<ViewedSegment>> {
        let mut found = Vec::new();
        for id in removed {
            let group = self.timeline.group(&id.interval, &id.version);
            let segment = group.and_then(|group| group.partitions().iter().find(|(number, _)| *number == id.partition));
            if let Some((_, segment)) = segment {
                self.schemas.remove(&segment.record.schema, segment.record.created_rev);
                found.push(Arc::clone(segment));
            }
        }
        found
    }

    fn show(&self, name: &str) -> Result<Option<Arc<DataSourceView>>> {
        let visible = self.timeline.visible().clone();
        let num_visible = visible.data(Interval::ETERNITY).map(|entry| entry.group.partitions().len()).sum();
        if num_visible == 0 {
            return Ok(None);
        }
        Ok(Some(Arc::new(DataSourceView {
            name: name.to_owned(),
            rev: self.rev,
            schema: self.schemas.union()?,
            visible,
            num_visible,
            promoted: Mutex::default(),
        })))
    }
}

impl DataSourceView {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts the commits that changed the data source's segments.
    pub fn rev(&self) -> u64 {
        self.rev
    }

    /// All visible segments, each once.
    pub fn segments(&self) -> Vec<Arc<ViewedSegment>> {
        let entries = self.visible.data(Interval::ETERNITY);
        let mut segments =
            entries.flat_map(|entry| entry.group.partitions()).map(|(_, s)| Arc::clone(s)).collect::<Vec<_>>();
        segments.sort_by(|a, b| a.id.cmp(&b.id));
        segments.dedup_by(|a, b| Arc::ptr_eq(a, b));
        segments
    }

    /// The groups of segments that are visible all over their interval, in the order of time.
    pub(crate) fn whole_groups(&self) -> impl Iterator<Item = &Arc<Group<Arc<ViewedSegment>>>> {
        let entries = self.visible.data(Interval::ETERNITY);
        entries.filter(|entry| entry.clip == entry.group.interval()).map(|entry| &entry.group)
    }

    /// A segment with the data source's types.
    fn shown(&self, viewed: &ViewedSegment) -> Result<Arc<dyn Segment>> {
        if PromotedSegment::fits(viewed.segment.schema(), &self.schema) {
            return Ok(Arc::clone(&viewed.segment) as _);
        }
        let mut promoted = self.promoted.lock();
        if let Some(known) = promoted.get(&viewed.record.uid) {
            return Ok(Arc::clone(known) as _);
        }
        let made = Arc::new(PromotedSegment::new(Arc::clone(&viewed.segment) as _, &self.schema)?);
        promoted.insert(viewed.record.uid, Arc::clone(&made));
        Ok(made)
    }
}

impl SegmentSource for DataSourceView {
    fn schema(&self) -> Arc<SegmentSchema> {
        Arc::clone(&self.schema)
    }

    fn visible(&self, interval: &Interval) -> Result<Vec<VisibleSegment>> {
        let mut found = Vec::new();
        for entry in self.visible.data(*interval) {
            for (_, viewed) in entry.group.partitions() {
                found.push(VisibleSegment {
                    id: Arc::clone(&viewed.id),
                    clip: entry.clip,
                    segment: self.shown(viewed)?,
                });
            }
        }
        // Entries are in the order of time; a group that is seen on both sides of a newer one is not in that of ids.
        found.sort_by(|a, b| (&a.id, a.clip).cmp(&(&b.id, b.clip)));
        Ok(found)
    }

    fn num_visible(&self) -> usize {
        self.num_visible
    }
}

/// There is no such data source, or nothing in it.
pub(crate) fn no_data_source(name: &str) -> Error {
    Error::not_found(format!("there is no data source `{name}`"))
}

#[cfg(test)]
mod tests;
