use std::time::Duration;

use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};

use super::dialect::Dialect;

/// What kind of failure a database reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It ends, starts, or has no room for another connection.
    Unreachable,
    /// Another transaction was in the way; the same again may well succeed.
    Contention,
    /// A definition is there already: only databases whose definitions are no part of a transaction say this.
    DoneBefore,
    Other,
}

/// The report of a failure: retryable if trying again may help, and then whatever was attempted is safe to repeat or
/// is known again by its id.
pub(super) fn failure<D: Dialect>(error: sqlx::Error) -> Error {
    let trouble = match &error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            Trouble::Unreachable
        }
        sqlx::Error::Database(error) => D::trouble(error.as_ref()),
        _ => Trouble::Other,
    };
    match trouble {
        Trouble::Unreachable => unreachable::<D>().with_source(error),
        Trouble::Contention => Error::new(
            Category::ServiceUnavailable,
            Persona::Admin,
            "others kept the metadata database busy; try again",
        )
        .with_source(error),
        Trouble::DoneBefore | Trouble::Other => Error::runtime_failure("the metadata store failed").with_source(error),
    }
}

pub(super) fn unreachable<D: Dialect>() -> Error {
    Error::new(
        Category::ServiceUnavailable,
        Persona::Admin,
        format!(
            "the metadata database ({}) cannot be reached: what is loaded is still answered, nothing can be published \
             until it is back; try again",
            D::NAME
        ),
    )
}

/// An attempt that takes longer is given up, and counts as unreachable.
const ATTEMPT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Counts attempts, and waits between them.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failed: u32,
}

impl Retry {
    /// Whether to try again after this failure; says so after a pause, longer each time and never the same for two.
    pub(super) async fn again(&mut self, error: &Error) -> bool {
        self.failed += 1;
        if !error.is_retryable() || self.failed >= ATTEMPTS {
            return false;
        }
        let pause = FIRST_PAUSE * 3_u32.pow(self.failed - 1);
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        true
    }
}

/// Ends an attempt that a database neither answers nor refuses.
pub(super) async fn limited<D: Dialect, T>(attempt: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match tokio::time::timeout(ATTEMPT, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(unreachable::<D>().context("waited", format!("{} s", ATTEMPT.as_secs()))),
    }
}

/// Repeats an attempt while that may help.
macro_rules! retrying {
    ($dialect:ty, $attempt:expr) => {{
        let mut retry = $crate::store::failure::Retry::default();
        loop {
            match $crate::store::failure::limited::<$dialect, _>($attempt).await {
                Err(error) if retry.again(&error).await => {}
                outcome => break outcome,
            }
        }
    }};
}
pub(super) use retrying;
