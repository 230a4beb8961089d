//! Connections to the HTTP door: encrypted, if the server has a certificate; from this machine also plain. Servers of a
//! cluster that has certificates come encrypted, and show theirs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use crate::auth::peer::PeerTls;
use crate::auth::tls::{HANDSHAKE, MaybeTls, Tls, is_local};

/// How long a client may take to agree upon encryption.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Clients that may be about it at one time; others wait.
const AT_THE_DOOR: usize = 256;

const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 57\r\n\r\nconnections from other machines must be made over https.\n";

/// By what connections are encrypted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encryption {
    /// Those of people; without it they may come plain from everywhere.
    pub(crate) people: Option<Tls>,
    /// Those of other servers of the cluster.
    pub(crate) peers: Option<PeerTls>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// A server that showed a certificate of the cluster.
    pub(super) is_peer: bool,
}

impl Connected<IncomingStream<'_, Encrypting>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Encrypting>) -> Self {
        *stream.remote_addr()
    }
}

type Accepted = (MaybeTls<TcpStream>, Caller);

/// Accepts connections and leads them in, many at a time.
#[derive(Debug)]
pub(super) struct Encrypting {
    pub(super) listener: TcpListener,
    pub(super) encryption: Encryption,
    pub(super) arriving: JoinSet<Option<Accepted>>,
}

impl Listener for Encrypting {
    type Io = MaybeTls<TcpStream>;
    type Addr = Caller;

    async fn accept(&mut self) -> Accepted {
        loop {
            tokio::select! {
                Some(arrived) = self.arriving.join_next(), if !self.arriving.is_empty() => {
                    if let Ok(Some(accepted)) = arrived {
                        return accepted;
                    }
                }
                // The trait's own way to accept: it waits where there are no file descriptors.
                (stream, peer) = Listener::accept(&mut self.listener), if self.arriving.len() < AT_THE_DOOR => {
                    let encryption = self.encryption.clone();
                    if encryption.people.is_none() && encryption.peers.is_none() {
                        return (MaybeTls::Plain(stream), Caller { is_peer: false });
                    }
                    self.arriving.spawn(async move {
                        tokio::time::timeout(TIMEOUT, lead_in(stream, peer, &encryption)).await.ok()?.ok()
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        self.listener.local_addr().map(|_| Caller { is_peer: false })
    }
}

async fn lead_in(mut stream: TcpStream, address: SocketAddr, encryption: &Encryption) -> io::Result<Accepted> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0] == HANDSHAKE {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let is_peer = PeerTls::is_called(&hello.client_hello());
        let stream = match (is_peer, &encryption.peers, &encryption.people) {
            (true, Some(peers), _) => peers.accept(hello).await?,
            (false, _, Some(people)) => people.go_on(hello).await?,
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        };
        return Ok((stream, Caller { is_peer }));
    }
    if encryption.people.is_none() || is_local(Some(address), stream.local_addr().ok()) {
        return Ok((MaybeTls::Plain(stream), Caller { is_peer: false }));
    }
    stream.write_all(REFUSAL).await?;
    Err(io::ErrorKind::PermissionDenied.into())
}
