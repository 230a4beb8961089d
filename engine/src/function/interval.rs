//! Intervals: made, multiplied, brought to larger units, and between two times.

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDateTime};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;

use super::argument;
use super::by_row::{by_row, double};
use crate::error::Error;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const DAY: i64 = 86_400_000_000_000;
const DAYS_A_MONTH: f64 = 30.0;
const MONTH_DAYS: i32 = 30;

pub(super) fn all() -> Vec<ScalarUDF> {
    let numbers = |name: &str, given: &[DataType]| {
        let wanted: Vec<DataType> = vec![DataType::Float64; 7];
        argument::coerce(name, given, 7, &wanted)
    };
    let product = |name: &str, given: &[DataType]| argument::coerce(name, given, 2, &[INTERVAL, DataType::Float64]);
    let one = |name: &str, given: &[DataType]| argument::coerce(name, given, 1, &[INTERVAL]);
    let times = |name: &str, given: &[DataType]| argument::coerce(name, given, 2, &[MICROS, MICROS]);
    vec![
        by_row("make_interval", numbers, INTERVAL, || Box::new(made)),
        by_row("interval_times", product, INTERVAL, || {
            Box::new(|values| times_of(interval(&values[0]), double(&values[1])))
        }),
        by_row("justify_hours", one, INTERVAL, || Box::new(|values| Ok(scalar(hours_to_days(interval(&values[0])))))),
        by_row("justify_days", one, INTERVAL, || Box::new(|values| Ok(scalar(days_to_months(interval(&values[0])))))),
        by_row("justify_interval", one, INTERVAL, || {
            Box::new(|values| {
                let months = days_to_months(hours_to_days(interval(&values[0])));
                Ok(scalar(hours_to_days(months)))
            })
        }),
        by_row("age", times, INTERVAL, || Box::new(|values| age(&values[0], &values[1]))),
    ]
}

fn interval(value: &ScalarValue) -> IntervalMonthDayNano {
    if let ScalarValue::IntervalMonthDayNano(Some(value)) = value { *value } else { IntervalMonthDayNano::new(0, 0, 0) }
}

fn scalar(value: IntervalMonthDayNano) -> ScalarValue {
    ScalarValue::IntervalMonthDayNano(Some(value))
}

fn out_of_range() -> datafusion::error::DataFusionError {
    Error::invalid_input("interval out of range").with_sqlstate("22008").into()
}

/// Years, months, weeks, days, hours, minutes and seconds.
fn made(values: &[ScalarValue]) -> Result<ScalarValue> {
    let part = |at: usize| double(&values[at]);
    let months = whole(part(0) * 12.0 + part(1))?;
    let days = whole(part(2) * 7.0 + part(3))?;
    let micros = (part(4) * 3_600e6 + part(5) * 60e6 + part(6) * 1e6).round();
    Ok(scalar(IntervalMonthDayNano::new(months, days, nanos(micros)?)))
}

fn whole(value: f64) -> Result<i32> {
    let rounded = value.trunc();
    if rounded.abs() <= f64::from(i32::MAX) { Ok(rounded as i32) } else { Err(out_of_range()) }
}

fn nanos(micros: f64) -> Result<i64> {
    if micros.abs() < 9.2e15 { Ok(micros as i64 * 1000) } else { Err(out_of_range()) }
}

/// A fraction of a month counts in days of 30 to one, a fraction of a day in its time.
fn times_of(interval: IntervalMonthDayNano, factor: f64) -> Result<ScalarValue> {
    let months = f64::from(interval.months) * factor;
    let days = f64::from(interval.days) * factor;
    let day_rest = days - days.trunc() + (months - months.trunc()) * DAYS_A_MONTH;
    let micros = (interval.nanoseconds / 1000) as f64 * factor;
    let day_micros = 86_400e6;
    let time = micros + (day_rest - day_rest.trunc()) * day_micros;
    let days = whole(days.trunc() + day_rest.trunc())?;
    Ok(scalar(IntervalMonthDayNano::new(whole(months)?, days, nanos(time.round())?)))
}

/// 24 hours are a day, and hours have the days' sign.
fn hours_to_days(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let mut days = i64::from(interval.days) + interval.nanoseconds / DAY;
    let mut nanos = interval.nanoseconds % DAY;
    if days > 0 && nanos < 0 {
        (days, nanos) = (days - 1, nanos + DAY);
    } else if days < 0 && nanos > 0 {
        (days, nanos) = (days + 1, nanos - DAY);
    }
    IntervalMonthDayNano::new(interval.months, days as i32, nanos)
}

/// 30 days are a month, and days have the months' sign.
fn days_to_months(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let mut months = interval.months.saturating_add(interval.days / MONTH_DAYS);
    let mut days = interval.days % MONTH_DAYS;
    if months > 0 && (days < 0 || days == 0 && interval.nanoseconds < 0) {
        (months, days) = (months - 1, days + MONTH_DAYS);
    } else if months < 0 && (days > 0 || days == 0 && interval.nanoseconds > 0) {
        (months, days) = (months + 1, days - MONTH_DAYS);
    }
    IntervalMonthDayNano::new(months, days, interval.nanoseconds)
}

/// Years, months, days and time by the calendar from the second time to the first.
fn age(later: &ScalarValue, earlier: &ScalarValue) -> Result<ScalarValue> {
    let (later, earlier) = (calendar(later)?, calendar(earlier)?);
    if later < earlier {
        let span = between(earlier, later);
        return Ok(scalar(IntervalMonthDayNano::new(-span.months, -span.days, -span.nanoseconds)));
    }
    Ok(scalar(between(later, earlier)))
}

fn calendar(value: &ScalarValue) -> Result<NaiveDateTime> {
    let ScalarValue::TimestampMicrosecond(Some(micros), _) = value else { return Err(out_of_range()) };
    DateTime::from_timestamp_micros(*micros).map(|instant| instant.naive_utc()).ok_or_else(out_of_range)
}

/// Of days that are short, those of the earlier time's month are borrowed, as PostgreSQL does.
fn between(later: NaiveDateTime, earlier: NaiveDateTime) -> IntervalMonthDayNano {
    let mut months = (later.year() - earlier.year()) * 12 + later.month() as i32 - earlier.month() as i32;
    let mut days = later.day() as i32 - earlier.day() as i32;
    let mut nanos = (later.time() - earlier.time()).num_nanoseconds().unwrap_or_default();
    if nanos < 0 {
        (days, nanos) = (days - 1, nanos + DAY);
    }
    if days < 0 {
        (months, days) = (months - 1, days + i32::from(earlier.num_days_in_month()));
    }
    IntervalMonthDayNano::new(months, days, nanos)
}
