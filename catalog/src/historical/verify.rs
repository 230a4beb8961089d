use std::time::Duration;

use henge_engine::model::SegmentUid;

use super::{Here, Inner, Served};
use crate::timeline::GroupKind;

/// What was cached before is read through at this pace, so that queries do not notice.
const BYTES_A_SECOND: u64 = 20 << 20;

impl Inner {
    /// Reads through everything that was cached by an earlier process.
    pub(super) async fn verify_cached(&self) {
        let mut segments = {
            let state = self.state.lock();
            let is_whole =
                |here: &&Here| here.record.kind() == GroupKind::Data && matches!(here.segment, Served::Whole(_));
            let here = state.here.values().filter(is_whole);
            here.map(|here| (here.record.id.interval.end(), here.record.uid, here.record.size_bytes))
                .collect::<Vec<_>>()
        };
        // What people ask for most is looked at first.
        segments.sort_unstable_by(|a, b| b.cmp(a));
        for (_, uid, bytes) in segments {
            self.verify_one(uid).await;
            tokio::time::sleep(Duration::from_micros(bytes * 1_000_000 / BYTES_A_SECOND)).await;
        }
    }

    /// Reads through one segment. If it is damaged, it is withdrawn, removed and fetched again.
    pub(super) async fn verify_one(&self, uid: SegmentUid) {
        let Some(here) = self.state.lock().here.get(&uid).cloned() else { return };
        let segment = here.segment.clone();
        let Ok(Err(error)) = tokio::task::spawn_blocking(move || segment.verify()).await else { return };
        tracing::error!(%error, segment = %here.record.id, "a cached segment is damaged; it is fetched again");
        let damaged = {
            let mut state = self.state.lock();
            let damaged = state.take(uid);
            self.forget(uid);
            damaged
        };
        if let Err(error) = self.info.remove(uid) {
            tracing::warn!(%error, "a damaged segment may be announced after the next start");
        }
        let wanted = damaged.filter(|damaged| !damaged.is_leaving).map(|damaged| damaged.record);
        if let Err(error) = self.queue(wanted.into_iter().collect()) {
            tracing::warn!(%error, "a damaged segment is fetched when it is ordered again");
        }
    }
}
