use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use henge_engine::model::Timestamp;
use parking_lot::Mutex;

/// A row that is not served is tried again after this long.
const PAUSE: Duration = Duration::from_secs(30);

/// Rows of the metadata store that somebody wrote by hand and that cannot be served, and why not.
#[derive(Debug, Default)]
pub struct Problems {
    by_id: Mutex<BTreeMap<String, (Problem, Instant)>>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The id as it stands in the row.
    pub segment_id: String,
    pub data_source: String,
    pub reason: String,
    /// When it was first seen.
    pub since: Timestamp,
}

impl Problems {
    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Problem> {
        self.by_id.lock().values().map(|(problem, _)| problem.clone()).collect()
    }

    /// Whether a row failed so short a time ago that it is not tried again yet.
    pub(crate) fn is_recent(&self, segment_id: &str) -> bool {
        self.by_id.lock().get(segment_id).is_some_and(|(_, tried)| tried.elapsed() < PAUSE)
    }

    /// Notes that a row failed. Returns whether that is news.
    pub(crate) fn note(&self, problem: Problem) -> bool {
        let mut by_id = self.by_id.lock();
        let known = by_id.get(&problem.segment_id).map(|(known, _)| known);
        let is_news = known.is_none_or(|known| known.reason != problem.reason);
        let since = known.map_or(problem.since, |known| known.since);
        by_id.insert(problem.segment_id.clone(), (Problem { since, ..problem }, Instant::now()));
        is_news
    }

    /// Forgets all that fail no more.
    pub(crate) fn retain(&self, fails: impl Fn(&str) -> bool) {
        self.by_id.lock().retain(|id, _| fails(id));
    }
}
