use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;
use henge_engine::ingest::Reason;
use henge_engine::ingest::stream::Partition;

use super::super::SystemRows;
use super::{SysSchema, batch, longs, schema_of, texts};
use crate::realtime::supervisor::SupervisorStatus;

/// `sys.supervisors`: what keeps streams flowing into data sources, with Druid's columns first. A row for each partition;
/// one with a null there if the stream was not reached yet.
#[derive(Debug)]
pub(super) struct SupervisorRows(pub(super) SysSchema);

/// One partition of one supervisor.
struct OfPartition<'a> {
    status: &'a SupervisorStatus,
    partition: Option<Partition>,
}

#[async_trait]
impl SystemRows for SupervisorRows {
    fn schema(&self) -> SchemaRef {
        let of_type = |names: &[&'static str], data_type: &DataType| {
            names.iter().map(|name| (*name, data_type.clone())).collect::<Vec<_>>()
        };
        let (text, number) = (DataType::Utf8View, DataType::Int64);
        let mut columns = of_type(&["supervisor_id", "datasource", "state", "detailed_state"], &text);
        columns.push(("healthy", number.clone()));
        columns.extend(of_type(&["type", "source"], &text));
        columns.push(("suspended", number.clone()));
        columns.push(("spec", text.clone()));
        columns.extend(of_type(&["partition", "published_offset", "current_offset", "latest_offset", "lag"], &number));
        columns.extend(of_type(
            &["live_rows", "records", "rows", "unparseable", "late", "early", "filtered", "hand_offs"],
            &number,
        ));
        columns.push(("last_error", text));
        schema_of(&columns)
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let statuses = self.0.supervisor_statuses().await?;
        let rows = statuses.iter().flat_map(partitions).collect::<Vec<_>>();
        let count = |row: &OfPartition<'_>, reason| row.status.reasons.get(&reason).copied().or(Some(0));
        let flag = |set: bool| Some(u64::from(set));
        let of = |row: &OfPartition<'_>, map: fn(&SupervisorStatus) -> &std::collections::BTreeMap<Partition, u64>| {
            map(row.status).get(&row.partition?).copied()
        };
        let columns = vec![
            texts(&rows, |row| Some(&row.status.id)),
            texts(&rows, |row| Some(&row.status.data_source)),
            texts(&rows, |row| Some(row.status.state.basic())),
            texts(&rows, |row| Some(row.status.state.to_string())),
            longs(&rows, |row| flag(row.status.state.is_healthy())),
            texts(&rows, |row| Some(&row.status.kind)),
            texts(&rows, |row| Some(&row.status.topic)),
            longs(&rows, |row| flag(row.status.is_suspended())),
            texts(&rows, |row| Some(row.status.spec.to_string())),
            longs(&rows, |row| row.partition.map(u64::from)),
            longs(&rows, |row| of(row, |status| &status.published)),
            longs(&rows, |row| of(row, |status| &status.reached)),
            longs(&rows, |row| of(row, |status| &status.latest)),
            longs(&rows, |row| of(row, |status| &status.lag)),
            longs(&rows, |row| Some(row.status.live_rows)),
            longs(&rows, |row| Some(row.status.records)),
            longs(&rows, |row| Some(row.status.rows)),
            longs(&rows, |row| Some(row.status.unparseable)),
            longs(&rows, |row| count(row, Reason::Late)),
            longs(&rows, |row| count(row, Reason::Early)),
            longs(&rows, |row| count(row, Reason::Filtered)),
            longs(&rows, |row| Some(row.status.hand_offs)),
            texts(&rows, |row| row.status.errors.last().map(|error| &error.message)),
        ];
        batch(self.schema(), columns)
    }
}

fn partitions(status: &SupervisorStatus) -> Vec<OfPartition<'_>> {
    let mut partitions = status.reached.keys().chain(status.latest.keys()).copied().collect::<Vec<_>>();
    partitions.sort_unstable();
    partitions.dedup();
    if partitions.is_empty() {
        return vec![OfPartition { status, partition: None }];
    }
    partitions.into_iter().map(|partition| OfPartition { status, partition: Some(partition) }).collect()
}
