//! SQL over segments that Druid wrote answers as DataFusion does over the rows that they are known to hold.

use std::sync::Arc;

use arrow::json::ReaderBuilder;
use datafusion::datasource::MemTable;

use super::{Data, Setting, answer, compare, runtime, sessions};
use crate::model::{Interval, SegmentId, SegmentUid};
use crate::segment::Segment;
use crate::segment::druid::Nulls;
use crate::segment::druid::tests::genuine;
use crate::table::{DataSourceTable, FixedSource, VisibleSegment};
use datafusion::catalog::TableProvider;

/// A genuine segment as a table, and its expected rows; `None` where it is not at hand.
fn data(name: &str) -> Option<Data> {
    let segment = genuine::open(name, Nulls::AsStored)?;
    let rows = genuine::expected(name, &segment);
    let schema = Arc::clone(segment.schema());
    let id = SegmentId { data_source: "t".into(), interval: Interval::ETERNITY, version: "1".into(), partition: 0 };
    let uid = SegmentUid::numbered(0);
    let visible = VisibleSegment { id: Arc::new(id), uid, clip: Interval::ETERNITY, segment: Arc::new(segment) };
    let ours = DataSourceTable::new("t", Arc::new(FixedSource::new(schema, vec![visible])));
    let arrow = ours.schema();
    let mut decoder = ReaderBuilder::new(Arc::clone(&arrow)).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    let batch = decoder.flush().unwrap().expect("there are rows");
    Some(Data { stock: Arc::new(MemTable::try_new(arrow, vec![vec![batch]]).unwrap()), ours: Arc::new(ours) })
}

/// Queries that use dictionaries, bitmaps, statistics, codes as keys, and plain values.
const QUERIES: [(&str, &[&str]); 5] = [
    (
        "test-segment",
        &[
            "SELECT * FROM t",
            "SELECT host, sum(visited_sum), count(*), min(__time) FROM t GROUP BY host",
            "SELECT * FROM t WHERE host = 'b.example.com'",
            "SELECT * FROM t WHERE host > 'a.example.com' AND visited_sum < 200",
            "SELECT unique_hosts, count(*) FROM t GROUP BY unique_hosts",
            "SELECT sum(visited_sum), max(visited_sum), avg(visited_sum) FROM t WHERE host LIKE 'c%' OR host LIKE 'a%'",
            "SELECT date_trunc('hour', __time), sum(visited_sum) FROM t GROUP BY 1",
            "SELECT count(*) FROM t WHERE __time >= TIMESTAMP '2014-10-22T01:00:00' AND __time < TIMESTAMP '2014-10-22T02:00:00'",
        ],
    ),
    (
        "v8SegmentPersistDir",
        &[
            "SELECT * FROM t",
            "SELECT dim1, sum(count), count(*) FROM t GROUP BY dim1",
            "SELECT dim1 FROM t WHERE dim1 = ''",
            "SELECT count(*) FROM t WHERE dim1 IS NULL",
            "SELECT dim0, count(*) FROM t GROUP BY dim0",
            "SELECT __time FROM t WHERE array_has(dim0, 'dim01')",
            "SELECT unnest(dim0) FROM t",
            "SELECT cardinality(dim0), dim1 FROM t WHERE dim1 <> 'dim10'",
        ],
    ),
    (
        "v9SegmentPersistDir/segmentWithDamagedFile",
        &[
            "SELECT \"dstIP\", \"srcIP\", sum_bytes, sum_packets, __time FROM t",
            "SELECT \"srcIP\", sum(sum_bytes) FROM t WHERE \"dstIP\" IN ('2.2.2.2', '3') GROUP BY 1",
            "SELECT count(*) FROM t",
        ],
    ),
    (
        "nested_segment_v3",
        &[
            "SELECT * FROM t",
            "SELECT department, product, count(*) FROM t GROUP BY 1, 2",
            "SELECT details FROM t WHERE details LIKE '%plum%'",
            "SELECT product FROM t WHERE department = 'Computers' AND product <> 'Mouse'",
            "SELECT \"shipTo\" FROM t WHERE product IN ('Bike', 'Keyboard') ORDER BY time LIMIT 2",
        ],
    ),
    ("nested_segment_v4", &["SELECT * FROM t", "SELECT product, count(*) FROM t WHERE details <> '' GROUP BY product"]),
];

#[test]
fn sql_over_genuine_segments_answers_as_over_their_rows() {
    let runtime = runtime();
    for (name, queries) in QUERIES {
        let Some(data) = data(name) else { return };
        // Without pushdown every column is read, also one that cannot be.
        let filter_pushdown = name.contains("Damaged");
        let stock = Setting { segment_aggregate: false, filter_pushdown, ..Setting::DEFAULT };
        for (query, setting) in queries.iter().flat_map(|query| [(query, Setting::DEFAULT), (query, stock)]) {
            let [ours, _] = sessions(&data, setting);
            let answered = runtime.block_on(answer(&ours, query));
            assert!(answered.is_ok(), "{name}: {query}: {setting:?}: {answered:?}");
            runtime.block_on(compare(&data, setting, query));
        }
    }
}

#[test]
fn a_damaged_column_fails_where_it_is_asked_for_and_nowhere_else() {
    let Some(data) = data("v9SegmentPersistDir/segmentWithDamagedFile") else { return };
    let runtime = runtime();
    for query in ["SELECT * FROM t", "SELECT sum(count) FROM t", "SELECT \"srcIP\" FROM t WHERE count > 0"] {
        let [ours, _] = sessions(&data, Setting::DEFAULT);
        let error = runtime.block_on(answer(&ours, query)).unwrap_err();
        assert!(error.contains("`llll`") && error.contains("`count`"), "{query}: {error}");
    }
}
