//! Rows that are not sealed yet, asked as segments are.

use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray, ListBuilder, RecordBatch, StringViewBuilder};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use crate::ingest::live::{LiveIndex, ParseOptions, RowParser};
use crate::segment::Segment;

/// The rows of a batch, appended in pieces of any size, as the chunks that are shown then.
pub(super) fn as_live(batch: &RecordBatch, random: &mut StdRng) -> Vec<Arc<dyn Segment>> {
    let schema = json!({
        "dataSource": "t",
        "timestampSpec": {"column": "__time"},
        "dimensionsSpec": {"dimensions": [
            "few", "some", "many", {"name": "tags", "multiValueHandling": "ARRAY"}, {"name": "number", "type": "long"},
        ]},
        "metricsSpec": [
            {"type": "longSum", "name": "long", "fieldName": "long"},
            {"type": "floatSum", "name": "float", "fieldName": "float"},
            {"type": "doubleMax", "name": "double", "fieldName": "double"},
            {"type": "longSum", "name": "whole", "fieldName": "whole"},
        ],
        "granularitySpec": {"rollup": false},
    });
    let parser = RowParser::new(&serde_json::from_value(schema).unwrap()).unwrap();
    // A few chunks.
    let chunk_rows = random.random_range(batch.num_rows() / 4 + 1..batch.num_rows() + 2);
    let index = LiveIndex::with_chunks_of(&parser, chunk_rows);
    let (mut at, mut number) = (0, 0);
    while at < batch.num_rows() {
        let length = random.random_range(1..=batch.num_rows() - at);
        let rows = parser.take("rows", vec![batch.slice(at, length)], &ParseOptions::default()).unwrap();
        assert_eq!(rows.num_rows(), length, "{:?}", rows.bad_rows);
        number += 1;
        index.append(&rows, number).unwrap();
        at += length;
        if random.random_bool(0.3) {
            // Who asks meanwhile changes nothing.
            index.snapshot().unwrap();
        }
    }
    let snapshot = index.snapshot().unwrap();
    snapshot.segments.iter().map(|chunk| Arc::clone(&chunk.segment)).collect()
}

/// The same rows, but that a list of one null is the empty list, as rows that are ingested have it.
pub(super) fn as_ingested(batch: &RecordBatch) -> RecordBatch {
    let index = batch.schema().index_of("tags").unwrap();
    let lists: &ListArray = batch.column(index).as_list();
    let mut tags = ListBuilder::new(StringViewBuilder::new());
    for list in lists.iter() {
        let list = list.unwrap();
        let texts = list.as_string_view();
        if !(texts.len() == 1 && texts.is_null(0)) {
            texts.iter().for_each(|text| tags.values().append_option(text));
        }
        tags.append(true);
    }
    let mut columns = batch.columns().to_vec();
    columns[index] = Arc::new(tags.finish());
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}
