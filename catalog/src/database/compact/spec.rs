use std::str::FromStr;

use henge_engine::model::{Interval, Period};
use henge_engine::{Error, Result};
use serde_json::{Map, Value, json};

/// Rows of a segment at most, as ingestion has it.
const MAX_ROWS_PER_SEGMENT: u64 = 5_000_000;

/// What is to be compacted, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionSpec {
    pub data_source: String,
    /// Only granules within it; all of them unless said.
    pub interval: Option<Interval>,
    pub max_rows_per_segment: u64,
    /// Whether rows that agree in time and dimensions are combined. Unless said, where all segments were made so.
    pub rollup: Option<bool>,
}

impl CompactionSpec {
    pub fn new(data_source: impl Into<String>) -> Self {
        let data_source = data_source.into();
        Self { data_source, interval: None, max_rows_per_segment: MAX_ROWS_PER_SEGMENT, rollup: None }
    }

    /// Reads Druid's task of type `compact`. What it asks that is not done here is named in the failure.
    pub fn from_json(task: &Value) -> Result<Self> {
        let task = object(task, "the task")?;
        let data_source = task.get("dataSource").and_then(Value::as_str).filter(|name| !name.is_empty());
        let mut spec = Self::new(data_source.ok_or_else(|| Error::invalid_input("a compaction needs a `dataSource`"))?);
        for (name, value) in task.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "type" | "id" | "groupId" | "resource" | "dataSource" | "context" => {}
                "interval" => spec.interval = Some(interval(value)?),
                "ioConfig" => spec.take_io(object(value, "`ioConfig`")?)?,
                "tuningConfig" => spec.take_tuning(object(value, "`tuningConfig`")?)?,
                "granularitySpec" => spec.take_granularity(object(value, "`granularitySpec`")?)?,
                other => return Err(not_done(other)),
            }
        }
        match spec.max_rows_per_segment {
            0 => Err(Error::invalid_input("`maxRowsPerSegment` must be at least 1")),
            _ => Ok(spec),
        }
    }

    fn take_io(&mut self, config: &Map<String, Value>) -> Result<()> {
        for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                // A compaction has all rows of what it replaces.
                "type" | "dropExisting" | "allowNonAlignedInterval" => {}
                "inputSpec" => {
                    let input = object(value, "`inputSpec`")?;
                    if input.get("type").and_then(Value::as_str) != Some("interval") {
                        return Err(Error::unsupported("an `inputSpec` of type `interval` is understood, no other"));
                    }
                    let within = input
                        .get("interval")
                        .ok_or_else(|| Error::invalid_input("`inputSpec` lacks its `interval`"))?;
                    self.interval = Some(interval(within)?);
                }
                other => return Err(not_done(other)),
            }
        }
        Ok(())
    }

    fn take_tuning(&mut self, config: &Map<String, Value>) -> Result<()> {
        let partitions = config.get("partitionsSpec").filter(|spec| !spec.is_null());
        let partitions = partitions.map(|spec| object(spec, "`partitionsSpec`")).transpose()?;
        if let Some(kind) = partitions.and_then(|spec| spec.get("type")).and_then(Value::as_str)
            && kind != "dynamic"
        {
            return Err(Error::unsupported(format!(
                "`partitionsSpec` of type `{kind}` is not supported; use `dynamic`"
            )));
        }
        let rows = [partitions, Some(config)].into_iter().flatten().find_map(|from| from.get("maxRowsPerSegment"));
        if let Some(rows) = rows.filter(|rows| !rows.is_null()) {
            let wrong = || Error::invalid_input("`maxRowsPerSegment` is no number of rows");
            self.max_rows_per_segment = rows.as_u64().ok_or_else(wrong)?;
        }
        Ok(())
    }

    fn take_granularity(&mut self, spec: &Map<String, Value>) -> Result<()> {
        for (name, value) in spec.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "type" => {}
                "rollup" => {
                    let wrong = || Error::invalid_input("`rollup` is `true` or `false`");
                    self.rollup = Some(value.as_bool().ok_or_else(wrong)?);
                }
                other => return Err(not_done(other)),
            }
        }
        Ok(())
    }

    /// As Druid writes such a task.
    pub fn to_json(&self) -> Value {
        // All of time has no text that can be read again.
        let within = self.interval.map(|within| json!({"type": "interval", "interval": within}));
        json!({
            "type": "compact",
            "dataSource": self.data_source,
            "ioConfig": {"type": "compact", "inputSpec": within},
            "tuningConfig": {"partitionsSpec": {"type": "dynamic", "maxRowsPerSegment": self.max_rows_per_segment}},
            "granularitySpec": {"rollup": self.rollup},
        })
    }
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| Error::invalid_input(format!("{what} is no JSON object")))
}

fn interval(value: &Value) -> Result<Interval> {
    let text = value.as_str().ok_or_else(|| Error::invalid_input("an interval is written as `start/end`"))?;
    text.parse()
}

fn not_done(name: &str) -> Error {
    Error::unsupported(format!("a compaction does nothing about `{name}`; leave it out"))
}

/// A data source, or `*` for all others, that is compacted by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoCompaction {
    pub data_source: String,
    /// Granules that reach into this much before the latest row are left alone: they are still being added to.
    pub skip_latest: Period,
}

impl AutoCompaction {
    pub(super) fn is_for(&self, data_source: &str) -> bool {
        self.data_source == data_source || self.data_source == "*"
    }
}

impl FromStr for AutoCompaction {
    type Err = Error;

    /// `NAME`, or `NAME=PERIOD`; a day unless said.
    fn from_str(text: &str) -> Result<Self> {
        let (name, period) = text.split_once('=').unwrap_or((text, "P1D"));
        if name.trim().is_empty() {
            return Err(Error::invalid_input(format!("`{text}` names no data source; write it as `wikipedia=P1D`")));
        }
        Ok(Self { data_source: name.trim().to_owned(), skip_latest: period.trim().parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn druids_tasks_are_understood_and_what_is_not_done_is_named() {
        let task = json!({
            "type": "compact", "id": "x", "dataSource": "wiki", "context": {"priority": 3},
            "ioConfig": {"type": "compact", "inputSpec": {"type": "interval", "interval": "2013-08-01/2013-08-02"}},
            "tuningConfig": {"type": "index_parallel", "partitionsSpec": {"type": "dynamic", "maxRowsPerSegment": 7}, "maxNumConcurrentSubTasks": 2},
            "granularitySpec": {"rollup": false},
        });
        let spec = CompactionSpec::from_json(&task).unwrap();
        assert_eq!((spec.data_source.as_str(), spec.max_rows_per_segment, spec.rollup), ("wiki", 7, Some(false)));
        assert_eq!(spec.interval, Some("2013-08-01/2013-08-02".parse().unwrap()));
        for spec in [spec, CompactionSpec::new("all of time")] {
            assert_eq!(CompactionSpec::from_json(&spec.to_json()).unwrap(), spec);
        }
        let older =
            json!({"dataSource": "wiki", "interval": "2013-08-01/P1D", "tuningConfig": {"maxRowsPerSegment": 3}});
        assert_eq!(CompactionSpec::from_json(&older).unwrap().max_rows_per_segment, 3);
        for (wrong, words) in [
            (json!({"type": "compact"}), "`dataSource`"),
            (json!({"dataSource": "a", "granularitySpec": {"segmentGranularity": "DAY"}}), "`segmentGranularity`"),
            (json!({"dataSource": "a", "dimensionsSpec": {}}), "`dimensionsSpec`"),
            (json!({"dataSource": "a", "tuningConfig": {"partitionsSpec": {"type": "range"}}}), "`range`"),
            (json!({"dataSource": "a", "tuningConfig": {"maxRowsPerSegment": 0}}), "at least 1"),
            (json!({"dataSource": "a", "ioConfig": {"inputSpec": {"type": "segments"}}}), "`interval`"),
        ] {
            let error = CompactionSpec::from_json(&wrong).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn schedules_are_written_as_names_and_periods() {
        let auto = |text: &str| text.parse::<AutoCompaction>();
        assert_eq!(auto("wiki").unwrap().skip_latest, Period::days(1));
        let hourly = auto("*=PT1H").unwrap();
        assert_eq!((hourly.data_source.as_str(), hourly.skip_latest), ("*", Period::millis(3_600_000)));
        assert!(hourly.is_for("anything"));
        assert!(auto("=P1D").is_err() && auto("wiki=soon").is_err());
    }
}
