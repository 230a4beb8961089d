//! What all tests stand on: data sets, doors to ask questions at, real processes.

pub mod data;
pub mod door;
pub mod render;

use std::future::Future;
use std::path::{Path, PathBuf};

use libtest_mimic::{Completion, Failed};

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

/// The real edits of 2015-09-12, which are not part of the repository, if they lie beside it.
pub fn wikiticker_file() -> Option<PathBuf> {
    let name = "data/wikiticker-2015-09-12-sampled.json.gz";
    let beside = root().parent()?.join("shared").join(name);
    let above = root().parent()?.parent()?.join("shared").join(name);
    [beside, above].into_iter().find(|path| path.exists())
}

/// Runs `future` on a runtime of its own, so that trials do not wait for each other.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads can be started").block_on(future)
}
