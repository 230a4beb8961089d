//! Encryption among the servers of a cluster, by which each also proves to be one of them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use henge_engine::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, WebPkiClientVerifier};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::server::StartHandshake;

use super::tls::MaybeTls;
use crate::config::PeerTlsFiles;

/// What servers say, in the handshake, that they want to speak: so one port serves them and people, each with a
/// certificate of its own.
const PROTOCOL: &[u8] = b"henge-cluster/1";

/// The certificates of this server, as the other servers see it.
#[derive(Clone)]
pub struct PeerTls {
    /// As they were read, in PEM.
    pub(crate) authority: Arc<[u8]>,
    pub(crate) certificate: Arc<[u8]>,
    pub(crate) key: Arc<[u8]>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTls").finish_non_exhaustive()
    }
}

impl PeerTls {
    /// Reads the files. Whatever is wrong with them is an error.
    pub fn load(files: &PeerTlsFiles) -> Result<Self> {
        let (authority, certificate, key) = (read(&files.authority)?, read(&files.cert)?, read(&files.key)?);
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.authority, &authority)? {
            roots
                .add(root)
                .map_err(|error| wrong(&files.authority, "an authority's certificate").with_source(error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.cert, &certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| wrong(&files.key, "a private key in PEM").with_source(error))?;
        let provider = Arc::new(ring::default_provider());
        let server = server(&provider, &roots, chain.clone(), private.clone_key())
            .map_err(|error| wrong(&files.key, "the key of the certificate").with_source(error))?;
        let client = client(&provider, roots, chain, private)
            .map_err(|error| wrong(&files.key, "the key of the certificate").with_source(error))?;
        let (server, client) = (Arc::new(server), Arc::new(client));
        Ok(Self { authority: authority.into(), certificate: certificate.into(), key: key.into(), server, client })
    }

    /// How this server calls others.
    pub(crate) fn client(&self) -> ClientConfig {
        self.client.as_ref().clone()
    }

    /// Whether it is a server of a cluster who calls, or says so; it will have to show its certificate.
    pub(crate) fn is_called(hello: &ClientHello<'_>) -> bool {
        hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == PROTOCOL))
    }

    /// Goes on only with who has a certificate of the cluster's authority.
    pub(crate) async fn accept<S>(&self, hello: StartHandshake<S>) -> io::Result<MaybeTls<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Ok(MaybeTls::Encrypted(Box::new(hello.into_stream(Arc::clone(&self.server)).await?)))
    }
}

type Rustls<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Rustls<ServerConfig> {
    let known = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build()?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let mut config = builder.with_client_cert_verifier(known).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Rustls<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

const FLAGS: &str = "see `--cluster-tls-ca`, `--cluster-tls-cert` and `--cluster-tls-key`";

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::invalid_input(format!("`{}` cannot be read; {FLAGS}", path.display())).with_source(error)
    })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(path, "a certificate in PEM")),
        Err(error) => Err(wrong(path, "a certificate in PEM").with_source(error)),
    }
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::invalid_input(format!("`{}` is not {what}; {FLAGS}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificates_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = PeerTlsFiles { authority: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem") };
        assert!(PeerTls::load(&files).unwrap_err().to_string().contains("cannot be read"));
        for file in [&files.authority, &files.cert, &files.key] {
            std::fs::write(file, "no certificate").unwrap();
        }
        let error = PeerTls::load(&files).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("is not a certificate in PEM"), "{error}");
    }
}
