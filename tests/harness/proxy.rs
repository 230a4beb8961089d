//! Something between two processes that can stop passing anything on, with all connections left open, as if the one behind
//! it hung; or cut or damage what that one answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use henge_engine::distributed::WorkerUrl;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of an answer, after so many bytes of it.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The connection ends, as one that was closed in order.
    Cut { after: usize },
    /// One bit is another.
    Flip { after: usize },
}

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    frozen: Arc<watch::Sender<bool>>,
    faults: Arc<Faults>,
    _task: JoinSet<()>,
}

impl Proxy {
    pub async fn to(behind: SocketAddr) -> Self {
        Self::with(behind, None).await
    }

    /// The first connection by which so much is answered has this fault.
    pub async fn faulty(behind: SocketAddr, fault: Fault) -> Self {
        Self::with(behind, Some(fault)).await
    }

    async fn with(behind: SocketAddr, fault: Option<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let frozen = Arc::new(watch::Sender::new(false));
        let mut task = JoinSet::new();
        let faults = Arc::new(Faults { fault, happened: AtomicUsize::new(0) });
        task.spawn(accept(listener, behind, frozen.subscribe(), Arc::clone(&faults)));
        Self { address, frozen, faults, _task: task }
    }

    pub fn url(&self) -> WorkerUrl {
        self.url_of("http")
    }

    pub fn url_of(&self, scheme: &str) -> WorkerUrl {
        format!("{scheme}://{}", self.address).parse().expect("addresses make URLs")
    }

    /// Whether the fault has happened.
    pub fn was_faulty(&self) -> bool {
        self.faults.happened.load(Ordering::SeqCst) > 0
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

#[derive(Debug)]
struct Faults {
    fault: Option<Fault>,
    happened: AtomicUsize,
}

impl Faults {
    /// What is passed on of `bytes`, which come after `passed` others; and whether the connection ends then.
    fn apply(&self, bytes: &mut [u8], passed: usize) -> (usize, bool) {
        let is_next = |after: usize| (passed..passed + bytes.len()).contains(&after);
        match self.fault {
            Some(Fault::Cut { after }) if is_next(after) && self.happened.fetch_add(1, Ordering::SeqCst) == 0 => {
                (after - passed, true)
            }
            Some(Fault::Flip { after }) if is_next(after) && self.happened.fetch_add(1, Ordering::SeqCst) == 0 => {
                bytes[after - passed] ^= 0x10;
                (bytes.len(), false)
            }
            _ => (bytes.len(), false),
        }
    }
}

async fn accept(listener: TcpListener, behind: SocketAddr, frozen: watch::Receiver<bool>, faults: Arc<Faults>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (frozen, faults) = (frozen.clone(), Arc::clone(&faults));
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(behind).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            let none = Faults { fault: None, happened: AtomicUsize::new(0) };
            // One that was cut is closed on both sides.
            let asking = async {
                pass(near_read, far_write, frozen.clone(), &none).await;
                // What was asked is answered yet.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = asking => {}
                () = pass(far_read, near_write, frozen.clone(), &faults) => {}
            }
        });
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frozen: watch::Receiver<bool>,
    faults: &Faults,
) {
    let (mut bytes, mut passed) = (vec![0; 1 << 16], 0);
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        let (len, ends) = faults.apply(&mut bytes[..read], passed);
        passed += read;
        if to.write_all(&bytes[..len]).await.is_err() || ends {
            break;
        }
    }
    let _ = to.shutdown().await;
}
