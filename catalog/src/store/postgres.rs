use std::str::FromStr;

use henge_engine::{Error, Result};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Postgres, Row, TypeInfo, ValueRef};

use super::dialect::{Dialect, Field, LeaseStatements, lease_statements, run_statements};
use super::failure::Trouble;
use super::migration::{self, Migration};
use super::sql::select_by_hand;
use super::sql_store::{ACQUIRE, CONNECTIONS, IDLE, SqlStore};

impl Dialect for Postgres {
    const MIGRATIONS: &'static [Migration] = migration::POSTGRES;
    const BEGIN_WRITE: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const BEGIN_READ: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    const INSERT_DATA_SOURCE: &'static str =
        "INSERT INTO data_sources (name, created_date, rev) VALUES (?, ?, 0) ON CONFLICT DO NOTHING";
    const INSERT_SCHEMA: &'static str =
        "INSERT INTO segment_schemas (id, columns) VALUES (?, ?) ON CONFLICT DO NOTHING";
    const LEASES: LeaseStatements = lease_statements!(
        "INSERT INTO leases (role, holder, epoch, expires_ms) VALUES (?, '', 0, 0) ON CONFLICT DO NOTHING",
        // `now()` would be the start of the transaction.
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        " FOR SHARE"
    );
    const SELECT_BY_HAND: &'static str = select_by_hand!("used <> noted");
    /// A number of our own; the lock ends with the transaction.
    const LOCK_MIGRATIONS: Option<&'static str> = Some("SELECT 1 FROM pg_advisory_xact_lock(7253021402)");

    run_statements!(Postgres, numbered, field);

    fn trouble(error: &dyn DatabaseError) -> Trouble {
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        match error.code().as_deref() {
            Some("40001" | "40P01" | "55P03" | "55006") => Trouble::Contention,
            Some("57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03") => Trouble::Unreachable,
            Some(code) if code.starts_with("08") => Trouble::Unreachable,
            _ => Trouble::Other,
        }
    }
}

/// `?` as PostgreSQL numbers it. No text of ours has a question mark.
fn numbered(statement: &'static str) -> AssertSqlSafe<String> {
    let mut numbered = String::with_capacity(statement.len() + 32);
    for (number, part) in statement.split('?').enumerate() {
        if number > 0 {
            numbered.push_str(&format!("${number}"));
        }
        numbered.push_str(part);
    }
    AssertSqlSafe(numbered)
}

fn field(row: &PgRow, index: usize) -> sqlx::Result<Field> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Field::Null);
    }
    match value.type_info().name() {
        "INT4" => Ok(Field::Long(row.try_get::<i32, _>(index)?.into())),
        "BOOL" => Ok(Field::Long(row.try_get::<bool, _>(index)?.into())),
        "INT8" => Ok(Field::Long(row.try_get(index)?)),
        "BYTEA" => Ok(Field::Bytes(row.try_get(index)?)),
        _ => Ok(Field::Bytes(row.try_get::<String, _>(index)?.into_bytes())),
    }
}

/// Opens the database that a URL names, and brings it to the shape this program knows.
pub(super) async fn open(url: &str) -> Result<SqlStore<Postgres>> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        // The failure underneath may quote the URL, and so a password.
        drop(error);
        Error::invalid_input(
            "the URL of the metadata database is wrong; write it as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`",
        )
    })?;
    // Nobody waits for ever for a process that hangs with a lock in its hands.
    let options = options
        .application_name("henge")
        .options([("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "60s")]);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE).idle_timeout(IDLE);
    let (writer, readers) = (pool.clone().connect_lazy_with(options.clone()), pool.connect_lazy_with(options));
    SqlStore::open(writer, readers).await
}
