//! Real database servers for tests: one of each kind for a whole test run, a database of its own for each test.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/harness/database.py");

/// A server. It ends with the pipe to its standard input, so with this process.
pub(crate) struct Server {
    _child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    /// `None` if the programs are not installed here.
    pub(crate) fn start(kind: &str) -> Option<Self> {
        let mut child = Command::new(setting("HENGE_TEST_PYTHON").unwrap_or_else(|| "python3".to_owned()))
            .args([SCRIPT, kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python can be started");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut server = Self { _child: child, to, from: BufReader::new(from), url: String::new() };
        server.url = server.line();
        match server.url.strip_prefix("missing ") {
            None => Some(server),
            Some(program) if setting("CI").is_some_and(|ci| ci == "true") => {
                panic!("must not be missing here: {program}")
            }
            Some(program) => {
                // The harness of the standard library cannot say of a test that it did not run.
                let _ = writeln!(std::io::stderr(), "not run for want of {program}; see .ci/run for what to install");
                None
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("a pipe");
        assert!(!line.is_empty(), "the database server did not start");
        line.trim().to_owned()
    }

    /// Ends the server as a power switch would, or starts it again.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.to, "{order}").expect("a pipe");
        assert_eq!(self.line(), order);
    }

    /// The URL of a database that was just made.
    pub(crate) async fn fresh_database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        run(&self.url, &format!("CREATE DATABASE {name}")).await;
        let (server, _) = self.url.rsplit_once('/').expect("a database");
        format!("{server}/{name}")
    }
}

/// Runs SQL as somebody would by hand.
pub(crate) async fn run(url: &str, sql: &str) {
    let sql = AssertSqlSafe(sql);
    let outcome = match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("postgres") => {
            let mut connection = PgConnection::connect(url).await.expect("the server is up");
            connection.execute(sqlx::raw_sql(sql)).await.map(drop)
        }
        Some("mysql") => {
            let mut connection = MySqlConnection::connect(url).await.expect("the server is up");
            connection.execute(sqlx::raw_sql(sql)).await.map(drop)
        }
        _ => {
            let mut connection = sqlx::SqliteConnection::connect(url).await.expect("a file");
            connection.execute(sqlx::raw_sql(sql)).await.map(drop)
        }
    };
    outcome.expect("valid SQL");
}

#[allow(clippy::disallowed_methods, reason = "tests stand outside")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The one server of a kind that all tests share.
pub(crate) async fn shared_database(kind: &str) -> Option<String> {
    static POSTGRES: LazyLock<Option<Server>> = LazyLock::new(|| Server::start("postgres"));
    static MARIADB: LazyLock<Option<Server>> = LazyLock::new(|| Server::start("mariadb"));
    let server = if kind == "postgres" { &POSTGRES } else { &MARIADB };
    match server.as_ref() {
        Some(server) => Some(server.fresh_database().await),
        None => None,
    }
}
