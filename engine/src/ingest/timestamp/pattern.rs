use chrono::{FixedOffset, NaiveDate};

use crate::error::{Error, Result};
use crate::model::TimeZone;

/// A Joda time pattern, such as `dd/MMM/yyyy:HH:mm:ss Z`.
#[derive(Debug)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(String),
    /// A number of at most so many digits.
    Number(Field, usize),
    MonthName,
    DayName,
    HalfDay,
    /// `+02:00`, `+0200` or `Z`.
    Offset,
    /// `UTC`, `Europe/Paris`.
    Zone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    Hour12,
    Minute,
    Second,
    Fraction,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// What has been read of a time.
struct Read {
    year: i32,
    month: u32,
    day: u32,
    day_of_year: Option<u32>,
    hour: u32,
    half_day: Option<u32>,
    minute: u32,
    second: u32,
    millis: u32,
    zone: TimeZone,
}

impl Pattern {
    /// Fails with a letter that is not known.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = rest.chars().take_while(|c| *c == first).count();
            if first == '\'' {
                let (literal, used) = quoted(rest, text)?;
                parts.push(Part::Literal(literal));
                rest = &rest[used..];
                continue;
            }
            if !first.is_ascii_alphabetic() {
                parts.push(Part::Literal(first.to_string()));
                rest = &rest[first.len_utf8()..];
                continue;
            }
            parts.push(letter(first, length, text)?);
            rest = &rest[length..];
        }
        // Numbers that touch one another take exactly as many digits as they have letters.
        let touching = (0..parts.len()).map(|i| matches!(parts.get(i + 1), Some(Part::Number(..)))).collect::<Vec<_>>();
        let widths = widths_of(text);
        let mut number = 0;
        for (part, touches) in parts.iter_mut().zip(touching) {
            if let Part::Number(_, width) = part {
                if touches {
                    *width = widths.get(number).copied().unwrap_or(*width);
                }
                number += 1;
            }
        }
        Ok(Self { parts })
    }

    /// The time in milliseconds; UTC unless the text says otherwise. `None` when the text does not fit.
    pub(crate) fn read(&self, text: &str) -> Option<i64> {
        self.read_in(text, TimeZone::Utc)
    }

    /// The same, with another zone for texts that do not say theirs.
    pub(crate) fn read_in(&self, text: &str, zone: TimeZone) -> Option<i64> {
        let mut read = Read {
            year: 1970,
            month: 1,
            day: 1,
            day_of_year: None,
            hour: 0,
            half_day: None,
            minute: 0,
            second: 0,
            millis: 0,
            zone,
        };
        let mut rest = text;
        for part in &self.parts {
            rest = part.read(rest, &mut read)?;
        }
        if rest.is_empty() { read.millis() } else { None }
    }
}

/// The literal between quotes at the start of `rest`, and its length with them; `''` is a quote.
fn quoted(rest: &str, text: &str) -> Result<(String, usize)> {
    if rest.starts_with("''") {
        return Ok(("'".to_owned(), 2));
    }
    let end = rest[1..]
        .find('\'')
        .ok_or_else(|| Error::invalid_input(format!("time pattern `{text}` has a quote that is not closed")))?;
    Ok((rest[1..=end].to_owned(), end + 2))
}

fn letter(letter: char, length: usize, text: &str) -> Result<Part> {
    Ok(match letter {
        'y' | 'Y' | 'x' | 'u' => Part::Number(Field::Year, length.max(4)),
        'M' if length >= 3 => Part::MonthName,
        'M' => Part::Number(Field::Month, 2),
        'd' => Part::Number(Field::Day, 2),
        'D' => Part::Number(Field::DayOfYear, 3),
        'H' => Part::Number(Field::Hour, 2),
        'h' => Part::Number(Field::Hour12, 2),
        'm' => Part::Number(Field::Minute, 2),
        's' => Part::Number(Field::Second, 2),
        'S' => Part::Number(Field::Fraction, length.max(9)),
        'E' => Part::DayName,
        'a' => Part::HalfDay,
        'Z' if length >= 3 => Part::Zone,
        'Z' | 'X' => Part::Offset,
        'z' => Part::Zone,
        _ => {
            return Err(Error::unsupported(format!(
                "time pattern `{text}` has the letter `{letter}`, which is not known; known are `yMdDHhmsSEaZz`"
            )));
        }
    })
}

/// How many letters each number of the pattern has.
fn widths_of(text: &str) -> Vec<usize> {
    let mut widths = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let used = if rest.starts_with("''") { 2 } else { rest[1..].find('\'').map_or(rest.len(), |end| end + 2) };
            rest = &rest[used..];
            continue;
        }
        let length = rest.chars().take_while(|c| *c == first).count();
        if "yYxudDHhmsS".contains(first) || (first == 'M' && length < 3) {
            widths.push(length);
        }
        rest = &rest[length * first.len_utf8()..];
    }
    widths
}

impl Part {
    /// Reads this part off the front of `text`.
    fn read<'a>(&self, text: &'a str, read: &mut Read) -> Option<&'a str> {
        match self {
            Self::Literal(literal) => text.strip_prefix(literal.as_str()),
            Self::Number(field, width) => {
                let digits = text.bytes().take(*width).take_while(u8::is_ascii_digit).count();
                let (number, rest) = text.split_at(digits);
                read.set(*field, number)?;
                Some(rest)
            }
            Self::MonthName => {
                let (index, rest) = name(text, &MONTHS)?;
                read.month = u32::try_from(index).ok()? + 1;
                Some(rest)
            }
            Self::DayName => name(text, &DAYS).map(|(_, rest)| rest),
            Self::HalfDay => {
                let (index, rest) = name(text, &["am", "pm"])?;
                read.half_day = u32::try_from(index).ok();
                Some(rest)
            }
            Self::Offset => {
                if let Some(rest) = text.strip_prefix('Z') {
                    return Some(rest);
                }
                let length = text.bytes().take_while(|b| b.is_ascii_digit() || b"+-:".contains(b)).count();
                let (offset, rest) = text.split_at(length);
                let offset = offset.parse::<FixedOffset>().ok()?;
                read.zone = TimeZone::Fixed(offset);
                Some(rest)
            }
            Self::Zone => {
                let length = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"+-:/_".contains(b)).count();
                let (zone, rest) = text.split_at(length);
                read.zone = zone.parse().ok()?;
                Some(rest)
            }
        }
    }
}

/// Which of the names `text` begins with, in full or by its first three letters, in any case.
fn name<'a>(text: &'a str, names: &[&str]) -> Option<(usize, &'a str)> {
    let starts = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let full = names.iter().position(|name| starts(name)).map(|i| (i, names[i].len()));
    let short = || names.iter().position(|name| starts(&name[..name.len().min(3)])).map(|i| (i, names[i].len().min(3)));
    let (index, length) = full.or_else(short)?;
    Some((index, &text[length..]))
}

impl Read {
    fn set(&mut self, field: Field, digits: &str) -> Option<()> {
        let number: u32 = digits.parse().ok()?;
        match field {
            Field::Year if digits.len() <= 2 => {
                // Joda's pivot: two digits mean the century around the year 2000.
                let number = i32::try_from(number).ok()?;
                self.year = if number < 70 { 2000 + number } else { 1900 + number };
            }
            Field::Year => self.year = i32::try_from(number).ok()?,
            Field::Month => self.month = number,
            Field::Day => self.day = number,
            Field::DayOfYear => self.day_of_year = Some(number),
            Field::Hour => self.hour = number,
            Field::Hour12 => self.hour = number % 12,
            Field::Minute => self.minute = number,
            Field::Second => self.second = number,
            Field::Fraction => self.millis = format!("{digits:0<3}")[..3].parse().ok()?,
        }
        Some(())
    }

    fn millis(&self) -> Option<i64> {
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(self.year, day)?,
            None => NaiveDate::from_ymd_opt(self.year, self.month, self.day)?,
        };
        let hour = self.hour + self.half_day.map_or(0, |half| half * 12);
        let local = date.and_hms_milli_opt(hour, self.minute, self.second, self.millis)?;
        Some(self.zone.to_instant(local).millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn patterns_read_what_they_say() -> Result<()> {
        for (pattern, text, expected) in [
            ("yyyy-MM-dd HH:mm:ss", "2013-08-01 13:14:15", "2013-08-01T13:14:15Z"),
            ("yyyyMMddHHmmss", "20130801131415", "2013-08-01T13:14:15Z"),
            ("dd/MMM/yyyy:HH:mm:ss Z", "01/Aug/2013:13:14:15 +0200", "2013-08-01T11:14:15Z"),
            ("M/d/yy h:mm a", "8/1/13 1:14 PM", "2013-08-01T13:14:00Z"),
            ("EEE, d MMMM yyyy 'at' HH 'o''clock'", "Thu, 1 August 2013 at 13 o", ""),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSZZ", "2013-08-01T13:14:15.5+02:00", "2013-08-01T11:14:15.500Z"),
            ("yyyy-MM-dd HH:mm z", "2013-08-01 13:14 Europe/Paris", "2013-08-01T11:14:00Z"),
            ("yyyy-MM-dd", "2013-02-30", ""),
            ("yyyy-MM-dd", "2013-02-03x", ""),
        ] {
            let expected = (!expected.is_empty()).then(|| expected.parse::<Timestamp>()).transpose()?;
            assert_eq!(Pattern::parse(pattern)?.read(text), expected.map(Timestamp::millis), "{pattern} {text}");
        }
        Ok(())
    }
}
