use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::AtomicU64;

use henge_engine::ingest::Reason;
use henge_engine::ingest::stream::{Partition, StreamSource, Survey};
use henge_engine::model::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::judge::{Gap, Positions};
use super::spec::SupervisorSpec;
use crate::store::SupervisorRecord;

/// Errors that are kept to be shown.
const ERRORS_KEPT: usize = 10;

/// How a supervisor is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupervisorState {
    /// It has not reached the stream yet.
    #[default]
    Connecting,
    Running,
    Suspended,
    /// It takes no more orders.
    Stopping,
    /// It never reached the stream, and tries again.
    UnableToConnect,
    /// It reached the stream before, and tries again.
    LostContact,
    /// Records are missing: a person decides from where reading goes on. Other partitions are read meanwhile.
    NeedsDecision(Vec<Gap>),
    /// More rows could not be parsed than may be.
    TooManyParseExceptions,
    /// This program cannot read such a stream at all.
    Unsupported(String),
    /// In a cluster: no realtime process has said that it runs it.
    Unassigned,
}

impl SupervisorState {
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Connecting | Self::Running | Self::Suspended | Self::Stopping)
    }

    /// Druid's word for it.
    pub fn basic(&self) -> &'static str {
        match self {
            Self::Connecting | Self::Unassigned => "PENDING",
            Self::Running => "RUNNING",
            Self::Suspended => "SUSPENDED",
            Self::Stopping => "STOPPING",
            _ => "UNHEALTHY_SUPERVISOR",
        }
    }

    /// Whether reading was ended, until a person has it go on.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Suspended | Self::Stopping | Self::TooManyParseExceptions | Self::Unsupported(_))
    }
}

/// Druid's detailed states, and two of our own.
impl fmt::Display for SupervisorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "CONNECTING_TO_STREAM",
            Self::Running => "RUNNING",
            Self::Suspended => "SUSPENDED",
            Self::Stopping => "STOPPING",
            Self::UnableToConnect => "UNABLE_TO_CONNECT_TO_STREAM",
            Self::LostContact => "LOST_CONTACT_WITH_STREAM",
            Self::NeedsDecision(_) => "NEEDS_DECISION",
            Self::TooManyParseExceptions => "TOO_MANY_PARSE_EXCEPTIONS",
            Self::Unsupported(_) => "UNSUPPORTED",
            Self::Unassigned => "WAITING_FOR_PROCESS",
        })
    }
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorError {
    pub time: Timestamp,
    pub message: String,
    /// Whether it was the stream that failed.
    pub of_stream: bool,
}

/// What a supervisor did since this process started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) rows_with_error: AtomicU64,
    pub(super) thrown_away: AtomicU64,
    pub(super) unparseable: AtomicU64,
    pub(super) empty: AtomicU64,
    pub(super) hand_offs: AtomicU64,
    pub(super) hand_off_ms: AtomicU64,
    pub(super) last_hand_off_ms: AtomicU64,
    pub(super) handed_off_rows: AtomicU64,
    pub(super) persists: AtomicU64,
    /// Parse exceptions since reading began.
    pub(super) exceptions: AtomicU64,
    pub(super) reasons: Mutex<BTreeMap<Reason, u64>>,
}

/// How it is, and what was last seen of the stream.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) state: SupervisorState,
    pub(super) was_reached: bool,
    pub(super) survey: Option<(Timestamp, Survey)>,
    pub(super) source: StreamSource,
    pub(super) errors: VecDeque<SupervisorError>,
    /// Rows that could not be parsed, the latest.
    pub(super) bad_rows: VecDeque<String>,
}

impl Health {
    pub(super) fn add_error(&mut self, error: SupervisorError) {
        // What goes wrong again and again is told once, as of the last time.
        self.errors.retain(|known| known.message != error.message);
        self.errors.push_back(error);
        while self.errors.len() > ERRORS_KEPT {
            self.errors.pop_front();
        }
    }

    pub(super) fn add_bad_row(&mut self, row: String) {
        self.bad_rows.push_back(row);
        while self.bad_rows.len() > ERRORS_KEPT {
            self.bad_rows.pop_front();
        }
    }
}

/// What a supervisor did and what it holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorStatus {
    pub id: String,
    pub kind: String,
    pub data_source: String,
    pub topic: String,
    pub task_count: u32,
    pub state: SupervisorState,
    /// As it was submitted but for what is secret.
    pub spec: Value,
    pub started: Timestamp,
    /// Where the rows begin that are not published, and where reading is.
    pub published: Positions,
    pub reached: Positions,
    /// Of each partition the offset that will be next there, and when that was asked.
    pub latest: Positions,
    pub surveyed: Option<Timestamp>,
    pub lag: BTreeMap<Partition, u64>,
    pub live_rows: u64,
    pub live_since: Option<Timestamp>,
    pub hand_off_due_seconds: Option<i64>,
    pub duration_seconds: i64,
    /// Records read; of these, rows taken, turned down, not parsed, and records without a value.
    pub records: u64,
    pub bytes: u64,
    pub rows: u64,
    pub rows_with_error: u64,
    pub thrown_away: u64,
    pub unparseable: u64,
    pub empty: u64,
    pub hand_offs: u64,
    pub hand_off_ms: u64,
    pub last_hand_off_ms: u64,
    pub handed_off_rows: u64,
    pub persists: u64,
    pub reasons: BTreeMap<Reason, u64>,
    pub errors: Vec<SupervisorError>,
    pub bad_rows: Vec<String>,
}

impl SupervisorStatus {
    /// How all are that were submitted to a cluster: as their processes say, and where none does, as is recorded. In the
    /// order of their ids.
    pub fn of_cluster(records: &[SupervisorRecord], said: Vec<Self>) -> Vec<Self> {
        let mut all: BTreeMap<_, _> =
            records.iter().map(|record| (record.id.clone(), Self::recorded(record))).collect();
        // One that runs and is not recorded was terminated in between.
        for status in said {
            all.entry(status.id.clone()).and_modify(|known| *known = status);
        }
        all.into_values().collect()
    }

    /// One that did nothing yet.
    fn recorded(record: &SupervisorRecord) -> Self {
        let json = serde_json::from_str(&record.payload).unwrap_or_default();
        let spec = SupervisorSpec::from_json(&json).ok().map(|(spec, _)| spec);
        Self {
            id: record.id.clone(),
            kind: spec.as_ref().map(|spec| spec.kind.clone()).unwrap_or_default(),
            data_source: record.data_source.clone(),
            topic: spec.as_ref().map(|spec| spec.io_config.topic.clone()).unwrap_or_default(),
            task_count: spec.as_ref().map_or(0, |spec| spec.io_config.task_count),
            state: if record.is_suspended { SupervisorState::Suspended } else { SupervisorState::Unassigned },
            spec: spec.map(|spec| spec.shown()).unwrap_or_default(),
            started: record.created,
            published: Positions::new(),
            reached: Positions::new(),
            latest: Positions::new(),
            surveyed: None,
            lag: BTreeMap::new(),
            live_rows: 0,
            live_since: None,
            hand_off_due_seconds: None,
            duration_seconds: 0,
            records: 0,
            bytes: 0,
            rows: 0,
            rows_with_error: 0,
            thrown_away: 0,
            unparseable: 0,
            empty: 0,
            hand_offs: 0,
            hand_off_ms: 0,
            last_hand_off_ms: 0,
            handed_off_rows: 0,
            persists: 0,
            reasons: BTreeMap::new(),
            errors: Vec::new(),
            bad_rows: Vec::new(),
        }
    }

    pub fn aggregate_lag(&self) -> u64 {
        self.lag.values().sum()
    }

    pub fn is_suspended(&self) -> bool {
        self.state == SupervisorState::Suspended
    }
}
