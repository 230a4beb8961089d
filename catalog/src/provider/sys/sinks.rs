use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{SysSchema, batch, longs, schema_of, texts};

/// `sys.sinks`: the rows that realtime processes of a cluster have, as far as queries do not read them from segments.
#[derive(Debug)]
pub(super) struct Sinks(pub(super) SysSchema);

#[async_trait]
impl SystemRows for Sinks {
    fn schema(&self) -> SchemaRef {
        schema_of(&[
            ("datasource", DataType::Utf8View),
            ("server", DataType::Utf8View),
            ("sink", DataType::Utf8View),
            ("settled_position", DataType::Int64),
            ("published_position", DataType::Int64),
            ("pending_segments", DataType::Int64),
            ("is_served", DataType::Int64),
        ])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let sinks = self.0.view.all_sinks();
        let tails = sinks.iter().map(|sink| sink.tail_uid(sink.settled)).collect::<Vec<_>>();
        let held = self.0.cluster.get().map(|cluster| cluster.holders(&tails)).unwrap_or_default();
        let held = (0..sinks.len()).map(|at| held.get(at).is_some_and(|names| !names.is_empty())).collect::<Vec<_>>();
        let rows = sinks.iter().zip(held).collect::<Vec<_>>();
        let columns = vec![
            texts(&rows, |(sink, _)| Some(&sink.data_source)),
            texts(&rows, |(sink, _)| Some(&sink.server)),
            texts(&rows, |(sink, _)| Some(sink.uid.to_string())),
            longs(&rows, |(sink, _)| Some(sink.settled)),
            longs(&rows, |(sink, _)| Some(sink.published)),
            longs(&rows, |(sink, _)| Some(sink.pending.len() as u64)),
            longs(&rows, |(_, is_served)| Some(u64::from(*is_served))),
        ];
        batch(self.schema(), columns)
    }
}
