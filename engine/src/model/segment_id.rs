use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Interval, Timestamp};
use crate::error::{Error, Result};

/// What makes a segment itself: the data source, the interval, the version and the partition number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentId {
    pub data_source: String,
    pub interval: Interval,
    /// Compared bytewise: of two groups over the same instant, the one with the greater version is visible.
    pub version: String,
    pub partition: u32,
}

impl SegmentId {
    /// Reads Druid's string form. The data source is needed, because its name may contain `_`.
    pub fn parse(data_source: &str, text: &str) -> Result<Self> {
        Self::parse_parts(data_source, text).ok_or_else(|| {
            Error::invalid_input(format!(
                "`{text}` is not a segment id of `{data_source}`, such as `{data_source}_START_END_VERSION`"
            ))
        })
    }

    fn parse_parts(data_source: &str, text: &str) -> Option<Self> {
        let rest = text.strip_prefix(data_source)?.strip_prefix('_')?;
        let mut parts = rest.splitn(3, '_');
        let start: Timestamp = parts.next()?.parse().ok()?;
        let end: Timestamp = parts.next()?.parse().ok()?;
        let rest = parts.next()?;
        let (version, partition) = match rest.rsplit_once('_') {
            Some((version, number)) if number.bytes().all(|b| b.is_ascii_digit()) => (version, number.parse().ok()?),
            _ => (rest, 0),
        };
        let interval = Interval::new(start, end).ok()?;
        Some(Self { data_source: data_source.to_owned(), interval, version: version.to_owned(), partition })
    }
}

impl fmt::Display for SegmentId {
    /// `wikipedia_2013-08-01T00:00:00.000Z_2013-08-02T00:00:00.000Z_VERSION[_PARTITION]`; partition 0 is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}_{}", self.data_source, self.interval.start(), self.interval.end(), self.version)?;
        match self.partition {
            0 => Ok(()),
            partition => write!(f, "_{partition}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_written() -> Result<()> {
        for text in [
            "wiki_pedia_2013-08-01T00:00:00.000Z_2013-08-02T00:00:00.000Z_2013-08-08T21:22:48.989Z",
            "wiki_pedia_2013-08-01T00:00:00.000Z_2013-08-02T00:00:00.000Z_2013-08-08T21:22:48.989Z_7",
        ] {
            assert_eq!(SegmentId::parse("wiki_pedia", text)?.to_string(), text);
        }
        assert!(SegmentId::parse("wiki", "wikipedia_2013").is_err());
        Ok(())
    }
}
