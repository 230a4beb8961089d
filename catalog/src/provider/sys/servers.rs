use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{SysSchema, batch, longs, schema_of, texts};

/// `sys.servers`: this process, which has all roles.
#[derive(Debug)]
pub(super) struct Servers(pub(super) SysSchema);

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
