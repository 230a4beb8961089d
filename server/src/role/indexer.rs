//! An indexer: runs the ingestion tasks of a cluster, one at a time.

use std::time::Duration;

use henge_catalog::database::Opening;
use henge_catalog::{Database, DatabaseBuilder};
use henge_engine::{Error, Result};
use tokio_util::sync::CancellationToken;

/// How often it is looked for tasks.
const LOOK: Duration = Duration::from_millis(250);
/// What failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(2);

/// What an indexer is made of.
pub(super) struct Parts {
    pub(super) builder: Box<dyn Fn() -> DatabaseBuilder + Send + Sync>,
    /// One start of this process, by which others know who runs a task.
    pub(super) holder: String,
    /// Whether it is for this process to run tasks just now.
    pub(super) is_wanted: Box<dyn Fn() -> bool + Send + Sync>,
    pub(super) shutdown: CancellationToken,
}

/// Takes tasks and runs them until the process ends; what runs then is handed back.
pub(super) async fn run(parts: Parts) {
    let mut database: Option<Database> = None;
    while !parts.shutdown.is_cancelled() {
        let mut pause = LOOK;
        if (parts.is_wanted)() {
            match once(&parts, &mut database).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "no task can be taken just now");
                    pause = AGAIN;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = parts.shutdown.cancelled() => {}
        }
    }
    if let Some(database) = database {
        database.close().await;
    }
}

/// Runs a task, if there is one. Returns whether there was.
async fn once(parts: &Parts, opened: &mut Option<Database>) -> Result<bool> {
    let database = match opened {
        Some(database) => database,
        None => match (parts.builder)().work().try_open().await? {
            Opening::Opened(database) => opened.insert(database),
            Opening::Held(holder) => {
                return Err(Error::conflict(format!("the data directory of this indexer is in use by {holder}")));
            }
        },
    };
    let work = database.work(&parts.holder);
    tokio::pin!(work);
    tokio::select! {
        worked = &mut work => return Ok(worked?.is_some()),
        () = parts.shutdown.cancelled() => {}
    }
    // It is handed back while the database closes.
    let (_, worked) = tokio::join!(database.close(), work);
    Ok(worked?.is_some())
}
