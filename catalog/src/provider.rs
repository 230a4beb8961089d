//! What DataFusion sees of the catalog: schemas and tables.
//!
//! Owns the schema `druid` of the data sources, `sys` and `information_schema`. A schema of the server's, such as
//! `pg_catalog`, is added with [`HengeCatalog::with_schema`].

mod druid;
mod information_schema;
mod sys;
mod system_table;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, SchemaProvider};

pub use druid::DruidSchema;
pub use information_schema::information_schema;
pub use sys::{ClusterServer, ClusterServers, ServerAddress, SysSchema, ThisServer};
pub use system_table::{SystemRows, SystemSchema, SystemTable};

/// The schema of the system tables, as Druid names it.
pub const SYS: &str = "sys";
pub const INFORMATION_SCHEMA: &str = "information_schema";

/// The catalog of a session: its schemas by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HengeCatalog {
    schemas: BTreeMap<String, Arc<dyn SchemaProvider>>,
}

impl HengeCatalog {
    /// A catalog without any schema but `information_schema`, which tells of the others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a schema, in place of one of the same name.
    #[must_use]
    pub fn with_schema(mut self, name: impl Into<String>, schema: Arc<dyn SchemaProvider>) -> Self {
        self.schemas.insert(name.into(), schema);
        self
    }

    /// The schemas by name, without `information_schema`.
    pub fn schemas(&self) -> &BTreeMap<String, Arc<dyn SchemaProvider>> {
        &self.schemas
    }
}

impl CatalogProvider for HengeCatalog {
    fn schema_names(&self) -> Vec<String> {
        let names = self.schemas.keys().map(String::as_str).chain([INFORMATION_SCHEMA]);
        let mut names = names.map(ToOwned::to_owned).collect::<Vec<_>>();
        names.sort_unstable();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match self.schemas.get(name) {
            Some(schema) => Some(Arc::clone(schema)),
            None if name == INFORMATION_SCHEMA => {
                let catalog: Arc<dyn CatalogProvider> = Arc::new(self.clone());
                Some(information_schema(&catalog))
            }
            None => None,
        }
    }
}
