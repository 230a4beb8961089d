//! PostgreSQL's door with clients that cancel, leave, do not read, or mean harm: a server in a process of its own, whose time on
//! the processors and whose memory are measured. Trials take turns, so that what is measured is theirs.

mod cancel;
mod copy;
mod hostile;
mod memory;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use henge_engine::ingest::source::wikipedia::Shape;
use libtest_mimic::{Failed, Trial};
use tokio_postgres::{Client, Config, NoTls};

use crate::harness::data::{Rollup, rows_file, wikiticker_spec};
use crate::harness::process::{LIMIT, Server, henge, run};
use crate::harness::scratch;

pub fn trials() -> Vec<Trial> {
    [cancel::trials(), copy::trials(), hostile::trials(), memory::trials()].into_iter().flatten().collect()
}

/// What the server may use for queries.
const MEMORY_LIMIT: &str = "128MiB";

static SERVER: Mutex<Option<Server>> = Mutex::new(None);

/// The server, which nobody else asks meanwhile.
struct Turn(MutexGuard<'static, Option<Server>>);

impl Turn {
    fn take() -> Result<Self, Failed> {
        // A trial that failed while it held it has left the server as it was.
        let mut server = SERVER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if server.is_none() {
            *server = Some(start()?);
        }
        Ok(Self(server))
    }

    fn server(&self) -> &Server {
        self.0.as_ref().expect("just started")
    }

    fn address(&self) -> SocketAddr {
        self.server().pg
    }

    async fn connect(&self) -> Result<Client, Failed> {
        let address = self.address();
        let mut config = Config::new();
        config.host(address.ip().to_string()).port(address.port()).user("henge").dbname("henge");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Fails unless a new connection gets an answer.
    async fn answers(&self) -> Result<(), Failed> {
        let answer = self.connect().await?.simple_query("SELECT 1").await;
        answer.map(|_| ()).map_err(|error| format!("the server does not answer any more: {error}").into())
    }

    /// Time on the processors so far.
    fn cpu(&self) -> Result<Duration, Failed> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server().pid()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        // utime and stime, the 14th and 15th of all, in hundredths of a second on every Linux.
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// Memory that is in use now, in bytes.
    fn memory(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server().pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Waits until the server has used hardly any processor for a while; says how long that took to begin.
    fn idle(&self, within: Duration) -> Result<Duration, Failed> {
        const WINDOW: Duration = Duration::from_millis(100);
        let began = Instant::now();
        let mut before = self.cpu()?;
        loop {
            let from = began.elapsed();
            std::thread::sleep(WINDOW);
            let now = self.cpu()?;
            if now - before <= Duration::from_millis(20) {
                return Ok(from);
            }
            if from > within {
                return Err(format!("still busy {from:?} later, {:?} in {WINDOW:?}", now - before).into());
            }
            before = now;
        }
    }
}

fn start() -> Result<Server, Failed> {
    let dir = scratch::dir().join("wire");
    std::fs::create_dir_all(&dir)?;
    let data_dir = dir.join("data");
    let spec = wikiticker_spec(&rows_file(&dir, Shape::Wikiticker)?, Rollup::Off);
    let path = dir.join("spec.json");
    std::fs::write(&path, spec.to_string())?;
    let mut command = henge(&["ingest", "--spec"]);
    command.arg(&path).arg("--data-dir").arg(&data_dir);
    run(command)?.ok()?;
    let mut command =
        henge(&["server", "--pg-port", "0", "--http-port", "0", "--memory-limit", MEMORY_LIMIT, "--data-dir"]);
    command.arg(&data_dir);
    Server::spawn(command)
}

/// Ends the server, if it was started.
pub fn end_server() {
    SERVER.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
}

/// A connection spoken to by hand.
pub struct Raw(TcpStream);

impl Raw {
    pub fn connect(address: SocketAddr) -> Result<Self, Failed> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut raw = Self(stream);
        let body = b"\0\x03\0\0user\0henge\0database\0henge\0\0";
        raw.0.write_all(&(body.len() as u32 + 4).to_be_bytes())?;
        raw.0.write_all(body)?;
        raw.until(b'Z')?;
        Ok(raw)
    }

    pub fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), Failed> {
        let mut message = vec![kind];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        self.0.write_all(&message)?;
        Ok(())
    }

    /// Reads messages up to one of this kind, and gives its body.
    pub fn until(&mut self, kind: u8) -> Result<Vec<u8>, Failed> {
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; length - 4];
            self.0.read_exact(&mut body)?;
            if head[0] == kind {
                return Ok(body);
            }
            if head[0] == b'E' {
                return Err(String::from_utf8_lossy(&body).into_owned().into());
            }
        }
    }
}
