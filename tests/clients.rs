//! PostgreSQL's clients against the server: scripts of `tests/clients/`, each of which was first run against PostgreSQL 15.
//!
//! A client that is not installed is ignored with a reason; `.ci/run` installs them all.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::database::Database;
use crate::harness::door::shared_address;
use crate::harness::process::run;
use crate::harness::{contains, ensure, missing, root, scratch};

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

const CLIENTS: [Client; 8] = [
    Client {
        name: "sqlalchemy_and_pandas",
        script: "sqlalchemy_pandas.py",
        runs: python,
        is_there: || works(with(python(), &["-c", "import sqlalchemy, pandas, psycopg"])),
        install: "pip install sqlalchemy pandas 'psycopg[binary]'",
    },
    Client {
        name: "bi_catalogue",
        script: "bi_catalogue.py",
        runs: python,
        is_there: || works(with(python(), &["-c", "import psycopg"])),
        install: "pip install 'psycopg[binary]'",
    },
    Client {
        name: "superset",
        script: "superset_client.py",
        runs: superset,
        is_there: || works(with(superset(), &["-c", "import superset, psycopg2"])),
        install: "pip install apache-superset psycopg2-binary, with HENGE_TEST_SUPERSET; see .ci/run",
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
        name: "duckdb",
        script: "duckdb_client.py",
        runs: python,
        is_there: || {
            works(with(python(), &["-c", "import duckdb, duckdb_extensions, duckdb_extension_postgres_scanner"]))
        },
        install: "pip install duckdb duckdb-extensions duckdb-extension-postgres-scanner",
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
    let mut trials: Vec<Trial> = CLIENTS.into_iter().map(trial).collect();
    trials.push(Trial::ignorable_test("clients::the_scripts_hold_on_postgresql_too", on_postgresql));
    trials.push(Trial::ignorable_test("clients::postgres_fdw", foreign_table));
    trials
}

/// Scripts whose checks must hold on PostgreSQL itself, or they prove nothing.
const PROVED: [&str; 2] = ["bi_catalogue.py", "sqlalchemy_pandas.py"];

fn on_postgresql() -> Result<Completion, Failed> {
    if !works(with(python(), &["-c", "import sqlalchemy, pandas, psycopg"]))
        || !works(with(Command::new("psql"), &["-V"]))
    {
        return missing("psql; pip install sqlalchemy pandas 'psycopg[binary]'");
    }
    let postgres = match Database::start("postgres")? {
        Ok(postgres) => postgres,
        Err(program) => return missing(program),
    };
    copy_rows(&postgres)?;
    let (host, port, password) = postgres.place()?;
    for script in PROVED {
        let mut command = python();
        command.arg(root().join("tests/clients").join(script)).args([&host, &port, "henge", "henge", TABLE]);
        command.env("PGPASSWORD", &password);
        let ended = run(command)?;
        if !ended.status.success() {
            return Err(format!("{script} on PostgreSQL: {}\n{}", ended.out, ended.err).into());
        }
    }
    Ok(Completion::Completed)
}

/// Makes the table on PostgreSQL, with the rows that Henge has.
fn copy_rows(postgres: &Database) -> Result<(), Failed> {
    let server = shared_address()?;
    let henge = |sql: &str| {
        let url = format!("postgres://henge@{server}/henge");
        run(with(Command::new("psql"), &[&url, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]))?.ok()
    };
    let columns = henge(&format!(
        "SELECT string_agg('\"' || attname || '\" ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY attnum) \
         FROM pg_attribute WHERE attrelid = '{TABLE}'::regclass AND attnum > 0"
    ))?;
    postgres.sql("CREATE SCHEMA druid")?;
    postgres.sql("ALTER DATABASE henge SET search_path = druid, pg_catalog")?;
    postgres.sql(&format!("CREATE TABLE druid.{TABLE} ({})", columns.trim()))?;
    let file = scratch::dir().join("rows-for-postgresql");
    std::fs::write(&file, henge(&format!("COPY (SELECT * FROM {TABLE}) TO STDOUT"))?)?;
    postgres.sql(&format!("\\copy druid.{TABLE} from '{}'", file.display()))?;
    Ok(())
}

/// PostgreSQL reads Henge's tables as its own, and leaves conditions and groups to Henge.
fn foreign_table() -> Result<Completion, Failed> {
    let postgres = match Database::start("postgres")? {
        Ok(postgres) => postgres,
        Err(program) => return missing(program),
    };
    let server = shared_address()?;
    for sql in [
        "CREATE EXTENSION postgres_fdw".to_owned(),
        format!(
            "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{}', dbname 'henge')",
            server.ip(),
            server.port()
        ),
        "CREATE USER MAPPING FOR henge SERVER far OPTIONS (user 'henge', password_required 'false')".to_owned(),
        "CREATE SCHEMA far".to_owned(),
        "IMPORT FOREIGN SCHEMA druid FROM SERVER far INTO far".to_owned(),
    ] {
        postgres.sql(&sql)?;
    }
    let query = format!(
        "SELECT channel, count(*), sum(added) FROM {{}}{TABLE} WHERE added > 10 GROUP BY channel ORDER BY count(*) DESC, channel COLLATE \"C\" LIMIT 5"
    );
    let far = postgres.sql(&query.replace("{}", "far."))?;
    let url = format!("postgres://henge@{server}/henge");
    let near = run(with(Command::new("psql"), &[&url, "-XAtq", "-F", "\t", "-c", &query.replace("{}", "")]))?.ok()?;
    ensure(!near.is_empty() && far == near, || format!("{far}\nof PostgreSQL, and of Henge:\n{near}"))?;
    let plan = postgres
        .sql(&format!("EXPLAIN VERBOSE SELECT channel, count(*) FROM far.{TABLE} WHERE added > 10 GROUP BY channel"))?;
    contains(&plan, &["Remote SQL: SELECT channel, count(*) FROM druid.", "WHERE ((added > 10)) GROUP BY"])?;
    Ok(Completion::Completed)
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

/// Superset has needs of its own, so it lives in an environment of its own.
fn superset() -> Command {
    match std::env::var("HENGE_TEST_SUPERSET") {
        Ok(program) => with(Command::new(program), &["-B"]),
        Err(_) => python(),
    }
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
