//! One attempt at answering a query: which replicas it may use, and what it found missing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use parking_lot::Mutex;

use super::assign::{self, Wanted};
use super::failure::Blame;
use super::{SegmentPlacement, WorkerUrl};
use crate::error::{Category, Error, Persona, Result};
use crate::exec::{HengeOptions, VisibleSegment};
use crate::model::{Interval, SegmentUid};

/// A worker that failed is avoided for this long, where there is another one, unless it was found well before.
const AVOIDED: Duration = Duration::from_secs(30);
/// How many intervals a message names.
const NAMED: usize = 20;

/// What all queries of a broker share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) placement: Arc<dyn SegmentPlacement>,
    /// Where other processes reach this one.
    pub(super) url: WorkerUrl,
    /// Workers that failed, and when.
    suspects: Mutex<HashMap<WorkerUrl, Instant>>,
    /// Rows that running queries read from each worker.
    load: Mutex<HashMap<WorkerUrl, usize>>,
}

impl Shared {
    pub(super) fn new(placement: Arc<dyn SegmentPlacement>, url: WorkerUrl) -> Self {
        Self { placement, url, suspects: Mutex::default(), load: Mutex::default() }
    }

    /// Notes that a worker failed. Returns whether that is news.
    pub(super) fn suspect(&self, worker: &WorkerUrl) -> bool {
        self.placement.suspect(worker);
        self.suspects.lock().insert(worker.clone(), Instant::now()).is_none()
    }

    /// A worker that failed answers again.
    pub(super) fn trust(&self, worker: &WorkerUrl) {
        self.suspects.lock().remove(worker);
    }

    /// Workers that failed lately.
    fn suspected(&self) -> HashSet<WorkerUrl> {
        let mut suspects = self.suspects.lock();
        suspects.retain(|_, since| since.elapsed() < AVOIDED);
        suspects.keys().cloned().collect()
    }

    /// The workers that a stage without segments may run on.
    pub(super) fn workers(&self) -> Vec<WorkerUrl> {
        let suspected = self.suspected();
        let (well, failed) = self.placement.workers().into_iter().partition::<Vec<_>, _>(|w| !suspected.contains(w));
        if well.is_empty() { failed } else { well }
    }
}

/// What an attempt must not use, because earlier ones failed on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Avoided {
    workers: HashSet<WorkerUrl>,
    segments: HashSet<(WorkerUrl, SegmentUid)>,
}

impl Avoided {
    pub(super) fn add(&mut self, blame: &Blame) {
        match blame {
            Blame::Worker(worker) | Blame::WorkerForThisQuery(worker) => drop(self.workers.insert(worker.clone())),
            Blame::Segments(worker, uids) => self.segments.extend(uids.iter().map(|uid| (worker.clone(), *uid))),
        }
    }

    fn allows(&self, worker: &WorkerUrl, uid: SegmentUid) -> bool {
        !self.workers.contains(worker) && !self.segments.contains(&(worker.clone(), uid))
    }
}

/// As an extension of a session's options, where the rule finds it that gives segments to workers.
#[derive(Clone, Default)]
pub(super) struct Attempt(Option<Arc<Inner>>);

struct Inner {
    shared: Arc<Shared>,
    avoided: Avoided,
    found: Mutex<Found>,
}

/// What planning found out.
#[derive(Debug, Default)]
struct Found {
    missing: BTreeMap<SegmentUid, Missing>,
    /// Rows counted into the load of each worker.
    rows: HashMap<WorkerUrl, usize>,
}

/// A segment that nobody serves.
#[derive(Debug)]
struct Missing {
    data_source: Arc<str>,
    clip: Interval,
    /// The process that alone has its rows, if there is one.
    kept_by: Option<Arc<str>>,
}

impl Missing {
    fn of(visible: &VisibleSegment) -> Self {
        Self {
            data_source: Arc::from(visible.id.data_source.as_str()),
            clip: visible.clip,
            kept_by: visible.segment.kept_by().map(Arc::from),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut load = self.shared.load.lock();
        for (worker, rows) in self.found.get_mut().rows.drain() {
            let Some(left) = load.get_mut(&worker) else { continue };
            *left = left.saturating_sub(rows);
            if *left == 0 {
                load.remove(&worker);
            }
        }
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attempt").field(&self.0.as_ref().map(|inner| &inner.avoided)).finish()
    }
}

impl Attempt {
    pub(super) fn new(shared: Arc<Shared>, avoided: Avoided) -> Self {
        Self(Some(Arc::new(Inner { shared, avoided, found: Mutex::default() })))
    }

    /// The attempt that a plan is made for.
    pub(super) fn of(config: &ConfigOptions) -> Result<Planning<'_>> {
        let attempt = config.extensions.get::<Self>().and_then(|attempt| attempt.0.as_deref());
        let inner = attempt.ok_or_else(|| Error::defensive("a session that is no broker's plans for workers"))?;
        Ok(Planning { inner, allow_partial: HengeOptions::of(config).allow_partial_results })
    }

    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.0.as_ref().map(|inner| &inner.shared)
    }

    /// The intervals that the plan does without, and how many segments that are.
    pub(super) fn missing(&self) -> Option<(usize, String)> {
        let inner = self.0.as_ref()?;
        let found = inner.found.lock();
        (!found.missing.is_empty()).then(|| (found.missing.len(), named(&found.missing)))
    }
}

/// Planning within an attempt.
pub(super) struct Planning<'a> {
    inner: &'a Inner,
    allow_partial: bool,
}

impl Planning<'_> {
    /// A worker for each segment. Those that nobody serves are noted, or fail the query.
    pub(super) fn choose(
        &self,
        wanted: &BTreeMap<SegmentUid, VisibleSegment>,
    ) -> Result<HashMap<SegmentUid, WorkerUrl>> {
        let Inner { shared, avoided, found } = self.inner;
        let uids = wanted.keys().copied().collect::<Vec<_>>();
        let suspected = shared.suspected();
        let replicas = shared.placement.replicas(&uids);
        let (mut served, mut missing) = (Vec::with_capacity(uids.len()), BTreeMap::new());
        for ((uid, mut replicas), visible) in uids.into_iter().zip(replicas).zip(wanted.values()) {
            replicas.retain(|replica| avoided.allows(&replica.worker, uid));
            if replicas.iter().any(|replica| !suspected.contains(&replica.worker)) {
                replicas.retain(|replica| !suspected.contains(&replica.worker));
            }
            if replicas.is_empty() {
                missing.insert(uid, Missing::of(visible));
            } else {
                served.push(Wanted { uid, num_rows: visible.segment.num_rows(), replicas });
            }
        }
        if !missing.is_empty() && !self.allow_partial {
            return Err(unavailable(&missing));
        }
        let mut found = found.lock();
        found.missing.extend(missing);
        let mut load = shared.load.lock();
        let chosen = assign::choose(served, &load);
        for (uid, worker) in &chosen {
            let rows = wanted.get(uid).map_or(0, |visible| visible.segment.num_rows());
            *load.entry(worker.clone()).or_default() += rows;
            *found.rows.entry(worker.clone()).or_default() += rows;
        }
        Ok(chosen)
    }
}

fn unavailable(missing: &BTreeMap<SegmentUid, Missing>) -> Error {
    let message = match missing.values().find_map(|missing| Some((&missing.data_source, missing.kept_by.as_ref()?))) {
        // It says more of what to do.
        Some((data_source, process)) => format!(
            "realtime process `{process}` does not answer just now: it has rows of `{data_source}` that are not published \
             yet, and that the query needs"
        ),
        None => format!(
            "{} that the query needs {} served by no process just now: {}",
            counted(missing.len()),
            if missing.len() == 1 { "is" } else { "are" },
            named(missing)
        ),
    };
    Error::new(Category::ServiceUnavailable, Persona::User, message)
        .with_sqlstate("57P03")
        .with_hint("try again; `SET henge.allow_partial_results = on` answers without them")
}

pub(super) fn counted(segments: usize) -> String {
    match segments {
        1 => "1 segment".to_owned(),
        many => format!("{many} segments"),
    }
}

/// The intervals by data source, each once; adjoining ones as one.
fn named(missing: &BTreeMap<SegmentUid, Missing>) -> String {
    let published = missing.values().filter(|missing| missing.kept_by.is_none());
    let all = published.map(|missing| (Arc::clone(&missing.data_source), missing.clip.start(), missing.clip.end()));
    let all = all.collect::<BTreeSet<_>>();
    let mut joined: Vec<(Arc<str>, _, _)> = Vec::new();
    for (name, start, end) in all {
        match joined.last_mut() {
            Some((last, _, last_end)) if *last == name && start <= *last_end => *last_end = end.max(*last_end),
            _ => joined.push((name, start, end)),
        }
    }
    let kept = missing.values().filter_map(|missing| {
        let process = missing.kept_by.as_ref()?;
        Some(format!("rows of `{}` that are not published and are kept by `{process}`", missing.data_source))
    });
    let texts = joined.iter().take(NAMED).map(|(name, start, end)| format!("`{name}` {start}/{end}"));
    let text = texts.chain(kept).collect::<Vec<_>>().join(", ");
    match joined.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("{text} and {more} more"),
        _ => text,
    }
}

impl ConfigExtension for Attempt {
    const PREFIX: &'static str = "henge_attempt";
}

impl ExtensionOptions for Attempt {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> datafusion::error::Result<()> {
        Err(Error::invalid_input(format!("there is no setting `{key}`")).with_sqlstate("42704").into())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn missing_intervals_are_joined_and_not_endless() {
        let hour = |hour: i64| Timestamp::from_millis(hour * 3_600_000);
        let all = |hours: &[i64]| {
            let each = hours.iter().zip(0..).map(|(&start, number)| {
                let clip = Interval::new(hour(start), hour(start + 1)).unwrap();
                (SegmentUid::numbered(number), Missing { data_source: Arc::from("w"), clip, kept_by: None })
            });
            each.collect::<BTreeMap<_, _>>()
        };
        let missing = |hours: &[i64]| named(&all(hours));
        assert_eq!(missing(&[0, 1, 2, 2]), "`w` 1970-01-01T00:00:00.000Z/1970-01-01T03:00:00.000Z");
        let many = (0..50).map(|hour| hour * 2).collect::<Vec<_>>();
        assert!(missing(&many).ends_with("and 30 more"), "{}", missing(&many));

        // What one process alone has is told by its name.
        let mut some = all(&[0]);
        let clip = Interval::ETERNITY;
        some.insert(
            SegmentUid::numbered(9),
            Missing { data_source: Arc::from("w"), clip, kept_by: Some(Arc::from("10.0.0.1:8888")) },
        );
        assert!(named(&some).ends_with("Z, rows of `w` that are not published and are kept by `10.0.0.1:8888`"));
        let error = unavailable(&some).to_string();
        assert!(error.contains("realtime process `10.0.0.1:8888` does not answer"), "{error}");
    }
}
