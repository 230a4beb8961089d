use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;
use crate::error::{Error, Result};

/// A time zone: UTC, one of the IANA database (`Europe/Paris`), or a fixed offset (`+02:00`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimeZone {
    #[default]
    Utc,
    Named(Tz),
    Fixed(FixedOffset),
}

impl TimeZone {
    pub fn is_utc(&self) -> bool {
        *self == Self::Utc
    }

    /// How far local time is ahead of UTC at an instant, in milliseconds. Zero where there is no calendar date.
    pub fn offset_millis(&self, instant: Timestamp) -> i64 {
        let seconds = match self {
            Self::Utc => 0,
            Self::Fixed(offset) => offset.local_minus_utc(),
            Self::Named(zone) => match DateTime::<Utc>::from_timestamp_millis(instant.millis()) {
                Some(utc) => zone.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc(),
                None => 0,
            },
        };
        i64::from(seconds) * 1000
    }

    /// What the clock on the wall shows. `None` for an instant without a calendar date (year beyond ±262,000).
    pub fn to_local(&self, instant: Timestamp) -> Option<NaiveDateTime> {
        let millis = instant.millis().checked_add(self.offset_millis(instant))?;
        Some(DateTime::<Utc>::from_timestamp_millis(millis)?.naive_utc())
    }

    /// The instant at which the clock shows `local`: the earlier one where it shows it twice; where it skips it, the
    /// first instant after the gap.
    pub fn to_instant(&self, local: NaiveDateTime) -> Timestamp {
        let millis = local.and_utc().timestamp_millis();
        match self {
            Self::Utc => Timestamp::from_millis(millis),
            Self::Fixed(offset) => Timestamp::from_millis(millis - i64::from(offset.local_minus_utc()) * 1000),
            Self::Named(zone) => match zone.from_local_datetime(&local) {
                MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => {
                    Timestamp::from_millis(time.timestamp_millis())
                }
                MappedLocalTime::None => end_of_gap(*zone, local),
            },
        }
    }
}

/// The first instant after the gap of local time in which `local` lies.
fn end_of_gap(zone: Tz, local: NaiveDateTime) -> Timestamp {
    // No zone ever skipped more than a day, and before the gap the offset is that of a day earlier.
    let day_before = local - TimeDelta::days(1);
    let before = zone.offset_from_utc_datetime(&day_before).fix().local_minus_utc();
    let (mut low, mut high) = (day_before, local + TimeDelta::days(1));
    while high - low > TimeDelta::seconds(1) {
        let middle = low + TimeDelta::seconds((high - low).num_seconds() / 2);
        let changed = zone.offset_from_utc_datetime(&middle).fix().local_minus_utc() != before;
        if changed { high = middle } else { low = middle }
    }
    // Offsets change at whole seconds: a fraction that `local` brought along is cut off.
    Timestamp::from_millis(high.and_utc().timestamp() * 1000)
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utc => f.write_str("UTC"),
            Self::Named(zone) => f.write_str(zone.name()),
            Self::Fixed(offset) => write!(f, "{offset}"),
        }
    }
}

impl FromStr for TimeZone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if ["utc", "z", "etc/utc", "gmt"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
            return Ok(Self::Utc);
        }
        if let Some(zone) = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(text)) {
            return Ok(Self::Named(*zone));
        }
        match text.parse::<FixedOffset>() {
            Ok(offset) if offset.local_minus_utc() == 0 => Ok(Self::Utc),
            Ok(offset) => Ok(Self::Fixed(offset)),
            Err(_) => Err(Error::invalid_input(format!(
                "`{text}` is not a time zone, such as `UTC`, `Europe/Paris` or `+02:00`"
            ))),
        }
    }
}

impl Serialize for TimeZone {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_local_time_is_the_end_of_the_gap() -> Result<()> {
        // São Paulo skipped midnight of 2018-11-04; Paris 02:00 to 03:00 of 2021-03-28.
        for (zone, local, expected) in [
            ("America/Sao_Paulo", "2018-11-04T00:00:00", "2018-11-04T01:00:00-02:00"),
            ("Europe/Paris", "2021-03-28T02:30:00", "2021-03-28T03:00:00+02:00"),
            ("Europe/Paris", "2021-10-31T02:30:00", "2021-10-31T02:30:00+02:00"),
            ("+05:30", "2021-10-31T02:30:00", "2021-10-30T21:00:00Z"),
        ] {
            let zone: TimeZone = zone.parse()?;
            let local = local.parse::<NaiveDateTime>().expect("a local time");
            assert_eq!(zone.to_instant(local), expected.parse()?, "{zone} {local}");
        }
        Ok(())
    }

    #[test]
    fn zones_are_found_in_any_case() -> Result<()> {
        assert_eq!("europe/paris".parse::<TimeZone>()?.to_string(), "Europe/Paris");
        assert!("Mars/Olympus".parse::<TimeZone>().is_err());
        assert!("+00:00".parse::<TimeZone>()?.is_utc());
        Ok(())
    }
}
