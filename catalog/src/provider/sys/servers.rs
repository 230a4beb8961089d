use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::{ClusterServer, SystemRows};
use super::{SysSchema, batch, longs, schema_of, texts};

/// `sys.servers`: those of the cluster, or this process, which has all roles.
#[derive(Debug)]
pub(super) struct Servers(pub(super) SysSchema);

impl Servers {
    fn of_cluster(&self, servers: &[ClusterServer]) -> Result<RecordBatch> {
        let port = |server: &ClusterServer| server.server.name.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let is_historical = |server: &ClusterServer| server.server.has_role("historical");
        let columns = vec![
            texts(servers, |s| Some(&s.server.name)),
            texts(servers, |s| s.server.name.rsplit_once(':').map(|(host, _)| host)),
            longs(servers, |s| port(s).filter(|_| !s.server.is_encrypted)),
            longs(servers, |s| port(s).filter(|_| s.server.is_encrypted)),
            texts(servers, |s| Some(s.server.roles.join(","))),
            texts(servers, |s| is_historical(s).then_some(&s.server.tier)),
            longs(servers, |s| s.used_bytes),
            longs(servers, |s| is_historical(s).then_some(s.server.max_bytes)),
            longs(servers, |s| Some(u64::from(s.is_leader))),
            texts(servers, |s| Some(s.server.started.to_string())),
            texts(servers, |s| Some(&s.server.version)),
            texts(servers, |_| None::<String>),
        ];
        batch(self.schema(), columns)
    }
}

#[async_trait]
impl SystemRows for Servers {
    fn schema(&self) -> SchemaRef {
        schema_of(&[
            ("server", DataType::Utf8View),
            ("host", DataType::Utf8View),
            ("plaintext_port", DataType::Int64),
            ("tls_port", DataType::Int64),
            ("server_type", DataType::Utf8View),
            ("tier", DataType::Utf8View),
            ("current_size", DataType::Int64),
            ("max_size", DataType::Int64),
            ("is_leader", DataType::Int64),
            ("start_time", DataType::Utf8View),
            ("version", DataType::Utf8View),
            ("labels", DataType::Utf8View),
        ])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        if let Some(cluster) = self.0.cluster.get() {
            return self.of_cluster(&cluster.servers());
        }
        let SysSchema { view, server, .. } = &self.0;
        let address = server.address();
        let size_bytes = view.segments().iter().map(|(segment, _)| segment.record.size_bytes).sum();
        let one = [()];
        let columns = vec![
            texts(&one, |()| Some(server.name())),
            texts(&one, |()| Some(address.host.as_deref().unwrap_or("localhost"))),
            longs(&one, |()| address.http_port.map(u64::from)),
            longs(&one, |()| None),
            texts(&one, |()| Some("all")),
            texts(&one, |()| None::<String>),
            longs(&one, |()| Some(size_bytes)),
            longs(&one, |()| None),
            longs(&one, |()| Some(1)),
            texts(&one, |()| Some(server.started.to_string())),
            texts(&one, |()| Some(env!("CARGO_PKG_VERSION"))),
            texts(&one, |()| None::<String>),
        ];
        batch(self.schema(), columns)
    }
}
