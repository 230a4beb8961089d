//! The SQL that all databases share.
//!
//! Placeholders are `?`, and the one name that is a word of SQL, `"end"`, stands in double quotes; each database's file
//! says how it wants these. `dataSource` stands without quotes: PostgreSQL has it in lower case then, as in Druid's own
//! tables there.

macro_rules! select_segments {
    ($rest:literal) => {
        concat!(
            "SELECT s.dataSource, s.start_ms, s.end_ms, s.version, s.partition_num, s.payload, s.uid, s.schema_id, ",
            "s.num_rows, s.size, s.hash, s.min_time, s.max_time, s.created_rev, s.created_date, s.dormant FROM segments s ",
            $rest
        )
    };
}

pub(super) const SELECT_USED: &str = select_segments!("WHERE s.used AND s.noted ORDER BY s.id");
pub(super) const SELECT_USED_OVERLAPPING: &str =
    select_segments!("WHERE s.dataSource = ? AND s.used AND s.noted AND s.end_ms > ? AND s.start_ms < ? ORDER BY s.id");
pub(super) const SELECT_KILLABLE: &str = select_segments!(
    "WHERE s.dataSource = ? AND NOT s.used AND NOT s.noted AND s.kill_state < 2 AND s.start_ms >= ? AND s.end_ms <= ? \
     AND s.uid IS NOT NULL AND COALESCE(s.used_status_last_updated, '') < ? ORDER BY s.id"
);
pub(super) const SELECT_TAKEN: &str = "SELECT start_ms, end_ms, version, MAX(partition_num) FROM segments \
     WHERE dataSource = ? AND end_ms > ? AND start_ms < ? GROUP BY start_ms, end_ms, version";
pub(super) const SELECT_USED_WITHIN: &str = select_segments!(
    "WHERE s.dataSource = ? AND s.used AND s.noted AND s.start_ms >= ? AND s.end_ms <= ? ORDER BY s.id"
);
pub(super) const SELECT_USED_OF: &str = select_segments!("WHERE s.dataSource = ? AND s.used AND s.noted ORDER BY s.id");
pub(super) const SELECT_SEGMENT: &str = select_segments!("WHERE s.id = ? AND s.uid IS NOT NULL");
pub(super) const COUNT_KEPT_BY_UID: &str = "SELECT COUNT(*) FROM segments WHERE uid = ? AND kill_state = 0";
pub(super) const INSERT_SEGMENT: &str = "INSERT INTO segments (id, dataSource, created_date, start, \"end\", \
     partitioned, version, used, payload, used_status_last_updated, start_ms, end_ms, partition_num, uid, schema_id, \
     num_rows, size, hash, min_time, max_time, publish_id, created_rev, dormant, noted) \
     VALUES (?, ?, ?, ?, ?, ?, ?, TRUE, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, TRUE)";
pub(super) const MARK_UNUSED: &str =
    "UPDATE segments SET used = FALSE, noted = FALSE, used_status_last_updated = ?, removed_rev = ? WHERE id = ?";
pub(super) const MARK_USED_WITHIN: &str = "UPDATE segments SET used = TRUE WHERE dataSource = ? AND NOT used AND NOT noted \
     AND kill_state = 0 AND uid IS NOT NULL AND start_ms >= ? AND end_ms <= ?";
pub(super) const MARK_USED: &str = "UPDATE segments SET used = TRUE WHERE id = ? AND dataSource = ? AND NOT used AND NOT noted \
     AND kill_state = 0 AND uid IS NOT NULL";
pub(super) const SET_DORMANT: &str = "UPDATE segments SET dormant = ? WHERE id = ? AND used AND noted AND dormant <> ?";
pub(super) const WAKE_ALL: &str = "UPDATE segments SET dormant = FALSE WHERE dormant AND used";
pub(super) const SELECT_DORMANT_SOURCES: &str =
    "SELECT DISTINCT dataSource FROM segments WHERE dormant AND used ORDER BY dataSource";
pub(super) const BEGIN_KILL: &str =
    "UPDATE segments SET kill_state = 1 WHERE id = ? AND NOT used AND NOT noted AND kill_state < 2";
pub(super) const FINISH_KILL: &str = "UPDATE segments SET kill_state = 2, payload = '' WHERE id = ? AND kill_state = 1";

/// The rows that were changed by hand, by the condition that a database has an index for.
macro_rules! select_by_hand {
    ($condition:literal) => {
        concat!(
            "SELECT id, dataSource, created_date, start, \"end\", version, payload, uid, used, kill_state ",
            "FROM segments WHERE ",
            $condition,
            " AND id > ? ORDER BY id LIMIT ?"
        )
    };
}
pub(super) use select_by_hand;

pub(super) const ADOPT: &str = "UPDATE segments SET noted = TRUE, start_ms = ?, end_ms = ?, partition_num = ?, uid = ?, \
     schema_id = ?, num_rows = ?, size = ?, hash = ?, min_time = ?, max_time = ?, created_rev = ?, dormant = ? \
     WHERE id = ? AND used AND NOT noted AND uid IS NULL";
pub(super) const NOTE_USED: &str = "UPDATE segments SET noted = TRUE, used_status_last_updated = ?, created_rev = ?, \
     removed_rev = NULL, dormant = ? WHERE id = ? AND used AND NOT noted AND kill_state = 0";
pub(super) const NOTE_UNUSED: &str = "UPDATE segments SET noted = FALSE, used_status_last_updated = ?, removed_rev = ? \
     WHERE id = ? AND NOT used AND noted";

pub(super) const SELECT_DATA_SOURCES: &str = "SELECT name, created_date, rev FROM data_sources ORDER BY name";
pub(super) const SELECT_REV: &str = "SELECT rev FROM data_sources WHERE name = ?";
pub(super) const NEXT_REV: &str = "UPDATE data_sources SET rev = rev + 1 WHERE name = ?";

pub(super) const SELECT_SCHEMAS: &str = "SELECT id, columns FROM segment_schemas";
pub(super) const SELECT_SCHEMA: &str = "SELECT columns FROM segment_schemas WHERE id = ?";

pub(super) const SELECT_PUBLISH: &str = "SELECT rev FROM publishes WHERE publish_id = ?";
pub(super) const INSERT_PUBLISH: &str =
    "INSERT INTO publishes (publish_id, dataSource, created_date, rev) VALUES (?, ?, ?, ?)";

pub(super) const INSERT_PUSH: &str = "INSERT INTO pushes (load_spec, publish_id) VALUES (?, ?)";
pub(super) const SELECT_PUSHES: &str = "SELECT load_spec FROM pushes ORDER BY load_spec";
pub(super) const DELETE_PUSH: &str = "DELETE FROM pushes WHERE load_spec = ?";
pub(super) const DELETE_PUSHES_OF: &str = "DELETE FROM pushes WHERE publish_id = ? AND NOT doomed";
pub(super) const DOOM_PUSHES_OF: &str = "UPDATE pushes SET doomed = TRUE WHERE publish_id = ?";
pub(super) const DOOM_PUSHES: &str = "UPDATE pushes SET doomed = TRUE";
pub(super) const DOOM_PUSH: &str = "UPDATE pushes SET doomed = TRUE WHERE load_spec = ?";
pub(super) const SELECT_PUBLISH_IDS: &str = "SELECT load_spec, publish_id FROM pushes WHERE NOT doomed";
pub(super) const SELECT_DOOMED: &str = "SELECT load_spec FROM pushes WHERE doomed ORDER BY load_spec";

pub(super) const DELETE_TASK: &str = "DELETE FROM tasks WHERE id = ?";
pub(super) const INSERT_TASK: &str = "INSERT INTO tasks (id, type, dataSource, created_date, status, duration_ms, \
     error_msg, payload, report) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
pub(super) const SELECT_TASK: &str = "SELECT id, type, dataSource, created_date, status, duration_ms, error_msg, \
     payload, report FROM tasks WHERE id = ?";
pub(super) const SELECT_TASKS: &str = "SELECT id, type, dataSource, created_date, status, duration_ms, error_msg, \
     payload, report FROM tasks ORDER BY created_date DESC, id DESC LIMIT ?";

pub(super) const SELECT_UNFINISHED_TASKS: &str = "SELECT id, type, dataSource, created_date, status, duration_ms, \
     error_msg, payload, report FROM tasks WHERE status IN ('WAITING', 'RUNNING') ORDER BY created_date, id";
pub(super) const NOTE_PROGRESS: &str = "UPDATE tasks SET report = ? WHERE id = ? AND status IN ('WAITING', 'RUNNING')";

pub(super) const SELECT_USERS: &str = "SELECT name, verifier, created_date FROM users ORDER BY name";
pub(super) const DELETE_USER: &str = "DELETE FROM users WHERE name = ?";
pub(super) const INSERT_USER: &str = "INSERT INTO users (name, verifier, created_date) VALUES (?, ?, ?)";

pub(super) const DELETE_RULES: &str = "DELETE FROM rules WHERE dataSource = ?";
pub(super) const INSERT_RULES: &str = "INSERT INTO rules (dataSource, version, payload) VALUES (?, ?, ?)";
pub(super) const SELECT_RULES: &str = "SELECT dataSource, payload FROM rules ORDER BY dataSource";

pub(super) const INSERT_AUDIT: &str =
    "INSERT INTO audit (audit_key, type, author, comment, created_date, payload) VALUES (?, ?, ?, ?, ?, ?)";
pub(super) const SELECT_AUDIT: &str = "SELECT audit_key, type, author, comment, created_date, payload FROM audit \
     WHERE type = ? ORDER BY id DESC LIMIT ?";
pub(super) const SELECT_AUDIT_OF: &str = "SELECT audit_key, type, author, comment, created_date, payload FROM audit \
     WHERE type = ? AND audit_key = ? ORDER BY id DESC LIMIT ?";

pub(super) const SELECT_CONFIG: &str = "SELECT payload FROM config WHERE name = ?";
pub(super) const DELETE_CONFIG: &str = "DELETE FROM config WHERE name = ?";
pub(super) const INSERT_CONFIG: &str = "INSERT INTO config (name, payload) VALUES (?, ?)";

pub(super) const SELECT_SINK: &str = "SELECT payload FROM sinks WHERE id = ?";
pub(super) const SELECT_SINKS: &str = "SELECT payload FROM sinks ORDER BY id";
pub(super) const SELECT_SINKS_OF: &str = "SELECT payload FROM sinks WHERE dataSource = ? ORDER BY id";
pub(super) const DELETE_SINK: &str = "DELETE FROM sinks WHERE id = ?";
pub(super) const INSERT_SINK: &str = "INSERT INTO sinks (id, dataSource, payload) VALUES (?, ?, ?)";

pub(super) const DELETE_SERVER: &str = "DELETE FROM servers WHERE name = ?";
pub(super) const DELETE_INCARNATION: &str = "DELETE FROM servers WHERE name = ? AND incarnation = ?";

pub(super) const DELETE_LEASE: &str = "DELETE FROM leases WHERE role = ?";
pub(super) const RELEASE_LEASE: &str = "UPDATE leases SET expires_ms = 0 WHERE role = ? AND holder = ? AND epoch = ?";

pub(super) const SELECT_STREAM_POSITION: &str = "SELECT reached FROM stream_positions WHERE stream = ? AND part = ?";
pub(super) const INSERT_STREAM_POSITION: &str = "INSERT INTO stream_positions (stream, part, reached) VALUES (?, ?, ?)";
pub(super) const ADVANCE_STREAM: &str =
    "UPDATE stream_positions SET reached = ? WHERE stream = ? AND part = ? AND reached = ?";
pub(super) const SELECT_STREAM_POSITIONS: &str =
    "SELECT part, reached FROM stream_positions WHERE stream = ? ORDER BY part";
pub(super) const DELETE_STREAM_POSITIONS: &str = "DELETE FROM stream_positions WHERE stream = ?";
pub(super) const SELECT_STREAM_SOURCE: &str = "SELECT payload FROM stream_sources WHERE stream = ?";
pub(super) const INSERT_STREAM_SOURCE: &str = "INSERT INTO stream_sources (stream, payload) VALUES (?, ?)";
pub(super) const DELETE_STREAM_SOURCE: &str = "DELETE FROM stream_sources WHERE stream = ?";

pub(super) const SELECT_SUPERVISORS: &str =
    "SELECT id, dataSource, created_date, suspended, payload FROM supervisors ORDER BY id";
pub(super) const DELETE_SUPERVISOR: &str = "DELETE FROM supervisors WHERE id = ?";
pub(super) const INSERT_SUPERVISOR: &str =
    "INSERT INTO supervisors (id, dataSource, created_date, suspended, payload) VALUES (?, ?, ?, ?, ?)";
