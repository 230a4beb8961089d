use std::sync::{Arc, Weak};
use std::time::Duration;

use henge_engine::Result;

use super::{Inner, Mode};
use crate::lease;

/// How often the metadata database is asked whether somebody else changed it: one indexed look-up, and one small row a
/// data source.
pub(super) const POLL: Duration = Duration::from_secs(5);
/// The same in a cluster: what the coordinator changes is to be seen soon.
const CLUSTER_POLL: Duration = Duration::from_secs(1);

/// Looks after the metadata database for as long as the database is open: shows what others changed there, and what was
/// changed by hand; brings segments to this machine before a query waits for them; keeps the lease.
pub(super) fn start(inner: &Arc<Inner>) {
    let mut watching = inner.watching.lock();
    watching.spawn(polling(Arc::downgrade(inner)));
    if inner.mode != Mode::Alone {
        // Others serve, and the lease of a leader is renewed by whoever took it.
        return;
    }
    watching.spawn(fetching(Arc::downgrade(inner)));
    if inner.lease.lock().is_some() {
        watching.spawn(renewing(Arc::downgrade(inner)));
    }
}

async fn polling(inner: Weak<Inner>) {
    let mut was_there = true;
    let poll = match inner.upgrade().map(|inner| inner.mode) {
        Some(Mode::Leader | Mode::Follower) => CLUSTER_POLL,
        _ => POLL,
    };
    loop {
        tokio::time::sleep(poll).await;
        let Some(inner) = inner.upgrade() else { return };
        let caught_up = inner.catch_up().await;
        match &caught_up {
            Ok(()) if !was_there => tracing::warn!("the metadata database is back"),
            Err(error) if was_there => tracing::warn!(%error, "what is loaded is still answered"),
            _ => {}
        }
        was_there = caught_up.is_ok();
    }
}

async fn fetching(inner: Weak<Inner>) {
    let mut complete_as_of = None;
    loop {
        let Some(this) = inner.upgrade() else { return };
        let changes = this.view.changes();
        if complete_as_of != Some(changes) {
            match this.fetch_missing().await {
                Ok(()) => complete_as_of = Some(changes),
                Err(error) => tracing::warn!(%error, "a segment could not be fetched; it is tried again"),
            }
        }
        drop(this);
        tokio::time::sleep(POLL).await;
    }
}

async fn renewing(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(lease::RENEWAL).await;
        let Some(inner) = inner.upgrade() else { return };
        let Some(held) = inner.lease.lock().clone() else { return };
        match lease::keep(inner.store.as_ref(), &held).await {
            Ok(Some(lease)) if lease != held => {
                tracing::warn!("the lease of the metadata database had run out and is held again");
                inner.act_under(lease);
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                tracing::error!("another henge writes to the metadata database; this one only reads from now on")
            }
            Err(error) => tracing::debug!(%error, "the lease is not renewed"),
        }
    }
}

impl Inner {
    /// Shows what others changed since, and what was changed by hand.
    pub(super) async fn catch_up(&self) -> Result<()> {
        let settled = match self.mode {
            Mode::Follower => Ok(()),
            Mode::Alone | Mode::Leader => self.settle_by_hand().await,
        };
        let _in_order = self.publishing.lock().await;
        for (data_source, rev) in self.store.revs().await? {
            if self.view.rev(&data_source) > rev {
                // An older copy of the database was put in its place: nothing that is served is taken away for that.
                tracing::error!(
                    data_source,
                    rev,
                    shown = self.view.rev(&data_source),
                    "the metadata database has gone back"
                );
                continue;
            }
            if self.view.rev(&data_source) != rev {
                let (rev, used) = self.store.used(&data_source).await?;
                self.view.replace(&data_source, rev, used)?;
            }
        }
        settled
    }

    /// Brings all visible segments to this machine, the newest first.
    async fn fetch_missing(&self) -> Result<()> {
        let segments = self.view.segments().into_iter().filter(|(_, hidden)| !hidden).map(|(segment, _)| segment);
        let mut missing = segments.filter(|segment| !segment.segment.is_here()).collect::<Vec<_>>();
        missing.sort_by_key(|segment| std::cmp::Reverse(segment.id.interval.end()));
        let mut failed = None;
        for segment in missing {
            if let Err(error) = segment.segment.fetch().await {
                failed = Some(error.context("segment", &segment.id));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whatever is written from here on is written under this lease.
    pub(super) fn act_under(&self, lease: crate::store::Lease) {
        *self.lease.lock() = Some(lease.clone());
        self.store.act_under(Some(lease));
    }

    /// Gives the lease back, so that the next one need not wait for its end.
    pub(super) async fn release(&self) {
        let Some(lease) = self.lease.lock().take() else { return };
        if let Err(error) = self.store.release_lease(&lease).await {
            tracing::debug!(%error, "the lease ends by itself");
        }
    }
}
