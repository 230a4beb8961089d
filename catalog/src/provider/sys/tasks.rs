use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{SysSchema, batch, longs, schema_of, texts};
use crate::store::TaskStatus;

/// How many tasks are shown: the latest.
const SHOWN_TASKS: usize = 10_000;

/// `sys.tasks`: the latest tasks.
#[derive(Debug)]
pub(super) struct Tasks(pub(super) SysSchema);

#[async_trait]
impl SystemRows for Tasks {
    fn schema(&self) -> SchemaRef {
        schema_of(&[
            ("task_id", DataType::Utf8View),
            ("group_id", DataType::Utf8View),
            ("type", DataType::Utf8View),
            ("datasource", DataType::Utf8View),
            ("created_time", DataType::Utf8View),
            ("queue_insertion_time", DataType::Utf8View),
            ("status", DataType::Utf8View),
            ("runner_status", DataType::Utf8View),
            ("duration", DataType::Int64),
            ("location", DataType::Utf8View),
            ("host", DataType::Utf8View),
            ("plaintext_port", DataType::Int64),
            ("tls_port", DataType::Int64),
            ("error_msg", DataType::Utf8View),
        ])
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let rows = self.0.store.tasks(SHOWN_TASKS).await?;
        let address = self.0.server.address();
        let columns = vec![
            texts(&rows, |task| Some(&task.id)),
            texts(&rows, |task| Some(&task.id)),
            texts(&rows, |task| Some(&task.task_type)),
            texts(&rows, |task| Some(&task.data_source)),
            texts(&rows, |task| Some(task.created.to_string())),
            texts(&rows, |task| Some(task.created.to_string())),
            // Druid calls RUNNING whatever is not complete, and says more in `runner_status`.
            texts(&rows, |task| {
                Some(match task.status {
                    TaskStatus::Waiting | TaskStatus::Running => "RUNNING",
                    TaskStatus::Success => "SUCCESS",
                    TaskStatus::Failed => "FAILED",
                })
            }),
            texts(&rows, |task| {
                Some(match task.status {
                    TaskStatus::Waiting => "WAITING",
                    TaskStatus::Running => "RUNNING",
                    TaskStatus::Success | TaskStatus::Failed => "NONE",
                })
            }),
            longs(&rows, |task| task.duration_ms),
            texts(&rows, |_| Some(self.0.server.name())),
            texts(&rows, |_| address.host.as_ref()),
            longs(&rows, |_| address.http_port.map(u64::from)),
            longs(&rows, |_| None),
            texts(&rows, |task| task.error.as_ref()),
        ];
        batch(self.schema(), columns)
    }
}
