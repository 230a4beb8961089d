//! PostgreSQL's settings of one connection: what `SET`, `SHOW` and startup parameters reach.
//!
//! Most have no effect here; they are kept so that a client reads back what it set. Those that do: `TimeZone`,
//! `statement_timeout`. Settings of ours (`henge.*`, `datafusion.*`) are the session's.

mod known;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use henge_engine::{Error, Result};
use parking_lot::Mutex;

use self::known::{Kind, REPORTED, SETTINGS};
use super::encode::Zone;
use crate::pg_catalog::{SettingRow, SettingsView};

/// A connection's settings. Clones are the same settings: the connection's, and what SQL functions ask and change.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    inner: Arc<Mutex<Inner>>,
}

type Values = Arc<BTreeMap<String, Setting>>;

#[derive(Debug)]
struct Inner {
    values: Values,
    /// Names of settings that the client must be told about.
    changed: BTreeSet<String>,
    /// What was there when the transaction block began, and at each of its savepoints.
    saved: Vec<(Option<String>, Values)>,
}

#[derive(Clone, Debug)]
struct Setting {
    name: Cow<'static, str>,
    value: String,
    /// What RESET goes back to: the default, or what the client asked for at startup.
    first: String,
    /// What `SET LOCAL` hides until the end of the block.
    hidden: Option<String>,
    kind: Kind,
}

/// How long a setting lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Session,
    /// Until the end of the transaction block.
    Local,
}

/// A setting that the client must be told about.
pub(super) type Report = (String, String);

impl Settings {
    pub(crate) fn new(user: &str) -> Self {
        let value =
            |name, value: &str| if name == "session_authorization" { user.to_string() } else { value.to_string() };
        let setting = |&(name, first, kind): &(&'static str, &str, Kind)| {
            let first = value(name, first);
            (name.to_lowercase(), Setting { name: name.into(), value: first.clone(), first, hidden: None, kind })
        };
        let values = Arc::new(SETTINGS.iter().map(setting).collect());
        Self { inner: Arc::new(Mutex::new(Inner { values, changed: BTreeSet::new(), saved: Vec::new() })) }
    }

    /// What is told at startup.
    pub(super) fn reports(&self) -> Vec<Report> {
        let inner = self.inner.lock();
        REPORTED.iter().filter_map(|name| inner.report(name)).collect()
    }

    /// What changed since this was asked the last time, and must be told.
    pub(super) fn changes(&self) -> Vec<Report> {
        let mut inner = self.inner.lock();
        let changed = std::mem::take(&mut inner.changed);
        changed.iter().filter_map(|name| inner.report(name)).collect()
    }

    pub(super) fn get(&self, name: &str) -> Result<String> {
        self.inner.lock().find(name).map(|setting| setting.value.clone())
    }

    /// The name as PostgreSQL spells it, which is the label of `SHOW`.
    pub(super) fn label(&self, name: &str) -> Result<String> {
        self.inner.lock().find(name).map(|setting| setting.name.to_string())
    }

    pub(super) fn all(&self) -> Vec<(String, String)> {
        let inner = self.inner.lock();
        inner.values.values().map(|setting| (setting.name.to_string(), setting.value.clone())).collect()
    }

    /// Sets `name`; `None` goes back to the first value. A name with a dot that nobody knows is the client's own.
    pub(super) fn set(&self, name: &str, value: Option<&str>, scope: Scope) -> Result<()> {
        self.inner.lock().set(name, value, scope)
    }

    /// Sets what a client asks for at startup: RESET goes back to it.
    pub(super) fn start(&self, name: &str, value: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.set(name, Some(value), Scope::Session)?;
        inner.changed.clear();
        if let Some(setting) = Arc::make_mut(&mut inner.values).get_mut(&name.to_lowercase()) {
            setting.first.clone_from(&setting.value);
        }
        Ok(())
    }

    /// All back to their first values.
    pub(super) fn reset(&self) {
        let mut inner = self.inner.lock();
        let first = |setting: &Setting| (setting.value != setting.first).then(|| setting.first.clone());
        inner.replace(first);
    }

    /// A transaction block begins.
    pub(super) fn begin(&self) {
        let mut inner = self.inner.lock();
        inner.saved = vec![(None, Arc::clone(&inner.values))];
    }

    /// It ends well: what was set for it alone goes back.
    pub(super) fn commit(&self) {
        let mut inner = self.inner.lock();
        inner.saved.clear();
        inner.replace(|setting| setting.hidden.clone());
    }

    /// It ends badly: everything goes back.
    pub(super) fn rollback(&self) {
        let mut inner = self.inner.lock();
        let first = std::mem::take(&mut inner.saved).into_iter().next();
        if let Some((_, values)) = first {
            inner.go_back(values);
        }
    }

    pub(super) fn savepoint(&self, name: &str) {
        let mut inner = self.inner.lock();
        let values = Arc::clone(&inner.values);
        inner.saved.push((Some(name.to_string()), values));
    }

    /// Forgets a savepoint and those after it.
    pub(super) fn release(&self, name: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        let at = inner.savepoint(name)?;
        inner.saved.truncate(at);
        Ok(())
    }

    /// Goes back to a savepoint, which stays.
    pub(super) fn rollback_to(&self, name: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        let at = inner.savepoint(name)?;
        inner.saved.truncate(at + 1);
        let values = Arc::clone(&inner.saved[at].1);
        inner.go_back(values);
        Ok(())
    }

    pub(super) fn zone(&self) -> Zone {
        self.get("timezone").and_then(|name| Zone::parse(&name)).unwrap_or_default()
    }

    pub(super) fn statement_timeout(&self) -> Option<Duration> {
        let millis = self.get("statement_timeout").ok().and_then(|text| duration_millis(&text).ok())?;
        (millis > 0).then(|| Duration::from_millis(millis))
    }
}

impl Inner {
    fn find(&self, name: &str) -> Result<&Setting> {
        self.values.get(&name.to_lowercase()).ok_or_else(|| unknown(name))
    }

    fn report(&self, name: &str) -> Option<Report> {
        let setting = self.values.get(&name.to_lowercase())?;
        REPORTED.contains(&setting.name.as_ref()).then(|| (setting.name.to_string(), setting.value.clone()))
    }

    fn set(&mut self, name: &str, value: Option<&str>, scope: Scope) -> Result<()> {
        let key = name.to_lowercase();
        if name.contains('.') && !self.values.contains_key(&key) {
            let own = Setting {
                name: name.to_string().into(),
                value: String::new(),
                first: String::new(),
                hidden: None,
                kind: Kind::Free,
            };
            Arc::make_mut(&mut self.values).insert(key.clone(), own);
        }
        let setting = self.find(name)?;
        let checked = checked(setting, value.unwrap_or(&setting.first))?;
        if let Some(setting) = Arc::make_mut(&mut self.values).get_mut(&key) {
            let before = std::mem::replace(&mut setting.value, checked);
            setting.hidden = match scope {
                Scope::Session => None,
                Scope::Local => Some(setting.hidden.take().unwrap_or(before)),
            };
        }
        self.changed.insert(key);
        Ok(())
    }

    /// Gives settings another value, where `value` has one for them.
    fn replace(&mut self, value: impl Fn(&Setting) -> Option<String>) {
        if !self.values.values().any(|setting| value(setting).is_some()) {
            return;
        }
        for (key, setting) in Arc::make_mut(&mut self.values) {
            if let Some(value) = value(setting) {
                setting.value = value;
                setting.hidden = None;
                self.changed.insert(key.clone());
            }
        }
    }

    fn go_back(&mut self, values: Values) {
        let differs = |(key, setting): (&String, &Setting)| {
            let same = values.get(key).is_some_and(|before| before.value == setting.value);
            (!same).then(|| key.clone())
        };
        let changed: Vec<String> = self.values.iter().filter_map(differs).collect();
        self.changed.extend(changed);
        self.values = values;
    }

    fn savepoint(&self, name: &str) -> Result<usize> {
        let found = self.saved.iter().rposition(|(saved, _)| saved.as_deref() == Some(name));
        found.ok_or_else(|| Error::not_found(format!("savepoint \"{name}\" does not exist")).with_sqlstate("3B001"))
    }
}

impl SettingsView for Settings {
    fn rows(&self) -> Vec<SettingRow> {
        let inner = self.inner.lock();
        let row = |setting: &Setting| SettingRow {
            name: setting.name.to_string(),
            value: setting.value.clone(),
            reset_value: setting.first.clone(),
            is_fixed: matches!(setting.kind, Kind::Fixed),
            is_bool: matches!(setting.first.as_str(), "on" | "off"),
        };
        inner.values.values().map(row).collect()
    }

    fn value(&self, name: &str) -> Result<String> {
        self.get(name)
    }

    fn change(&self, name: &str, value: Option<&str>, local: bool) -> Result<String> {
        let in_block = !self.inner.lock().saved.is_empty();
        match local {
            // As PostgreSQL does: outside of a block it ends with the statement.
            true if !in_block => return Ok(value.unwrap_or_default().to_string()),
            true => self.set(name, value, Scope::Local)?,
            false => self.set(name, value, Scope::Session)?,
        }
        self.get(name)
    }
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("unrecognized configuration parameter \"{name}\"")).with_sqlstate("42704")
}

fn checked(setting: &Setting, value: &str) -> Result<String> {
    let name = &setting.name;
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
        Kind::Encoding => {
            // As PostgreSQL does, letters and digits alone count.
            let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            match plain.to_ascii_lowercase().as_str() {
                "utf8" | "unicode" => Ok("UTF8".to_string()),
                _ => Err(invalid().with_hint("only UTF8 is supported here")),
            }
        }
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
        let settings = Settings::new("u");
        for (set, shown, millis) in [("1000", "1s", 1_000), ("2min", "2min", 120_000), ("90s", "90s", 90_000)] {
            settings.set("statement_timeout", Some(set), Scope::Session).unwrap();
            assert_eq!(settings.get("statement_timeout").unwrap(), shown);
            assert_eq!(settings.statement_timeout(), Some(Duration::from_millis(millis)));
        }
        assert!(settings.set("statement_timeout", Some("soon"), Scope::Session).is_err());
    }

    fn set(settings: &Settings, name: &str, value: &str) -> Result<()> {
        settings.set(name, Some(value), Scope::Session)
    }

    #[test]
    fn reset_goes_back_to_what_the_client_asked_for_at_startup() {
        let settings = Settings::new("u");
        settings.start("application_name", "cube").unwrap();
        assert!(settings.changes().is_empty());
        set(&settings, "Application_Name", "other").unwrap();
        assert_eq!(settings.changes(), [("application_name".to_string(), "other".to_string())]);
        settings.reset();
        assert_eq!(settings.changes(), [("application_name".to_string(), "cube".to_string())]);
    }

    #[test]
    fn what_would_change_answers_and_is_not_built_is_refused() {
        let settings = Settings::new("u");
        assert!(set(&settings, "client_encoding", "latin1").is_err());
        assert!(set(&settings, "server_version", "9").is_err());
        assert!(set(&settings, "timezone", "Mars/Base").is_err());
        assert_eq!(settings.get("nonsense").unwrap_err().sqlstate(), Some("42704"));
        assert!(set(&settings, "nonsense", "1").is_err());
    }

    #[test]
    fn a_block_that_fails_takes_its_settings_along_and_local_ones_end_with_any() {
        let settings = Settings::new("u");
        let shown = || (settings.get("work_mem").unwrap(), settings.get("TimeZone").unwrap());
        settings.begin();
        set(&settings, "work_mem", "8MB").unwrap();
        settings.set("TimeZone", Some("Asia/Tokyo"), Scope::Local).unwrap();
        assert_eq!(shown(), ("8MB".into(), "Asia/Tokyo".into()));
        settings.commit();
        assert_eq!(shown(), ("8MB".into(), "UTC".into()));
        assert_eq!(settings.changes(), [("TimeZone".to_string(), "UTC".to_string())]);
        settings.begin();
        set(&settings, "work_mem", "1GB").unwrap();
        settings.savepoint("a");
        set(&settings, "work_mem", "2GB").unwrap();
        settings.rollback_to("a").unwrap();
        assert_eq!(shown().0, "1GB");
        settings.release("a").unwrap();
        assert_eq!(settings.rollback_to("a").unwrap_err().sqlstate(), Some("3B001"));
        settings.rollback();
        assert_eq!(shown().0, "8MB");
    }

    #[test]
    fn a_name_with_a_dot_is_the_clients_own() {
        let settings = Settings::new("u");
        assert!(settings.get("app.tenant").is_err());
        set(&settings, "app.tenant", "7").unwrap();
        assert_eq!(settings.get("App.Tenant").unwrap(), "7");
    }

    #[test]
    fn startup_options_may_escape_spaces() {
        let pairs = startup_options(r"-c statement_timeout=5 --search-path=a\ b -csetting=1");
        let expected = [("statement_timeout", "5"), ("search_path", "a b"), ("setting", "1")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_string(), value.to_string())));
    }
}
