//! The catalogue's tables as a schema beside the others.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemTable, SchemaProvider, TableProvider};
use datafusion::error::Result as PlanResult;

use super::routine::Routine;
use super::{Facts, SCHEMA, column, row};

/// `schemas` with `pg_catalog` beside them.
pub(super) fn with_pg_catalog(
    schemas: Arc<dyn CatalogProvider>,
    facts: Facts,
    routines: Arc<Vec<Routine>>,
) -> Arc<dyn CatalogProvider> {
    let pg_catalog = Arc::new(PgCatalog { schemas: Arc::clone(&schemas), facts, routines });
    Arc::new(WithPgCatalog { schemas, pg_catalog })
}

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
        if name == SCHEMA { Some(Arc::clone(&self.pg_catalog) as _) } else { self.schemas.schema(name) }
    }
}

/// Tables over the schemas as they are when a table is asked for.
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
        column::table_names().map(str::to_string).collect()
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        let Some(schema) = column::schema(name) else { return Ok(None) };
        let rows = row::rows(name, &self.schemas, &self.facts, &self.routines).await?;
        let batch = column::batch(&schema, &rows)?;
        Ok(Some(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        column::schema(name).is_some()
    }
}
