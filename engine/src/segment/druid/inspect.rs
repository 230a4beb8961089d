//! What a Druid segment holds, for people.

use std::fmt;

use super::DruidSegment;
use crate::model::{ColumnSchema, ColumnType, Timestamp};
use crate::segment::Segment;

/// A Druid segment looked at from outside. Shown by `henge segment inspect`.
#[derive(Clone, Debug)]
pub struct DruidInspection {
    name: String,
    size_bytes: u64,
    num_chunks: usize,
    num_rows: usize,
    time_range: Option<(Timestamp, Timestamp)>,
    interval: (i64, i64),
    bitmaps: &'static str,
    rollup: Option<bool>,
    columns: Vec<(ColumnSchema, u64, String)>,
}

impl DruidInspection {
    pub(super) fn new(segment: &DruidSegment) -> Self {
        let mut columns = Vec::new();
        for (index, column) in segment.schema().columns().iter().enumerate() {
            let encoding = match segment.opened(index) {
                Ok(opened) => opened.encoding.clone(),
                Err(error) => format!("cannot be read: {error}"),
            };
            columns.push((column.clone(), segment.container.column_bytes(&column.name), encoding));
        }
        Self {
            name: segment.name.clone(),
            size_bytes: segment.size_bytes(),
            num_chunks: segment.container.num_chunks(),
            num_rows: segment.num_rows(),
            time_range: segment.time_range(),
            interval: segment.index.interval,
            bitmaps: segment.index.bitmaps.name(),
            rollup: segment.rollup,
            columns,
        }
    }
}

impl fmt::Display for DruidInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size_bytes, num_chunks, num_rows, .. } = self;
        let files = if *num_chunks == 1 { "file" } else { "files" };
        writeln!(f, "{name}: Druid's format 9, {num_rows} rows, {size_bytes} bytes in {num_chunks} {files}")?;
        if let Some((first, last)) = self.time_range {
            writeln!(f, "rows from {first} to {last}")?;
        }
        let at = |millis: i64| match millis {
            ..-100_000_000_000_000 | 100_000_000_000_000.. => "eternity".to_owned(),
            _ => Timestamp::from_millis(millis).to_string(),
        };
        writeln!(f, "interval {} to {}, {} bitmaps", at(self.interval.0), at(self.interval.1), self.bitmaps)?;
        if let Some(rollup) = self.rollup {
            writeln!(f, "{}", if rollup { "rolled up" } else { "not rolled up" })?;
        }
        let width = self.columns.iter().map(|(column, ..)| column.name.chars().count()).max().unwrap_or(0);
        for (column, bytes, encoding) in &self.columns {
            let kind = match (column.column_type, column.multi_value) {
                (ColumnType::String, true) => "strings",
                (ColumnType::String, false) => "string",
                (ColumnType::Long, _) => "long",
                (ColumnType::Float, _) => "float",
                (ColumnType::Double, _) => "double",
            };
            writeln!(f, "  {:width$}  {kind:7}  {bytes:>10} bytes  {encoding}", column.name)?;
        }
        Ok(())
    }
}
