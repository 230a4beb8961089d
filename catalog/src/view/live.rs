use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use henge_engine::Result;
use henge_engine::ingest::live::{LiveIndex, LiveSnapshot};
use henge_engine::model::{Interval, SegmentId, SegmentSchema, SegmentUid, Timestamp};
use henge_engine::segment::{PromotedSegment, Segment};
use henge_engine::table::KeptPlans;
use parking_lot::Mutex;

use super::schemas::union;
use super::{DataSourceView, Promoted};
use crate::timeline::Visible;

/// Rows of a data source that are shown before they are published: what came between two hand-offs.
#[derive(Debug)]
pub struct Generation {
    pub data_source: String,
    /// Names the stream that its rows come from.
    pub stream: SegmentUid,
    /// Unlike that of all others of the data source in this process.
    pub number: u64,
    pub opened: Timestamp,
    /// When its first row came.
    pub first_row: Mutex<Option<Timestamp>>,
    pub index: LiveIndex,
    /// The ids of the segments that it was published as.
    pub segments: Mutex<Vec<String>>,
    /// Holds its chunks that were moved to files; removed with it.
    dir: Mutex<Option<PathBuf>>,
    /// The segments that it is about to be published as. Once one of them is shown, this is not.
    published_as: Mutex<HashSet<SegmentUid>>,
    /// Chunks whose types are not the data source's, as they are shown.
    promoted: Mutex<HashMap<u64, Known>>,
}

/// A chunk as it is shown, and of which chunk and under which schema.
#[derive(Debug)]
struct Known {
    schema: Arc<SegmentSchema>,
    of: Arc<dyn Segment>,
    shown: Arc<PromotedSegment>,
}

impl Generation {
    pub fn new(data_source: &str, stream: SegmentUid, number: u64, opened: Timestamp, index: LiveIndex) -> Self {
        let data_source = data_source.to_owned();
        Self {
            data_source,
            stream,
            number,
            opened,
            first_row: Mutex::default(),
            index,
            segments: Mutex::default(),
            dir: Mutex::default(),
            published_as: Mutex::default(),
            promoted: Mutex::default(),
        }
    }

    /// Says where files of it are.
    pub fn removes_at_its_end(&self, dir: &Path) {
        *self.dir.lock() = Some(dir.to_owned());
    }

    /// Says, before it is published, what it is published as: then it is exchanged for that, whoever shows it first.
    /// An attempt whose end is not known counts too.
    pub fn publishes_as(&self, uids: impl IntoIterator<Item = SegmentUid>) {
        self.published_as.lock().extend(uids);
    }

    pub(super) fn is_published_by<'a>(&self, mut added: impl Iterator<Item = &'a SegmentUid>) -> bool {
        let published_as = self.published_as.lock();
        added.any(|uid| published_as.contains(uid))
    }

    /// A name like a segment's, for what of it lies in `interval`.
    pub fn segment_id(&self, interval: Interval, partition: u32) -> SegmentId {
        let version = format!("realtime-{}", self.number);
        SegmentId { data_source: self.data_source.clone(), interval, version, partition }
    }

    /// A chunk with the types of the data source.
    fn shown(&self, number: u64, segment: &Arc<dyn Segment>, schema: &Arc<SegmentSchema>) -> Result<Arc<dyn Segment>> {
        if PromotedSegment::fits(segment.schema(), schema) {
            return Ok(Arc::clone(segment));
        }
        let mut promoted = self.promoted.lock();
        if let Some(known) = promoted.get(&number)
            && Arc::ptr_eq(&known.schema, schema)
            && Arc::ptr_eq(&known.of, segment)
        {
            return Ok(Arc::clone(&known.shown) as _);
        }
        let shown = Arc::new(PromotedSegment::new(Arc::clone(segment), schema)?);
        let known = Known { schema: Arc::clone(schema), of: Arc::clone(segment), shown: Arc::clone(&shown) };
        promoted.insert(number, known);
        Ok(shown)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.lock().take()
            && let Err(error) = std::fs::remove_dir_all(&dir)
        {
            tracing::warn!(%error, dir = %dir.display(), "files of rows that were handed off are removed at the next start");
        }
    }
}

/// The generations of a data source that are not published, and what was last shown of it with them.
#[derive(Debug, Default)]
pub(super) struct LiveSource {
    pub(super) generations: Vec<Arc<Generation>>,
    last: Mutex<Option<Arc<DataSourceView>>>,
}

/// A chunk of rows that are not published, as a query reads it.
#[derive(Clone, Debug)]
pub(super) struct LiveChunk {
    pub(super) id: Arc<SegmentId>,
    /// From its first row to its last.
    pub(super) clip: Interval,
    pub(super) segment: Arc<dyn Segment>,
}

impl LiveSource {
    pub(super) fn new(generations: Vec<Arc<Generation>>, before: Option<&Self>) -> Self {
        let last = before.and_then(|before| before.last.lock().clone());
        Self { generations, last: Mutex::new(last) }
    }

    /// The data source with the rows that are not published. `None` if it has none at all.
    pub(super) fn compose(&self, name: &str, published: Option<&Arc<DataSourceView>>) -> Option<Arc<DataSourceView>> {
        let snapshots = self.generations.iter().map(|generation| Ok((generation, generation.index.snapshot()?)));
        let composed = snapshots.collect::<Result<Vec<_>>>().and_then(|mut snapshots| {
            snapshots.retain(|(_, snapshot)| !snapshot.segments.is_empty());
            if snapshots.is_empty() {
                return Ok(published.map(Arc::clone));
            }
            self.with(name, published, &snapshots).map(|view| Some(Arc::new(view)))
        });
        match composed {
            Ok(Some(view)) => {
                *self.last.lock() = Some(Arc::clone(&view));
                Some(view)
            }
            Ok(None) => None,
            // Fewer rows than there are would be a wrong answer: whoever reads it is told.
            Err(error) => Some(Arc::new(DataSourceView::broken(name, published, &error))),
        }
    }

    fn with(
        &self,
        name: &str,
        published: Option<&Arc<DataSourceView>>,
        snapshots: &[(&Arc<Generation>, Arc<LiveSnapshot>)],
    ) -> Result<DataSourceView> {
        let schemas = published.map(|view| &view.schema).into_iter().chain(snapshots.iter().map(|(_, s)| &s.schema));
        let schemas = schemas.collect::<Vec<_>>();
        let mut schema = match schemas.as_slice() {
            [only] => Arc::clone(only),
            several => Arc::new(union(several.iter().map(|schema| schema.as_ref()))?),
        };
        let mut promoted = published.map_or_else(Promoted::default, |view| Arc::clone(&view.promoted));
        if published.is_none_or(|view| view.schema != schema) {
            // What was turned for the last query need not be turned again.
            let last = self.last.lock();
            match last.as_ref().filter(|last| last.schema == schema) {
                Some(last) => (schema, promoted) = (Arc::clone(&last.schema), Arc::clone(&last.promoted)),
                None => promoted = Promoted::default(),
            }
        } else if let Some(view) = published {
            schema = Arc::clone(&view.schema);
        }
        let mut live = Vec::new();
        for (generation, snapshot) in snapshots {
            for chunk in &snapshot.segments {
                let Some((first, last)) = chunk.segment.time_range() else { continue };
                let clip = Interval::new(first, Timestamp::from_millis(last.millis() + 1))?;
                let number = u32::try_from(chunk.number).unwrap_or(u32::MAX);
                live.push(LiveChunk {
                    id: Arc::new(generation.segment_id(clip, number)),
                    clip,
                    segment: generation.shown(chunk.number, &chunk.segment, &schema)?,
                });
            }
        }
        Ok(DataSourceView {
            name: name.to_owned(),
            rev: published.map_or(0, |view| view.rev),
            schema,
            visible: published.map_or_else(Visible::default, |view| view.visible.clone()),
            num_visible: published.map_or(0, |view| view.num_visible) + live.len(),
            promoted,
            live,
            tails: published.map_or_else(Vec::new, |view| view.tails.clone()),
            withheld: published.map_or_else(HashSet::new, |view| view.withheld.clone()),
            broken: published.and_then(|view| view.broken.as_ref()).map(henge_engine::Error::duplicate),
            plans: KeptPlans::default(),
        })
    }
}

/// Rows that are not published, of one granule of one generation, as `sys.segments` shows them.
#[derive(Clone, Debug)]
pub struct LiveGranule {
    pub id: SegmentId,
    pub num_rows: u64,
}

pub(super) fn granules(live: &BTreeMap<String, Arc<LiveSource>>) -> Vec<LiveGranule> {
    let generations = live.values().flat_map(|source| &source.generations);
    let granules = generations.flat_map(|generation| {
        let granules = generation.index.granules().into_iter();
        granules.map(|(interval, num_rows)| LiveGranule { id: generation.segment_id(interval, 0), num_rows })
    });
    granules.collect()
}
