//! Real processes: the binary under test, and the programs that talk to it. Every wait has a limit.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

/// Nothing that is tested takes so long, even in a debug build on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(300);

/// The binary, in an environment that sets no option of it.
pub fn henge(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HENGE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// What it wrote to standard output, if it ended well.
    pub fn ok(self) -> Result<String, Failed> {
        match self.status.success() {
            true => Ok(self.out),
            false => Err(format!("{}: {}{}", self.status, self.out, self.err).into()),
        }
    }

    /// What it wrote to standard error, if it failed with this code.
    pub fn failed_with(self, code: i32) -> Result<String, Failed> {
        match self.status.code() == Some(code) {
            true => Ok(self.err),
            false => Err(format!("{} instead of exit code {code}: {}{}", self.status, self.out, self.err).into()),
        }
    }
}

/// Runs a command to its end.
pub fn run(command: Command) -> Result<Ended, Failed> {
    Running::start(command)?.wait()
}

/// A process whose end is waited for on a thread.
#[derive(Debug)]
pub struct Running {
    pub pid: u32,
    ended: mpsc::Receiver<std::io::Result<std::process::Output>>,
    what: String,
}

impl Running {
    pub fn start(mut command: Command) -> Result<Self, Failed> {
        let what = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| format!("{what}: {error}"))?;
        let pid = child.id();
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || end.send(child.wait_with_output()));
        Ok(Self { pid, ended, what })
    }

    /// Its end; it is killed if it does not come.
    pub fn wait(self) -> Result<Ended, Failed> {
        let Ok(output) = self.ended.recv_timeout(LIMIT) else {
            signal(self.pid, "KILL")?;
            return Err(format!("{} did not end within {LIMIT:?}", self.what).into());
        };
        let output = output?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        Ok(Ended { status: output.status, out, err })
    }
}

/// Sends `TERM`, `INT` or `KILL`.
pub fn signal(pid: u32, name: &str) -> Result<(), Failed> {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).output()?;
    if sent.status.success() { Ok(()) } else { Err(format!("no process {pid} to send {name} to").into()) }
}

/// Waits for a state.
pub fn until<T>(what: &str, mut reached: impl FnMut() -> Result<Option<T>, Failed>) -> Result<T, Failed> {
    let began = Instant::now();
    loop {
        if let Some(reached) = reached()? {
            return Ok(reached);
        }
        if began.elapsed() > LIMIT {
            return Err(format!("{what}: not within {LIMIT:?}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A `henge server`, or a `henge demo` that serves, on free ports; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub pg: SocketAddr,
    pub http: SocketAddr,
    printed: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it on a data directory, and waits until it says where it listens.
    pub fn start(data_dir: &Path) -> Result<Self, Failed> {
        let mut command = henge(&["server", "--pg-port", "0", "--http-port", "0", "--data-dir"]);
        command.arg(data_dir);
        Self::spawn(command)
    }

    /// Starts any command that prints the addresses.
    pub fn spawn(mut command: Command) -> Result<Self, Failed> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let printed = Arc::new(Mutex::new(String::new()));
        let (line, lines) = mpsc::channel();
        copy_lines(child.stdout.take().ok_or("no standard output")?, Arc::clone(&printed), line.clone());
        copy_lines(child.stderr.take().ok_or("no standard error")?, Arc::clone(&printed), line);
        match addresses(&lines) {
            Some((pg, http)) => Ok(Self { child, pg, http, printed }),
            None => {
                let (_, status) = (child.kill(), child.wait()?);
                let printed = printed.lock().expect("nothing panics while it is held").clone();
                Err(format!("{command:?} did not say where it listens: {status}: {printed}").into())
            }
        }
    }

    /// Waits until it has printed a line with all of these words, and gives that line back.
    pub fn prints(&self, words: &[&str]) -> Result<String, Failed> {
        let printed = || self.printed.lock().expect("nothing panics while it is held").clone();
        let found = until(&format!("a line with {words:?}"), || {
            let printed = printed();
            let mut lines = printed.lines();
            Ok(lines.find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned))
        });
        found.map_err(|error| format!("{}\nprinted:\n{}", error.message().unwrap_or_default(), printed()).into())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself.
    pub fn ends(&mut self) -> Result<ExitStatus, Failed> {
        until("the end of the server", || Ok(self.child.try_wait()?))
    }

    /// As `kill -9` or a power switch would end it.
    pub fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal, and waits for the end.
    pub fn end_with(mut self, name: &str) -> Result<ExitStatus, Failed> {
        signal(self.pid(), name)?;
        until(&format!("the end of the server after {name}"), || Ok(self.child.try_wait()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy_lines(from: impl Read + Send + 'static, printed: Arc<Mutex<String>>, to: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut printed = printed.lock().expect("nothing panics while it is held");
            printed.push_str(&line);
            printed.push('\n');
            // Nobody listens any more once the addresses are known.
            let _ = to.send(line);
        }
    });
}

/// Where PostgreSQL and HTTP are answered; `None` if the process ends or says nothing.
fn addresses(lines: &mpsc::Receiver<String>) -> Option<(SocketAddr, SocketAddr)> {
    let (mut pg, mut http) = (None, None);
    let deadline = Instant::now() + LIMIT;
    loop {
        let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        let address = |name: &str| line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
        pg = pg.or(address("PostgreSQL:"));
        http = http.or(address("HTTP:"));
        if let (Some(pg), Some(http)) = (pg, http) {
            return Some((pg, http));
        }
    }
}
