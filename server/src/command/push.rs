//! `henge push`.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use henge_catalog::database::Opening;
use henge_engine::{Error, Result};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::Value;

use super::remote::{self, Login};
use super::{Runtimes, existing_dir, open};
use crate::config::{Options, Secret};
use crate::pg_catalog::DATABASE;

/// Rows wait for others so long before they are sent.
const LINGER: Duration = Duration::from_millis(100);
/// Lines that are read ahead.
const LINES_AHEAD: usize = 16_384;
/// A request is sent again for so long before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);
const MAX_REQUEST_BYTES: usize = 8 << 20;

#[derive(Args, Debug)]
pub(super) struct Push {
    /// Data source to push to; one that is not there yet is made
    data_source: String,
    /// File of JSON lines, or of CSV with a header; standard input unless given
    file: Option<PathBuf>,
    /// Field that says when a row happened [default: the first of __time, timestamp, time, ts, … that the rows have]
    #[arg(long, value_name = "FIELD")]
    time_column: Option<String>,
    /// `json` (one object a line) or `csv` (with a header)
    #[arg(long, default_value = "json", value_parser = ["json", "csv"])]
    format: String,
    /// Rows of a request, at most
    #[arg(long, default_value_t = 1000, value_name = "N")]
    batch: usize,
    /// Pass bad rows over instead of failing with the first request that has one
    #[arg(long)]
    skip_bad_rows: bool,
    /// Directory whose server is asked [default: ./henge-data]
    #[arg(long, env = "HENGE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Ask the server at this address instead, such as 127.0.0.1:8888
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "data_dir")]
    server: Option<String>,
    /// User of that server [default: henge]
    #[arg(long, env = "HENGE_USER", value_name = "NAME")]
    user: Option<String>,
    /// The user's password; better in the environment, since others can see the arguments of a command
    #[arg(long, env = "HENGE_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    password: Option<Secret>,
}

impl Push {
    pub(super) fn run(self) -> Result<()> {
        let config = Options { data_dir: self.data_dir.clone(), ..Options::default() }.resolve()?;
        let runtimes = Runtimes::new(1)?;
        let result = runtimes.wire.block_on(async {
            let (server, login) = match &self.server {
                Some(server) => {
                    let user = self.user.clone().unwrap_or_else(|| DATABASE.to_string());
                    let password = self.password.as_ref().map(|Secret(password)| password.clone());
                    (server.clone(), Login { user, password })
                }
                None => {
                    existing_dir(self.data_dir.clone())?;
                    let Opening::Held(holder) = open(&config).await? else {
                        return Err(Error::invalid_input(format!(
                            "no server runs on `{}`: start one with `henge server`, or name one with `--server`",
                            config.data_dir.display()
                        )));
                    };
                    (remote::http_address(&config, &holder)?, Login::local(&config))
                }
            };
            Sender::new(&self, &server, login).send_all(self.lines()?).await
        });
        runtimes.end();
        let sent = result?;
        if std::io::stderr().is_terminal() || sent.rejected > 0 {
            let _ = writeln!(std::io::stderr(), "{}", sent.told(&self.data_source));
        }
        Ok(())
    }

    /// The lines as they come, read on a thread of their own.
    fn lines(&self) -> Result<Receiver<std::io::Result<String>>> {
        let read: Box<dyn BufRead + Send> = match &self.file {
            None => Box::new(BufReader::new(std::io::stdin())),
            Some(path) => Box::new(BufReader::new(std::fs::File::open(path).map_err(|error| {
                Error::invalid_input(format!("file `{}` cannot be opened", path.display())).with_source(error)
            })?)),
        };
        let (lines, coming) = sync_channel(LINES_AHEAD);
        std::thread::spawn(move || {
            for line in read.lines() {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(coming)
    }
}

#[derive(Default)]
struct Sent {
    rows: u64,
    rejected: u64,
    first_bad: Option<String>,
}

impl Sent {
    fn told(&self, data_source: &str) -> String {
        let mut text = format!("pushed {} rows to `{data_source}`", self.rows);
        if self.rejected > 0 {
            text.push_str(&format!("; {} were passed over", self.rejected));
        }
        if let Some(bad) = &self.first_bad {
            text.push_str(&format!(", the first of them: {bad}"));
        }
        text
    }
}

/// Sends requests one after another, each under its number, so that one that is sent twice is taken once.
struct Sender {
    client: reqwest::Client,
    url: String,
    login: Login,
    content_type: &'static str,
    batch: usize,
    producer: String,
    sequence: u64,
    query: Vec<(&'static str, String)>,
    header: Option<String>,
    sent: Sent,
}

impl Sender {
    fn new(push: &Push, server: &str, login: Login) -> Self {
        let mut query = vec![("create", "true".to_owned())];
        query.extend(push.time_column.clone().map(|column| ("timeColumn", column)));
        query.extend(push.skip_bad_rows.then(|| ("onError", "skip".to_owned())));
        Self {
            client: reqwest::Client::new(),
            url: format!("{}/v1/push/{}", remote::base(server), encoded(&push.data_source)),
            login,
            content_type: if push.format == "csv" { "text/csv" } else { "application/x-ndjson" },
            batch: push.batch.max(1),
            producer: format!("henge-push-{:016x}", rand::random::<u64>()),
            sequence: 0,
            query,
            header: None,
            sent: Sent::default(),
        }
    }

    async fn send_all(mut self, lines: Receiver<std::io::Result<String>>) -> Result<Sent> {
        if self.content_type == "text/csv" {
            self.header = lines.recv().ok().transpose().map_err(unreadable)?;
        }
        let (mut body, mut rows, mut since) = (self.begun(), 0, Instant::now());
        loop {
            let left = LINGER.saturating_sub(since.elapsed());
            let wait = if rows == 0 { Duration::from_secs(3600) } else { left };
            // Only this task runs here.
            match tokio::task::block_in_place(|| lines.recv_timeout(wait)) {
                Ok(line) => {
                    let line = line.map_err(unreadable)?;
                    if rows == 0 {
                        since = Instant::now();
                    }
                    if line.trim().is_empty() {
                        continue;
                    }
                    body.push_str(&line);
                    body.push('\n');
                    rows += 1;
                    if rows < self.batch && body.len() < MAX_REQUEST_BYTES {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    if rows > 0 {
                        self.send(body).await?;
                    }
                    return Ok(self.sent);
                }
            }
            if rows > 0 {
                let begun = self.begun();
                self.send(std::mem::replace(&mut body, begun)).await?;
                rows = 0;
            }
        }
    }

    fn begun(&self) -> String {
        self.header.as_ref().map(|header| format!("{header}\n")).unwrap_or_default()
    }

    /// Sends a request until it is answered for good.
    async fn send(&mut self, body: String) -> Result<()> {
        self.sequence += 1;
        let body = bytes::Bytes::from(body);
        let (began, mut pause) = (Instant::now(), Duration::from_millis(50));
        loop {
            let mut request = self
                .client
                .post(&self.url)
                .query(&self.query)
                .header(CONTENT_TYPE, self.content_type)
                .query(&[("producer", &self.producer), ("sequence", &self.sequence.to_string())])
                .body(body.clone());
            if let Some(password) = &self.login.password {
                request = request.basic_auth(&self.login.user, Some(password));
            }
            let failed = match request.send().await {
                Ok(response) => {
                    let status = response.status();
                    let after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                    pause = after.map_or(pause, Duration::from_secs);
                    let answer: Value = response.json().await.unwrap_or(Value::Null);
                    match status {
                        status if status.is_success() => return self.taken(&answer),
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => told(&answer),
                        _ => return Err(told(&answer)),
                    }
                }
                Err(error) => Error::runtime_failure(format!("no server answers at {}", self.url)).with_source(error),
            };
            if began.elapsed() > PATIENCE {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn taken(&mut self, answer: &Value) -> Result<()> {
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.sent.rows += number("rows");
        self.sent.rejected += number("rejected");
        if self.sent.first_bad.is_none() {
            self.sent.first_bad = answer["errors"][0]["message"].as_str().map(str::to_string);
        }
        Ok(())
    }
}

fn told(answer: &Value) -> Error {
    let message = answer["errorMessage"].as_str().unwrap_or("the server refused the rows").to_string();
    Error::invalid_input(message)
}

fn unreadable(error: std::io::Error) -> Error {
    Error::invalid_input("the input cannot be read").with_source(error)
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
