//! Clusters of real processes: the binary in its roles, killed, stopped, restarted, told otherwise.

mod failure;
mod life;
mod limits;
mod order;
mod realtime;
mod security;
mod task;

use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};

use crate::harness::ensure;
use crate::harness::process::until;
use crate::harness::servers::{Node, Place};

pub fn trials() -> Vec<Trial> {
    let all = [
        life::trials(),
        failure::trials(),
        order::trials(),
        task::trials(),
        security::trials(),
        limits::trials(),
        realtime::trials(),
    ];
    all.into_iter().flatten().collect()
}

/// Edits in each of `hours` hours of a day, `rows` in each; each adds `added`.
fn edits(place: &Place, name: &str, hours: u32, rows: u32, added: u32) -> Result<PathBuf, Failed> {
    use std::fmt::Write;

    let mut text = String::new();
    for hour in 0..hours {
        for row in 0..rows {
            let (day, hour, minute) = (1 + hour / 24, hour % 24, row % 60);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                r#"{{"time":"2013-08-{day:02}T{hour:02}:{minute:02}:00Z","page":"P{row}","added":{added}}}"#
            );
        }
    }
    let path = place.path(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

const SUM: &str = "SELECT SUM(added) FROM wiki";

/// A coordinator, two historicals and a broker.
struct Cluster {
    place: Place,
    coordinator: Node,
    historicals: Vec<Node>,
    broker: Node,
}

impl Cluster {
    fn start(place: Place) -> Result<Self, Failed> {
        Self::with(place, &[&[], &[]])
    }

    /// With historicals of these flags.
    fn with(place: Place, flags: &[&[&str]]) -> Result<Self, Failed> {
        let coordinator = place.start("coordinator", "coordinator", COORDINATOR)?;
        let historicals = flags.iter().enumerate().map(|(number, flags)| {
            place.start(&format!("historical-{number}"), "historical", &[flags, HISTORICAL].concat())
        });
        let historicals = historicals.collect::<Result<Vec<_>, _>>()?;
        let broker = place.start("broker", "broker", &[])?.ready()?;
        let cluster = Self { place, coordinator, historicals, broker };
        until("a leader", || Ok((cluster.coordinator.ask(LEADS, None)?.0 == 200).then_some(())))?;
        Ok(cluster)
    }

    /// Loads edits and waits until all replicas are there.
    fn load(&self, hours: u32, added: u32) -> Result<(), Failed> {
        let file = edits(&self.place, "edits.json", hours, 3, added)?;
        let (status, error) = self.coordinator.ingest("wiki", &file, false)?;
        ensure(status == "SUCCESS", || error.to_string())?;
        self.is_loaded()
    }

    /// Waits until nothing is missing.
    fn is_loaded(&self) -> Result<(), Failed> {
        until("everything to be loaded", || {
            let (_, missing) = self.coordinator.ask("/druid/coordinator/v1/loadstatus?full", None)?;
            let (_, percent) = self.coordinator.ask("/druid/coordinator/v1/loadstatus", None)?;
            let none = missing.as_object().is_some_and(|tiers| {
                !tiers.is_empty()
                    && tiers.values().all(|tier| tier.as_object().is_some_and(|t| t.values().all(|n| n == 0)))
            });
            Ok((none && percent["wiki"] == 100.0).then_some(()))
        })
    }

    fn sum_is(&self, expected: u32) -> Result<(), Failed> {
        let found = self.broker.sql(SUM);
        ensure(found.as_deref() == Ok(&expected.to_string()), || format!("{found:?} instead of {expected}"))
    }
}

const LEADS: &str = "/druid/coordinator/v1/isLeader";
/// Absent servers are replaced soon, so that tests need not wait a minute.
const COORDINATOR: &[&str] = &["--replace-after", "PT8S"];
pub const HISTORICAL: &[&str] = &["--drop-delay", "PT1S"];
