//! Parts of transactions.

use henge_engine::model::{Interval, SegmentId, Timestamp};
use henge_engine::{Error, Result};
use sqlx::Transaction;

use super::dialect::{Dialect, Fields, Value, values};
use super::failure::failure;
use super::record::{
    Overlap, Publication, Published, SegmentRecord, SinkRecord, StreamAdvance, StreamRecord, TakenGroup,
};
use super::row::{self, Schemas};
use super::sql_store::out_of_step;
use super::{payload, sql};

pub(super) type Writing<D> = Transaction<'static, D>;

pub(super) async fn execute<D: Dialect>(
    writing: &mut Writing<D>,
    statement: &'static str,
    values: &[Value<'_>],
) -> Result<u64> {
    D::execute(&mut *writing, statement, values).await.map_err(failure::<D>)
}

pub(super) async fn fetch<D: Dialect>(
    transaction: &mut Writing<D>,
    statement: &'static str,
    values: &[Value<'_>],
) -> Result<Vec<Fields>> {
    D::fetch(&mut *transaction, statement, values).await.map_err(failure::<D>)
}

pub(super) async fn all_schemas<D: Dialect>(transaction: &mut Writing<D>) -> Result<Schemas> {
    let rows = fetch(transaction, sql::SELECT_SCHEMAS, &[]).await?;
    rows.iter().map(|row| Ok((row.text(0)?, payload::schema_from_json(&row.text(1)?)?))).collect()
}

/// Raises the `rev` of a data source, and creates it when missing. Its row is locked from here on.
pub(super) async fn next_rev<D: Dialect>(writing: &mut Writing<D>, data_source: &str, now: Timestamp) -> Result<u64> {
    if execute(writing, sql::NEXT_REV, values![data_source]).await? == 0 {
        execute(writing, D::INSERT_DATA_SOURCE, values![data_source, now]).await?;
        execute(writing, sql::NEXT_REV, values![data_source]).await?;
    }
    let rows = fetch(writing, sql::SELECT_REV, values![data_source]).await?;
    rows.first().ok_or_else(|| Error::runtime_failure("a data source that was just made is gone"))?.unsigned(0)
}

/// Moves a stream on. Fails with `Conflict` if it is not where that begins.
pub(super) async fn advance<D: Dialect>(writing: &mut Writing<D>, stretch: &StreamAdvance) -> Result<()> {
    let StreamAdvance { stream, part, from, to } = stretch;
    let part = u64::from(*part);
    if execute(writing, sql::ADVANCE_STREAM, values![*to, stream, part, *from]).await? == 1 {
        return Ok(());
    }
    // Where it is elsewhere already, this fails as well: a part has one row.
    let known = fetch(writing, sql::SELECT_STREAM_POSITION, values![stream, part]).await?;
    if *from != 0 || !known.is_empty() {
        return Err(out_of_step(stretch));
    }
    execute(writing, sql::INSERT_STREAM_POSITION, values![stream, part, *to]).await.map(drop)
}

/// How far all parts of a stream are published.
pub(super) async fn read_stream<D: Dialect>(transaction: &mut Writing<D>, stream: &str) -> Result<StreamRecord> {
    let rows = fetch(transaction, sql::SELECT_STREAM_POSITIONS, values![stream]).await?;
    let part = |row: &Fields| {
        let part = u32::try_from(row.long(0)?).map_err(|_| Error::corrupt("a part of a stream is no number of one"))?;
        Ok((part, row.unsigned(1)?))
    };
    let positions = rows.iter().map(part).collect::<Result<_>>()?;
    let rows = fetch(transaction, sql::SELECT_STREAM_SOURCE, values![stream]).await?;
    Ok(StreamRecord { source: rows.first().map(|row| row.text(0)).transpose()?, positions })
}

/// Records a sink in place of what was recorded of it.
pub(super) async fn put_sink<D: Dialect>(writing: &mut Writing<D>, sink: &SinkRecord) -> Result<()> {
    let uid = sink.uid.to_string();
    let known = fetch(writing, sql::SELECT_SINK, values![&uid]).await?;
    let known = known.first().map(row::sink).transpose()?;
    sink.check_replaces(known.as_ref())?;
    execute(writing, sql::DELETE_SINK, values![&uid]).await?;
    execute(writing, sql::INSERT_SINK, values![uid, &sink.data_source, payload::to_json(sink)?]).await.map(drop)
}

/// Whether the segments of a publication are there, by the names of their bytes.
pub(super) async fn is_there<D: Dialect>(writing: &mut Writing<D>, published: &Published) -> Result<bool> {
    let Some(first) = published.added.first() else { return Ok(true) };
    let rows = fetch(writing, sql::SELECT_SEGMENT, values![first.id.to_string()]).await?;
    Ok(rows.first().map(|row| row.text(6)).transpose()?.is_some_and(|uid| uid == first.uid.to_string()))
}

pub(super) async fn select_by_time<D: Dialect>(
    transaction: &mut Writing<D>,
    statement: &'static str,
    data_source: &str,
    interval: Interval,
    schemas: &Schemas,
) -> Result<Vec<SegmentRecord>> {
    let values = values![data_source, interval.start().millis(), interval.end().millis()];
    let rows = fetch(transaction, statement, values).await?;
    rows.iter().map(|row| row::segment(row, schemas)).collect()
}

pub(super) async fn find_overlap<D: Dialect>(
    writing: &mut Writing<D>,
    data_source: &str,
    asked: &[Interval],
    rev: u64,
) -> Result<Overlap> {
    let schemas = all_schemas(writing).await?;
    let mut spans = asked.to_vec();
    for span in asked {
        let used = select_by_time(writing, sql::SELECT_USED_OVERLAPPING, data_source, *span, &schemas).await?;
        spans.extend(used.iter().map(|record| record.id.interval));
    }
    let mut overlap = Overlap { rev, ..Overlap::default() };
    for span in super::join(spans) {
        overlap.used.extend(select_by_time(writing, sql::SELECT_USED_OVERLAPPING, data_source, span, &schemas).await?);
        let values = values![data_source, span.start().millis(), span.end().millis()];
        for row in &fetch(writing, sql::SELECT_TAKEN, values).await? {
            overlap.taken.push(TakenGroup {
                interval: row::interval(row, 0)?,
                version: row.text(2)?,
                max_partition: row::partition(row, 3)?,
            });
        }
    }
    overlap.used.sort_by(|a, b| a.id.cmp(&b.id));
    overlap.used.dedup_by(|a, b| a.id == b.id);
    Ok(overlap)
}

pub(super) async fn insert_segment<D: Dialect>(
    writing: &mut Writing<D>,
    record: &SegmentRecord,
    publication: &Publication,
) -> Result<()> {
    let schema_id = schema_id(writing, record).await?;
    let SegmentRecord { id, .. } = record;
    let (min_time, max_time) = row::times(record);
    let values = values![
        id.to_string(),
        &id.data_source,
        record.created,
        id.interval.start(),
        id.interval.end(),
        record.shard_spec.core_size() != 1 || id.partition > 0,
        &id.version,
        payload::Payload::of(record)?.into_bytes(),
        publication.now,
        id.interval.start().millis(),
        id.interval.end().millis(),
        id.partition,
        record.uid.to_string(),
        schema_id,
        record.num_rows,
        record.size_bytes,
        &record.hash,
        min_time,
        max_time,
        &publication.publish_id,
        record.created_rev,
        record.standing.is_dormant(),
    ];
    execute(writing, sql::INSERT_SEGMENT, values).await.map(drop)
}

/// Fills in our columns of a row that was inserted by hand.
pub(super) async fn adopt<D: Dialect>(writing: &mut Writing<D>, record: &SegmentRecord, rev: u64) -> Result<u64> {
    let schema_id = schema_id(writing, record).await?;
    let SegmentRecord { id, .. } = record;
    let (min_time, max_time) = row::times(record);
    let values = values![
        id.interval.start().millis(),
        id.interval.end().millis(),
        id.partition,
        record.uid.to_string(),
        schema_id,
        record.num_rows,
        record.size_bytes,
        &record.hash,
        min_time,
        max_time,
        rev,
        record.standing.is_dormant(),
        id.to_string(),
    ];
    execute(writing, sql::ADOPT, values).await
}

pub(super) async fn schema_id<D: Dialect>(writing: &mut Writing<D>, record: &SegmentRecord) -> Result<String> {
    let json = payload::to_json(record.schema.as_ref())?;
    let fingerprint = payload::schema_fingerprint(&json);
    for collision in 0_u32.. {
        let id = if collision == 0 { format!("{fingerprint:016x}") } else { format!("{fingerprint:016x}-{collision}") };
        let mut rows = fetch(writing, sql::SELECT_SCHEMA, values![&id]).await?;
        if rows.is_empty() {
            // Another may be about to insert the same: then this one waits for it, and looks again.
            execute(writing, D::INSERT_SCHEMA, values![&id, &json]).await?;
            rows = fetch(writing, sql::SELECT_SCHEMA, values![&id]).await?;
        }
        if rows.first().map(|row| row.text(0)).transpose()?.is_some_and(|found| found == json) {
            return Ok(id);
        }
    }
    Err(Error::defensive("every schema collides"))
}

pub(super) async fn set_unused<D: Dialect>(
    writing: &mut Writing<D>,
    ids: &[SegmentId],
    now: Timestamp,
    rev: u64,
) -> Result<()> {
    for id in ids {
        execute(writing, sql::MARK_UNUSED, values![now, rev, id.to_string()]).await?;
    }
    Ok(())
}
