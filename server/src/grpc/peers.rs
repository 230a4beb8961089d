use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use henge_engine::distributed::{BoxCloneSyncChannel, WorkerChannel, WorkerChannels, WorkerUrl, create_worker_client};
use parking_lot::Mutex;
use ring::hmac;
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

use super::{CONNECTION_WINDOW, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW};
use crate::error::{Error, Result};

/// How long a process has to accept a connection.
const CONNECT: Duration = Duration::from_millis(800);
/// Connections that are kept. Workers come and go under new addresses; nobody has so many at once.
const MOST_CHANNELS: usize = 4096;

/// How the processes of a cluster know each other.
#[derive(Clone, Default)]
pub struct PeerSecurity {
    /// What all of them know; `None` to let anybody in who reaches the port.
    pub secret: Option<String>,
    /// TLS, by which each also proves to be one of them.
    pub tls: Option<PeerTls>,
}

/// Certificates in PEM.
#[derive(Clone)]
pub struct PeerTls {
    /// Who signs the certificates of all processes.
    pub authority: Vec<u8>,
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl fmt::Debug for PeerSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secret, tls) = (self.secret.is_some(), self.tls.is_some());
        f.debug_struct("PeerSecurity").field("secret", &secret).field("tls", &tls).finish()
    }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").finish_non_exhaustive()
    }
}

/// The connections of this process to others of its cluster, made when first used and kept.
#[derive(Debug)]
pub struct Peers {
    security: PeerSecurity,
    /// `Bearer` and the secret.
    authorization: Option<HeaderValue>,
    /// Compares secrets without telling by the time it takes.
    comparison: hmac::Key,
    channels: Mutex<HashMap<WorkerUrl, Authorized>>,
    /// Where connections are looked after.
    connections: Handle,
}

impl Peers {
    /// Connections are looked after on `connections`, which should be free of long computations. Fails if the secret is
    /// no text that can be sent.
    pub fn new(security: PeerSecurity, connections: Handle) -> Result<Arc<Self>> {
        let authorization = security.secret.as_ref().map(|secret| {
            let mut value = HeaderValue::from_str(&format!("Bearer {secret}")).map_err(|_| {
                Error::invalid_input("the secret of the cluster may only have visible ASCII characters")
            })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let random = ring::rand::SystemRandom::new();
        let comparison = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| Error::runtime_failure("the system gives no random bytes"))?;
        let authorization = authorization.transpose()?;
        Ok(Arc::new(Self { security, authorization, comparison, channels: Mutex::default(), connections }))
    }

    /// Whether a request may come in.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = &self.authorization else { return true };
        let Some(given) = headers.get(AUTHORIZATION) else { return false };
        let tag = hmac::sign(&self.comparison, expected.as_bytes());
        hmac::verify(&self.comparison, given.as_bytes(), tag.as_ref()).is_ok()
    }

    pub(super) fn server_tls(&self) -> Option<ServerTlsConfig> {
        let tls = self.security.tls.as_ref()?;
        let identity = Identity::from_pem(&tls.certificate, &tls.key);
        Some(ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(&tls.authority)))
    }

    fn connect(&self, worker: &WorkerUrl) -> Result<Authorized> {
        let wrong = |error: tonic::transport::Error| {
            Error::runtime_failure(format!("`{worker}` is no address of a worker")).with_source(error)
        };
        let mut endpoint = Endpoint::from_shared(worker.to_string())
            .map_err(wrong)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if let Some(tls) = &self.security.tls {
            let config = ClientTlsConfig::new()
                .identity(Identity::from_pem(&tls.certificate, &tls.key))
                .ca_certificate(Certificate::from_pem(&tls.authority));
            endpoint = endpoint.tls_config(config).map_err(wrong)?;
        }
        // The task of the connection is spawned where this is.
        let _entered = self.connections.enter();
        Ok(Authorized { channel: endpoint.connect_lazy(), authorization: self.authorization.clone() })
    }
}

#[async_trait]
impl WorkerChannels for Peers {
    async fn channel(&self, worker: &WorkerUrl) -> Result<Box<dyn WorkerChannel>> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(worker) {
            Some(channel) => channel.clone(),
            None => {
                if channels.len() >= MOST_CHANNELS {
                    channels.clear();
                }
                let channel = self.connect(worker)?;
                channels.insert(worker.clone(), channel.clone());
                channel
            }
        };
        Ok(create_worker_client(BoxCloneSyncChannel::new(channel)))
    }
}

/// A connection whose requests all have the secret.
#[derive(Clone, Debug)]
struct Authorized {
    channel: Channel,
    authorization: Option<HeaderValue>,
}

impl Service<Request<Body>> for Authorized {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.channel.call(request)
    }
}
