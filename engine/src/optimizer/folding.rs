//! DataFusion's keys and aggregates as those of our operators, where they can do them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::below::Below;
use crate::exec::{Argument, Computed, Fold, FoldKind, GroupKey, TimeKey, foldable, groupable, is_integral};
use crate::function::time_floor;
use crate::model::{ColumnSchema, ColumnType, Granularity, TIME_COLUMN};

pub(super) fn group_key(expr: &Arc<dyn PhysicalExpr>, below: &Below) -> Result<Option<GroupKey>> {
    if let Some((index, column)) = below.column_of(expr)?
        && index != 0
    {
        let groupable = match column.column_type {
            ColumnType::String => !column.multi_value,
            ColumnType::Long => true,
            ColumnType::Float | ColumnType::Double => false,
        };
        return Ok(groupable.then_some(GroupKey::Column(index)));
    }
    let Some(computed) = below.computed(expr)? else { return Ok(None) };
    if below.is_of_time(&computed) {
        return time_key(computed.expr);
    }
    let [column] = computed.columns.as_slice() else { return Ok(None) };
    let is_text = below.described(*column).is_some_and(is_text);
    Ok((is_text && groupable(&computed.data_type)).then_some(GroupKey::Derived(computed)))
}

pub(super) fn is_text(column: &ColumnSchema) -> bool {
    column.column_type == ColumnType::String && !column.multi_value
}

/// A function of `__time` and nothing else, whose values are integers or times.
fn time_key(expr: Arc<dyn PhysicalExpr>) -> Result<Option<GroupKey>> {
    let time = Field::new(TIME_COLUMN, DataType::Timestamp(TimeUnit::Millisecond, None), false);
    let schema = Schema::new(vec![time]);
    let alone = expr.transform(|expr| {
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

/// An aggregate of rows, without DISTINCT; `filter` is its own.
pub(super) fn fold(
    function: &AggregateFunctionExpr,
    filter: Option<&Arc<dyn PhysicalExpr>>,
    below: &Below,
) -> Result<Option<Fold>> {
    if function.is_distinct() || !function.order_bys().is_empty() {
        return Ok(None);
    }
    let Some(filter) = own_filter(filter, below)? else { return Ok(None) };
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else { return Ok(None) };
    let argument = below.resolve(argument)?;
    if let Some(literal) = argument.downcast_ref::<Literal>() {
        let counts = function.fun().name() == "count" && !literal.value().is_null();
        return Ok(counts.then(|| Fold { filter, ..Fold::rows() }));
    }
    let Some(kind) = kind(function.fun().name()) else { return Ok(None) };
    let fold = match of_column(kind, &argument, below)? {
        Some(fold) => Some(fold),
        None => of_computed(kind, &argument, below)?,
    };
    let Some(fold) = fold.map(|fold| Fold { filter, ..fold }) else { return Ok(None) };
    Ok(states_fit(&fold, function, below)?.then_some(fold))
}

/// The filter of an aggregate's own, if it has one. The outer `None` if it cannot be evaluated by our operators.
pub(super) fn own_filter(filter: Option<&Arc<dyn PhysicalExpr>>, below: &Below) -> Result<Option<Option<Computed>>> {
    match filter {
        None => Ok(Some(None)),
        Some(filter) => Ok(below.computed(filter)?.map(Some)),
    }
}

fn kind(name: &str) -> Option<FoldKind> {
    Some(match name {
        "count" => FoldKind::Count,
        "sum" => FoldKind::Sum,
        "avg" => FoldKind::Average,
        "min" => FoldKind::Min,
        "max" => FoldKind::Max,
        _ => return None,
    })
}

/// `argument` is over the scan's output.
fn of_column(kind: FoldKind, argument: &Arc<dyn PhysicalExpr>, below: &Below) -> Result<Option<Fold>> {
    // What DataFusion sums or averages as a double, we do ourselves.
    let argument = match argument.downcast_ref::<CastExpr>() {
        Some(cast) if *cast.cast_type() == DataType::Float64 && matches!(kind, FoldKind::Sum | FoldKind::Average) => {
            cast.expr()
        }
        _ => argument,
    };
    let Some((column, described)) = below.scanned(argument) else { return Ok(None) };
    Ok(match kind {
        FoldKind::Count if column == 0 => Some(Fold::rows()),
        FoldKind::Count => (!described.multi_value).then(|| Fold::of_column(kind, column)),
        FoldKind::Sum | FoldKind::Average => (column != 0).then(|| Fold::of_column(kind, column)),
        FoldKind::Min | FoldKind::Max => Some(Fold::of_column(kind, column)),
        FoldKind::CountDistinct | FoldKind::EstimateDistinct => None,
    })
}

fn of_computed(kind: FoldKind, argument: &Arc<dyn PhysicalExpr>, below: &Below) -> Result<Option<Fold>> {
    let Some(computed) = below.computed_over_scan(argument)? else { return Ok(None) };
    let is_list = |&column: &usize| below.described(column).is_none_or(|column| column.multi_value);
    let takes = kind == FoldKind::Count || foldable(&computed.data_type);
    if !takes || computed.columns.is_empty() || computed.columns.iter().any(is_list) {
        return Ok(None);
    }
    Ok(Some(Fold { kind, argument: Some(Argument::Computed(computed)), filter: None }))
}

/// Whether the states that the final aggregation expects are those that we make.
fn states_fit(fold: &Fold, function: &AggregateFunctionExpr, below: &Below) -> Result<bool> {
    let fields = function.state_fields()?;
    let states = fields.iter().map(|field| field.data_type()).collect::<Vec<_>>();
    let input = below.scan().and_then(|scan| fold.input_type(&scan.source().columns));
    let described = fold.column().and_then(|column| below.described(column));
    let is_time = described.is_some_and(|column| column.name == TIME_COLUMN);
    Ok(match (fold.kind, states.as_slice()) {
        (FoldKind::Count, [DataType::Int64]) => true,
        (FoldKind::Average, [DataType::UInt64, DataType::Float64]) => input.is_some_and(|t| t != ColumnType::String),
        (FoldKind::Sum, [DataType::Int64 | DataType::Decimal128(38, 0)]) => input == Some(ColumnType::Long),
        (FoldKind::Sum, [DataType::Float64]) => matches!(input, Some(ColumnType::Float | ColumnType::Double)),
        (FoldKind::Min | FoldKind::Max, [state]) => match input {
            Some(ColumnType::Long) if is_time => **state == DataType::Timestamp(TimeUnit::Millisecond, None),
            Some(ColumnType::Long) => **state == DataType::Int64,
            Some(ColumnType::Float) => **state == DataType::Float32,
            Some(ColumnType::Double) => **state == DataType::Float64,
            Some(ColumnType::String) | None => false,
        },
        _ => false,
    })
}
