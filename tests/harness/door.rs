//! The doors at which the same question must get the same answer.

mod cluster;
mod embedded;
mod postgres;
mod segments;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::datasource::MemTable;
use henge_engine::session::{Runtime, RuntimeOptions, Session, SessionOptions};

use super::data::DataSet;
use super::render::{self, Row};

pub use self::cluster::{Distributed, served};
pub use self::embedded::{Embedded, ingest};
pub use self::postgres::{Postgres, Protocol, end_shared, shared_address};
pub use self::segments::Segments;

/// Somewhere that answers SQL. An error is what a person is shown.
#[async_trait]
pub trait Door: Send + std::fmt::Debug {
    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, String>;
}

/// A session of ours over the raw rows, in stock DataFusion tables: what is true.
#[derive(Debug)]
pub struct RawRows(Session);

impl RawRows {
    pub fn over(data: &[DataSet]) -> Self {
        let tables = data.iter().map(|set| {
            let table = MemTable::try_new(set.batches[0].schema(), vec![set.batches.clone()]).expect("one schema");
            (set.name, Arc::new(table) as Arc<dyn TableProvider>)
        });
        Self(session_over(tables))
    }
}

/// A session with these tables in the schema of the data sources.
fn session_over<'a>(tables: impl Iterator<Item = (&'a str, Arc<dyn TableProvider>)>) -> Session {
    let schema = MemorySchemaProvider::new();
    for (name, table) in tables {
        schema.register_table(name.to_owned(), table).expect("names differ");
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("druid", Arc::new(schema)).expect("schemas can be added");
    let runtime = Runtime::new(RuntimeOptions::default()).expect("default options work");
    Session::new(&runtime, Arc::new(catalog), SessionOptions::default())
}

#[async_trait]
impl Door for RawRows {
    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        ask_session(&self.0, sql).await
    }
}

/// All rows that a session answers.
async fn ask_session(session: &Session, sql: &str) -> Result<Vec<Row>, String> {
    let frame = session.sql(sql).await.map_err(|error| error.to_string())?;
    let batches = frame.collect().await;
    let batches = batches.map_err(|error| henge_engine::session::error_from_datafusion(error).to_string())?;
    Ok(render::rows(&batches))
}
