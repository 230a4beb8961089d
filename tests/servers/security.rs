//! Servers that show each other certificates.

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::json;

use super::{Cluster, HISTORICAL, SUM};
use crate::harness::certificates::Certificates;
use crate::harness::process::{henge, run, until};
use crate::harness::servers::{Place, SECRET};
use crate::harness::{contains, ensure, missing};

pub fn trials() -> Vec<Trial> {
    vec![Trial::ignorable_test("servers::security::what_passes_between_servers_is_encrypted", encrypted)]
}

fn encrypted() -> Result<Completion, Failed> {
    let place = Place::new()?;
    let Some(ours) = Certificates::issue(place.path("").as_path(), "cluster")? else { return missing("openssl") };
    let Some(theirs) = Certificates::issue(place.path("").as_path(), "theirs")? else { return missing("openssl") };
    // A whole cluster: orders, feeds, plans and rows pass encrypted, and people may come as before.
    let cluster = Cluster::start(place.flagged(ours.flags()))?;
    cluster.load(4, 5)?;
    cluster.broker.becomes(SUM, "60")?;
    cluster.broker.becomes("SELECT COUNT(*) FROM sys.server_segments", "8")?;

    // The cluster's secret is not enough.
    let order = json!({"epoch": 99, "load": [], "drop": []});
    let (status, words) = cluster.historicals[0].ask_with("/internal/v1/orders", Some(&order), Some(SECRET))?;
    ensure(status == 401 && words.to_string().contains("certificate"), || format!("{status}: {words}"))?;

    // Servers with the secret, the metadata database and certificates of another authority: nobody asks them, and
    // nobody answers them.
    let historical = cluster.place.start_strange(&theirs.flags(), "stranger", "historical", HISTORICAL)?;
    let broker = cluster.place.start_strange(&theirs.flags(), "strange-broker", "broker", &[])?;
    until("the stranger to be known, and not to answer", || {
        Ok(cluster
            .coordinator
            .printed()
            .contains(&format!("server `{}` does not answer", historical.name()))
            .then_some(()))
    })?;
    let refused = broker.sql(SUM).expect_err("historicals do not answer it");
    contains(&refused, &["wiki"])?;
    ensure(historical.ask("/status", None)?.1["segments"] == 0, || "it was given segments".to_owned())?;
    cluster.sum_is(60)?;

    let refused = run(henge(&["server", "--role", "broker", "--metadata", "sqlite:///x", "--cluster-tls-ca", "x"]))?
        .failed_with(2)?;
    contains(&refused, &["--cluster-tls-cert"])?;
    Ok(Completion::Completed)
}
