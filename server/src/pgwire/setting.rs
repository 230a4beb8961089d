//! PostgreSQL's settings of one connection: what `SET`, `SHOW` and startup parameters reach.
//!
//! Most have no effect here; they are kept so that a client reads back what it set. Those that do: `TimeZone`,
//! `statement_timeout`. Settings of ours (`henge.*`, `datafusion.*`) are the session's.

use std::collections::BTreeMap;
use std::time::Duration;

use henge_engine::{Error, Result};

use super::encode::Zone;
use crate::pg_catalog::{SERVER_VERSION, SERVER_VERSION_NUM};

/// Name as PostgreSQL spells it, first value, and what a client may do with it.
const SETTINGS: &[(&str, &str, Kind)] = &[
    ("application_name", "", Kind::Reported),
    ("backslash_quote", "safe_encoding", Kind::Free),
    ("bytea_output", "hex", Kind::Only(&["hex"])),
    ("client_encoding", "UTF8", Kind::Only(&["UTF8", "UTF-8", "UNICODE", "\"UTF8\""])),
    ("client_min_messages", "notice", Kind::Free),
    ("cursor_tuple_fraction", "0.1", Kind::Free),
    ("DateStyle", "ISO, MDY", Kind::Reported),
    ("default_transaction_deferrable", "off", Kind::Free),
    ("default_transaction_isolation", "read committed", Kind::Free),
    ("default_transaction_read_only", "off", Kind::Reported),
    ("enable_hashjoin", "on", Kind::Free),
    ("enable_nestloop", "on", Kind::Free),
    ("enable_seqscan", "on", Kind::Free),
    ("escape_string_warning", "on", Kind::Free),
    ("extra_float_digits", "1", Kind::Free),
    ("force_parallel_mode", "off", Kind::Free),
    ("geqo", "on", Kind::Free),
    ("idle_in_transaction_session_timeout", "0", Kind::Free),
    ("in_hot_standby", "off", Kind::Fixed),
    ("integer_datetimes", "on", Kind::Fixed),
    ("IntervalStyle", "postgres", Kind::Only(&["postgres"])),
    ("is_superuser", "off", Kind::Fixed),
    ("jit", "off", Kind::Free),
    ("lc_collate", "C", Kind::Fixed),
    ("lc_ctype", "C.UTF-8", Kind::Fixed),
    ("lc_messages", "C", Kind::Free),
    ("lc_monetary", "C", Kind::Free),
    ("lc_numeric", "C", Kind::Free),
    ("lc_time", "C", Kind::Free),
    ("lock_timeout", "0", Kind::Free),
    ("max_identifier_length", "63", Kind::Fixed),
    ("max_index_keys", "32", Kind::Fixed),
    ("quote_all_identifiers", "off", Kind::Free),
    ("row_security", "on", Kind::Free),
    ("search_path", "druid", Kind::Free),
    ("seq_page_cost", "1", Kind::Free),
    ("server_encoding", "UTF8", Kind::Fixed),
    ("server_version", SERVER_VERSION, Kind::Fixed),
    ("server_version_num", SERVER_VERSION_NUM, Kind::Fixed),
    ("session_authorization", "henge", Kind::Fixed),
    ("ssl", "off", Kind::Fixed),
    ("standard_conforming_strings", "on", Kind::Only(&["on", "true", "1"])),
    ("statement_timeout", "0", Kind::Duration),
    ("synchronize_seqscans", "on", Kind::Free),
    ("synchronous_commit", "on", Kind::Free),
    ("TimeZone", "UTC", Kind::Zone),
    ("transaction_isolation", "read committed", Kind::Free),
    ("transaction_read_only", "off", Kind::Free),
    ("vacuum_cost_delay", "0", Kind::Free),
    ("work_mem", "4MB", Kind::Free),
    ("xmloption", "content", Kind::Free),
];

/// Settings whose value is told to the client at startup and whenever it changes.
const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Free,
    Reported,
    Fixed,
    /// These values are taken; anything else would change answers, which is not built.
    Only(&'static [&'static str]),
    Duration,
    Zone,
}

/// A connection's settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    values: BTreeMap<String, Setting>,
}

#[derive(Clone, Debug)]
struct Setting {
    name: &'static str,
    value: String,
    /// What RESET goes back to: the default, or what the client asked for at startup.
    first: String,
    kind: Kind,
}

/// A setting that the client must be told about.
pub(super) type Report = (&'static str, String);

impl Settings {
    pub(super) fn new(user: &str) -> Self {
        let value =
            |name, value: &str| if name == "session_authorization" { user.to_string() } else { value.to_string() };
        let setting = |&(name, first, kind): &(&'static str, &str, Kind)| {
            let first = value(name, first);
            (name.to_lowercase(), Setting { name, value: first.clone(), first, kind })
        };
        Self { values: SETTINGS.iter().map(setting).collect() }
    }

    /// What is told at startup.
    pub(super) fn reports(&self) -> Vec<Report> {
        REPORTED.iter().filter_map(|name| Some((*name, self.values.get(&name.to_lowercase())?.value.clone()))).collect()
    }

    pub(super) fn get(&self, name: &str) -> Result<&str> {
        self.find(name).map(|setting| setting.value.as_str())
    }

    /// The name as PostgreSQL spells it, which is the label of `SHOW`.
    pub(super) fn label(&self, name: &str) -> Result<&'static str> {
        self.find(name).map(|setting| setting.name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.values().map(|setting| (setting.name, setting.value.as_str()))
    }

    /// Sets `name`; `None` goes back to the first value. Gives what the client must be told.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>) -> Result<Option<Report>> {
        let first = self.find(name)?.first.clone();
        let checked = checked(self.find(name)?, value.unwrap_or(&first))?;
        let setting = self.values.get_mut(&name.to_lowercase()).ok_or_else(|| unknown(name))?;
        setting.value = checked;
        Ok(REPORTED.contains(&setting.name).then(|| (setting.name, setting.value.clone())))
    }

    /// Sets what a client asks for at startup: RESET goes back to it.
    pub(super) fn start(&mut self, name: &str, value: &str) -> Result<()> {
        self.set(name, Some(value))?;
        if let Some(setting) = self.values.get_mut(&name.to_lowercase()) {
            setting.first.clone_from(&setting.value);
        }
        Ok(())
    }

    /// All back to their first values. Gives what the client must be told.
    pub(super) fn reset(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        for setting in self.values.values_mut().filter(|setting| setting.value != setting.first) {
            setting.value.clone_from(&setting.first);
            if REPORTED.contains(&setting.name) {
                reports.push((setting.name, setting.value.clone()));
            }
        }
        reports
    }

    pub(super) fn zone(&self) -> Zone {
        self.get("timezone").and_then(Zone::parse).unwrap_or_default()
    }

    pub(super) fn statement_timeout(&self) -> Option<Duration> {
        let millis = self.get("statement_timeout").ok().and_then(|text| duration_millis(text).ok())?;
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    fn find(&self, name: &str) -> Result<&Setting> {
        self.values.get(&name.to_lowercase()).ok_or_else(|| unknown(name))
    }
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("unrecognized configuration parameter \"{name}\"")).with_sqlstate("42704")
}

fn checked(setting: &Setting, value: &str) -> Result<String> {
    let name = setting.name;
    let invalid =
        || Error::invalid_input(format!("invalid value for parameter \"{name}\": \"{value}\"")).with_sqlstate("22023");
    match setting.kind {
        Kind::Free | Kind::Reported => Ok(value.to_string()),
        Kind::Fixed if value == setting.value => Ok(value.to_string()),
        Kind::Fixed => {
            Err(Error::invalid_input(format!("parameter \"{name}\" cannot be changed")).with_sqlstate("55P02"))
        }
        Kind::Only(values) if values.iter().any(|allowed| allowed.eq_ignore_ascii_case(value)) => {
            Ok(values[0].to_string())
        }
        Kind::Only(_) => Err(invalid().with_hint("only the default is supported here")),
        Kind::Duration => duration_millis(value).map(duration_text).map_err(|()| invalid()),
        Kind::Zone => Zone::parse(value)
            .map(|zone| match zone {
                Zone::Utc => "UTC".to_string(),
                Zone::Named(zone) => zone.name().to_string(),
            })
            .map_err(|error| error.with_sqlstate("22023")),
    }
}

const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

fn duration_millis(text: &str) -> Result<u64, ()> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| ())?;
    let unit = text[digits..].trim();
    let factor =
        if unit.is_empty() { Some(1) } else { UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms) };
    number.checked_mul(factor.ok_or(())?).ok_or(())
}

/// In the largest unit that gives a whole number, as PostgreSQL shows it.
fn duration_text(millis: u64) -> String {
    if millis == 0 {
        return "0".to_string();
    }
    let unit = UNITS.iter().find(|(_, factor)| millis.is_multiple_of(*factor));
    unit.map_or_else(|| millis.to_string(), |(name, factor)| format!("{}{name}", millis / factor))
}

/// The `-c name=value` and `--name=value` of the startup parameter `options`.
pub(super) fn startup_options(options: &str) -> Vec<(String, String)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = options.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => word.extend(chars.next()),
            char if char.is_whitespace() => words.push(std::mem::take(&mut word)),
            char => word.push(char),
        }
    }
    words.push(word);
    let pair = |word: &str| {
        let (name, value) = word.trim_start_matches("--").trim_start_matches("-c").split_once('=')?;
        Some((name.replace('-', "_"), value.to_string()))
    };
    words.iter().filter_map(|word| pair(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_their_largest_whole_unit() {
        let mut settings = Settings::new("u");
        for (set, shown, millis) in [("1000", "1s", 1_000), ("2min", "2min", 120_000), ("90s", "90s", 90_000)] {
            settings.set("statement_timeout", Some(set)).unwrap();
            assert_eq!(settings.get("statement_timeout").unwrap(), shown);
            assert_eq!(settings.statement_timeout(), Some(Duration::from_millis(millis)));
        }
        assert!(settings.set("statement_timeout", Some("soon")).is_err());
    }

    #[test]
    fn reset_goes_back_to_what_the_client_asked_for_at_startup() {
        let mut settings = Settings::new("u");
        settings.start("application_name", "cube").unwrap();
        let report = settings.set("Application_Name", Some("other")).unwrap();
        assert_eq!(report, Some(("application_name", "other".to_string())));
        assert_eq!(settings.reset(), [("application_name", "cube".to_string())]);
    }

    #[test]
    fn what_would_change_answers_and_is_not_built_is_refused() {
        let mut settings = Settings::new("u");
        assert!(settings.set("client_encoding", Some("latin1")).is_err());
        assert!(settings.set("server_version", Some("9")).is_err());
        assert!(settings.set("timezone", Some("Mars/Base")).is_err());
        assert_eq!(settings.get("nonsense").unwrap_err().sqlstate(), Some("42704"));
    }

    #[test]
    fn startup_options_may_escape_spaces() {
        let pairs = startup_options(r"-c statement_timeout=5 --search-path=a\ b -csetting=1");
        let expected = [("statement_timeout", "5"), ("search_path", "a b"), ("setting", "1")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_string(), value.to_string())));
    }
}
