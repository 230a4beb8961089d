//! The metadata database of a Druid, of which the used segments are read. Nothing is ever written there.

use henge_engine::{Error, Result};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, Row};

use super::failure::failure;
use super::payload::described;
use super::record::Inserted;
use super::url::MetadataUrl;

/// A used segment of Druid's.
#[derive(Debug)]
pub struct DruidRow {
    /// As it stands in the database.
    pub id: String,
    pub data_source: String,
    /// What its payload says, or how it is wrong.
    pub segment: Result<Inserted>,
}

/// The used segments of a Druid, from a table such as `druid_segments`, in the order of their ids.
pub async fn druid_rows(url: &MetadataUrl, table: &str) -> Result<Vec<DruidRow>> {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !table.split('.').all(is_word) {
        return Err(Error::invalid_input(format!("`{table}` is no name of a table")));
    }
    let rows = match url {
        MetadataUrl::Postgres(url) => postgres(url, table).await,
        MetadataUrl::MySql(url) => mysql(url, table).await,
        MetadataUrl::Sqlite(_) => {
            return Err(Error::invalid_input(
                "Druid keeps its metadata in `mysql://…` or `postgres://…`, not in SQLite",
            ));
        }
    };
    let rows = rows.map_err(|error| error.context("database", url).context("table", table))?;
    Ok(rows.into_iter().map(row).collect())
}

/// Id, data source, payload.
type Fields = (String, String, Vec<u8>);

fn row((id, data_source, payload): Fields) -> DruidRow {
    let text = std::str::from_utf8(&payload)
        .map_err(|error| Error::invalid_input("its payload is not UTF-8").with_source(error));
    let segment = text.and_then(described).and_then(|segment| match segment.id.data_source == data_source {
        true => Ok(segment),
        false => Err(Error::invalid_input(format!("its payload is of data source `{}`", segment.id.data_source))),
    });
    DruidRow { id, data_source, segment }
}

async fn postgres(url: &str, table: &str) -> Result<Vec<Fields>> {
    let mut connection = PgConnection::connect(url).await.map_err(failure::<sqlx::Postgres>)?;
    let read = async {
        sqlx::query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").execute(&mut connection).await?;
        // Whether a column is a boolean or a text, bytes or a text, has changed over the years.
        let query = format!(
            "SELECT id, dataSource, payload FROM {table} WHERE CAST(used AS text) IN ('true', 't', '1') ORDER BY id"
        );
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection).await?;
        let payload = |row: &sqlx::postgres::PgRow| {
            row.try_get::<Vec<u8>, _>(2).or_else(|_| row.try_get::<String, _>(2).map(String::into_bytes))
        };
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, payload(row)?))).collect::<sqlx::Result<Vec<_>>>()
    };
    let rows = read.await.map_err(failure::<sqlx::Postgres>)?;
    // All was read; how the connection ends does not matter.
    let _ = connection.close().await;
    Ok(rows)
}

async fn mysql(url: &str, table: &str) -> Result<Vec<Fields>> {
    let mut connection = MySqlConnection::connect(url).await.map_err(failure::<sqlx::MySql>)?;
    let read = async {
        sqlx::query("SET SESSION TRANSACTION READ ONLY").execute(&mut connection).await?;
        let query = format!(
            "SELECT CAST(id AS CHAR), CAST(dataSource AS CHAR), CAST(payload AS BINARY) FROM {table} \
             WHERE used = 1 ORDER BY id"
        );
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect::<sqlx::Result<Vec<_>>>()
    };
    let rows = read.await.map_err(failure::<sqlx::MySql>)?;
    let _ = connection.close().await;
    Ok(rows)
}
