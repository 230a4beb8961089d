use std::collections::HashSet;
use std::sync::Arc;

use henge_engine::model::{Interval, SegmentId, SegmentSchema, SegmentUid, Timestamp};
use henge_engine::segment::{Column, Segment};
use henge_engine::{Error, Result};

use super::WorkingSource;
use crate::store::SinkRecord;
use crate::timeline::GroupKind;

/// How many rows a tail is taken to have when work is given out: they are known where they are only.
const ROWS: usize = 500_000;

/// The rows of a sink that queries do not read from segments: those after a position, wherever their process has them.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) id: Arc<SegmentId>,
    pub(super) uid: SegmentUid,
    pub(super) segment: Arc<dyn Segment>,
}

/// What becomes of queries over rows that only a realtime process of a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteRows {
    /// They are planned for the processes that have them.
    Asked,
    /// They fail: whoever asks here reads what is here.
    Refused,
}

impl Tail {
    /// Why a query that does not reach its process fails.
    pub(super) fn refused(&self) -> Error {
        let server = self.segment.kept_by().unwrap_or_default();
        let data_source = &self.id.data_source;
        Error::conflict(format!(
            "realtime process `{server}` of a cluster has rows of `{data_source}` that are not published; ask a broker of \
             that cluster"
        ))
    }

    fn new(sink: &SinkRecord, after: u64) -> Self {
        let id = SegmentId {
            data_source: sink.data_source.clone(),
            interval: Interval::ETERNITY,
            version: format!("realtime-{}", sink.uid),
            partition: 0,
        };
        let segment = TailSegment { schema: Arc::clone(&sink.schema), server: Arc::from(sink.server.as_str()) };
        Self { id: Arc::new(id), uid: sink.tail_uid(after), segment: Arc::new(segment) }
    }
}

/// What is known of a tail elsewhere than in its process: enough to plan, nothing to read.
#[derive(Debug)]
struct TailSegment {
    schema: Arc<SegmentSchema>,
    server: Arc<str>,
}

impl Segment for TailSegment {
    fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    fn num_rows(&self) -> usize {
        ROWS
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        Some((Interval::ETERNITY.start(), Timestamp::from_millis(Interval::ETERNITY.end().millis() - 1)))
    }

    fn is_final(&self) -> bool {
        false
    }

    fn column(&self, _: usize) -> Result<Column> {
        Err(Error::defensive("rows were to be read that another process has"))
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn is_passing(&self) -> bool {
        true
    }

    fn kept_by(&self) -> Option<&str> {
        Some(&self.server)
    }
}

impl WorkingSource {
    /// Where the rows of its sinks are read: the tails, and the segments that must not be read because a tail has their
    /// rows. A row is in exactly one of the two, whatever of a publication is seen so far.
    pub(super) fn tails(&self) -> (Vec<Tail>, HashSet<SegmentUid>) {
        let (mut tails, mut withheld) = (Vec::with_capacity(self.sinks.len()), HashSet::new());
        for sink in &self.sinks {
            let is_settled = self.is_settled(sink);
            tails.push(Tail::new(sink, if is_settled { sink.published } else { sink.settled }));
            if !is_settled {
                withheld.extend(&sink.pending);
            }
        }
        (tails, withheld)
    }

    /// Whether queries read no segment less of what a sink published: each is asked for, or newer ones hide it, or it is
    /// not used any more.
    pub(super) fn is_settled(&self, sink: &SinkRecord) -> bool {
        if sink.pending.is_empty() {
            return true;
        }
        let active = self.timeline.groups().filter(|group| group.kind() == GroupKind::Data);
        let active = active.flat_map(|group| group.partitions()).map(|(_, segment)| segment.record.uid);
        let active = active.filter(|uid| sink.pending.contains(uid)).collect::<HashSet<_>>();
        let is_pending = |uid: &SegmentUid| sink.pending.contains(uid) && !active.contains(uid);
        let mut sleeping = self.dormant.values().filter(|segment| is_pending(&segment.record.uid));
        sleeping.all(|segment| self.timeline.is_overshadowed(&segment.id.interval, &segment.id.version))
    }
}

#[cfg(test)]
mod tests {
    use henge_engine::model::{ColumnSchema, ColumnType, ShardSpec};
    use henge_engine::storage::{DeepStorage, DeepStorageUrl, LoadSpec};
    use henge_engine::table::SegmentSource;

    use super::*;
    use crate::store::{DataSourceState, SegmentRecord, Snapshot, Standing};
    use crate::view::{Druids, Reads, View};

    fn view(dir: &std::path::Path, remote_rows: RemoteRows) -> View {
        let storage = DeepStorage::open(&DeepStorageUrl::Local(dir.join("d")), dir.join("c"), Vec::new()).unwrap();
        View::new(storage, Druids::default(), Reads::Elsewhere, remote_rows, None, Snapshot::default()).unwrap()
    }

    fn segment(partition: u32, version: &str, uid: u32, standing: Standing) -> SegmentRecord {
        SegmentRecord {
            id: SegmentId {
                data_source: "wiki".to_owned(),
                interval: "2013-08-01/2013-08-02".parse().unwrap(),
                version: version.to_owned(),
                partition,
            },
            uid: SegmentUid::numbered(uid),
            shard_spec: ShardSpec::Numbered { partition_num: partition, partitions: 0 },
            load_spec: LoadSpec::Local { path: uid.to_string() },
            schema: Arc::new(SegmentSchema::new([]).unwrap()),
            num_rows: 1,
            size_bytes: 1,
            hash: String::new(),
            time_range: None,
            created: Timestamp::from_millis(0),
            created_rev: 1,
            standing,
        }
    }

    /// Of rows of one sink, published as segments 1 and 2 at position 7, in whatever state those are: they are read from
    /// the process, or from both segments, or were replaced; never from both places, and never from none.
    #[test]
    fn a_row_is_read_here_or_there_and_never_twice() {
        use Standing::{Active, Dormant};
        let dir = tempfile::tempdir().unwrap();
        let (asking, refusing) = (view(dir.path(), RemoteRows::Asked), view(dir.path(), RemoteRows::Refused));
        let view = asking;
        let sink = SinkRecord {
            uid: SegmentUid::numbered(99),
            data_source: "wiki".to_owned(),
            server: "10.0.0.1:8888".to_owned(),
            term: 0,
            schema: Arc::new(SegmentSchema::new([ColumnSchema::dimension("page", ColumnType::String)]).unwrap()),
            settled: 3,
            published: 7,
            pending: vec![SegmentUid::numbered(1), SegmentUid::numbered(2)],
        };
        let (here, there) = (sink.tail_uid(3), sink.tail_uid(7));
        let old = segment(0, "1", 8, Active);
        let of = |partition: u32, standing| segment(partition, "1", partition, standing);
        let newer = segment(0, "2", 9, Active);
        // As a newer version takes appended segments along.
        let taken_along = |partition: u32, standing| segment(partition, "2", partition, standing);
        let uid = SegmentUid::numbered;
        let cases = [
            (vec![of(1, Dormant), of(2, Dormant)], vec![here, uid(8)]),
            (vec![of(1, Active), of(2, Dormant)], vec![here, uid(8)]),
            (vec![of(1, Active), of(2, Active)], vec![there, uid(8), uid(1), uid(2)]),
            (vec![of(1, Active)], vec![there, uid(8), uid(1)]),
            (vec![], vec![there, uid(8)]),
            // Replaced before they were seen.
            (vec![of(1, Dormant), of(2, Dormant), newer.clone()], vec![there, uid(9)]),
            // Replaced, and taken along: as soon as that is seen, and not before.
            (
                vec![of(1, Dormant), of(2, Dormant), newer.clone(), taken_along(1, Active), taken_along(2, Active)],
                vec![there, uid(9), uid(1), uid(2)],
            ),
            (
                vec![of(1, Dormant), of(2, Dormant), taken_along(1, Dormant), taken_along(2, Dormant)],
                vec![here, uid(8)],
            ),
        ];
        for (rev, (segments, expected)) in (1..).zip(cases) {
            let used = segments.into_iter().chain([old.clone()]).collect();
            view.replace("wiki", DataSourceState { rev, used, sinks: vec![sink.clone()] }).unwrap();
            let shown = view.data_source("wiki").unwrap();
            let mut read = shown.visible(&Interval::ETERNITY).unwrap().iter().map(|v| v.uid).collect::<Vec<_>>();
            let mut expected = expected;
            read.sort_unstable();
            expected.sort_unstable();
            assert_eq!(read, expected, "case {rev}");
            assert!(shown.schema().index_of("page").is_some(), "the columns of rows that are not published");
        }
        // Once that is recorded, it holds whatever becomes of the segments.
        let sink = SinkRecord { settled: 7, pending: Vec::new(), ..sink };
        let state = DataSourceState { rev: 20, used: vec![of(1, Dormant)], sinks: vec![sink.clone()] };
        refusing.replace("wiki", state.clone()).unwrap();
        let error = refusing.data_source("wiki").unwrap().visible(&Interval::ETERNITY).unwrap_err().to_string();
        assert!(error.contains("realtime process `10.0.0.1:8888`"), "{error}");
        view.replace("wiki", state).unwrap();
        let shown = view.data_source("wiki").unwrap().visible(&Interval::ETERNITY).unwrap();
        assert_eq!(shown.iter().map(|visible| visible.uid).collect::<Vec<_>>(), [there]);
        assert_eq!(shown[0].segment.kept_by(), Some("10.0.0.1:8888"));
        assert_ne!(here, there);
        assert_ne!(SinkRecord { uid: SegmentUid::numbered(98), ..sink }.tail_uid(7), there);
    }
}
