//! Something between two processes that can stop passing anything on, with all connections left open: as if the one
//! behind it hung.

use std::net::SocketAddr;
use std::sync::Arc;

use henge_engine::distributed::WorkerUrl;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    frozen: Arc<watch::Sender<bool>>,
    _task: JoinSet<()>,
}

impl Proxy {
    pub async fn to(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let frozen = Arc::new(watch::Sender::new(false));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, behind, frozen.subscribe()));
        Self { address, frozen, _task: task }
    }

    pub fn url(&self) -> WorkerUrl {
        format!("http://{}", self.address).parse().expect("addresses make URLs")
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn accept(listener: TcpListener, behind: SocketAddr, frozen: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let frozen = frozen.clone();
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(behind).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::join!(pass(near_read, far_write, frozen.clone()), pass(far_read, near_write, frozen));
        });
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut frozen: watch::Receiver<bool>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
