use std::path::Path;
use std::time::Duration;

use henge_engine::{Error, Result};
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row, Sqlite, TypeInfo, ValueRef};

use super::dialect::{Dialect, Field, LeaseStatements, lease_statements, run_statements};
use super::failure::Trouble;
use super::migration::{self, Migration};
use super::sql::select_by_hand;
use super::sql_store::SqlStore;

const READERS: u32 = 4;
/// A writer waits for another this long. Within one process there is one writer; another process is kept out by the
/// lock on the data directory.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Dialect for Sqlite {
    const MIGRATIONS: &'static [Migration] = migration::SQLITE;
    /// A transaction that begins to read and then wants to write would fail at once with `SQLITE_BUSY`, whatever the
    /// timeout.
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    const BEGIN_READ: &'static str = "BEGIN";
    const INSERT_DATA_SOURCE: &'static str =
        "INSERT INTO data_sources (name, created_date, rev) VALUES (?, ?, 0) ON CONFLICT DO NOTHING";
    const INSERT_SCHEMA: &'static str =
        "INSERT INTO segment_schemas (id, columns) VALUES (?, ?) ON CONFLICT DO NOTHING";
    const LEASES: LeaseStatements = lease_statements!(
        "INSERT INTO leases (role, holder, epoch, expires_ms) VALUES (?, '', 0, 0) ON CONFLICT DO NOTHING",
        "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        // A writer is alone.
        ""
    );
    const SELECT_BY_HAND: &'static str = select_by_hand!("used <> noted");
    const LOCK_MIGRATIONS: Option<&'static str> = None;

    run_statements!(Sqlite, std::convert::identity, field);

    fn trouble(error: &dyn DatabaseError) -> Trouble {
        // https://www.sqlite.org/rescode.html: `SQLITE_BUSY`, `SQLITE_LOCKED` and their kinds.
        let code = error.code().and_then(|code| code.parse::<i64>().ok());
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => Trouble::Contention,
            _ => Trouble::Other,
        }
    }
}

fn field(row: &SqliteRow, index: usize) -> sqlx::Result<Field> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Field::Null);
    }
    match value.type_info().name() {
        "INTEGER" | "BOOLEAN" | "BIGINT" | "INT8" => Ok(Field::Long(row.try_get(index)?)),
        "BLOB" => Ok(Field::Bytes(row.try_get(index)?)),
        _ => Ok(Field::Bytes(row.try_get::<String, _>(index)?.into_bytes())),
    }
}

/// Opens the file, creates it when missing, and brings it to the shape this program knows. With `synchronous=FULL` a
/// commit survives power loss.
pub(super) async fn open(path: &Path) -> Result<SqlStore<Sqlite>> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let writer = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
    let readers = SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.read_only(true));
    SqlStore::open(writer, readers).await.map_err(|error: Error| error.context("file", path.display()))
}
