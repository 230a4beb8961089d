//! Servers of a cluster, each a process of its own, on one metadata database and one deep storage.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::block_on;
use super::door::{Door, Postgres, Protocol};
use super::process::{LIMIT, henge, signal, until};

pub const SECRET: &str = "only-for-tests";

/// Where the servers of one cluster keep what they share.
pub struct Place {
    dir: TempDir,
    metadata: String,
    deep_storage: String,
    /// Flags of all servers.
    flags: Vec<String>,
    /// Variables of their environment.
    environment: Vec<(String, String)>,
}

impl Place {
    /// With SQLite and a directory.
    pub fn new() -> Result<Self, Failed> {
        let dir = TempDir::new()?;
        let metadata = format!("sqlite://{}", dir.path().join("metadata.sqlite").display());
        Self::in_dir(dir, metadata)
    }

    /// With a database server.
    pub fn on(metadata: &str) -> Result<Self, Failed> {
        Self::in_dir(TempDir::new()?, metadata.to_owned())
    }

    fn in_dir(dir: TempDir, metadata: String) -> Result<Self, Failed> {
        let deep_storage = dir.path().join("deep").display().to_string();
        Ok(Self { dir, metadata, deep_storage, flags: Vec::new(), environment: Vec::new() })
    }

    /// All its servers get these flags too.
    #[must_use]
    pub fn flagged(mut self, flags: Vec<String>) -> Self {
        self.flags = flags;
        self
    }

    /// Its segments are kept elsewhere, which takes some variables to reach.
    #[must_use]
    pub fn storing(mut self, deep_storage: &str, environment: Vec<(String, String)>) -> Self {
        (self.deep_storage, self.environment) = (deep_storage.to_owned(), environment);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, name: &str, role: &str, flags: &[&str]) -> Command {
        self.command_as(&self.flags, name, role, flags)
    }

    fn command_as(&self, all: &[String], name: &str, role: &str, flags: &[&str]) -> Command {
        let mut command = henge(&["server", "--role", role, "--cluster-secret", SECRET, "--threads", "2"]);
        command.args(["--metadata", &self.metadata, "--deep-storage", &self.deep_storage]);
        command.arg("--data-dir").arg(self.path(name)).args(all).args(flags);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for port in ["--pg-port", "--http-port", "--grpc-port"].iter().filter(|port| !flags.contains(*port)) {
            command.args([port, "0"]);
        }
        command
    }

    /// Starts a server with a data directory of that name, and waits until it says where it listens.
    pub fn start(&self, name: &str, role: &str, flags: &[&str]) -> Result<Node, Failed> {
        Node::spawn(self.command(name, role, flags))
    }

    /// Starts one that has other flags than all have here.
    pub fn start_strange(&self, instead: &[String], name: &str, role: &str, flags: &[&str]) -> Result<Node, Failed> {
        Node::spawn(self.command_as(instead, name, role, flags))
    }

    /// Starts one of which the shell's `ulimit`s say how much it may have.
    pub fn start_limited(&self, name: &str, role: &str, flags: &[&str], limits: &str) -> Result<Node, Failed> {
        let free = self.command(name, role, flags);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(free.get_program()).args(free.get_args());
        for (variable, value) in free.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        Node::spawn(command)
    }

    /// Starts one again, where it was.
    pub fn start_again(&self, name: &str, role: &str, flags: &[&str], before: &Ports) -> Result<Node, Failed> {
        let (http, grpc) = (before.http.to_string(), before.grpc.unwrap_or_default().to_string());
        self.start(name, role, &[&["--http-port", &http, "--grpc-port", &grpc], flags].concat())
    }
}

/// Where a server listened.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http: u16,
    pub grpc: Option<u16>,
}

/// A server of a cluster; killed when dropped.
pub struct Node {
    child: Child,
    pub http: SocketAddr,
    pub pg: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    printed: Arc<Mutex<String>>,
}

impl Node {
    fn spawn(mut command: Command) -> Result<Self, Failed> {
        command.env("RUST_LOG", "warn,henge_server=info,henge_catalog=info");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let printed = Arc::new(Mutex::new(String::new()));
        let (line, lines) = mpsc::channel();
        copy_lines(child.stdout.take().ok_or("no standard output")?, Arc::clone(&printed), Some(line));
        copy_lines(child.stderr.take().ok_or("no standard error")?, Arc::clone(&printed), None);
        let (mut http, mut pg, mut grpc, mut is_over) = (None, None, None, false);
        let deadline = Instant::now() + LIMIT;
        while !is_over {
            // The lines come at once; what listens for queries also has a port for parts of them.
            let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else { break };
            let line: String = line;
            let address = |name: &str| line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
            http = http.or(address("HTTP:"));
            pg = pg.or(address("PostgreSQL:"));
            grpc = grpc.or(address("gRPC:"));
            is_over = line == "Ready.";
        }
        match http {
            Some(http) => Ok(Self { child, http, pg, grpc, printed }),
            None => {
                let (_, status) = (child.kill(), child.wait()?);
                let printed = printed.lock().expect("nothing panics while it is held").clone();
                Err(format!("{command:?} did not say where it listens: {status}: {printed}").into())
            }
        }
    }

    pub fn name(&self) -> String {
        self.http.to_string()
    }

    pub fn ports(&self) -> Ports {
        Ports { http: self.http.port(), grpc: self.grpc.map(|address| address.port()) }
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        self.printed.lock().expect("nothing panics while it is held").clone()
    }

    /// Memory that is in use now, in bytes.
    pub fn memory(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    pub fn signal(&self, name: &str) -> Result<(), Failed> {
        signal(self.child.id(), name)
    }

    /// As `kill -9` or a power switch would end it.
    pub fn kill(mut self) -> Result<Ports, Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.ports())
    }

    /// Asks it to end, and waits until it has.
    pub fn end(mut self) -> Result<(Ports, ExitStatus), Failed> {
        self.signal("TERM")?;
        let status = until("the end of a server", || Ok(self.child.try_wait()?))?;
        Ok((self.ports(), status))
    }

    /// The status, and what it answers as JSON. Without a body it is a GET.
    pub fn ask(&self, path: &str, body: Option<&Value>) -> Result<(u16, Value), Failed> {
        self.ask_with(path, body, None)
    }

    pub fn ask_with(&self, path: &str, body: Option<&Value>, secret: Option<&str>) -> Result<(u16, Value), Failed> {
        let url = format!("http://{}{path}", self.http);
        let client = reqwest::Client::new();
        let mut request = body.map_or_else(|| client.get(&url), |body| client.post(&url).json(body));
        if let Some(secret) = secret {
            request = request.header("x-henge-cluster-secret", secret);
        }
        let answer = block_on(async {
            let response = request.timeout(Duration::from_secs(30)).send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
        });
        let (status, text) = answer?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// The status and headers too of what is answered to a POST.
    pub fn ask_for(&self, path: &str, body: &Value) -> Result<(u16, HeaderMap, Value), Failed> {
        let request = reqwest::Client::new().post(format!("http://{}{path}", self.http)).json(body);
        let answer = block_on(async {
            let response = request.timeout(Duration::from_secs(30)).send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.text().await?))
        });
        let (status, headers, text) = answer?;
        Ok((status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// One field of one row that a query gives.
    pub fn sql(&self, sql: &str) -> Result<String, String> {
        let pg = self.pg.ok_or("this server answers no queries")?;
        block_on(async {
            let mut door = Postgres::connect(pg, Protocol::Extended).await.map_err(|failed| format!("{failed:?}"))?;
            let rows = door.ask(sql).await?;
            Ok(rows.first().and_then(|row| row.first()).cloned().unwrap_or_default())
        })
    }

    /// Waits until a query gives this.
    pub fn becomes(&self, sql: &str, expected: &str) -> Result<(), Failed> {
        let mut last = Ok(String::new());
        until(&format!("{sql} to be {expected}"), || {
            last = self.sql(sql);
            Ok((last.as_deref() == Ok(expected)).then_some(()))
        })
        .map_err(|failed| format!("{failed:?}; at last {last:?}").into())
    }

    /// Waits until it is ready to do its part.
    pub fn ready(self) -> Result<Self, Failed> {
        until("a server to be ready", || Ok((self.ask("/status/ready", None)?.0 == 200).then_some(())))?;
        Ok(self)
    }

    /// Hands in a task, here or wherever it is sent on to, and waits for its end. Returns its status and error.
    pub fn ingest(&self, data_source: &str, file: &Path, append: bool) -> Result<(String, Value), Failed> {
        let id = self.hand_in(data_source, file, append)?;
        self.ended(&id)
    }

    /// Hands in a task. Returns its id.
    pub fn hand_in(&self, data_source: &str, file: &Path, append: bool) -> Result<String, Failed> {
        let (status, answer) = self.ask("/druid/indexer/v1/task", Some(&task(data_source, file, append)))?;
        Ok(answer["task"].as_str().ok_or_else(|| format!("{status}: {answer}"))?.to_owned())
    }

    /// Waits for the end of a task. Returns its status and error.
    pub fn ended(&self, id: &str) -> Result<(String, Value), Failed> {
        until("the end of a task", || {
            let (_, status) = self.ask(&format!("/druid/indexer/v1/task/{id}/status"), None)?;
            let code = status["status"]["statusCode"].as_str().unwrap_or_default().to_owned();
            Ok((code == "SUCCESS" || code == "FAILED").then(|| (code, status["status"]["errorMsg"].clone())))
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy_lines(from: impl Read + Send + 'static, printed: Arc<Mutex<String>>, to: Option<mpsc::Sender<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            {
                let mut printed = printed.lock().expect("nothing panics while it is held");
                printed.push_str(&line);
                printed.push('\n');
            }
            // Nobody listens any more once the addresses are known.
            let _ = to.as_ref().map(|to| to.send(line));
        }
    });
}

/// A task that loads edits, by the hour.
fn task(data_source: &str, file: &Path, append: bool) -> Value {
    json!({
        "type": "index_parallel",
        "spec": {
            "dataSchema": {
                "dataSource": data_source,
                "timestampSpec": {"column": "time", "format": "auto"},
                "dimensionsSpec": {"dimensions": ["page", {"type": "long", "name": "added"}]},
                "granularitySpec": {"segmentGranularity": "HOUR", "queryGranularity": "NONE", "rollup": false},
            },
            "ioConfig": {
                "type": "index_parallel",
                "inputSource": {"type": "local", "files": [file]},
                "inputFormat": {"type": "json"},
                "appendToExisting": append,
            },
            "tuningConfig": {"type": "index_parallel", "maxParseExceptions": 0},
        },
    })
}
