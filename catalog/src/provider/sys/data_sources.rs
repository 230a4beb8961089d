use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{batch, longs, schema_of, texts};
use crate::view::{DataSourceView, View};

/// `sys.data_sources`: what is visible of each, summed up.
#[derive(Debug)]
pub(super) struct DataSources(pub(super) Arc<View>);

struct Row {
    name: String,
    segments: u64,
    rows: u64,
    size_bytes: u64,
    first: Option<String>,
    last: Option<String>,
    rev: u64,
}

impl Row {
    fn of(data_source: &DataSourceView) -> Self {
        let segments = data_source.segments();
        let records = || segments.iter().map(|segment| &segment.record);
        let times = || records().filter_map(|record| record.time_range);
        Self {
            name: data_source.name().to_owned(),
            segments: segments.len() as u64,
            rows: records().map(|record| record.num_rows).sum(),
            size_bytes: records().map(|record| record.size_bytes).sum(),
            first: times().map(|(first, _)| first).min().map(|time| time.to_string()),
            last: times().map(|(_, last)| last).max().map(|time| time.to_string()),
            rev: data_source.rev(),
        }
    }
}

#[async_trait]
impl SystemRows for DataSources {
    fn schema(&self) -> SchemaRef {
        schema_of(&[
            ("datasource", DataType::Utf8View),
            ("num_segments", DataType::Int64),
            ("num_rows", DataType::Int64),
            ("size", DataType::Int64),
            ("min_time", DataType::Utf8View),
            ("max_time", DataType::Utf8View),
            ("rev", DataType::Int64),
        ])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let rows = self.0.data_sources().iter().map(|data_source| Row::of(data_source)).collect::<Vec<_>>();
        let columns = vec![
            texts(&rows, |row| Some(&row.name)),
            longs(&rows, |row| Some(row.segments)),
            longs(&rows, |row| Some(row.rows)),
            longs(&rows, |row| Some(row.size_bytes)),
            texts(&rows, |row| row.first.as_ref()),
            texts(&rows, |row| row.last.as_ref()),
            longs(&rows, |row| Some(row.rev)),
        ];
        batch(self.schema(), columns)
    }
}
