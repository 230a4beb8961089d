use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use super::task::http;
use super::{DAY_TWO, Place};
use crate::harness::ensure;
use crate::harness::process::Server;

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("binary::coordinator::tells_what_there_is_and_whether_it_is_loaded", tells)]
}

const API: &str = "/druid/coordinator/v1";

fn is(server: &Server, path: &str, expected: Value) -> Result<(), Failed> {
    let (status, found) = http(server, &format!("{API}/{path}"), None)?;
    ensure(status == 200 && found == expected, || format!("{path}: {status} {found} instead of {expected}"))
}

fn tells() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    place.ingest(&place.file("two.json", DAY_TWO)?, &["--append"])?.ok()?;
    let server = place.serve()?;
    let host = server.http.to_string();
    is(&server, "isLeader", json!({"leader": true}))?;
    is(&server, "loadstatus", json!({"wiki": 100.0}))?;
    is(&server, "loadstatus?simple", json!({"wiki": 0}))?;
    is(&server, "loadstatus?full", json!({"_default_tier": {"wiki": 0}}))?;
    is(&server, "datasources/wiki/loadstatus", json!({"wiki": 100.0}))?;
    is(&server, "loadqueue", json!({&host: {"segmentsToLoad": [], "segmentsToDrop": []}}))?;
    is(&server, "servers", json!([host]))?;
    is(&server, "datasources", json!(["wiki"]))?;
    is(&server, "metadata/datasources", json!(["wiki"]))?;
    let days =
        ["2013-08-02T00:00:00.000Z/2013-08-03T00:00:00.000Z", "2013-08-01T00:00:00.000Z/2013-08-02T00:00:00.000Z"];
    is(&server, "datasources/wiki/intervals", json!(days))?;
    let (_, described) = http(&server, &format!("{API}/datasources/wiki"), None)?;
    ensure(described["segments"]["count"] == 2, || described.to_string())?;
    let (_, segments) = http(&server, &format!("{API}/metadata/datasources/wiki/segments?full"), None)?;
    ensure(segments[0]["loadSpec"]["type"] == "local", || segments.to_string())?;

    let unused = format!("{API}/datasources/wiki/markUnused");
    let (status, wrong) = http(&server, &unused, Some(&json!({})))?;
    ensure(status == 400 && wrong["errorMessage"].to_string().contains("interval"), || wrong.to_string())?;
    let (_, changed) = http(&server, &unused, Some(&json!({"interval": days[0]})))?;
    ensure(changed == json!({"numChangedSegments": 1}), || changed.to_string())?;
    is(&server, "datasources/wiki/intervals", json!(days[1..]))?;
    let (status, _) = http(&server, &format!("{API}/datasources/nope"), None)?;
    ensure(status == 404, || status.to_string())
}
