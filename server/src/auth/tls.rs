//! Encryption: the server's certificate, and which clients must use it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::config::TlsFiles;

/// The first byte of a TLS handshake.
pub(crate) const HANDSHAKE: u8 = 22;

/// Encrypts connections.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// The certificates as they were read, to which passwords are bound.
    certificates: Arc<[u8]>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. Whatever is wrong with them is an error.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self> {
        let certificates = read(&files.cert)?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificates)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| wrong(&files.cert, "a certificate in PEM").with_source(error))?;
        if chain.is_empty() {
            return Err(wrong(&files.cert, "a certificate in PEM"));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
            .map_err(|error| wrong(&files.key, "a private key in PEM").with_source(error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| wrong(&files.key, "the key of the certificate").with_source(error))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificates: certificates.into() })
    }

    pub(crate) fn certificates(&self) -> &[u8] {
        &self.certificates
    }

    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<MaybeTls<S>> {
        Ok(MaybeTls::Encrypted(Box::new(self.acceptor.accept(stream).await?)))
    }

    /// The same where the client has begun already.
    pub(crate) async fn go_on<S>(&self, hello: StartHandshake<S>) -> io::Result<MaybeTls<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Ok(MaybeTls::Encrypted(Box::new(hello.into_stream(Arc::clone(self.acceptor.config())).await?)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::invalid_input(format!("`{}` cannot be read; see `--tls-cert` and `--tls-key`", path.display()))
            .with_source(error)
    })
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::invalid_input(format!("`{}` is not {what}; see `--tls-cert` and `--tls-key`", path.display()))
}

/// Whether the two ends of a connection are on one machine, as far as their addresses tell.
pub(crate) fn is_local(peer: Option<SocketAddr>, local: Option<SocketAddr>) -> bool {
    let plain = |address: SocketAddr| match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip => ip,
    };
    match (peer.map(plain), local.map(plain)) {
        (Some(peer), Some(local)) => peer.is_loopback() || peer == local,
        (Some(peer), None) => peer.is_loopback(),
        // Not a network.
        (None, _) => true,
    }
}

pub(crate) fn must_encrypt() -> Error {
    Error::new(
        Category::Forbidden,
        Persona::User,
        "connections from other machines must be encrypted; connect with `sslmode=require` or over https",
    )
    .with_sqlstate("28000")
}

/// A connection before and after it is encrypted.
#[derive(Debug)]
pub(crate) enum MaybeTls<S> {
    Plain(S),
    Encrypted(Box<TlsStream<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MaybeTls<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_read(context, into),
            MaybeTls::Encrypted(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MaybeTls<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            MaybeTls::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_flush(context),
            MaybeTls::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTls::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            MaybeTls::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificate_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        assert!(Tls::load(&files).unwrap_err().to_string().contains("cannot be read"));
        std::fs::write(&files.cert, "no certificate").unwrap();
        assert!(Tls::load(&files).unwrap_err().to_string().contains("is not a certificate in PEM"));
    }

    #[test]
    fn other_machines_are_told_from_this_one() {
        let address = |text: &str| Some(text.parse().unwrap());
        let here = address("10.0.0.5:5433");
        assert!(is_local(address("127.0.0.1:9"), address("127.0.0.1:5433")));
        assert!(is_local(address("[::ffff:127.0.0.1]:9"), None));
        assert!(is_local(address("10.0.0.5:9"), here));
        assert!(!is_local(address("10.0.0.6:9"), here));
        assert!(is_local(None, None));
    }
}
