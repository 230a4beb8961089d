use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;
use henge_engine::model::ColumnRole;

use super::super::SystemRows;
use super::{SysSchema, batch, longs, schema_of, texts};
use crate::store::SegmentRecord;
use crate::view::ViewedSegment;

/// `sys.segments`: the used segments.
#[derive(Debug)]
pub(super) struct Segments(pub(super) SysSchema);

/// A used segment, and what became of it.
struct Row {
    segment: Arc<ViewedSegment>,
    is_hidden: bool,
    num_replicas: u64,
    /// Whether queries see it, and can.
    is_available: bool,
}

impl Segments {
    fn all(&self) -> Vec<Row> {
        let view = &self.0.view;
        let active = view.segments().into_iter().map(|(segment, is_hidden)| (segment, is_hidden, true));
        let dormant = view.dormant().into_iter().map(|(segment, is_hidden)| (segment, is_hidden, false));
        let mut known = active.chain(dormant).collect::<Vec<_>>();
        known.sort_by(|(a, ..), (b, ..)| a.id.cmp(&b.id));
        let uids = known.iter().map(|(segment, ..)| segment.record.uid).collect::<Vec<_>>();
        // Without other servers, this one serves all that is visible.
        let replicas: Vec<u64> = match self.0.cluster.get() {
            Some(cluster) => cluster.holders(&uids).into_iter().map(|names| names.len() as u64).collect(),
            None => known.iter().map(|(_, is_hidden, _)| u64::from(!is_hidden)).collect(),
        };
        let row = |((segment, is_hidden, is_active), num_replicas)| Row {
            segment,
            is_hidden,
            num_replicas,
            is_available: is_active && !is_hidden && num_replicas > 0,
        };
        known.into_iter().zip(replicas).map(row).collect()
    }
}

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
        let rows = self.all();
        let columns = vec![
            texts(&rows, |Row { segment: s, .. }| Some(s.id.to_string())),
            texts(&rows, |Row { segment: s, .. }| Some(&s.id.data_source)),
            texts(&rows, |Row { segment: s, .. }| Some(s.id.interval.start().to_string())),
            texts(&rows, |Row { segment: s, .. }| Some(s.id.interval.end().to_string())),
            longs(&rows, |Row { segment: s, .. }| Some(s.record.size_bytes)),
            texts(&rows, |Row { segment: s, .. }| Some(&s.id.version)),
            longs(&rows, |Row { segment: s, .. }| Some(s.id.partition.into())),
            longs(&rows, |row| Some(row.num_replicas)),
            longs(&rows, |Row { segment: s, .. }| Some(s.record.num_rows)),
            longs(&rows, |row| Some(u64::from(!row.is_hidden))),
            longs(&rows, |_| Some(1)),
            longs(&rows, |row| Some(u64::from(row.is_available))),
            longs(&rows, |_| Some(0)),
            longs(&rows, |row| Some(u64::from(row.is_hidden))),
            texts(&rows, |Row { segment: s, .. }| serde_json::to_string(&s.record.shard_spec).ok()),
            texts(&rows, |Row { segment: s, .. }| names(&s.record, |role| *role == ColumnRole::Dimension)),
            texts(&rows, |Row { segment: s, .. }| names(&s.record, |role| matches!(role, ColumnRole::Metric(_)))),
            texts(&rows, |_| None::<String>),
            // In a cluster that is what rules say, which the coordinator knows.
            longs(&rows, |_| self.0.cluster.get().is_none().then_some(1)),
        ];
        batch(self.schema(), columns)
    }
}

/// A JSON array of column names, as Druid shows them.
fn names(record: &SegmentRecord, wanted: fn(&ColumnRole) -> bool) -> Option<String> {
    let columns = record.schema.columns().iter().filter(|column| wanted(&column.role));
    serde_json::to_string(&columns.map(|column| &column.name).collect::<Vec<_>>()).ok()
}
