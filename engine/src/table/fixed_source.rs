use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

use super::{KeptPlans, SegmentSource, VisibleSegment};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, Interval, SegmentId, SegmentSchema, SegmentUid};
use crate::segment::Segment;

/// A fixed list of segments, for tests and for programs that embed the engine without a catalog.
#[derive(Debug)]
pub struct FixedSource {
    schema: Arc<SegmentSchema>,
    segments: Vec<VisibleSegment>,
    plans: KeptPlans,
}

impl FixedSource {
    /// `segments` must not hold a row twice; `schema` has the columns of all of them.
    pub fn new(schema: Arc<SegmentSchema>, segments: Vec<VisibleSegment>) -> Self {
        Self { schema, segments, plans: KeptPlans::default() }
    }

    /// All rows of `segments`, as partitions of one interval. The columns are the union of theirs. Fails when two
    /// segments disagree about a column.
    pub fn of(data_source: &str, segments: Vec<Arc<dyn Segment>>) -> Result<Self> {
        let schema = Arc::new(union(segments.iter().map(|segment| segment.schema().as_ref()))?);
        let visible = segments.into_iter().zip(0..).map(|(segment, partition)| VisibleSegment {
            id: Arc::new(SegmentId {
                data_source: data_source.to_owned(),
                interval: Interval::ETERNITY,
                version: "0".to_owned(),
                partition,
            }),
            uid: SegmentUid::numbered(partition),
            clip: Interval::ETERNITY,
            segment,
        });
        Ok(Self::new(schema, visible.collect()))
    }
}

impl SegmentSource for FixedSource {
    fn schema(&self) -> Arc<SegmentSchema> {
        Arc::clone(&self.schema)
    }

    fn visible(&self, interval: &Interval) -> Result<Vec<VisibleSegment>> {
        Ok(self.segments.iter().filter(|visible| visible.clip.overlaps(interval)).cloned().collect())
    }

    fn num_visible(&self) -> usize {
        self.segments.len()
    }

    fn keep(&self, plan: Arc<dyn ExecutionPlan>) {
        self.plans.keep(plan);
    }
}

/// The columns of all schemas, each once: dimensions, then metrics with their event times.
fn union<'a>(schemas: impl Iterator<Item = &'a SegmentSchema>) -> Result<SegmentSchema> {
    let mut columns: Vec<ColumnSchema> = Vec::new();
    for column in schemas.flat_map(|schema| &schema.columns()[1..]) {
        match columns.iter().find(|known| known.name == column.name) {
            None => columns.push(column.clone()),
            Some(known) if known == column => {}
            Some(_) => {
                let message = format!("column `{}` is not the same in all segments", column.name);
                return Err(Error::invalid_input(message));
            }
        }
    }
    // The sort is stable: an event time stays behind its metric.
    columns.sort_by_key(|column| column.role != ColumnRole::Dimension);
    SegmentSchema::new(columns)
}
