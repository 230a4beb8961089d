//! What stands between an aggregation and a scan: its expressions in terms of the scan's columns.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::Volatility;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Partitioning, PhysicalExpr, ScalarFunctionExpr, conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;

use crate::exec::{Computed, SegmentScanExec};
use crate::model::{ColumnRole, ColumnSchema};

/// Rows of a scan, projected and filtered.
pub(super) struct Below {
    scan: Arc<dyn ExecutionPlan>,
    /// Of each column, over the scan's output; `None` for the scan's own columns.
    columns: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// Over the scan's output.
    conditions: Vec<Arc<dyn PhysicalExpr>>,
}

impl Below {
    /// `None` if anything else stands there, or a scan that stops after some rows.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        let plan = passed_on(plan);
        if let Some(scan) = plan.downcast_ref::<SegmentScanExec>() {
            let conditions = scan.condition().cloned().into_iter().collect();
            let found = Self { scan: Arc::clone(plan), columns: None, conditions };
            return Ok(scan.fetch().is_none().then_some(found));
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let Some(below) = Self::of(projection.input())? else { return Ok(None) };
            let columns = projection.expr().iter().map(|projected| below.resolve(&projected.expr));
            let columns = Some(columns.collect::<Result<Vec<_>>>()?);
            return Ok(Some(Self { columns, ..below }));
        }
        let Some(filter) = plan.downcast_ref::<FilterExec>() else { return Ok(None) };
        let Some(mut below) = Self::of(filter.input())? else { return Ok(None) };
        if !is_deterministic(filter.predicate()) || filter.fetch().is_some() {
            return Ok(None);
        }
        below.conditions.push(below.resolve(filter.predicate())?);
        if let Some(projection) = filter.projection().as_ref() {
            let schema = filter.input().schema();
            let columns = projection.iter().map(|&index| {
                below.resolve(&(Arc::new(Column::new(schema.field(index).name(), index)) as Arc<dyn PhysicalExpr>))
            });
            below.columns = Some(columns.collect::<Result<Vec<_>>>()?);
        }
        Ok(Some(below))
    }

    pub(super) fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.scan
    }

    pub(super) fn scan(&self) -> Option<&SegmentScanExec> {
        self.scan.downcast_ref()
    }

    /// What selected rows must fulfil besides. The outer `None` if that cannot be said of the data source's columns.
    pub(super) fn condition(&self) -> Result<Option<Option<Computed>>> {
        if self.conditions.is_empty() {
            return Ok(Some(None));
        }
        let all = conjunction(self.conditions.clone());
        Ok(self.over_source(&all, DataType::Boolean)?.map(Some))
    }

    /// An expression over the rows, over the scan's output.
    pub(super) fn resolve(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let Some(columns) = &self.columns else { return Ok(Arc::clone(expr)) };
        let resolved = Arc::clone(expr).transform_up(|expr| {
            let column = expr.downcast_ref::<Column>().and_then(|column| columns.get(column.index()));
            Ok(column.map(|column| Transformed::yes(Arc::clone(column))).unwrap_or_else(|| Transformed::no(expr)))
        });
        resolved.data()
    }

    /// A deterministic expression over the rows, as one over the data source's columns.
    pub(super) fn computed(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<Computed>> {
        self.computed_over_scan(&self.resolve(expr)?)
    }

    /// The same of an expression over the scan's output.
    pub(super) fn computed_over_scan(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<Computed>> {
        let data_type = expr.data_type(&self.scan.schema())?;
        if is_deterministic(expr) { self.over_source(expr, data_type) } else { Ok(None) }
    }

    fn over_source(&self, expr: &Arc<dyn PhysicalExpr>, data_type: DataType) -> Result<Option<Computed>> {
        let Some(scan) = self.scan() else { return Ok(None) };
        Computed::of(expr, data_type, |index| scan.projection().get(index).copied())
    }

    /// The column of the data source that an expression over the rows is.
    pub(super) fn column_of(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<(usize, &ColumnSchema)>> {
        Ok(self.scanned(&self.resolve(expr)?))
    }

    /// The same of an expression over the scan's output.
    pub(super) fn scanned(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<(usize, &ColumnSchema)> {
        let column = expr.downcast_ref::<Column>()?;
        let index = *self.scan()?.projection().get(column.index())?;
        Some((index, self.described(index)?))
    }

    /// A column of the data source.
    pub(super) fn described(&self, index: usize) -> Option<&ColumnSchema> {
        self.scan()?.source().columns.column(index)
    }

    /// Whether an expression over the data source is of its time alone.
    pub(super) fn is_of_time(&self, computed: &Computed) -> bool {
        let role = |&index: &usize| self.described(index).map(|column| column.role);
        computed.columns.iter().map(role).eq([Some(ColumnRole::Time)])
    }
}

/// What stands below operators that only pass rows on.
fn passed_on(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>()
        && matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_))
    {
        return passed_on(repartition.input());
    }
    match plan.downcast_ref::<CooperativeExec>() {
        Some(cooperative) => passed_on(cooperative.input()),
        None => plan,
    }
}

fn is_deterministic(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let call = expr.downcast_ref::<ScalarFunctionExpr>();
    call.is_none_or(|call| call.fun().signature().volatility != Volatility::Volatile)
        && expr.children().into_iter().all(is_deterministic)
}
