use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use henge_engine::model::{Interval, SegmentId, SegmentUid, Timestamp};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use parking_lot::{Mutex, MutexGuard};

use super::record::{
    DataSourceRecord, KillCandidate, Marked, Overlap, Publication, Publish, Published, SegmentRecord, Snapshot,
    TakenGroup, TaskRecord, UserRecord, join,
};
use super::{Decide, MetadataStore};

/// The double of a metadata database: keeps everything in memory, and nothing for long.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<Option<State>>,
}

#[derive(Debug, Default)]
struct State {
    data_sources: BTreeMap<String, DataSourceRecord>,
    segments: BTreeMap<SegmentId, Row>,
    publishes: BTreeMap<String, u64>,
    /// By load spec as JSON: the publish id.
    pushes: BTreeMap<String, (LoadSpec, String)>,
    tasks: BTreeMap<String, TaskRecord>,
    users: BTreeMap<String, UserRecord>,
}

#[derive(Debug)]
struct Row {
    record: SegmentRecord,
    used: bool,
    kill: Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    Kept,
    Begun,
    Burned,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self { state: Mutex::new(Some(State::default())) }
    }

    fn open(&self) -> Result<parking_lot::MappedMutexGuard<'_, State>> {
        MutexGuard::try_map(self.state.lock(), Option::as_mut)
            .map_err(|_| Error::runtime_failure("the metadata store is closed"))
    }
}

impl State {
    fn used(&self, data_source: &str) -> impl Iterator<Item = &SegmentRecord> {
        let rows = self.segments.values().filter(move |row| row.used && row.record.id.data_source == data_source);
        rows.map(|row| &row.record)
    }

    fn overlap(&self, publication: &Publication, rev: u64) -> Overlap {
        let mut spans = publication.spans.clone();
        let touches =
            |spans: &[Interval], record: &SegmentRecord| spans.iter().any(|s| s.overlaps(&record.id.interval));
        let first = self.used(&publication.data_source).filter(|record| touches(&publication.spans, record));
        spans.extend(first.map(|record| record.id.interval));
        let spans = join(spans);
        let used = self.used(&publication.data_source).filter(|record| touches(&spans, record)).cloned().collect();
        let mut taken: Vec<TakenGroup> = Vec::new();
        let rows = self.segments.values().map(|row| &row.record);
        let rows = rows.filter(|record| record.id.data_source == publication.data_source);
        for SegmentId { interval, version, partition, .. } in rows.filter(|r| touches(&spans, r)).map(|r| &r.id) {
            match taken.iter_mut().find(|group| group.interval == *interval && group.version == *version) {
                Some(group) => group.max_partition = group.max_partition.max(*partition),
                None => {
                    taken.push(TakenGroup { interval: *interval, version: version.clone(), max_partition: *partition })
                }
            }
        }
        Overlap { rev, used, taken }
    }

    fn next_rev(&mut self, name: &str, now: Timestamp) -> u64 {
        let fresh = || DataSourceRecord { name: name.to_owned(), created: now, rev: 0 };
        let data_source = self.data_sources.entry(name.to_owned()).or_insert_with(fresh);
        data_source.rev += 1;
        data_source.rev
    }

    fn set_unused(&mut self, ids: &[SegmentId]) {
        for id in ids {
            if let Some(row) = self.segments.get_mut(id) {
                row.used = false;
            }
        }
    }
}

fn key(load_spec: &LoadSpec) -> Result<String> {
    super::sql::to_json(load_spec)
}

#[async_trait]
impl MetadataStore for MemoryStore {
    async fn snapshot(&self) -> Result<Snapshot> {
        let state = self.open()?;
        let data_sources = state.data_sources.values().cloned().collect();
        let used = state.segments.values().filter(|row| row.used);
        let mut segments = used.map(|row| row.record.clone()).collect::<Vec<_>>();
        segments.sort_by_cached_key(|record| record.id.to_string());
        Ok(Snapshot { data_sources, segments })
    }

    async fn rev(&self, data_source: &str) -> Result<u64> {
        Ok(self.open()?.data_sources.get(data_source).map_or(0, |data_source| data_source.rev))
    }

    async fn intend_pushes(&self, publish_id: &str, load_specs: &[LoadSpec]) -> Result<()> {
        let mut state = self.open()?;
        for load_spec in load_specs {
            state.pushes.insert(key(load_spec)?, (load_spec.clone(), publish_id.to_owned()));
        }
        Ok(())
    }

    async fn intended_pushes(&self) -> Result<Vec<LoadSpec>> {
        Ok(self.open()?.pushes.values().map(|(load_spec, _)| load_spec.clone()).collect())
    }

    async fn forget_pushes(&self, load_specs: &[LoadSpec]) -> Result<()> {
        let mut state = self.open()?;
        for load_spec in load_specs {
            state.pushes.remove(&key(load_spec)?);
        }
        Ok(())
    }

    async fn publish(&self, publication: &Publication, decide: Decide<'_>) -> Result<Publish> {
        let mut state = self.open()?;
        if let Some(rev) = state.publishes.get(&publication.publish_id) {
            return Ok(Publish::DoneBefore { rev: *rev });
        }
        let present = state.data_sources.get(&publication.data_source).map_or(0, |data_source| data_source.rev);
        let decision = decide(&state.overlap(publication, present + 1))?;
        if let Some(taken) = decision.add.iter().find(|record| state.segments.contains_key(&record.id)) {
            return Err(Error::runtime_failure(format!("segment id `{}` is taken", taken.id)));
        }
        let rev = state.next_rev(&publication.data_source, publication.now);
        for record in &decision.add {
            let row = Row { record: record.clone(), used: true, kill: Kill::Kept };
            state.segments.insert(record.id.clone(), row);
        }
        state.set_unused(&decision.mark_unused);
        state.publishes.insert(publication.publish_id.clone(), rev);
        state.pushes.retain(|_, (_, publish_id)| *publish_id != publication.publish_id);
        Ok(Publish::Done(Published { rev, added: decision.add, marked_unused: decision.mark_unused }))
    }

    async fn mark_unused(&self, data_source: &str, within: Interval, now: Timestamp) -> Result<Marked> {
        let mut state = self.open()?;
        let found = state.used(data_source).filter(|record| within.contains_interval(&record.id.interval));
        let segments = found.map(|record| record.id.clone()).collect::<Vec<_>>();
        if segments.is_empty() {
            return Ok(Marked::default());
        }
        state.set_unused(&segments);
        Ok(Marked { rev: state.next_rev(data_source, now), segments })
    }

    async fn begin_kill(
        &self,
        data_source: &str,
        within: Interval,
        in_use: &HashSet<SegmentUid>,
    ) -> Result<Vec<KillCandidate>> {
        let mut state = self.open()?;
        let mut begun = Vec::new();
        for row in state.segments.values_mut() {
            let SegmentRecord { id, uid, .. } = &row.record;
            let wanted = id.data_source == data_source && within.contains_interval(&id.interval);
            if wanted && !row.used && row.kill != Kill::Burned && !in_use.contains(uid) {
                row.kill = Kill::Begun;
                begun.push(row.record.clone());
            }
        }
        let kept = state.segments.values().filter(|row| row.kill == Kill::Kept);
        let kept = kept.map(|row| row.record.uid).collect::<HashSet<_>>();
        let candidate = |record: SegmentRecord| {
            let is_shared = kept.contains(&record.uid);
            let SegmentRecord { id, load_spec, size_bytes, .. } = record;
            KillCandidate { id, load_spec, size_bytes, is_shared }
        };
        Ok(begun.into_iter().map(candidate).collect())
    }

    async fn finish_kill(&self, ids: &[SegmentId]) -> Result<()> {
        let mut state = self.open()?;
        for id in ids {
            if let Some(row) = state.segments.get_mut(id).filter(|row| row.kill == Kill::Begun) {
                row.kill = Kill::Burned;
            }
        }
        Ok(())
    }

    async fn save_task(&self, task: &TaskRecord) -> Result<()> {
        self.open()?.tasks.insert(task.id.clone(), task.clone());
        Ok(())
    }

    async fn task(&self, id: &str) -> Result<Option<TaskRecord>> {
        Ok(self.open()?.tasks.get(id).cloned())
    }

    async fn tasks(&self, limit: usize) -> Result<Vec<TaskRecord>> {
        let mut tasks = self.open()?.tasks.values().cloned().collect::<Vec<_>>();
        tasks.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        tasks.truncate(limit);
        Ok(tasks)
    }

    async fn users(&self) -> Result<Vec<UserRecord>> {
        Ok(self.open()?.users.values().cloned().collect())
    }

    async fn save_user(&self, user: &UserRecord) -> Result<()> {
        self.open()?.users.insert(user.name.clone(), user.clone());
        Ok(())
    }

    async fn remove_user(&self, name: &str) -> Result<bool> {
        Ok(self.open()?.users.remove(name).is_some())
    }

    async fn close(&self) {
        *self.state.lock() = None;
    }
}
