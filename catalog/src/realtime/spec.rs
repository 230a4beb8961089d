use henge_engine::ingest::Window;
use henge_engine::model::{DataSchema, Period, TimeZone, Timestamp};
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// Milliseconds after which rows are handed off, unless said.
const TASK_DURATION_MS: i64 = 600_000;
const MAX_ROWS: u64 = 5_000_000;

/// How rows that are pushed to a data source are made into segments, in the shape of Druid's supervisors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushSpec {
    pub data_schema: DataSchema,
    #[serde(default)]
    pub io_config: PushIoConfig,
    #[serde(default)]
    pub tuning_config: PushTuning,
}

/// When rows are handed off, and which are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PushIoConfig {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Rows are handed off so long after the first of them came; ten minutes unless said.
    pub task_duration: Period,
    /// A row that happened longer before it came is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_message_rejection_period: Option<Period>,
    /// A row that is to happen longer after it came is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_message_rejection_period: Option<Period>,
    /// Both, as in Druid's specs of 2013.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_period: Option<Period>,
}

impl Default for PushIoConfig {
    fn default() -> Self {
        Self {
            kind: None,
            task_duration: Period::millis(TASK_DURATION_MS),
            late_message_rejection_period: None,
            early_message_rejection_period: None,
            window_period: None,
        }
    }
}

/// Limits of a hand-off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PushTuning {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub max_rows_per_segment: u64,
    /// As many rows are handed off at the latest.
    pub max_total_rows: u64,
}

impl Default for PushTuning {
    fn default() -> Self {
        Self { kind: None, max_rows_per_segment: MAX_ROWS, max_total_rows: MAX_ROWS }
    }
}

impl PushSpec {
    pub fn new(data_schema: DataSchema) -> Self {
        Self { data_schema, io_config: PushIoConfig::default(), tuning_config: PushTuning::default() }
    }

    /// Reads `{"type": "push", "spec": {…}}`, or the spec alone. Errors name the field.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Outer {
            #[serde(rename = "type", default)]
            kind: Option<String>,
            spec: PushSpec,
        }
        let wrong = |error: serde_json::Error| Error::invalid_input(format!("spec of a push: {error}"));
        let value: serde_json::Value = serde_json::from_str(text).map_err(wrong)?;
        let spec = match value.get("spec") {
            None => serde_json::from_value(value).map_err(wrong)?,
            Some(_) => {
                let outer: Outer = serde_json::from_value(value).map_err(wrong)?;
                match outer.kind.as_deref() {
                    None | Some("push") => outer.spec,
                    Some(other) => {
                        let message = format!("a supervisor of type `{other}` is not supported; use `push`");
                        return Err(Error::unsupported(message));
                    }
                }
            }
        };
        Self::check(&spec)?;
        Ok(spec)
    }

    /// Finds what contradicts itself. Returns notes on what has no effect.
    pub fn check(&self) -> Result<Vec<String>> {
        let notes = self.data_schema.check()?;
        for kind in [&self.io_config.kind, &self.tuning_config.kind].into_iter().flatten() {
            if kind != "push" {
                return Err(Error::unsupported(format!("an ioConfig or tuningConfig of type `{kind}`; use `push`")));
            }
        }
        if self.tuning_config.max_rows_per_segment == 0 || self.tuning_config.max_total_rows == 0 {
            return Err(Error::invalid_input("`maxRowsPerSegment` and `maxTotalRows` must be at least 1"));
        }
        if !self.io_config.task_duration.is_positive() {
            return Err(Error::invalid_input("`taskDuration` must be longer than nothing, such as `PT10M`"));
        }
        Ok(notes)
    }

    /// The times of rows that are taken when they come at `received`.
    pub(super) fn window(&self, received: Timestamp) -> Window {
        let io = &self.io_config;
        let shifted = |period: &Period, times| period.add_to(received, times, TimeZone::Utc).map(|time| time.millis());
        let late = io.late_message_rejection_period.as_ref().or(io.window_period.as_ref());
        let early = io.early_message_rejection_period.as_ref().or(io.window_period.as_ref());
        Window {
            earliest: late.and_then(|period| shifted(period, -1)).unwrap_or(i64::MIN),
            latest: early.and_then(|period| shifted(period, 1)).unwrap_or(i64::MAX),
        }
    }

    /// Whether rows that first came at `opened` are to be handed off.
    pub(super) fn is_due(&self, opened: Timestamp, now: Timestamp) -> bool {
        let due = self.io_config.task_duration.add_to(opened, 1, TimeZone::Utc);
        due.is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_read_with_and_without_what_is_around_it() {
        let bare =
            r#"{"dataSchema": {"dataSource": "a"}, "ioConfig": {"taskDuration": "PT1H", "windowPeriod": "PT10M"}}"#;
        let spec = PushSpec::from_json(bare).unwrap();
        assert_eq!(PushSpec::from_json(&format!(r#"{{"type": "push", "spec": {bare}}}"#)).unwrap(), spec);
        let window = spec.window(Timestamp::from_millis(3_600_000));
        assert_eq!((window.earliest, window.latest), (3_000_000, 4_200_000));
        assert!(!spec.is_due(Timestamp::from_millis(0), Timestamp::from_millis(3_599_999)));
        assert!(spec.is_due(Timestamp::from_millis(0), Timestamp::from_millis(3_600_000)));
        for (wrong, word) in [
            (bare.replace("taskDuration", "taskDuratoin"), "taskDuratoin"),
            (bare.replace("PT1H", "PT0S"), "taskDuration"),
            (format!(r#"{{"type": "kinesis", "spec": {bare}}}"#), "kinesis"),
        ] {
            let error = PushSpec::from_json(&wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
