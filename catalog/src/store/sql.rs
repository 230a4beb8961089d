//! The SQL that all databases share, and rows to records.
//!
//! Placeholders are `?`, names that are words of SQL stand in double quotes: SQLite as it is, MySQL in ANSI mode,
//! PostgreSQL after the placeholders are numbered.

use std::sync::Arc;

use henge_engine::model::{ColumnRole, SegmentSchema, ShardSpec};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::record::SegmentRecord;

macro_rules! select_segments {
    ($rest:literal) => {
        concat!(
            "SELECT s.\"dataSource\", s.start_ms, s.end_ms, s.version, s.partition_num, s.payload, s.uid, s.schema_id, ",
            "s.num_rows, s.size, s.hash, s.min_time, s.max_time, s.created_rev, s.created_date FROM segments s ",
            $rest
        )
    };
}

pub(super) const SELECT_USED: &str = select_segments!("WHERE s.used AND s.uid IS NOT NULL ORDER BY s.id");
pub(super) const SELECT_USED_OVERLAPPING: &str = select_segments!(
    "WHERE s.\"dataSource\" = ? AND s.used AND s.end_ms > ? AND s.start_ms < ? AND s.uid IS NOT NULL ORDER BY s.id"
);
pub(super) const SELECT_KILLABLE: &str = select_segments!(
    "WHERE s.\"dataSource\" = ? AND NOT s.used AND s.kill_state < 2 AND s.start_ms >= ? AND s.end_ms <= ? \
     AND s.uid IS NOT NULL ORDER BY s.id"
);
pub(super) const SELECT_TAKEN: &str = "SELECT start_ms, end_ms, version, MAX(partition_num) FROM segments \
     WHERE \"dataSource\" = ? AND end_ms > ? AND start_ms < ? GROUP BY start_ms, end_ms, version";
pub(super) const SELECT_USED_WITHIN: &str =
    select_segments!("WHERE s.\"dataSource\" = ? AND s.used AND s.start_ms >= ? AND s.end_ms <= ? ORDER BY s.id");
pub(super) const COUNT_KEPT_BY_UID: &str = "SELECT COUNT(*) FROM segments WHERE uid = ? AND kill_state = 0";
pub(super) const INSERT_SEGMENT: &str = "INSERT INTO segments (id, \"dataSource\", created_date, start, \"end\", \
     partitioned, version, used, payload, used_status_last_updated, start_ms, end_ms, partition_num, uid, schema_id, \
     num_rows, size, hash, min_time, max_time, publish_id, created_rev) \
     VALUES (?, ?, ?, ?, ?, ?, ?, TRUE, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const MARK_UNUSED: &str =
    "UPDATE segments SET used = FALSE, used_status_last_updated = ?, removed_rev = ? WHERE id = ? AND used";
pub(super) const BEGIN_KILL: &str = "UPDATE segments SET kill_state = 1 WHERE id = ? AND NOT used";
pub(super) const FINISH_KILL: &str = "UPDATE segments SET kill_state = 2, payload = '' WHERE id = ? AND kill_state = 1";

pub(super) const SELECT_DATA_SOURCES: &str = "SELECT name, created_date, rev FROM data_sources ORDER BY name";
pub(super) const SELECT_REV: &str = "SELECT rev FROM data_sources WHERE name = ?";
pub(super) const INSERT_DATA_SOURCE: &str = "INSERT INTO data_sources (name, created_date, rev) VALUES (?, ?, 0)";
pub(super) const NEXT_REV: &str = "UPDATE data_sources SET rev = rev + 1 WHERE name = ?";

pub(super) const SELECT_SCHEMAS: &str = "SELECT id, columns FROM segment_schemas";
pub(super) const SELECT_SCHEMA: &str = "SELECT columns FROM segment_schemas WHERE id = ?";
pub(super) const INSERT_SCHEMA: &str = "INSERT INTO segment_schemas (id, columns) VALUES (?, ?)";

pub(super) const SELECT_PUBLISH: &str = "SELECT rev FROM publishes WHERE publish_id = ?";
pub(super) const INSERT_PUBLISH: &str =
    "INSERT INTO publishes (publish_id, \"dataSource\", created_date, rev) VALUES (?, ?, ?, ?)";

pub(super) const INSERT_PUSH: &str = "INSERT INTO pushes (load_spec, publish_id) VALUES (?, ?)";
pub(super) const SELECT_PUSHES: &str = "SELECT load_spec FROM pushes ORDER BY load_spec";
pub(super) const DELETE_PUSH: &str = "DELETE FROM pushes WHERE load_spec = ?";
pub(super) const DELETE_PUSHES_OF: &str = "DELETE FROM pushes WHERE publish_id = ?";

pub(super) const DELETE_TASK: &str = "DELETE FROM tasks WHERE id = ?";
pub(super) const INSERT_TASK: &str = "INSERT INTO tasks (id, type, \"dataSource\", created_date, status, duration_ms, \
     error_msg, payload, report) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const SELECT_TASK: &str = "SELECT id, type, \"dataSource\", created_date, status, duration_ms, error_msg, \
     payload, report FROM tasks WHERE id = ?";
pub(super) const SELECT_TASKS: &str = "SELECT id, type, \"dataSource\", created_date, status, duration_ms, error_msg, \
     payload, report FROM tasks ORDER BY created_date DESC, id DESC LIMIT ?";

pub(super) const SELECT_USERS: &str = "SELECT name, verifier, created_date FROM users ORDER BY name";
pub(super) const DELETE_USER: &str = "DELETE FROM users WHERE name = ?";
pub(super) const INSERT_USER: &str = "INSERT INTO users (name, verifier, created_date) VALUES (?, ?, ?)";

/// Druid's description of a segment, as its tools write and read it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payload {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    data_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    version: Option<String>,
    pub(super) load_spec: LoadSpec,
    dimensions: String,
    metrics: String,
    pub(super) shard_spec: ShardSpec,
    binary_version: u32,
    size: u64,
    identifier: String,
}

/// The version of our own segment format that a payload names.
const BINARY_VERSION: u32 = 1;

impl Payload {
    pub(super) fn of(record: &SegmentRecord) -> Result<String> {
        let names = |wanted: fn(&ColumnRole) -> bool| {
            let columns = record.schema.columns().iter().filter(|column| wanted(&column.role));
            columns.map(|column| column.name.as_str()).collect::<Vec<_>>().join(",")
        };
        let payload = Self {
            data_source: Some(record.id.data_source.clone()),
            interval: Some(record.id.interval.to_string()),
            version: Some(record.id.version.clone()),
            load_spec: record.load_spec.clone(),
            dimensions: names(|role| *role == ColumnRole::Dimension),
            metrics: names(|role| matches!(role, ColumnRole::Metric(_))),
            shard_spec: record.shard_spec.clone(),
            binary_version: BINARY_VERSION,
            size: record.size_bytes,
            identifier: record.id.to_string(),
        };
        to_json(&payload)
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::defensive("a record is not JSON").with_source(error))
}

pub(super) fn from_json<'a, T: Deserialize<'a>>(what: &'static str, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::corrupt("the metadata store holds what is not valid JSON").context("for", what).with_source(error)
    })
}

pub(super) fn schema_from_json(text: &str) -> Result<Arc<SegmentSchema>> {
    from_json("a segment's schema", text).map(Arc::new)
}

/// The id under which a schema is looked for first: FNV-1a of its JSON. Schemas that collide get a suffix.
pub(super) fn schema_fingerprint(json: &str) -> u64 {
    json.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
