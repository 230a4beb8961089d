use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;

use super::super::SystemRows;
use super::{SysSchema, batch, longs, schema_of, texts};
use crate::store::{TaskRecord, TaskStatus};

/// How many tasks are shown: the latest.
const SHOWN_TASKS: usize = 10_000;

/// `sys.tasks`: the latest tasks.
#[derive(Debug)]
pub(super) struct Tasks(pub(super) SysSchema);

impl Tasks {
    /// Where each of `tasks` that has not ended runs, as `host:port`; of a server that does everything, all ran there.
    async fn places(&self, tasks: &[TaskRecord]) -> Result<HashMap<String, String>> {
        let mut places = HashMap::new();
        if self.0.cluster.get().is_none() {
            let here = self.0.server.name();
            places.extend(tasks.iter().map(|task| (task.id.clone(), here.clone())));
            return Ok(places);
        }
        for task in tasks.iter().filter(|task| !task.status.is_complete()) {
            let holder = self.0.store.lease_holder(&TaskRecord::lease_role(&task.id)).await?;
            if let Some(name) = holder.as_deref().and_then(|holder| holder.split('/').next()) {
                places.insert(task.id.clone(), name.to_owned());
            }
        }
        Ok(places)
    }
}

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
        let places = self.places(&rows).await?;
        let place = |task: &TaskRecord| places.get(&task.id);
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
            texts(&rows, place),
            texts(&rows, |task| place(task)?.rsplit_once(':').map(|(host, _)| host)),
            longs(&rows, |task| place(task)?.rsplit_once(':')?.1.parse::<u64>().ok()),
            longs(&rows, |_| None),
            texts(&rows, |task| task.error.as_ref()),
        ];
        batch(self.schema(), columns)
    }
}
