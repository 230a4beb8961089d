use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a test has the process end.
const VARIABLE: &str = "HENGE_CRASH_AT";

/// Every place at which a process may be killed on the way of a row from a request to a published segment, in that order.
pub const CRASH_POINTS: [&str; 14] = [
    "log.written",
    "log.synced",
    "chunk.written",
    "generation.closed",
    "segments.sealed",
    "pushes.intended",
    "segment.pushed",
    "segments.pushed",
    "publication.committed",
    "publication.shown",
    "sink.settled",
    "brokers.seen",
    "log.passed",
    "log.removed",
];

/// Ends the process as a kill would, if the environment names this place (`HENGE_CRASH_AT=name`, or `name:N` for the
/// N-th time that it is passed). For tests: in a build without debug assertions it is nothing.
#[expect(clippy::disallowed_methods, reason = "no option of the server: tests set it, and release builds ignore it")]
pub fn crash_point(name: &'static str) {
    if cfg!(debug_assertions) {
        debug_assert!(CRASH_POINTS.contains(&name), "`{name}` is not listed");
        static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
            Some((name.to_owned(), times.parse().ok()?))
        });
        if let Some((wanted, times)) = wanted
            && wanted == name
            && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *times
        {
            tracing::error!("ends at `{name}`, as asked");
            // Nothing is unwound, flushed or dropped.
            std::process::abort();
        }
    }
}
