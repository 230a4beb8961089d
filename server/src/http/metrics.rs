//! `/metrics`: what goes on, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use henge_catalog::realtime::supervisor::SupervisorStatus;
use henge_catalog::realtime::{StreamState, StreamStatus};
use henge_engine::model::Timestamp;

use super::{Answer, Api};

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Answer<Response> {
    let mut text = realtime(&api.database.stream_statuses(), api.database.now());
    supervisors(&mut text, &api.database.supervisors(), api.database.now());
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// A family of one sample a data source.
type Family = (&'static str, &'static str, &'static str, fn(&StreamStatus, Timestamp) -> f64);

const FAMILIES: &[Family] = &[
    ("henge_realtime_running", "gauge", "Whether rows are taken", |s, _| flag(s.state == StreamState::Running)),
    ("henge_realtime_live_rows", "gauge", "Rows shown and not published", |s, _| s.live_rows as f64),
    ("henge_realtime_live_granules", "gauge", "Segment granules of those rows", |s, _| s.live_granules as f64),
    ("henge_realtime_memory_bytes", "gauge", "Memory of those rows", |s, _| s.memory_bytes as f64),
    ("henge_realtime_lag_seconds", "gauge", "Since when the oldest of those rows is there", |s, now| {
        s.live_since.map_or(0.0, |since| (now.millis() - since.millis()).max(0) as f64 / 1000.0)
    }),
    ("henge_realtime_wal_bytes", "gauge", "Bytes of the write-ahead log", |s, _| s.wal_bytes as f64),
    ("henge_realtime_wal_position", "counter", "Last entry of the log", |s, _| s.wal_position as f64),
    ("henge_realtime_published_position", "counter", "Last entry that is published", |s, _| {
        s.published_position as f64
    }),
    ("henge_realtime_requests_total", "counter", "Requests taken", |s, _| s.requests as f64),
    ("henge_realtime_duplicate_requests_total", "counter", "Requests that came again", |s, _| s.duplicates as f64),
    ("henge_realtime_refused_requests_total", "counter", "Requests refused for bad rows", |s, _| s.refused as f64),
    ("henge_realtime_busy_requests_total", "counter", "Requests sent away for want of room", |s, _| s.busy as f64),
    ("henge_realtime_events_total", "counter", "Rows taken", |s, _| s.rows as f64),
    ("henge_realtime_replayed_events_total", "counter", "Rows read from the log at the start", |s, _| {
        s.replayed_rows as f64
    }),
    ("henge_realtime_bytes_total", "counter", "Bytes of those requests", |s, _| s.bytes as f64),
    ("henge_realtime_syncs_total", "counter", "Syncs of the log", |s, _| s.syncs as f64),
    ("henge_realtime_persists_total", "counter", "Chunks moved from memory to files", |s, _| s.persists as f64),
    ("henge_realtime_handoffs_total", "counter", "Hand-offs done", |s, _| s.hand_offs as f64),
    ("henge_realtime_handed_off_events_total", "counter", "Rows handed off", |s, _| s.handed_off_rows as f64),
    ("henge_realtime_handoff_seconds_total", "counter", "Time that hand-offs took", |s, _| {
        s.hand_off_ms as f64 / 1000.0
    }),
    ("henge_realtime_last_handoff_seconds", "gauge", "Time that the last one took", |s, _| {
        s.last_hand_off_ms as f64 / 1000.0
    }),
];

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

fn realtime(statuses: &[StreamStatus], now: Timestamp) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in FAMILIES {
        head(&mut text, name, kind, help);
        for status in statuses {
            let _ = writeln!(text, "{name}{{datasource=\"{}\"}} {}", label(&status.data_source), value(status, now));
        }
    }
    let name = "henge_realtime_rejected_events_total";
    head(&mut text, name, "counter", "Rows (for badNumber: values) not taken, by reason");
    for status in statuses {
        for (reason, count) in &status.reasons {
            let reason = serde_json::to_string(reason).unwrap_or_default();
            let source = label(&status.data_source);
            let _ = writeln!(text, "{name}{{datasource=\"{source}\",reason={reason}}} {count}");
        }
    }
    text
}

/// A family of one sample a supervisor.
type SupervisorFamily = (&'static str, &'static str, &'static str, fn(&SupervisorStatus, Timestamp) -> f64);

const SUPERVISOR_FAMILIES: &[SupervisorFamily] = &[
    ("henge_supervisor_healthy", "gauge", "Whether its stream is read as it should be", |s, _| {
        flag(s.state.is_healthy())
    }),
    ("henge_supervisor_suspended", "gauge", "Whether it is suspended", |s, _| flag(s.is_suspended())),
    ("henge_supervisor_live_rows", "gauge", "Rows shown and not published", |s, _| s.live_rows as f64),
    ("henge_supervisor_live_seconds", "gauge", "Since when the oldest of those rows is there", |s, now| {
        s.live_since.map_or(0.0, |since| (now.millis() - since.millis()).max(0) as f64 / 1000.0)
    }),
    ("henge_supervisor_records_total", "counter", "Records read", |s, _| s.records as f64),
    ("henge_supervisor_bytes_total", "counter", "Bytes of those records", |s, _| s.bytes as f64),
    ("henge_supervisor_events_total", "counter", "Rows taken", |s, _| s.rows as f64),
    ("henge_supervisor_empty_records_total", "counter", "Records without a value", |s, _| s.empty as f64),
    ("henge_supervisor_handoffs_total", "counter", "Hand-offs done", |s, _| s.hand_offs as f64),
    ("henge_supervisor_handed_off_events_total", "counter", "Rows handed off", |s, _| s.handed_off_rows as f64),
    ("henge_supervisor_handoff_seconds_total", "counter", "Time that hand-offs took", |s, _| {
        s.hand_off_ms as f64 / 1000.0
    }),
    ("henge_supervisor_last_handoff_seconds", "gauge", "Time that the last one took", |s, _| {
        s.last_hand_off_ms as f64 / 1000.0
    }),
    ("henge_supervisor_persists_total", "counter", "Chunks moved from memory to files", |s, _| s.persists as f64),
];

/// A family of one sample a partition.
type PartitionFamily = (&'static str, &'static str, &'static str, fn(&SupervisorStatus) -> &BTreeMap<u32, u64>);

const PARTITION_FAMILIES: &[PartitionFamily] = &[
    ("henge_supervisor_lag", "gauge", "Records that are not read yet", |s| &s.lag),
    ("henge_supervisor_latest_offset", "gauge", "Offset that is next in the stream", |s| &s.latest),
    ("henge_supervisor_current_offset", "gauge", "Offset that is read next", |s| &s.reached),
    ("henge_supervisor_published_offset", "gauge", "Offset up to which it is published", |s| &s.published),
];

fn supervisors(text: &mut String, statuses: &[SupervisorStatus], now: Timestamp) {
    if statuses.is_empty() {
        return;
    }
    let labels = |status: &SupervisorStatus| {
        format!("supervisor=\"{}\",datasource=\"{}\"", label(&status.id), label(&status.data_source))
    };
    for (name, kind, help, value) in SUPERVISOR_FAMILIES {
        head(text, name, kind, help);
        for status in statuses {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(status), value(status, now));
        }
    }
    for (name, kind, help, values) in PARTITION_FAMILIES {
        head(text, name, kind, help);
        for status in statuses {
            for (partition, value) in values(status) {
                let _ = writeln!(text, "{name}{{{},partition=\"{partition}\"}} {value}", labels(status));
            }
        }
    }
    let name = "henge_supervisor_rejected_events_total";
    head(text, name, "counter", "Rows (for badNumber: values) not taken, by reason");
    for status in statuses {
        for (reason, count) in &status.reasons {
            let reason = serde_json::to_string(reason).unwrap_or_default();
            let _ = writeln!(text, "{name}{{{},reason={reason}}} {count}", labels(status));
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
