use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use henge_engine::model::{Interval, SegmentId, SegmentUid, Timestamp};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use parking_lot::RwLock;
use sqlx::{Pool, SqlSafeStr};

use super::dialect::{Dialect, Fields, Value, values};
use super::failure::{failure, retrying};
use super::record::{
    AuditEntry, Change, DataSourceState, Decision, HandRow, KillCandidate, Lease, LeaseOutcome, Marked, Publication,
    Publish, Published, Pushes, Registered, SegmentRecord, ServerRecord, Settlement, SinkRecord, Snapshot, Standing,
    StreamRecord, SupervisorRecord, TaskRecord, UserRecord,
};
use super::segments::{
    Writing, adopt, advance, all_schemas, execute, fetch, find_overlap, insert_segment, is_there, next_rev, put_sink,
    read_stream, select_by_time, set_unused,
};
use super::{Decide, MetadataStore, StreamAdvance, migration, payload, row, sql};
use crate::rule::Rule;

/// Connections of each kind, to write and to read.
pub(super) const CONNECTIONS: u32 = 4;
/// How long a connection is waited for, while the database starts or all are busy.
pub(super) const ACQUIRE: Duration = Duration::from_secs(2);
/// A connection that nobody uses is closed after this long.
pub(super) const IDLE: Duration = Duration::from_secs(300);
/// Rows that were changed by hand, at a time.
const PAGE: i64 = 500;

/// The metadata store in a database of SQL: what all of them do alike.
///
/// A transaction that writes begins with the fence of the lease that this handle acts under, if any; then it takes the
/// row of the data source, which puts all changes to it in one order.
pub(super) struct SqlStore<D: Dialect> {
    writer: Pool<D>,
    readers: Pool<D>,
    lease: RwLock<Option<Lease>>,
}

impl<D: Dialect> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("database", &D::NAME).finish_non_exhaustive()
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Over connections to a database, which is brought to the shape this program knows.
    pub(super) async fn open(writer: Pool<D>, readers: Pool<D>) -> Result<Self> {
        let migrated = retrying!(D, async {
            let mut connection = writer.acquire().await.map_err(failure::<D>)?;
            migration::migrate::<D>(&mut connection).await?;
            // What it locked ends with it.
            connection.close().await.map_err(failure::<D>)
        });
        migrated?;
        Ok(Self { writer, readers, lease: RwLock::default() })
    }

    async fn write(&self) -> Result<Writing<D>> {
        let mut writing = self.writer.begin_with(D::BEGIN_WRITE.into_sql_str()).await.map_err(failure::<D>)?;
        let lease = self.lease.read().clone();
        if let Some(Lease { role, holder, epoch }) = lease {
            let rows = fetch(&mut writing, D::LEASES.fence, values![&role, &holder, epoch]).await?;
            if rows.is_empty() {
                return Err(Error::conflict(format!(
                    "another process has taken over the lease `{role}` of the metadata database; this one may not write"
                )));
            }
        }
        Ok(writing)
    }

    async fn read(&self) -> Result<Writing<D>> {
        self.readers.begin_with(D::BEGIN_READ.into_sql_str()).await.map_err(failure::<D>)
    }

    /// A single statement that reads.
    async fn ask(&self, statement: &'static str, values: &[Value<'_>]) -> Result<Vec<Fields>> {
        let mut connection = self.readers.acquire().await.map_err(failure::<D>)?;
        D::fetch(&mut connection, statement, values).await.map_err(failure::<D>)
    }

    async fn snapshot_once(&self) -> Result<Snapshot> {
        let mut reading = self.read().await?;
        let rows = fetch(&mut reading, sql::SELECT_DATA_SOURCES, &[]).await?;
        let data_sources = rows.iter().map(row::data_source).collect::<Result<_>>()?;
        let schemas = all_schemas(&mut reading).await?;
        let rows = fetch(&mut reading, sql::SELECT_USED, &[]).await?;
        let segments = rows.iter().map(|row| row::segment(row, &schemas)).collect::<Result<_>>()?;
        let rows = fetch(&mut reading, sql::SELECT_SINKS, &[]).await?;
        Ok(Snapshot { data_sources, segments, sinks: rows.iter().map(row::sink).collect::<Result<_>>()? })
    }

    async fn state_once(&self, data_source: &str) -> Result<DataSourceState> {
        let mut reading = self.read().await?;
        let rows = fetch(&mut reading, sql::SELECT_REV, values![data_source]).await?;
        let rev = rows.first().map_or(Ok(0), |row| row.unsigned(0))?;
        let schemas = all_schemas(&mut reading).await?;
        let rows = fetch(&mut reading, sql::SELECT_USED_OF, values![data_source]).await?;
        let used = rows.iter().map(|row| row::segment(row, &schemas)).collect::<Result<_>>()?;
        let rows = fetch(&mut reading, sql::SELECT_SINKS_OF, values![data_source]).await?;
        Ok(DataSourceState { rev, used, sinks: rows.iter().map(row::sink).collect::<Result<_>>()? })
    }

    async fn save_sink_once(&self, sink: &SinkRecord, now: Timestamp) -> Result<u64> {
        let mut writing = self.write().await?;
        let rev = next_rev(&mut writing, &sink.data_source, now).await?;
        put_sink(&mut writing, sink).await?;
        writing.commit().await.map_err(failure::<D>)?;
        Ok(rev)
    }

    async fn remove_sink_once(&self, sink: &SinkRecord, now: Timestamp) -> Result<bool> {
        let mut writing = self.write().await?;
        next_rev(&mut writing, &sink.data_source, now).await?;
        let removed = execute(&mut writing, sql::DELETE_SINK, values![sink.uid.to_string()]).await?;
        writing.commit().await.map_err(failure::<D>)?;
        Ok(removed > 0)
    }

    async fn intend_once(&self, publish_id: &str, load_specs: &[LoadSpec]) -> Result<()> {
        let mut writing = self.write().await?;
        for load_spec in load_specs {
            let values = values![payload::to_json(load_spec)?, publish_id];
            // Of an attempt whose answer was lost.
            execute(&mut writing, sql::DELETE_PUSH, &values[..1]).await?;
            execute(&mut writing, sql::INSERT_PUSH, values).await?;
        }
        writing.commit().await.map_err(failure::<D>)
    }

    async fn doom_once(&self, pushes: Pushes<'_>) -> Result<Vec<LoadSpec>> {
        let mut writing = self.write().await?;
        match pushes {
            Pushes::Of(publish_id) => drop(execute(&mut writing, sql::DOOM_PUSHES_OF, values![publish_id]).await?),
            Pushes::All => drop(execute(&mut writing, sql::DOOM_PUSHES, &[]).await?),
            Pushes::BegunBy(_) | Pushes::AllBut(_) => {
                for row in fetch(&mut writing, sql::SELECT_PUBLISH_IDS, &[]).await? {
                    if pushes.contain(&row.text(1)?) {
                        execute(&mut writing, sql::DOOM_PUSH, values![row.text(0)?]).await?;
                    }
                }
            }
        }
        let rows = fetch(&mut writing, sql::SELECT_DOOMED, &[]).await?;
        writing.commit().await.map_err(failure::<D>)?;
        rows.iter().map(|row| payload::from_json("an intended push", &row.text(0)?)).collect()
    }

    async fn forget_once(&self, load_specs: &[LoadSpec]) -> Result<()> {
        let mut writing = self.write().await?;
        for load_spec in load_specs {
            execute(&mut writing, sql::DELETE_PUSH, values![payload::to_json(load_spec)?]).await?;
        }
        writing.commit().await.map_err(failure::<D>)
    }

    /// `attempted` is what an earlier attempt was about to commit when its answer was lost.
    async fn publish_once(
        &self,
        publication: &Publication,
        decide: Decide<'_>,
        attempted: &mut Option<Published>,
    ) -> Result<Publish> {
        let mut writing = self.write().await?;
        // First the lock, then the look: of two with the same id the later one waits here, and then sees the earlier.
        let rev = next_rev(&mut writing, &publication.data_source, publication.now).await?;
        if let Some(row) = fetch(&mut writing, sql::SELECT_PUBLISH, values![&publication.publish_id]).await?.first() {
            let rev = row.unsigned(0)?;
            let ours = attempted.take().filter(|attempted| attempted.rev == rev);
            return match ours {
                Some(ours) if is_there(&mut writing, &ours).await? => Ok(Publish::Done(ours)),
                _ => Ok(Publish::DoneBefore { rev }),
            };
        }
        for stretch in &publication.advances {
            advance(&mut writing, stretch).await?;
        }
        if let Some(sink) = &publication.sink {
            put_sink(&mut writing, sink).await?;
        }
        let overlap = find_overlap(&mut writing, &publication.data_source, &publication.spans, rev).await?;
        let Decision { add, mark_unused } = decide(&overlap)?;
        for record in &add {
            insert_segment(&mut writing, record, publication).await?;
        }
        set_unused(&mut writing, &mark_unused, publication.now, rev).await?;
        let Publication { publish_id, data_source, now, .. } = publication;
        execute(&mut writing, sql::INSERT_PUBLISH, values![publish_id, data_source, *now, rev]).await?;
        let intended = execute(&mut writing, sql::DELETE_PUSHES_OF, values![publish_id]).await?;
        if intended < publication.intended_pushes {
            return Err(swept(publish_id));
        }
        let published = Published { rev, added: add, marked_unused: mark_unused };
        *attempted = Some(published.clone());
        writing.commit().await.map_err(failure::<D>)?;
        Ok(Publish::Done(published))
    }

    async fn mark_unused_once(&self, data_source: &str, within: Interval, now: Timestamp) -> Result<Marked> {
        let mut writing = self.write().await?;
        let rev = next_rev(&mut writing, data_source, now).await?;
        let schemas = all_schemas(&mut writing).await?;
        let found = select_by_time(&mut writing, sql::SELECT_USED_WITHIN, data_source, within, &schemas).await?;
        if found.is_empty() {
            return Ok(Marked::default());
        }
        let segments = found.into_iter().map(|record| record.id).collect::<Vec<_>>();
        set_unused(&mut writing, &segments, now, rev).await?;
        writing.commit().await.map_err(failure::<D>)?;
        Ok(Marked { rev, segments })
    }

    async fn mark_segments_unused_once(&self, data_source: &str, ids: &[SegmentId], now: Timestamp) -> Result<Marked> {
        let mut writing = self.write().await?;
        let rev = next_rev(&mut writing, data_source, now).await?;
        set_unused(&mut writing, ids, now, rev).await?;
        writing.commit().await.map_err(failure::<D>)?;
        Ok(Marked { rev, segments: ids.to_vec() })
    }

    async fn mark_used_once(&self, data_source: &str, within: Interval, ids: Option<&[SegmentId]>) -> Result<u64> {
        let mut writing = self.write().await?;
        let mut marked = 0;
        match ids {
            None => {
                let values = values![data_source, within.start().millis(), within.end().millis()];
                marked += execute(&mut writing, sql::MARK_USED_WITHIN, values).await?;
            }
            Some(ids) => {
                for id in ids {
                    marked += execute(&mut writing, sql::MARK_USED, values![id.to_string(), data_source]).await?;
                }
            }
        }
        writing.commit().await.map_err(failure::<D>)?;
        Ok(marked)
    }

    async fn set_standing_once(
        &self,
        data_source: &str,
        ids: &[SegmentId],
        standing: Standing,
        now: Timestamp,
    ) -> Result<u64> {
        let mut writing = self.write().await?;
        let rev = next_rev(&mut writing, data_source, now).await?;
        let dormant = standing.is_dormant();
        for id in ids {
            execute(&mut writing, sql::SET_DORMANT, values![dormant, id.to_string(), dormant]).await?;
        }
        writing.commit().await.map_err(failure::<D>)?;
        Ok(rev)
    }

    async fn wake_all_once(&self, now: Timestamp) -> Result<()> {
        let mut writing = self.write().await?;
        let rows = fetch(&mut writing, sql::SELECT_DORMANT_SOURCES, &[]).await?;
        for row in &rows {
            next_rev(&mut writing, &row.text(0)?, now).await?;
        }
        if !rows.is_empty() {
            execute(&mut writing, sql::WAKE_ALL, &[]).await?;
        }
        writing.commit().await.map_err(failure::<D>)
    }

    async fn register_once(&self, server: &ServerRecord) -> Result<()> {
        // Not through the fence: it says only that somebody is there.
        let mut writing = self.writer.begin_with(D::BEGIN_WRITE.into_sql_str()).await.map_err(failure::<D>)?;
        execute(&mut writing, sql::DELETE_SERVER, values![&server.name]).await?;
        let payload = payload::to_json(server)?;
        execute(&mut writing, D::LEASES.insert_server, values![&server.name, &server.incarnation, payload]).await?;
        writing.commit().await.map_err(failure::<D>)
    }

    async fn begin_kill_once(
        &self,
        data_source: &str,
        within: Interval,
        unused_before: Option<Timestamp>,
        in_use: &HashSet<SegmentUid>,
    ) -> Result<Vec<KillCandidate>> {
        let mut writing = self.write().await?;
        let schemas = all_schemas(&mut writing).await?;
        let before = unused_before.map_or("9999".to_owned(), |time| time.to_string());
        let values = values![data_source, within.start().millis(), within.end().millis(), before];
        let rows = fetch(&mut writing, sql::SELECT_KILLABLE, values).await?;
        let found = rows.iter().map(|row| row::segment(row, &schemas)).collect::<Result<Vec<_>>>()?;
        let mut begun = Vec::with_capacity(found.len());
        for record in found.into_iter().filter(|record| !in_use.contains(&record.uid)) {
            // Somebody may just have marked it used by hand.
            if execute(&mut writing, sql::BEGIN_KILL, values![record.id.to_string()]).await? > 0 {
                begun.push(record);
            }
        }
        let mut candidates = Vec::with_capacity(begun.len());
        for SegmentRecord { id, uid, load_spec, size_bytes, .. } in begun {
            let rows = fetch(&mut writing, sql::COUNT_KEPT_BY_UID, values![uid.to_string()]).await?;
            let is_shared = rows.first().map_or(Ok(0), |row| row.long(0))? > 0;
            candidates.push(KillCandidate { id, uid, load_spec, size_bytes, is_shared });
        }
        writing.commit().await.map_err(failure::<D>)?;
        Ok(candidates)
    }

    async fn finish_kill_once(&self, ids: &[SegmentId]) -> Result<()> {
        let mut writing = self.write().await?;
        for id in ids {
            execute(&mut writing, sql::FINISH_KILL, values![id.to_string()]).await?;
        }
        writing.commit().await.map_err(failure::<D>)
    }

    async fn by_hand_once(&self, after: &str) -> Result<Vec<HandRow>> {
        let mut reading = self.read().await?;
        let rows = fetch(&mut reading, D::SELECT_BY_HAND, values![after, PAGE]).await?;
        let mut found = Vec::with_capacity(rows.len());
        let mut schemas = None;
        for row in &rows {
            let mut hand = row::by_hand(row)?;
            if matches!(hand.change, Change::MarkedUsed(None)) {
                if schemas.is_none() {
                    schemas = Some(all_schemas(&mut reading).await?);
                }
                let known = fetch(&mut reading, sql::SELECT_SEGMENT, values![&hand.id]).await?;
                if let (Some(row), Some(schemas)) = (known.first(), &schemas) {
                    hand.change = Change::MarkedUsed(Some(Box::new(row::segment(row, schemas)?)));
                }
            }
            found.push(hand);
        }
        Ok(found)
    }

    async fn settle_once(&self, settlement: &Settlement, now: Timestamp, decide: Decide<'_>) -> Result<Option<u64>> {
        let mut writing = self.write().await?;
        let id = settlement.id();
        let rev = next_rev(&mut writing, &id.data_source, now).await?;
        let noted = match settlement {
            Settlement::Adopt(record) => {
                decide(&find_overlap(&mut writing, &id.data_source, &[id.interval], rev).await?)?;
                adopt(&mut writing, record, rev).await?
            }
            Settlement::Use(record) => {
                decide(&find_overlap(&mut writing, &id.data_source, &[id.interval], rev).await?)?;
                execute(
                    &mut writing,
                    sql::NOTE_USED,
                    values![now, rev, record.standing.is_dormant(), record.id.to_string()],
                )
                .await?
            }
            Settlement::Unuse(id) => execute(&mut writing, sql::NOTE_UNUSED, values![now, rev, id.to_string()]).await?,
        };
        if noted == 0 {
            return Ok(None);
        }
        writing.commit().await.map_err(failure::<D>)?;
        Ok(Some(rev))
    }

    async fn begin_stream_once(&self, stream: &str, begun: &StreamRecord) -> Result<StreamRecord> {
        let mut writing = self.write().await?;
        let known = read_stream(&mut writing, stream).await?;
        let mut stands = known.clone();
        for (part, position) in begun.positions.iter().filter(|(part, _)| !known.positions.contains_key(part)) {
            let values = values![stream, u64::from(*part), *position];
            execute(&mut writing, sql::INSERT_STREAM_POSITION, values).await?;
            stands.positions.insert(*part, *position);
        }
        if let (None, Some(source)) = (&known.source, &begun.source) {
            execute(&mut writing, sql::INSERT_STREAM_SOURCE, values![stream, source]).await?;
            stands.source = Some(source.clone());
        }
        writing.commit().await.map_err(failure::<D>)?;
        Ok(stands)
    }

    async fn reset_stream_once(&self, stream: &str, to: &StreamRecord) -> Result<()> {
        let mut writing = self.write().await?;
        execute(&mut writing, sql::DELETE_STREAM_POSITIONS, values![stream]).await?;
        execute(&mut writing, sql::DELETE_STREAM_SOURCE, values![stream]).await?;
        for (part, position) in &to.positions {
            let values = values![stream, u64::from(*part), *position];
            execute(&mut writing, sql::INSERT_STREAM_POSITION, values).await?;
        }
        if let Some(source) = &to.source {
            execute(&mut writing, sql::INSERT_STREAM_SOURCE, values![stream, source]).await?;
        }
        writing.commit().await.map_err(failure::<D>)
    }

    async fn stream_once(&self, stream: &str) -> Result<StreamRecord> {
        let mut reading = self.read().await?;
        read_stream(&mut reading, stream).await
    }

    async fn save_supervisor_once(&self, supervisor: &SupervisorRecord, audit: &AuditEntry) -> Result<()> {
        let mut writing = self.write().await?;
        let SupervisorRecord { id, data_source, created, is_suspended, payload } = supervisor;
        execute(&mut writing, sql::DELETE_SUPERVISOR, values![id]).await?;
        let values = values![id, data_source, *created, *is_suspended, payload];
        execute(&mut writing, sql::INSERT_SUPERVISOR, values).await?;
        insert_audit(&mut writing, audit).await?;
        writing.commit().await.map_err(failure::<D>)
    }

    async fn remove_supervisor_once(&self, id: &str, audit: &AuditEntry) -> Result<bool> {
        let mut writing = self.write().await?;
        let removed = execute(&mut writing, sql::DELETE_SUPERVISOR, values![id]).await? > 0;
        if removed {
            insert_audit(&mut writing, audit).await?;
        }
        writing.commit().await.map_err(failure::<D>)?;
        Ok(removed)
    }

    async fn save_task_once(&self, task: &TaskRecord) -> Result<()> {
        let mut writing = self.write().await?;
        execute(&mut writing, sql::DELETE_TASK, values![&task.id]).await?;
        let values = values![
            &task.id,
            &task.task_type,
            &task.data_source,
            task.created,
            task.status.to_string(),
            task.duration_ms.map(u64::cast_signed),
            &task.error,
            &task.payload,
            &task.report,
        ];
        execute(&mut writing, sql::INSERT_TASK, values).await?;
        writing.commit().await.map_err(failure::<D>)
    }

    async fn save_user_once(&self, user: &UserRecord) -> Result<()> {
        let mut writing = self.write().await?;
        execute(&mut writing, sql::DELETE_USER, values![&user.name]).await?;
        execute(&mut writing, sql::INSERT_USER, values![&user.name, &user.verifier, user.created]).await?;
        writing.commit().await.map_err(failure::<D>)
    }

    async fn remove_user_once(&self, name: &str) -> Result<bool> {
        let mut writing = self.write().await?;
        let removed = execute(&mut writing, sql::DELETE_USER, values![name]).await?;
        writing.commit().await.map_err(failure::<D>)?;
        Ok(removed > 0)
    }

    async fn acquire_once(&self, role: &str, holder: &str, ttl: Duration) -> Result<LeaseOutcome> {
        // Not through the fence: this is how a lease is had.
        let mut writing = self.writer.begin_with(D::BEGIN_WRITE.into_sql_str()).await.map_err(failure::<D>)?;
        execute(&mut writing, D::LEASES.insert, values![role]).await?;
        let values = values![holder, millis(ttl), role, holder];
        let won = execute(&mut writing, D::LEASES.acquire, values).await? > 0;
        let rows = fetch(&mut writing, D::LEASES.read, values![role]).await?;
        writing.commit().await.map_err(failure::<D>)?;
        let row = rows.first().ok_or_else(|| Error::runtime_failure("a lease that was just made is gone"))?;
        if won {
            return Ok(LeaseOutcome::Held(Lease {
                role: role.to_owned(),
                holder: holder.to_owned(),
                epoch: row.unsigned(1)?,
            }));
        }
        let left = Duration::from_millis(u64::try_from(row.long(2)?).unwrap_or(0));
        Ok(LeaseOutcome::HeldBy { holder: row.text(0)?, left })
    }

    async fn seize_once(&self, role: &str, holder: &str, ttl: Duration) -> Result<Lease> {
        let mut writing = self.write().await?;
        execute(&mut writing, D::LEASES.insert, values![role]).await?;
        execute(&mut writing, D::LEASES.seize, values![holder, millis(ttl), role]).await?;
        let rows = fetch(&mut writing, D::LEASES.read, values![role]).await?;
        writing.commit().await.map_err(failure::<D>)?;
        let row = rows.first().ok_or_else(|| Error::runtime_failure("a lease that was just made is gone"))?;
        Ok(Lease { role: role.to_owned(), holder: holder.to_owned(), epoch: row.unsigned(1)? })
    }

    async fn write_one(&self, statement: &'static str, values: &[Value<'_>]) -> Result<()> {
        let mut writing = self.write().await?;
        execute(&mut writing, statement, values).await?;
        writing.commit().await.map_err(failure::<D>)
    }

    async fn change_lease_once(&self, statement: &'static str, values: &[Value<'_>]) -> Result<bool> {
        let mut connection = self.writer.acquire().await.map_err(failure::<D>)?;
        Ok(D::execute(&mut connection, statement, values).await.map_err(failure::<D>)? > 0)
    }

    async fn set_rules_once(&self, data_source: &str, rules: &[Rule], audit: &AuditEntry) -> Result<()> {
        let mut writing = self.write().await?;
        execute(&mut writing, sql::DELETE_RULES, values![data_source]).await?;
        if !rules.is_empty() {
            let values = values![data_source, audit.created, payload::to_json(&rules)?];
            execute(&mut writing, sql::INSERT_RULES, values).await?;
        }
        insert_audit(&mut writing, audit).await?;
        writing.commit().await.map_err(failure::<D>)
    }

    async fn set_config_once(&self, name: &str, payload: &str, audit: &AuditEntry) -> Result<()> {
        let mut writing = self.write().await?;
        execute(&mut writing, sql::DELETE_CONFIG, values![name]).await?;
        execute(&mut writing, sql::INSERT_CONFIG, values![name, payload]).await?;
        insert_audit(&mut writing, audit).await?;
        writing.commit().await.map_err(failure::<D>)
    }
}

#[async_trait]
impl<D: Dialect> MetadataStore for SqlStore<D> {
    fn act_under(&self, lease: Option<Lease>) {
        *self.lease.write() = lease;
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        // Not limited in time: it grows with what is there.
        let mut retry = super::failure::Retry::default();
        loop {
            match self.snapshot_once().await {
                Err(error) if retry.again(&error).await => {}
                outcome => return outcome,
            }
        }
    }

    async fn revs(&self) -> Result<BTreeMap<String, u64>> {
        let rows = retrying!(D, self.ask(sql::SELECT_DATA_SOURCES, &[]))?;
        rows.iter().map(|row| Ok((row.text(0)?, row.unsigned(2)?))).collect()
    }

    async fn state(&self, data_source: &str) -> Result<DataSourceState> {
        retrying!(D, self.state_once(data_source))
    }

    async fn save_sink(&self, sink: &SinkRecord, now: Timestamp) -> Result<u64> {
        retrying!(D, self.save_sink_once(sink, now))
    }

    async fn remove_sink(&self, sink: &SinkRecord, now: Timestamp) -> Result<bool> {
        retrying!(D, self.remove_sink_once(sink, now))
    }

    async fn rev(&self, data_source: &str) -> Result<u64> {
        let rows = retrying!(D, self.ask(sql::SELECT_REV, values![data_source]))?;
        rows.first().map_or(Ok(0), |row| row.unsigned(0))
    }

    async fn intend_pushes(&self, publish_id: &str, load_specs: &[LoadSpec]) -> Result<()> {
        retrying!(D, self.intend_once(publish_id, load_specs))
    }

    async fn intended_pushes(&self) -> Result<Vec<LoadSpec>> {
        let rows = retrying!(D, self.ask(sql::SELECT_PUSHES, &[]))?;
        rows.iter().map(|row| payload::from_json("an intended push", &row.text(0)?)).collect()
    }

    async fn doom_pushes(&self, pushes: Pushes<'_>) -> Result<Vec<LoadSpec>> {
        retrying!(D, self.doom_once(pushes))
    }

    async fn forget_pushes(&self, load_specs: &[LoadSpec]) -> Result<()> {
        retrying!(D, self.forget_once(load_specs))
    }

    async fn published(&self, publish_id: &str) -> Result<Option<u64>> {
        let rows = retrying!(D, self.ask(sql::SELECT_PUBLISH, values![publish_id]))?;
        rows.first().map(|row| row.unsigned(0)).transpose()
    }

    async fn publish(&self, publication: &Publication, decide: Decide<'_>) -> Result<Publish> {
        let mut attempted = None;
        retrying!(D, self.publish_once(publication, decide, &mut attempted))
    }

    async fn stream_position(&self, stream: &str, part: u32) -> Result<u64> {
        let rows = retrying!(D, self.ask(sql::SELECT_STREAM_POSITION, values![stream, u64::from(part)]))?;
        rows.first().map_or(Ok(0), |row| row.unsigned(0))
    }

    async fn stream(&self, stream: &str) -> Result<StreamRecord> {
        retrying!(D, self.stream_once(stream))
    }

    async fn begin_stream(&self, stream: &str, begun: &StreamRecord) -> Result<StreamRecord> {
        retrying!(D, self.begin_stream_once(stream, begun))
    }

    async fn reset_stream(&self, stream: &str, to: &StreamRecord) -> Result<()> {
        retrying!(D, self.reset_stream_once(stream, to))
    }

    async fn supervisors(&self) -> Result<Vec<SupervisorRecord>> {
        let rows = retrying!(D, self.ask(sql::SELECT_SUPERVISORS, &[]))?;
        rows.iter().map(row::supervisor).collect()
    }

    async fn save_supervisor(&self, supervisor: &SupervisorRecord, audit: &AuditEntry) -> Result<()> {
        retrying!(D, self.save_supervisor_once(supervisor, audit))
    }

    async fn remove_supervisor(&self, id: &str, audit: &AuditEntry) -> Result<bool> {
        retrying!(D, self.remove_supervisor_once(id, audit))
    }

    async fn mark_unused(&self, data_source: &str, within: Interval, now: Timestamp) -> Result<Marked> {
        retrying!(D, self.mark_unused_once(data_source, within, now))
    }

    async fn mark_segments_unused(&self, data_source: &str, ids: &[SegmentId], now: Timestamp) -> Result<Marked> {
        retrying!(D, self.mark_segments_unused_once(data_source, ids, now))
    }

    async fn mark_used(&self, data_source: &str, within: Interval, ids: Option<&[SegmentId]>) -> Result<u64> {
        retrying!(D, self.mark_used_once(data_source, within, ids))
    }

    async fn set_standing(
        &self,
        data_source: &str,
        ids: &[SegmentId],
        standing: Standing,
        now: Timestamp,
    ) -> Result<u64> {
        retrying!(D, self.set_standing_once(data_source, ids, standing, now))
    }

    async fn wake_all(&self, now: Timestamp) -> Result<()> {
        retrying!(D, self.wake_all_once(now))
    }

    async fn begin_kill(
        &self,
        data_source: &str,
        within: Interval,
        unused_before: Option<Timestamp>,
        in_use: &HashSet<SegmentUid>,
    ) -> Result<Vec<KillCandidate>> {
        retrying!(D, self.begin_kill_once(data_source, within, unused_before, in_use))
    }

    async fn finish_kill(&self, ids: &[SegmentId]) -> Result<()> {
        retrying!(D, self.finish_kill_once(ids))
    }

    async fn by_hand(&self, after: &str) -> Result<Vec<HandRow>> {
        retrying!(D, self.by_hand_once(after))
    }

    async fn settle(&self, settlement: &Settlement, now: Timestamp, decide: Decide<'_>) -> Result<Option<u64>> {
        retrying!(D, self.settle_once(settlement, now, decide))
    }

    async fn save_task(&self, task: &TaskRecord) -> Result<()> {
        retrying!(D, self.save_task_once(task))
    }

    async fn task(&self, id: &str) -> Result<Option<TaskRecord>> {
        let rows = retrying!(D, self.ask(sql::SELECT_TASK, values![id]))?;
        rows.first().map(row::task).transpose()
    }

    async fn tasks(&self, limit: usize) -> Result<Vec<TaskRecord>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = retrying!(D, self.ask(sql::SELECT_TASKS, values![limit]))?;
        rows.iter().map(row::task).collect()
    }

    async fn unfinished_tasks(&self) -> Result<Vec<TaskRecord>> {
        let rows = retrying!(D, self.ask(sql::SELECT_UNFINISHED_TASKS, &[]))?;
        rows.iter().map(row::task).collect()
    }

    async fn note_progress(&self, task_id: &str, report: &str) -> Result<()> {
        retrying!(D, self.write_one(sql::NOTE_PROGRESS, values![report, task_id]))
    }

    async fn users(&self) -> Result<Vec<UserRecord>> {
        let rows = retrying!(D, self.ask(sql::SELECT_USERS, values![]))?;
        rows.iter().map(row::user).collect()
    }

    async fn save_user(&self, user: &UserRecord) -> Result<()> {
        retrying!(D, self.save_user_once(user))
    }

    async fn remove_user(&self, name: &str) -> Result<bool> {
        retrying!(D, self.remove_user_once(name))
    }

    async fn acquire_lease(&self, role: &str, holder: &str, ttl: Duration) -> Result<LeaseOutcome> {
        retrying!(D, self.acquire_once(role, holder, ttl))
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        let Lease { role, holder, epoch } = lease;
        retrying!(D, self.change_lease_once(D::LEASES.renew, values![millis(ttl), role, holder, *epoch]))
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let Lease { role, holder, epoch } = lease;
        retrying!(D, self.change_lease_once(sql::RELEASE_LEASE, values![role, holder, *epoch])).map(drop)
    }

    async fn seize_lease(&self, role: &str, holder: &str, ttl: Duration) -> Result<Lease> {
        retrying!(D, self.seize_once(role, holder, ttl))
    }

    async fn remove_lease(&self, role: &str) -> Result<()> {
        retrying!(D, self.write_one(sql::DELETE_LEASE, values![role]))
    }

    async fn lease_holder(&self, role: &str) -> Result<Option<String>> {
        let rows = retrying!(D, self.ask(D::LEASES.read, values![role]))?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(if row.long(2)? > 0 { Some(row.text(0)?) } else { None })
    }

    async fn now(&self) -> Result<Timestamp> {
        let rows = retrying!(D, self.ask(D::LEASES.now, &[]))?;
        rows.first().map_or(Ok(0), |row| row.long(0)).map(Timestamp::from_millis)
    }

    async fn register(&self, server: &ServerRecord) -> Result<()> {
        retrying!(D, self.register_once(server))
    }

    async fn unregister(&self, name: &str, incarnation: &str) -> Result<()> {
        retrying!(D, self.change_lease_once(sql::DELETE_INCARNATION, values![name, incarnation])).map(drop)
    }

    async fn servers(&self) -> Result<Vec<Registered>> {
        let rows = retrying!(D, self.ask(D::LEASES.select_servers, &[]))?;
        rows.iter().map(row::server).collect()
    }

    async fn rules(&self) -> Result<BTreeMap<String, Vec<Rule>>> {
        let rows = retrying!(D, self.ask(sql::SELECT_RULES, &[]))?;
        rows.iter().map(|row| Ok((row.text(0)?, payload::from_json("rules", &row.text(1)?)?))).collect()
    }

    async fn set_rules(&self, data_source: &str, rules: &[Rule], audit: &AuditEntry) -> Result<()> {
        retrying!(D, self.set_rules_once(data_source, rules, audit))
    }

    async fn config(&self, name: &str) -> Result<Option<String>> {
        let rows = retrying!(D, self.ask(sql::SELECT_CONFIG, values![name]))?;
        rows.first().map(|row| row.text(0)).transpose()
    }

    async fn set_config(&self, name: &str, payload: &str, audit: &AuditEntry) -> Result<()> {
        retrying!(D, self.set_config_once(name, payload, audit))
    }

    async fn audit(&self, kind: &str, key: Option<&str>, limit: usize) -> Result<Vec<AuditEntry>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = match key {
            Some(key) => retrying!(D, self.ask(sql::SELECT_AUDIT_OF, values![kind, key, limit]))?,
            None => retrying!(D, self.ask(sql::SELECT_AUDIT, values![kind, limit]))?,
        };
        rows.iter().map(row::audit).collect()
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn insert_audit<D: Dialect>(writing: &mut Writing<D>, audit: &AuditEntry) -> Result<()> {
    let AuditEntry { key, kind, author, comment, created, payload } = audit;
    execute(writing, sql::INSERT_AUDIT, values![key, kind, author, comment, *created, payload]).await.map(drop)
}

fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 4)
}

/// A stream was published from elsewhere meanwhile.
pub(super) fn out_of_step(stretch: &StreamAdvance) -> Error {
    let StreamAdvance { stream, part, from, to } = stretch;
    Error::conflict(format!(
        "part {part} of stream `{stream}` is to be published from position {from} to {to}, and is not published up to \
         {from}: another process works on it; nothing was published"
    ))
}

/// Another process took the files for left behind.
pub(super) fn swept(publish_id: &str) -> Error {
    Error::conflict(format!(
        "the files of `{publish_id}` were about to be published when another process removed them as left behind; \
         nothing was published, ingest again"
    ))
}
