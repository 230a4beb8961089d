//! A segment of either make, from where it lies.

use std::path::Path;
use std::sync::Arc;

use super::druid::{DruidSegment, Nulls};
use super::{Column, Segment, SegmentFile};
use crate::error::Result;
use crate::model::{SegmentSchema, Timestamp};

/// A segment in a file of ours, or in a directory or zip of Druid's.
#[derive(Debug)]
pub enum OpenSegment {
    Ours(SegmentFile),
    Druids(Box<DruidSegment>),
}

impl OpenSegment {
    /// Opens what is at `path`, as it looks. `nulls` matters to Druid's alone.
    pub fn open(path: &Path, nulls: Nulls) -> Result<Self> {
        match DruidSegment::is_at(path) {
            true => DruidSegment::open_path(path, nulls).map(|segment| Self::Druids(Box::new(segment))),
            false => SegmentFile::open(path).map(Self::Ours),
        }
    }

    /// Reads everything and checks what can be checked. The first thing that is wrong is named.
    pub fn verify(&self) -> Result<()> {
        match self {
            Self::Ours(segment) => segment.verify(),
            Self::Druids(segment) => segment.verify(),
        }
    }

    /// What the segment holds and how, for people.
    pub fn inspect(&self) -> Result<String> {
        match self {
            Self::Ours(segment) => Ok(segment.inspect()?.to_string()),
            Self::Druids(segment) => Ok(segment.inspect().to_string()),
        }
    }

    /// Whether rows that agree in time and all dimensions were combined, so that a merge can combine them again. Druid's
    /// are sorted in an order of their own.
    pub fn is_rolled_up(&self) -> bool {
        match self {
            Self::Ours(segment) => segment.is_rolled_up(),
            Self::Druids(_) => false,
        }
    }

    fn segment(&self) -> &dyn Segment {
        match self {
            Self::Ours(segment) => segment,
            Self::Druids(segment) => segment.as_ref(),
        }
    }
}

impl Segment for OpenSegment {
    fn schema(&self) -> &Arc<SegmentSchema> {
        self.segment().schema()
    }

    fn num_rows(&self) -> usize {
        self.segment().num_rows()
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.segment().time_range()
    }

    fn column(&self, index: usize) -> Result<Column> {
        self.segment().column(index)
    }

    fn memory_bytes(&self) -> usize {
        self.segment().memory_bytes()
    }
}
