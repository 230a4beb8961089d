//! The oracle: a question to segments is answered as stock DataFusion answers it over the same raw rows.
//!
//! With rollup `{events}` asks for the sum of the count metric, where raw rows are counted.

use std::path::{Path, PathBuf};

use henge::Database;
use henge_engine::ingest::source::wikipedia::Shape;
use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;

use crate::harness::data::{self, DataSet, Rollup};
use crate::harness::door::{Door, Embedded, Postgres, Protocol, RawRows, Segments, ingest};
use crate::harness::process::{Server, henge, run};
use crate::harness::render::Row;
use crate::harness::{block_on, contains, ensure, no_real_file, wikiticker_file};

/// Asked of both shapes: these columns are in both, under the names of wikiticker.
const QUESTIONS: [(&str, &str); 30] = [
    ("events", "SELECT {events} FROM wikiticker"),
    ("sums", "SELECT SUM(added), SUM(deleted), SUM(delta) FROM wikiticker"),
    (
        "ten_most_edited_channels",
        "SELECT channel, {events} AS n FROM wikiticker GROUP BY channel ORDER BY n DESC, channel LIMIT 10",
    ),
    ("edits_by_hour", "SELECT date_trunc('hour', __time) AS hour, {events} FROM wikiticker GROUP BY 1 ORDER BY 1"),
    (
        "edits_by_time_floor",
        "SELECT TIME_FLOOR(__time, 'PT1H') AS hour, SUM(delta) FROM wikiticker GROUP BY 1 ORDER BY 1",
    ),
    ("edits_by_floor_to", "SELECT FLOOR(__time TO HOUR) AS hour, {events} FROM wikiticker GROUP BY 1 ORDER BY 1"),
    (
        "edits_by_quarter",
        "SELECT TIME_FLOOR(__time, 'PT15M') AS q, channel, {events} FROM wikiticker GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "edits_by_bin",
        "SELECT date_bin(INTERVAL '15 minutes', __time) AS q, {events} FROM wikiticker GROUP BY 1 ORDER BY 1",
    ),
    (
        "top_pages_by_added_on_en",
        "SELECT page, SUM(added) AS a FROM wikiticker WHERE channel = '#en.wikipedia' GROUP BY page ORDER BY a DESC, page LIMIT 10",
    ),
    ("distinct_users", "SELECT COUNT(DISTINCT user) FROM wikiticker"),
    (
        "distinct_users_by_channel",
        "SELECT channel, COUNT(DISTINCT user) FROM wikiticker GROUP BY channel ORDER BY channel",
    ),
    ("users_by_name", "SELECT user, {events} FROM wikiticker WHERE user LIKE 'A%' GROUP BY user ORDER BY user"),
    ("cities_with_null", "SELECT cityName, {events}, SUM(added) FROM wikiticker GROUP BY cityName ORDER BY cityName"),
    ("no_city", "SELECT {events} FROM wikiticker WHERE cityName IS NULL AND countryName IS NOT NULL"),
    ("not_this_city", "SELECT {events} FROM wikiticker WHERE cityName <> 'Paris'"),
    ("not_like", "SELECT namespace, {events} FROM wikiticker WHERE NOT (page LIKE 'User%') GROUP BY 1 ORDER BY 1"),
    ("regex", "SELECT channel, {events} FROM wikiticker WHERE page ~ '(Talk|User):.*[aeiou]$' GROUP BY 1 ORDER BY 1"),
    (
        "in_list",
        "SELECT channel, SUM(deleted) FROM wikiticker WHERE channel IN ('#de.wikipedia', '#fr.wikipedia', 'none') GROUP BY 1 ORDER BY 1",
    ),
    ("range_of_strings", "SELECT {events} FROM wikiticker WHERE page >= 'M' AND page < 'N'"),
    (
        "function_of_dimension",
        "SELECT upper(substr(channel, 2, 2)) AS wiki, {events} FROM wikiticker GROUP BY 1 ORDER BY 1",
    ),
    ("filter_by_function", "SELECT {events} FROM wikiticker WHERE length(page) > 30"),
    (
        "or_over_dimensions",
        "SELECT {events}, SUM(added) FROM wikiticker WHERE isRobot = 'true' OR cityName = 'Paris' OR page LIKE 'User:%'",
    ),
    (
        "half_a_day",
        "SELECT channel, {events} FROM wikiticker WHERE __time >= '2015-09-12T06:00:00' AND __time < TIMESTAMP '2015-09-12 18:00:00' GROUP BY 1 ORDER BY 1",
    ),
    (
        "before_and_after",
        "SELECT {events} FROM wikiticker WHERE __time < '2015-09-12T03:00:00' OR __time >= '2015-09-12T20:30:00'",
    ),
    ("no_rows", "SELECT {events}, SUM(added), MIN(page) FROM wikiticker WHERE channel = 'none'"),
    ("no_groups", "SELECT channel, {events} FROM wikiticker WHERE __time < '2000-01-01' GROUP BY channel"),
    (
        "filtered_aggregates",
        "SELECT namespace, SUM(added) FILTER (WHERE isRobot = 'true'), SUM(added) FILTER (WHERE isNew = 'true') FROM wikiticker GROUP BY 1 ORDER BY 1",
    ),
    (
        "having",
        "SELECT user, SUM(added) AS a FROM wikiticker GROUP BY user HAVING SUM(added) > 5000 ORDER BY a DESC, user",
    ),
    (
        "min_and_max_of_strings",
        "SELECT channel, MIN(page), MAX(user) FROM wikiticker GROUP BY channel ORDER BY channel",
    ),
    (
        "join_with_itself",
        "SELECT a.channel, a.n, b.s FROM (SELECT channel, {events} AS n FROM wikiticker GROUP BY 1) a \
         JOIN (SELECT channel, SUM(added) AS s FROM wikiticker WHERE isRobot = 'false' GROUP BY 1) b ON a.channel = b.channel ORDER BY 1",
    ),
];

/// Asked only where every event is a row of its own.
const ROW_QUESTIONS: [(&str, &str); 8] = [
    ("min_max_avg", "SELECT channel, MIN(added), MAX(added), AVG(delta) FROM wikiticker GROUP BY 1 ORDER BY 1"),
    (
        "large_edits",
        "SELECT __time, page, user, added FROM wikiticker WHERE added > 2000 ORDER BY added DESC, __time, page LIMIT 30",
    ),
    (
        "first_rows",
        "SELECT __time, channel, page, user, added, deleted, delta FROM wikiticker ORDER BY __time, page, user, delta LIMIT 50",
    ),
    ("count_of_nulls", "SELECT COUNT(*), COUNT(cityName), COUNT(countryName), COUNT(metroCode) FROM wikiticker"),
    ("arithmetic", "SELECT SUM(added - deleted) = SUM(delta), SUM(added * 2), SUM(-deleted) FROM wikiticker"),
    ("time_spread", "SELECT MIN(__time), MAX(__time), COUNT(DISTINCT __time) FROM wikiticker"),
    (
        "window",
        "SELECT channel, n, RANK() OVER (ORDER BY n DESC, channel) FROM (SELECT channel, COUNT(*) AS n FROM wikiticker GROUP BY 1) t ORDER BY 3",
    ),
    ("median", "SELECT channel, median(added) FROM wikiticker GROUP BY channel ORDER BY channel"),
];

/// Raw rows, and the file that they are ingested from.
#[derive(Debug)]
struct Rows {
    raw: DataSet,
    file: PathBuf,
}

/// A door, how its answers are compared, and whether rows were rolled up on their way to it.
type AtDoor = (&'static str, fn(&Rows, Rollup) -> Result<(), Failed>, Rollup);

const DOORS: [AtDoor; 5] = [
    ("segments", agree_in_memory, Rollup::Off),
    ("embedded::rollup_off", agree_embedded, Rollup::Off),
    ("embedded::rollup_on", agree_embedded, Rollup::On),
    ("pgwire::rollup_off", agree_served, Rollup::Off),
    ("pgwire::rollup_on", agree_served, Rollup::On),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![Trial::test("oracle::segments::are_read_by_our_operators", are_read_by_our_operators)];
    for (door, agree, rollup) in DOORS {
        trials.push(Trial::test(format!("oracle::{door}::generated"), move || {
            let dir = TempDir::new()?;
            agree(&generated(dir.path())?, rollup)
        }));
        trials.push(Trial::ignorable_test(format!("oracle::{door}::real"), move || {
            let Some(file) = wikiticker_file() else { return Ok(no_real_file()) };
            agree(&real(file)?, rollup)?;
            Ok(Completion::Completed)
        }));
    }
    trials
}

fn generated(dir: &Path) -> Result<Rows, Failed> {
    let raw = DataSet { name: "wikiticker", batches: data::raw(&data::wikipedia(Shape::Wikiticker)) };
    Ok(Rows { raw, file: data::rows_file(dir, Shape::Wikiticker)? })
}

fn real(file: PathBuf) -> Result<Rows, Failed> {
    let raw = DataSet { name: "wikiticker", batches: data::real_rows(&file)? };
    ensure(raw.num_rows() == 39_244, || format!("{} rows in {}", raw.num_rows(), file.display()))?;
    Ok(Rows { raw, file })
}

/// Were it not so, the oracle would be compared with itself.
fn are_read_by_our_operators() -> Result<(), Failed> {
    let raw = DataSet { name: "wikiticker", batches: data::raw(&data::wikipedia(Shape::Wikiticker)) };
    let mut door = Segments::over(&[raw]);
    for (sql, operator) in [
        ("SELECT channel, COUNT(*), SUM(added) FROM wikiticker GROUP BY channel", "SegmentGroupExec"),
        ("SELECT page, user FROM wikiticker WHERE channel = '#en.wikipedia' AND added > 100", "SegmentScanExec"),
    ] {
        let plan = block_on(door.ask(&format!("EXPLAIN {sql}")))?;
        if !plan.iter().flatten().any(|cell| cell.contains(operator)) {
            return Err(format!("no {operator} in {plan:?}").into());
        }
    }
    Ok(())
}

fn agree_in_memory(rows: &Rows, rollup: Rollup) -> Result<(), Failed> {
    let door = Segments::over(std::slice::from_ref(&rows.raw));
    block_on(agree(&rows.raw, Box::new(door), rollup))
}

/// A database as a library ingests the file. Of these rows none is bad, and all are counted.
fn agree_embedded(rows: &Rows, rollup: Rollup) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    block_on(async {
        let database = Database::open(dir.path()).await?;
        let report = ingest(&database, &data::wikiticker_spec(&rows.file, rollup)).await?;
        let all_taken = report.row_stats.processed == rows.raw.num_rows() && report.reasons.is_empty();
        ensure(all_taken, || format!("not all rows were taken: {report:?}"))?;
        agree(&rows.raw, Box::new(Embedded::over(&database)), rollup).await?;
        database.close().await;
        Ok(())
    })
}

/// `henge ingest` loads the file, `henge server` answers, by both protocols.
fn agree_served(rows: &Rows, rollup: Rollup) -> Result<(), Failed> {
    let dir = TempDir::new()?;
    let (data_dir, spec) = (dir.path().join("data"), dir.path().join("spec.json"));
    std::fs::write(&spec, data::wikiticker_spec(&rows.file, rollup).to_string())?;
    let mut command = henge(&["ingest", "--spec"]);
    command.arg(spec).arg("--data-dir").arg(&data_dir);
    contains(&run(command)?.ok()?, &[&format!("Read {} rows", rows.raw.num_rows())])?;
    let server = Server::start(&data_dir)?;
    for protocol in [Protocol::Extended, Protocol::Simple] {
        block_on(async { agree(&rows.raw, Box::new(Postgres::connect(server.pg, protocol).await?), rollup).await })?;
    }
    Ok(())
}

/// Asks both, and says where they differ.
async fn agree(raw: &DataSet, mut door: Box<dyn Door>, rollup: Rollup) -> Result<(), Failed> {
    let mut oracle = RawRows::over(std::slice::from_ref(raw));
    let only_rows: &[(&str, &str)] = if rollup == Rollup::Off { &ROW_QUESTIONS } else { &[] };
    let events = if rollup == Rollup::On { "COALESCE(SUM(\"count\"), 0)" } else { "COUNT(*)" };
    let mut wrong = Vec::new();
    for (name, question) in QUESTIONS.iter().chain(only_rows) {
        let expected = oracle.ask(&question.replace("{events}", "COUNT(*)")).await;
        let expected = expected.map_err(|error| format!("{name}: the oracle itself says: {error}"))?;
        let answered = door.ask(&question.replace("{events}", events)).await;
        wrong.extend(difference(name, &expected, answered));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n").into()),
    }
}

fn difference(name: &str, expected: &[Row], answered: Result<Vec<Row>, String>) -> Option<String> {
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    if expected == answered {
        return None;
    }
    let at = expected.iter().zip(&answered).position(|(a, b)| a != b).unwrap_or(expected.len().min(answered.len()));
    let (a, b) = (expected.get(at), answered.get(at));
    Some(format!("{name}: row {at} of {}: expected {a:?}, answered {b:?} of {}", expected.len(), answered.len()))
}
