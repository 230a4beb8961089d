//! From a row's time field to milliseconds, as `timestampSpec` says.

use super::row::{Row, Slot};
use crate::error::{Error, Result};
use crate::model::{Timestamp, TimestampSpec};

mod pattern;

pub(super) use pattern::Pattern;

/// Reads times of one format.
#[derive(Debug)]
pub(super) struct TimestampParser {
    format: Format,
    missing: Option<i64>,
}

#[derive(Debug)]
enum Format {
    /// ISO-8601, or milliseconds.
    Auto,
    Iso,
    /// Whole units; how many make a millisecond, or how many milliseconds make one.
    Unit {
        per_milli: i64,
        millis: i64,
    },
    /// Seconds with a fraction.
    Ruby,
    Pattern(Pattern),
}

/// Why a row has no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTime {
    Missing,
    Bad,
}

impl TimestampParser {
    /// Fails with a format that is not known.
    pub(super) fn new(spec: &TimestampSpec) -> Result<Self> {
        let format = match spec.format.to_ascii_lowercase().as_str() {
            "auto" => Format::Auto,
            "iso" => Format::Iso,
            "posix" => Format::Unit { per_milli: 1, millis: 1000 },
            "millis" => Format::Unit { per_milli: 1, millis: 1 },
            "micro" => Format::Unit { per_milli: 1000, millis: 1 },
            "nano" => Format::Unit { per_milli: 1_000_000, millis: 1 },
            "ruby" => Format::Ruby,
            _ => Format::Pattern(Pattern::parse(&spec.format).map_err(|e| e.context("timestampSpec", "format"))?),
        };
        if spec.column.is_empty() {
            return Err(Error::invalid_input("the time column needs a name (`timestampSpec`, `column`)"));
        }
        Ok(Self { format, missing: spec.missing_value.map(Timestamp::millis) })
    }

    /// The time in milliseconds.
    pub(super) fn read(&self, row: &Row, line: &str, value: Slot) -> Result<i64, NoTime> {
        let millis = match value {
            Slot::Missing | Slot::Null => return self.missing.ok_or(NoTime::Missing),
            Slot::Long(number) => self.of_long(number),
            Slot::Double(number) => self.of_double(number),
            Slot::Bool(_) | Slot::Nested(_) | Slot::List(_) => None,
            Slot::Line(_) | Slot::Scratch(_) => match row.text(line, value).unwrap_or_default().trim() {
                "" => return self.missing.ok_or(NoTime::Missing),
                text => self.of_text(text),
            },
        };
        let range = Timestamp::MIN.millis()..=Timestamp::MAX.millis();
        millis.filter(|millis| range.contains(millis)).ok_or(NoTime::Bad)
    }

    fn of_long(&self, number: i64) -> Option<i64> {
        match &self.format {
            Format::Auto => Some(number),
            Format::Unit { per_milli, millis } => number.div_euclid(*per_milli).checked_mul(*millis),
            Format::Ruby => number.checked_mul(1000),
            Format::Iso => self.of_text(&number.to_string()),
            Format::Pattern(pattern) => pattern.read(&number.to_string()),
        }
    }

    fn of_double(&self, number: f64) -> Option<i64> {
        let millis = match &self.format {
            Format::Auto => number,
            Format::Unit { per_milli, millis } => number / *per_milli as f64 * *millis as f64,
            Format::Ruby => number * 1000.0,
            Format::Iso | Format::Pattern(_) => return None,
        };
        (millis.abs() < Timestamp::MAX.millis() as f64).then(|| millis.floor() as i64)
    }

    fn of_text(&self, text: &str) -> Option<i64> {
        match &self.format {
            Format::Iso => iso(text),
            Format::Auto => match whole(text) {
                Some(number) => Some(number),
                None => iso(text.trim_matches('"')),
            },
            Format::Pattern(pattern) => pattern.read(text),
            Format::Unit { .. } => match whole(text) {
                Some(number) => self.of_long(number),
                None => self.of_double(text.parse().ok()?),
            },
            Format::Ruby => self.of_double(text.parse().ok()?),
        }
    }
}

fn whole(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// ISO-8601 in milliseconds.
pub(super) fn iso(text: &str) -> Option<i64> {
    usual_iso(text.as_bytes()).or_else(|| text.parse::<Timestamp>().ok().map(Timestamp::millis))
}

/// The usual form, `2015-09-12T00:46:58[.771]Z`, without a detour.
fn usual_iso(text: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let millis = match text.len() {
        20 => 0,
        24 if text[19] == b'.' => number(20, 23)?,
        _ => return None,
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':'), (text.len() - 1, b'Z')];
    if marks.iter().any(|(place, mark)| text[*place] != *mark) || !matches!(text[10], b'T' | b' ') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + millis)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a Gregorian date from year 0 on. From Howard Hinnant's "chrono-compatible low-level date
/// algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(format: &str, value: &str) -> Result<i64, NoTime> {
        let spec = TimestampSpec { format: format.to_owned(), ..TimestampSpec::default() };
        let parser = TimestampParser::new(&spec).unwrap();
        let mut row = Row::default();
        let line = format!(r#"{{"timestamp":{value}}}"#);
        let field = row.fields.number("timestamp");
        crate::ingest::format::read_json(&line, &mut row).unwrap();
        parser.read(&row, &line, row.get(field))
    }

    #[test]
    fn every_format_is_read() {
        let millis = 1_375_315_200_123;
        for (format, value) in [
            ("auto", "\"2013-08-01T00:00:00.123Z\""),
            ("auto", "1375315200123"),
            ("auto", "\"1375315200123\""),
            ("iso", "\"2013-08-01 00:00:00.123\""),
            ("millis", "\"1375315200123\""),
            ("micro", "1375315200123999"),
            ("nano", "1375315200123999999"),
            ("ruby", "1375315200.123"),
            ("yyyy-MM-dd HH:mm:ss.SSS", "\"2013-08-01 00:00:00.123\""),
        ] {
            assert_eq!(read(format, value), Ok(millis), "{format} {value}");
        }
        assert_eq!(read("posix", "1375315200"), Ok(1_375_315_200_000));
        assert_eq!(read("posix", "\"1375315200\""), Ok(1_375_315_200_000));
    }

    #[test]
    fn what_is_no_time_is_told_from_a_missing_one() {
        for (format, value, expected) in [
            ("auto", "null", NoTime::Missing),
            ("auto", "\"\"", NoTime::Missing),
            ("auto", "\"yesterday\"", NoTime::Bad),
            ("iso", "\"2013-02-30T00:00:00Z\"", NoTime::Bad),
            ("millis", "\"x\"", NoTime::Bad),
            ("auto", "9223372036854775807", NoTime::Bad),
            ("auto", "[1]", NoTime::Bad),
        ] {
            assert_eq!(read(format, value), Err(expected), "{format} {value}");
        }
        assert!(
            TimestampParser::new(&TimestampSpec { format: "yyyy-QQ".to_owned(), ..TimestampSpec::default() }).is_err()
        );
    }

    proptest! {
        #[test]
        fn the_short_way_is_the_long_way(millis in -62_135_596_800_000_i64..253_402_300_800_000) {
            let text = Timestamp::from_millis(millis).to_string();
            prop_assert_eq!(usual_iso(text.as_bytes()), Some(millis), "{}", text);
        }
    }
}
