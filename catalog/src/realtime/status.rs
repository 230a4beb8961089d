use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use henge_engine::ingest::Reason;
use henge_engine::model::Timestamp;
use parking_lot::Mutex;

use super::window::Added;

/// What a stream did since this process started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) duplicates: AtomicU64,
    /// Requests that were refused for their bad rows.
    pub(super) refused: AtomicU64,
    /// Requests that were sent away for want of room.
    pub(super) busy: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) replayed_rows: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) hand_offs: AtomicU64,
    pub(super) hand_off_ms: AtomicU64,
    pub(super) last_hand_off_ms: AtomicU64,
    pub(super) handed_off_rows: AtomicU64,
    pub(super) persists: AtomicU64,
    pub(super) reasons: Mutex<BTreeMap<Reason, u64>>,
    pub(super) last_error: Mutex<Option<String>>,
}

pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counts {
    pub(super) fn taken(&self, added: &Added, bytes: usize) {
        add(&self.requests, 1);
        add(&self.rows, added.rows);
        add(&self.bytes, bytes as u64);
    }

    pub(super) fn not_taken(&self, reasons: &BTreeMap<Reason, u64>) {
        let mut all = self.reasons.lock();
        for (reason, count) in reasons {
            *all.entry(*reason).or_default() += count;
        }
    }
}

/// How a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    Running,
    /// Part of its log cannot be read: it takes nothing until a person decides.
    Quarantined,
    /// It is being declared anew.
    Paused,
}

impl fmt::Display for StreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "RUNNING",
            Self::Quarantined => "QUARANTINED",
            Self::Paused => "PAUSED",
        })
    }
}

/// What a stream did and what it holds.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    pub data_source: String,
    pub state: StreamState,
    /// Rows that are shown and not published, and their granules.
    pub live_rows: u64,
    pub live_granules: u64,
    pub live_since: Option<Timestamp>,
    pub memory_bytes: u64,
    pub wal_bytes: u64,
    /// The last entry of the log, and the last one that is published.
    pub wal_position: u64,
    pub published_position: u64,
    pub requests: u64,
    pub duplicates: u64,
    pub refused: u64,
    pub busy: u64,
    pub rows: u64,
    pub replayed_rows: u64,
    pub bytes: u64,
    pub syncs: u64,
    pub hand_offs: u64,
    pub hand_off_ms: u64,
    pub last_hand_off_ms: u64,
    pub handed_off_rows: u64,
    pub persists: u64,
    /// Rows (for bad numbers: values) that were not taken.
    pub reasons: BTreeMap<Reason, u64>,
    pub last_error: Option<String>,
}
