//! The rules of the house that a machine can read: directions, names, versions, licences.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::harness::root;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("tidy::rooms_use_only_lower_rooms", rooms_use_only_lower_rooms),
        Trial::test("tidy::crates_use_only_lower_crates", crates_use_only_lower_crates),
        Trial::test("tidy::no_room_is_a_lumber_room", no_room_is_a_lumber_room),
        Trial::test("tidy::versions_stand_in_the_root_only", versions_stand_in_the_root_only),
        Trial::test("tidy::every_todo_has_an_issue", every_todo_has_an_issue),
        Trial::test("tidy::dependencies_are_single_and_free", dependencies_are_single_and_free),
    ]
}

/// For each crate its rooms from the highest floor to the lowest. A room may use what lies on a lower floor.
/// Who is allowed less, or something more, is listed below with the reason.
const FLOORS: [(&str, &[&[&str]]); 3] = [
    (
        "engine",
        &[
            &["session"],
            &["distributed", "native", "optimizer"],
            &["table"],
            &["exec"],
            &["ingest"],
            &["aggregate", "function", "storage"],
            &["segment", "sketch"],
            &["model"],
            &["error", "widened"],
        ],
    ),
    (
        "catalog",
        &[
            &["database"],
            &["provider", "publish", "lease", "historical", "coordination"],
            &["realtime"],
            &["view", "inventory"],
            &["store", "assignment"],
            &["timeline", "rule", "clock"],
        ],
    ),
    (
        "server",
        &[
            &["main", "command"],
            &["role"],
            &["http", "pgwire", "grpc", "flight", "stream"],
            &["pg_catalog"],
            &["cluster"],
            &["auth"],
            &["config"],
            &["telemetry", "error"],
        ],
    ),
];

/// Rooms that stand beside the stairs: floors between them and what they may use are closed to them.
const CLOSED: [(&str, &str, &str); 4] = [
    ("engine", "exec", "ingest"),
    ("engine", "table", "ingest"),
    ("engine", "exec", "storage"),
    ("engine", "ingest", "storage"),
];

/// Arrows that point up or sideways: the file, the room it uses, and the reason.
const EXCUSED: [(&str, &str, &str); 3] = [
    ("engine/src/table/oracle/live.rs", "ingest", "rows that grow are asked as segments are"),
    ("engine/src/table/oracle.rs", "session", "tests of the table ask through a whole session, as people do"),
    ("engine/src/table/data_source_table/tests.rs", "session", "the same"),
];

/// Files that bear the name of what they list.
const NAMED: [(&str, &str); 1] = [("server/src/pg_catalog/types.rs", "rows of `pg_type`")];

fn rooms_use_only_lower_rooms() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for (crate_name, floors) in FLOORS {
        let floor_of = |room: &str| floors.iter().position(|rooms| rooms.contains(&room));
        let src = root().join(crate_name).join("src");
        for file in rust_files(&src) {
            let from = room_of(&src, &file);
            if from == "lib" {
                continue;
            }
            let Some(from_floor) = floor_of(&from) else {
                wrong.push(format!("{}: room `{from}` has no floor; give it one in tests/tidy.rs", file.display()));
                continue;
            };
            for (line, to) in rooms_named(&fs::read_to_string(&file)?) {
                let excused = EXCUSED.iter().any(|(path, room, _)| file.ends_with(path) && *room == to);
                let closed = CLOSED.contains(&(crate_name, &from, &to));
                let lower = floor_of(&to).is_none_or(|to_floor| to_floor > from_floor) && !closed;
                if from != to && !lower && !excused {
                    wrong.push(format!("{}:{line}: `{from}` may not use `{to}`", file.display()));
                }
            }
        }
    }
    nothing(wrong)
}

/// The rooms that the code of a file names after `crate::`, with their lines. Documentation may name any room.
fn rooms_named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, matched) in code.match_indices("crate::") {
            let rest = &code[at + matched.len()..];
            let preceding = code[..at].chars().next_back();
            if preceding.is_some_and(|c| c == '$' || c.is_alphanumeric()) {
                continue;
            }
            let name: String =
                rest.chars().take_while(|c| c.is_lowercase() || *c == '_' || c.is_ascii_digit()).collect();
            let is_path = rest[name.len()..].starts_with("::");
            if is_path && !name.is_empty() {
                found.push((number + 1, name));
            }
        }
    }
    found
}

fn room_of(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).expect("found in it").components().next().expect("a file has a name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn crates_use_only_lower_crates() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for (crate_name, higher) in [("engine", &["catalog", "server"][..]), ("catalog", &["server"])] {
        for other in higher {
            let manifest = fs::read_to_string(root().join(crate_name).join("Cargo.toml"))?;
            if manifest.contains(&format!("henge-{other}")) {
                wrong.push(format!("{crate_name}/Cargo.toml names henge-{other}, which lies above it"));
            }
        }
    }
    nothing(wrong)
}

fn no_room_is_a_lumber_room() -> Result<(), Failed> {
    let lumber = ["common", "utils", "util", "core", "helpers", "types", "misc", "mod"];
    let is_lumber = |file: &PathBuf| {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let named = NAMED.iter().any(|(path, _)| file.ends_with(path));
        stem.is_some_and(|stem| lumber.contains(&stem.as_str())) && !named
    };
    nothing(all_rust_files().into_iter().filter(is_lumber).map(|file| file.display().to_string()).collect())
}

fn versions_stand_in_the_root_only() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for crate_name in ["engine", "catalog", "server"] {
        let path = root().join(crate_name).join("Cargo.toml");
        for (number, line) in fs::read_to_string(&path)?.lines().enumerate() {
            let pinned = line.starts_with(|c: char| c.is_ascii_alphabetic())
                && (line.contains("version = \"")
                    || line.split_once(" = \"").is_some_and(|(_, v)| v.starts_with(|c: char| c.is_ascii_digit())));
            if pinned {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    nothing(wrong)
}

fn every_todo_has_an_issue() -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for file in all_rust_files().into_iter().filter(|file| !file.ends_with("tests/tidy.rs")) {
        for (number, line) in fs::read_to_string(&file)?.lines().enumerate() {
            if line.contains("TODO") && !line.contains("TODO(#") {
                wrong.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    nothing(wrong)
}

/// The licences that may be linked into a binary under Apache-2.0; deny.toml has the same list.
const LICENCES: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "bzip2-1.0.6",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    // Asks for the sources of its own files only. `x509-certificate`, by way of pgwire.
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What `cargo deny` would say, for those who have not installed it: one arrow, one DataFusion, one object_store,
/// and licences of which at least one choice is in the list.
fn dependencies_are_single_and_free() -> Result<(), Failed> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host()?])
        .current_dir(root())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    let mut wrong = Vec::new();
    for single in ["arrow", "arrow-array", "datafusion", "object_store", "parquet", "tokio"] {
        let versions: BTreeSet<&str> = packages
            .iter()
            .filter(|package| package["name"] == single)
            .filter_map(|package| package["version"].as_str())
            .collect();
        if versions.len() > 1 {
            wrong.push(format!("{single} is there in versions {versions:?}; there must be one"));
        }
    }
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_free(licence) {
            wrong.push(format!("{} {}: {licence}", package["name"], package["version"]));
        }
    }
    nothing(wrong)
}

/// The platform this was built on: of others cargo has no sources at hand.
fn host() -> Result<String, Failed> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc does not say its host")?.to_owned())
}

/// Reads an SPDX expression, far enough: all parts of `AND` must be free, one part of `OR`.
fn is_free(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    if LICENCES.contains(&expression) {
        return true;
    }
    if let Some((left, right)) = split_outside(expression, " AND ") {
        return is_free(left) && is_free(right);
    }
    if let Some((left, right)) = split_outside(expression, " OR ") {
        return is_free(left) || is_free(right);
    }
    expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).is_some_and(is_free)
}

/// Splits at the first `separator` that is in no parentheses.
fn split_outside<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let outside = |at: usize| text[..at].matches('(').count() == text[..at].matches(')').count();
    text.match_indices(separator)
        .find(|(at, _)| outside(*at))
        .map(|(at, _)| (&text[..at], &text[at + separator.len()..]))
}

fn all_rust_files() -> Vec<PathBuf> {
    let dirs = ["engine/src", "catalog/src", "server/src", "tests", "benches", "examples"];
    dirs.into_iter().flat_map(|dir| rust_files(&root().join(dir))).collect()
}

/// A directory that is not there has none.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn nothing(wrong: Vec<String>) -> Result<(), Failed> {
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n").into()),
    }
}
