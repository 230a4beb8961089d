use henge_engine::Result;
use henge_engine::model::{Interval, Timestamp};
use serde::Serialize;

use super::Database;

/// What a kill did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KillReport {
    pub num_segments: usize,
    /// What was freed in deep storage.
    pub size_bytes: u64,
}

impl Database {
    /// Removes for good the unused segments of a data source that lie within `within`. Those that a query still reads
    /// stay until they are killed again, and so do files that another segment shares. Interrupted, it can be repeated.
    pub async fn kill(&self, data_source: &str, within: Interval) -> Result<KillReport> {
        self.kill_unused(data_source, within, None).await
    }

    /// The same, but that those that became unused later than `before` stay.
    pub async fn kill_unused(
        &self,
        data_source: &str,
        within: Interval,
        before: Option<Timestamp>,
    ) -> Result<KillReport> {
        let _in_order = self.inner.publishing.lock().await;
        let in_use = self.inner.view.in_use();
        let candidates = self.inner.store.begin_kill(data_source, within, before, &in_use).await?;
        for candidate in candidates.iter().filter(|candidate| !candidate.is_shared) {
            self.inner.storage.delete(&candidate.load_spec).await?;
            self.inner.storage.forget(candidate.uid)?;
        }
        let ids = candidates.iter().map(|candidate| candidate.id.clone()).collect::<Vec<_>>();
        self.inner.store.finish_kill(&ids).await?;
        let freed = candidates.iter().filter(|candidate| !candidate.is_shared);
        Ok(KillReport { num_segments: ids.len(), size_bytes: freed.map(|candidate| candidate.size_bytes).sum() })
    }
}
