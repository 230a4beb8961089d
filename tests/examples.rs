//! The programs of `examples/`, run as a reader would run them.

use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::harness::contains;

/// Each example, and what it must print.
const EXAMPLES: [(&str, &[&str]); 3] = [
    ("embed", &["3 rows from memory, in 1 segments", "2 rows from a file, in 2 segments", "Avebury", "90"]),
    ("datafusion_extension", &["Wales", "France", "SegmentScanExec", "SegmentGroupExec"]),
    ("custom_aggregate", &["Druid      | 100", "Stonehenge | 4"]),
];

pub fn trials() -> Vec<Trial> {
    let trial = |(name, expected): (&'static str, &'static [&'static str])| {
        Trial::test(format!("examples::{name}"), move || run(name, expected))
    };
    EXAMPLES.into_iter().map(trial).collect()
}

fn run(name: &str, expected: &[&str]) -> Result<(), Failed> {
    // Cargo builds examples along with tests, in a directory beside that of the tests.
    let deps = std::env::current_exe()?;
    let profile = deps.parent().and_then(|deps| deps.parent()).ok_or("a test binary outside of a target directory")?;
    let example = profile.join("examples").join(name);
    if !example.exists() {
        return Err(format!("`{}` is not built; `cargo test --workspace` does it", example.display()).into());
    }
    let output = Command::new(example).output()?;
    let (printed, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    if !output.status.success() {
        return Err(format!("{}: {errors}", output.status).into());
    }
    contains(&printed, expected)
}
