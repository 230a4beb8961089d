use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{batch, schema_of, texts};
use crate::view::Problems;

/// `sys.segment_problems`: rows that somebody wrote into the metadata store by hand and that are not served.
#[derive(Debug)]
pub(super) struct SegmentProblems(pub(super) Arc<Problems>);

#[async_trait]
impl SystemRows for SegmentProblems {
    fn schema(&self) -> SchemaRef {
        schema_of(&[
            ("segment_id", DataType::Utf8View),
            ("datasource", DataType::Utf8View),
            ("reason", DataType::Utf8View),
            ("since", DataType::Utf8View),
        ])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let rows = self.0.all();
        let columns = vec![
            texts(&rows, |problem| Some(&problem.segment_id)),
            texts(&rows, |problem| Some(&problem.data_source)),
            texts(&rows, |problem| Some(&problem.reason)),
            texts(&rows, |problem| Some(problem.since.to_string())),
        ];
        batch(self.schema(), columns)
    }
}
