//! What all tests stand on: data sets, doors to ask questions at, real processes.

pub mod certificates;
pub mod cluster;
pub mod data;
pub mod database;
pub mod door;
pub mod kafka;
pub mod process;
pub mod proxy;
pub mod render;
pub mod scratch;
pub mod servers;
pub mod slow;
pub mod small_disk;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libtest_mimic::{Completion, Failed};
use tokio::runtime::{Builder, Runtime};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// True where nothing may be skipped.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Says that a test did not run for want of something. Where nothing may be missing, that is a failure.
pub fn missing(what: impl Into<String>) -> Result<Completion, Failed> {
    match is_ci() {
        true => Err(format!("must not be missing here: {}", what.into()).into()),
        false => Ok(Completion::ignored_with(what.into())),
    }
}

/// Says that the 39,244 edits of 2015-09-12 do not lie beside the repository. They are no part of it, and nothing that
/// can be installed, so that is no failure anywhere.
pub fn no_real_file() -> Completion {
    Completion::ignored_with("shared/data/wikiticker-2015-09-12-sampled.json.gz beside the repository")
}

/// The real edits of 2015-09-12, which are not part of the repository, if they lie beside it.
pub fn wikiticker_file() -> Option<PathBuf> {
    shared("data/wikiticker-2015-09-12-sampled.json.gz")
}

/// What is no part of the repository, if it lies beside it.
pub fn shared(name: &str) -> Option<PathBuf> {
    let beside = root().parent()?.join("shared").join(name);
    let above = root().parent()?.parent()?.join("shared").join(name);
    [beside, above].into_iter().find(|path| path.exists())
}

/// Runs `future` on the runtime that all trials share, so that one can use what another has opened.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().enable_all().build().expect("threads can be started"));
    RUNTIME.block_on(future)
}

/// Fails with what `message` says unless it holds.
pub fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(message().into()) }
}

/// Fails unless `text` has all of `parts`.
pub fn contains(text: &str, parts: &[&str]) -> Result<(), Failed> {
    match parts.iter().find(|part| !text.contains(**part)) {
        Some(part) => Err(format!("`{part}` is not in:\n{text}").into()),
        None => Ok(()),
    }
}
