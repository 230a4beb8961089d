//! Commands that ask a running server instead of opening its directory.

use std::time::Duration;

use henge_catalog::database::{CompactionReport, CompactionSpec, Holder};
use henge_engine::ingest::{IngestReport, IngestionSpec};
use henge_engine::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::held;
use super::print::{Answer, Kind};
use super::sql::not_one_statement;
use crate::auth::{LOCAL_USER, Token};
use crate::config::Config;
use crate::pg_catalog::DATABASE;

/// How often a task is asked how it is.
const POLL: Duration = Duration::from_millis(200);

/// Where the server that has the directory answers PostgreSQL.
pub(super) fn pg_address(config: &Config, holder: &Holder) -> Result<String> {
    address(config, holder, holder.address.pg_port)
}

/// Where it answers HTTP.
pub(super) fn http_address(config: &Config, holder: &Holder) -> Result<String> {
    address(config, holder, holder.address.http_port)
}

fn address(config: &Config, holder: &Holder, port: Option<u16>) -> Result<String> {
    match (&holder.address.host, port) {
        (Some(host), Some(port)) if host.contains(':') => Ok(format!("[{host}]:{port}")),
        (Some(host), Some(port)) => Ok(format!("{host}:{port}")),
        // A program that embeds the database, or a server that is only starting.
        _ => Err(held(config, holder)),
    }
}

/// As whom to ask.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Option<String>,
}

impl Login {
    /// As somebody said.
    pub(super) fn of(user: Option<String>, password: Option<String>) -> Self {
        Self { user: user.unwrap_or_else(|| DATABASE.to_string()), password }
    }

    /// Whoever may read the data directory may ask the server that has it.
    pub(super) fn local(config: &Config) -> Self {
        match Token::find(&config.data_dir) {
            Some(token) => Self { user: LOCAL_USER.to_string(), password: Some(token) },
            None => Self { user: DATABASE.to_string(), password: None },
        }
    }
}

/// What begins every address there: a server named without a scheme is asked plainly.
pub(super) fn base(server: &str) -> String {
    if server.contains("://") { server.trim_end_matches('/').to_owned() } else { format!("http://{server}") }
}

/// Where the server is that runs tasks, as another one says.
pub(super) async fn leader(server: &str, login: &Login) -> Result<String> {
    let mut request = reqwest::Client::new().get(format!("{}/druid/coordinator/v1/leader", base(server)));
    if let Some(password) = &login.password {
        request = request.basic_auth(&login.user, Some(password));
    }
    let failed = |error: reqwest::Error| {
        Error::invalid_input(format!("no server answers at {server}; name a broker or coordinator by its HTTP port"))
            .with_source(error)
    };
    let response = request.send().await.map_err(failed)?;
    let (is_ok, text) = (response.status().is_success(), response.text().await.map_err(failed)?);
    match text.trim() {
        leader if is_ok && leader.contains("://") => Ok(leader.to_owned()),
        _ => {
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let words = body["errorMessage"].as_str().unwrap_or("it does not know who leads");
            Err(Error::invalid_input(format!("the server at {server}: {words}")))
        }
    }
}

/// The answer of the server at `server` (`host:port`).
pub(super) async fn ask(server: &str, login: &Login, query: &str) -> Result<Answer> {
    let (host, port) = server.rsplit_once(':').ok_or_else(|| wrong_address(server))?;
    let port: u16 = port.parse().map_err(|_| wrong_address(server))?;
    let mut config = tokio_postgres::Config::new();
    config.host(host.trim_matches(['[', ']'])).port(port).dbname(DATABASE).application_name("henge sql");
    config.user(&login.user);
    if let Some(password) = &login.password {
        config.password(password);
    }
    let (client, connection) = config.connect(NoTls).await.map_err(|error| not_connected(server, error))?;
    let work = async {
        let columns = client.prepare(query).await?;
        Ok::<_, tokio_postgres::Error>((columns, client.simple_query(query).await?))
    };
    let (statement, messages) = tokio::select! {
        answer = work => answer.map_err(told)?,
        _ = connection => return Err(Error::runtime_failure("the server closed the connection")),
    };
    let columns = statement.columns().iter().map(|column| (column.name().to_string(), Kind::of(column.type_().oid())));
    let mut answer = Answer { columns: columns.collect(), rows: Vec::new() };
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            answer.rows.push((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect());
        }
    }
    Ok(answer)
}

fn not_connected(server: &str, error: tokio_postgres::Error) -> Error {
    if error.as_db_error().is_some() {
        return told(error);
    }
    if error.to_string().contains("password missing") {
        return Error::invalid_input(format!(
            "the server at {server} asks for a password; give `--user` and the environment variable `HENGE_PASSWORD`"
        ));
    }
    Error::invalid_input(format!("no server answers at {server}; start one with `henge server`")).with_source(error)
}

fn wrong_address(server: &str) -> Error {
    Error::invalid_input(format!("`{server}` is no address; write it as 127.0.0.1:5433"))
}

fn told(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(told) if told.message().starts_with("cannot insert multiple commands") => not_one_statement(),
        Some(told) => {
            let hint = told.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            Error::invalid_input(format!("{}{hint}", told.message()))
        }
        None => Error::runtime_failure("the server did not answer").with_source(error),
    }
}

/// Has the server at `server` ingest, and waits for the end.
pub(super) async fn ingest(server: &str, login: &Login, spec: &IngestionSpec) -> Result<IngestReport> {
    report(server, login, &json!({ "type": "index_parallel", "spec": spec })).await
}

/// Has the server at `server` compact, and waits for the end.
pub(super) async fn compact(server: &str, login: &Login, spec: &CompactionSpec) -> Result<CompactionReport> {
    report(server, login, &spec.to_json()).await
}

/// The report of a task, once it is done.
async fn report<R: DeserializeOwned>(server: &str, login: &Login, task: &Value) -> Result<R> {
    let client = reqwest::Client::new();
    let with_login = |request: reqwest::RequestBuilder| match &login.password {
        Some(password) => request.basic_auth(&login.user, Some(password)),
        None => request,
    };
    let get = |url: String| with_login(client.get(url)).send();
    let base = format!("{}/druid/indexer/v1/task", base(server));
    let submitted = answer(with_login(client.post(&base).json(task)).send().await).await?;
    let id = submitted["task"].as_str().ok_or_else(|| unexpected(&submitted))?.to_string();
    loop {
        let status = answer(get(format!("{base}/{id}/status")).await).await?;
        match status["status"]["statusCode"].as_str() {
            Some("SUCCESS") => break,
            Some("FAILED") => {
                let message = status["status"]["errorMsg"].as_str().unwrap_or("the task failed").to_string();
                return Err(Error::invalid_input(message).context("task", id));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
    let reports = answer(get(format!("{base}/{id}/reports")).await).await?;
    let payload = reports["ingestionStatsAndErrors"]["payload"].clone();
    serde_json::from_value(payload).map_err(|_| unexpected(&reports))
}

async fn answer(response: reqwest::Result<reqwest::Response>) -> Result<Value> {
    let failed = |error: reqwest::Error| Error::runtime_failure("the server did not answer").with_source(error);
    let response = response.map_err(failed)?;
    let ok = response.status().is_success();
    let body: Value = response.json().await.map_err(failed)?;
    if ok {
        return Ok(body);
    }
    Err(Error::invalid_input(body["errorMessage"].as_str().unwrap_or("the server refused the request").to_string()))
}

fn unexpected(body: &Value) -> Error {
    Error::runtime_failure(format!("the server answered {body}, which this version does not understand"))
}
