use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Months, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{TimeZone, Timestamp};
use crate::error::{Error, Result};

/// An ISO-8601 period: `P1D`, `PT1H`, `P1M`, `P1W`, `P1Y2M3DT4H5M6.789S`. Months, weeks and days follow the calendar of
/// a time zone (a day may have 23 hours); hours and less are of fixed length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Period {
    months: i32,
    weeks: i32,
    days: i32,
    millis: i64,
}

pub(super) const DAY_MS: i64 = 86_400_000;

impl Period {
    pub const fn months(months: i32) -> Self {
        Self { months, weeks: 0, days: 0, millis: 0 }
    }

    pub const fn weeks(weeks: i32) -> Self {
        Self { months: 0, weeks, days: 0, millis: 0 }
    }

    pub const fn days(days: i32) -> Self {
        Self { months: 0, weeks: 0, days, millis: 0 }
    }

    pub const fn millis(millis: i64) -> Self {
        Self { months: 0, weeks: 0, days: 0, millis }
    }

    /// Whether it goes forward in time, as a granularity must.
    pub fn is_positive(&self) -> bool {
        let parts = [i64::from(self.months), i64::from(self.weeks), i64::from(self.days), self.millis];
        parts.iter().all(|part| *part >= 0) && parts.iter().any(|part| *part > 0)
    }

    /// Its length in milliseconds where that is the same always: hours and less anywhere, weeks and days in UTC.
    pub fn fixed_millis(&self, zone: TimeZone) -> Option<i64> {
        let days = i64::from(self.weeks) * 7 + i64::from(self.days);
        match self.months == 0 && (days == 0 || !matches!(zone, TimeZone::Named(_))) {
            true => Some(days * DAY_MS + self.millis),
            false => None,
        }
    }

    /// Its usual length in milliseconds.
    pub(super) fn typical_millis(&self) -> i64 {
        const MONTH_MS: i64 = 2_629_746_000; // a twelfth of a Gregorian year
        let days = i64::from(self.weeks) * 7 + i64::from(self.days);
        i64::from(self.months) * MONTH_MS + days * DAY_MS + self.millis
    }

    /// `instant` moved by this period `times` times, by the calendar of `zone`: first months (the 31st becomes the last
    /// of a shorter month), then weeks and days, then the rest. `None` where the calendar ends (year beyond ±262,000).
    pub fn add_to(&self, instant: Timestamp, times: i64, zone: TimeZone) -> Option<Timestamp> {
        if let Some(length) = self.fixed_millis(zone) {
            return Some(Timestamp::from_millis(instant.millis().checked_add(length.checked_mul(times)?)?));
        }
        let months = i64::from(self.months).checked_mul(times)?;
        let days = (i64::from(self.weeks) * 7 + i64::from(self.days)).checked_mul(times)?;
        let local = zone.to_local(instant)?;
        let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
        let moved = match months < 0 {
            true => local.checked_sub_months(count)?,
            false => local.checked_add_months(count)?,
        };
        let moved = moved.checked_add_signed(TimeDelta::try_days(days)?)?;
        let date = if moved == local { instant } else { zone.to_instant(moved) };
        let millis = date.millis().checked_add(self.millis.checked_mul(times)?)?;
        DateTime::<Utc>::from_timestamp_millis(millis).map(|_| Timestamp::from_millis(millis))
    }

    fn parse(text: &str) -> Option<Self> {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let rest = rest.strip_prefix(['P', 'p'])?;
        let (date, time) = match rest.split_once(['T', 't']) {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (rest, ""),
        };
        if date.is_empty() && time.is_empty() {
            return None;
        }
        let mut period = Self::default();
        let mut next = 0;
        for (value, unit) in parts(date)? {
            let value = i32::try_from(whole(value)?).ok()?.checked_mul(sign)?;
            let (place, field, factor) = match unit {
                'Y' => (1, &mut period.months, 12),
                'M' => (2, &mut period.months, 1),
                'W' => (3, &mut period.weeks, 1),
                'D' => (4, &mut period.days, 1),
                _ => return None,
            };
            *field = field.checked_add(value.checked_mul(factor)?)?;
            next = (place > next).then_some(place)?;
        }
        next = 0;
        for (value, unit) in parts(time)? {
            let (place, factor) = match unit {
                'H' => (1, 3_600_000),
                'M' => (2, 60_000),
                'S' => (3, 1000),
                _ => return None,
            };
            let millis = match unit {
                'S' => seconds_to_millis(value)?,
                _ => whole(value)?.checked_mul(factor)?,
            };
            period.millis = period.millis.checked_add(millis.checked_mul(i64::from(sign))?)?;
            next = (place > next).then_some(place)?;
        }
        Some(period)
    }
}

/// `1Y2M` as `(1, Y), (2, M)`, units in upper case.
fn parts(mut text: &str) -> Option<Vec<(&str, char)>> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let end = text.find(|c: char| c.is_ascii_alphabetic())?;
        parts.push((&text[..end], text[end..].chars().next()?.to_ascii_uppercase()));
        text = &text[end + 1..];
    }
    Some(parts)
}

fn whole(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn seconds_to_millis(text: &str) -> Option<i64> {
    let Some((seconds, fraction)) = text.split_once(['.', ',']) else {
        return whole(text)?.checked_mul(1000);
    };
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis = whole(&format!("{fraction:0<3}")[..3])?;
    let sign = if seconds.starts_with('-') { -1 } else { 1 };
    whole(seconds)?.checked_mul(1000)?.checked_add(sign * millis)
}

impl fmt::Display for Period {
    /// The ISO-8601 form with the greatest units first; a period of nothing is `PT0S`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P")?;
        for (value, unit) in [(self.months / 12, 'Y'), (self.months % 12, 'M'), (self.weeks, 'W'), (self.days, 'D')] {
            if value != 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        if self.millis == 0 {
            return if *self == Self::default() { f.write_str("T0S") } else { Ok(()) };
        }
        f.write_str("T")?;
        let (hours, minutes) = (self.millis / 3_600_000, self.millis / 60_000 % 60);
        for (value, unit) in [(hours, 'H'), (minutes, 'M')] {
            if value != 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        let rest = self.millis % 60_000;
        match (rest, rest % 1000) {
            (0, _) => Ok(()),
            (_, 0) => write!(f, "{}S", rest / 1000),
            _ => {
                let sign = if rest < 0 { "-" } else { "" };
                write!(f, "{sign}{}.{:03}S", (rest / 1000).abs(), (rest % 1000).abs())
            }
        }
    }
}

impl FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| {
            Error::invalid_input(format!("`{text}` is not an ISO-8601 period, such as `P1D`, `PT1H` or `P1M`"))
        })
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_back_as_written() -> Result<()> {
        for text in ["P1D", "PT1H", "P1M", "P1W", "P1Y2M3W4DT5H6M7.089S", "PT0S", "PT0.500S", "PT-5M"] {
            assert_eq!(text.parse::<Period>()?.to_string(), text);
        }
        assert_eq!("-P1D".parse::<Period>()?, Period::days(-1));
        assert_eq!("P3M".parse::<Period>()?, Period::months(3));
        Ok(())
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in ["", "P", "PT", "1D", "P1H", "PT1D", "P1", "PxD", "P1D1Y", "PT1.S", "P99999999999Y", "P1é"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_in_a_zone_follows_its_calendar_and_hours_do_not() -> Result<()> {
        let paris: TimeZone = "Europe/Paris".parse()?;
        let noon: Timestamp = "2021-03-27T12:00:00+01:00".parse()?;
        assert_eq!(Period::days(1).add_to(noon, 1, paris), Some("2021-03-28T12:00:00+02:00".parse()?));
        assert_eq!(Period::millis(DAY_MS).add_to(noon, 1, paris), Some("2021-03-28T13:00:00+02:00".parse()?));
        let january: Timestamp = "2021-01-31".parse()?;
        assert_eq!(Period::months(1).add_to(january, 1, TimeZone::Utc), Some("2021-02-28".parse()?));
        assert_eq!(Period::months(1).add_to(january, -2, TimeZone::Utc), Some("2020-11-30".parse()?));
        Ok(())
    }
}
