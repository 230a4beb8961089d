use henge_engine::{Error, Result};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Row};

use super::sqlite::failure;

/// One step from an older shape of the database to the next. Never edited once released.
struct Migration {
    version: i64,
    sql: &'static str,
}

const SQLITE: &[Migration] = &[
    Migration { version: 1, sql: include_str!("../../migrations/sqlite/0001_initial.sql") },
    Migration { version: 2, sql: include_str!("../../migrations/sqlite/0002_users.sql") },
];

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS henge_migrations (version BIGINT NOT NULL PRIMARY KEY)";
const SELECT_VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM henge_migrations";
const INSERT_VERSION: &str = "INSERT INTO henge_migrations (version) VALUES (?)";

/// Brings a database to the shape that this program knows, each step in a transaction of its own. Forward only: a
/// database of a newer program is refused.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<()> {
    sqlx::raw_sql(CREATE_VERSIONS).execute(&mut *connection).await.map_err(failure)?;
    let row = sqlx::query(SELECT_VERSION).fetch_one(&mut *connection).await.map_err(failure)?;
    let found: i64 = row.try_get(0).map_err(failure)?;
    let known = SQLITE.last().map_or(0, |migration| migration.version);
    if found > known {
        return Err(Error::conflict(format!(
            "the metadata database has version {found}, written by a newer henge; this one knows up to version {known}: \
             use the newer henge, or a copy of the data directory from before"
        )));
    }
    for migration in SQLITE.iter().filter(|migration| migration.version > found) {
        let mut step = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failure)?;
        sqlx::raw_sql(migration.sql).execute(&mut *step).await.map_err(failure)?;
        sqlx::query(INSERT_VERSION).bind(migration.version).execute(&mut *step).await.map_err(failure)?;
        step.commit().await.map_err(failure)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_refused() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("metadata.sqlite");
        SqliteStore::open(&path).await?;
        let url = format!("sqlite://{}", path.display());
        let mut connection = SqliteConnection::connect(&url).await.map_err(failure)?;
        sqlx::query(INSERT_VERSION).bind(999).execute(&mut connection).await.map_err(failure)?;
        let error = SqliteStore::open(&path).await.err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("version 999, written by a newer henge")));
        Ok(())
    }
}
