//! Text read by a pattern.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime};

use super::{Field, MONTHS, Pattern, WEEKDAYS};
use crate::model::{TimeZone, Timestamp};

/// What has been read so far.
#[derive(Default)]
struct Parts {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    hour: Option<u32>,
    half_day: Option<bool>,
    minute: u32,
    second: u32,
    nanos: u32,
    offset_minutes: Option<i64>,
}

impl Pattern {
    /// The instant that `text` says, in `zone` unless it says an offset itself. `None` if it does not fit the pattern, or
    /// holds what is no date.
    pub(in crate::function) fn parse(&self, text: &str, zone: TimeZone) -> Option<Timestamp> {
        let (local, offset_minutes) = self.parse_local(text)?;
        match offset_minutes {
            Some(minutes) => Some(Timestamp::from_millis(local.and_utc().timestamp_millis() - minutes * 60_000)),
            None => Some(zone.to_instant(local)),
        }
    }

    /// The calendar's time that `text` says, and its offset from UTC in minutes if it says one.
    pub(in crate::function) fn parse_local(&self, text: &str) -> Option<(NaiveDateTime, Option<i64>)> {
        let mut parts = Parts::default();
        let mut rest = text.trim();
        for (i, field) in self.fields.iter().enumerate() {
            let next_is_number = self.fields.get(i + 1).is_some_and(is_number);
            rest = read(&mut parts, field, rest, next_is_number)?;
        }
        if !rest.trim().is_empty() {
            return None;
        }
        Some((parts.local()?, parts.offset_minutes))
    }
}

impl Parts {
    fn local(&self) -> Option<NaiveDateTime> {
        let year = self.year.unwrap_or(1970);
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(year, day)?,
            None => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let hour = match (self.hour.unwrap_or(0), self.half_day) {
            (hour, None) => hour,
            (hour @ 0..=12, Some(afternoon)) => hour % 12 + if afternoon { 12 } else { 0 },
            _ => return None,
        };
        let time = NaiveTime::from_hms_nano_opt(hour, self.minute, self.second, self.nanos)?;
        Some(date.and_time(time)).filter(|local| local.year().abs() < 200_000)
    }
}

fn is_number(field: &Field) -> bool {
    !matches!(
        field,
        Field::Literal(_)
            | Field::MonthName { .. }
            | Field::WeekdayName { .. }
            | Field::HalfDay(_)
            | Field::Offset { .. }
            | Field::ShortOffset
    )
}

/// Reads one field from the front of `text` and answers what is left.
fn read<'a>(parts: &mut Parts, field: &Field, text: &'a str, next_is_number: bool) -> Option<&'a str> {
    // A number runs as far as its digits, unless another follows at once: then it has the pattern's width.
    let number = |text: &'a str, width: usize, most: usize| digits(text, if next_is_number { width } else { most });
    let small = |text: &'a str, width: usize| number(text, width.max(2), 2).map(|(value, rest)| (value as u32, rest));
    match field {
        Field::Literal(literal) => return text.strip_prefix(literal.as_str()),
        Field::Year(width) => {
            let (value, rest) = number(text, (*width).max(4), 9)?;
            parts.year = Some(i32::try_from(value).ok()?);
            return Some(rest);
        }
        Field::ShortYear => {
            // As PostgreSQL and Joda around now: 70 to 99 are of the last century.
            let (value, rest) = digits(text, 2)?;
            parts.year = Some(value as i32 + if value < 70 { 2000 } else { 1900 });
            return Some(rest);
        }
        Field::MonthName { short, .. } => {
            let (month, rest) = named(&MONTHS, text, *short)?;
            parts.month = Some(month as u32 + 1);
            return Some(rest);
        }
        Field::WeekdayName { short, .. } => return named(&WEEKDAYS, text, *short).map(|(_, rest)| rest),
        Field::Fraction(width) => {
            let length = text.bytes().take_while(u8::is_ascii_digit).count().min(9);
            let length = if next_is_number { (*width).min(length) } else { length };
            let (value, rest) = digits(text, length)?;
            parts.nanos = (value * 10_i64.pow(9 - length as u32)) as u32;
            return Some(rest);
        }
        Field::HalfDay(_) => {
            let half = text.get(..2)?.to_lowercase();
            parts.half_day = Some(half == "pm");
            return (half == "am" || half == "pm").then(|| &text[2..]);
        }
        Field::Offset { .. } | Field::ShortOffset => return offset(parts, text),
        Field::DayOfYear(width) => {
            let (value, rest) = number(text, (*width).max(3), 3)?;
            parts.day_of_year = Some(value as u32);
            return Some(rest);
        }
        Field::Month(width) => {
            let (value, rest) = small(text, *width)?;
            parts.month = Some(value);
            return Some(rest);
        }
        Field::Day(width) => {
            let (value, rest) = small(text, *width)?;
            parts.day = Some(value);
            return Some(rest);
        }
        Field::Hour24(width) | Field::HalfDayHour(width) => {
            let (value, rest) = small(text, *width)?;
            parts.hour = Some(value);
            return Some(rest);
        }
        Field::ClockHour24(width) => {
            let (value, rest) = small(text, *width)?;
            parts.hour = Some(value % 24);
            return Some(rest);
        }
        Field::Hour12(width) => {
            let (value, rest) = small(text, *width)?;
            parts.hour = (1..=12).contains(&value).then_some(value);
            parts.hour?;
            return Some(rest);
        }
        Field::Minute(width) => {
            let (value, rest) = small(text, *width)?;
            parts.minute = value;
            return Some(rest);
        }
        Field::Second(width) => {
            let (value, rest) = small(text, *width)?;
            parts.second = value;
            return Some(rest);
        }
        // Weeks, quarters and weekdays do not say a day by themselves.
        Field::IsoYear(_)
        | Field::Quarter
        | Field::Week(_)
        | Field::YearWeek(_)
        | Field::IsoWeekday(_)
        | Field::Weekday => {}
    }
    None
}

/// The number at the front, of at least one digit and at most `most`.
fn digits(text: &str, most: usize) -> Option<(i64, &str)> {
    let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(length)?;
    Some((number.parse().ok()?, rest))
}

fn named<'a>(names: &[&str], text: &'a str, short: bool) -> Option<(usize, &'a str)> {
    let begins = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let full = names.iter().position(|name| begins(name)).map(|i| (i, &text[names[i].len()..]));
    full.filter(|_| !short).or_else(|| names.iter().position(|name| begins(&name[..3])).map(|i| (i, &text[3..])))
}

fn offset<'a>(parts: &mut Parts, text: &'a str) -> Option<&'a str> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        parts.offset_minutes = Some(0);
        return Some(rest);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits(&text[1..], 2)?;
    let after = rest.strip_prefix(':').unwrap_or(rest);
    let (minutes, rest) = digits(after, 2).unwrap_or((0, rest));
    parts.offset_minutes = Some(sign * (hours * 60 + minutes));
    Some(rest)
}
