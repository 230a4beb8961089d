//! The catalogue's tables as a schema beside the others.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{CatalogProvider, SchemaProvider, Session, TableProvider};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use henge_catalog::provider::{INFORMATION_SCHEMA, information_schema};

use super::routine::Routine;
use super::{Facts, SCHEMA, column, row};

/// `schemas` with `pg_catalog` beside them, and an `information_schema` that tells of both.
pub(super) fn with_pg_catalog(
    schemas: Arc<dyn CatalogProvider>,
    facts: Facts,
    routines: Arc<Vec<Routine>>,
) -> Arc<dyn CatalogProvider> {
    let pg_catalog = Arc::new(PgCatalog { schemas: Arc::clone(&schemas), facts, routines });
    Arc::new(WithPgCatalog { schemas, pg_catalog })
}

#[derive(Clone)]
struct WithPgCatalog {
    schemas: Arc<dyn CatalogProvider>,
    pg_catalog: Arc<PgCatalog>,
}

impl fmt::Debug for WithPgCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithPgCatalog").finish_non_exhaustive()
    }
}

impl CatalogProvider for WithPgCatalog {
    fn schema_names(&self) -> Vec<String> {
        row::schema_names(&self.schemas)
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::clone(&self.pg_catalog) as _),
            INFORMATION_SCHEMA => {
                let all: Arc<dyn CatalogProvider> = Arc::new(self.clone());
                Some(information_schema(&all))
            }
            name => self.schemas.schema(name),
        }
    }
}

/// Tables over the schemas as they are when a table is read.
struct PgCatalog {
    schemas: Arc<dyn CatalogProvider>,
    facts: Facts,
    routines: Arc<Vec<Routine>>,
}

impl fmt::Debug for PgCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgCatalog").field("facts", &self.facts).finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        // A function, which is a table here.
        column::table_names().filter(|name| *name != "pg_get_keywords").map(str::to_string).collect()
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        let Some(columns) = column::schema(name) else { return Ok(None) };
        Ok(Some(Arc::new(CatalogTable {
            name: name.to_string(),
            columns,
            schemas: Arc::clone(&self.schemas),
            facts: self.facts.clone(),
            routines: Arc::clone(&self.routines),
        })))
    }

    fn table_exist(&self, name: &str) -> bool {
        column::schema(name).is_some()
    }
}

/// One table; its rows are made when it is read, so that naming it costs nothing.
struct CatalogTable {
    name: String,
    columns: SchemaRef,
    schemas: Arc<dyn CatalogProvider>,
    facts: Facts,
    routines: Arc<Vec<Routine>>,
}

impl fmt::Debug for CatalogTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogTable").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for CatalogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let rows = row::rows(&self.name, &self.schemas, &self.facts, &self.routines).await?;
        let batch = column::batch(&self.columns, &rows)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?)
    }
}
