//! The accept loop: one task a connection.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use henge_catalog::Clock;
use henge_engine::Result;
use henge_engine::model::Timestamp;
use henge_engine::session::{Session, SessionOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::startup::{self, Ends};
use crate::auth::Auth;
use crate::auth::tls::Tls;
use crate::pg_catalog::{Activity, Extent, ServerView};

/// Opens sessions over the database.
#[async_trait]
pub trait Sessions: Debug + Send + Sync {
    fn open(&self, options: SessionOptions) -> Result<Session>;

    /// How much there is of a data source; `None` if there is none of that name.
    fn extent(&self, data_source: &str) -> Option<Extent>;

    /// Adds rows to a data source: all of them, or none if one of them is an error. Says how many there were.
    async fn append(&self, data_source: &str, rows: Rows) -> Result<u64>;
}

/// Rows that come in, by batches.
pub type Rows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// What all connections share.
#[derive(Debug)]
pub struct Front {
    pub(super) sessions: Arc<dyn Sessions>,
    /// The runtime on which queries are planned, executed and encoded.
    pub(super) queries: Handle,
    pub(super) registry: Arc<Registry>,
    pub(super) door: Door,
    pub(super) view: Arc<View>,
}

/// Who is let in, and how many.
#[derive(Clone, Debug)]
pub struct Door {
    pub auth: Arc<Auth>,
    pub(crate) tls: Option<Tls>,
    pub max_connections: usize,
    pub clock: Arc<dyn Clock>,
}

/// Connections that are not let in yet, or refused, beyond those that are.
const AT_THE_DOOR: usize = 100;

impl Front {
    pub fn new(sessions: Arc<dyn Sessions>, queries: Handle, door: Door) -> Arc<Self> {
        let registry = Arc::<Registry>::default();
        let view = View {
            registry: Arc::clone(&registry),
            auth: Arc::clone(&door.auth),
            sessions: Arc::clone(&sessions),
            started: door.clock.now(),
        };
        Arc::new(Self { sessions, queries, registry, door, view: Arc::new(view) })
    }
}

/// The server as its catalogue shows it.
#[derive(Debug)]
pub(super) struct View {
    registry: Arc<Registry>,
    auth: Arc<Auth>,
    sessions: Arc<dyn Sessions>,
    started: Timestamp,
}

#[async_trait]
impl ServerView for View {
    fn activity(&self) -> Vec<Activity> {
        self.registry.activity()
    }

    fn cancel(&self, pid: i32) -> bool {
        self.registry.cancel_by_pid(pid)
    }

    async fn users(&self) -> Result<Vec<String>> {
        self.auth.names().await
    }

    fn started(&self) -> Timestamp {
        self.started
    }

    fn extent(&self, data_source: &str) -> Option<Extent> {
        self.sessions.extent(data_source)
    }
}

/// How long connections may take to say goodbye when the server ends. A client that does not read gets no more.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves connections until `shutdown`, then ends what they run, tells them and closes them.
pub async fn serve(listener: TcpListener, front: Arc<Front>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept() => match accepted {
                // Whoever holds that many open without saying who it is gets no answer.
                Ok(_) if connections.len() >= front.door.max_connections.saturating_add(AT_THE_DOOR) => {
                    tracing::warn!("too many PostgreSQL connections; a new one is closed");
                }
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&front), shutdown.clone()));
                }
                // Out of file descriptors, or a client that left: neither ends the server.
                Err(error) => {
                    tracing::warn!("cannot accept a PostgreSQL connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(GOODBYE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

fn report(ended: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a PostgreSQL connection ended by a bug: {error}");
    }
}

async fn connection(stream: TcpStream, front: Arc<Front>, shutdown: CancellationToken) {
    let ends = Ends { peer: stream.peer_addr().ok(), local: stream.local_addr().ok() };
    let peer = ends.peer.map(|address| address.to_string()).unwrap_or_default();
    // Answers are written in large pieces already.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("{peer}: {error}");
    }
    match startup::start(stream, ends, front, shutdown).await {
        Some(connection) => {
            tracing::debug!("{peer}: connected");
            connection.run().await;
            tracing::debug!("{peer}: gone");
        }
        None => tracing::debug!("{peer}: gone before it was connected"),
    }
}
