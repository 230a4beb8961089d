//! Fingerprints do not see order and division, and see everything else.

use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{Row, Value, full_schema, memory, opened, order_of, written};
use super::laws::rows;
use super::merging::sorted;
use crate::segment::{Fingerprint, Rollup, Segment, SegmentFile, WriteOptions, fingerprint, write_segment};

fn all(segments: &[Arc<dyn Segment>]) -> Fingerprint {
    let each = segments.iter().map(|segment| fingerprint(segment.as_ref(), &full_schema()).unwrap());
    each.fold(Fingerprint::default(), |sum, each| sum.and(&each))
}

/// The inputs merged into two segments.
fn merged(inputs: &[Arc<dyn Segment>], rollup: Rollup) -> Vec<Arc<dyn Segment>> {
    let order = order_of(inputs, &full_schema(), rollup);
    let middle = order.num_rows() / 3;
    let parts = [0..middle, middle..order.num_rows()];
    let written = parts.map(|rows| {
        let mut bytes = Vec::new();
        write_segment(&order, rows, &WriteOptions::default().rolled_up(rollup), &mut bytes).unwrap();
        let file = SegmentFile::from_bytes("merged", bytes).unwrap();
        assert_eq!(file.is_rolled_up(), rollup == Rollup::On);
        Arc::new(file) as Arc<dyn Segment>
    });
    written.into()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_merge_has_the_fingerprint_of_its_inputs(inputs in prop::collection::vec(rows(1..40), 1..5), roll: bool) {
        let rollup = if roll { Rollup::On } else { Rollup::Off };
        let inputs = inputs.into_iter().map(|rows| memory(&full_schema(), &sorted(rows))).collect::<Vec<_>>();
        all(&merged(&inputs, rollup)).check_made_of(&all(&inputs), rollup).unwrap();
    }

    #[test]
    fn one_value_that_differs_is_seen(rows in rows(1..40), at: prop::sample::Index, column in 0usize..12) {
        let mut other: Vec<Row> = rows.clone();
        let value = &mut at.get_mut(&mut other)[column];
        *value = match value {
            Value::Null if column == 1 => Value::Text("x".to_owned()),
            Value::Null if column == 6 => Value::Float(0),
            Value::Null if matches!(column, 4 | 7 | 10) => Value::Double(0),
            Value::Null => Value::Long(0),
            Value::Text(text) => Value::Text(format!("{text}x")),
            Value::List(list) => Value::List([&list[..], &[None]].concat()),
            Value::Long(number) => Value::Long(number.wrapping_add(1)),
            Value::Float(bits) => Value::Float(*bits ^ 1),
            Value::Double(bits) => Value::Double(*bits ^ 1),
        };
        other.sort_by(|a, b| a[0].cmp(&b[0]));
        let [rows, other] = [rows, other].map(|rows| all(&[memory(&full_schema(), &rows)]));
        prop_assert!(other.check_made_of(&rows, Rollup::Off).is_err());
    }
}

#[test]
fn a_column_that_is_missing_is_null() {
    let schema = full_schema();
    let row = |tags: Value| {
        let mut row = vec![Value::Long(1), Value::Null, tags];
        row.resize(12, Value::Null);
        row
    };
    let full = all(&[memory(&schema, &[row(Value::List(Vec::new()))])]);
    let time = Arc::new(crate::model::SegmentSchema::new([]).unwrap());
    all(&[memory(&time, &[vec![Value::Long(1)]])]).check_made_of(&full, Rollup::Off).unwrap();
    let bytes = written(&[memory(&time, &[vec![Value::Long(1)]])], &schema, Rollup::Off, &WriteOptions::default());
    let filled: Arc<dyn Segment> = Arc::new(opened(bytes));
    all(&[filled]).check_made_of(&full, Rollup::Off).unwrap();
}
