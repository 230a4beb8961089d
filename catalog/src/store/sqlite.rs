use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use henge_engine::model::{Interval, SegmentId, SegmentSchema, SegmentUid, Timestamp};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use super::record::{
    DataSourceRecord, Decision, KillCandidate, Marked, Overlap, Publication, Publish, Published, SegmentRecord,
    Snapshot, TakenGroup, TaskRecord, UserRecord,
};
use super::{Decide, MetadataStore, migration, sql};

const READERS: u32 = 4;
/// A writer waits for another this long. Within one process there is one writer; another process is kept out by the
/// lock on the data directory.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The metadata store in one SQLite file.
///
/// One connection writes, each transaction with `BEGIN IMMEDIATE`: a transaction that begins to read and then wants to
/// write fails at once with `SQLITE_BUSY`, whatever the timeout. With `synchronous=FULL` a commit survives power loss.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
}

type Writing<'a> = Transaction<'a, Sqlite>;

/// Says that the metadata store failed, for the operator.
pub(super) fn failure(error: sqlx::Error) -> Error {
    Error::runtime_failure("the metadata store failed").with_source(error)
}

impl SqliteStore {
    /// Opens the file, creates it when missing, and brings it to the shape this program knows.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let open = |error| failure(error).context("file", path.display());
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(open)?;
        let mut connection = writer.acquire().await.map_err(open)?;
        migration::migrate(&mut connection).await.map_err(|error| error.context("file", path.display()))?;
        drop(connection);
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers })
    }

    async fn begin(&self) -> Result<Writing<'_>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failure)
    }
}

#[async_trait]
impl MetadataStore for SqliteStore {
    async fn snapshot(&self) -> Result<Snapshot> {
        let mut reading = self.readers.begin().await.map_err(failure)?;
        let rows = sqlx::query(sql::SELECT_DATA_SOURCES).fetch_all(&mut *reading).await.map_err(failure)?;
        let data_sources = rows.iter().map(read_data_source).collect::<Result<_>>()?;
        let schemas = all_schemas(&mut reading).await?;
        let rows = sqlx::query(sql::SELECT_USED).fetch_all(&mut *reading).await.map_err(failure)?;
        let segments = rows.iter().map(|row| read_segment(row, &schemas)).collect::<Result<_>>()?;
        Ok(Snapshot { data_sources, segments })
    }

    async fn rev(&self, data_source: &str) -> Result<u64> {
        let row =
            sqlx::query(sql::SELECT_REV).bind(data_source).fetch_optional(&self.readers).await.map_err(failure)?;
        row.as_ref().map_or(Ok(0), |row| get_u64(row, 0))
    }

    async fn intend_pushes(&self, publish_id: &str, load_specs: &[LoadSpec]) -> Result<()> {
        let mut writing = self.begin().await?;
        for load_spec in load_specs {
            let query = sqlx::query(sql::INSERT_PUSH).bind(sql::to_json(load_spec)?).bind(publish_id);
            query.execute(&mut *writing).await.map_err(failure)?;
        }
        writing.commit().await.map_err(failure)
    }

    async fn intended_pushes(&self) -> Result<Vec<LoadSpec>> {
        let rows = sqlx::query(sql::SELECT_PUSHES).fetch_all(&self.readers).await.map_err(failure)?;
        rows.iter().map(|row| sql::from_json("an intended push", &get::<String>(row, 0)?)).collect()
    }

    async fn forget_pushes(&self, load_specs: &[LoadSpec]) -> Result<()> {
        let mut writing = self.begin().await?;
        for load_spec in load_specs {
            let query = sqlx::query(sql::DELETE_PUSH).bind(sql::to_json(load_spec)?);
            query.execute(&mut *writing).await.map_err(failure)?;
        }
        writing.commit().await.map_err(failure)
    }

    async fn publish(&self, publication: &Publication, decide: Decide<'_>) -> Result<Publish> {
        let mut writing = self.begin().await?;
        let query = sqlx::query(sql::SELECT_PUBLISH).bind(&publication.publish_id);
        if let Some(row) = query.fetch_optional(&mut *writing).await.map_err(failure)? {
            return Ok(Publish::DoneBefore { rev: get_u64(&row, 0)? });
        }
        let rev = next_rev(&mut writing, &publication.data_source, publication.now).await?;
        let overlap = find_overlap(&mut writing, publication, rev).await?;
        let Decision { add, mark_unused } = decide(&overlap)?;
        for record in &add {
            insert_segment(&mut writing, record, publication).await?;
        }
        set_unused(&mut writing, &mark_unused, publication.now, rev).await?;
        let query = sqlx::query(sql::INSERT_PUBLISH).bind(&publication.publish_id).bind(&publication.data_source);
        let query = query.bind(publication.now.to_string()).bind(rev.cast_signed());
        query.execute(&mut *writing).await.map_err(failure)?;
        let query = sqlx::query(sql::DELETE_PUSHES_OF).bind(&publication.publish_id);
        query.execute(&mut *writing).await.map_err(failure)?;
        writing.commit().await.map_err(failure)?;
        Ok(Publish::Done(Published { rev, added: add, marked_unused: mark_unused }))
    }

    async fn mark_unused(&self, data_source: &str, within: Interval, now: Timestamp) -> Result<Marked> {
        let mut writing = self.begin().await?;
        let schemas = all_schemas(&mut writing).await?;
        let found = select_by_time(&mut writing, sql::SELECT_USED_WITHIN, data_source, within, &schemas).await?;
        if found.is_empty() {
            return Ok(Marked::default());
        }
        let rev = next_rev(&mut writing, data_source, now).await?;
        let segments = found.into_iter().map(|record| record.id).collect::<Vec<_>>();
        set_unused(&mut writing, &segments, now, rev).await?;
        writing.commit().await.map_err(failure)?;
        Ok(Marked { rev, segments })
    }

    async fn begin_kill(
        &self,
        data_source: &str,
        within: Interval,
        in_use: &HashSet<SegmentUid>,
    ) -> Result<Vec<KillCandidate>> {
        let mut writing = self.begin().await?;
        let schemas = all_schemas(&mut writing).await?;
        let mut found = select_by_time(&mut writing, sql::SELECT_KILLABLE, data_source, within, &schemas).await?;
        found.retain(|record| !in_use.contains(&record.uid));
        for record in &found {
            let query = sqlx::query(sql::BEGIN_KILL).bind(record.id.to_string());
            query.execute(&mut *writing).await.map_err(failure)?;
        }
        let mut candidates = Vec::with_capacity(found.len());
        for record in found {
            let query = sqlx::query(sql::COUNT_KEPT_BY_UID).bind(record.uid.to_string());
            let row = query.fetch_one(&mut *writing).await.map_err(failure)?;
            let is_shared = get_u64(&row, 0)? > 0;
            let SegmentRecord { id, load_spec, size_bytes, .. } = record;
            candidates.push(KillCandidate { id, load_spec, size_bytes, is_shared });
        }
        writing.commit().await.map_err(failure)?;
        Ok(candidates)
    }

    async fn finish_kill(&self, ids: &[SegmentId]) -> Result<()> {
        let mut writing = self.begin().await?;
        for id in ids {
            let query = sqlx::query(sql::FINISH_KILL).bind(id.to_string());
            query.execute(&mut *writing).await.map_err(failure)?;
        }
        writing.commit().await.map_err(failure)
    }

    async fn save_task(&self, task: &TaskRecord) -> Result<()> {
        let mut writing = self.begin().await?;
        sqlx::query(sql::DELETE_TASK).bind(&task.id).execute(&mut *writing).await.map_err(failure)?;
        let query = sqlx::query(sql::INSERT_TASK)
            .bind(&task.id)
            .bind(&task.task_type)
            .bind(&task.data_source)
            .bind(task.created.to_string())
            .bind(task.status.to_string())
            .bind(task.duration_ms.map(u64::cast_signed))
            .bind(&task.error)
            .bind(&task.payload)
            .bind(&task.report);
        query.execute(&mut *writing).await.map_err(failure)?;
        writing.commit().await.map_err(failure)
    }

    async fn task(&self, id: &str) -> Result<Option<TaskRecord>> {
        let row = sqlx::query(sql::SELECT_TASK).bind(id).fetch_optional(&self.readers).await.map_err(failure)?;
        row.as_ref().map(read_task).transpose()
    }

    async fn tasks(&self, limit: usize) -> Result<Vec<TaskRecord>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = sqlx::query(sql::SELECT_TASKS).bind(limit).fetch_all(&self.readers).await.map_err(failure)?;
        rows.iter().map(read_task).collect()
    }

    async fn users(&self) -> Result<Vec<UserRecord>> {
        let rows = sqlx::query(sql::SELECT_USERS).fetch_all(&self.readers).await.map_err(failure)?;
        rows.iter().map(read_user).collect()
    }

    async fn save_user(&self, user: &UserRecord) -> Result<()> {
        let mut writing = self.begin().await?;
        sqlx::query(sql::DELETE_USER).bind(&user.name).execute(&mut *writing).await.map_err(failure)?;
        let query = sqlx::query(sql::INSERT_USER).bind(&user.name).bind(&user.verifier).bind(user.created.to_string());
        query.execute(&mut *writing).await.map_err(failure)?;
        writing.commit().await.map_err(failure)
    }

    async fn remove_user(&self, name: &str) -> Result<bool> {
        let mut writing = self.begin().await?;
        let removed = sqlx::query(sql::DELETE_USER).bind(name).execute(&mut *writing).await.map_err(failure)?;
        writing.commit().await.map_err(failure)?;
        Ok(removed.rows_affected() > 0)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

type Schemas = HashMap<String, Arc<SegmentSchema>>;

async fn all_schemas(transaction: &mut Writing<'_>) -> Result<Schemas> {
    let rows = sqlx::query(sql::SELECT_SCHEMAS).fetch_all(&mut **transaction).await.map_err(failure)?;
    rows.iter().map(|row| Ok((get(row, 0)?, sql::schema_from_json(&get::<String>(row, 1)?)?))).collect()
}

/// Raises the `rev` of a data source, and creates it when missing. Its row is locked from here on.
async fn next_rev(writing: &mut Writing<'_>, data_source: &str, now: Timestamp) -> Result<u64> {
    let raised = sqlx::query(sql::NEXT_REV).bind(data_source).execute(&mut **writing).await.map_err(failure)?;
    if raised.rows_affected() == 0 {
        let insert = sqlx::query(sql::INSERT_DATA_SOURCE).bind(data_source).bind(now.to_string());
        insert.execute(&mut **writing).await.map_err(failure)?;
        sqlx::query(sql::NEXT_REV).bind(data_source).execute(&mut **writing).await.map_err(failure)?;
    }
    let row = sqlx::query(sql::SELECT_REV).bind(data_source).fetch_one(&mut **writing).await.map_err(failure)?;
    get_u64(&row, 0)
}

async fn select_by_time(
    transaction: &mut Writing<'_>,
    statement: &'static str,
    data_source: &str,
    interval: Interval,
    schemas: &Schemas,
) -> Result<Vec<SegmentRecord>> {
    let query = sqlx::query(statement).bind(data_source).bind(interval.start().millis()).bind(interval.end().millis());
    let rows = query.fetch_all(&mut **transaction).await.map_err(failure)?;
    rows.iter().map(|row| read_segment(row, schemas)).collect()
}

async fn find_overlap(writing: &mut Writing<'_>, publication: &Publication, rev: u64) -> Result<Overlap> {
    let schemas = all_schemas(writing).await?;
    let data_source = &publication.data_source;
    let mut spans = publication.spans.clone();
    for span in &publication.spans {
        let used = select_by_time(writing, sql::SELECT_USED_OVERLAPPING, data_source, *span, &schemas).await?;
        spans.extend(used.iter().map(|record| record.id.interval));
    }
    let mut overlap = Overlap { rev, ..Overlap::default() };
    for span in super::join(spans) {
        overlap.used.extend(select_by_time(writing, sql::SELECT_USED_OVERLAPPING, data_source, span, &schemas).await?);
        let query = sqlx::query(sql::SELECT_TAKEN).bind(data_source).bind(span.start().millis());
        let rows = query.bind(span.end().millis()).fetch_all(&mut **writing).await.map_err(failure)?;
        for row in &rows {
            overlap.taken.push(TakenGroup {
                interval: read_interval(row, 0)?,
                version: get(row, 2)?,
                max_partition: get(row, 3)?,
            });
        }
    }
    overlap.used.sort_by(|a, b| a.id.cmp(&b.id));
    overlap.used.dedup_by(|a, b| a.id == b.id);
    Ok(overlap)
}

async fn insert_segment(writing: &mut Writing<'_>, record: &SegmentRecord, publication: &Publication) -> Result<()> {
    let schema_id = schema_id(writing, &record.schema).await?;
    let SegmentRecord { id, .. } = record;
    let time = |pick: fn((Timestamp, Timestamp)) -> Timestamp| record.time_range.map(|range| pick(range).millis());
    let query = sqlx::query(sql::INSERT_SEGMENT)
        .bind(id.to_string())
        .bind(&id.data_source)
        .bind(record.created.to_string())
        .bind(id.interval.start().to_string())
        .bind(id.interval.end().to_string())
        .bind(record.shard_spec.core_size() != 1 || id.partition > 0)
        .bind(&id.version)
        .bind(sql::Payload::of(record)?.into_bytes())
        .bind(publication.now.to_string())
        .bind(id.interval.start().millis())
        .bind(id.interval.end().millis())
        .bind(id.partition)
        .bind(record.uid.to_string())
        .bind(schema_id)
        .bind(record.num_rows.cast_signed())
        .bind(record.size_bytes.cast_signed())
        .bind(&record.hash)
        .bind(time(|range| range.0))
        .bind(time(|range| range.1))
        .bind(&publication.publish_id)
        .bind(record.created_rev.cast_signed());
    query.execute(&mut **writing).await.map_err(failure)?;
    Ok(())
}

async fn schema_id(writing: &mut Writing<'_>, schema: &SegmentSchema) -> Result<String> {
    let json = sql::to_json(schema)?;
    let fingerprint = sql::schema_fingerprint(&json);
    for collision in 0_u32.. {
        let id = if collision == 0 { format!("{fingerprint:016x}") } else { format!("{fingerprint:016x}-{collision}") };
        let row = sqlx::query(sql::SELECT_SCHEMA).bind(&id).fetch_optional(&mut **writing).await.map_err(failure)?;
        match row {
            Some(row) if get::<String>(&row, 0)? == json => return Ok(id),
            Some(_) => {}
            None => {
                let insert = sqlx::query(sql::INSERT_SCHEMA).bind(&id).bind(&json);
                insert.execute(&mut **writing).await.map_err(failure)?;
                return Ok(id);
            }
        }
    }
    Err(Error::defensive("every schema collides"))
}

async fn set_unused(writing: &mut Writing<'_>, ids: &[SegmentId], now: Timestamp, rev: u64) -> Result<()> {
    for id in ids {
        let query = sqlx::query(sql::MARK_UNUSED).bind(now.to_string()).bind(rev.cast_signed()).bind(id.to_string());
        query.execute(&mut **writing).await.map_err(failure)?;
    }
    Ok(())
}

fn get<'r, T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>>(row: &'r SqliteRow, index: usize) -> Result<T> {
    row.try_get(index).map_err(failure)
}

fn get_u64(row: &SqliteRow, index: usize) -> Result<u64> {
    Ok(get::<i64>(row, index)?.cast_unsigned())
}

fn read_interval(row: &SqliteRow, index: usize) -> Result<Interval> {
    Interval::new(Timestamp::from_millis(get(row, index)?), Timestamp::from_millis(get(row, index + 1)?))
}

fn read_data_source(row: &SqliteRow) -> Result<DataSourceRecord> {
    Ok(DataSourceRecord { name: get(row, 0)?, created: get::<String>(row, 1)?.parse()?, rev: get_u64(row, 2)? })
}

/// Reads what [`sql`]'s `select_segments` selects.
fn read_segment(row: &SqliteRow, schemas: &Schemas) -> Result<SegmentRecord> {
    let payload: Vec<u8> = get(row, 5)?;
    let payload = String::from_utf8_lossy(&payload);
    let payload: sql::Payload = sql::from_json("a segment", &payload)?;
    let schema_id: String = get(row, 7)?;
    let schema = schemas
        .get(&schema_id)
        .ok_or_else(|| Error::corrupt("the metadata store lacks a segment's schema").context("schema", &schema_id))?;
    let time = |index| Ok(get::<Option<i64>>(row, index)?.map(Timestamp::from_millis));
    let range: Result<_> = time(11).and_then(|first| Ok(first.zip(time(12)?)));
    Ok(SegmentRecord {
        id: SegmentId {
            data_source: get(row, 0)?,
            interval: read_interval(row, 1)?,
            version: get(row, 3)?,
            partition: get(row, 4)?,
        },
        uid: get::<String>(row, 6)?.parse()?,
        shard_spec: payload.shard_spec,
        load_spec: payload.load_spec,
        schema: Arc::clone(schema),
        num_rows: get_u64(row, 8)?,
        size_bytes: get_u64(row, 9)?,
        hash: get(row, 10)?,
        time_range: range?,
        created_rev: get_u64(row, 13)?,
        created: get::<String>(row, 14)?.parse()?,
    })
}

fn read_user(row: &SqliteRow) -> Result<UserRecord> {
    Ok(UserRecord { name: get(row, 0)?, verifier: get(row, 1)?, created: get::<String>(row, 2)?.parse()? })
}

fn read_task(row: &SqliteRow) -> Result<TaskRecord> {
    Ok(TaskRecord {
        id: get(row, 0)?,
        task_type: get(row, 1)?,
        data_source: get(row, 2)?,
        created: get::<String>(row, 3)?.parse()?,
        status: get::<String>(row, 4)?.parse()?,
        duration_ms: get::<Option<i64>>(row, 5)?.map(i64::cast_unsigned),
        error: get(row, 6)?,
        payload: get(row, 7)?,
        report: get(row, 8)?,
    })
}
