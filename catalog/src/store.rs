//! The metadata store: what is published, in a database.
//!
//! Owns the trait [`MetadataStore`] in domain verbs, its databases, and its double in memory; `suite.rs` holds the
//! tests that all of them pass. The only room with SQL.
//!
//! Invariants: every verb is one transaction, and what it returned survives a power loss. All changes to one data
//! source's segments are in one order, numbered by its `rev`. An id once given to a segment is never given again.

mod dialect;
mod druid;
mod failure;
mod memory;
mod migration;
mod mysql;
mod payload;
mod postgres;
mod record;
mod row;
mod segments;
mod sql;
mod sql_store;
mod sqlite;
#[cfg(test)]
mod suite;
mod url;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use henge_engine::Result;
use henge_engine::model::{Interval, SegmentId, SegmentUid, Timestamp};
use henge_engine::storage::LoadSpec;

pub use druid::{DruidRow, druid_rows};
pub use memory::MemoryStore;
pub(crate) use record::join;
pub use record::{
    AuditEntry, Change, DataSourceRecord, DataSourceState, Decision, HandRow, Inserted, KillCandidate, Lease,
    LeaseOutcome, Marked, Overlap, Publication, Publish, Published, Pushes, Registered, SegmentRecord, ServerRecord,
    Settlement, SinkRecord, Snapshot, Standing, StreamAdvance, StreamRecord, SupervisorRecord, TakenGroup, TaskRecord,
    TaskStatus, UserRecord, tail_uid,
};
pub use url::MetadataUrl;

use crate::rule::Rule;

/// Decides what a publication changes, from what it overlaps. May be called again if the database asks for it.
pub type Decide<'a> = &'a (dyn Fn(&Overlap) -> Result<Decision> + Send + Sync);

/// The metadata of all data sources.
#[async_trait]
pub trait MetadataStore: Debug + Send + Sync {
    /// Whatever this handle writes from here on, it writes only while the lease has not been taken over; `Conflict` else.
    fn act_under(&self, lease: Option<Lease>);

    /// All data sources and their used segments, as of one moment.
    async fn snapshot(&self) -> Result<Snapshot>;

    /// The `rev` of every data source.
    async fn revs(&self) -> Result<BTreeMap<String, u64>>;

    /// What there is of one data source, as of one moment.
    async fn state(&self, data_source: &str) -> Result<DataSourceState>;

    /// The `rev` and the used segments of one data source, as of one moment.
    async fn used(&self, data_source: &str) -> Result<(u64, Vec<SegmentRecord>)> {
        let DataSourceState { rev, used, .. } = self.state(data_source).await?;
        Ok((rev, used))
    }

    /// Records a sink, in place of what was recorded of it before, as a change to its data source. Returns the `rev` of
    /// that. Fails with `Conflict` if what was recorded is of a greater term.
    async fn save_sink(&self, sink: &SinkRecord, now: Timestamp) -> Result<u64>;

    /// Forgets a sink; queries do without what of it is not published. `false` if there was none.
    async fn remove_sink(&self, sink: &SinkRecord, now: Timestamp) -> Result<bool>;

    /// The `rev` of a data source; 0 if nothing was ever published there.
    async fn rev(&self, data_source: &str) -> Result<u64>;

    /// Notes that files are about to be put into deep storage for a publication.
    async fn intend_pushes(&self, publish_id: &str, load_specs: &[LoadSpec]) -> Result<()>;

    /// The noted files whose publication did not happen (yet).
    async fn intended_pushes(&self) -> Result<Vec<LoadSpec>>;

    /// Noted files that were not published, and from here on never will be, together with those of earlier calls that
    /// were not forgotten yet: they may be removed.
    async fn doom_pushes(&self, pushes: Pushes<'_>) -> Result<Vec<LoadSpec>>;

    /// Strikes files off the list of noted ones, because they were removed.
    async fn forget_pushes(&self, load_specs: &[LoadSpec]) -> Result<()>;

    /// The `rev` that a publication got, if it was made.
    async fn published(&self, publish_id: &str) -> Result<Option<u64>>;

    /// Makes a publication: shows `decide` what is there, under the lock of the data source, and does what it decided.
    /// All of it happens or none. A publish id that was published before changes nothing.
    async fn publish(&self, publication: &Publication, decide: Decide<'_>) -> Result<Publish>;

    /// How far a part of a stream was published; 0 if nothing of it was.
    async fn stream_position(&self, stream: &str, part: u32) -> Result<u64>;

    /// How far all parts of a stream were published that were begun, and where it comes from if that was said.
    async fn stream(&self, stream: &str) -> Result<StreamRecord>;

    /// Says where parts of a stream begin, and where it comes from. What was said before stands. Returns what stands.
    async fn begin_stream(&self, stream: &str, begun: &StreamRecord) -> Result<StreamRecord>;

    /// Has a stream go on from elsewhere: these parts, and no others. Whoever is about to publish from where it was, fails.
    async fn reset_stream(&self, stream: &str, to: &StreamRecord) -> Result<()>;

    /// All supervisors, in the order of their ids.
    async fn supervisors(&self) -> Result<Vec<SupervisorRecord>>;

    /// Records a supervisor, in place of what was recorded of it before, and says in the audit log who did.
    async fn save_supervisor(&self, supervisor: &SupervisorRecord, audit: &AuditEntry) -> Result<()>;

    /// Forgets a supervisor, and says in the audit log who did; `false` if there is none of that id. How far its stream
    /// was published is kept.
    async fn remove_supervisor(&self, id: &str, audit: &AuditEntry) -> Result<bool>;

    /// Marks unused all segments whose intervals lie within `within`. `Conflict` is not possible; nothing found is fine.
    async fn mark_unused(&self, data_source: &str, within: Interval, now: Timestamp) -> Result<Marked>;

    /// Marks these segments unused. What is not there, or unused already, is fine.
    async fn mark_segments_unused(&self, data_source: &str, ids: &[SegmentId], now: Timestamp) -> Result<Marked>;

    /// Marks unused segments within `within` used, as somebody does by hand: they are among [`MetadataStore::by_hand`]
    /// until that is settled. Of `ids`, if they are given. What is being killed stays unused. Returns how many there were.
    async fn mark_used(&self, data_source: &str, within: Interval, ids: Option<&[SegmentId]>) -> Result<u64>;

    /// Has queries ask for used segments, or not, all of them at once. Returns the `rev` of that.
    async fn set_standing(
        &self,
        data_source: &str,
        ids: &[SegmentId],
        standing: Standing,
        now: Timestamp,
    ) -> Result<u64>;

    /// Has queries ask for all used segments: for a server that needs no other to serve them.
    async fn wake_all(&self, now: Timestamp) -> Result<()>;

    /// Begins to kill the unused segments within `within`, but those that are `in_use`, or that became unused later than
    /// `unused_before`. From here on they cannot be marked used again. Segments whose killing was interrupted are among
    /// the answer.
    async fn begin_kill(
        &self,
        data_source: &str,
        within: Interval,
        unused_before: Option<Timestamp>,
        in_use: &HashSet<SegmentUid>,
    ) -> Result<Vec<KillCandidate>>;

    /// Ends it, once their files are gone. Their ids stay taken.
    async fn finish_kill(&self, ids: &[SegmentId]) -> Result<()>;

    /// Rows that were changed by hand and not settled yet: the first of them whose ids are greater than `after`. None
    /// means that there are no more.
    async fn by_hand(&self, after: &str) -> Result<Vec<HandRow>>;

    /// Takes note of a change by hand, and returns the `rev` that it got: `None` if the row was changed once more
    /// meanwhile. What `decide` says against it is the failure; what else it decides is not looked at.
    async fn settle(&self, settlement: &Settlement, now: Timestamp, decide: Decide<'_>) -> Result<Option<u64>>;

    /// Records a task, in place of what was recorded of it before.
    async fn save_task(&self, task: &TaskRecord) -> Result<()>;

    async fn task(&self, id: &str) -> Result<Option<TaskRecord>>;

    /// The latest tasks, newest first.
    async fn tasks(&self, limit: usize) -> Result<Vec<TaskRecord>>;

    /// The tasks that have not ended, oldest first.
    async fn unfinished_tasks(&self) -> Result<Vec<TaskRecord>>;

    /// Records how far a task is, unless it has ended.
    async fn note_progress(&self, task_id: &str, report: &str) -> Result<()>;

    /// Who may log in, in the order of their names.
    async fn users(&self) -> Result<Vec<UserRecord>>;

    /// Records a user, in place of what was recorded under the name before.
    async fn save_user(&self, user: &UserRecord) -> Result<()>;

    /// Forgets a user; `false` if there is none of that name.
    async fn remove_user(&self, name: &str) -> Result<bool>;

    /// Takes a lease that nobody holds, or that this holder holds already, by the clock of the database.
    async fn acquire_lease(&self, role: &str, holder: &str, ttl: Duration) -> Result<LeaseOutcome>;

    /// Prolongs a lease. Returns whether it is held still.
    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool>;

    /// Ends a lease before its time. One that was lost is no failure.
    async fn release_lease(&self, lease: &Lease) -> Result<()>;

    /// Takes a lease, whoever holds it: nothing that was begun under it is written any more.
    async fn seize_lease(&self, role: &str, holder: &str, ttl: Duration) -> Result<Lease>;

    /// Forgets a lease that nobody will ask for again. What was begun under it is not written any more.
    async fn remove_lease(&self, role: &str) -> Result<()>;

    /// Who holds a lease that has not run out.
    async fn lease_holder(&self, role: &str) -> Result<Option<String>>;

    /// What time it is, by the clock of the database.
    async fn now(&self) -> Result<Timestamp>;

    /// Says that a server is there, in place of what was said under its name before. Needs no lease.
    async fn register(&self, server: &ServerRecord) -> Result<()>;

    /// Takes it back, unless another incarnation has registered since.
    async fn unregister(&self, name: &str, incarnation: &str) -> Result<()>;

    /// All servers that were registered and not unregistered, in the order of their names.
    async fn servers(&self) -> Result<Vec<Registered>>;

    /// The rules of all data sources that have some, and the default ones.
    async fn rules(&self) -> Result<BTreeMap<String, Vec<Rule>>>;

    /// Puts rules in place of a data source's, and says in the audit log who did. No rules removes them.
    async fn set_rules(&self, data_source: &str, rules: &[Rule], audit: &AuditEntry) -> Result<()>;

    /// What was set under a name, as JSON.
    async fn config(&self, name: &str) -> Result<Option<String>>;

    /// Sets it, and says in the audit log who did.
    async fn set_config(&self, name: &str, payload: &str, audit: &AuditEntry) -> Result<()>;

    /// What was changed, newest first: of one kind, and of one key if it is given.
    async fn audit(&self, kind: &str, key: Option<&str>, limit: usize) -> Result<Vec<AuditEntry>>;

    /// Lets go of the database. Later calls fail.
    async fn close(&self);
}
