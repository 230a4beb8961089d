//! A broker: answers queries over what all historicals serve.

use std::net::SocketAddr;
use std::sync::Arc;

use henge_catalog::database::Opening;
use henge_catalog::{Database, DatabaseBuilder, SystemClock};
use henge_engine::{Error, Result};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::all::{DatabaseSessions, DatabaseUsers};
use super::sent_on::{BrokerSessions, SentOn};
use crate::auth::Auth;
use crate::auth::tls::Tls;
use crate::cluster::Peers;
use crate::config::Config;
use crate::http::{Api, Node};
use crate::pgwire::{self, Door, Front};

/// The database as a broker shows it.
pub(super) async fn open(builder: DatabaseBuilder) -> Result<Database> {
    match builder.follow().try_open().await? {
        Opening::Opened(database) => Ok(database),
        Opening::Held(holder) => {
            Err(Error::conflict(format!("the data directory of this broker is in use by {holder}")))
        }
    }
}

/// Opens PostgreSQL's door, and HTTP's for queries.
pub(super) async fn start(
    config: &Config,
    (database, peers): (&Database, &Peers),
    node: &Arc<Node>,
    (pg, pg_address): (TcpListener, SocketAddr),
    (queries, doors): (&Handle, &mut JoinSet<()>),
    (tls, shutdown): (Option<Tls>, CancellationToken),
) -> Result<()> {
    let auth = Arc::new(Auth::new(Arc::new(DatabaseUsers(database.clone())), config.trusts)?);
    auth.is_open().await.map_err(|error| super::all::closed(error, config))?;
    let door = Door {
        auth: Arc::clone(&auth),
        tls: tls.clone(),
        max_connections: config.max_connections,
        clock: Arc::new(SystemClock),
    };
    let writer = SentOn { database: database.clone(), node: Arc::clone(node), peers: peers.clone() };
    let sessions = BrokerSessions { database: DatabaseSessions(database.clone()), writer: Arc::new(writer) };
    let front = Front::new(Arc::new(sessions), queries.clone(), door);
    doors.spawn(pgwire::serve(pg, front, shutdown));
    node.answer_queries(database.clone(), Api::new(database.clone(), queries.clone(), pg_address, auth, tls));
    Ok(())
}
