//! Connections to the HTTP door: encrypted, if the server has a certificate; from this machine also plain.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::auth::tls::{HANDSHAKE, MaybeTls, Tls, is_local};

/// How long a client may take to agree upon encryption.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Clients that may be about it at one time; others wait.
const AT_THE_DOOR: usize = 256;

const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 57\r\n\r\nconnections from other machines must be made over https.\n";

type Accepted = (MaybeTls<TcpStream>, SocketAddr);

/// Accepts connections and leads them in, many at a time.
#[derive(Debug)]
pub(super) struct Encrypting {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Tls>,
    pub(super) arriving: JoinSet<Option<Accepted>>,
}

impl Listener for Encrypting {
    type Io = MaybeTls<TcpStream>;
    type Addr = SocketAddr;

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
                    let Some(tls) = self.tls.clone() else { return (MaybeTls::Plain(stream), peer) };
                    self.arriving.spawn(async move {
                        let stream = tokio::time::timeout(TIMEOUT, lead_in(stream, peer, &tls)).await.ok()?;
                        Some((stream.ok()?, peer))
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn lead_in(mut stream: TcpStream, peer: SocketAddr, tls: &Tls) -> io::Result<MaybeTls<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0] == HANDSHAKE {
        return tls.accept(stream).await;
    }
    if is_local(Some(peer), stream.local_addr().ok()) {
        return Ok(MaybeTls::Plain(stream));
    }
    stream.write_all(REFUSAL).await?;
    Err(io::ErrorKind::PermissionDenied.into())
}
