//! The accept loop: one task a connection.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use henge_engine::Result;
use henge_engine::session::{Session, SessionOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::registry::Registry;
use super::startup;

/// Opens sessions over the database.
pub trait Sessions: Debug + Send + Sync {
    fn open(&self, options: SessionOptions) -> Result<Session>;
}

/// What all connections share.
#[derive(Debug)]
pub struct Front {
    pub(super) sessions: Arc<dyn Sessions>,
    /// The runtime on which queries are planned, executed and encoded.
    pub(super) queries: Handle,
    pub(super) registry: Arc<Registry>,
    pub(super) max_connections: usize,
}

impl Front {
    pub fn new(sessions: Arc<dyn Sessions>, queries: Handle, max_connections: usize) -> Arc<Self> {
        Arc::new(Self { sessions, queries, registry: Arc::default(), max_connections })
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
    let peer = stream.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    // Answers are written in large pieces already.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("{peer}: {error}");
    }
    match startup::start(stream, front, shutdown).await {
        Some(connection) => {
            tracing::debug!("{peer}: connected");
            connection.run().await;
            tracing::debug!("{peer}: gone");
        }
        None => tracing::debug!("{peer}: gone before it was connected"),
    }
}
