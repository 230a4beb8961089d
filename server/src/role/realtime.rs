//! A realtime process: takes rows that are pushed, answers brokers over them, and publishes them.

use std::sync::Arc;

use henge_catalog::database::{Opening, RealtimeOptions};
use henge_catalog::{Database, DatabaseBuilder};
use henge_engine::{Error, Result};
use tokio::runtime::Handle;

use super::all::DatabaseUsers;
use crate::auth::Auth;
use crate::cluster::{FollowedBrokers, Peers, Watcher};
use crate::config::Config;
use crate::http::{Api, Node};
use crate::stream;

/// Opens the directory, and reads the rows again that were taken and not published.
pub(super) async fn open(
    config: &Config,
    builder: DatabaseBuilder,
    server: &str,
    (watcher, peers): (&Watcher, &Peers),
) -> Result<Database> {
    let brokers = FollowedBrokers { watcher: watcher.clone(), peers: peers.clone() };
    let options = RealtimeOptions {
        server: server.to_owned(),
        brokers: Arc::new(brokers),
        drop_delay: config.cluster.drop_delay,
    };
    match builder.realtime(options).streams(stream::connector()).try_open().await? {
        Opening::Opened(database) => Ok(database),
        Opening::Held(holder) => {
            Err(Error::conflict(format!("the data directory of this realtime process is in use by {holder}")))
        }
    }
}

/// Takes rows from here on.
pub(super) async fn start(config: &Config, database: &Database, node: &Node, queries: &Handle) -> Result<()> {
    let auth = Arc::new(Auth::new(Arc::new(DatabaseUsers(database.clone())), config.trusts)?);
    auth.is_open().await.map_err(|error| super::all::closed(error, config))?;
    node.take_rows(database.clone(), Api::of_realtime(database.clone(), queries.clone(), auth));
    Ok(())
}
