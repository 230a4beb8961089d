//! An ingestion spec made ready for rows: names resolved, formats and expressions compiled.

use std::collections::HashSet;

use super::buffer::Wanted;
use super::timestamp::TimestampParser;
use super::transform::Transforms;
use crate::error::Result;
use crate::model::{
    ColumnType, DataSchema, Granularity, Interval, MetricSpec, MultiValueHandling, TIME_COLUMN, Timestamp,
};

/// What every thread needs to know of the spec.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) time_column: String,
    pub(super) time: TimestampParser,
    pub(super) transforms: Transforms,
    /// Dimensions asked for, in order.
    pub(super) dimensions: Vec<(String, Wanted)>,
    /// What fields that were not asked for become; `None` leaves them out.
    pub(super) discovers: Option<Wanted>,
    /// Fields that are not discovered.
    pub(super) excluded: HashSet<String>,
    pub(super) metrics: Vec<MetricSpec>,
    pub(super) segment_granularity: Granularity,
    pub(super) query_granularity: Granularity,
    /// In order, not overlapping; none is all of time.
    pub(super) intervals: Vec<Interval>,
    pub(super) rollup: bool,
}

impl Plan {
    pub(super) fn new(schema: &DataSchema) -> Result<Self> {
        let spec = &schema.dimensions_spec;
        let text = Wanted::Text(MultiValueHandling::default());
        let found = if spec.use_schema_discovery { Wanted::Discovered } else { text };
        let dimensions = spec.dimensions.iter().map(|dimension| {
            let wanted = Wanted::of(dimension.column_type, dimension.multi_value_handling);
            (dimension.name.clone(), wanted)
        });
        let granularity = &schema.granularity_spec;
        Ok(Self {
            time_column: schema.timestamp_spec.column.clone(),
            time: TimestampParser::new(&schema.timestamp_spec)?,
            transforms: Transforms::compile(&schema.transform_spec)?,
            dimensions: dimensions.collect(),
            discovers: spec.discovers().then_some(found),
            excluded: excluded(schema),
            metrics: schema.metrics_spec.clone(),
            segment_granularity: granularity.segment_granularity,
            query_granularity: granularity.query_granularity,
            intervals: condensed(&granularity.intervals),
            rollup: schema.rolls_up(),
        })
    }

    /// Whether rows of this time are wanted.
    pub(super) fn wants(&self, millis: i64) -> bool {
        let time = Timestamp::from_millis(millis);
        let next = self.intervals.partition_point(|interval| interval.end() <= time);
        self.intervals.is_empty() || self.intervals.get(next).is_some_and(|interval| interval.contains(time))
    }

    /// The time to store for an event: truncated, but never out of its segment's granule.
    pub(super) fn stored_time(&self, millis: i64) -> i64 {
        if self.query_granularity == Granularity::None {
            return millis;
        }
        let time = Timestamp::from_millis(millis);
        let truncated = self.query_granularity.truncate(time);
        truncated.max(self.segment_granularity.truncate(time)).millis()
    }

    /// The type of a dimension that held nothing but nulls.
    pub(super) fn type_without_values(&self, name: &str) -> ColumnType {
        match self.dimensions.iter().find(|(dimension, _)| dimension == name) {
            Some((_, Wanted::Long)) => ColumnType::Long,
            Some((_, Wanted::Float)) => ColumnType::Float,
            Some((_, Wanted::Double)) => ColumnType::Double,
            _ => ColumnType::String,
        }
    }
}

/// As in Druid: the time column, what metrics read and are called, and what is excluded by name.
fn excluded(schema: &DataSchema) -> HashSet<String> {
    let metrics = schema.metrics_spec.iter();
    let names = metrics.flat_map(|metric| std::iter::once(&metric.name).chain(&metric.field));
    let mut excluded = names.cloned().collect::<HashSet<_>>();
    excluded.extend(schema.dimensions_spec.dimension_exclusions.iter().cloned());
    excluded.insert(schema.timestamp_spec.column.clone());
    excluded.insert(TIME_COLUMN.to_owned());
    excluded
}

fn condensed(intervals: &[Interval]) -> Vec<Interval> {
    let mut sorted = intervals.to_vec();
    sorted.sort_unstable();
    let mut condensed: Vec<Interval> = Vec::new();
    for interval in sorted {
        match condensed.last_mut().filter(|last| last.end() >= interval.start()) {
            Some(last) => *last = Interval::new(last.start(), last.end().max(interval.end())).unwrap_or(interval),
            None => condensed.push(interval),
        }
    }
    condensed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_that_overlap_are_one() -> Result<()> {
        let mut schema = DataSchema::new("a", "t");
        schema.granularity_spec.intervals =
            ["2013-08-03/P1D", "2013-08-01/P1D", "2013-08-01T12:00/P1D"].map(|text| text.parse().unwrap()).to_vec();
        let plan = Plan::new(&schema)?;
        assert_eq!(plan.intervals.len(), 2);
        for (time, wanted) in [
            ("2013-07-31T23:59:59.999Z", false),
            ("2013-08-01", true),
            ("2013-08-02T11:59", true),
            ("2013-08-02T12:00", false),
            ("2013-08-03", true),
            ("2013-08-04", false),
        ] {
            assert_eq!(plan.wants(time.parse::<Timestamp>()?.millis()), wanted, "{time}");
        }
        Ok(())
    }

    #[test]
    fn truncation_does_not_leave_the_granule() -> Result<()> {
        let mut schema = DataSchema::new("a", "t");
        schema.granularity_spec.query_granularity = Granularity::All;
        let plan = Plan::new(&schema)?;
        let time: Timestamp = "2013-08-01T13:00".parse()?;
        assert_eq!(Timestamp::from_millis(plan.stored_time(time.millis())), "2013-08-01".parse()?);
        Ok(())
    }
}
