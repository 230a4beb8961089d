//! A segment that only others have.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{SegmentSchema, Timestamp};
use crate::segment::{Column, Segment};

/// Whether more rows may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowCount {
    Final(usize),
    /// Of a segment that still grows: about so many.
    Growing(usize),
}

/// What a broker knows of a segment: enough to plan, nothing to read.
#[derive(Debug)]
pub struct RemoteSegment {
    schema: Arc<SegmentSchema>,
    rows: RowCount,
    time_range: Option<(Timestamp, Timestamp)>,
}

impl RemoteSegment {
    /// `time_range` holds the times of all rows, and of a growing segment of all that may come; `None` if there are none.
    pub fn new(schema: Arc<SegmentSchema>, rows: RowCount, time_range: Option<(Timestamp, Timestamp)>) -> Self {
        Self { schema, rows, time_range }
    }
}

impl Segment for RemoteSegment {
    fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    fn num_rows(&self) -> usize {
        match self.rows {
            RowCount::Final(rows) | RowCount::Growing(rows) => rows,
        }
    }

    fn is_final(&self) -> bool {
        matches!(self.rows, RowCount::Final(_))
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.time_range
    }

    fn column(&self, _: usize) -> Result<Column> {
        Err(Error::defensive("a segment was to be read that other processes serve"))
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
    }
}
