use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};

use super::*;

fn session() -> Session {
    let runtime = Runtime::new(RuntimeOptions::default()).unwrap();
    let schemas = Arc::new(MemoryCatalogProvider::new());
    let tables: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
    schemas.register_schema(SCHEMA, tables).unwrap();
    Session::new(&runtime, schemas, SessionOptions::default())
}

async fn text(session: &Session, sql: &str) -> Result<String> {
    let frame = session.sql(sql).await?;
    let batches = frame.collect().await.map_err(error_from_datafusion)?;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

async fn error(sql: &str) -> Error {
    text(&session(), sql).await.expect_err(sql)
}

#[tokio::test]
async fn what_writes_is_refused() {
    for sql in [
        "CREATE TABLE t (a int)",
        "DROP TABLE wikipedia",
        "INSERT INTO wikipedia VALUES (1)",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SELECT 1 INTO t",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "CREATE EXTENSION x",
    ] {
        let error = error(sql).await;
        assert!(matches!(error.category(), crate::error::Category::Forbidden), "{sql}: {error}");
    }
}

#[tokio::test]
async fn settings_belong_to_one_session() {
    let (one, two) = (session(), session());
    text(&one, "SET datafusion.execution.batch_size = 17").await.unwrap();
    text(&one, "SET henge.dialect = 'druid'").await.unwrap();
    assert!(text(&one, "SHOW datafusion.execution.batch_size").await.unwrap().contains("17"));
    assert!(text(&one, "SHOW henge.dialect").await.unwrap().contains("druid"));
    assert!(text(&two, "SHOW datafusion.execution.batch_size").await.unwrap().contains("8192"));
    text(&one, "RESET henge.dialect").await.unwrap();
    assert!(text(&one, "SHOW henge.dialect").await.unwrap().contains("postgresql"));
    assert_eq!(error("SET datafusion.catalog.default_schema = 'x'").await.sqlstate(), Some("55P02"));
    assert_eq!(error("SET henge.colour = 'x'").await.sqlstate(), Some("42704"));
}

#[tokio::test]
async fn a_syntax_error_says_where() {
    let error = error("SELECT (1\n  FROM t").await;
    assert_eq!(error.sqlstate(), Some("42601"));
    assert_eq!(error.position(), Some(crate::error::Position { line: 2, column: 3 }));
}

#[tokio::test]
async fn nulls_are_the_largest() {
    let session = session();
    let text = text(&session, "SELECT * FROM (VALUES (1), (NULL), (2)) AS t(x) ORDER BY x DESC").await.unwrap();
    assert_eq!(text.lines().skip(3).map(|line| line.trim_matches(['|', ' '])).collect::<Vec<_>>()[..3], ["", "2", "1"]);
}
