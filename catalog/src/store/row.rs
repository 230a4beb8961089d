//! Rows to records.

use std::collections::HashMap;
use std::sync::Arc;

use henge_engine::model::{Interval, SegmentId, SegmentSchema, Timestamp};
use henge_engine::{Error, Result};

use super::dialect::Fields;
use super::payload::{Payload, from_json};
use super::record::{
    AuditEntry, Change, DataSourceRecord, HandRow, Inserted, Registered, SegmentRecord, ServerRecord, SinkRecord,
    Standing, SupervisorRecord, TaskRecord, UserRecord,
};

/// Schemas by their ids.
pub(super) type Schemas = HashMap<String, Arc<SegmentSchema>>;

pub(super) fn interval(row: &Fields, index: usize) -> Result<Interval> {
    Interval::new(Timestamp::from_millis(row.long(index)?), Timestamp::from_millis(row.long(index + 1)?))
}

pub(super) fn partition(row: &Fields, index: usize) -> Result<u32> {
    u32::try_from(row.long(index)?)
        .map_err(|error| Error::corrupt("the metadata store holds a partition number that is none").with_source(error))
}

pub(super) fn data_source(row: &Fields) -> Result<DataSourceRecord> {
    Ok(DataSourceRecord { name: row.text(0)?, created: row.text(1)?.parse()?, rev: row.unsigned(2)? })
}

/// Reads what [`sql`](super::sql)'s `select_segments` selects.
pub(super) fn segment(row: &Fields, schemas: &Schemas) -> Result<SegmentRecord> {
    let payload: Payload = from_json("a segment", &row.text(5)?)?;
    let schema_id = row.text(7)?;
    let schema = schemas
        .get(&schema_id)
        .ok_or_else(|| Error::corrupt("the metadata store lacks a segment's schema").context("schema", &schema_id))?;
    let time = |index| Ok(row.optional_long(index)?.map(Timestamp::from_millis));
    let range: Result<_> = time(11).and_then(|first| Ok(first.zip(time(12)?)));
    let created: Result<Timestamp> = row.text(14)?.parse();
    Ok(SegmentRecord {
        id: SegmentId {
            data_source: row.text(0)?,
            interval: interval(row, 1)?,
            version: row.text(3)?,
            partition: partition(row, 4)?,
        },
        uid: row.text(6)?.parse()?,
        shard_spec: payload.shard_spec,
        load_spec: payload.load_spec,
        schema: Arc::clone(schema),
        num_rows: row.unsigned(8)?,
        size_bytes: row.unsigned(9)?,
        hash: row.text(10)?,
        time_range: range?,
        created_rev: row.unsigned(13)?,
        // Of a row that was inserted by hand it may be anything.
        created: created.unwrap_or(Timestamp::from_millis(0)),
        standing: if row.long(15)? == 0 { Standing::Active } else { Standing::Dormant },
    })
}

/// Earliest and latest row time, in milliseconds.
pub(super) fn times(record: &SegmentRecord) -> (Option<i64>, Option<i64>) {
    record.time_range.map_or((None, None), |(first, last)| (Some(first.millis()), Some(last.millis())))
}

/// Reads what `select_by_hand` selects. Whatever is wrong with the row is part of the answer.
pub(super) fn by_hand(row: &Fields) -> Result<HandRow> {
    let (id, data_source) = (row.text(0)?, row.text(1)?);
    let is_ours = row.optional_text(7)?.is_some();
    let is_used = row.long(8)? != 0;
    let change = match (is_used, is_ours) {
        (true, true) if row.long(9)? != 0 => Change::MarkedUsedTooLate,
        (true, true) => Change::MarkedUsed(None),
        (true, false) => Change::Inserted(inserted(row, &id, &data_source).map(Box::new)),
        (false, _) => Change::MarkedUnused(SegmentId::parse(&data_source, &id)),
    };
    Ok(HandRow { id, data_source, change })
}

fn inserted(row: &Fields, id: &str, data_source: &str) -> Result<Inserted> {
    let column = |name: &'static str, index: usize| -> Result<Timestamp> {
        let text = row.text(index)?;
        text.parse().map_err(|error: Error| error.context("column", name))
    };
    let interval = Interval::new(column("start", 3)?, column("end", 4)?)?;
    let payload = row.text(6)?;
    let payload: Payload = serde_json::from_str(&payload).map_err(|error| {
        Error::invalid_input(format!("its payload is not the JSON of a segment: {error}")).with_source(error)
    })?;
    let partition = payload.shard_spec.partition_num();
    let expected = SegmentId { data_source: data_source.to_owned(), interval, version: row.text(5)?, partition };
    if expected.to_string() != id {
        return Err(Error::invalid_input(format!("its columns say that its id should be `{expected}`")));
    }
    let created = row.text(2)?.parse().unwrap_or(interval.end());
    let Payload { load_spec, shard_spec, .. } = payload;
    Ok(Inserted { id: expected, created, load_spec, shard_spec })
}

pub(super) fn task(row: &Fields) -> Result<TaskRecord> {
    Ok(TaskRecord {
        id: row.text(0)?,
        task_type: row.text(1)?,
        data_source: row.text(2)?,
        created: row.text(3)?.parse()?,
        status: row.text(4)?.parse()?,
        duration_ms: row.optional_long(5)?.map(i64::cast_unsigned),
        error: row.optional_text(6)?,
        payload: row.text(7)?,
        report: row.optional_text(8)?,
    })
}

pub(super) fn supervisor(row: &Fields) -> Result<SupervisorRecord> {
    Ok(SupervisorRecord {
        id: row.text(0)?,
        data_source: row.text(1)?,
        created: row.text(2)?.parse()?,
        is_suspended: row.long(3)? != 0,
        payload: row.text(4)?,
    })
}

pub(super) fn user(row: &Fields) -> Result<UserRecord> {
    Ok(UserRecord { name: row.text(0)?, verifier: row.text(1)?, created: row.text(2)?.parse()? })
}

/// Reads what `select_servers` selects.
pub(super) fn server(row: &Fields) -> Result<Registered> {
    let server: ServerRecord = from_json("a server", &row.text(0)?)?;
    let age = std::time::Duration::from_millis(u64::try_from(row.long(1)?).unwrap_or(0));
    Ok(Registered { server, age })
}

pub(super) fn sink(row: &Fields) -> Result<SinkRecord> {
    from_json("a sink", &row.text(0)?)
}

pub(super) fn audit(row: &Fields) -> Result<AuditEntry> {
    Ok(AuditEntry {
        key: row.text(0)?,
        kind: row.text(1)?,
        author: row.text(2)?,
        comment: row.text(3)?,
        created: row.text(4)?.parse()?,
        payload: row.text(5)?,
    })
}
