//! What queries see: the timelines of all data sources, and their segments opened when first read.
//!
//! Invariants: a query holds one [`DataSourceView`] from its planning to its end, so it sees one consistent set of
//! segments whatever is published meanwhile; a change becomes visible as a whole, with one exchange of a pointer.
//! Knows no database: it is told what was published.

mod druids;
mod lazy_segment;
mod live;
mod problems;
mod room;
mod schemas;
mod tail;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

use datafusion::physical_plan::ExecutionPlan;
use henge_engine::model::{Interval, SegmentId, SegmentSchema, SegmentUid};
use henge_engine::segment::{PromotedSegment, Segment};
use henge_engine::storage::DeepStorage;
use henge_engine::table::{KeptPlans, SegmentSource, VisibleSegment};
use henge_engine::{Error, Result};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use druids::Druids;
use druids::Reading;
pub use lazy_segment::{Conversion, LazySegment, Reads};
pub use live::{Generation, LiveGranule};
use live::{LiveChunk, LiveSource};
pub use problems::{Problem, Problems};
use room::Room;
use schemas::SchemaCounts;
pub(crate) use schemas::union;
pub use tail::RemoteRows;
use tail::Tail;

use crate::store::{DataSourceState, SegmentRecord, SinkRecord, Snapshot, Standing};
use crate::timeline::{Addition, Group, GroupKind, Removal, Timeline, Visible};

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
    promoted: Promoted,
    /// Rows that are not published.
    live: Vec<LiveChunk>,
    /// Rows that realtime processes of a cluster have.
    tails: Vec<Tail>,
    /// Segments whose rows are read of a tail.
    withheld: HashSet<SegmentUid>,
    /// Why what is not published cannot be shown: then nothing is.
    broken: Option<Error>,
    plans: KeptPlans,
}

type Promoted = Arc<Mutex<HashMap<SegmentUid, Arc<PromotedSegment>>>>;

/// All data sources. Shared by everything in a process that asks for segments.
#[derive(Debug)]
pub struct View {
    storage: DeepStorage,
    druids: Druids,
    reads: Reads,
    remote_rows: RemoteRows,
    room: Arc<Room>,
    shown: RwLock<Arc<Shown>>,
    working: Mutex<Working>,
    changes: watch::Sender<u64>,
}

/// What queries see, exchanged as a whole: a row is in what is published or in what is not, and never in both.
#[derive(Clone, Debug, Default)]
struct Shown {
    published: BTreeMap<String, Arc<DataSourceView>>,
    live: BTreeMap<String, Arc<LiveSource>>,
}

impl Shown {
    fn data_source(&self, name: &str) -> Option<Arc<DataSourceView>> {
        let published = self.published.get(name);
        match self.live.get(name) {
            Some(live) => live.compose(name, published),
            None => published.map(Arc::clone),
        }
    }

    /// Shows these generations of a data source, and no others.
    fn set_live(&mut self, name: &str, generations: Vec<Arc<Generation>>) {
        let before = self.live.remove(name);
        if !generations.is_empty() {
            let source = LiveSource::new(generations, before.as_deref());
            self.live.insert(name.to_owned(), Arc::new(source));
        }
    }

    fn generations(&self, name: &str) -> Vec<Arc<Generation>> {
        self.live.get(name).map(|source| source.generations.clone()).unwrap_or_default()
    }
}

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
    /// Used segments that queries do not ask for.
    dormant: BTreeMap<Arc<SegmentId>, Arc<ViewedSegment>>,
    sinks: Vec<SinkRecord>,
    schemas: SchemaCounts,
}

impl View {
    /// The view of what a store holds. Opens no segment. Segments that are cached take at most `cache_limit_bytes`, but
    /// for what queries need at one time.
    pub fn new(
        storage: DeepStorage,
        druids: Druids,
        reads: Reads,
        remote_rows: RemoteRows,
        cache_limit_bytes: Option<u64>,
        snapshot: Snapshot,
    ) -> Result<Self> {
        let (shown, working) = (RwLock::default(), Mutex::default());
        let room = Arc::new(Room::new(storage.clone(), cache_limit_bytes));
        let changes = watch::Sender::new(0);
        let view = Self { storage, druids, reads, remote_rows, room, shown, working, changes };
        let mut added: BTreeMap<String, Vec<SegmentRecord>> = BTreeMap::new();
        for record in snapshot.segments {
            added.entry(record.id.data_source.clone()).or_default().push(record);
        }
        let mut sinks: BTreeMap<String, Vec<SinkRecord>> = BTreeMap::new();
        for sink in snapshot.sinks {
            sinks.entry(sink.data_source.clone()).or_default().push(sink);
        }
        for data_source in snapshot.data_sources {
            let used = added.remove(&data_source.name).unwrap_or_default();
            let sinks = sinks.remove(&data_source.name).unwrap_or_default();
            view.replace(&data_source.name, DataSourceState { rev: data_source.rev, used, sinks })?;
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

    /// Shows what a data source has as of a `rev`, whatever was shown of it before.
    pub fn replace(&self, data_source: &str, state: DataSourceState) -> Result<()> {
        let DataSourceState { rev, used, sinks } = state;
        let mut working = self.working.lock();
        let source = working.timelines.entry(data_source.to_owned()).or_default();
        source.sinks = sinks;
        let mut removed = source.all().map(|s| (s.record.id.clone(), known(&s.record))).collect::<HashMap<_, _>>();
        let mut added = Vec::new();
        for record in used {
            match removed.get(&record.id) {
                Some(before) if *before == known(&record) => drop(removed.remove(&record.id)),
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
        *self.changes.borrow()
    }

    /// The same, to wait for.
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The `rev` as of which each data source is shown.
    pub fn revs(&self) -> BTreeMap<String, u64> {
        self.working.lock().timelines.iter().map(|(name, source)| (name.clone(), source.rev)).collect()
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
        let Working { timelines, retired } = working;
        let source = timelines.entry(data_source.to_owned()).or_default();
        let before = source.take(removed);
        let removals = removed.iter().map(removal).collect::<Vec<_>>();
        let reading = self.druids.of(data_source);
        let viewed = |record| self.viewed(record, reading);
        let uids = added.iter().map(|record| record.uid).collect::<Vec<_>>();
        let (dormant, active): (Vec<_>, Vec<_>) =
            added.into_iter().partition(|record| record.standing == Standing::Dormant);
        let additions = active.into_iter().map(|record| source.addition(record, viewed)).collect();
        source.timeline.apply(&removals, additions)?;
        for record in dormant {
            let segment = viewed(record);
            source.dormant.insert(Arc::clone(&segment.id), segment);
        }
        source.rev = rev;
        retired.retain(|(_, segment)| segment.strong_count() > 0);
        retired.extend(before.iter().map(|segment| (segment.record.uid, Arc::downgrade(&segment.segment))));
        let shown = source.show(data_source, self.remote_rows)?;
        let mut next = Shown::clone(&self.shown.read());
        match shown {
            Some(shown) => drop(next.published.insert(data_source.to_owned(), shown)),
            None => drop(next.published.remove(data_source)),
        }
        let generations = next.generations(data_source);
        if generations.iter().any(|generation| generation.is_published_by(uids.iter())) {
            let left = generations.into_iter().filter(|generation| !generation.is_published_by(uids.iter()));
            next.set_live(data_source, left.collect());
        }
        *self.shown.write() = Arc::new(next);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    fn viewed(&self, record: SegmentRecord, reading: Reading) -> Arc<ViewedSegment> {
        let segment = LazySegment::new(self.storage.clone(), &record, reading, self.reads, &self.room);
        Arc::new(ViewedSegment { segment, id: Arc::new(record.id.clone()), record })
    }

    /// What is recorded of a data source's sinks, each with whether queries read all that it has published from segments.
    pub fn sinks(&self, data_source: &str) -> Vec<(SinkRecord, bool)> {
        let working = self.working.lock();
        let Some(source) = working.timelines.get(data_source) else { return Vec::new() };
        source.sinks.iter().map(|sink| (sink.clone(), source.is_settled(sink))).collect()
    }

    /// All sinks.
    pub fn all_sinks(&self) -> Vec<SinkRecord> {
        let working = self.working.lock();
        let mut sinks = working.timelines.values().flat_map(|source| source.sinks.iter().cloned()).collect::<Vec<_>>();
        sinks.sort_by(|a, b| (&a.data_source, a.uid).cmp(&(&b.data_source, b.uid)));
        sinks
    }

    /// The generations of a data source that are shown, in the order of their numbers.
    pub fn generations_of(&self, data_source: &str) -> Vec<Arc<Generation>> {
        let shown = Arc::clone(&self.shown.read());
        shown.generations(data_source)
    }

    /// Shows a generation, which is empty yet, after those of its data source that are there.
    pub fn open_generation(&self, generation: Arc<Generation>) {
        let _changes_in_order = self.working.lock();
        let mut next = Shown::clone(&self.shown.read());
        let name = generation.data_source.clone();
        let mut generations = next.generations(&name);
        generations.push(generation);
        next.set_live(&name, generations);
        *self.shown.write() = Arc::new(next);
    }

    /// No longer shows a generation, which is empty.
    pub fn close_generation(&self, data_source: &str, number: u64) {
        let _changes_in_order = self.working.lock();
        let mut next = Shown::clone(&self.shown.read());
        let mut generations = next.generations(data_source);
        generations.retain(|generation| generation.number != number);
        next.set_live(data_source, generations);
        *self.shown.write() = Arc::new(next);
    }

    /// Whether a generation is shown still.
    pub fn shows_generation(&self, data_source: &str, number: u64) -> bool {
        let shown = Arc::clone(&self.shown.read());
        shown.generations(data_source).iter().any(|generation| generation.number == number)
    }

    /// All generations that are shown.
    pub fn generations(&self) -> Vec<Arc<Generation>> {
        let shown = Arc::clone(&self.shown.read());
        shown.live.values().flat_map(|source| source.generations.iter().map(Arc::clone)).collect()
    }

    /// Whether a segment of this interval could be appended to what is published.
    pub fn takes_appended(&self, data_source: &str, interval: Interval) -> bool {
        let shown = Arc::clone(&self.shown.read());
        let Some(published) = shown.published.get(data_source) else { return true };
        let visible = published.visible.lookup(interval).collect::<Vec<_>>();
        let is_data = |kind| kind == GroupKind::Data;
        match visible.as_slice() {
            [one] if is_data(one.group.kind()) => one.clip.contains_interval(&interval),
            several => !several.iter().any(|entry| is_data(entry.group.kind())),
        }
    }

    /// The interval of a segment that is published, the latest.
    pub fn latest_interval(&self, data_source: &str) -> Option<Interval> {
        let shown = Arc::clone(&self.shown.read());
        shown.published.get(data_source)?.visible.data(Interval::ETERNITY).last().map(|entry| entry.group.interval())
    }

    /// What is not published, in the order of data sources.
    pub fn live_granules(&self) -> Vec<LiveGranule> {
        let shown = Arc::clone(&self.shown.read());
        live::granules(&shown.live)
    }

    /// A data source as it is now. `None` if nothing of it is visible.
    pub fn data_source(&self, name: &str) -> Option<Arc<DataSourceView>> {
        // A copy of the rows that are not published is made without the lock.
        let shown = Arc::clone(&self.shown.read());
        shown.data_source(name)
    }

    /// All data sources as they are now, in the order of their names.
    pub fn data_sources(&self) -> Vec<Arc<DataSourceView>> {
        let shown = Arc::clone(&self.shown.read());
        let names = shown.published.keys().chain(shown.live.keys()).collect::<BTreeSet<_>>();
        names.into_iter().filter_map(|name| shown.data_source(name)).collect()
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

    /// The used segments that queries do not ask for, with whether something newer hides them already.
    pub fn dormant(&self) -> Vec<(Arc<ViewedSegment>, bool)> {
        let working = self.working.lock();
        let mut segments = Vec::new();
        for source in working.timelines.values() {
            for segment in source.dormant.values() {
                let hidden = source.timeline.is_overshadowed(&segment.id.interval, &segment.id.version);
                segments.push((Arc::clone(segment), hidden));
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

/// Whether a record is another than before.
fn known(record: &SegmentRecord) -> (SegmentUid, Standing) {
    (record.uid, record.standing)
}

fn removal(id: &SegmentId) -> Removal {
    Removal { interval: id.interval, version: id.version.as_str().into(), partition: id.partition }
}

impl WorkingSource {
    fn addition(
        &mut self,
        mut record: SegmentRecord,
        viewed: impl FnOnce(SegmentRecord) -> Arc<ViewedSegment>,
    ) -> Addition<Arc<ViewedSegment>> {
        record.schema = self.schemas.add(&record.schema, record.created_rev);
        let segment = viewed(record);
        Addition {
            interval: segment.id.interval,
            version: segment.id.version.as_str().into(),
            kind: segment.record.kind(),
            core_size: segment.record.shard_spec.core_size(),
            partition: segment.id.partition,
            segment,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ViewedSegment>> {
        let active = self.timeline.groups().flat_map(|group| group.partitions()).map(|(_, segment)| segment);
        active.chain(self.dormant.values())
    }

    /// The segments that are about to be removed.
    fn take(&mut self, removed: &[SegmentId]) -> Vec<Arc<ViewedSegment>> {
        let mut found = Vec::new();
        for id in removed {
            if let Some(segment) = self.dormant.remove(id) {
                found.push(segment);
                continue;
            }
            let group = self.timeline.group(&id.interval, &id.version);
            let segment = group.and_then(|group| group.partitions().iter().find(|(number, _)| *number == id.partition));
            if let Some((_, segment)) = segment {
                self.schemas.remove(&segment.record.schema, segment.record.created_rev);
                found.push(Arc::clone(segment));
            }
        }
        found
    }

    fn show(&self, name: &str, remote_rows: RemoteRows) -> Result<Option<Arc<DataSourceView>>> {
        let visible = self.timeline.visible().clone();
        let num_visible: usize = visible.data(Interval::ETERNITY).map(|entry| entry.group.partitions().len()).sum();
        let (tails, withheld) = self.tails();
        if num_visible == 0 && tails.is_empty() {
            return Ok(None);
        }
        let broken = tails.first().filter(|_| remote_rows == RemoteRows::Refused).map(Tail::refused);
        let mut schema = self.schemas.union()?;
        if !tails.is_empty() {
            let tails = tails.iter().map(|tail| tail.segment.schema().as_ref());
            schema = Arc::new(union(std::iter::once(schema.as_ref()).chain(tails))?);
        }
        Ok(Some(Arc::new(DataSourceView {
            name: name.to_owned(),
            rev: self.rev,
            schema,
            visible,
            num_visible: num_visible + tails.len(),
            promoted: Promoted::default(),
            live: Vec::new(),
            tails,
            withheld,
            broken,
            plans: KeptPlans::default(),
        })))
    }
}

impl DataSourceView {
    /// One that cannot be read.
    fn broken(name: &str, published: Option<&Arc<Self>>, error: &Error) -> Self {
        let time_only =
            || Arc::new(SegmentSchema::new([]).unwrap_or_else(|_| unreachable!("`__time` alone is a schema")));
        Self {
            name: name.to_owned(),
            rev: published.map_or(0, |view| view.rev),
            schema: published.map_or_else(time_only, |view| Arc::clone(&view.schema)),
            visible: Visible::default(),
            num_visible: 0,
            promoted: Promoted::default(),
            live: Vec::new(),
            tails: Vec::new(),
            withheld: HashSet::new(),
            broken: Some(error.duplicate()),
            plans: KeptPlans::default(),
        }
    }

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
        if let Some(error) = &self.broken {
            return Err(error.duplicate());
        }
        let mut found = Vec::new();
        for entry in self.visible.data(*interval) {
            for (_, viewed) in entry.group.partitions() {
                if self.withheld.contains(&viewed.record.uid) {
                    continue;
                }
                found.push(VisibleSegment {
                    id: Arc::clone(&viewed.id),
                    uid: viewed.record.uid,
                    clip: entry.clip,
                    segment: self.shown(viewed)?,
                });
            }
        }
        for (number, LiveChunk { id, clip, segment }) in (0..).zip(&self.live) {
            if clip.overlaps(interval) {
                let uid = SegmentUid::numbered(number);
                found.push(VisibleSegment { id: Arc::clone(id), uid, clip: *clip, segment: Arc::clone(segment) });
            }
        }
        for Tail { id, uid, segment } in &self.tails {
            let (id, segment) = (Arc::clone(id), Arc::clone(segment));
            found.push(VisibleSegment { id, uid: *uid, clip: Interval::ETERNITY, segment });
        }
        // Entries are in the order of time; a group that is seen on both sides of a newer one is not in that of ids.
        found.sort_by(|a, b| (&a.id, a.clip).cmp(&(&b.id, b.clip)));
        Ok(found)
    }

    fn num_visible(&self) -> usize {
        self.num_visible
    }

    fn keep(&self, plan: Arc<dyn ExecutionPlan>) {
        self.plans.keep(plan);
    }
}

/// There is no such data source, or nothing in it.
pub(crate) fn no_data_source(name: &str) -> Error {
    Error::not_found(format!("there is no data source `{name}`"))
}

#[cfg(test)]
mod tests;
