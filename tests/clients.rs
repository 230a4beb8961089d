//! PostgreSQL's clients against the server: scripts of `tests/clients/`, each of which was first run against PostgreSQL 15.
//!
//! A client that is not installed is ignored with a reason; `.ci/run` installs them all.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::door::shared_address;
use crate::harness::process::run;
use crate::harness::{missing, root};

/// The data source that the scripts ask; its rows are made, its columns those of the Wikipedia stream.
const TABLE: &str = "wikiticker";

/// A script, how it is run, and what it needs.
struct Client {
    name: &'static str,
    script: &'static str,
    runs: fn() -> Command,
    is_there: fn() -> bool,
    install: &'static str,
}

const CLIENTS: [Client; 5] = [
    Client {
        name: "sqlalchemy_and_pandas",
        script: "sqlalchemy_pandas.py",
        runs: python,
        is_there: || works(with(python(), &["-c", "import sqlalchemy, pandas, psycopg"])),
        install: "pip install sqlalchemy pandas 'psycopg[binary]'",
    },
    Client {
        name: "asyncpg",
        script: "asyncpg_client.py",
        runs: python,
        is_there: || works(with(python(), &["-c", "import asyncpg"])),
        install: "pip install asyncpg",
    },
    Client {
        name: "adbc",
        script: "adbc_client.py",
        runs: python,
        is_there: || works(with(python(), &["-c", "import adbc_driver_postgresql, pyarrow"])),
        install: "pip install adbc-driver-postgresql pyarrow",
    },
    Client {
        name: "node_pg",
        script: "node_pg.js",
        runs: node,
        is_there: || works(with(node(), &["-e", "require('pg'); require('pg-cursor'); require('pg-query-stream')"])),
        install: "npm install pg pg-cursor pg-query-stream, with HENGE_TEST_NODE_PATH",
    },
    Client {
        name: "pgjdbc",
        script: "Jdbc.java",
        runs: java,
        is_there: || works(with(Command::new("javac"), &["--version"])) && Path::new(&pgjdbc()).exists(),
        install: "apt-get install default-jdk-headless libpostgresql-jdbc-java",
    },
];

pub fn trials() -> Vec<Trial> {
    let trial = |client: Client| {
        Trial::ignorable_test(format!("clients::{}", client.name), move || {
            if !(client.is_there)() {
                return missing(client.install);
            }
            let server = shared_address()?;
            let mut command = (client.runs)();
            command.arg(root().join("tests/clients").join(client.script));
            command.args([&server.ip().to_string(), &server.port().to_string(), "henge", "henge", TABLE]);
            let ended = run(command)?;
            match ended.status.success() {
                true => Ok(Completion::Completed),
                false => Err(Failed::from(format!("{}\n{}", ended.out, ended.err))),
            }
        })
    };
    CLIENTS.into_iter().map(trial).collect()
}

fn works(mut command: Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// With `HENGE_TEST_PYTHON` another one than the first in the path. It leaves no compiled files beside the scripts.
fn python() -> Command {
    let program = std::env::var("HENGE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    with(Command::new(program), &["-B"])
}

/// Finds modules in `HENGE_TEST_NODE_PATH`.
fn node() -> Command {
    let mut command = Command::new("node");
    if let Some(path) = std::env::var_os("HENGE_TEST_NODE_PATH") {
        command.env("NODE_PATH", path);
    }
    command
}

/// Runs a source file with the driver.
fn java() -> Command {
    with(Command::new("java"), &["-cp", &pgjdbc()])
}

fn pgjdbc() -> String {
    std::env::var("HENGE_TEST_PGJDBC").unwrap_or_else(|_| "/usr/share/java/postgresql.jar".to_owned())
}
