//! Merges against their plain definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{Row, Value, float, full_schema, memory, opened, order_of, rows_of, text, written};
use super::laws::rows;
use crate::model::{ColumnSchema, ColumnType, MetricCombine, SegmentSchema};
use crate::segment::{MergeInput, Rollup, RowOrder, Segment, WriteOptions, write_segment};

/// How rows compare: by time, dimensions, null first.
fn key(row: &Row) -> (i64, Value, Value, (bool, i64), (bool, u64)) {
    let long = |value: &Value| if let Value::Long(v) = value { (true, *v) } else { (false, 0) };
    let ordered = |value: &Value| match value {
        Value::Double(bits) => (true, if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }),
        _ => (false, 0),
    };
    (long(&row[0]).1, row[1].clone(), row[2].clone(), long(&row[3]), ordered(&row[4]))
}

fn add(a: &Value, b: &Value, combine: impl Fn(&Value, &Value) -> Value) -> Value {
    match (a, b) {
        (Value::Null, value) | (value, Value::Null) => value.clone(),
        _ => combine(a, b),
    }
}

fn as_double(value: &Value) -> f64 {
    match value {
        Value::Float(bits) => f32::from_bits(*bits).into(),
        Value::Double(bits) => f64::from_bits(*bits),
        _ => panic!("a float"),
    }
}

/// Two rows as one, the earlier one first.
fn combined(a: &Row, b: &Row) -> Row {
    let mut row = a[..5].to_vec();
    row.push(add(&a[5], &b[5], |a, b| match (a, b) {
        (Value::Long(a), Value::Long(b)) => Value::Long(a + b),
        _ => panic!("longs"),
    }));
    row.push(add(
        &a[6],
        &b[6],
        |a, b| if as_double(b).total_cmp(&as_double(a)).is_lt() { b.clone() } else { a.clone() },
    ));
    row.push(add(
        &a[7],
        &b[7],
        |a, b| if as_double(b).total_cmp(&as_double(a)).is_gt() { b.clone() } else { a.clone() },
    ));
    let first = if a[8] == Value::Null || (b[8] != Value::Null && b[9] < a[9]) { b } else { a };
    row.extend_from_slice(&first[8..10]);
    let last = if a[10] == Value::Null || (b[10] != Value::Null && b[11] >= a[11]) { b } else { a };
    row.extend_from_slice(&last[10..12]);
    row
}

fn rolled_up(inputs: &[Vec<Row>]) -> Vec<Row> {
    let mut groups = BTreeMap::<_, Row>::new();
    for row in inputs.iter().flatten() {
        groups.entry(key(row)).and_modify(|group| *group = combined(group, row)).or_insert_with(|| row.clone());
    }
    groups.into_values().collect()
}

pub(super) fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(key);
    rows
}

fn merged(inputs: &[Arc<dyn Segment>], rollup: Rollup) -> Arc<dyn Segment> {
    Arc::new(opened(written(inputs, &full_schema(), rollup, &WriteOptions::default())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rolling_up_is_combining_equal_rows(inputs in prop::collection::vec(rows(0..40), 1..5)) {
        let inputs = inputs.into_iter().map(sorted).collect::<Vec<_>>();
        let segments = inputs.iter().map(|rows| memory(&full_schema(), rows)).collect::<Vec<_>>();
        prop_assert_eq!(rows_of(&*merged(&segments, Rollup::On)), rolled_up(&inputs));
    }

    #[test]
    fn merging_is_associative(a in rows(0..30), b in rows(0..30), c in rows(0..30), roll in any::<bool>()) {
        let rollup = if roll { Rollup::On } else { Rollup::Off };
        let [a, b, c] = [a, b, c].map(|rows| memory(&full_schema(), &sorted(rows)));
        let left = merged(&[merged(&[Arc::clone(&a), Arc::clone(&b)], rollup), Arc::clone(&c)], rollup);
        let right = merged(&[Arc::clone(&a), merged(&[Arc::clone(&b), Arc::clone(&c)], rollup)], rollup);
        let all = merged(&[a, b, c], rollup);
        prop_assert_eq!(rows_of(&*left), rows_of(&*all));
        prop_assert_eq!(rows_of(&*right), rows_of(&*all));
    }

    #[test]
    fn merging_without_rollup_is_sorting_by_time(inputs in prop::collection::vec(rows(0..40), 0..5)) {
        let segments = inputs.iter().map(|rows| memory(&full_schema(), rows)).collect::<Vec<_>>();
        let mut expected = inputs.concat();
        expected.sort_by(|a, b| a[0].cmp(&b[0]));
        prop_assert_eq!(rows_of(&*merged(&segments, Rollup::Off)), expected);
    }

    #[test]
    fn parts_of_the_output_are_parts_of_the_whole(inputs in prop::collection::vec(rows(1..40), 1..4), cut in 0usize..100) {
        let inputs = inputs.into_iter().map(sorted).collect::<Vec<_>>();
        let segments = inputs.iter().map(|rows| memory(&full_schema(), rows)).collect::<Vec<_>>();
        let order = order_of(&segments, &full_schema(), Rollup::On);
        let cut = cut % (order.num_rows() + 1);
        let part = |rows| {
            let mut bytes = Vec::new();
            write_segment(&order, rows, &WriteOptions::default(), &mut bytes).unwrap();
            rows_of(&opened(bytes))
        };
        let parts = [part(0..cut), part(cut..order.num_rows())].concat();
        prop_assert_eq!(parts, rolled_up(&inputs));
    }
}

#[test]
fn what_an_input_lacks_is_null() {
    let narrow = Arc::new(SegmentSchema::new([ColumnSchema::dimension("tags", ColumnType::String)]).unwrap());
    let some = memory(&narrow, &[vec![Value::Long(1), text("x")], vec![Value::Long(3), Value::Null]]);
    let mut full = vec![Value::Null; 12];
    (full[0], full[1], full[2]) = (Value::Long(2), text("p"), Value::List(vec![]));
    let segment = merged(&[some, memory(&full_schema(), &[full.clone()])], Rollup::On);
    let rows = rows_of(&*segment);
    assert_eq!(rows[0][..3], [Value::Long(1), Value::Null, Value::List(vec![Some("x".to_owned())])]);
    assert_eq!(rows[1], full);
    assert_eq!(rows[2][..3], [Value::Long(3), Value::Null, Value::List(vec![])]);
    assert!(rows[0][3..].iter().all(|value| *value == Value::Null));
}

#[test]
fn a_sum_that_overflows_names_its_metric() {
    let schema =
        Arc::new(SegmentSchema::new([ColumnSchema::metric("added", ColumnType::Long, MetricCombine::Sum)]).unwrap());
    let rows = |added| vec![vec![Value::Long(1), Value::Long(added)]];
    let inputs = [memory(&schema, &rows(i64::MAX)), memory(&schema, &rows(1))];
    let order = order_of(&inputs, &schema, Rollup::On);
    let error = write_segment(&order, 0..1, &WriteOptions::default(), &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("`added`"), "{error}");
    let inputs = [memory(&schema, &rows(i64::MAX)), memory(&schema, &rows(1)), memory(&schema, &rows(-1))];
    let segment = opened(written(&inputs, &schema, Rollup::On, &WriteOptions::default()));
    assert_eq!(rows_of(&segment), rows(i64::MAX));
}

#[test]
fn floats_add_up_in_double_precision() {
    let schema =
        Arc::new(SegmentSchema::new([ColumnSchema::metric("share", ColumnType::Float, MetricCombine::Sum)]).unwrap());
    let rows = vec![vec![Value::Long(1), float(0.1)]; 1000];
    let segment = opened(written(&[memory(&schema, &rows)], &schema, Rollup::On, &WriteOptions::default()));
    assert_eq!(rows_of(&segment), [vec![Value::Long(1), float((f64::from(0.1f32) * 1000.0) as f32)]]);
}

#[test]
fn columns_of_different_types_are_not_merged() {
    let of = |column_type| Arc::new(SegmentSchema::new([ColumnSchema::dimension("d", column_type)]).unwrap());
    let texts = memory(&of(ColumnType::String), &[vec![Value::Long(1), text("x")]]);
    let input = MergeInput { rows: 0..1, segment: texts };
    let error = RowOrder::of(vec![input], &of(ColumnType::Long), Rollup::Off).unwrap_err().to_string();
    assert!(error.contains("`d`") && error.contains("STRING") && error.contains("LONG"), "{error}");
}

#[test]
fn rows_out_of_order_are_refused() {
    let schema = Arc::new(SegmentSchema::new([ColumnSchema::dimension("d", ColumnType::String)]).unwrap());
    let rows = [vec![Value::Long(1), text("b")], vec![Value::Long(1), text("a")]];
    let input = || MergeInput { rows: 0..2, segment: memory(&schema, &rows) };
    assert!(RowOrder::of(vec![input()], &schema, Rollup::On).is_err());
    assert_eq!(RowOrder::of(vec![input()], &schema, Rollup::Off).unwrap().num_rows(), 2);
}
