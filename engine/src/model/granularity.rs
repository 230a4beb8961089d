use std::fmt;
use std::str::FromStr;

use chrono::{Datelike, NaiveDate, Timelike};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::period::DAY_MS;
use super::{Interval, Period, TimeZone, Timestamp};
use crate::error::{Error, Result};

/// How time is cut: into nothing smaller than it is (`none`, a millisecond), not at all (`all`), or by a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Every millisecond by itself.
    None,
    /// All of time is one bucket.
    All,
    Period(PeriodGranularity),
}

/// Buckets of one period, counted from an origin by the calendar of a time zone.
///
/// Without an origin of its own the count begins at 1970-01-01 of the zone, weeks on a Monday; single hours, minutes
/// and seconds are those the clock on the wall shows. As Druid's `PeriodGranularity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeriodGranularity {
    period: Period,
    origin: Option<Timestamp>,
    zone: TimeZone,
    /// Where the count begins.
    start: Timestamp,
}

const NAMES: [(&str, Period); 14] = [
    ("second", Period::millis(1000)),
    ("minute", Period::millis(60_000)),
    ("five_minute", Period::millis(300_000)),
    ("ten_minute", Period::millis(600_000)),
    ("fifteen_minute", Period::millis(900_000)),
    ("thirty_minute", Period::millis(1_800_000)),
    ("hour", Period::millis(3_600_000)),
    ("six_hour", Period::millis(21_600_000)),
    ("eight_hour", Period::millis(28_800_000)),
    ("day", Period::days(1)),
    ("week", Period::weeks(1)),
    ("month", Period::months(1)),
    ("quarter", Period::months(3)),
    ("year", Period::months(12)),
];

impl Granularity {
    pub const HOUR: Self = Self::utc(Period::millis(3_600_000), Timestamp::from_millis(0));
    pub const DAY: Self = Self::utc(Period::days(1), Timestamp::from_millis(0));
    pub const MONTH: Self = Self::utc(Period::months(1), Timestamp::from_millis(0));

    const fn utc(period: Period, start: Timestamp) -> Self {
        Self::Period(PeriodGranularity { period, origin: None, zone: TimeZone::Utc, start })
    }

    /// Buckets of `period` in `zone`, counted from `origin` if given. Fails unless the period goes forward.
    pub fn of(period: Period, origin: Option<Timestamp>, zone: TimeZone) -> Result<Self> {
        PeriodGranularity::new(period, origin, zone).map(Self::Period)
    }

    /// The start of the bucket that `instant` lies in; never after it, and its own truncation. Instants without a
    /// calendar date (year beyond ±262,000) stay as they are where a calendar is needed.
    pub fn truncate(&self, instant: Timestamp) -> Timestamp {
        match self {
            Self::None => instant,
            Self::All => Timestamp::MIN,
            Self::Period(period) => period.truncate(instant),
        }
    }

    /// The bucket that `instant` lies in.
    pub fn bucket(&self, instant: Timestamp) -> Interval {
        let (start, end) = match self {
            Self::None => (instant, Timestamp::from_millis(instant.millis().saturating_add(1))),
            Self::All => (Timestamp::MIN, Timestamp::MAX),
            Self::Period(period) => period.bucket(instant),
        };
        Interval::new(start, end).unwrap_or(Interval::ETERNITY)
    }

    /// The buckets that overlap `interval`, in order. There may be very many: take only as many as needed.
    pub fn buckets(&self, interval: Interval) -> impl Iterator<Item = Interval> + use<> {
        let granularity = *self;
        let mut next = interval.start();
        std::iter::from_fn(move || {
            if next >= interval.end() {
                return None;
            }
            let bucket = granularity.bucket(next);
            next = if bucket.end() > next { bucket.end() } else { interval.end() };
            Some(bucket)
        })
    }
}

impl PeriodGranularity {
    fn new(period: Period, origin: Option<Timestamp>, zone: TimeZone) -> Result<Self> {
        if !period.is_positive() {
            return Err(Error::invalid_input(format!(
                "a granularity's period must be positive, and `{period}` is not"
            )));
        }
        let first_day = if period == Period::weeks(1) { 5 } else { 1 };
        let epoch = NaiveDate::from_ymd_opt(1970, 1, first_day).unwrap_or_default().and_time(chrono::NaiveTime::MIN);
        Ok(Self { period, origin, zone, start: origin.unwrap_or_else(|| zone.to_instant(epoch)) })
    }

    pub fn period(&self) -> Period {
        self.period
    }

    /// The origin that was asked for.
    pub fn origin(&self) -> Option<Timestamp> {
        self.origin
    }

    pub fn zone(&self) -> TimeZone {
        self.zone
    }

    fn truncate(&self, instant: Timestamp) -> Timestamp {
        if let Some(length) = self.period.fixed_millis(self.zone) {
            let on_the_wall = self.origin.is_none() && [1000, 60_000, 3_600_000].contains(&length);
            return match on_the_wall && !self.zone.is_utc() {
                true => self.truncate_wall_clock(instant, length),
                false => floor_to(instant, self.start, length),
            };
        }
        if self.origin.is_none() && self.zone.is_utc() && self.period == Period::months(1) {
            return first_of_month(instant).unwrap_or(instant);
        }
        self.truncate_by_calendar(instant).unwrap_or(instant)
    }

    /// Single hours and less as the clock shows them, which matters where an offset is not of whole hours.
    fn truncate_wall_clock(&self, instant: Timestamp, length: i64) -> Timestamp {
        let floor = |offset: i64| floor_to(instant, Timestamp::from_millis(-offset), length);
        let start = floor(self.zone.offset_millis(instant));
        let offset_at_start = self.zone.offset_millis(start);
        // Where the offset changed within the bucket by a part of it (Lord Howe: half an hour), it begins at the change.
        if offset_at_start == self.zone.offset_millis(instant) { start } else { floor(offset_at_start) }
    }

    fn truncate_by_calendar(&self, instant: Timestamp) -> Option<Timestamp> {
        let nth = |n: i64| self.period.add_to(self.start, n, self.zone);
        let distance = instant.millis().checked_sub(self.start.millis())?;
        let mut n = distance.div_euclid(self.period.typical_millis());
        let mut start = nth(n)?;
        while start > instant {
            n -= 1;
            start = nth(n)?;
        }
        while let Some(later) = nth(n + 1).filter(|later| *later <= instant) {
            n += 1;
            start = later;
        }
        Some(start)
    }

    fn bucket(&self, instant: Timestamp) -> (Timestamp, Timestamp) {
        let start = self.truncate(instant);
        let Some(usual_end) = self.end_after(start) else {
            return (start, Timestamp::MAX);
        };
        // A bucket is cut short where the clock was changed by a part of it.
        let next = self.truncate(usual_end);
        (start, if next > start { next } else { usual_end })
    }

    /// Where the bucket that begins at `start` ends. Counted from the origin, so that the 31st stays the 31st.
    fn end_after(&self, start: Timestamp) -> Option<Timestamp> {
        if self.period.fixed_millis(self.zone).is_some() {
            return self.period.add_to(start, 1, self.zone);
        }
        let distance = start.millis().checked_sub(self.start.millis())?;
        let mut n = distance.div_euclid(self.period.typical_millis()) - 1;
        loop {
            let end = self.period.add_to(self.start, n, self.zone)?;
            if end > start {
                return Some(end);
            }
            n += 1;
        }
    }
}

fn floor_to(instant: Timestamp, origin: Timestamp, length: i64) -> Timestamp {
    match instant.millis().checked_sub(origin.millis()) {
        Some(distance) => Timestamp::from_millis(instant.millis().saturating_sub(distance.rem_euclid(length))),
        None => instant,
    }
}

fn first_of_month(instant: Timestamp) -> Option<Timestamp> {
    let local = TimeZone::Utc.to_local(instant)?;
    let into_day = i64::from(local.num_seconds_from_midnight()) * 1000 + i64::from(local.nanosecond() / 1_000_000);
    Some(Timestamp::from_millis(instant.millis() - into_day - i64::from(local.day0()) * DAY_MS))
}

impl fmt::Display for Granularity {
    /// Druid's name if there is one, else the period with what else is said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let granularity = match self {
            Self::None => return f.write_str("none"),
            Self::All => return f.write_str("all"),
            Self::Period(granularity) => granularity,
        };
        if let Some(name) = granularity.name() {
            return f.write_str(name);
        }
        write!(f, "{}", granularity.period)?;
        if !granularity.zone.is_utc() {
            write!(f, " in {}", granularity.zone)?;
        }
        granularity.origin.map_or(Ok(()), |origin| write!(f, " from {origin}"))
    }
}

impl PeriodGranularity {
    fn name(&self) -> Option<&'static str> {
        let plain = self.zone.is_utc() && self.origin.is_none();
        NAMES.iter().find(|(_, period)| plain && *period == self.period).map(|(name, _)| *name)
    }
}

impl FromStr for Granularity {
    type Err = Error;

    /// Druid's names in any case (`DAY`, `six_hour`), or an ISO-8601 period.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "none" => return Ok(Self::None),
            "all" => return Ok(Self::All),
            _ => {}
        }
        if let Some((_, period)) = NAMES.iter().find(|(name, _)| *name == lower) {
            return Self::of(*period, None, TimeZone::Utc);
        }
        let period = text.parse().map_err(|_| {
            let names = NAMES.map(|(name, _)| name).join("`, `");
            Error::invalid_input(format!(
                "`{text}` is not a granularity: it is `none`, `all`, `{names}`, or an ISO-8601 period such as `PT2H`"
            ))
        })?;
        Self::of(period, None, TimeZone::Utc)
    }
}

/// Druid's JSON forms.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Tagged {
    None,
    All,
    #[serde(rename_all = "camelCase")]
    Period {
        period: Period,
        #[serde(default, skip_serializing_if = "TimeZone::is_utc")]
        time_zone: TimeZone,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Timestamp>,
    },
    /// Milliseconds.
    Duration {
        duration: i64,
        #[serde(default)]
        origin: Option<Timestamp>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Name(String),
    Tagged(Tagged),
}

impl Serialize for Granularity {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Period(granularity) if granularity.name().is_none() => {
                Tagged::Period { period: granularity.period, time_zone: granularity.zone, origin: granularity.origin }
                    .serialize(serializer)
            }
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Granularity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let granularity = match Form::deserialize(deserializer)? {
            Form::Name(name) => name.parse(),
            Form::Tagged(Tagged::None) => Ok(Self::None),
            Form::Tagged(Tagged::All) => Ok(Self::All),
            Form::Tagged(Tagged::Period { period, time_zone, origin }) => Self::of(period, origin, time_zone),
            Form::Tagged(Tagged::Duration { duration, origin }) => {
                let origin = origin.unwrap_or(Timestamp::from_millis(0));
                Self::of(Period::millis(duration), Some(origin), TimeZone::Utc)
            }
        };
        granularity.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn granularity(json: &str) -> Granularity {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn instants_fall_into_their_calendar_buckets() -> Result<()> {
        for (json, instant, expected) in [
            (r#""day""#, "2013-08-01T13:14:15.016Z", "2013-08-01/2013-08-02"),
            (r#""HOUR""#, "2013-08-01T13:14:15.016Z", "2013-08-01T13/2013-08-01T14"),
            (r#""week""#, "2013-08-04T23:00Z", "2013-07-29/2013-08-05"),
            (r#""month""#, "1969-02-28T23:00Z", "1969-02-01/1969-03-01"),
            (r#""quarter""#, "2013-08-01", "2013-07-01/2013-10-01"),
            (r#""year""#, "2012-12-31", "2012-01-01/2013-01-01"),
            (r#""six_hour""#, "1969-12-31T23:00Z", "1969-12-31T18/1970-01-01"),
            (r#""none""#, "2013-08-01", "2013-08-01T00:00:00.000/2013-08-01T00:00:00.001"),
            (
                r#"{"type":"period","period":"P1D","timeZone":"Europe/Paris"}"#,
                "2021-03-28T10:00Z",
                "2021-03-27T23:00Z/2021-03-28T22:00Z",
            ),
            (
                r#"{"type":"period","period":"P1D","timeZone":"America/Sao_Paulo"}"#,
                "2018-11-04T12:00Z",
                "2018-11-04T03:00Z/2018-11-05T02:00Z",
            ),
            (
                r#"{"type":"period","period":"P1M","timeZone":"America/New_York"}"#,
                "2021-03-20T00:00Z",
                "2021-03-01T05:00Z/2021-04-01T04:00Z",
            ),
            (
                r#"{"type":"period","period":"PT1H","timeZone":"Asia/Kolkata"}"#,
                "2021-03-20T00:10Z",
                "2021-03-19T23:30Z/2021-03-20T00:30Z",
            ),
            (
                r#"{"type":"period","period":"PT1H","timeZone":"Australia/Lord_Howe"}"#,
                "2021-04-03T15:15Z",
                "2021-04-03T15:00Z/2021-04-03T15:30Z",
            ),
            (r#"{"type":"period","period":"P1M","origin":"2020-01-31"}"#, "2021-02-28T12:00Z", "2021-02-28/2021-03-31"),
            (r#"{"type":"period","period":"P1W","origin":"2013-08-01"}"#, "2013-07-30", "2013-07-25/2013-08-01"),
            (r#"{"type":"duration","duration":7200000}"#, "2013-08-01T03:00Z", "2013-08-01T02/2013-08-01T04"),
        ] {
            assert_eq!(granularity(json).bucket(instant.parse()?), expected.parse()?, "{json} {instant}");
        }
        assert_eq!(Granularity::All.bucket(Timestamp::from_millis(0)), Interval::ETERNITY);
        Ok(())
    }

    #[test]
    fn an_interval_is_covered_by_its_buckets() -> Result<()> {
        let interval: Interval = "2013-07-31T12:00/2013-08-03".parse()?;
        let buckets = Granularity::DAY.buckets(interval).map(|bucket| bucket.to_string()).collect::<Vec<_>>();
        assert_eq!(buckets.len(), 3);
        assert_eq!(buckets.first().map(String::as_str), Some("2013-07-31T00:00:00.000Z/2013-08-01T00:00:00.000Z"));
        assert_eq!(Granularity::All.buckets(interval).count(), 1);
        Ok(())
    }

    #[test]
    fn json_reads_back_as_written() {
        for json in [
            r#""day""#,
            r#""all""#,
            r#""none""#,
            r#""five_minute""#,
            r#"{"type":"period","period":"PT2H"}"#,
            r#"{"type":"period","period":"P1D","timeZone":"Europe/Paris","origin":"2013-08-01T00:00:00.000Z"}"#,
        ] {
            assert_eq!(serde_json::to_string(&granularity(json)).expect("plain data"), json);
        }
        assert_eq!(granularity(r#""PT1H""#), Granularity::HOUR);
        assert_eq!(granularity(r#"{"type":"period","period":"P1M"}"#), Granularity::MONTH);
        for json in [r#""fortnight""#, r#"{"type":"period","period":"PT0S"}"#, r#"{"type":"lunar"}"#] {
            assert!(serde_json::from_str::<Granularity>(json).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn buckets_tile_time(
            millis in -4_000_000_000_000_i64..8_000_000_000_000,
            period in prop::sample::select(vec![
                "PT1S", "PT1M", "PT1H", "PT6H", "P1D", "P3D", "P1W", "P2W", "P1M", "P3M", "P1Y", "P7M", "P1M1D", "P1DT5H",
            ]),
            zone in prop::sample::select(vec![
                "UTC", "Europe/Paris", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "+05:30",
            ]),
            origin in prop::option::of(-4_000_000_000_i64..4_000_000_000_000),
        ) {
            let origin = origin.map(Timestamp::from_millis);
            let granularity = Granularity::of(period.parse()?, origin, zone.parse()?)?;
            let instant = Timestamp::from_millis(millis);
            let bucket = granularity.bucket(instant);
            prop_assert!(bucket.contains(instant), "{bucket} should contain {instant}");
            prop_assert_eq!(granularity.truncate(instant), bucket.start());
            prop_assert_eq!(granularity.truncate(bucket.start()), bucket.start());
            let last = Timestamp::from_millis(bucket.end().millis() - 1);
            prop_assert_eq!(granularity.truncate(last), bucket.start());
            prop_assert_eq!(granularity.truncate(bucket.end()), bucket.end());
        }
    }
}
