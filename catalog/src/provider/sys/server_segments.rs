use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{SysSchema, batch, schema_of, texts};

/// `sys.server_segments`: who serves what. This process serves all that is visible.
#[derive(Debug)]
pub(super) struct ServerSegments(pub(super) SysSchema);

#[async_trait]
impl SystemRows for ServerSegments {
    fn schema(&self) -> SchemaRef {
        schema_of(&[("server", DataType::Utf8View), ("segment_id", DataType::Utf8View)])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let server = self.0.server.name();
        let mut rows = self.0.view.segments();
        rows.retain(|(_, hidden)| !hidden);
        let columns = vec![texts(&rows, |_| Some(&server)), texts(&rows, |(s, _)| Some(s.id.to_string()))];
        batch(self.schema(), columns)
    }
}
