use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use henge_engine::model::{Interval, SegmentId, SegmentUid, Timestamp};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use parking_lot::{Mutex, MutexGuard};

use super::record::{
    AuditEntry, Change, DataSourceRecord, DataSourceState, HandRow, Inserted, KillCandidate, Lease, LeaseOutcome,
    Marked, Overlap, Publication, Publish, Published, Pushes, Registered, SegmentRecord, ServerRecord, Settlement,
    SinkRecord, Snapshot, Standing, StreamAdvance, StreamRecord, SupervisorRecord, TakenGroup, TaskRecord, UserRecord,
    join,
};
use super::{Decide, MetadataStore};
use crate::clock::{Clock, SystemClock};
use crate::rule::Rule;

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
    streams: BTreeMap<(String, u32), u64>,
    stream_sources: BTreeMap<String, String>,
    supervisors: BTreeMap<String, SupervisorRecord>,
    sinks: BTreeMap<SegmentUid, SinkRecord>,
    /// By load spec as JSON.
    pushes: BTreeMap<String, Push>,
    tasks: BTreeMap<String, TaskRecord>,
    users: BTreeMap<String, UserRecord>,
    /// Rows that somebody inserted, until they are settled.
    inserted: BTreeMap<String, Inserted>,
    leases: BTreeMap<String, (Lease, Instant)>,
    servers: BTreeMap<String, (ServerRecord, Instant)>,
    acts_under: Option<Lease>,
    rules: BTreeMap<String, Vec<Rule>>,
    config: BTreeMap<String, String>,
    audit: Vec<AuditEntry>,
}

#[derive(Debug)]
struct Push {
    load_spec: LoadSpec,
    publish_id: String,
    doomed: bool,
}

#[derive(Debug)]
struct Row {
    record: SegmentRecord,
    used: bool,
    /// Since when it is not.
    unused_since: Option<Timestamp>,
    /// What this store itself last said of `used`.
    noted: bool,
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

    /// The state, to change it, if the lease allows.
    fn write(&self) -> Result<parking_lot::MappedMutexGuard<'_, State>> {
        let state = self.open()?;
        let Some(Lease { role, holder, epoch }) = &state.acts_under else { return Ok(state) };
        match state.leases.get(role).is_some_and(|(lease, _)| (&lease.holder, lease.epoch) == (holder, *epoch)) {
            true => Ok(state),
            false => Err(Error::conflict(format!("another process has taken over the lease `{role}`"))),
        }
    }

    /// Does what somebody does with SQL of their own: inserts a row.
    pub fn insert_by_hand(&self, inserted: Inserted) -> Result<()> {
        self.open()?.inserted.insert(inserted.id.to_string(), inserted);
        Ok(())
    }

    /// The same: marks a segment used or unused.
    pub fn mark_by_hand(&self, id: &SegmentId, used: bool) -> Result<()> {
        if let Some(row) = self.open()?.segments.get_mut(id) {
            row.used = used;
        }
        Ok(())
    }
}

impl State {
    fn stream(&self, stream: &str) -> StreamRecord {
        let parts = self.streams.iter().filter(|((other, _), _)| other == stream);
        StreamRecord {
            source: self.stream_sources.get(stream).cloned(),
            positions: parts.map(|((_, part), position)| (*part, *position)).collect(),
        }
    }

    fn used(&self, data_source: &str) -> impl Iterator<Item = &SegmentRecord> {
        let rows =
            self.segments.values().filter(move |row| row.used && row.noted && row.record.id.data_source == data_source);
        rows.map(|row| &row.record)
    }

    fn overlap(&self, data_source: &str, asked: &[Interval], rev: u64) -> Overlap {
        let mut spans = asked.to_vec();
        let touches =
            |spans: &[Interval], record: &SegmentRecord| spans.iter().any(|s| s.overlaps(&record.id.interval));
        let first = self.used(data_source).filter(|record| touches(asked, record));
        spans.extend(first.map(|record| record.id.interval));
        let spans = join(spans);
        let used = self.used(data_source).filter(|record| touches(&spans, record)).cloned().collect();
        let mut taken: Vec<TakenGroup> = Vec::new();
        let rows = self.segments.values().map(|row| &row.record);
        let rows = rows.filter(|record| record.id.data_source == data_source);
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

    /// Whether there was something to take note of.
    fn note(&mut self, id: &SegmentId, used: Option<Standing>, rev: u64, now: Timestamp) -> bool {
        let (standing, used) = (used, used.is_some());
        let row = self.segments.get_mut(id).filter(|row| row.used == used && row.noted != used);
        let Some(row) = row.filter(|row| !used || row.kill == Kill::Kept) else { return false };
        row.noted = used;
        row.unused_since = (!used).then_some(now);
        if let Some(standing) = standing {
            (row.record.created_rev, row.record.standing) = (rev, standing);
        }
        true
    }

    fn set_unused(&mut self, ids: &[SegmentId], now: Timestamp) {
        for id in ids {
            if let Some(row) = self.segments.get_mut(id) {
                (row.used, row.noted, row.unused_since) = (false, false, Some(now));
            }
        }
    }
}

fn key(load_spec: &LoadSpec) -> Result<String> {
    super::payload::to_json(load_spec)
}

#[async_trait]
impl MetadataStore for MemoryStore {
    fn act_under(&self, lease: Option<Lease>) {
        if let Some(state) = self.state.lock().as_mut() {
            state.acts_under = lease;
        }
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        let state = self.open()?;
        let data_sources = state.data_sources.values().cloned().collect();
        let used = state.segments.values().filter(|row| row.used && row.noted);
        let mut segments = used.map(|row| row.record.clone()).collect::<Vec<_>>();
        segments.sort_by_cached_key(|record| record.id.to_string());
        Ok(Snapshot { data_sources, segments, sinks: state.sinks.values().cloned().collect() })
    }

    async fn revs(&self) -> Result<BTreeMap<String, u64>> {
        Ok(self.open()?.data_sources.values().map(|source| (source.name.clone(), source.rev)).collect())
    }

    async fn state(&self, data_source: &str) -> Result<DataSourceState> {
        let state = self.open()?;
        let rev = state.data_sources.get(data_source).map_or(0, |data_source| data_source.rev);
        let mut used = state.used(data_source).cloned().collect::<Vec<_>>();
        used.sort_by_cached_key(|record| record.id.to_string());
        let sinks = state.sinks.values().filter(|sink| sink.data_source == data_source).cloned().collect();
        Ok(DataSourceState { rev, used, sinks })
    }

    async fn save_sink(&self, sink: &SinkRecord, now: Timestamp) -> Result<u64> {
        let mut state = self.write()?;
        sink.check_replaces(state.sinks.get(&sink.uid))?;
        state.sinks.insert(sink.uid, sink.clone());
        Ok(state.next_rev(&sink.data_source, now))
    }

    async fn remove_sink(&self, sink: &SinkRecord, now: Timestamp) -> Result<bool> {
        let mut state = self.write()?;
        state.next_rev(&sink.data_source, now);
        Ok(state.sinks.remove(&sink.uid).is_some())
    }

    async fn rev(&self, data_source: &str) -> Result<u64> {
        Ok(self.open()?.data_sources.get(data_source).map_or(0, |data_source| data_source.rev))
    }

    async fn intend_pushes(&self, publish_id: &str, load_specs: &[LoadSpec]) -> Result<()> {
        let mut state = self.write()?;
        for load_spec in load_specs {
            let (load_spec, publish_id) = (load_spec.clone(), publish_id.to_owned());
            let key = key(&load_spec)?;
            state.pushes.insert(key, Push { load_spec, publish_id, doomed: false });
        }
        Ok(())
    }

    async fn intended_pushes(&self) -> Result<Vec<LoadSpec>> {
        Ok(self.open()?.pushes.values().map(|push| push.load_spec.clone()).collect())
    }

    async fn doom_pushes(&self, pushes: Pushes<'_>) -> Result<Vec<LoadSpec>> {
        let mut state = self.write()?;
        for push in state.pushes.values_mut() {
            push.doomed |= pushes.contain(&push.publish_id);
        }
        Ok(state.pushes.values().filter(|push| push.doomed).map(|push| push.load_spec.clone()).collect())
    }

    async fn forget_pushes(&self, load_specs: &[LoadSpec]) -> Result<()> {
        let mut state = self.write()?;
        for load_spec in load_specs {
            state.pushes.remove(&key(load_spec)?);
        }
        Ok(())
    }

    async fn published(&self, publish_id: &str) -> Result<Option<u64>> {
        Ok(self.open()?.publishes.get(publish_id).copied())
    }

    async fn publish(&self, publication: &Publication, decide: Decide<'_>) -> Result<Publish> {
        let mut state = self.write()?;
        if let Some(rev) = state.publishes.get(&publication.publish_id) {
            return Ok(Publish::DoneBefore { rev: *rev });
        }
        for stretch in &publication.advances {
            let reached = state.streams.get(&(stretch.stream.clone(), stretch.part)).copied().unwrap_or(0);
            if reached != stretch.from {
                return Err(super::sql_store::out_of_step(stretch));
            }
        }
        if let Some(sink) = &publication.sink {
            sink.check_replaces(state.sinks.get(&sink.uid))?;
        }
        let present = state.data_sources.get(&publication.data_source).map_or(0, |data_source| data_source.rev);
        let decision = decide(&state.overlap(&publication.data_source, &publication.spans, present + 1))?;
        if let Some(taken) = decision.add.iter().find(|record| state.segments.contains_key(&record.id)) {
            return Err(Error::runtime_failure(format!("segment id `{}` is taken", taken.id)));
        }
        let ready = state.pushes.values().filter(|push| push.publish_id == publication.publish_id && !push.doomed);
        if (ready.count() as u64) < publication.intended_pushes {
            return Err(super::sql_store::swept(&publication.publish_id));
        }
        let rev = state.next_rev(&publication.data_source, publication.now);
        for record in &decision.add {
            let row = Row { record: record.clone(), used: true, unused_since: None, noted: true, kill: Kill::Kept };
            state.segments.insert(record.id.clone(), row);
        }
        state.set_unused(&decision.mark_unused, publication.now);
        state.publishes.insert(publication.publish_id.clone(), rev);
        for StreamAdvance { stream, part, to, .. } in &publication.advances {
            state.streams.insert((stream.clone(), *part), *to);
        }
        state.sinks.extend(publication.sink.iter().map(|sink| (sink.uid, sink.clone())));
        state.pushes.retain(|_, push| push.publish_id != publication.publish_id);
        Ok(Publish::Done(Published { rev, added: decision.add, marked_unused: decision.mark_unused }))
    }

    async fn stream_position(&self, stream: &str, part: u32) -> Result<u64> {
        Ok(self.open()?.streams.get(&(stream.to_owned(), part)).copied().unwrap_or(0))
    }

    async fn stream(&self, stream: &str) -> Result<StreamRecord> {
        Ok(self.open()?.stream(stream))
    }

    async fn begin_stream(&self, stream: &str, begun: &StreamRecord) -> Result<StreamRecord> {
        let mut state = self.write()?;
        for (part, position) in &begun.positions {
            state.streams.entry((stream.to_owned(), *part)).or_insert(*position);
        }
        if let Some(source) = &begun.source {
            state.stream_sources.entry(stream.to_owned()).or_insert_with(|| source.clone());
        }
        Ok(state.stream(stream))
    }

    async fn reset_stream(&self, stream: &str, to: &StreamRecord) -> Result<()> {
        let mut state = self.write()?;
        state.streams.retain(|(other, _), _| other != stream);
        state.streams.extend(to.positions.iter().map(|(part, position)| ((stream.to_owned(), *part), *position)));
        state.stream_sources.remove(stream);
        if let Some(source) = &to.source {
            state.stream_sources.insert(stream.to_owned(), source.clone());
        }
        Ok(())
    }

    async fn supervisors(&self) -> Result<Vec<SupervisorRecord>> {
        Ok(self.open()?.supervisors.values().cloned().collect())
    }

    async fn save_supervisor(&self, supervisor: &SupervisorRecord, audit: &AuditEntry) -> Result<()> {
        let mut state = self.write()?;
        state.supervisors.insert(supervisor.id.clone(), supervisor.clone());
        state.audit.push(audit.clone());
        Ok(())
    }

    async fn remove_supervisor(&self, id: &str, audit: &AuditEntry) -> Result<bool> {
        let mut state = self.write()?;
        let removed = state.supervisors.remove(id).is_some();
        if removed {
            state.audit.push(audit.clone());
        }
        Ok(removed)
    }

    async fn mark_unused(&self, data_source: &str, within: Interval, now: Timestamp) -> Result<Marked> {
        let mut state = self.write()?;
        let found = state.used(data_source).filter(|record| within.contains_interval(&record.id.interval));
        let segments = found.map(|record| record.id.clone()).collect::<Vec<_>>();
        if segments.is_empty() {
            return Ok(Marked::default());
        }
        state.set_unused(&segments, now);
        Ok(Marked { rev: state.next_rev(data_source, now), segments })
    }

    async fn mark_segments_unused(&self, data_source: &str, ids: &[SegmentId], now: Timestamp) -> Result<Marked> {
        let mut state = self.write()?;
        state.set_unused(ids, now);
        Ok(Marked { rev: state.next_rev(data_source, now), segments: ids.to_vec() })
    }

    async fn mark_used(&self, data_source: &str, within: Interval, ids: Option<&[SegmentId]>) -> Result<u64> {
        let mut state = self.write()?;
        let mut marked = 0;
        for (id, row) in &mut state.segments {
            let is_meant = id.data_source == data_source
                && within.contains_interval(&id.interval)
                && ids.is_none_or(|ids| ids.contains(id));
            if is_meant && !row.used && !row.noted && row.kill == Kill::Kept {
                row.used = true;
                marked += 1;
            }
        }
        Ok(marked)
    }

    async fn set_standing(
        &self,
        data_source: &str,
        ids: &[SegmentId],
        standing: Standing,
        now: Timestamp,
    ) -> Result<u64> {
        let mut state = self.write()?;
        for id in ids {
            if let Some(row) = state.segments.get_mut(id).filter(|row| row.used && row.noted) {
                row.record.standing = standing;
            }
        }
        Ok(state.next_rev(data_source, now))
    }

    async fn wake_all(&self, now: Timestamp) -> Result<()> {
        let mut state = self.write()?;
        let mut woken = HashSet::new();
        for row in state.segments.values_mut().filter(|row| row.used && row.record.standing == Standing::Dormant) {
            row.record.standing = Standing::Active;
            woken.insert(row.record.id.data_source.clone());
        }
        for data_source in woken {
            state.next_rev(&data_source, now);
        }
        Ok(())
    }

    async fn begin_kill(
        &self,
        data_source: &str,
        within: Interval,
        unused_before: Option<Timestamp>,
        in_use: &HashSet<SegmentUid>,
    ) -> Result<Vec<KillCandidate>> {
        let mut state = self.write()?;
        let mut begun = Vec::new();
        for row in state.segments.values_mut() {
            let SegmentRecord { id, uid, .. } = &row.record;
            let is_old = unused_before.is_none_or(|before| row.unused_since.is_none_or(|since| since < before));
            let wanted = id.data_source == data_source && within.contains_interval(&id.interval) && is_old;
            if wanted && !row.used && !row.noted && row.kill != Kill::Burned && !in_use.contains(uid) {
                row.kill = Kill::Begun;
                begun.push(row.record.clone());
            }
        }
        let kept = state.segments.values().filter(|row| row.kill == Kill::Kept);
        let kept = kept.map(|row| row.record.uid).collect::<HashSet<_>>();
        let candidate = |record: SegmentRecord| {
            let is_shared = kept.contains(&record.uid);
            let SegmentRecord { id, uid, load_spec, size_bytes, .. } = record;
            KillCandidate { id, uid, load_spec, size_bytes, is_shared }
        };
        Ok(begun.into_iter().map(candidate).collect())
    }

    async fn finish_kill(&self, ids: &[SegmentId]) -> Result<()> {
        let mut state = self.write()?;
        for id in ids {
            if let Some(row) = state.segments.get_mut(id).filter(|row| row.kill == Kill::Begun) {
                row.kill = Kill::Burned;
            }
        }
        Ok(())
    }

    async fn by_hand(&self, after: &str) -> Result<Vec<HandRow>> {
        let state = self.open()?;
        let inserted = state.inserted.iter().map(|(id, row)| HandRow {
            id: id.clone(),
            data_source: row.id.data_source.clone(),
            change: Change::Inserted(Ok(Box::new(row.clone()))),
        });
        let marked = state.segments.values().filter(|row| row.used != row.noted).map(|row| HandRow {
            id: row.record.id.to_string(),
            data_source: row.record.id.data_source.clone(),
            change: match (row.used, row.kill) {
                (true, Kill::Kept) => Change::MarkedUsed(Some(Box::new(row.record.clone()))),
                (true, _) => Change::MarkedUsedTooLate,
                (false, _) => Change::MarkedUnused(Ok(row.record.id.clone())),
            },
        });
        let mut rows = inserted.chain(marked).filter(|row| row.id.as_str() > after).collect::<Vec<_>>();
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(rows)
    }

    async fn settle(&self, settlement: &Settlement, now: Timestamp, decide: Decide<'_>) -> Result<Option<u64>> {
        let mut state = self.write()?;
        let id = settlement.id();
        let rev = state.data_sources.get(&id.data_source).map_or(0, |source| source.rev) + 1;
        if !matches!(settlement, Settlement::Unuse(_)) {
            decide(&state.overlap(&id.data_source, &[id.interval], rev))?;
        }
        let noted = match settlement {
            Settlement::Adopt(record) => {
                let is_there = state.inserted.remove(&id.to_string()).is_some();
                if is_there {
                    let record = SegmentRecord { created_rev: rev, ..record.clone() };
                    let row = Row { record, used: true, unused_since: None, noted: true, kill: Kill::Kept };
                    state.segments.insert(id.clone(), row);
                }
                is_there
            }
            Settlement::Use(record) => state.note(id, Some(record.standing), rev, now),
            Settlement::Unuse(_) => state.note(id, None, rev, now),
        };
        Ok(noted.then(|| state.next_rev(&id.data_source, now)))
    }

    async fn save_task(&self, task: &TaskRecord) -> Result<()> {
        self.write()?.tasks.insert(task.id.clone(), task.clone());
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

    async fn unfinished_tasks(&self) -> Result<Vec<TaskRecord>> {
        let state = self.open()?;
        let mut tasks = state.tasks.values().filter(|task| !task.status.is_complete()).cloned().collect::<Vec<_>>();
        tasks.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(tasks)
    }

    async fn note_progress(&self, task_id: &str, report: &str) -> Result<()> {
        let mut state = self.write()?;
        if let Some(task) = state.tasks.get_mut(task_id).filter(|task| !task.status.is_complete()) {
            task.report = Some(report.to_owned());
        }
        Ok(())
    }

    async fn users(&self) -> Result<Vec<UserRecord>> {
        Ok(self.open()?.users.values().cloned().collect())
    }

    async fn save_user(&self, user: &UserRecord) -> Result<()> {
        self.write()?.users.insert(user.name.clone(), user.clone());
        Ok(())
    }

    async fn remove_user(&self, name: &str) -> Result<bool> {
        Ok(self.write()?.users.remove(name).is_some())
    }

    async fn acquire_lease(&self, role: &str, holder: &str, ttl: Duration) -> Result<LeaseOutcome> {
        let mut state = self.open()?;
        let now = Instant::now();
        let known = state.leases.get(role);
        if let Some((lease, expires)) = known
            && *expires > now
            && lease.holder != holder
        {
            return Ok(LeaseOutcome::HeldBy { holder: lease.holder.clone(), left: *expires - now });
        }
        let epoch = known.map_or(0, |(lease, _)| lease.epoch) + 1;
        let lease = Lease { role: role.to_owned(), holder: holder.to_owned(), epoch };
        state.leases.insert(role.to_owned(), (lease.clone(), now + ttl));
        Ok(LeaseOutcome::Held(lease))
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        let mut state = self.open()?;
        let now = Instant::now();
        match state.leases.get_mut(&lease.role).filter(|(held, expires)| held == lease && *expires > now) {
            Some((_, expires)) => {
                *expires = now + ttl;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let mut state = self.open()?;
        if let Some((_, expires)) = state.leases.get_mut(&lease.role).filter(|(held, _)| held == lease) {
            *expires = Instant::now();
        }
        Ok(())
    }

    async fn seize_lease(&self, role: &str, holder: &str, ttl: Duration) -> Result<Lease> {
        let mut state = self.write()?;
        let epoch = state.leases.get(role).map_or(0, |(lease, _)| lease.epoch) + 1;
        let lease = Lease { role: role.to_owned(), holder: holder.to_owned(), epoch };
        state.leases.insert(role.to_owned(), (lease.clone(), Instant::now() + ttl));
        Ok(lease)
    }

    async fn remove_lease(&self, role: &str) -> Result<()> {
        self.write()?.leases.remove(role);
        Ok(())
    }

    async fn lease_holder(&self, role: &str) -> Result<Option<String>> {
        let state = self.open()?;
        let held = state.leases.get(role).filter(|(_, expires)| *expires > Instant::now());
        Ok(held.map(|(lease, _)| lease.holder.clone()))
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(SystemClock.now())
    }

    async fn register(&self, server: &ServerRecord) -> Result<()> {
        self.open()?.servers.insert(server.name.clone(), (server.clone(), Instant::now()));
        Ok(())
    }

    async fn unregister(&self, name: &str, incarnation: &str) -> Result<()> {
        let mut state = self.open()?;
        if state.servers.get(name).is_some_and(|(server, _)| server.incarnation == incarnation) {
            state.servers.remove(name);
        }
        Ok(())
    }

    async fn servers(&self) -> Result<Vec<Registered>> {
        let state = self.open()?;
        let registered =
            |(server, when): &(ServerRecord, Instant)| Registered { server: server.clone(), age: when.elapsed() };
        Ok(state.servers.values().map(registered).collect())
    }

    async fn rules(&self) -> Result<BTreeMap<String, Vec<Rule>>> {
        Ok(self.open()?.rules.clone())
    }

    async fn set_rules(&self, data_source: &str, rules: &[Rule], audit: &AuditEntry) -> Result<()> {
        let mut state = self.write()?;
        match rules {
            [] => drop(state.rules.remove(data_source)),
            rules => drop(state.rules.insert(data_source.to_owned(), rules.to_vec())),
        }
        state.audit.push(audit.clone());
        Ok(())
    }

    async fn config(&self, name: &str) -> Result<Option<String>> {
        Ok(self.open()?.config.get(name).cloned())
    }

    async fn set_config(&self, name: &str, payload: &str, audit: &AuditEntry) -> Result<()> {
        let mut state = self.write()?;
        state.config.insert(name.to_owned(), payload.to_owned());
        state.audit.push(audit.clone());
        Ok(())
    }

    async fn audit(&self, kind: &str, key: Option<&str>, limit: usize) -> Result<Vec<AuditEntry>> {
        let state = self.open()?;
        let found = state.audit.iter().rev().filter(|entry| entry.kind == kind && key.is_none_or(|k| k == entry.key));
        Ok(found.take(limit).cloned().collect())
    }

    async fn close(&self) {
        *self.state.lock() = None;
    }
}
