use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// An instant: milliseconds since 1970-01-01T00:00:00Z. Written and read as ISO-8601 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Druid's earliest instant (`JodaUtils.MIN_INSTANT`): half of what an `i64` of milliseconds can say.
    pub const MIN: Self = Self(i64::MIN / 2);
    /// Druid's latest instant (`JodaUtils.MAX_INSTANT`).
    pub const MAX: Self = Self(i64::MAX / 2);

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// `2013-08-01T00:00:00.000Z`, as Druid writes it; instants that have no calendar date as milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(date_time) => f.write_str(&date_time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads ISO-8601: a date, or a date and a time (`T` or a space between) with an optional zone; UTC if none is given.
    fn from_str(text: &str) -> Result<Self> {
        if let Ok(date_time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self(date_time.timestamp_millis()));
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"] {
            if let Ok(date_time) = DateTime::parse_from_str(text, format) {
                return Ok(Self(date_time.timestamp_millis()));
            }
        }
        let zoneless = text.strip_suffix('Z').unwrap_or(text);
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
            if let Ok(date_time) = NaiveDateTime::parse_from_str(zoneless, format) {
                return Ok(Self(date_time.and_utc().timestamp_millis()));
            }
        }
        let hour = zoneless.split_once('T').filter(|(_, hour)| hour.len() == 2);
        if let Some((date, hour)) = hour
            && let (Ok(date), Ok(hour)) = (NaiveDate::parse_from_str(date, "%Y-%m-%d"), hour.parse())
            && let Some(date_time) = date.and_hms_opt(hour, 0, 0)
        {
            return Ok(Self(date_time.and_utc().timestamp_millis()));
        }
        let date = match zoneless.len() {
            4 => format!("{zoneless}-01-01"),
            7 => format!("{zoneless}-01"),
            _ => zoneless.to_owned(),
        };
        NaiveDate::parse_from_str(&date, "%Y-%m-%d")
            .ok()
            .and_then(|date| date.and_hms_opt(0, 0, 0))
            .map(|date_time| Self(date_time.and_utc().timestamp_millis()))
            .ok_or_else(|| {
                Error::invalid_input(format!(
                    "`{text}` is not an ISO-8601 date or time, such as `2013-08-01T00:00:00Z`"
                ))
            })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_forms_mean_the_same_instant() {
        let expected = Timestamp::from_millis(1_375_315_200_000);
        for text in [
            "2013-08-01",
            "2013-08",
            "2013-08-01T00",
            "2013-08-01T00:00",
            "2013-08-01T00:00:00Z",
            "2013-08-01 00:00:00.000",
            "2013-08-01T02:00:00+02:00",
        ] {
            assert_eq!(text.parse::<Timestamp>().ok(), Some(expected), "{text}");
        }
        assert_eq!(expected.to_string(), "2013-08-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_not_a_time_is_named() {
        let error = "yesterday".parse::<Timestamp>().err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("`yesterday`")));
    }
}
