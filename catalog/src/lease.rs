//! Leases: who may decide, for a while, told apart by fencing epochs.
//!
//! A lease is a row of the metadata database, and runs by that database's clock. Whoever holds one renews it long before
//! it ends. Holding it is an opinion, and may be wrong the moment after it was asked; the fence is not: each write
//! transaction of a store that acts under a lease holds the lease's row, so that a process that was stopped, lost its
//! lease and goes on cannot commit anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_engine::{Error, Result};

use crate::store::{Lease, LeaseOutcome, MetadataStore};

/// The role of the one process that may write to a metadata database. Where data sources were split among several
/// coordinators one day, others would be numbered on.
pub const COORDINATOR: &str = "coordinator/0";
/// How long a lease runs without being renewed.
pub const TTL: Duration = Duration::from_secs(15);
/// It is renewed this often.
pub const RENEWAL: Duration = Duration::from_secs(5);
/// A holder stops to act this long before its lease runs out, so that slow clocks do no harm.
const MARGIN: Duration = Duration::from_secs(3);
/// A renewal that failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// Whoever wants a lease that another holds looks again after this long.
const LOOK: Duration = Duration::from_millis(500);

/// Takes a lease, and waits for one that another holds for as long as it runs without being renewed. Fails with
/// `Conflict` if its holder is alive.
pub async fn take(store: &dyn MetadataStore, role: &str, holder: &str) -> Result<Lease> {
    let began = tokio::time::Instant::now();
    loop {
        match store.acquire_lease(role, holder, TTL).await? {
            LeaseOutcome::Held(lease) => return Ok(lease),
            LeaseOutcome::HeldBy { holder, .. } if began.elapsed() > TTL + RENEWAL => {
                return Err(Error::conflict(format!(
                    "another henge, `{holder}`, writes to this metadata database; stop it, or give this one another \
                     database"
                )));
            }
            LeaseOutcome::HeldBy { holder, left } => {
                tracing::info!(role, holder, ?left, "waiting for the lease of a process that may be gone");
                tokio::time::sleep(left.clamp(Duration::from_millis(10), LOOK)).await;
            }
        }
    }
}

/// Renews a lease, or takes it anew if it ran out and nobody else has it. `None` if another has it.
pub async fn keep(store: &dyn MetadataStore, lease: &Lease) -> Result<Option<Lease>> {
    if store.renew_lease(lease, TTL).await? {
        return Ok(Some(lease.clone()));
    }
    match store.acquire_lease(&lease.role, &lease.holder, TTL).await? {
        LeaseOutcome::Held(lease) => Ok(Some(lease)),
        LeaseOutcome::HeldBy { .. } => Ok(None),
    }
}

/// Keeps a lease for as long as it can be kept.
#[derive(Debug)]
pub struct Renewal {
    store: Arc<dyn MetadataStore>,
    lease: Lease,
    good_until: Instant,
    pause: Duration,
}

impl Renewal {
    /// Of a lease that was asked for, or renewed, at a moment.
    pub fn new(store: Arc<dyn MetadataStore>, lease: Lease, asked: Instant) -> Self {
        Self { store, lease, good_until: asked + TTL - MARGIN, pause: RENEWAL }
    }

    /// Waits until it is time, and renews the lease. Returns whether it may be acted under still: not once another has
    /// it, or if it cannot be told for so long that another may.
    pub async fn next(&mut self) -> bool {
        let left = self.good_until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.pause.min(left)).await;
        let asked = Instant::now();
        match tokio::time::timeout(left.max(AGAIN), self.store.renew_lease(&self.lease, TTL)).await {
            Ok(Ok(true)) => (self.good_until, self.pause) = (asked + TTL - MARGIN, RENEWAL),
            Ok(Ok(false)) => return false,
            Ok(Err(error)) => {
                tracing::warn!(%error, role = self.lease.role, "a lease is not renewed");
                self.pause = AGAIN;
            }
            Err(_) => self.pause = AGAIN,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn a_lease_is_kept_by_its_holder_and_taken_over_from_one_that_is_gone() -> Result<()> {
        let store = MemoryStore::new();
        let first = take(&store, "r", "a").await?;
        assert_eq!(keep(&store, &first).await?, Some(first.clone()));
        store.release_lease(&first).await?;
        let anew = keep(&store, &first).await?.expect("nobody else has it");
        assert!(anew.epoch > first.epoch);
        store.release_lease(&anew).await?;
        let second = take(&store, "r", "b").await?;
        assert_eq!(keep(&store, &anew).await?, None);
        assert!(second.epoch > anew.epoch);
        Ok(())
    }

    #[tokio::test]
    async fn a_lease_is_not_acted_under_once_another_has_it_or_too_late() -> Result<()> {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let lease = take(store.as_ref(), "r", "a").await?;
        let now = Instant::now();
        let mut kept = Renewal { pause: Duration::ZERO, ..Renewal::new(Arc::clone(&store), lease.clone(), now) };
        assert!(kept.next().await);
        assert!(kept.good_until >= now + TTL - MARGIN && kept.pause == RENEWAL);
        let mut late = Renewal::new(Arc::clone(&store), lease.clone(), now);
        late.good_until = now;
        assert!(!late.next().await);
        store.release_lease(&lease).await?;
        take(store.as_ref(), "r", "b").await?;
        kept.pause = Duration::ZERO;
        assert!(!kept.next().await);
        Ok(())
    }
}
