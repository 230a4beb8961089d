//! Of a realtime process of a cluster: which supervisors it runs. Each is run by whoever holds its lease.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use henge_engine::{Error, Result};
use serde_json::Value;

use super::Order;
use crate::database::{Inner, Mode};
use crate::lease;
use crate::realtime::supervisor::SupervisorSpec;
use crate::store::{LeaseOutcome, SupervisorRecord};

/// How often it is looked whether there is a supervisor that nobody runs.
const LOOK: Duration = Duration::from_secs(1);
/// A process that runs some already waits so much longer for each, so that one that runs fewer comes first.
const RELUCTANCE: Duration = Duration::from_millis(500);
const LONGEST_RELUCTANCE: Duration = Duration::from_secs(5);

/// Keeps the leases of the supervisors that this process runs, and takes those that nobody holds.
pub(in crate::database) async fn hold(inner: Weak<Inner>) {
    let (mut free_since, mut renewed) = (HashMap::new(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(inner) = inner.upgrade() else { return };
        if renewed.elapsed() >= lease::RENEWAL {
            renewed = Instant::now();
            inner.renew_supervisors().await;
        }
        if let Err(error) = inner.claim_free(&mut free_since).await {
            tracing::warn!(%error, "supervisors that nobody runs are looked for later");
        }
    }
}

impl Inner {
    /// Takes the lease of a supervisor. `false` if another process holds it.
    pub(super) async fn claim_supervisor(&self, id: &str) -> Result<bool> {
        let Some(served) = &self.served else { return Ok(true) };
        if served.leases.lock().contains_key(id) {
            return Ok(true);
        }
        let role = SupervisorRecord::lease_role(id);
        match self.store.acquire_lease(&role, &served.holder, lease::TTL).await? {
            LeaseOutcome::Held(lease) => {
                served.leases.lock().insert(id.to_owned(), lease);
                Ok(true)
            }
            LeaseOutcome::HeldBy { .. } => Ok(false),
        }
    }

    /// Has others run a supervisor, or nobody.
    pub(super) async fn let_go_of(&self, id: &str) {
        let lease = self.served.as_ref().and_then(|served| served.leases.lock().remove(id));
        if let Some(lease) = lease
            && let Err(error) = self.store.release_lease(&lease).await
        {
            tracing::warn!(supervisor = id, %error, "its lease runs out by itself");
        }
    }

    /// The process ends: others may run what it ran at once.
    pub(in crate::database) async fn let_go_of_all(&self) {
        let ids = self.served.iter().flat_map(|served| served.leases.lock().keys().cloned().collect::<Vec<_>>());
        for id in ids.collect::<Vec<_>>() {
            self.let_go_of(&id).await;
        }
    }

    /// The term under which what is recorded of a supervisor's rows is written.
    pub(super) fn term_of(&self, id: &str) -> Option<u64> {
        self.served.as_ref()?.leases.lock().get(id).map(|lease| lease.epoch)
    }

    async fn renew_supervisors(&self) {
        let Some(served) = &self.served else { return };
        let leases = served.leases.lock().clone();
        for (id, lease) in leases {
            match lease::keep(self.store.as_ref(), &lease).await {
                Ok(Some(kept)) => {
                    // Where it ran out and nobody took it, what is here goes on.
                    if let Some(supervisor) = self.supervisors.get(&id) {
                        supervisor.supervisor.sink().set_term(kept.epoch);
                    }
                    served.leases.lock().insert(id, kept);
                }
                Ok(None) => self.abandon_supervisor(&id).await,
                // It may have run out, and another process have it: then nothing can be published here.
                Err(error) => tracing::warn!(supervisor = id, %error, "its lease is renewed later"),
            }
        }
    }

    async fn abandon_supervisor(&self, id: &str) {
        if let Some(served) = &self.served {
            served.leases.lock().remove(id);
        }
        self.supervisors.remove(id);
        let keeper = self.keepers.lock().remove(id);
        if let Some(keeper) = keeper {
            // It has ended already if that fails.
            let _ = keeper.send(Order::Abandon).await;
        }
    }

    async fn claim_free(self: &Arc<Self>, free_since: &mut HashMap<String, Instant>) -> Result<()> {
        let records = self.store.supervisors().await?;
        free_since.retain(|id, _| records.iter().any(|record| record.id == *id));
        for record in records {
            if self.supervisors.get(&record.id).is_some() {
                continue;
            }
            let is_held = self.store.lease_holder(&SupervisorRecord::lease_role(&record.id)).await?.is_some();
            if is_held && self.term_of(&record.id).is_none() {
                free_since.remove(&record.id);
                continue;
            }
            let since = *free_since.entry(record.id.clone()).or_insert_with(Instant::now);
            let mine = u32::try_from(self.supervisors.all().len()).unwrap_or(u32::MAX);
            if since.elapsed() < RELUCTANCE.saturating_mul(mine).min(LONGEST_RELUCTANCE) {
                continue;
            }
            // Not while somebody submits another spec in its place.
            let _in_turn = self.declaring.lock().await;
            if self.supervisors.get(&record.id).is_none() && self.claim_supervisor(&record.id).await? {
                self.start_recorded(&record.id).await;
            }
        }
        Ok(())
    }

    /// Starts a supervisor as it is recorded now.
    async fn start_recorded(self: &Arc<Self>, id: &str) {
        let started = match self.store.supervisors().await {
            Ok(records) => match records.into_iter().find(|record| record.id == id) {
                Some(record) => self.start_record(&record).await,
                None => Err(Error::not_found("it was terminated meanwhile")),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            tracing::error!(supervisor = id, %error, "a supervisor is not started");
            self.let_go_of(id).await;
        }
    }

    /// Starts a supervisor that was submitted before.
    async fn start_record(self: &Arc<Self>, record: &SupervisorRecord) -> Result<()> {
        let json: Value = serde_json::from_str(&record.payload)
            .map_err(|error| Error::corrupt("its spec is no JSON").with_source(error))?;
        let (spec, _) = SupervisorSpec::from_json(&json)?;
        self.start_supervisor(spec, record.is_suspended).await
    }

    /// Starts all supervisors that were submitted to earlier processes; in a cluster, those that nobody runs.
    pub(in crate::database) async fn open_supervisors(self: &Arc<Self>) -> Result<()> {
        if self.connector.is_none() {
            return Ok(());
        }
        match self.mode {
            Mode::Alone => {
                for record in self.store.supervisors().await? {
                    if let Err(error) = self.start_record(&record).await {
                        tracing::error!(
                            supervisor = record.id,
                            %error,
                            "a supervisor is not started; submit its spec again"
                        );
                    }
                }
            }
            Mode::Realtime => drop(self.watching.lock().spawn(hold(Arc::downgrade(self)))),
            Mode::Leader | Mode::Follower | Mode::Worker => {}
        }
        Ok(())
    }
}
