use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;
use henge_engine::model::{ColumnRole, SegmentId};

use super::super::SystemRows;
use super::{SysSchema, batch, longs, schema_of, texts};
use crate::store::SegmentRecord;
use crate::view::{LiveGranule, ViewedSegment};

/// `sys.segments`: the used segments, and rows that are not published yet by their granules.
#[derive(Debug)]
pub(super) struct Segments(pub(super) SysSchema);

/// A used segment and what became of it, or a granule of rows that are not published.
struct Row {
    id: SegmentId,
    num_rows: u64,
    published: Option<Arc<ViewedSegment>>,
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
        let published =
            |((segment, is_hidden, is_active), num_replicas): ((Arc<ViewedSegment>, bool, bool), u64)| Row {
                id: segment.record.id.clone(),
                num_rows: segment.record.num_rows,
                published: Some(segment),
                is_hidden,
                num_replicas,
                is_available: is_active && !is_hidden && num_replicas > 0,
            };
        let live = |LiveGranule { id, num_rows }| Row {
            id,
            num_rows,
            published: None,
            is_hidden: false,
            num_replicas: 1,
            is_available: true,
        };
        let live = view.live_granules().into_iter().map(live);
        known.into_iter().zip(replicas).map(published).chain(live).collect()
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
        let record = |row: &Row, value: fn(&SegmentRecord) -> Option<String>| {
            row.published.as_ref().and_then(|segment| value(&segment.record))
        };
        let columns = vec![
            texts(&rows, |row| Some(row.id.to_string())),
            texts(&rows, |row| Some(&row.id.data_source)),
            texts(&rows, |row| Some(row.id.interval.start().to_string())),
            texts(&rows, |row| Some(row.id.interval.end().to_string())),
            longs(&rows, |row| Some(row.published.as_ref().map_or(0, |segment| segment.record.size_bytes))),
            texts(&rows, |row| Some(&row.id.version)),
            longs(&rows, |row| Some(row.id.partition.into())),
            longs(&rows, |row| Some(row.num_replicas)),
            longs(&rows, |row| Some(row.num_rows)),
            longs(&rows, |row| Some(u64::from(!row.is_hidden))),
            longs(&rows, |row| Some(u64::from(row.published.is_some()))),
            longs(&rows, |row| Some(u64::from(row.is_available))),
            longs(&rows, |row| Some(u64::from(row.published.is_none()))),
            longs(&rows, |row| Some(u64::from(row.is_hidden))),
            texts(&rows, |row| record(row, |record| serde_json::to_string(&record.shard_spec).ok())),
            texts(&rows, |row| record(row, |record| names(record, |role| *role == ColumnRole::Dimension))),
            texts(&rows, |row| record(row, |record| names(record, |role| matches!(role, ColumnRole::Metric(_))))),
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
