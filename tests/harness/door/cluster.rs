use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use henge_engine::session::Session;

use super::segments::segments_of;
use super::{Door, render};
use crate::harness::cluster::{Cluster, Served, answer};
use crate::harness::data::{DataSet, GENERATED};
use crate::harness::render::Row;

/// A broker's session over the same rows in segments that workers serve.
#[derive(Debug)]
pub struct Distributed {
    session: Session,
    _cluster: Option<Arc<Cluster>>,
}

impl Distributed {
    /// Each batch becomes a segment.
    pub fn over(data: &[DataSet], workers: usize) -> Self {
        let cluster = Arc::new(Cluster::over(data.iter().map(served).collect(), workers));
        Self { session: cluster.session(), _cluster: Some(cluster) }
    }

    /// One broker and two workers over the generated rows, started once a run. Groups are exchanged between workers, or
    /// not, as the session's `settings` say.
    pub async fn generated(settings: &str) -> Result<Self, String> {
        static GENERATED_CLUSTER: OnceLock<Cluster> = OnceLock::new();
        let cluster = GENERATED_CLUSTER.get_or_init(|| Cluster::over(GENERATED.iter().map(served).collect(), 2));
        let mut door = Self { session: cluster.session(), _cluster: None };
        door.ask(settings).await?;
        Ok(door)
    }
}

#[async_trait]
impl Door for Distributed {
    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        let (_, batches) = answer(&self.session, sql).await.map_err(|error| error.to_string())?;
        Ok(render::rows(&batches))
    }
}

pub fn served(set: &DataSet) -> Served {
    let (schema, segments) = segments_of(set);
    Served { name: set.name, schema, segments }
}
