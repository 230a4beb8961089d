use std::sync::Arc;
use std::time::Duration;

use henge_catalog::store::{MetadataStore, ServerRecord};
use tokio::task::JoinSet;

/// A server says this often that it is there.
const RENEWAL: Duration = Duration::from_secs(15);
/// After a failure it tries again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// This server in the metadata database, for as long as it runs.
#[derive(Debug)]
pub struct Registration {
    store: Arc<dyn MetadataStore>,
    server: ServerRecord,
    renewing: JoinSet<()>,
}

impl Registration {
    /// Registers a server, now or as soon as the database can be reached, and keeps it registered.
    pub fn start(store: Arc<dyn MetadataStore>, server: ServerRecord) -> Self {
        let mut renewing = JoinSet::new();
        renewing.spawn(renew(Arc::clone(&store), server.clone()));
        Self { store, server, renewing }
    }

    /// Ends it, so that nobody asks this server any more.
    pub async fn end(mut self) {
        self.renewing.shutdown().await;
        if let Err(error) = self.store.unregister(&self.server.name, &self.server.incarnation).await {
            tracing::debug!(%error, "this server stays registered; nobody will reach it");
        }
    }

    /// Ends it, but stays registered: whoever serves segments may come back with them.
    pub async fn pause(mut self) {
        self.renewing.shutdown().await;
    }
}

async fn renew(store: Arc<dyn MetadataStore>, server: ServerRecord) {
    let mut was_there = true;
    loop {
        let registered = store.register(&server).await;
        match &registered {
            Ok(()) if !was_there => tracing::warn!("the metadata database is back"),
            Err(error) if was_there => tracing::warn!(%error, "this server is not registered anew"),
            _ => {}
        }
        was_there = registered.is_ok();
        tokio::time::sleep(if was_there { RENEWAL } else { AGAIN }).await;
    }
}
