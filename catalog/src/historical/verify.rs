use std::sync::Arc;
use std::time::Duration;

use henge_engine::model::SegmentId;

use super::Inner;
use crate::timeline::GroupKind;

/// What was cached before is read through at this pace, so that queries do not notice.
const BYTES_A_SECOND: u64 = 20 << 20;

impl Inner {
    /// Reads through everything that was cached by an earlier process.
    pub(super) async fn verify_cached(&self) {
        let mut segments = {
            let state = self.state.lock();
            let here = state.here.iter().filter(|(_, here)| here.record.kind() == GroupKind::Data);
            here.map(|(id, here)| (Arc::clone(id), here.record.size_bytes)).collect::<Vec<_>>()
        };
        // What people ask for most is looked at first.
        segments.sort_by_key(|(id, _)| std::cmp::Reverse(id.interval.end()));
        for (id, bytes) in segments {
            self.verify_one(&id).await;
            tokio::time::sleep(Duration::from_micros(bytes * 1_000_000 / BYTES_A_SECOND)).await;
        }
    }

    /// Reads through one segment. If it is damaged, it is withdrawn, removed and fetched again.
    pub(super) async fn verify_one(&self, id: &SegmentId) {
        let Some(here) = self.state.lock().here.get(id).cloned() else { return };
        let segment = Arc::clone(&here.segment);
        let Ok(Err(error)) = tokio::task::spawn_blocking(move || segment.verify()).await else { return };
        tracing::error!(%error, segment = %id, "a cached segment is damaged; it is fetched again");
        let again = {
            let mut state = self.state.lock();
            let same = state.here.iter().filter(|(_, other)| other.record.uid == here.record.uid);
            let same = same.map(|(_, other)| other.clone()).collect::<Vec<_>>();
            for other in &same {
                state.take(&other.record.id);
            }
            self.forget(here.record.uid);
            same
        };
        let mut records = Vec::with_capacity(again.len());
        for other in again {
            if let Err(error) = self.info.remove(&other.record) {
                tracing::warn!(%error, "a damaged segment may be announced after the next start");
            }
            if !other.is_leaving {
                records.push(other.record);
            }
        }
        if let Err(error) = self.queue(records) {
            tracing::warn!(%error, "a damaged segment is fetched when it is ordered again");
        }
    }
}
