use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

/// The rows of a system table, made when it is read.
#[async_trait]
pub trait SystemRows: Debug + Send + Sync {
    fn schema(&self) -> SchemaRef;

    /// All rows as of now, with the columns of [`SystemRows::schema`].
    async fn rows(&self) -> henge_engine::Result<RecordBatch>;
}

/// A system table.
#[derive(Debug)]
pub struct SystemTable {
    rows: Arc<dyn SystemRows>,
}

impl SystemTable {
    pub fn new(rows: Arc<dyn SystemRows>) -> Self {
        Self { rows }
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.rows().await?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), projection.cloned())?)
    }
}

/// A schema of system tables.
#[derive(Debug, Default)]
pub struct SystemSchema {
    tables: BTreeMap<String, Arc<dyn SystemRows>>,
}

impl SystemSchema {
    pub fn new<'a>(tables: impl IntoIterator<Item = (&'a str, Arc<dyn SystemRows>)>) -> Self {
        Self { tables: tables.into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect() }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = |rows: &Arc<dyn SystemRows>| Arc::new(SystemTable::new(Arc::clone(rows))) as _;
        Ok(self.tables.get(name).map(table))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}
