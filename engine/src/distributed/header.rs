//! What goes with a plan in the headers of its request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use datafusion::common::config::ConfigOptions;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

use super::PLAN_VERSION;
use crate::error::{Category, Error, Persona, Result};

/// Names an attempt of a query.
const QUERY: &str = "henge-query";
const VERSION: &str = "henge-plan-version";
const TIME_LEFT: &str = "henge-time-left-ms";
const SETTINGS: &str = "henge-settings";

/// What a broker says to a worker of each attempt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    pub(super) query: String,
    pub(super) deadline: Option<Instant>,
    /// The session's settings that are not the usual ones.
    pub(super) settings: BTreeMap<String, String>,
}

impl Order {
    pub(super) fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &[u8]| -> Result<()> {
            let value = HeaderValue::from_bytes(value)
                .map_err(|error| Error::invalid_input(format!("`{name}` cannot be sent")).with_source(error))?;
            headers.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        put(QUERY, self.query.as_bytes())?;
        put(VERSION, PLAN_VERSION.as_bytes())?;
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            put(TIME_LEFT, left.to_string().as_bytes())?;
        }
        if !self.settings.is_empty() {
            let settings = serde_json::to_vec(&self.settings)
                .map_err(|error| Error::defensive("settings cannot be written as JSON").with_source(error))?;
            put(SETTINGS, &settings)?;
        }
        Ok(headers)
    }

    /// Reads it back. Fails if the broker is of another version.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self> {
        let text = |name| headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        let theirs = text(VERSION).unwrap_or("unknown");
        if theirs != PLAN_VERSION {
            let message = format!(
                "a plan of version `{theirs}` came to a worker of version `{PLAN_VERSION}`; it has to go to one of its own"
            );
            return Err(Error::new(Category::ServiceUnavailable, Persona::Operator, message));
        }
        let Some(query) = text(QUERY) else { return Err(unreadable(QUERY)) };
        let left = text(TIME_LEFT).map(|left| left.parse().map_err(|_| unreadable(TIME_LEFT))).transpose()?;
        let settings = text(SETTINGS).map(|settings| serde_json::from_str(settings).map_err(|_| unreadable(SETTINGS)));
        Ok(Self {
            query: query.to_owned(),
            deadline: left.and_then(|left| Instant::now().checked_add(Duration::from_millis(left))),
            settings: settings.transpose()?.unwrap_or_default(),
        })
    }
}

fn unreadable(name: &str) -> Error {
    Error::runtime_failure(format!("a plan came without a readable header `{name}`"))
}

/// Whether workers need a setting: those that say how operators run, and ours.
pub(super) fn travels(key: &str) -> bool {
    key.starts_with("datafusion.execution.") || key.starts_with("henge.")
}

/// The settings that travel and differ from `usual`, which [`usual`] made.
pub(super) fn unusual(options: &ConfigOptions, usual: &BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    let entries = options.entries().into_iter().filter(|entry| travels(&entry.key));
    let differing = entries.filter(|entry| usual.get(&entry.key) != Some(&entry.value));
    differing.filter_map(|entry| Some((entry.key, entry.value?))).collect()
}

/// The settings that travel.
pub(super) fn usual(options: &ConfigOptions) -> BTreeMap<String, Option<String>> {
    let entries = options.entries().into_iter().filter(|entry| travels(&entry.key));
    entries.map(|entry| (entry.key, entry.value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_reads_back_and_only_at_its_own_version() -> Result<()> {
        let settings = BTreeMap::from([("henge.dialect".to_owned(), "drüid".to_owned())]);
        let order = Order { query: "q-1".to_owned(), deadline: None, settings };
        let mut headers = order.headers()?;
        assert_eq!(Order::read(&headers)?, order);
        headers.insert(VERSION, HeaderValue::from_static("0.0.1/1"));
        assert_eq!(Order::read(&headers).unwrap_err().category(), Category::ServiceUnavailable);
        Ok(())
    }
}
