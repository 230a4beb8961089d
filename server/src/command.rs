//! The command line: what `henge` does when a person types it. The only room that prints.

mod compact;
mod demo;
mod generate;
mod import;
mod ingest;
mod print;
mod push;
mod remote;
mod segment;
mod serve;
mod sql;
mod user;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use henge_catalog::database::{Holder, Opening};
use henge_catalog::{Database, DatabaseBuilder};
use henge_engine::session::STACK_BYTES;
use henge_engine::{Error, Result};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Config, default_data_dir};
use crate::error::Category;
use crate::stream;

/// Threads that speak with clients. They only pass bytes on.
const WIRE_THREADS: usize = 2;

/// An analytics database: Druid's architecture on DataFusion, with PostgreSQL as its front door.
#[derive(Debug, Parser)]
#[command(name = "henge", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  henge demo
  henge ingest edits.json.gz --data-source wikipedia --time-column time
  henge generate wikipedia --rate 2000 | henge push wikipedia
  henge sql \"SELECT channel, COUNT(*) FROM wikipedia GROUP BY 1 ORDER BY 2 DESC LIMIT 10\"
  henge server --data-dir /var/lib/henge
  psql -h 127.0.0.1 -p 5433 -U henge -d henge";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a server with a sample of Wikipedia edits, and show a first query
    Demo(demo::Demo),
    /// Start a server: PostgreSQL on port 5433, HTTP on port 8888
    Server(serve::Server),
    /// Load files into a data source
    Ingest(Box<ingest::Ingest>),
    /// Send rows to a running server as they come, from a file or standard input
    Push(push::Push),
    /// Merge small segments of a data source into few
    Compact(Box<compact::Compact>),
    /// Serve what another database has published
    #[command(subcommand)]
    Import(import::Import),
    /// Ask a query, of a running server or of a data directory
    Sql(sql::Sql),
    /// Say who may log in; without users everybody on this machine may
    #[command(subcommand)]
    User(user::User),
    /// Look into segment files
    #[command(subcommand)]
    Segment(segment::Segment),
    /// Make up data to try things with
    #[command(subcommand)]
    Generate(generate::Generate),
}

/// Runs the command that this process was started with.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let result = match cli.command {
        Command::Demo(demo) => demo.run(),
        Command::Server(server) => server.run(),
        Command::Ingest(ingest) => ingest.run(),
        Command::Push(push) => push.run(),
        Command::Compact(compact) => compact.run(),
        Command::Import(import) => import.run(),
        Command::Sql(sql) => sql.run(),
        Command::User(user) => user.run(),
        Command::Segment(segment) => segment.run(),
        Command::Generate(generate) => generate.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The other end of a pipe had enough; that is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "henge: {error}");
            ExitCode::from(exit_code(error.category()))
        }
    }
}

/// 2 for what was asked wrongly, as clap does; 130 for an interruption; 1 for all else.
fn exit_code(category: Category) -> u8 {
    match category {
        Category::InvalidInput | Category::NotFound | Category::Unsupported => 2,
        Category::Canceled => 130,
        _ => 1,
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Logs go to standard error; `RUST_LOG` says how much.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,henge_catalog=info,sqlx=error"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start, in tests, keeps the first.
    let _ = log.try_init();
}

/// The runtime that speaks with clients and the one that answers them.
struct Runtimes {
    wire: Runtime,
    queries: Runtime,
}

impl Runtimes {
    fn new(query_threads: usize) -> Result<Self> {
        let build = |name: &str, threads| {
            let mut builder = Builder::new_multi_thread();
            builder
                .worker_threads(threads)
                .thread_stack_size(STACK_BYTES)
                .thread_name(name.to_string())
                .enable_all()
                .build()
                .map_err(|error| Error::runtime_failure("the process cannot start its threads").with_source(error))
        };
        Ok(Self { wire: build("henge-wire", WIRE_THREADS)?, queries: build("henge-query", query_threads)? })
    }

    /// Does not wait for what cannot be stopped.
    fn end(self) {
        self.queries.shutdown_background();
        self.wire.shutdown_background();
    }
}

/// Opens the database as `config` says; an outcome if another process has it.
async fn open(config: &Config) -> Result<Opening> {
    builder(config).try_open().await
}

/// The same for a server: its supervisors run.
async fn open_to_serve(config: &Config) -> Result<Opening> {
    builder(config).streams(stream::connector()).try_open().await
}

fn builder(config: &Config) -> DatabaseBuilder {
    let mut builder =
        Database::builder(config.data_dir.clone()).threads(config.threads).store_options(config.store_options.clone());
    if let Some(url) = &config.metadata {
        builder = builder.metadata(url.clone());
    }
    if !config.empty_is_null.is_empty() {
        builder = builder.empty_is_null(config.empty_is_null.clone());
    }
    if !config.convert_druids.is_empty() {
        builder = builder.convert_druids(config.convert_druids.clone());
    }
    if !config.auto_compaction.is_empty() {
        builder = builder.auto_compaction(config.auto_compaction.clone());
    }
    if let Some(bytes) = config.cache_limit_bytes {
        builder = builder.cache_limit_bytes(bytes);
    }
    if let Some(url) = &config.deep_storage {
        builder = builder.deep_storage(url.clone());
    }
    if let Some(bytes) = config.memory_limit_bytes {
        builder = builder.memory_limit_bytes(bytes);
    }
    if let Some(limits) = config.query_limits {
        builder = builder.query_limits(limits);
    }
    builder
}

/// The error of a command that needs the directory for itself.
fn held(config: &Config, holder: &Holder) -> Error {
    Error::conflict(format!(
        "data directory `{}` is in use by {holder}; end that process, or name another directory with `--data-dir`",
        config.data_dir.display()
    ))
}

/// Hears when the process is asked to end, from the moment it is made: what comes before anyone waits is not lost.
struct Interruption {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
}

impl Interruption {
    fn listen() -> Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listen =
                |kind| signal(kind).map_err(|e| Error::runtime_failure("signals cannot be heard").with_source(e));
            Ok(Self { signals: [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?] })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits until the process is asked to end, once more than before.
    async fn wait(&mut self) {
        #[cfg(unix)]
        {
            let [interrupt, terminate] = &mut self.signals;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Writes to standard output.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(cannot_write)
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::runtime_failure("standard output cannot be written").with_source(error)
}

/// The directory of a command, which must be there unless it is for loading.
fn existing_dir(dir: Option<PathBuf>) -> Result<PathBuf> {
    let dir = dir.unwrap_or_else(default_data_dir);
    if dir.is_dir() {
        return Ok(dir);
    }
    Err(Error::not_found(format!(
        "there is no data directory `{}`; name one with `--data-dir`, or make one with `henge demo` or `henge ingest`",
        dir.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_requests_and_failures_have_different_exit_codes() {
        assert_eq!(exit_code(Category::InvalidInput), 2);
        assert_eq!(exit_code(Category::RuntimeFailure), 1);
    }
}
