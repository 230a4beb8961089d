use std::sync::{Arc, Weak};
use std::time::Duration;

use henge_engine::Result;
use henge_engine::ingest::Cancellation;

use super::ingest::new_uid;
use super::{CompactionReport, CompactionSpec, Database, Inner, Mode, TaskWork};
use crate::lease;
use crate::view::{Conversion, ViewedSegment};

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
    if inner.mode == Mode::Leader && !inner.auto_compaction.is_empty() {
        watching.spawn(handing_in_compactions(Arc::downgrade(inner)));
    }
    if inner.mode != Mode::Alone {
        // Others serve, and the lease of a leader is renewed by whoever took it.
        return;
    }
    watching.spawn(fetching(Arc::downgrade(inner)));
    if !inner.auto_compaction.is_empty() {
        watching.spawn(compacting(Arc::downgrade(inner)));
    }
    if inner.lease.lock().is_some() {
        watching.spawn(renewing(Arc::downgrade(inner)));
    }
}

async fn polling(inner: Weak<Inner>) {
    let mut was_there = true;
    let poll = match inner.upgrade().map(|inner| inner.mode) {
        Some(Mode::Leader | Mode::Follower | Mode::Realtime | Mode::Worker) => CLUSTER_POLL,
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
                Ok(()) if this.convert_fetched().await => complete_as_of = Some(changes),
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "a segment could not be fetched; it is tried again"),
            }
        }
        let view = Arc::clone(&this.view);
        drop(this);
        let trimmed = tokio::task::spawn_blocking(move || view.trim_cache()).await.map_err(super::lost).flatten();
        if let Err(error) = trimmed {
            tracing::warn!(%error, "the segment cache stays beyond its limit");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn compacting(inner: Weak<Inner>) {
    let mut looked_at = None;
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let changes = inner.view.changes();
        if looked_at != Some(changes) {
            looked_at = Some(changes);
            let runtime = Arc::clone(&inner.runtime);
            let database = Database { inner: Arc::clone(&inner), runtime, asking: Arc::default() };
            for spec in inner.due_compactions() {
                let data_source = spec.data_source.clone();
                match database.compact(spec, None, Cancellation::default()).await {
                    Ok(report) if report.num_granules + report.skipped.len() > 0 => {
                        let CompactionReport { num_granules, segments_before, segments_after, skipped, .. } = report;
                        let skipped = skipped.len();
                        tracing::info!(
                            data_source,
                            num_granules,
                            segments_before,
                            segments_after,
                            skipped,
                            "compacted"
                        );
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(data_source, %error, "not compacted"),
                }
            }
        }
        drop(inner);
        tokio::time::sleep(POLL).await;
    }
}

/// Of a cluster: its servers compact what is due.
async fn handing_in_compactions(inner: Weak<Inner>) {
    let mut looked_at = None;
    loop {
        tokio::time::sleep(POLL).await;
        let Some(inner) = inner.upgrade() else { return };
        let changes = inner.view.changes();
        // What could not be merged is not tried again before something changes.
        if looked_at == Some(changes) {
            continue;
        }
        let runtime = Arc::clone(&inner.runtime);
        let database = Database { inner: Arc::clone(&inner), runtime, asking: Arc::default() };
        match hand_in_compactions(&database, inner.due_compactions()).await {
            Ok(true) => looked_at = Some(changes),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "what is due is not compacted yet"),
        }
    }
}

/// Returns whether all that is due was handed in.
async fn hand_in_compactions(database: &Database, due: Vec<CompactionSpec>) -> Result<bool> {
    let inner = &database.inner;
    let mut are_all = true;
    let waking = inner.view.dormant();
    let running = inner.store.unfinished_tasks().await?;
    for spec in due {
        // What was merged is not seen before it is served, and would be merged again.
        let is_under_way = waking.iter().any(|(segment, _)| segment.id.data_source == spec.data_source)
            || running.iter().any(|task| task.data_source == spec.data_source);
        if is_under_way {
            are_all = false;
            continue;
        }
        let id = format!("compact_{}_{}", spec.data_source, new_uid(database.now()));
        database.hand_in(&id, &TaskWork::Compact(spec)).await?;
    }
    Ok(are_all)
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
            Mode::Follower | Mode::Realtime | Mode::Worker => Ok(()),
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
                let state = self.store.state(&data_source).await?;
                let (rev, segments) = (state.rev, state.used.len());
                self.view.replace(&data_source, state)?;
                tracing::info!(data_source, rev, segments, "served as the metadata database has it now");
            }
        }
        settled
    }

    fn visible_segments(&self) -> impl Iterator<Item = Arc<ViewedSegment>> {
        self.view.segments().into_iter().filter(|(_, hidden)| !hidden).map(|(segment, _)| segment)
    }

    /// Brings all visible segments to this machine, the newest first, and no more than there is room for.
    async fn fetch_missing(&self) -> Result<()> {
        let mut missing = self.visible_segments().filter(|segment| !segment.segment.is_here()).collect::<Vec<_>>();
        missing.sort_by_key(|segment| std::cmp::Reverse(segment.id.interval.end()));
        let mut failed = None;
        for segment in missing.iter().filter(|segment| segment.segment.has_room()) {
            if let Err(error) = segment.segment.fetch().await {
                failed = Some(error.context("segment", &segment.id));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes segments of Druid's in our format where that was asked for, one after the other, as an ingestion takes its
    /// turn and its memory. False if it has to be gone on with later.
    async fn convert_fetched(&self) -> bool {
        for segment in self.visible_segments().filter(|s| s.segment.is_to_be_converted() && s.segment.is_here()) {
            let Ok(_turn) = self.ingesting.acquire().await else { return true };
            let Ok(_memory) = self.reserve_memory() else { return false };
            let lazy = Arc::clone(&segment.segment);
            let (segment_id, data_source) = (segment.id.to_string(), &segment.id.data_source);
            match tokio::task::spawn_blocking(move || lazy.convert()).await.map_err(super::lost).flatten() {
                Ok(Conversion::NotNeeded) => {}
                Ok(Conversion::Done { size_bytes }) => {
                    tracing::info!(
                        segment_id,
                        data_source,
                        size_bytes,
                        "a segment of Druid's was converted; all rows compared"
                    );
                }
                Err(error) => {
                    tracing::warn!(segment_id, data_source, %error, "a segment of Druid's is not converted; it is served as it is");
                }
            }
        }
        true
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
