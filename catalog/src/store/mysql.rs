use std::str::FromStr;

use henge_engine::{Error, Result};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions, MySqlRow};
use sqlx::{AssertSqlSafe, Executor, MySql, Row, TypeInfo, ValueRef};

use super::dialect::{Dialect, Field, LeaseStatements, lease_statements, run_statements};
use super::failure::Trouble;
use super::migration::{self, Migration};
use super::sql::select_by_hand;
use super::sql_store::{ACQUIRE, CONNECTIONS, IDLE, SqlStore};

impl Dialect for MySql {
    const MIGRATIONS: &'static [Migration] = migration::MYSQL;
    const BEGIN_WRITE: &'static str = "START TRANSACTION";
    const BEGIN_READ: &'static str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
    const INSERT_DATA_SOURCE: &'static str =
        "INSERT IGNORE INTO data_sources (name, created_date, rev) VALUES (?, ?, 0)";
    const INSERT_SCHEMA: &'static str = "INSERT IGNORE INTO segment_schemas (id, columns) VALUES (?, ?)";
    const LEASES: LeaseStatements = lease_statements!(
        "INSERT IGNORE INTO leases (role, holder, epoch, expires_ms) VALUES (?, '', 0, 0)",
        "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)",
        // MariaDB has no `FOR SHARE`; MySQL 8 knows both.
        " LOCK IN SHARE MODE"
    );
    const SELECT_BY_HAND: &'static str = select_by_hand!("by_hand = 1");
    /// Definitions are transactions of their own here, so that the lock belongs to the connection, which is closed after.
    const LOCK_MIGRATIONS: Option<&'static str> = Some("SELECT GET_LOCK('henge.migrations', 60)");

    run_statements!(MySql, backquoted, field);

    fn trouble(error: &dyn DatabaseError) -> Trouble {
        // https://mariadb.com/kb/en/mariadb-error-code-reference/
        match error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number) {
            // A deadlock; a lock not had in time; a row changed since it was read.
            Some(1213 | 1205 | 1020) => Trouble::Contention,
            // Too many connections; the server ends; a connection killed; no answer, or none that is understood.
            Some(1040 | 1053 | 1077 | 1079 | 1152..=1161 | 1203 | 1226 | 1927) => Trouble::Unreachable,
            // A column or an index of that name is there.
            Some(1060 | 1061) => Trouble::DoneBefore,
            _ if error.code().is_some_and(|code| code.starts_with("08")) => Trouble::Unreachable,
            _ => Trouble::Other,
        }
    }
}

/// Names as MySQL quotes them without ANSI mode. No text of ours has a double quote.
fn backquoted(statement: &'static str) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement.replace('"', "`"))
}

fn field(row: &MySqlRow, index: usize) -> sqlx::Result<Field> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Field::Null);
    }
    match value.type_info().name() {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Ok(Field::Long(row.try_get(index)?)),
        // Texts too: of a binary collation they look like bytes.
        _ => Ok(Field::Bytes(row.try_get(index)?)),
    }
}

/// Opens the database that a URL names, and brings it to the shape this program knows.
pub(super) async fn open(url: &str) -> Result<SqlStore<MySql>> {
    let options = MySqlConnectOptions::from_str(url).map_err(|error| {
        // The failure underneath may quote the URL, and so a password.
        drop(error);
        Error::invalid_input(
            "the URL of the metadata database is wrong; write it as `mysql://USER:PASSWORD@HOST:PORT/DATABASE`",
        )
    })?;
    let pool = MySqlPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE).idle_timeout(IDLE);
    // What a writer reads after it has the lock must be what was committed before it got it, not what was there when
    // the transaction began.
    let writer = pool.clone().after_connect(|connection, _| {
        Box::pin(async move {
            let settings = "SET SESSION transaction_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 10";
            let older = "SET SESSION tx_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 10";
            match connection.execute(settings).await {
                Ok(_) => Ok(()),
                // MariaDB before 11.1 has the older name.
                Err(_) => connection.execute(older).await.map(drop),
            }
        })
    });
    SqlStore::open(writer.connect_lazy_with(options.clone()), pool.connect_lazy_with(options)).await
}
