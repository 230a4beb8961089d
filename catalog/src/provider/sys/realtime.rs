use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use henge_engine::Result;
use henge_engine::ingest::Reason;

use super::super::SystemRows;
use super::{batch, longs, schema_of, texts};
use crate::realtime::{StreamStatus, Streams};

/// `sys.realtime`: the data sources that rows are pushed to, and what this process did with them.
#[derive(Debug)]
pub(super) struct Realtime(pub(super) Arc<Streams>);

#[async_trait]
impl SystemRows for Realtime {
    fn schema(&self) -> SchemaRef {
        let numbers = |names: &[&'static str]| names.iter().map(|name| (*name, DataType::Int64)).collect::<Vec<_>>();
        let mut columns = vec![("datasource", DataType::Utf8View), ("state", DataType::Utf8View)];
        columns.extend(numbers(&["live_rows", "live_granules"]));
        columns.push(("live_since", DataType::Utf8View));
        columns.extend(numbers(&["memory_bytes", "wal_bytes", "wal_position", "published_position"]));
        columns.extend(numbers(&[
            "requests",
            "duplicates",
            "refused",
            "busy",
            "rows",
            "replayed_rows",
            "bytes",
            "syncs",
        ]));
        columns.extend(numbers(&["unparseable", "bad_numbers", "late", "early", "filtered", "outside_intervals"]));
        columns.extend(numbers(&["persists", "hand_offs", "handed_off_rows", "hand_off_ms", "last_hand_off_ms"]));
        columns.push(("last_error", DataType::Utf8View));
        schema_of(&columns)
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let rows = self.0.all().iter().map(|stream| stream.status()).collect::<Vec<_>>();
        let count = |row: &StreamStatus, reasons: &[Reason]| {
            Some(reasons.iter().filter_map(|reason| row.reasons.get(reason)).sum::<u64>())
        };
        let unparseable = [Reason::Unparseable, Reason::MissingTimestamp, Reason::BadTimestamp, Reason::TooLong];
        let columns = vec![
            texts(&rows, |row| Some(&row.data_source)),
            texts(&rows, |row| Some(row.state.to_string())),
            longs(&rows, |row| Some(row.live_rows)),
            longs(&rows, |row| Some(row.live_granules)),
            texts(&rows, |row| row.live_since.map(|since| since.to_string())),
            longs(&rows, |row| Some(row.memory_bytes)),
            longs(&rows, |row| Some(row.wal_bytes)),
            longs(&rows, |row| Some(row.wal_position)),
            longs(&rows, |row| Some(row.published_position)),
            longs(&rows, |row| Some(row.requests)),
            longs(&rows, |row| Some(row.duplicates)),
            longs(&rows, |row| Some(row.refused)),
            longs(&rows, |row| Some(row.busy)),
            longs(&rows, |row| Some(row.rows)),
            longs(&rows, |row| Some(row.replayed_rows)),
            longs(&rows, |row| Some(row.bytes)),
            longs(&rows, |row| Some(row.syncs)),
            longs(&rows, |row| count(row, &unparseable)),
            longs(&rows, |row| count(row, &[Reason::BadNumber])),
            longs(&rows, |row| count(row, &[Reason::Late])),
            longs(&rows, |row| count(row, &[Reason::Early])),
            longs(&rows, |row| count(row, &[Reason::Filtered])),
            longs(&rows, |row| count(row, &[Reason::OutsideIntervals])),
            longs(&rows, |row| Some(row.persists)),
            longs(&rows, |row| Some(row.hand_offs)),
            longs(&rows, |row| Some(row.handed_off_rows)),
            longs(&rows, |row| Some(row.hand_off_ms)),
            longs(&rows, |row| Some(row.last_hand_off_ms)),
            texts(&rows, |row| row.last_error.as_ref()),
        ];
        batch(self.schema(), columns)
    }
}
