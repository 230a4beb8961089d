use std::fs::File;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use libtest_mimic::{Completion, Failed, Trial};

use super::{DAY_ONE, DAY_TWO, Place, ask, psql, sum_is};
use crate::harness::data::{self, DataSet, Rollup};
use crate::harness::door::{Door, RawRows};
use crate::harness::process::{henge, run};
use crate::harness::{block_on, contains, ensure, missing, no_real_file, wikiticker_file};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::ignorable_test("binary::ingestion::real_edits_over_psql", || real_edits(Rollup::Off)),
        Trial::ignorable_test("binary::ingestion::real_edits_rolled_up_over_psql", || real_edits(Rollup::On)),
        Trial::test("binary::ingestion::is_submitted_to_a_running_server", onto_a_running_server),
        Trial::test("binary::ingestion::bad_rows_are_counted_shown_and_kept", bad_rows),
        Trial::test("binary::ingestion::input_that_does_not_fit_publishes_nothing", nothing_fits),
        Trial::test("binary::ingestion::too_many_bad_rows_publish_nothing", too_many_bad_rows),
        Trial::test("binary::ingestion::replaces_unless_it_appends", append_and_replace),
        Trial::test("binary::ingestion::every_format_gives_the_same_rows", formats),
        Trial::test("binary::ingestion::wrong_requests_say_what_to_do", wrong_requests),
    ]
}

/// What the issue asks over psql; `{events}` counts events.
const ASKED: [&str; 5] = [
    "SELECT channel, {events} AS edits FROM wikiticker GROUP BY channel ORDER BY edits DESC, channel LIMIT 10",
    "SELECT date_trunc('hour', __time) AS hour, {events} FROM wikiticker GROUP BY 1 ORDER BY 1",
    "SELECT FLOOR(__time TO HOUR) AS hour, {events} FROM wikiticker GROUP BY 1 ORDER BY 1",
    "SELECT page, SUM(added) AS added FROM wikiticker WHERE channel = '#en.wikipedia' GROUP BY page ORDER BY added DESC, page LIMIT 10",
    "SELECT COUNT(DISTINCT user) FROM wikiticker",
];

/// By flags, as a person would do it.
fn real_edits(rollup: Rollup) -> Result<Completion, Failed> {
    let Some(file) = wikiticker_file() else { return Ok(no_real_file()) };
    if !psql::is_there() {
        return missing("psql");
    }
    let place = Place::new()?;
    let mut command = place.henge(&["ingest", "--data-source", "wikiticker", "--time-column", "time"]);
    if rollup == Rollup::On {
        command.args(["--rollup", "--query-granularity", "minute", "--dimensions", "channel,page,user,cityName"]);
        command.args(["--metrics", "count", "--metrics", "longSum:added"]);
    }
    command.arg(&file);
    let printed = run(command)?.ok()?;
    contains(&printed, &["Read 39244 rows"])?;
    ensure(printed.lines().count() == 1, || format!("something is wrong with rows of which none is bad:\n{printed}"))?;

    let server = place.serve()?;
    let mut oracle = RawRows::over(&[DataSet { name: "wikiticker", batches: data::real_rows(&file)? }]);
    let events = if rollup == Rollup::On { "SUM(\"count\")" } else { "COUNT(*)" };
    for question in ASKED {
        let expected = block_on(oracle.ask(&question.replace("{events}", "COUNT(*)")))?;
        let answered = psql::rows(server.pg, &question.replace("{events}", events))?;
        ensure(answered == expected, || format!("{question}: expected {expected:?}, answered {answered:?}"))?;
    }
    let top = psql::rows(server.pg, &ASKED[0].replace("{events}", events))?;
    ensure(top[0] == ["#en.wikipedia", "11549"], || format!("{:?}", top[0]))?;
    Ok(Completion::Completed)
}

fn onto_a_running_server() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    // The server has another working directory: the path is relative to that of who asks.
    place.file("two.json", DAY_TWO)?;
    let printed = place.ingest("two.json".as_ref(), &["--append"])?.ok()?;
    contains(&printed, &["Read 1 rows", "wrote 1 rows in 1 segment of `wiki`"])?;
    sum_is(&server, 15)?;
    place.ingest("two.json".as_ref(), &[])?.ok()?;
    sum_is(&server, 15)?;
    let tasks = ask(&server, "SELECT status, COUNT(*) FROM sys.tasks GROUP BY 1")?;
    ensure(tasks == [["SUCCESS", "3"]], || format!("{tasks:?}"))?;

    place.file("bad.json", "not json\n")?;
    let error = place.ingest("bad.json".as_ref(), &["--max-parse-exceptions", "0"])?.failed_with(2)?;
    contains(&error, &["bad.json:1"])?;
    let error = place.ingest("two.json".as_ref(), &["--bad-rows", "kept.json"])?.failed_with(2)?;
    contains(&error, &["--bad-rows"])?;
    sum_is(&server, 15)
}

/// Two that are taken, and one for each reason; the last is taken with a null.
const MIXED: &str = r#"{"time":"2013-08-01T01:00:00Z","page":"A","added":1}
not json
{"page":"B","added":2}
{"time":"yesterday","page":"C","added":4}
{"time":"2013-08-01T02:00:00Z","page":"D","added":8}
{"time":"2013-08-01T03:00:00Z","page":"E","added":"many"}
"#;

const METRICS: [&str; 4] = ["--dimensions", "page", "--metrics", "longSum:added"];

fn bad_rows() -> Result<(), Failed> {
    let place = Place::new()?;
    let file = place.file("mixed.json", MIXED)?;
    let kept = place.path().join("kept.json").display().to_string();
    let arguments = [&METRICS[..], &["--bad-rows", &kept]].concat();
    let printed = place.ingest(&file, &arguments)?.ok()?;
    contains(&printed, &["Read 6 rows", "wrote 3 rows"])?;
    for reason in [
        "cannot be parsed",
        "has no timestamp",
        "has a timestamp that cannot be read",
        "holds a value that is not a number",
    ] {
        contains(&printed, &[&format!("\n1 rows: {reason}")])?;
    }
    for line in [2, 3, 4, 6] {
        contains(&printed, &[&format!("mixed.json:{line}")])?;
    }
    let kept = std::fs::read_to_string(kept)?;
    for (line, row) in [(2, "not json"), (3, "B"), (4, "yesterday"), (6, "many")] {
        let found = kept.lines().any(|kept| kept.contains(row) && kept.contains(&format!("\"line\":{line}")));
        ensure(found, || format!("line {line} is not in:\n{kept}"))?;
    }
    ensure(kept.lines().count() == 4, || kept)?;
    let answer = place.sql("SELECT page, added FROM wiki ORDER BY page")?;
    ensure(answer == ["A,1", "D,8", "E,"], || format!("{answer:?}"))
}

fn nothing_fits() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let file = place.file("one.json", DAY_ONE)?;
    let path = file.display().to_string();
    let arguments = ["ingest", &path, "--data-source", "wiki", "--time-column", "timestamp"];
    let error = run(place.henge(&arguments))?.failed_with(2)?;
    contains(&error, &["none of the", "no `timestamp`; there is `time`, `page`", "one.json:1"])?;
    let error = run(place.henge(&["ingest", &path, &path, "--data-source", "wiki", "--time-column", "time"]))?;
    contains(&error.failed_with(2)?, &["one.json", "twice"])?;
    let answer = place.sql("SELECT SUM(added) FROM wiki")?;
    ensure(answer == ["7"], || format!("{answer:?}"))
}

fn too_many_bad_rows() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let file = place.file("mixed.json", MIXED)?;
    let error = place.ingest(&file, &[&METRICS[..], &["--max-parse-exceptions", "2"]].concat())?.failed_with(2)?;
    contains(&error, &["maxParseExceptions", "mixed.json"])?;
    let answer = place.sql("SELECT SUM(added), COUNT(*) FROM wiki")?;
    ensure(answer == ["7,3"], || format!("{answer:?}"))?;
    let files = place.segment_files()?;
    ensure(files.len() == 1, || format!("{files:?}"))
}

fn append_and_replace() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let (one, two) = (place.file("one.json", DAY_ONE)?, place.file("two.json", DAY_TWO)?);
    let mut sums = Vec::new();
    let appends = ["--append"];
    for (file, arguments) in
        [(&two, &[][..]), (&two, &appends[..]), (&one, &appends[..]), (&one, &[][..]), (&two, &[][..])]
    {
        place.ingest(file, arguments)?.ok()?;
        sums.extend(place.sql("SELECT SUM(added) FROM wiki")?);
    }
    ensure(sums == ["15", "23", "30", "23", "15"], || format!("{sums:?}"))
}

fn formats() -> Result<(), Failed> {
    let place = Place::new()?;
    let mut answers = Vec::new();
    for format in ["json", "csv", "parquet"] {
        let file = place.path().join(format!("edits.{format}"));
        let mut command = henge(&["generate", "wikipedia", "--rows", "2000", "--format", format, "--output"]);
        command.arg(&file);
        run(command)?.ok()?;
        answers.push(answer_of(&place, &file)?);
        if format != "parquet" {
            let packed = place.path().join(format!("edits.{format}.gz"));
            let mut encoder = GzEncoder::new(File::create(&packed)?, Compression::fast());
            std::io::copy(&mut File::open(&file)?, &mut encoder)?;
            encoder.finish()?;
            answers.push(answer_of(&place, &packed)?);
        }
    }
    ensure(answers.iter().all(|answer| *answer == answers[0]), || format!("{answers:?}"))
}

fn answer_of(place: &Place, file: &Path) -> Result<Vec<String>, Failed> {
    let mut command = place.henge(&["ingest", "--data-source", "edits", "--time-column", "timestamp"]);
    command.args(["--dimensions", "page,user,city", "--metrics", "longSum:added", "--metrics", "longSum:deleted"]);
    command.arg(file);
    run(command)?.ok()?;
    place.sql(
        "SELECT COUNT(*), SUM(added), SUM(deleted), COUNT(DISTINCT page), MIN(__time), MAX(user), \
         COUNT(*) FILTER (WHERE city = 'London') FROM edits",
    )
}

fn wrong_requests() -> Result<(), Failed> {
    let place = Place::new()?;
    contains(&place.ingest("none.json".as_ref(), &[])?.failed_with(2)?, &["there is no file", "none.json"])?;
    let file = place.file("one.txt", DAY_ONE)?;
    contains(&place.ingest(&file, &[])?.failed_with(2)?, &["one.txt", "json", "csv"])?;
    contains(&place.ingest(&file, &["--format", "yaml"])?.failed_with(2)?, &["yaml"])?;
    let spec = place.file("spec.json", "{\"dataSchema\": {}}")?;
    let mut command = place.henge(&["ingest"]);
    command.arg("--spec").arg(spec);
    contains(&run(command)?.failed_with(2)?, &["dataSource"])?;
    contains(&run(place.henge(&["sql", "SELECT 1"]))?.ok()?, &["(1 row)"])
}
