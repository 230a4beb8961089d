//! Comparisons of times with constants, exactly and in the column's own type, so that they prune segments.
//!
//! DataFusion compares a time in milliseconds with a literal by way of nanoseconds: years outside 1677 to 2262 fail, and a
//! fraction of a millisecond is cut off. Here the constant is brought to the column instead, before types are settled:
//! `__time <= '9999-12-31'`, `__time::date = '2013-08-01'` and `__time BETWEEN …` end as comparisons of the bare column
//! with milliseconds. Text is read as PostgreSQL reads it, in UTC unless it says an offset.

use chrono::{NaiveDate, NaiveTime};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, lit, not};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;

const MILLIS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);
const DAY_MS: i64 = 86_400_000;

/// Runs before DataFusion's coercion, which would cast the column.
#[derive(Debug)]
pub(in crate::session) struct TimeComparison;

impl AnalyzerRule for TimeComparison {
    fn name(&self) -> &str {
        "time_comparison"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| {
            // Rows of literals have a schema already, which a literal of another type would not fit.
            let literals = matches!(plan, LogicalPlan::Values(_));
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| rewrite(expr, &schema, literals))?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(plan.data)
    }
}

fn rewrite(expr: Expr, schema: &DFSchema, literals: bool) -> Result<Transformed<Expr>> {
    let rewritten = match &expr {
        Expr::Cast(cast) => literal_cast(cast)?.filter(|found| !literals || has_type(found, cast)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            match comparison(left, *op, right, schema)? {
                Some(found) => Some(found),
                None => match op.swap() {
                    Some(swapped) => comparison(right, swapped, left, schema)?,
                    None => None,
                },
            }
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let low = comparison(expr, Operator::GtEq, low, schema)?;
            let high = comparison(expr, Operator::LtEq, high, schema)?;
            low.zip(high).map(|(low, high)| if *negated { not(low.and(high)) } else { low.and(high) })
        }
        Expr::InList(list) => in_list(list, schema)?,
        _ => None,
    };
    Ok(rewritten.map_or_else(|| Transformed::no(expr), Transformed::yes))
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// `TIMESTAMP '…'` and `'…'::timestamptz` in PostgreSQL's microseconds, which hold its whole range of years.
fn literal_cast(cast: &Cast) -> Result<Option<Expr>> {
    let (DataType::Timestamp(TimeUnit::Nanosecond | TimeUnit::Microsecond, zone), Some(text)) =
        (cast.field.data_type(), text_of(&cast.expr))
    else {
        return Ok(None);
    };
    let zone = zone.as_ref().map(|_| "+00:00".into());
    Ok(Some(lit(ScalarValue::TimestampMicrosecond(Some(read(text)?), zone))))
}

fn has_type(literal: &Expr, cast: &Cast) -> bool {
    literal.as_literal().is_some_and(|value| value.data_type() == *cast.field.data_type())
}

fn text_of(expr: &Expr) -> Option<&str> {
    expr.as_literal().and_then(|value| value.try_as_str().flatten())
}

/// The instant of a constant, in microseconds.
fn instant(expr: &Expr) -> Result<Option<i64>> {
    let Expr::Literal(value, _) = expr else {
        return match expr {
            Expr::Cast(cast) if *cast.field.data_type() == DataType::Date32 => {
                text_of(&cast.expr).map(read).transpose()
            }
            _ => Ok(None),
        };
    };
    Ok(match value {
        ScalarValue::TimestampSecond(Some(value), _) => value.checked_mul(1_000_000),
        ScalarValue::TimestampMillisecond(Some(value), _) => value.checked_mul(1000),
        ScalarValue::TimestampMicrosecond(Some(value), _) => Some(*value),
        ScalarValue::Date32(Some(days)) => i64::from(*days).checked_mul(DAY_MS * 1000),
        _ => return text_of(expr).map(read).transpose(),
    })
}

/// `time op constant`, if that is what it is.
fn comparison(time: &Expr, op: Operator, constant: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    if let Expr::Cast(cast) = time
        && *cast.field.data_type() == DataType::Date32
        && is_time(&cast.expr, schema)
    {
        let Some(micros) = instant(constant)? else { return Ok(None) };
        return Ok(date_comparison(&cast.expr, op, micros));
    }
    if !is_time(time, schema) {
        return text_comparison(time, op, constant, schema);
    }
    let Some(micros) = instant(constant)? else { return Ok(None) };
    Ok(Some(time_comparison(time, op, micros)))
}

/// Text beside PostgreSQL's own timestamps, which DataFusion would read as nanoseconds.
fn text_comparison(time: &Expr, op: Operator, constant: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (Some(text), Ok(DataType::Timestamp(TimeUnit::Microsecond, zone))) = (text_of(constant), time.get_type(schema))
    else {
        return Ok(None);
    };
    if time.as_literal().is_some() || zone.as_ref().is_some_and(|zone| zone.as_ref() != "+00:00") {
        return Ok(None);
    }
    let literal = lit(ScalarValue::TimestampMicrosecond(Some(read(text)?), zone));
    Ok(Some(datafusion::logical_expr::binary_expr(time.clone(), op, literal)))
}

fn is_time(expr: &Expr, schema: &DFSchema) -> bool {
    expr.as_literal().is_none() && expr.get_type(schema).is_ok_and(|data_type| data_type == MILLIS)
}

fn time_comparison(time: &Expr, op: Operator, micros: i64) -> Expr {
    let millis = bound(micros.div_euclid(1000));
    let time = time.clone();
    if micros.rem_euclid(1000) == 0 {
        return datafusion::logical_expr::binary_expr(time, op, millis);
    }
    // Between two milliseconds: nothing is equal to it, and what is before it is not after the earlier one.
    match op {
        Operator::Gt | Operator::GtEq => time.gt(millis),
        Operator::Lt | Operator::LtEq => time.lt_eq(millis),
        Operator::NotEq | Operator::IsDistinctFrom => time.clone().gt(millis.clone()).or(time.lt_eq(millis)),
        _ => time.clone().gt(millis.clone()).and(time.lt_eq(millis)),
    }
}

/// `time::date op constant`; the constant's own time of day is cut off, as PostgreSQL does for a date.
fn date_comparison(time: &Expr, op: Operator, micros: i64) -> Option<Expr> {
    let day = micros.div_euclid(DAY_MS * 1000) * DAY_MS;
    let (start, end) = (bound(day), bound(day + DAY_MS));
    let time = time.clone();
    Some(match op {
        Operator::Eq => time.clone().gt_eq(start).and(time.lt(end)),
        Operator::NotEq => time.clone().lt(start).or(time.gt_eq(end)),
        Operator::Lt => time.lt(start),
        Operator::LtEq => time.lt(end),
        Operator::Gt => time.gt_eq(end),
        Operator::GtEq => time.gt_eq(start),
        _ => return None,
    })
}

fn bound(millis: i64) -> Expr {
    lit(ScalarValue::TimestampMillisecond(Some(millis), None))
}

/// Of a list, what lies between two milliseconds cannot be found and is left out.
fn in_list(list: &InList, schema: &DFSchema) -> Result<Option<Expr>> {
    if !is_time(&list.expr, schema) {
        return Ok(None);
    }
    let Some(instants) = list.list.iter().map(instant).collect::<Result<Option<Vec<i64>>>>()? else { return Ok(None) };
    let whole = instants.into_iter().filter(|micros| micros.rem_euclid(1000) == 0);
    let bounds: Vec<Expr> = whole.map(|micros| bound(micros / 1000)).collect();
    Ok((!bounds.is_empty()).then(|| Expr::InList(InList::new(list.expr.clone(), bounds, list.negated))))
}

/// Reads a date, or a date and a time, into microseconds of UTC.
fn read(text: &str) -> Result<i64> {
    parse(text.trim()).ok_or_else(|| {
        let message = format!("invalid input syntax for type timestamp: `{text}`");
        Error::invalid_input(message)
            .with_sqlstate("22007")
            .with_hint("write it as `2013-08-01 12:30:00` or `2013-08-01T12:30:00Z`")
            .into()
    })
}

fn parse(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time.trim()),
        None => (text.strip_suffix('Z').unwrap_or(text), ""),
    };
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let (clock, offset) = split_offset(time)?;
    let clock = match clock {
        "" => NaiveTime::MIN,
        hour if hour.len() == 2 => NaiveTime::from_hms_opt(hour.parse().ok()?, 0, 0)?,
        clock => ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|format| NaiveTime::parse_from_str(clock, format).ok())?,
    };
    let micros = date.and_time(clock).and_utc().timestamp_micros();
    micros.checked_sub(offset * 60_000_000)
}

/// A time of day without its offset, and the offset in minutes.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']).or_else(|| time.strip_suffix("UTC")) {
        return Some((clock.trim_end(), 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (clock, offset) = time.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits = offset[1..].replace(':', "");
    let (hours, minutes) = match digits.len() {
        1 | 2 => (digits.parse::<i64>().ok()?, 0),
        4 => (digits[..2].parse().ok()?, digits[2..].parse::<i64>().ok()?),
        _ => return None,
    };
    Some((clock.trim_end(), sign * (hours * 60 + minutes)))
}
