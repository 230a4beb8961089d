use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use henge_engine::Result;
use henge_engine::model::{ColumnRole, ColumnSchema, ColumnType, MetricCombine, SegmentSchema};

/// The schemas of a data source's used segments, and since which `rev` each is there.
#[derive(Debug, Default)]
pub(super) struct SchemaCounts {
    counts: HashMap<Arc<SegmentSchema>, BTreeMap<u64, usize>>,
}

impl SchemaCounts {
    /// Counts a segment's schema, and returns the one that all equal ones share.
    pub(super) fn add(&mut self, schema: &Arc<SegmentSchema>, rev: u64) -> Arc<SegmentSchema> {
        let shared = self.counts.get_key_value(schema).map_or(schema, |(shared, _)| shared);
        let shared = Arc::clone(shared);
        *self.counts.entry(Arc::clone(&shared)).or_default().entry(rev).or_default() += 1;
        shared
    }

    pub(super) fn remove(&mut self, schema: &Arc<SegmentSchema>, rev: u64) {
        let Some(revs) = self.counts.get_mut(schema) else { return };
        if let Some(count) = revs.get_mut(&rev) {
            *count -= 1;
            if *count == 0 {
                revs.remove(&rev);
            }
        }
        if revs.is_empty() {
            self.counts.remove(schema);
        }
    }

    /// The columns of the data source: those of the oldest schema in its order, then what later ones added.
    pub(super) fn union(&self) -> Result<Arc<SegmentSchema>> {
        let mut schemas = self.counts.iter().collect::<Vec<_>>();
        schemas.sort_by_cached_key(|(schema, revs)| {
            let names = schema.columns().iter().map(|column| column.name.clone()).collect::<Vec<_>>();
            (revs.keys().next().copied(), names)
        });
        if let [(only, _)] = schemas.as_slice() {
            return Ok(Arc::clone(only));
        }
        union(schemas.iter().map(|(schema, _)| schema.as_ref())).map(Arc::new)
    }
}

/// The columns of all schemas, each once. Where two differ: numbers meet in DOUBLE, anything else in STRING; a list
/// beside single values makes lists; a column that is a dimension anywhere is one.
pub(crate) fn union<'a>(schemas: impl Iterator<Item = &'a SegmentSchema>) -> Result<SegmentSchema> {
    let mut columns: Vec<ColumnSchema> = Vec::new();
    for column in schemas.flat_map(SegmentSchema::columns) {
        if matches!(column.role, ColumnRole::Time | ColumnRole::EventTime) {
            continue;
        }
        match columns.iter_mut().find(|known| known.name == column.name) {
            Some(known) => *known = promote(known, column),
            None => columns.push(column.clone()),
        }
    }
    // Stable: dimensions keep their order, and metrics theirs.
    columns.sort_by_key(|column| column.role != ColumnRole::Dimension);
    let with_event_times = columns.into_iter().flat_map(|column| {
        let keeps_time = matches!(column.role, ColumnRole::Metric(MetricCombine::First | MetricCombine::Last));
        let event_time = keeps_time.then(|| ColumnSchema::event_time(&column.name));
        std::iter::once(column).chain(event_time)
    });
    SegmentSchema::new(with_event_times)
}

fn promote(a: &ColumnSchema, b: &ColumnSchema) -> ColumnSchema {
    let column_type = match (a.column_type, b.column_type) {
        (a, b) if a == b => a,
        (ColumnType::String, _) | (_, ColumnType::String) => ColumnType::String,
        _ => ColumnType::Double,
    };
    let role = match (a.role, b.role) {
        (ColumnRole::Metric(_), ColumnRole::Metric(_)) if column_type != ColumnType::String => a.role,
        _ => ColumnRole::Dimension,
    };
    ColumnSchema { name: a.name.clone(), column_type, role, multi_value: a.multi_value || b.multi_value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(columns: Vec<ColumnSchema>) -> Arc<SegmentSchema> {
        Arc::new(SegmentSchema::new(columns).expect("valid schema"))
    }

    fn dimension(name: &str, column_type: ColumnType) -> ColumnSchema {
        ColumnSchema::dimension(name, column_type)
    }

    fn shown(schema: &SegmentSchema) -> Vec<String> {
        let columns = schema.columns().iter().skip(1);
        columns.map(|c| format!("{} {:?}{}", c.name, c.column_type, if c.multi_value { "[]" } else { "" })).collect()
    }

    #[test]
    fn later_columns_come_after_older_ones_and_metrics_last() -> Result<()> {
        let mut counts = SchemaCounts::default();
        let sum = |name| ColumnSchema::metric(name, ColumnType::Long, MetricCombine::Sum);
        counts.add(&schema(vec![dimension("new", ColumnType::String), dimension("a", ColumnType::String)]), 9);
        counts.add(&schema(vec![dimension("b", ColumnType::String), dimension("a", ColumnType::String), sum("n")]), 2);
        assert_eq!(shown(&*counts.union()?), ["b String", "a String", "new String", "n Long"]);
        Ok(())
    }

    #[test]
    fn types_that_differ_meet_where_both_fit() -> Result<()> {
        let mut counts = SchemaCounts::default();
        let first = ColumnSchema::metric("f", ColumnType::Long, MetricCombine::First);
        let time = ColumnSchema::event_time("f");
        counts.add(&schema(vec![dimension("s", ColumnType::Long), dimension("m", ColumnType::String), first, time]), 1);
        let last = ColumnSchema::metric("f", ColumnType::Float, MetricCombine::Sum);
        let many = ColumnSchema::multi_value_dimension("m");
        counts.add(&schema(vec![dimension("s", ColumnType::String), many, last]), 2);
        assert_eq!(shown(&*counts.union()?), ["s String", "m String[]", "f Double", "__event_time:f Long"]);
        Ok(())
    }

    #[test]
    fn a_schema_goes_with_its_last_segment() -> Result<()> {
        let mut counts = SchemaCounts::default();
        let (a, b) = (schema(vec![dimension("a", ColumnType::Long)]), schema(vec![dimension("a", ColumnType::String)]));
        let shared = counts.add(&a, 1);
        assert!(Arc::ptr_eq(&shared, &counts.add(&schema(vec![dimension("a", ColumnType::Long)]), 2)));
        counts.add(&b, 3);
        counts.remove(&b, 3);
        assert_eq!(shown(&*counts.union()?), ["a Long"]);
        Ok(())
    }
}
