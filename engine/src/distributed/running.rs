//! The queries that a worker runs for brokers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::LocalSegments;
use super::wire::ScannedSegment;
use crate::error::{Category, Error, Persona, Result};
use crate::exec::{Cancel, VisibleSegment};
use crate::model::{SegmentSchema, SegmentUid};
use crate::segment::{PromotedSegment, Segment};

/// One attempt of one query, as this process takes part in it: what all its tasks here share.
pub(super) struct RunningQuery {
    cancel: Cancel,
    /// Requests that hold it open: one a task.
    requests: AtomicUsize,
    local: Arc<dyn LocalSegments>,
    /// What was given out, so that all scans of the query see the same rows and nothing vanishes under them.
    held: Mutex<HashMap<SegmentUid, Arc<dyn Segment>>>,
}

impl fmt::Debug for RunningQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningQuery").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

impl RunningQuery {
    pub(super) fn new(local: Arc<dyn LocalSegments>, cancel: Cancel) -> Self {
        Self { cancel, requests: AtomicUsize::new(0), local, held: Mutex::default() }
    }

    /// Ends its tasks in this process.
    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// One more request is there for it.
    pub(super) fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended. With the last of them its tasks end: one of several stages that is done ends no other.
    pub(super) fn end(&self) {
        if self.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.cancel.cancel();
        }
    }

    /// The segments of a scan, with the data source's types. Fails with `NotFound`, naming each, if any is not served
    /// here.
    pub(super) fn visible(
        &self,
        data_source: &str,
        asked: &[ScannedSegment],
        columns: &Arc<SegmentSchema>,
    ) -> Result<Vec<VisibleSegment>> {
        let (mut segments, mut missing) = (Vec::with_capacity(asked.len()), Vec::new());
        for segment in asked {
            match self.held(segment.uid()?)? {
                Some(found) => segments.push(found),
                None => missing.push(segment),
            }
        }
        if !missing.is_empty() {
            return Err(not_served(data_source, &missing));
        }
        let shown = segments.into_iter().zip(asked).map(|(segment, asked)| {
            let segment = match PromotedSegment::fits(segment.schema(), columns) {
                true => segment,
                false => Arc::new(PromotedSegment::new(segment, columns)?) as _,
            };
            asked.visible(data_source, segment)
        });
        shown.collect()
    }
}

impl RunningQuery {
    /// A segment as the query saw it first.
    fn held(&self, uid: SegmentUid) -> Result<Option<Arc<dyn Segment>>> {
        let mut held = self.held.lock();
        if let Some(found) = held.get(&uid) {
            return Ok(Some(Arc::clone(found)));
        }
        let found = self.local.segment(uid)?;
        held.extend(found.iter().map(|found| (uid, Arc::clone(found))));
        Ok(found)
    }
}

/// Which segments a worker does not serve: their uids, for who plans again.
pub(super) const MISSING: &str = "missing";

fn not_served(data_source: &str, missing: &[&ScannedSegment]) -> Error {
    let uids = missing.iter().filter_map(|segment| segment.uid().ok()).map(|uid| uid.to_string());
    let message = format!("{} segments of `{data_source}` are not served there (any more)", missing.len());
    Error::new(Category::NotFound, Persona::Operator, message)
        .context(MISSING, uids.collect::<Vec<_>>().join(" "))
        .retryable(true)
}

/// The queries that run in a process, by the name that their broker gave them.
#[derive(Debug, Default)]
pub(super) struct RunningQueries(Mutex<HashMap<String, Weak<RunningQuery>>>);

impl RunningQueries {
    /// A query's entry; the first who asks makes it. It is forgotten when nobody holds it any more, and so is one whose
    /// tasks have ended: a stage that comes later is not to end with them.
    pub(super) fn enter(&self, name: &str, make: impl FnOnce() -> RunningQuery) -> Arc<RunningQuery> {
        let mut queries = self.0.lock();
        let found = queries.get(name).and_then(Weak::upgrade);
        if let Some(found) = found.filter(|found| !found.cancel.is_canceled()) {
            return found;
        }
        queries.retain(|_, query| query.strong_count() > 0);
        let query = Arc::new(make());
        queries.insert(name.to_owned(), Arc::downgrade(&query));
        query
    }

    pub(super) fn len(&self) -> usize {
        // What a canceled one still holds is let go of later; it does nothing any more.
        let goes_on = |query: &&Weak<RunningQuery>| query.upgrade().is_some_and(|query| !query.cancel.is_canceled());
        self.0.lock().values().filter(goes_on).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::MemorySegments;

    #[test]
    fn a_query_is_known_by_its_name_for_as_long_as_somebody_holds_it() {
        let queries = RunningQueries::default();
        let enter = || queries.enter("q", || RunningQuery::new(Arc::new(MemorySegments::default()), Cancel::default()));
        let (first, second) = (enter(), enter());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(queries.len(), 1);
        first.begin();
        second.begin();
        first.end();
        assert!(!second.cancel().is_canceled());
        second.end();
        assert!(first.cancel().is_canceled());
        assert!(!Arc::ptr_eq(&first, &enter()));
        drop((first, second));
        assert_eq!(queries.len(), 0);
        assert!(!enter().cancel().is_canceled());
    }
}
