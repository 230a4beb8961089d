//! Supervisors: submitted, kept, suspended, reset, terminated.

mod holding;
mod keeper;

use std::sync::Arc;
use std::time::Duration;

use henge_engine::ingest::stream::StreamConnector;
use henge_engine::{Error, Result};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use self::keeper::Keeper;
pub(super) use self::keeper::Order;
use super::realtime::Publishing;
use super::{Database, HandOff, Inner, Mode};
use crate::realtime::supervisor::{
    ClosedRows, Kept, Positions, ResetTo, Supervisor, SupervisorSpec, SupervisorState, SupervisorStatus,
};
use crate::store::{AuditEntry, SinkRecord, StreamAdvance, SupervisorRecord};

/// Supervisors of one process: each has threads.
const MAX_SUPERVISORS: usize = 200;
/// Orders that wait for a keeper.
const QUEUE: usize = 16;
/// An order is answered within so long, or it is not known whether it was obeyed: a hand-off may be under way before.
const PATIENCE: Duration = Duration::from_secs(300);
const AUDIT: &str = "supervisor";

/// A supervisor that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    pub id: String,
    /// What of its spec has no effect.
    pub notes: Vec<String>,
}

impl Database {
    /// Has a topic flow into a data source as the spec says, from now on and after each start; in place of the spec of the
    /// same id, whose rows are handed off first.
    pub async fn submit_supervisor(&self, json: &Value, by: &str) -> Result<Submitted> {
        let connector = self.connector()?;
        let (spec, mut notes) = SupervisorSpec::from_json(json)?;
        notes.extend(connector.check(&spec.place()?)?);
        let is_suspended = json.get("suspended").and_then(Value::as_bool) == Some(true);
        let id = spec.id.clone();
        let _in_turn = self.inner.declaring.lock().await;
        let all = self.inner.store.supervisors().await?;
        if let Some(other) = all.iter().find(|other| other.data_source == spec.data_source() && other.id != id) {
            return Err(Error::conflict(format!(
                "supervisor `{}` fills `{}` already; terminate it first, or submit the spec under its id",
                other.id, other.data_source
            )));
        }
        if !self.inner.claim_supervisor(&id).await? {
            return Err(Error::conflict(format!(
                "another realtime process runs supervisor `{id}`; submit its spec to the coordinator"
            )));
        }
        let known = self.inner.supervisors.get(&id);
        if known.is_none() && all.len() >= MAX_SUPERVISORS {
            return Err(Error::capacity_exceeded(format!("there can be {MAX_SUPERVISORS} supervisors at most")));
        }
        let record = self.inner.supervisor_record(&spec, is_suspended);
        if let Some(known) = known {
            let was_suspended = known.supervisor.state() == SupervisorState::Suspended;
            if *known.supervisor.spec() == spec && was_suspended == is_suspended {
                return Ok(Submitted { id, notes });
            }
            self.inner.end_supervisor(&id).await?;
            if let Err(error) = self.inner.store.save_supervisor(&record, &self.inner.audit(&record, by)).await {
                // Without the new spec, the old one goes on.
                self.inner.start_supervisor(known.supervisor.spec().clone(), was_suspended).await?;
                return Err(error);
            }
        } else {
            self.inner.store.save_supervisor(&record, &self.inner.audit(&record, by)).await?;
        }
        self.inner.start_supervisor(spec, is_suspended).await?;
        Ok(Submitted { id, notes })
    }

    /// How all supervisors are, in the order of their ids.
    pub fn supervisors(&self) -> Vec<SupervisorStatus> {
        self.inner.supervisors.all().iter().map(Kept::status).collect()
    }

    /// How one is. Fails with `NotFound` if there is none of that id.
    pub fn supervisor(&self, id: &str) -> Result<SupervisorStatus> {
        Ok(self.inner.kept(id)?.status())
    }

    /// Ends reading until it is resumed. What was read is handed off.
    pub async fn suspend_supervisor(&self, id: &str, by: &str) -> Result<SupervisorStatus> {
        self.set_suspended(id, true, by).await
    }

    /// Reads on from where reading ended.
    pub async fn resume_supervisor(&self, id: &str, by: &str) -> Result<SupervisorStatus> {
        self.set_suspended(id, false, by).await
    }

    async fn set_suspended(&self, id: &str, is_suspended: bool, by: &str) -> Result<SupervisorStatus> {
        self.connector()?;
        let _in_turn = self.inner.declaring.lock().await;
        let kept = self.inner.kept(id)?;
        let record = self.inner.supervisor_record(kept.supervisor.spec(), is_suspended);
        self.inner.store.save_supervisor(&record, &self.inner.audit(&record, by)).await?;
        let order = if is_suspended { Order::Suspend } else { Order::Resume };
        self.inner.order(id, order).await?;
        self.supervisor(id)
    }

    /// Has reading go on from elsewhere. What was read is handed off first. Returns where it goes on.
    pub async fn reset_supervisor(&self, id: &str, to: ResetTo) -> Result<Positions> {
        self.connector()?;
        let _in_turn = self.inner.declaring.lock().await;
        self.inner.order(id, |answer| Order::Reset(to, answer)).await?
    }

    /// Hands off what was read so far, and waits until it is published.
    pub async fn hand_off_supervisor(&self, id: &str) -> Result<HandOff> {
        self.inner.order(id, Order::HandOff).await?
    }

    /// Ends a supervisor for good, after what was read is handed off. How far it read is kept: a supervisor of the same id
    /// and topic goes on from there.
    pub async fn terminate_supervisor(&self, id: &str, by: &str) -> Result<()> {
        self.connector()?;
        let _in_turn = self.inner.declaring.lock().await;
        let kept = self.inner.kept(id)?;
        self.inner.end_supervisor(id).await?;
        let record = self.inner.supervisor_record(kept.supervisor.spec(), true);
        let removed = self.inner.store.remove_supervisor(id, &self.inner.audit(&record, by)).await;
        if let Err(error) = removed {
            let was_suspended = kept.supervisor.state() == SupervisorState::Suspended;
            self.inner.start_supervisor(kept.supervisor.spec().clone(), was_suspended).await?;
            return Err(error);
        }
        if let Some(record) = kept.supervisor.sink().record() {
            // All of it is published and read from segments.
            self.inner.store.remove_sink(&record, self.now()).await?;
        }
        self.inner.let_go_of(id).await;
        Ok(())
    }

    fn connector(&self) -> Result<&Arc<dyn StreamConnector>> {
        match self.inner.mode {
            Mode::Realtime => {}
            _ => self.check_writes()?,
        }
        let runs = matches!(self.inner.mode, Mode::Alone | Mode::Realtime);
        self.inner.connector.as_ref().filter(|_| runs).ok_or_else(|| {
            Error::unsupported("supervisors run in an all-in-one server, or in the realtime processes of a cluster")
        })
    }
}

impl Inner {
    fn kept(&self, id: &str) -> Result<Kept> {
        self.supervisors.get(id).ok_or_else(|| Error::not_found(format!("there is no supervisor `{id}`")))
    }

    fn supervisor_record(&self, spec: &SupervisorSpec, is_suspended: bool) -> SupervisorRecord {
        SupervisorRecord {
            id: spec.id.clone(),
            data_source: spec.data_source().to_owned(),
            created: self.clock.now(),
            is_suspended,
            payload: spec.to_json().to_string(),
        }
    }

    fn audit(&self, record: &SupervisorRecord, by: &str) -> AuditEntry {
        AuditEntry {
            key: record.id.clone(),
            kind: AUDIT.to_owned(),
            author: by.to_owned(),
            comment: String::new(),
            created: self.clock.now(),
            // Without what is secret in it.
            payload: SupervisorSpec::from_json(&serde_json::from_str(&record.payload).unwrap_or_default())
                .map(|(spec, _)| spec.shown().to_string())
                .unwrap_or_default(),
        }
    }

    /// Starts a supervisor. In a cluster, its lease is held here.
    async fn start_supervisor(self: &Arc<Self>, spec: SupervisorSpec, is_suspended: bool) -> Result<()> {
        let Some(connector) = &self.connector else { return Ok(()) };
        let id = spec.id.clone();
        let supervisor = Supervisor::new(Arc::clone(&self.streams), spec)?;
        let taken = match self.term_of(&id) {
            Some(term) => self.take_over(supervisor.sink(), &supervisor.spec().data_schema, term).await,
            None => Ok(None),
        };
        let taken = taken.inspect_err(|_| supervisor.close())?;
        if is_suspended {
            supervisor.set_state(SupervisorState::Suspended);
        }
        let kept = Kept::new(supervisor);
        let (orders, coming) = mpsc::channel(QUEUE);
        self.keepers.lock().insert(id, orders);
        self.supervisors.insert(kept.clone());
        let keeper = Keeper::new(Arc::downgrade(self), Arc::clone(connector), kept, taken);
        self.watching.lock().spawn(keeper.run(coming));
        Ok(())
    }

    /// Ends a supervisor, once what it read is published. On failure it goes on.
    async fn end_supervisor(&self, id: &str) -> Result<()> {
        self.order(id, Order::End).await??;
        self.keepers.lock().remove(id);
        self.supervisors.remove(id);
        Ok(())
    }

    async fn order<T>(&self, id: &str, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T> {
        let keeper = self.keepers.lock().get(id).cloned();
        let keeper = keeper.ok_or_else(|| Error::not_found(format!("there is no supervisor `{id}`")))?;
        let (answer, answered) = oneshot::channel();
        let ended = || Error::canceled(format!("supervisor `{id}` ended before it answered"));
        keeper.send(order(answer)).await.map_err(|_| ended())?;
        let answered = tokio::time::timeout(PATIENCE, answered).await.map_err(|_| {
            Error::new(
                henge_engine::error::Category::Timeout,
                henge_engine::error::Persona::Admin,
                format!("supervisor `{id}` is busy; look at its status whether it did what was asked"),
            )
        })?;
        answered.map_err(|_| ended())
    }

    /// Publishes rows that were read together with how far that is, unless that was done already. `None` if the stream is
    /// published from elsewhere meanwhile: then these rows are not to be published at all.
    async fn publish_read(&self, supervisor: &Supervisor, closed: &ClosedRows) -> Result<Option<HandOff>> {
        let stream = supervisor.spec().stream_name();
        let stands = self.store.stream(&stream).await?.positions;
        let is_at = |end: fn(&(u64, u64)) -> u64| {
            closed.stretches.iter().all(|(partition, stretch)| stands.get(partition) == Some(&end(stretch)))
        };
        if is_at(|(_, to)| *to) {
            // An attempt whose answer was lost.
            self.reread_sink(supervisor.sink()).await?;
            self.catch_up().await?;
        } else if !is_at(|(from, _)| *from) {
            return Ok(None);
        } else {
            let advance = |(partition, (from, to)): (&u32, &(u64, u64))| StreamAdvance {
                stream: stream.clone(),
                part: *partition,
                from: *from,
                to: *to,
            };
            let read: u64 = closed.stretches.values().map(|(_, to)| to).sum();
            let sink = supervisor.sink();
            let publishing = Publishing {
                generation: &closed.generation,
                name: format!("{}_{}_{read}", supervisor.spec().kind, supervisor.spec().id),
                advances: closed.stretches.iter().map(advance).collect(),
                sink: sink.record().map(|record| SinkRecord { published: record.published + 1, ..record }),
                max_rows_per_segment: supervisor.spec().max_rows_per_segment(),
            };
            self.publish_rows(publishing).await?.into_iter().for_each(|record| sink.set(record));
        }
        let generation = &closed.generation;
        if generation.index.num_rows() == 0 && self.served.is_none() {
            self.view.close_generation(&generation.data_source, generation.number);
        }
        let segments = generation.segments.lock().clone();
        Ok(Some(HandOff { rows: generation.index.num_rows(), segments }))
    }
}

#[cfg(test)]
mod tests;
