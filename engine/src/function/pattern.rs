//! Patterns of dates and times: Joda's, as Druid takes them, and PostgreSQL's templates, read into one list of fields.
//!
//! Invariant: a letter that is not known is an error when the pattern is read; nothing is copied in silence.

mod joda;
mod number;
mod parse;
mod template;

use chrono::{Datelike, NaiveDateTime, Timelike};

pub(in crate::function) use number::NumberTemplate;

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letters {
    Upper,
    Title,
    Lower,
}

/// One part of a pattern. Widths are the digits that are at least written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Literal(String),
    Year(usize),
    /// The last two digits.
    ShortYear,
    IsoYear(usize),
    Quarter,
    Month(usize),
    MonthName {
        letters: Letters,
        short: bool,
        pad: bool,
    },
    Week(usize),
    /// Weeks of seven days from January the first.
    YearWeek(usize),
    Day(usize),
    DayOfYear(usize),
    WeekdayName {
        letters: Letters,
        short: bool,
        pad: bool,
    },
    /// Monday is 1.
    IsoWeekday(usize),
    /// Sunday is 1.
    Weekday,
    Hour24(usize),
    /// 1 to 24.
    ClockHour24(usize),
    /// 1 to 12.
    Hour12(usize),
    /// 0 to 11.
    HalfDayHour(usize),
    Minute(usize),
    Second(usize),
    /// So many digits after the point.
    Fraction(usize),
    HalfDay(Letters),
    /// `+0100`, or with a colon; `Z` for UTC if asked for.
    Offset {
        colon: bool,
        z: bool,
    },
    /// `+01` or `+05:30`, as PostgreSQL's `OF`.
    ShortOffset,
}

/// A pattern, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    fields: Vec<Field>,
}

impl Pattern {
    /// A time of the calendar as text; `offset_millis` is what its zone is ahead of UTC.
    pub(super) fn format(&self, local: NaiveDateTime, offset_millis: i64) -> String {
        let mut text = String::new();
        for field in &self.fields {
            write(&mut text, field, local, offset_millis / 60_000);
        }
        text
    }
}

fn write(text: &mut String, field: &Field, local: NaiveDateTime, offset_minutes: i64) {
    let mut number = |value: i64, width: usize| {
        let sign = if value < 0 { "-" } else { "" };
        text.push_str(&format!("{sign}{:0width$}", value.abs()));
    };
    let hour = i64::from(local.hour());
    match field {
        Field::Literal(literal) => text.push_str(literal),
        Field::Year(width) => number(i64::from(local.year()), *width),
        Field::ShortYear => number(i64::from(local.year()).rem_euclid(100), 2),
        Field::IsoYear(width) => number(i64::from(local.iso_week().year()), *width),
        Field::Quarter => number(i64::from(local.month0() / 3 + 1), 1),
        Field::Month(width) => number(i64::from(local.month()), *width),
        Field::MonthName { letters, short, pad } => {
            text.push_str(&name(MONTHS[local.month0() as usize], *letters, *short, *pad));
        }
        Field::Week(width) => number(i64::from(local.iso_week().week()), *width),
        Field::YearWeek(width) => number(i64::from(local.ordinal0() / 7 + 1), *width),
        Field::Day(width) => number(i64::from(local.day()), *width),
        Field::DayOfYear(width) => number(i64::from(local.ordinal()), *width),
        Field::WeekdayName { letters, short, pad } => {
            let day = local.weekday().num_days_from_monday() as usize;
            text.push_str(&name(WEEKDAYS[day], *letters, *short, *pad));
        }
        Field::IsoWeekday(width) => number(i64::from(local.weekday().number_from_monday()), *width),
        Field::Weekday => number(i64::from(local.weekday().number_from_sunday()), 1),
        Field::Hour24(width) => number(hour, *width),
        Field::ClockHour24(width) => number(if hour == 0 { 24 } else { hour }, *width),
        Field::Hour12(width) => number((hour + 11) % 12 + 1, *width),
        Field::HalfDayHour(width) => number(hour % 12, *width),
        Field::Minute(width) => number(i64::from(local.minute()), *width),
        Field::Second(width) => number(i64::from(local.second()), *width),
        Field::Fraction(digits) => text.push_str(&fraction(local, *digits)),
        Field::HalfDay(letters) => text.push_str(&cased(if hour < 12 { "am" } else { "pm" }, *letters)),
        Field::Offset { colon, z } => text.push_str(&offset(offset_minutes, *colon, *z)),
        Field::ShortOffset => {
            let text_of = offset(offset_minutes, true, false);
            text.push_str(text_of.strip_suffix(":00").unwrap_or(&text_of));
        }
    }
}

fn fraction(local: NaiveDateTime, digits: usize) -> String {
    let nanos = format!("{:09}", local.and_utc().timestamp_subsec_nanos());
    let mut text: String = nanos.chars().take(digits).collect();
    text.extend(std::iter::repeat_n('0', digits.saturating_sub(9)));
    text
}

fn name(name: &str, letters: Letters, short: bool, pad: bool) -> String {
    let text = cased(if short { &name[..3] } else { name }, letters);
    if pad { format!("{text:<9}") } else { text }
}

fn cased(text: &str, letters: Letters) -> String {
    match letters {
        Letters::Upper => text.to_uppercase(),
        Letters::Lower => text.to_lowercase(),
        Letters::Title => text.to_string(),
    }
}

fn offset(minutes: i64, colon: bool, z: bool) -> String {
    if z && minutes == 0 {
        return "Z".to_string();
    }
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
    let colon = if colon { ":" } else { "" };
    format!("{sign}{hours:02}{colon}{minutes:02}")
}
