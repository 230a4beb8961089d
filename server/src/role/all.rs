//! Everything in one process: the embedded database with both front doors.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use henge_catalog::database::IngestRun;
use henge_catalog::provider::ServerAddress;
use henge_catalog::store::UserRecord;
use henge_catalog::{Database, SystemClock};
use henge_engine::session::{Session, SessionOptions};
use henge_engine::{Error, Result};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::tls::Tls;
use crate::auth::{self, Auth, Users};
use crate::config::Config;
use crate::http::{self, Api};
use crate::pgwire::{self, Door, Extent, Front, Rows, Sessions};

/// How long an ingestion may take to notice that it is canceled; one that waits for its input cannot.
const CLOSE: Duration = Duration::from_secs(10);

/// What to do about a port that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Fail, naming the flag to change.
    Fails,
    /// Take a free one, unless a person chose this one.
    Moves,
}

/// A running server. Dropping it without [`Server::stop`] ends it like a crash would.
#[derive(Debug)]
pub struct Server {
    pub pg: SocketAddr,
    pub http: SocketAddr,
    pub database: Database,
    shutdown: CancellationToken,
    doors: JoinSet<()>,
}

#[derive(Debug)]
pub(super) struct DatabaseSessions(pub(super) Database);

#[async_trait]
impl Sessions for DatabaseSessions {
    fn open(&self, options: SessionOptions) -> Result<Session> {
        let writer = Some(Arc::new(self.0.clone()) as _);
        Ok(self.0.session(SessionOptions { writer, ..options }))
    }

    fn extent(&self, data_source: &str) -> Option<Extent> {
        let view = self.0.data_source(data_source).ok()?;
        let segments = view.segments();
        let records = || segments.iter().map(|segment| &segment.record);
        let rows = records().map(|record| record.num_rows).sum();
        Some(Extent { rows, bytes: records().map(|record| record.size_bytes).sum() })
    }

    async fn append(&self, data_source: &str, rows: Rows) -> Result<u64> {
        Ok(self.0.append(data_source, rows, IngestRun::default()).await?.row_stats.processed)
    }
}

#[derive(Debug)]
pub(super) struct DatabaseUsers(pub(super) Database);

#[async_trait]
impl Users for DatabaseUsers {
    async fn all(&self) -> Result<Vec<UserRecord>> {
        self.0.users().await
    }
}

/// Opens the doors to `database`. Queries run on `queries`, the rest where this is called.
pub async fn start(config: &Config, database: Database, taken: Taken, queries: &Handle) -> Result<Server> {
    let auth = Arc::new(Auth::new(Arc::new(DatabaseUsers(database.clone())), config.trusts)?);
    auth.is_open().await.map_err(|error| closed(error, config))?;
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let moves = |chosen: bool| taken == Taken::Moves && !chosen;
    let pg = bind(config.host, config.pg_port, "--pg-port", moves(config.pg_port_chosen)).await?;
    let http = bind(config.host, config.http_port, "--http-port", moves(config.http_port_chosen)).await?;
    let (pg_address, http_address) = (local(&pg)?, local(&http)?);
    let shutdown = CancellationToken::new();
    let sessions = Arc::new(DatabaseSessions(database.clone()));
    let door = Door {
        auth: Arc::clone(&auth),
        tls: tls.clone(),
        max_connections: config.max_connections,
        clock: Arc::new(SystemClock),
    };
    let front = Front::new(sessions, queries.clone(), door);
    auth.leave_token(&config.data_dir)?;
    let api = Api::new(database.clone(), queries.clone(), pg_address, auth, tls.clone());
    let mut doors = JoinSet::new();
    doors.spawn(pgwire::serve(pg, front, shutdown.clone()));
    doors.spawn(http::serve(http, api, shutdown.clone()));
    database.announce(ServerAddress {
        host: Some(config.host.to_string()),
        pg_port: Some(pg_address.port()),
        http_port: Some(http_address.port()),
    })?;
    Ok(Server { pg: pg_address, http: http_address, database, shutdown, doors })
}

/// Why nobody could come in: there are no users, or it is not known whether there are.
pub(super) fn closed(error: Error, config: &Config) -> Error {
    if error.sqlstate() != Some(auth::NO_USERS) {
        return error.context("start", "users");
    }
    Error::invalid_input(format!(
        "`--host {}` would let other machines in without a password; add a user with `henge user add`, stay on \
         127.0.0.1, or add `--allow-remote-without-password` if the network is trusted",
        config.host
    ))
}

impl Server {
    /// Closes the doors, ends what is running and lets go of the data directory.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while self.doors.join_next().await.is_some() {}
        if tokio::time::timeout(CLOSE, self.database.close()).await.is_err() {
            tracing::warn!("an ingestion still waits for its input; it ends with the process and publishes nothing");
        }
    }
}

pub(super) fn local(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::runtime_failure("a port without an address").with_source(error))
}

pub(super) async fn bind(host: IpAddr, port: u16, flag: &str, moves: bool) -> Result<TcpListener> {
    match TcpListener::bind((host, port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse && moves => Box::pin(bind(host, 0, flag, false)).await,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Err(Error::conflict(format!("port {port} is taken by another program; choose another one with `{flag}`")))
        }
        Err(error) => {
            Err(Error::invalid_input(format!("cannot listen on {host} port {port}; see `--host` and `{flag}`"))
                .with_source(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use henge_engine::error::{Category, Persona};

    use super::*;
    use crate::config::Options;

    #[test]
    fn a_metadata_database_that_is_away_is_not_taken_for_one_without_users() {
        let config = Config { host: IpAddr::from([0, 0, 0, 0]), ..Options::default().resolve().unwrap() };
        let away = closed(Error::new(Category::ServiceUnavailable, Persona::Operator, "no connection"), &config);
        assert!(away.to_string().contains("no connection"), "{away}");
        let none = Error::new(Category::Unauthorized, Persona::User, "no user").with_sqlstate(auth::NO_USERS);
        assert!(closed(none, &config).to_string().contains("henge user add"));
    }

    #[tokio::test]
    async fn a_taken_port_fails_naming_its_flag_or_moves() {
        let host = IpAddr::from([127, 0, 0, 1]);
        let first = bind(host, 0, "--pg-port", false).await.unwrap();
        let port = local(&first).unwrap().port();
        let error = bind(host, port, "--pg-port", false).await.unwrap_err();
        assert!(error.to_string().contains("--pg-port"), "{error}");
        let moved = bind(host, port, "--pg-port", true).await.unwrap();
        assert_ne!(local(&moved).unwrap().port(), port);
    }
}
