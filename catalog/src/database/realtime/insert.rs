use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use henge_engine::model::{DataSchema, TIME_COLUMN};
use henge_engine::session::RowWriter;
use henge_engine::{Error, Result};

use super::{Database, not_declared};
use crate::realtime::{OnError, Payload, Push, PushKey, Pushed, from_arrow};

/// Rows that are put in with SQL are pushed.
#[async_trait]
impl RowWriter for Database {
    async fn insert(&self, data_source: &str, rows: Vec<RecordBatch>) -> Result<u64> {
        self.insert_rows(data_source, rows, None).await
    }
}

impl Database {
    /// Takes rows that another server was given with SQL, in Arrow, under a key by which they are known if they come
    /// again.
    pub async fn insert_arrow(&self, data_source: &str, rows: &[u8], key: &str) -> Result<u64> {
        self.insert_rows(data_source, from_arrow(rows)?, Some(PushKey::Idempotency(key.to_owned()))).await
    }

    async fn insert_rows(&self, data_source: &str, rows: Vec<RecordBatch>, key: Option<PushKey>) -> Result<u64> {
        if self.discovers() {
            self.discover_push(data_source, TIME_COLUMN).await?;
        }
        let spec = self.push_spec(data_source).ok_or_else(|| not_declared(data_source))?;
        let batches = rows.iter().map(|batch| as_sent(batch, &spec.data_schema)).collect::<Result<Vec<_>>>()?;
        let push =
            Push { payload: Payload::Batches(batches), key, on_error: OnError::Fail, max_row_bytes: usize::MAX >> 1 };
        match self.push(data_source, push).await? {
            Pushed::Taken { rows, .. } => Ok(rows),
            Pushed::Refused { bad_rows, .. } => {
                let first = bad_rows.first().map_or_else(
                    || "its rows are wrong".to_owned(),
                    |bad| format!("row {}: {}: {}", bad.line, bad.reason, bad.message),
                );
                Err(Error::invalid_input(format!("nothing was inserted: {first}")).with_sqlstate("22023"))
            }
            Pushed::Busy { .. } => {
                Err(Error::capacity_exceeded("there is no room for more rows just now; insert them again")
                    .retryable(true))
            }
            Pushed::Full { message } => Err(Error::capacity_exceeded(message)),
        }
    }
}

/// Columns of a data source as the fields that they are made of.
fn as_sent(batch: &RecordBatch, schema: &DataSchema) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let metric = schema.metrics_spec.iter().find(|metric| metric.name == *field.name());
        let name = match metric {
            _ if field.name() == TIME_COLUMN => schema.timestamp_spec.column.clone(),
            // What counts rows has no field.
            Some(metric) => match &metric.field {
                Some(field) => field.clone(),
                None => continue,
            },
            None => field.name().clone(),
        };
        if fields.iter().any(|known: &Field| *known.name() == name) {
            continue;
        }
        fields.push(Field::new(name, field.data_type().clone(), true));
        columns.push(Arc::clone(column));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::defensive("inserted rows do not fit their columns").with_source(error))
}
