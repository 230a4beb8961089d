use henge_engine::{Error, Result};
use sqlx::{Connection, SqlSafeStr};

use super::dialect::{Dialect, values};
use super::failure::{Trouble, failure};

/// One step from an older shape of the database to the next. Never edited once released.
pub(super) struct Migration {
    version: i64,
    sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal: $path:literal),* $(,)?) => {
        &[$(Migration { version: $version, sql: include_str!(concat!("../../migrations/", $path)) }),*]
    };
}

pub(super) const SQLITE: &[Migration] = migrations!(1: "sqlite/0001_initial.sql", 2: "sqlite/0002_by_hand_and_leases.sql", 3: "sqlite/0003_users.sql", 4: "sqlite/0004_cluster.sql", 5: "sqlite/0005_streams.sql", 6: "sqlite/0006_sinks.sql", 7: "sqlite/0007_supervisors.sql", 8: "sqlite/0008_tasks_by_status.sql");
pub(super) const POSTGRES: &[Migration] = migrations!(1: "postgres/0001_initial.sql", 2: "postgres/0002_by_hand_and_leases.sql", 3: "postgres/0003_users.sql", 4: "postgres/0004_cluster.sql", 5: "postgres/0005_streams.sql", 6: "postgres/0006_sinks.sql", 7: "postgres/0007_supervisors.sql", 8: "postgres/0008_tasks_by_status.sql");
pub(super) const MYSQL: &[Migration] = migrations!(1: "mysql/0001_initial.sql", 2: "mysql/0002_by_hand_and_leases.sql", 3: "mysql/0003_users.sql", 4: "mysql/0004_cluster.sql", 5: "mysql/0005_streams.sql", 6: "mysql/0006_sinks.sql", 7: "mysql/0007_supervisors.sql", 8: "mysql/0008_tasks_by_status.sql");

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS henge_migrations (version BIGINT NOT NULL PRIMARY KEY)";
const SELECT_VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM henge_migrations";
const INSERT_VERSION: &str = "INSERT INTO henge_migrations (version) VALUES (?)";

/// Brings a database to the shape that this program knows, each step in a transaction of its own. Forward only: a
/// database of a newer program is refused. Two processes that begin at once take turns.
pub(super) async fn migrate<D: Dialect>(connection: &mut D::Connection) -> Result<()> {
    let known = D::MIGRATIONS.last().map_or(0, |migration| migration.version);
    loop {
        let mut step = connection.begin_with(D::BEGIN_WRITE.into_sql_str()).await.map_err(failure::<D>)?;
        if let Some(lock) = D::LOCK_MIGRATIONS {
            D::fetch(&mut step, lock, &[]).await.map_err(failure::<D>)?;
        }
        D::execute(&mut step, CREATE_VERSIONS, &[]).await.map_err(failure::<D>)?;
        let rows = D::fetch(&mut step, SELECT_VERSION, &[]).await.map_err(failure::<D>)?;
        let found = rows.first().map_or(Ok(0), |row| row.long(0))?;
        if found > known {
            return Err(Error::conflict(format!(
                "the metadata database has version {found}, written by a newer henge; this one knows up to version \
                 {known}: use the newer henge, or a copy of the database from before"
            )));
        }
        let Some(migration) = D::MIGRATIONS.iter().find(|migration| migration.version > found) else {
            return step.commit().await.map_err(failure::<D>);
        };
        for statement in statements(migration.sql) {
            match D::execute(&mut step, statement, &[]).await {
                Err(sqlx::Error::Database(error)) if D::trouble(error.as_ref()) == Trouble::DoneBefore => {}
                outcome => drop(outcome.map_err(|error| failure::<D>(error).context("statement", statement))?),
            }
        }
        D::execute(&mut step, INSERT_VERSION, values![migration.version]).await.map_err(failure::<D>)?;
        step.commit().await.map_err(failure::<D>)?;
    }
}

/// The statements of a migration: each ends with a semicolon at the end of a line.
fn statements(sql: &'static str) -> impl Iterator<Item = &'static str> {
    let is_code = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with("--");
    sql.split(";\n").map(str::trim).filter(move |statement| statement.lines().any(is_code))
}

#[cfg(test)]
mod tests {
    use sqlx::Sqlite;

    use super::*;
    use crate::store::MetadataUrl;

    #[tokio::test]
    async fn a_database_of_a_newer_program_is_refused() -> Result<()> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("metadata.sqlite");
        let url = MetadataUrl::Sqlite(path.clone());
        url.open().await?.close().await;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.map_err(failure::<Sqlite>)?;
        <Sqlite as Dialect>::execute(&mut connection, INSERT_VERSION, values![999_i64])
            .await
            .map_err(failure::<Sqlite>)?;
        let error = url.open().await.err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("version 999, written by a newer henge")));
        Ok(())
    }

    #[test]
    fn all_databases_have_the_same_steps() {
        let versions = |migrations: &[Migration]| migrations.iter().map(|m| m.version).collect::<Vec<_>>();
        assert_eq!(versions(SQLITE), versions(POSTGRES));
        assert_eq!(versions(SQLITE), versions(MYSQL));
        assert_eq!(statements("-- a;\nCREATE x (\n a; b\n);\n\n-- only words\n").count(), 1);
    }
}
