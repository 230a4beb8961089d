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

/// The segments that are served under one uid.
type Parts = Arc<[Arc<dyn Segment>]>;

/// One attempt of one query, as this process takes part in it: what all its tasks here share.
pub(super) struct RunningQuery {
    cancel: Cancel,
    /// Requests that hold it open: one a task.
    requests: AtomicUsize,
    local: Arc<dyn LocalSegments>,
    /// What was given out, so that all scans of the query see the same rows and nothing vanishes under them.
    held: Mutex<HashMap<SegmentUid, Parts>>,
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
                Some(found) => segments.extend(found.iter().map(|found| (segment, Arc::clone(found)))),
                None => missing.push(segment),
            }
        }
        if !missing.is_empty() {
            return Err(not_served(data_source, &missing));
        }
        let shown = segments.into_iter().map(|(asked, segment)| {
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
    /// What is served under a uid, as the query saw it first.
    fn held(&self, uid: SegmentUid) -> Result<Option<Parts>> {
        let mut held = self.held.lock();
        if let Some(found) = held.get(&uid) {
            return Ok(Some(Arc::clone(found)));
        }
        let found: Option<Parts> = self.local.segments(uid)?.map(Into::into);
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
    use crate::distributed::{MemorySegments, RemoteSegment, RowCount};
    use crate::model::{Interval, SegmentId};

    /// Something that grows, and lies in two segments more each time that somebody asks.
    #[derive(Debug, Default)]
    struct Growing(AtomicUsize);

    impl LocalSegments for Growing {
        fn segment(&self, _: SegmentUid) -> Result<Option<Arc<dyn Segment>>> {
            Ok(None)
        }

        fn segments(&self, _: SegmentUid) -> Result<Option<Vec<Arc<dyn Segment>>>> {
            let asked = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            let schema = Arc::new(SegmentSchema::new([])?);
            let one = || Arc::new(RemoteSegment::new(Arc::clone(&schema), RowCount::Final(1), None)) as _;
            Ok(Some((0..2 * asked).map(|_| one()).collect()))
        }
    }

    #[test]
    fn all_scans_of_a_query_see_what_grows_as_it_was_first() -> Result<()> {
        let query = RunningQuery::new(Arc::new(Growing::default()), Cancel::default());
        let visible = VisibleSegment {
            id: Arc::new(SegmentId {
                data_source: "w".to_owned(),
                interval: Interval::ETERNITY,
                version: "realtime".to_owned(),
                partition: 0,
            }),
            uid: SegmentUid::numbered(7),
            clip: Interval::ETERNITY,
            segment: Arc::new(RemoteSegment::new(Arc::new(SegmentSchema::new([])?), RowCount::Growing(1), None)),
        };
        let columns = Arc::new(SegmentSchema::new([])?);
        let scan = || query.visible("w", &[super::super::wire::segment(&visible)], &columns);
        assert_eq!((scan()?.len(), scan()?.len()), (2, 2));
        Ok(())
    }

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
