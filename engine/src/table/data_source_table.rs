use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::filter::{self, Columns, Pushed};
use super::{SegmentSource, VisibleSegment};
use crate::exec::{HengeOptions, Predicate, ScanSource, SegmentScanExec, TimeRanges, arrow_field};
use crate::model::{ColumnRole, Interval, Timestamp};

/// A data source as a table of DataFusion.
///
/// `__time` and the dimensions and metrics are its columns, in the segments' order; event times are hidden. A plan is
/// made over the segments that the source shows at that moment, and keeps them.
pub struct DataSourceTable {
    name: String,
    source: Arc<dyn SegmentSource>,
    /// As the source's were when the table was made.
    columns: Columns,
    schema: SchemaRef,
}

impl DataSourceTable {
    pub fn new(name: impl Into<String>, source: Arc<dyn SegmentSource>) -> Self {
        let columns = source.schema();
        let shown = columns.columns().iter().enumerate().filter(|(_, column)| column.role != ColumnRole::EventTime);
        let shown = shown.map(|(index, _)| index).collect::<Vec<_>>();
        let fields = shown.iter().map(|&index| arrow_field(&columns.columns()[index]));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { name: name.into(), source, columns: Columns::new(columns), schema }.with_shown(shown)
    }

    fn with_shown(mut self, shown: Vec<usize>) -> Self {
        self.columns.shown = shown;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its segments come from.
    pub fn source(&self) -> &Arc<dyn SegmentSource> {
        &self.source
    }

    /// The segments that may hold rows within `times`. Asks nothing of the others.
    fn segments(&self, times: &TimeRanges) -> Result<Vec<VisibleSegment>> {
        let Some((start, end)) = times.hull() else { return Ok(Vec::new()) };
        let start = Timestamp::from_millis(start).max(Timestamp::MIN);
        let end = Timestamp::from_millis(end).min(Timestamp::MAX);
        let Ok(interval) = Interval::new(start, end) else { return Ok(Vec::new()) };
        let mut segments = self.source.visible(&interval)?;
        segments.retain(|visible| may_hold(visible, times));
        Ok(segments)
    }

    fn scan_source(&self, predicate: Option<Predicate>) -> Result<Arc<ScanSource>> {
        let times = predicate.as_ref().map_or_else(TimeRanges::all, Predicate::times);
        let segments = self.segments(&times)?;
        Ok(Arc::new(ScanSource {
            data_source: self.name.clone(),
            columns: Arc::clone(&self.columns.schema),
            considered: self.source.num_visible().max(segments.len()),
            segments,
            predicate,
        }))
    }

    fn scan_of(
        &self,
        state: &dyn Session,
        predicate: Option<Predicate>,
        projection: Vec<usize>,
        limit: Option<usize>,
    ) -> Result<SegmentScanExec> {
        let source = self.scan_source(predicate)?;
        let target = state.config().target_partitions();
        let scan = SegmentScanExec::new(source, projection, limit, target);
        match HengeOptions::of(state.config_options()).elsewhere {
            Some(_) => Ok(scan.spread_over_two()),
            None => Ok(scan),
        }
    }

    /// What DataFusion's own operators do, on top of a scan of everything.
    fn filtered_above(
        &self,
        state: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
        predicate: Option<Predicate>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Segments are pruned by time even so.
        let times = predicate.map(|predicate| Predicate::Time(predicate.times()));
        let times = times.filter(|times| times.times() != TimeRanges::all());
        let all = self.columns.shown.clone();
        let scan = self.scan_of(state, times, all, None)?;
        let filter = filters.iter().map(filter::unqualified).collect::<Result<Vec<_>>>()?;
        let Some(filter) = conjunction(filter) else { return Ok(Arc::new(scan)) };
        let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        let filtered = FilterExec::try_new(state.create_physical_expr(filter, &schema)?, Arc::new(scan))?;
        let columns = projection.iter().map(|&index| {
            let name = self.schema.field(index).name();
            (Arc::new(Column::new(name, index)) as _, name.clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), Arc::new(filtered))?))
    }
}

fn may_hold(visible: &VisibleSegment, times: &TimeRanges) -> bool {
    let clip = TimeRanges::between(visible.clip.start().millis(), visible.clip.end().millis());
    let wanted = clip.intersect(times);
    visible
        .segment
        .time_range()
        .is_some_and(|(first, last)| wanted.overlaps(first.millis(), last.millis().saturating_add(1)))
}

impl fmt::Debug for DataSourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSourceTable").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for DataSourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match filter::Condition::of(filter, &self.columns) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let Pushed { predicate, complete } = filter::push_down(filters, &self.columns, state)?;
        let settings = HengeOptions::of(state.config_options());
        let is_off = !settings.filter_pushdown && !filters.is_empty();
        let travels = predicate.iter().flat_map(Predicate::conditions).all(|condition| settings.travels(condition));
        if is_off || !complete || !travels {
            return self.filtered_above(state, &projection, filters, predicate);
        }
        let projection = projection.iter().map(|&index| self.columns.shown[index]).collect();
        Ok(Arc::new(self.scan_of(state, predicate, projection, limit)?))
    }
}

#[cfg(test)]
mod tests;
