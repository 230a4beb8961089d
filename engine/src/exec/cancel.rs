use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use datafusion::execution::TaskContext;

use crate::error::{Category, Error, Persona, Result};

/// Ends the query that it was given to, and ends it by itself when its time is up. Clones end the same one.
///
/// A query that is dropped ends where its operators give control back, if somebody still asks them. What runs on in
/// tasks of its own, here or on another machine, asks this before each morsel.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<State>);

#[derive(Debug, Default)]
struct State {
    canceled: AtomicBool,
    deadline: Option<Instant>,
}

impl Cancel {
    /// Of a query that may run until `deadline`.
    pub fn until(deadline: Option<Instant>) -> Self {
        Self(Arc::new(State { canceled: AtomicBool::new(false), deadline }))
    }

    pub fn cancel(&self) {
        self.0.canceled.store(true, Ordering::Relaxed);
    }

    /// Cancels when it is dropped.
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    pub fn is_canceled(&self) -> bool {
        self.0.canceled.load(Ordering::Relaxed)
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Fails once the query is canceled or out of time.
    pub fn check(&self) -> Result<()> {
        if self.is_canceled() {
            return Err(Error::canceled("the query was canceled"));
        }
        match self.0.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(Self::out_of_time()),
            _ => Ok(()),
        }
    }

    /// The query's that a task belongs to; one that never ends anything where nobody set one.
    pub(super) fn of(context: &TaskContext) -> Arc<Self> {
        context.session_config().get_extension::<Self>().unwrap_or_default()
    }

    /// How a query ends whose time is up. The words are PostgreSQL's.
    pub fn out_of_time() -> Error {
        Error::new(Category::Timeout, Persona::User, "canceling statement due to statement timeout")
            .with_sqlstate("57014")
    }
}

/// Held by whoever waits for a query: when they are gone, it is not wanted any more.
#[derive(Debug)]
pub struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
