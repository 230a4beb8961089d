use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;
use henge_engine::model::ColumnRole;

use super::super::SystemRows;
use super::{batch, longs, schema_of, texts};
use crate::store::SegmentRecord;
use crate::view::View;

/// `sys.segments`: the used segments.
#[derive(Debug)]
pub(super) struct Segments(pub(super) Arc<View>);

#[async_trait]
impl SystemRows for Segments {
    fn schema(&self) -> SchemaRef {
        schema_of(&[
            ("segment_id", DataType::Utf8View),
            ("datasource", DataType::Utf8View),
            ("start", DataType::Utf8View),
            ("end", DataType::Utf8View),
            ("size", DataType::Int64),
            ("version", DataType::Utf8View),
            ("partition_num", DataType::Int64),
            ("num_replicas", DataType::Int64),
            ("num_rows", DataType::Int64),
            ("is_active", DataType::Int64),
            ("is_published", DataType::Int64),
            ("is_available", DataType::Int64),
            ("is_realtime", DataType::Int64),
            ("is_overshadowed", DataType::Int64),
            ("shard_spec", DataType::Utf8View),
            ("dimensions", DataType::Utf8View),
            ("metrics", DataType::Utf8View),
            ("last_compaction_state", DataType::Utf8View),
            ("replication_factor", DataType::Int64),
        ])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let rows = self.0.segments();
        let columns = vec![
            texts(&rows, |(s, _)| Some(s.id.to_string())),
            texts(&rows, |(s, _)| Some(&s.id.data_source)),
            texts(&rows, |(s, _)| Some(s.id.interval.start().to_string())),
            texts(&rows, |(s, _)| Some(s.id.interval.end().to_string())),
            longs(&rows, |(s, _)| Some(s.record.size_bytes)),
            texts(&rows, |(s, _)| Some(&s.id.version)),
            longs(&rows, |(s, _)| Some(s.id.partition.into())),
            longs(&rows, |(_, hidden)| Some(u64::from(!hidden))),
            longs(&rows, |(s, _)| Some(s.record.num_rows)),
            longs(&rows, |(_, hidden)| Some(u64::from(!hidden))),
            longs(&rows, |_| Some(1)),
            longs(&rows, |(_, hidden)| Some(u64::from(!hidden))),
            longs(&rows, |_| Some(0)),
            longs(&rows, |(_, hidden)| Some(u64::from(*hidden))),
            texts(&rows, |(s, _)| serde_json::to_string(&s.record.shard_spec).ok()),
            texts(&rows, |(s, _)| names(&s.record, |role| *role == ColumnRole::Dimension)),
            texts(&rows, |(s, _)| names(&s.record, |role| matches!(role, ColumnRole::Metric(_)))),
            texts(&rows, |_| None::<String>),
            longs(&rows, |_| Some(1)),
        ];
        batch(self.schema(), columns)
    }
}

/// A JSON array of column names, as Druid shows them.
fn names(record: &SegmentRecord, wanted: fn(&ColumnRole) -> bool) -> Option<String> {
    let columns = record.schema.columns().iter().filter(|column| wanted(&column.role));
    serde_json::to_string(&columns.map(|column| &column.name).collect::<Vec<_>>()).ok()
}
