use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::Volatility;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{Partitioning, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::repartition::RepartitionExec;

use crate::exec::{Fold, GroupKey, HengeOptions, SegmentAggregateExec, SegmentScanExec, TimeKey, is_integral};
use crate::function::time_floor;
use crate::model::{ColumnSchema, ColumnType, Granularity, TIME_COLUMN};

/// Puts `SegmentAggregateExec` in place of a partial aggregation right over a segment scan, if it can do all of it:
/// every key and every aggregate. Otherwise the plan stays.
#[derive(Debug)]
pub struct SegmentAggregateRule;

impl PhysicalOptimizerRule for SegmentAggregateRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !HengeOptions::of(config).segment_aggregate {
            return Ok(plan);
        }
        partials(plan)
    }

    fn name(&self) -> &str {
        "segment_aggregate"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `plan` with every partial aggregation replaced that can be.
pub(super) fn partials(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let replaced =
        plan.transform_down(|plan| match plan.downcast_ref::<AggregateExec>().map(rewrite).transpose()?.flatten() {
            Some(new) => Ok(Transformed::new(new, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(plan)),
        });
    replaced.data()
}

fn rewrite(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let has_filter = aggregate.filter_expr().iter().any(Option::is_some);
    if aggregate.group_expr().has_grouping_set() || has_filter {
        return Ok(None);
    }
    let scan = below(aggregate.input());
    match aggregate.mode() {
        AggregateMode::Partial => partial(aggregate, scan),
        // A scan on one output partition is aggregated in one step: make two of it.
        AggregateMode::Single if scan.properties().partitioning.partition_count() == 1 => {
            let partial_aggregate = AggregateExec::try_new(
                AggregateMode::Partial,
                aggregate.group_expr().clone(),
                aggregate.aggr_expr().to_vec(),
                aggregate.filter_expr().to_vec(),
                Arc::clone(scan),
                aggregate.input_schema(),
            )?;
            let Some(partial) = partial(&partial_aggregate, scan)? else { return Ok(None) };
            Ok(Some(Arc::new(AggregateExec::try_new(
                AggregateMode::Final,
                aggregate.group_expr().as_final(),
                aggregate.aggr_expr().to_vec(),
                aggregate.filter_expr().to_vec(),
                partial,
                aggregate.input_schema(),
            )?)))
        }
        _ => Ok(None),
    }
}

/// What stands below operators that only pass rows on.
pub(super) fn below(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>()
        && matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_))
    {
        return below(repartition.input());
    }
    match plan.downcast_ref::<CooperativeExec>() {
        Some(cooperative) => below(cooperative.input()),
        None => plan,
    }
}

fn partial(aggregate: &AggregateExec, input: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = input.downcast_ref::<SegmentScanExec>() else { return Ok(None) };
    if scan.fetch().is_some() {
        return Ok(None);
    }
    let mut keys = Vec::new();
    for (expr, _) in aggregate.group_expr().expr() {
        let Some(key) = group_key(expr, scan)? else { return Ok(None) };
        keys.push(key);
    }
    let mut folds = Vec::new();
    for function in aggregate.aggr_expr() {
        let Some(fold) = fold(function, scan)? else { return Ok(None) };
        folds.push((fold, function.state_fields()?.len()));
    }
    let schema = aggregate.schema();
    let states = folds.iter().map(|(_, states)| states).sum::<usize>();
    if schema.fields().len() != keys.len() + states {
        return Ok(None);
    }
    Ok(Some(Arc::new(SegmentAggregateExec::new(Arc::clone(input), keys, folds, schema)?)))
}

/// The column of the data source that a column of the scan's output is.
pub(super) fn column_of<'a>(
    expr: &Arc<dyn PhysicalExpr>,
    scan: &'a SegmentScanExec,
) -> Option<(usize, &'a ColumnSchema)> {
    let column = expr.downcast_ref::<Column>()?;
    let index = *scan.projection().get(column.index())?;
    Some((index, scan.source().columns.column(index)?))
}

pub(super) fn group_key(expr: &Arc<dyn PhysicalExpr>, scan: &SegmentScanExec) -> Result<Option<GroupKey>> {
    if let Some((index, column)) = column_of(expr, scan)
        && index != 0
    {
        let groupable = match column.column_type {
            ColumnType::String => !column.multi_value,
            ColumnType::Long => true,
            ColumnType::Float | ColumnType::Double => false,
        };
        return Ok(groupable.then_some(GroupKey::Column(index)));
    }
    time_key(expr, scan)
}

/// A deterministic function of `__time` and nothing else, whose values are integers or times.
fn time_key(expr: &Arc<dyn PhysicalExpr>, scan: &SegmentScanExec) -> Result<Option<GroupKey>> {
    let columns = collect_columns(expr);
    let only_time = columns.iter().all(|column| scan.projection().get(column.index()) == Some(&0));
    if columns.is_empty() || !only_time || !is_deterministic(expr) {
        return Ok(None);
    }
    let time = Field::new(TIME_COLUMN, DataType::Timestamp(TimeUnit::Millisecond, None), false);
    let schema = Schema::new(vec![time]);
    let alone = Arc::clone(expr).transform(|expr| {
        Ok(match expr.is::<Column>() {
            true => Transformed::yes(Arc::new(Column::new(TIME_COLUMN, 0)) as Arc<dyn PhysicalExpr>),
            false => Transformed::no(expr),
        })
    });
    let alone = alone.data()?;
    if !is_integral(&alone.data_type(&schema)?) {
        return Ok(None);
    }
    let (monotone, buckets) = (is_monotone(&alone), buckets(&alone));
    Ok(Some(GroupKey::Time(TimeKey { expr: alone, monotone, buckets })))
}

/// The buckets of a `time_floor` of the time itself, which `date_trunc` and `FLOOR(x TO unit)` have become.
fn buckets(expr: &Arc<dyn PhysicalExpr>) -> Option<Granularity> {
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    let (time, constants) = call.args().split_first()?;
    if call.name() != time_floor::NAME || !time.is::<Column>() {
        return None;
    }
    let literal = |arg: &Arc<dyn PhysicalExpr>| arg.downcast_ref::<Literal>().map(|literal| literal.value().clone());
    let constants = constants.iter().map(literal).collect::<Option<Vec<_>>>()?;
    time_floor::buckets(&constants.iter().map(Some).collect::<Vec<_>>())
}

fn is_deterministic(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let call = expr.downcast_ref::<ScalarFunctionExpr>();
    call.is_none_or(|call| call.fun().signature().volatility != Volatility::Volatile)
        && expr.children().into_iter().all(is_deterministic)
}

/// Functions that cut a time, in their last or first argument, to the beginning of its bucket.
const BUCKETS: &[&str] = &["date_trunc", "date_bin", "time_floor", "time_ceil"];

/// Whether a later time never gives a lesser value.
fn is_monotone(expr: &Arc<dyn PhysicalExpr>) -> bool {
    if expr.is::<Column>() {
        return true;
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        // A local time falls back once a year; so only zones without rules.
        let target = matches!(cast.cast_type(), DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64);
        return target && is_monotone(cast.expr());
    }
    let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else { return false };
    let times = call.args().iter().filter(|arg| !arg.is::<Literal>()).collect::<Vec<_>>();
    let no_zone = matches!(call.return_type(), DataType::Timestamp(_, None));
    match times.as_slice() {
        [time] => no_zone && BUCKETS.contains(&call.name()) && is_monotone(time),
        _ => false,
    }
}

pub(super) fn fold(function: &AggregateFunctionExpr, scan: &SegmentScanExec) -> Result<Option<Fold>> {
    if function.is_distinct() || !function.order_bys().is_empty() {
        return Ok(None);
    }
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else { return Ok(None) };
    let name = function.fun().name();
    if let Some(literal) = argument.downcast_ref::<Literal>() {
        return Ok((name == "count" && !literal.value().is_null()).then_some(Fold::CountRows));
    }
    // What DataFusion sums or averages as a double, we do ourselves.
    let argument = match argument.downcast_ref::<CastExpr>() {
        Some(cast) if *cast.cast_type() == DataType::Float64 && matches!(name, "sum" | "avg") => cast.expr(),
        _ => argument,
    };
    let Some((column, described)) = column_of(argument, scan) else { return Ok(None) };
    let fold = match name {
        "count" if column == 0 => Fold::CountRows,
        "count" if !described.multi_value => Fold::Count { column },
        "sum" if column != 0 => Fold::Sum { column },
        "avg" if column != 0 => Fold::Average { column },
        "min" => Fold::Min { column },
        "max" => Fold::Max { column },
        _ => return Ok(None),
    };
    Ok(states_fit(fold, described, function)?.then_some(fold))
}

/// Whether the states that the final aggregation expects are those that we make.
fn states_fit(fold: Fold, column: &ColumnSchema, function: &AggregateFunctionExpr) -> Result<bool> {
    let fields = function.state_fields()?;
    let states = fields.iter().map(|field| field.data_type()).collect::<Vec<_>>();
    let is_time = column.name == TIME_COLUMN;
    Ok(match (fold, states.as_slice()) {
        (Fold::CountRows | Fold::Count { .. }, [DataType::Int64]) => true,
        (Fold::Average { .. }, [DataType::UInt64, DataType::Float64]) => column.column_type != ColumnType::String,
        (Fold::Sum { .. }, [DataType::Int64 | DataType::Decimal128(38, 0)]) => column.column_type == ColumnType::Long,
        (Fold::Sum { .. }, [DataType::Float64]) => matches!(column.column_type, ColumnType::Float | ColumnType::Double),
        (Fold::Min { .. } | Fold::Max { .. }, [state]) => match column.column_type {
            ColumnType::Long if is_time => **state == DataType::Timestamp(TimeUnit::Millisecond, None),
            ColumnType::Long => **state == DataType::Int64,
            ColumnType::Float => **state == DataType::Float32,
            ColumnType::Double => **state == DataType::Float64,
            ColumnType::String => false,
        },
        _ => false,
    })
}
