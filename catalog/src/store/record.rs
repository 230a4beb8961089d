use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use henge_engine::model::{Interval, SegmentId, SegmentSchema, SegmentUid, ShardSpec, Timestamp};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::timeline::GroupKind;

/// What is recorded of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentRecord {
    pub id: SegmentId,
    /// Names the bytes; two records share it when one was issued anew under a newer version.
    pub uid: SegmentUid,
    pub shard_spec: ShardSpec,
    pub load_spec: LoadSpec,
    #[serde(with = "shared")]
    pub schema: Arc<SegmentSchema>,
    pub num_rows: u64,
    pub size_bytes: u64,
    pub hash: String,
    /// Earliest and latest row time, both inclusive; `None` without rows.
    pub time_range: Option<(Timestamp, Timestamp)>,
    pub created: Timestamp,
    /// The `rev` of the data source that this record came with.
    pub created_rev: u64,
    pub standing: Standing,
}

/// Whether queries ask for a used segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// They do: without it there is no answer.
    #[default]
    Active,
    /// They do not. A cluster has published it and does not serve it yet, or is told to serve it nowhere.
    Dormant,
}

impl Standing {
    pub(super) fn is_dormant(self) -> bool {
        self == Self::Dormant
    }
}

/// A schema of which there is one in memory, as JSON.
mod shared {
    use std::result::Result;

    use super::{Arc, Deserialize, SegmentSchema, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(schema: &Arc<SegmentSchema>, to: S) -> Result<S::Ok, S::Error> {
        schema.as_ref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Arc<SegmentSchema>, D::Error> {
        SegmentSchema::deserialize(from).map(Arc::new)
    }
}

impl SegmentRecord {
    /// Whether it holds rows, or only hides older ones.
    pub fn kind(&self) -> GroupKind {
        match self.load_spec {
            LoadSpec::Tombstone => GroupKind::Tombstone,
            _ => GroupKind::Data,
        }
    }

    /// Whether it was appended to a group, rather than being one of those the group began with.
    pub fn is_appended(&self) -> bool {
        self.id.partition >= self.shard_spec.core_size()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSourceRecord {
    pub name: String,
    pub created: Timestamp,
    /// Counts the commits that changed its segments.
    pub rev: u64,
}

/// Everything used, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub data_sources: Vec<DataSourceRecord>,
    /// In the order of their ids.
    pub segments: Vec<SegmentRecord>,
    pub sinks: Vec<SinkRecord>,
}

/// What there is of a data source, as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataSourceState {
    pub rev: u64,
    /// Its used segments, in the order of their ids.
    pub used: Vec<SegmentRecord>,
    /// Its rows that are not all published.
    pub sinks: Vec<SinkRecord>,
}

/// A stream of rows of a data source that a realtime process of a cluster takes. Queries read its rows up to a position
/// from segments, and those after it from that process. Written by that process alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkRecord {
    /// Names the stream.
    pub uid: SegmentUid,
    pub data_source: String,
    /// The process: `host:port`.
    pub server: String,
    /// Of a stream that another process may take over: the fencing epoch of the lease under which it is written. What one
    /// of a greater term wrote is not replaced.
    #[serde(default)]
    pub term: u64,
    /// The columns of its rows.
    #[serde(with = "shared")]
    pub schema: Arc<SegmentSchema>,
    /// Up to here queries read segments, whatever becomes of those.
    pub settled: u64,
    /// Up to here its rows are published.
    pub published: u64,
    /// The segments of what is published and not settled: queries read them once they can read all of them.
    #[serde(default)]
    pub pending: Vec<SegmentUid>,
}

impl SinkRecord {
    /// Fails with `Conflict` if a later holder of its lease has written it.
    pub(super) fn check_replaces(&self, known: Option<&Self>) -> Result<()> {
        match known {
            Some(known) if known.term > self.term => Err(Error::conflict(format!(
                "realtime process `{}` has taken the rows of `{}` over from `{}`",
                known.server, self.data_source, self.server
            ))),
            _ => Ok(()),
        }
    }

    /// Under what the rows after a position are served.
    pub fn tail_uid(&self, after: u64) -> SegmentUid {
        tail_uid(self.uid, after)
    }
}

/// Names the rows of a stream after a position: the same in every process, and another one for every position.
pub fn tail_uid(stream: SegmentUid, after: u64) -> SegmentUid {
    let mut mixed = after.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let bytes = u128::from_be_bytes(stream.to_bytes()) ^ u128::from(mixed);
    SegmentUid::from_bytes(bytes.to_be_bytes())
}

/// A request to change a data source's segments, with an id by which it is known if it comes again.
#[derive(Clone, Debug)]
pub struct Publication {
    pub publish_id: String,
    pub data_source: String,
    /// The parts of time it touches. What overlaps them is shown to the decision.
    pub spans: Vec<Interval>,
    /// How many files were noted by `intend_pushes` for it. Fails if another process took one for left behind.
    pub intended_pushes: u64,
    /// How far parts of streams are published with it. Fails if one was published further, or less far, than that begins.
    pub advances: Vec<StreamAdvance>,
    /// What is recorded with it of the stream's rows, if queries of others read them.
    pub sink: Option<SinkRecord>,
    pub now: Timestamp,
}

/// A stretch of one part of a stream, such as a partition of a topic: positions after `from`, up to and with `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAdvance {
    pub stream: String,
    pub part: u32,
    pub from: u64,
    pub to: u64,
}

/// How far all parts of a stream are published, and where it comes from, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRecord {
    pub source: Option<String>,
    pub positions: BTreeMap<u32, u64>,
}

/// What is recorded of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorRecord {
    pub id: String,
    pub data_source: String,
    pub created: Timestamp,
    pub is_suspended: bool,
    /// Its spec, as JSON.
    pub payload: String,
}

/// What a publication finds there already.
#[derive(Clone, Debug, Default)]
pub struct Overlap {
    /// The `rev` that the publication will have.
    pub rev: u64,
    /// The used segments that overlap the spans, and those that overlap these.
    pub used: Vec<SegmentRecord>,
    /// Every interval and version that overlaps, used or not, even if killed since.
    pub taken: Vec<TakenGroup>,
}

/// An interval and version that has been used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenGroup {
    pub interval: Interval,
    pub version: String,
    /// The greatest partition number that any segment ever had.
    pub max_partition: u32,
}

/// What a publication changes.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    pub add: Vec<SegmentRecord>,
    pub mark_unused: Vec<SegmentId>,
}

impl Pushes<'_> {
    /// Whether those of a publication are meant.
    pub(super) fn contain(&self, publish_id: &str) -> bool {
        match self {
            Self::Of(one) => *one == publish_id,
            Self::All => true,
            Self::BegunBy(begun) => begun.iter().any(|id| publish_id.starts_with(id.as_str())),
            Self::AllBut(spared) => !spared.iter().any(|id| publish_id.starts_with(id.as_str())),
        }
    }
}

/// How a publication ended.
#[derive(Clone, Debug)]
pub enum Publish {
    Done(Published),
    /// The same publish id was there already, with this `rev`.
    DoneBefore {
        rev: u64,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Published {
    pub rev: u64,
    pub added: Vec<SegmentRecord>,
    pub marked_unused: Vec<SegmentId>,
}

/// Segments that were marked unused.
#[derive(Clone, Debug, Default)]
pub struct Marked {
    pub rev: u64,
    pub segments: Vec<SegmentId>,
}

/// A segment that is being killed.
#[derive(Clone, Debug)]
pub struct KillCandidate {
    pub id: SegmentId,
    pub uid: SegmentUid,
    pub load_spec: LoadSpec,
    pub size_bytes: u64,
    /// Whether another segment has the same bytes, so that the file must stay.
    pub is_shared: bool,
}

/// Files that were about to be pushed and are to be removed.
#[derive(Clone, Copy, Debug)]
pub enum Pushes<'a> {
    /// Those of a publication.
    Of(&'a str),
    /// All: whoever noted them is gone.
    All,
    /// Those of publications whose ids begin with one of these: who began them begins anew.
    BegunBy(&'a [String]),
    /// All but those of publications whose ids begin with one of these: their tasks are not done.
    AllBut(&'a [String]),
}

/// A row of a segment that somebody inserted, or marked used or unused, with SQL of their own.
#[derive(Debug)]
pub struct HandRow {
    /// As it stands in the database.
    pub id: String,
    pub data_source: String,
    pub change: Change,
}

/// What somebody did to a row.
#[derive(Debug)]
pub enum Change {
    /// Inserted it; or how it is wrong.
    Inserted(Result<Box<Inserted>>),
    /// Marked it used again. Without a record, the row is damaged.
    MarkedUsed(Option<Box<SegmentRecord>>),
    /// Marked it used although its bytes are being removed, or are gone.
    MarkedUsedTooLate,
    MarkedUnused(Result<SegmentId>),
}

/// A segment that was inserted by hand: what is known of it before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    pub id: SegmentId,
    pub created: Timestamp,
    pub load_spec: LoadSpec,
    pub shard_spec: ShardSpec,
}

/// What is made of a change by hand.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// An inserted row becomes a segment like others.
    Adopt(SegmentRecord),
    Use(SegmentRecord),
    Unuse(SegmentId),
}

impl Settlement {
    pub fn id(&self) -> &SegmentId {
        match self {
            Self::Adopt(record) | Self::Use(record) => &record.id,
            Self::Unuse(id) => id,
        }
    }
}

/// The right to decide, for a while. Whoever takes it over has a greater epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub role: String,
    /// One incarnation of one process.
    pub holder: String,
    pub epoch: u64,
}

/// What a server of a cluster says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerRecord {
    /// Where the others reach it by HTTP: `host:port`.
    pub name: String,
    /// One start of one process.
    pub incarnation: String,
    pub roles: Vec<String>,
    #[serde(default)]
    pub pg_port: Option<u16>,
    /// Where a historical takes parts of queries.
    #[serde(default)]
    pub grpc_port: Option<u16>,
    /// Whether HTTP and gRPC are encrypted.
    #[serde(default)]
    pub is_encrypted: bool,
    pub tier: String,
    #[serde(default)]
    pub zone: String,
    /// What a historical has room for; 0 of others.
    #[serde(default)]
    pub max_bytes: u64,
    /// Brokers send parts of queries to historicals of their own version only.
    pub plan_version: String,
    pub version: String,
    pub started: Timestamp,
}

impl ServerRecord {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }
}

/// A server, and how long ago it last said that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub server: ServerRecord,
    pub age: Duration,
}

/// What asking for a lease gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    Held(Lease),
    HeldBy {
        holder: String,
        /// Until it may be had, unless it is renewed.
        left: Duration,
    },
}

/// Who changed what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// What was changed, such as a data source.
    pub key: String,
    /// Which kind of thing that is, such as `rules`.
    #[serde(rename = "type")]
    pub kind: String,
    pub author: String,
    pub comment: String,
    #[serde(rename = "auditTime")]
    pub created: Timestamp,
    /// What it was changed to, as JSON.
    pub payload: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TaskStatus {
    Waiting,
    Running,
    Success,
    Failed,
}

impl TaskStatus {
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "WAITING",
            Self::Running => "RUNNING",
            Self::Success => "SUCCESS",
            Self::Failed => "FAILED",
        })
    }
}

impl FromStr for TaskStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "WAITING" => Ok(Self::Waiting),
            "RUNNING" => Ok(Self::Running),
            "SUCCESS" => Ok(Self::Success),
            "FAILED" => Ok(Self::Failed),
            _ => Err(Error::invalid_input(format!("`{text}` is not the status of a task"))),
        }
    }
}

/// What is recorded of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecord {
    pub id: String,
    #[serde(rename = "type")]
    pub task_type: String,
    pub data_source: String,
    #[serde(rename = "createdTime")]
    pub created: Timestamp,
    pub status: TaskStatus,
    #[serde(rename = "duration")]
    pub duration_ms: Option<u64>,
    #[serde(rename = "errorMsg")]
    pub error: Option<String>,
    /// The specification it was given, as JSON.
    #[serde(skip)]
    pub payload: String,
    /// What it did, as JSON, once it is done.
    #[serde(skip)]
    pub report: Option<String>,
}

impl SupervisorRecord {
    /// The role of the lease that whoever runs a supervisor of a cluster holds.
    pub fn lease_role(id: &str) -> String {
        format!("supervisor/{id}")
    }
}

impl TaskRecord {
    /// The role of the lease that whoever runs a task of a cluster holds.
    pub fn lease_role(id: &str) -> String {
        format!("task/{id}")
    }
}

/// Someone who may log in.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    pub name: String,
    /// What proves the password, in PostgreSQL's form: `SCRAM-SHA-256$iterations:salt$stored key:server key`.
    pub verifier: String,
    pub created: Timestamp,
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The same time in as few intervals as can be, in order: those that overlap or abut are joined.
pub(crate) fn join(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut joined: Vec<Interval> = Vec::new();
    for interval in intervals {
        let grown = joined.last().filter(|last| interval.start() <= last.end()).copied();
        match grown.and_then(|last| Interval::new(last.start(), last.end().max(interval.end())).ok()) {
            Some(grown) => {
                joined.pop();
                joined.push(grown);
            }
            None => joined.push(interval),
        }
    }
    joined
}
