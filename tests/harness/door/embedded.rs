use async_trait::async_trait;
use henge::ingest::{IngestReport, IngestionSpec};
use henge::{Database, IngestRun, Session, SessionOptions};
use henge_engine::ingest::source::wikipedia::Shape;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{Door, ask_session};
use crate::harness::data::{Rollup, rows_file, tutorial_spec, wikiticker_spec};
use crate::harness::render::Row;
use crate::harness::scratch;

/// The database as a library, over segment files that were really ingested.
#[derive(Debug)]
pub struct Embedded(Session);

impl Embedded {
    pub fn over(database: &Database) -> Self {
        Self(database.session(SessionOptions::default()))
    }

    /// Over the generated rows, which are ingested once a run.
    pub async fn generated() -> Result<Self, String> {
        static GENERATED: OnceCell<Database> = OnceCell::const_new();
        Ok(Self::over(GENERATED.get_or_try_init(ingest_generated).await?))
    }
}

async fn ingest_generated() -> Result<Database, String> {
    let dir = scratch::dir();
    let file = |shape| rows_file(&dir, shape).map_err(|error| error.to_string());
    let specs = [tutorial_spec(&file(Shape::Tutorial)?), wikiticker_spec(&file(Shape::Wikiticker)?, Rollup::Off)];
    let database = Database::open(dir.join("embedded")).await.map_err(|error| error.to_string())?;
    for spec in &specs {
        ingest(&database, spec).await?;
    }
    Ok(database)
}

/// Ingests as a task's JSON says.
pub async fn ingest(database: &Database, task: &Value) -> Result<IngestReport, String> {
    let spec = IngestionSpec::from_json(&task["spec"].to_string()).map_err(|error| error.to_string())?;
    database.ingest(spec, IngestRun::default()).await.map_err(|error| error.to_string())
}

#[async_trait]
impl Door for Embedded {
    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        ask_session(&self.0, sql).await
    }
}
