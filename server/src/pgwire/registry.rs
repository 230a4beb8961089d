//! Who is connected and what they do, so that a cancel request finds its connection and `pg_stat_activity` is true.

use std::collections::HashMap;
use std::sync::Arc;

use henge_engine::model::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::pg_catalog::Activity;

/// How much of a statement `pg_stat_activity` shows, as PostgreSQL's `track_activity_query_size`.
const SHOWN_CHARACTERS: usize = 1024;

/// The connections of a server by process id. Ids count up from 1 and are not reused until they wrap.
#[derive(Debug, Default)]
pub(super) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_pid: i32,
    connections: HashMap<i32, Entry>,
}

#[derive(Debug)]
struct Entry {
    secret: i32,
    cancels: watch::Sender<u64>,
    /// `None` until the client has said who it is.
    activity: Arc<Mutex<Option<Activity>>>,
}

/// A connection's place in the registry, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) pid: i32,
    pub(super) secret: i32,
    /// Changes with every cancel request for this connection.
    pub(super) cancels: watch::Receiver<u64>,
    activity: Arc<Mutex<Option<Activity>>>,
    registry: Arc<Registry>,
}

impl Ticket {
    /// Shows who it is for.
    pub(super) fn introduce(&self, activity: Activity) {
        *self.activity.lock() = Some(activity);
    }

    /// Shows a statement that begins.
    pub(super) fn runs(&self, sql: &str, now: Timestamp) {
        if let Some(activity) = self.activity.lock().as_mut() {
            activity.query = sql.chars().take(SHOWN_CHARACTERS).collect();
            activity.query_start = Some(now);
            activity.state = "active";
            activity.state_change = now;
        }
    }

    /// Shows that the connection waits for its client.
    pub(super) fn waits(&self, state: &'static str, application_name: &str, now: Timestamp) {
        if let Some(activity) = self.activity.lock().as_mut() {
            activity.state = state;
            activity.state_change = now;
            if activity.application_name != application_name {
                activity.application_name = application_name.to_string();
            }
        }
    }
}

impl Registry {
    /// A place for one more connection; `None` if there are `limit` already.
    pub(super) fn enter(self: &Arc<Self>, limit: usize) -> Option<Ticket> {
        let mut inner = self.inner.lock();
        if inner.connections.len() >= limit {
            return None;
        }
        let mut pid = inner.last_pid;
        loop {
            pid = pid.checked_add(1).unwrap_or(1);
            if !inner.connections.contains_key(&pid) {
                break;
            }
        }
        inner.last_pid = pid;
        let secret = rand::random();
        let (sender, cancels) = watch::channel(0);
        let activity = Arc::default();
        inner.connections.insert(pid, Entry { secret, cancels: sender, activity: Arc::clone(&activity) });
        Some(Ticket { pid, secret, cancels, activity, registry: Arc::clone(self) })
    }

    /// What all connections do, by process id.
    pub(super) fn activity(&self) -> Vec<Activity> {
        let inner = self.inner.lock();
        let mut all: Vec<Activity> =
            inner.connections.values().filter_map(|entry| entry.activity.lock().clone()).collect();
        all.sort_by_key(|activity| activity.pid);
        all
    }

    /// Cancels what a connection runs, for someone who may; `false` if there is none with this id.
    pub(super) fn cancel_by_pid(&self, pid: i32) -> bool {
        let inner = self.inner.lock();
        let found = inner.connections.get(&pid);
        if let Some(entry) = found {
            entry.cancels.send_modify(|count| *count += 1);
        }
        found.is_some()
    }

    /// Passes a cancel request on. One with a wrong secret is ignored, as PostgreSQL does.
    pub(super) fn cancel(&self, pid: i32, secret: i32) {
        let inner = self.inner.lock();
        if let Some(entry) = inner.connections.get(&pid).filter(|entry| entry.secret == secret) {
            entry.cancels.send_modify(|count| *count += 1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.inner.lock().connections.remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_request_needs_the_right_secret() {
        let registry = Arc::new(Registry::default());
        let mut ticket = registry.enter(2).unwrap();
        registry.cancel(ticket.pid, ticket.secret.wrapping_add(1));
        assert!(!ticket.cancels.has_changed().unwrap());
        registry.cancel(ticket.pid, ticket.secret);
        assert!(ticket.cancels.has_changed().unwrap());
        ticket.cancels.mark_unchanged();
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let registry = Arc::new(Registry::default());
        let first = registry.enter(1).unwrap();
        assert!(registry.enter(1).is_none());
        drop(first);
        assert!(registry.enter(1).is_some());
    }
}
