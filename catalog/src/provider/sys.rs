//! The schema `sys`: what there is and what goes on, with Druid's columns. One file a table.

mod data_sources;
mod realtime;
mod segment_problems;
mod segments;
mod server_segments;
mod servers;
mod sinks;
mod supervisors;
mod tasks;

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use henge_engine::model::{SegmentUid, Timestamp};
use henge_engine::{Error, Result};
use parking_lot::RwLock;

use super::{SystemRows, SystemSchema};
use crate::realtime::Streams;
use crate::realtime::supervisor::{Kept, SupervisorStatus, Supervisors};
use crate::store::{MetadataStore, ServerRecord};
use crate::view::{Problems, View};

/// This process, as `sys.servers` shows it.
#[derive(Debug)]
pub struct ThisServer {
    pub started: Timestamp,
    address: RwLock<ServerAddress>,
}

/// Where a process can be reached; nothing for a program that embeds the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerAddress {
    pub host: Option<String>,
    pub pg_port: Option<u16>,
    pub http_port: Option<u16>,
}

impl ThisServer {
    pub fn new(started: Timestamp) -> Self {
        Self { started, address: RwLock::default() }
    }

    pub fn set_address(&self, address: ServerAddress) {
        *self.address.write() = address;
    }

    pub fn address(&self) -> ServerAddress {
        self.address.read().clone()
    }

    /// `host:port`, as Druid names a server.
    pub fn name(&self) -> String {
        let address = self.address();
        let host = address.host.as_deref().unwrap_or("localhost");
        match address.http_port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// A server of a cluster, as `sys.servers` shows it.
#[derive(Clone, Debug)]
pub struct ClusterServer {
    pub server: ServerRecord,
    /// What a historical has; nothing if it has not said.
    pub used_bytes: Option<u64>,
    pub is_leader: bool,
}

/// The servers of a cluster. Where there are none, this process is all of them.
#[async_trait]
pub trait ClusterServers: std::fmt::Debug + Send + Sync {
    /// In the order of their names.
    fn servers(&self) -> Vec<ClusterServer>;

    /// The names of the servers that serve each of these segments, in that order.
    fn holders(&self, segments: &[SegmentUid]) -> Vec<Vec<String>>;

    /// How the supervisors are that run in them, as far as they answer.
    async fn supervisors(&self) -> Vec<SupervisorStatus>;
}

/// What the system tables read.
#[derive(Clone, Debug)]
pub struct SysSchema {
    pub cluster: Arc<OnceLock<Arc<dyn ClusterServers>>>,
    pub view: Arc<View>,
    pub store: Arc<dyn MetadataStore>,
    pub server: Arc<ThisServer>,
    pub problems: Arc<Problems>,
    pub streams: Arc<Streams>,
    pub supervisors: Arc<Supervisors>,
}

impl SysSchema {
    /// How all supervisors are.
    async fn supervisor_statuses(&self) -> Result<Vec<SupervisorStatus>> {
        match self.cluster.get() {
            None => Ok(self.supervisors.all().iter().map(Kept::status).collect()),
            Some(cluster) => {
                Ok(SupervisorStatus::of_cluster(&self.store.supervisors().await?, cluster.supervisors().await))
            }
        }
    }

    pub fn schema(&self) -> SystemSchema {
        SystemSchema::new([
            ("data_sources", Arc::new(data_sources::DataSources(Arc::clone(&self.view))) as Arc<dyn SystemRows>),
            ("realtime", Arc::new(realtime::Realtime(Arc::clone(&self.streams)))),
            ("segment_problems", Arc::new(segment_problems::SegmentProblems(Arc::clone(&self.problems)))),
            ("segments", Arc::new(segments::Segments(self.clone()))),
            ("server_segments", Arc::new(server_segments::ServerSegments(self.clone()))),
            ("servers", Arc::new(servers::Servers(self.clone()))),
            ("sinks", Arc::new(sinks::Sinks(self.clone()))),
            ("supervisors", Arc::new(supervisors::SupervisorRows(self.clone()))),
            ("tasks", Arc::new(tasks::Tasks(self.clone()))),
        ])
    }
}

/// A schema of columns that may be null.
fn schema_of(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(schema, columns)
        .map_err(|error| Error::defensive("rows of a system table do not fit").with_source(error))
}

/// A column of texts.
fn texts<'a, T, S: AsRef<str>>(rows: &'a [T], value: impl Fn(&'a T) -> Option<S>) -> ArrayRef {
    let mut builder = arrow::array::StringViewBuilder::with_capacity(rows.len());
    for row in rows {
        builder.append_option(value(row));
    }
    Arc::new(builder.finish())
}

/// A column of numbers.
fn longs<T>(rows: &[T], value: impl Fn(&T) -> Option<u64>) -> ArrayRef {
    let values = rows.iter().map(|row| value(row).map(|number| i64::try_from(number).unwrap_or(i64::MAX)));
    Arc::new(values.collect::<arrow::array::Int64Array>())
}
