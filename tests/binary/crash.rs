use henge_engine::ingest::source::wikipedia::Shape;
use libtest_mimic::{Failed, Trial};

use super::pipe::EndlessFile;
use super::task::{submit, task, until_it_is};
use super::{DAY_ONE, DAY_TWO, Place, ask, sum_is};
use crate::harness::data::{ROWS, rows_file};
use crate::harness::process::{Running, signal, until};
use crate::harness::{contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("binary::crash::in_the_middle_of_a_task_publishes_nothing", while_reading),
        Trial::test("binary::crash::between_two_segments_publishes_all_or_nothing", while_writing),
        Trial::test("binary::crash::after_an_acknowledgement_loses_nothing", after_acknowledgement),
        Trial::test("binary::crash::interrupting_an_ingestion_publishes_nothing", interrupted),
        Trial::test("binary::crash::an_ingestion_without_input_can_be_interrupted", interrupted_while_waiting),
        Trial::test("binary::crash::a_server_ends_although_a_task_waits_for_input", ended_while_waiting),
    ]
}

/// A row of the day that is there already, which a task would replace.
const ANOTHER: &str = "{\"time\":\"2013-08-01T05:00:00Z\",\"page\":\"Z\",\"added\":1000}\n";

fn while_reading() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let rows = EndlessFile::new(place.path())?;
    let id = submit(&server, &task(&rows.path))?;
    rows.feed(ANOTHER)?;
    until_it_is(&server, &id, "RUNNING")?;
    server.kill()?;
    drop(rows);

    let server = place.serve()?;
    sum_is(&server, 7)?;
    let status = until_it_is(&server, &id, "FAILED")?;
    contains(status["errorMsg"].as_str().unwrap_or_default(), &["nothing of it was published"])?;
    is_clean(&place)?;
    let id = submit(&server, &task(&place.file("another.json", ANOTHER)?))?;
    until_it_is(&server, &id, "SUCCESS")?;
    sum_is(&server, 1000)
}

/// Nothing is left of work in progress, and deep storage has what is published only.
fn is_clean(place: &Place) -> Result<(), Failed> {
    let left = place.work_in_progress()?;
    ensure(left.is_empty(), || format!("work in progress is left: {left:?}"))?;
    let published: usize = place.sql("SELECT COUNT(*) FROM sys.segments")?[0].parse()?;
    let files = place.segment_files()?;
    ensure(files.len() == published, || format!("{published} segments are published, {files:?} are there"))
}

/// When an ingestion is killed: once more files than this are written, and more than this are in deep storage.
const KILLED_AT: [(usize, usize); 4] = [(1, 0), (40, 0), (1, 1), (1, 40)];

/// 72 segments of one hour each take a while to write, and another to put into deep storage.
fn while_writing() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let file = rows_file(place.path(), Shape::Wikiticker)?;
    for (written, pushed) in KILLED_AT {
        let ingestion = Running::start(place.ingestion(&file, &["--append", "--segment-granularity", "hour"]))?;
        let ended = until("files of segments", || {
            let now_pushed = place.segment_files()?.len();
            let now_written = place.work_in_progress()?.len() + now_pushed;
            Ok((now_written > written && now_pushed > pushed).then_some(()))
        });
        // It may have ended just so: then all is there.
        let _ = signal(ingestion.pid, "KILL");
        ended?;
        ingestion.wait()?;

        let server = place.serve()?;
        let counts = ask(&server, "SELECT COUNT(*) FILTER (WHERE channel IS NULL), COUNT(*) FROM wiki");
        let all_or_nothing = match &counts {
            Ok(counts) => counts == &[["3".to_owned(), (3 + ROWS).to_string()]],
            // Nothing: the column came with none of the rows.
            Err(_) => ask(&server, "SELECT COUNT(*) FROM wiki")? == [["3"]],
        };
        ensure(all_or_nothing, || format!("killed after {written} and {pushed} files: {counts:?}"))?;
        is_clean(&place)?;
        if counts.is_ok() {
            return Ok(());
        }
    }
    place.ingest(&file, &["--append", "--segment-granularity", "hour"])?.ok()?;
    let counts = place.sql("SELECT COUNT(*) FROM wiki")?;
    ensure(counts == [(3 + ROWS).to_string()], || format!("{counts:?}"))?;
    is_clean(&place)
}

fn after_acknowledgement() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let two = place.file("two.json", DAY_TWO)?;
    for sum in [15, 23, 31] {
        let server = place.serve()?;
        place.ingest(&two, &["--append"])?.ok()?;
        server.kill()?;
        sum_is(&place.serve()?, sum)?;
    }
    is_clean(&place)
}

fn interrupted() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let rows = EndlessFile::new(place.path())?;
    let ingestion = Running::start(place.ingestion(&rows.path, &[]))?;
    rows.feed(ANOTHER)?;
    signal(ingestion.pid, "INT")?;
    drop(rows);
    ingestion.wait()?.failed_with(130)?;
    let sum = place.sql("SELECT SUM(added) FROM wiki")?;
    ensure(sum == ["7"], || format!("{sum:?}"))?;
    is_clean(&place)?;
    place.ingest(&place.file("one.json", DAY_ONE)?, &["--append"])?.ok()?;
    let sum = place.sql("SELECT SUM(added) FROM wiki")?;
    ensure(sum == ["14"], || format!("{sum:?}"))
}

/// The first interrupt waits for the input, which does not come; the second does not.
fn interrupted_while_waiting() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let rows = EndlessFile::new(place.path())?;
    let ingestion = Running::start(place.ingestion(&rows.path, &[]))?;
    rows.feed(ANOTHER)?;
    until("the end of an ingestion", || Ok(signal(ingestion.pid, "INT").is_err().then_some(())))?;
    ingestion.wait()?.failed_with(130)?;
    let sum = place.sql("SELECT SUM(added) FROM wiki")?;
    ensure(sum == ["7"], || format!("{sum:?}"))?;
    is_clean(&place)
}

fn ended_while_waiting() -> Result<(), Failed> {
    let place = Place::with_day_one()?;
    let server = place.serve()?;
    let rows = EndlessFile::new(place.path())?;
    let id = submit(&server, &task(&rows.path))?;
    rows.feed(ANOTHER)?;
    until_it_is(&server, &id, "RUNNING")?;
    let status = server.end_with("TERM")?;
    ensure(status.success(), || status.to_string())?;
    let server = place.serve()?;
    sum_is(&server, 7)?;
    until_it_is(&server, &id, "FAILED")?;
    is_clean(&place)
}
