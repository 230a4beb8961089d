use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Period, TimeZone, Timestamp};
use crate::error::{Error, Result};

/// A half-open span of time `[start, end)`, never empty. Written `start/end` in ISO-8601.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    start: Timestamp,
    end: Timestamp,
}

impl Interval {
    /// All of time, as Druid writes it.
    pub const ETERNITY: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// Fails with an empty or reversed span.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self> {
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(Error::invalid_input(format!("interval `{start}/{end}` is empty: its end must be after its start")))
        }
    }

    pub const fn start(&self) -> Timestamp {
        self.start
    }

    pub const fn end(&self) -> Timestamp {
        self.end
    }

    pub fn contains(&self, instant: Timestamp) -> bool {
        self.start <= instant && instant < self.end
    }

    pub fn contains_interval(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What both cover; `None` when they do not overlap.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.start, self.end)
    }
}

impl FromStr for Interval {
    type Err = Error;

    /// `start/end`; one of both may be a period, such as `2013-08-01/P1D`.
    fn from_str(text: &str) -> Result<Self> {
        let (start, end) = text.split_once('/').ok_or_else(|| {
            Error::invalid_input(format!("`{text}` is not an interval, such as `2013-08-01/2013-08-02`"))
        })?;
        let moved = |from: &str, period: &str, times| {
            let period: Period = period.parse()?;
            period
                .add_to(from.parse()?, times, TimeZone::Utc)
                .ok_or_else(|| Error::invalid_input(format!("interval `{text}` leaves the calendar")))
        };
        match (start.starts_with('P'), end.starts_with('P')) {
            (false, true) => Self::new(start.parse()?, moved(start, end, 1)?),
            (true, false) => Self::new(moved(end, start, -1)?, end.parse()?),
            _ => Self::new(start.parse()?, end.parse()?),
        }
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_may_be_a_period() -> Result<()> {
        let day: Interval = "2013-08-01/2013-08-02".parse()?;
        assert_eq!("2013-08-01/P1D".parse::<Interval>()?, day);
        assert_eq!("PT24H/2013-08-02".parse::<Interval>()?, day);
        assert!("P1D/P1D".parse::<Interval>().is_err());
        assert!("2013-08-02/2013-08-01".parse::<Interval>().is_err());
        Ok(())
    }
}
