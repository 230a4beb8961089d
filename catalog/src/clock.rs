use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use henge_engine::model::Timestamp;

/// Tells the time. Whoever needs it is handed one, so that a test can say what time it is.
pub trait Clock: Debug + Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        // A clock before 1970, or past the year 292,000,000, reads as the nearest instant that can be said.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2))
    }
}
