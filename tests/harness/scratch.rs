//! One directory for what the trials of a run share, removed at its end.

use std::path::PathBuf;
use std::sync::Mutex;

use tempfile::TempDir;

static SCRATCH: Mutex<Option<TempDir>> = Mutex::new(None);

/// The directory.
pub fn dir() -> PathBuf {
    let mut scratch = SCRATCH.lock().expect("nothing panics while it is held");
    scratch.get_or_insert_with(|| TempDir::new().expect("temporary directories can be made")).path().to_owned()
}

/// Removes it; nothing may be asked for after that.
pub fn remove() {
    SCRATCH.lock().expect("nothing panics while it is held").take();
}
