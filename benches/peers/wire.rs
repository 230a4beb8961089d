//! Henge as people meet it: the server in a process of its own, asked through the PostgreSQL protocol.

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::{Done, answer};

/// What the server prints before the address of its PostgreSQL door.
const ADDRESS: &str = "PostgreSQL: ";

/// Ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    /// Kept, or the server could not print.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start(data_dir: &Path, threads: NonZeroUsize) -> Done<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_henge"))
            .args(["server", "--pg-port", "0", "--http-port", "0", "--threads"])
            .arg(threads.to_string())
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        while let Some(line) = output.next().transpose()? {
            if let Some(address) = line.strip_prefix(ADDRESS) {
                return Ok(Self { address: address.parse()?, child, _output: output });
            }
        }
        Err("the server ended before it said where it listens".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn serve(data_dir: &Path, threads: NonZeroUsize) -> Done {
    let server = Server::start(data_dir, threads)?;
    let runtime = Runtime::new()?;
    let config = format!("host={} port={} user=henge dbname=henge", server.address.ip(), server.address.port());
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&config, NoTls))?;
    runtime.spawn(connection);
    answer(server.child.id(), |sql| {
        let messages = runtime.block_on(client.simple_query(sql))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    })
}
