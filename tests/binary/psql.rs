use std::net::SocketAddr;
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::data::GENERATED;
use crate::harness::door::{Door, RawRows, shared_address};
use crate::harness::process::{Ended, run};
use crate::harness::{block_on, contains, ensure, missing};

/// Asks a server something by psql.
type Check = fn(SocketAddr) -> Result<(), Failed>;

pub fn trials() -> Vec<Trial> {
    let trials: [(&str, Check); 6] = [
        ("lists_what_there_is", lists),
        ("describes_a_data_source", describes),
        ("prints_groups", groups),
        ("shows_where_an_error_is", errors),
        ("copies_out", copies),
        ("temporary_tables_go_or_are_emptied_at_commit", at_commit),
    ];
    let trial = |(name, run): (&str, Check)| {
        Trial::ignorable_test(format!("binary::psql::{name}"), move || {
            if !is_there() {
                return missing("psql");
            }
            run(shared_address()?)?;
            Ok(Completion::Completed)
        })
    };
    trials.into_iter().map(trial).collect()
}

pub fn is_there() -> bool {
    Command::new("psql").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Runs psql with one command, without the settings of whoever runs the tests.
pub fn psql(server: SocketAddr, arguments: &[&str], command: &str) -> Result<Ended, Failed> {
    let mut psql = Command::new("psql");
    psql.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("PGCONNECT_TIMEOUT", "30");
    psql.args(["-X", "-U", "henge", "-d", "henge", "-h"]).arg(server.ip().to_string());
    psql.arg("-p").arg(server.port().to_string()).args(arguments).arg("-c").arg(command);
    run(psql)
}

/// Rows as psql gives them to a script, a tab between two columns.
pub fn rows(server: SocketAddr, query: &str) -> Result<Vec<Vec<String>>, Failed> {
    let printed = psql(server, &["-At", "-F", "\t", "-P", "null=NULL"], query)?.ok()?;
    Ok(printed.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// Fails unless a line has these words, between which there may be blanks and lines of a table.
fn has_line(printed: &str, words: &[&str]) -> Result<(), Failed> {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let found =
        printed.lines().any(|line| cells(line).starts_with(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()));
    ensure(found, || format!("no line {words:?} in:\n{printed}"))
}

fn lists(server: SocketAddr) -> Result<(), Failed> {
    has_line(&psql(server, &[], "\\l")?.ok()?, &["henge", "henge", "UTF8"])?;
    has_line(&psql(server, &[], "\\dn")?.ok()?, &["druid", "henge"])?;
    for command in ["\\dt", "\\d"] {
        let printed = psql(server, &[], command)?.ok()?;
        has_line(&printed, &["druid", "wikipedia", "table", "henge"])?;
        has_line(&printed, &["druid", "wikiticker", "table", "henge"])?;
        contains(&printed, &["(2 rows)"])?;
    }
    let none = psql(server, &[], "\\d nope")?;
    contains(&none.err, &["Did not find any relation named \"nope\"."])
}

fn describes(server: SocketAddr) -> Result<(), Failed> {
    let printed = psql(server, &[], "\\d wikipedia")?.ok()?;
    contains(&printed, &["Table \"druid.wikipedia\""])?;
    has_line(&printed, &["__time", "timestamp(3) without time zone", "", "not null", ""])?;
    has_line(&printed, &["newPage", "text", "", "", ""])?;
    has_line(&printed, &["added", "bigint", "", "", ""])?;
    let verbose = psql(server, &[], "\\d+ wikiticker")?.ok()?;
    has_line(&verbose, &["metroCode", "bigint"])
}

fn groups(server: SocketAddr) -> Result<(), Failed> {
    let query = "SELECT channel, COUNT(*) AS edits, SUM(added) AS added FROM wikiticker GROUP BY channel ORDER BY edits DESC, channel LIMIT 3";
    let printed = psql(server, &[], query)?.ok()?;
    let lines: Vec<&str> = printed.lines().collect();
    contains(lines.first().unwrap_or(&""), &[" channel ", "| edits | ", "added"])?;
    for row in block_on(RawRows::over(&GENERATED).ask(query))? {
        has_line(&printed, &row.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    contains(&printed, &["(3 rows)"])
}

fn errors(server: SocketAddr) -> Result<(), Failed> {
    let query = "SELECT page,\n  nope\nFROM wikipedia";
    let ended = psql(server, &["-v", "VERBOSITY=verbose"], query)?;
    ensure(ended.status.code() == Some(1), || format!("{}", ended.status))?;
    contains(&ended.err, &["ERROR:  42703: ", "nope", "\nLINE 2:   nope\n          ^"])?;
    let syntax = psql(server, &["-v", "VERBOSITY=verbose"], "SELECT page FRO wikipedia WHERE")?;
    contains(&syntax.err, &["ERROR:  42601: ", "\nLINE 1: SELECT page FRO wikipedia WHERE\n"])
}

/// As PostgreSQL 15 answers the same commands, one after the other in one session.
fn at_commit(server: SocketAddr) -> Result<(), Failed> {
    let table = |name: &str, what: &str| format!("CREATE TEMP TABLE {name} ON COMMIT {what} AS SELECT 7 AS x");
    let (dropped, emptied) = (table("a", "DROP"), table("b", "DELETE ROWS"));
    let commands = [
        "BEGIN",
        &dropped,
        &emptied,
        "SELECT 'within', a.x, b.x FROM a, b",
        "COMMIT",
        "SELECT 'after', count(*) FROM b",
        // Outside of a transaction it is gone at once.
        &dropped,
    ];
    let arguments = commands.iter().flat_map(|command| ["-c", command]).collect::<Vec<_>>();
    let ended = psql(server, &[&["-At", "-q"], arguments.as_slice()].concat(), "SELECT x FROM a")?;
    contains(&ended.out, &["within|7|7", "after|0"])?;
    contains(&ended.err, &["relation \"a\" does not exist"])
}

fn copies(server: SocketAddr) -> Result<(), Failed> {
    let query = "SELECT channel, SUM(added) FROM wikiticker GROUP BY channel ORDER BY 2 DESC, 1 LIMIT 5";
    let expected = block_on(RawRows::over(&GENERATED).ask(query))?;
    let expected: String = expected.iter().map(|row| format!("{}\n", row.join("\t"))).collect();
    let printed = psql(server, &[], &format!("\\copy ({query}) to stdout"))?.ok()?;
    ensure(printed == expected, || format!("expected:\n{expected}copied:\n{printed}"))?;
    let csv = psql(server, &[], &format!("COPY ({query}) TO STDOUT (FORMAT csv)"))?.ok()?;
    ensure(csv == expected.replace('\t', ","), || format!("expected:\n{expected}copied:\n{csv}"))
}
