use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::task::{TASK, http, submit, until_it_is};
use super::{DAY_TWO, Place, sum_is};
use crate::harness::process::run;
use crate::harness::{contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("binary::compact::of_a_directory_and_of_a_running_server", compacted),
        Trial::test("binary::compact::by_itself", by_itself),
    ]
}

const SEGMENTS: &str = "SELECT COUNT(*) FROM sys.segments";

/// By the command alone, by the command that asks a server, and by a task.
fn compacted() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let two = place.file("two.json", DAY_TWO)?;
    let append = || place.ingest(&two, &["--append"])?.ok();
    let compact = |more: &[&str]| run(place.henge(&[&["compact", "wiki"], more].concat()));
    contains(&compact(&[])?.ok()?, &["wiki: there is nothing to merge"])?;
    append()?;
    append()?;
    let sum = place.sql("SELECT SUM(added) FROM wiki")?[0].parse::<i64>()?;
    contains(&compact(&["--interval", "2000-01-01/2001-01-01"])?.ok()?, &["nothing to merge"])?;
    contains(&compact(&[])?.ok()?, &["wiki: 2 segments of 1 granules are 1 now", "rows are"])?;
    ensure(place.sql("SELECT SUM(added) FROM wiki")? == [sum.to_string()], || "other rows".to_owned())?;
    ensure(place.sql(SEGMENTS)? == ["2"], || "the segments are not merged".to_owned())?;
    ensure(place.work_in_progress()?.is_empty(), || format!("{:?} is left", place.work_in_progress()))?;
    contains(&run(place.henge(&["compact", "absent"]))?.failed_with(2)?, &["`absent`"])?;

    let day_two =
        place.sql("SELECT SUM(added) FROM wiki WHERE __time >= TIMESTAMP '2013-08-02'")?[0].parse::<i64>()? / 2;
    let server = place.serve()?;
    append()?;
    contains(&compact(&[])?.ok()?, &["wiki: 2 segments of 1 granules are 1 now"])?;
    sum_is(&server, sum + day_two)?;
    append()?;
    let task = json!({
        "type": "compact",
        "dataSource": "wiki",
        "ioConfig": {"type": "compact", "inputSpec": {"type": "interval", "interval": "2013-08-01/2013-08-03"}},
        "tuningConfig": {"type": "index_parallel", "partitionsSpec": {"type": "dynamic", "maxRowsPerSegment": 5_000_000}},
    });
    let id = submit(&server, &task)?;
    until_it_is(&server, &id, "SUCCESS")?;
    let (_, report) = http(&server, &format!("{TASK}/{id}/reports"), None)?;
    let payload = &report["ingestionStatsAndErrors"]["payload"];
    ensure(payload["segmentsBefore"] == 2 && payload["segmentsAfter"] == 1, || report.to_string())?;
    sum_is(&server, sum + 2 * day_two)?;
    let wrong = json!({"type": "compact", "dataSource": "wiki", "granularitySpec": {"segmentGranularity": "MONTH"}});
    let (status, refused) = http(&server, TASK, Some(&wrong))?;
    ensure(status == 400 || status == 501, || format!("{status}: {refused}"))?;
    contains(&refused.to_string(), &["segmentGranularity"])
}

fn by_itself() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let one = place.path().join("one.json");
    place.ingest(&one, &["--append"])?.ok()?;
    place.ingest(&place.file("two.json", DAY_TWO)?, &["--append"])?.ok()?;
    let mut command = place.henge(&["server", "--pg-port", "0", "--http-port", "0", "--compact", "*=PT0S"]);
    command.env("RUST_LOG", "info");
    let server = crate::harness::process::Server::spawn(command)?;
    server.prints(&["INFO", "compacted", "wiki", "segments_before=2 segments_after=1"])?;
    let seen = super::ask(&server, SEGMENTS)?;
    ensure(seen == [["2"]], || format!("{seen:?} segments"))
}
