use std::sync::Arc;

use henge_engine::Result;
use henge_engine::model::Interval;
use serde::Serialize;

use super::{Database, lost};

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
        let _in_order = self.inner.publishing.lock().await;
        let in_use = self.inner.view.in_use();
        let candidates = Arc::new(self.inner.store.begin_kill(data_source, within, &in_use).await?);
        let (storage, doomed) = (self.inner.storage.clone(), Arc::clone(&candidates));
        let delete = move || doomed.iter().filter(|c| !c.is_shared).try_for_each(|c| storage.delete(&c.load_spec));
        tokio::task::spawn_blocking(delete).await.map_err(lost)??;
        let ids = candidates.iter().map(|candidate| candidate.id.clone()).collect::<Vec<_>>();
        self.inner.store.finish_kill(&ids).await?;
        let freed = candidates.iter().filter(|candidate| !candidate.is_shared);
        Ok(KillReport { num_segments: ids.len(), size_bytes: freed.map(|candidate| candidate.size_bytes).sum() })
    }
}
