//! Leases: who may decide, for a while, told apart by fencing epochs.
//!
//! A lease is a row of the metadata database, and runs by that database's clock. Whoever holds one renews it long before
//! it ends. Holding it is an opinion, and may be wrong the moment after it was asked; the fence is not: each write
//! transaction of a store that acts under a lease holds the lease's row, so that a process that was stopped, lost its
//! lease and goes on cannot commit anything.

use std::time::Duration;

use henge_engine::{Error, Result};

use crate::store::{Lease, LeaseOutcome, MetadataStore};

/// The role of the one process that may write to a metadata database. Where data sources were split among several
/// coordinators one day, others would be numbered on.
pub const COORDINATOR: &str = "coordinator/0";
/// How long a lease runs without being renewed.
pub const TTL: Duration = Duration::from_secs(15);
/// It is renewed this often.
pub const RENEWAL: Duration = Duration::from_secs(5);
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
}
