//! gRPC among the processes of a cluster: plans to workers, batches back.
//!
//! Owns the sockets: [`serve`] puts a worker on one, [`Peers`] are the connections to others. Decides nothing about
//! queries, but ends those whose broker is gone.
//!
//! Invariants: without the cluster's secret nobody is answered, whatever is asked; a peer that is dead or hung is noticed
//! within three seconds; what runs for a broker ends when the broker's request does.

mod guarded;
mod peers;

use std::sync::Arc;
use std::time::Duration;

use henge_engine::distributed::QueryWorker;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::guarded::Guarded;
pub use self::peers::{PeerSecurity, PeerTls, Peers};
use crate::error::{Error, Result};

/// Pause between two questions whether the other side is there,
const KEEP_ALIVE: Duration = Duration::from_millis(700);
/// and the time it has for an answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Bytes that may be on their way in one stream,
const STREAM_WINDOW: u32 = 4 << 20;
/// and in all streams of a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Puts a worker on a socket until `shutdown`; requests that run then end first. Its queries run on `queries`, the
/// connections where this is called, so that they are looked after however busy the queries are.
pub async fn serve(
    listener: TcpListener,
    worker: Arc<QueryWorker>,
    peers: Arc<Peers>,
    queries: &Handle,
    shutdown: CancellationToken,
) -> Result<()> {
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    if let Some(tls) = peers.server_tls() {
        server = server.tls_config(tls).map_err(|error| {
            Error::invalid_input("the certificate or key for other processes cannot be used").with_source(error)
        })?;
    }
    let service = worker.worker().clone().into_worker_server();
    let service = Guarded::new(service, worker, peers, queries.clone());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(|error| Error::runtime_failure("the port for other processes failed").with_source(error))
}
