use libtest_mimic::{Failed, Trial};

use super::{Place, ask};
use crate::harness::process::{Server, henge, run};
use crate::harness::{contains, ensure};

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("binary::demo::loads_once_answers_and_serves", demo)]
}

/// As a newcomer types it, in an empty directory; then again, and without `--once`.
fn demo() -> Result<(), Failed> {
    let place = Place::new()?;
    let mut command = henge(&["demo", "--once"]);
    command.current_dir(place.path());
    let printed = run(command)?.ok()?;
    contains(&printed, &["Loaded 100000 edits", "psql -h 127.0.0.1 -p ", "GROUP BY page", "(10 rows)"])?;
    let answer = answer_in(&printed)?;

    let mut command = henge(&["demo", "--once"]);
    command.current_dir(place.path());
    let again = run(command)?.ok()?;
    ensure(!again.contains("Loaded"), || format!("loaded twice:\n{again}"))?;
    ensure(answer_in(&again)? == answer, || format!("another answer:\n{again}"))?;

    let mut command = henge(&["demo"]);
    command.current_dir(place.path());
    let server = Server::spawn(command)?;
    let edits = ask(&server, "SELECT SUM(\"count\") FROM wikipedia")?;
    ensure(edits == [["100000"]], || format!("{edits:?} edits"))?;
    let status = server.end_with("INT")?;
    ensure(status.success(), || status.to_string())
}

/// The table that is printed.
fn answer_in(printed: &str) -> Result<String, Failed> {
    let from = printed.find("\n page").ok_or("no table was printed")?;
    Ok(printed[from..].to_owned())
}
