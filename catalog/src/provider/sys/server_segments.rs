use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{SysSchema, batch, schema_of, texts};

/// `sys.server_segments`: who serves what. Without a cluster, this process serves all that is visible.
#[derive(Debug)]
pub(super) struct ServerSegments(pub(super) SysSchema);

#[async_trait]
impl SystemRows for ServerSegments {
    fn schema(&self) -> SchemaRef {
        schema_of(&[("server", DataType::Utf8View), ("segment_id", DataType::Utf8View)])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        if let Some(cluster) = self.0.cluster.get() {
            let view = &self.0.view;
            let known = view.segments().into_iter().chain(view.dormant()).map(|(segment, _)| segment);
            let known = known.collect::<Vec<_>>();
            let uids = known.iter().map(|segment| segment.record.uid).collect::<Vec<_>>();
            let served = known.iter().zip(cluster.holders(&uids));
            let mut rows = served
                .flat_map(|(segment, names)| names.into_iter().map(|name| (name, segment.id.to_string())))
                .collect::<Vec<_>>();
            rows.sort_unstable();
            let columns = vec![texts(&rows, |(name, _)| Some(name)), texts(&rows, |(_, id)| Some(id))];
            return batch(self.schema(), columns);
        }
        let server = self.0.server.name();
        let mut rows = self.0.view.segments();
        rows.retain(|(_, hidden)| !hidden);
        let columns = vec![texts(&rows, |_| Some(&server)), texts(&rows, |(s, _)| Some(s.id.to_string()))];
        batch(self.schema(), columns)
    }
}
