use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use henge_engine::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema};
use henge_engine::segment::Segment;
use henge_engine::segment::memory::MemorySegment;
use henge_engine::session::Session;
use henge_engine::table::{DataSourceTable, FixedSource};

use super::{Door, ask_session, session_over};
use crate::harness::data::DataSet;
use crate::harness::render::Row;

/// A session over the same rows in segments that were never written: tables, operators and rules of ours, no file.
#[derive(Debug)]
pub struct Segments(Session);

impl Segments {
    /// Each batch becomes a segment.
    pub fn over(data: &[DataSet]) -> Self {
        Self(session_over(data.iter().map(|set| (set.name, table(set)))))
    }
}

#[async_trait]
impl Door for Segments {
    async fn ask(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        ask_session(&self.0, sql).await
    }
}

fn table(set: &DataSet) -> Arc<dyn TableProvider> {
    let (_, segments) = segments_of(set);
    let source = FixedSource::of(set.name, segments).expect("all segments have one schema");
    Arc::new(DataSourceTable::new(set.name, Arc::new(source)))
}

/// The columns, and a segment of each batch.
pub fn segments_of(set: &DataSet) -> (Arc<SegmentSchema>, Vec<Arc<dyn Segment>>) {
    let fields = set.batches[0].schema();
    let columns = fields.fields().iter().skip(1).map(|field| match field.name().as_str() {
        name @ ("added" | "deleted" | "delta") => ColumnSchema::metric(name, ColumnType::Long, MetricCombine::Sum),
        name @ "metroCode" => ColumnSchema::dimension(name, ColumnType::Long),
        name => ColumnSchema::dimension(name, ColumnType::String),
    });
    let schema = Arc::new(SegmentSchema::new(columns).expect("dimensions come before metrics"));
    let segments = set.batches.iter().map(|batch| {
        let segment = MemorySegment::from_batches_with_row_index(Arc::clone(&schema), std::slice::from_ref(batch));
        Arc::new(segment.expect("the batch has the schema's columns")) as Arc<dyn Segment>
    });
    let segments = segments.collect();
    (schema, segments)
}
