use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use henge_engine::table::DataSourceTable;

use crate::view::View;

/// The schema `druid`: each data source as a table. A table, once asked for, shows the segments of that moment.
#[derive(Debug)]
pub struct DruidSchema {
    view: Arc<View>,
}

impl DruidSchema {
    pub fn new(view: Arc<View>) -> Self {
        Self { view }
    }
}

#[async_trait]
impl SchemaProvider for DruidSchema {
    fn table_names(&self) -> Vec<String> {
        self.view.data_sources().iter().map(|data_source| data_source.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let data_source = self.view.data_source(name);
        Ok(data_source.map(|source| Arc::new(DataSourceTable::new(name, source)) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.view.data_source(name).is_some()
    }
}
