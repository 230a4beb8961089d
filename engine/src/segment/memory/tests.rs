use arrow::array::{Int64Array, ListBuilder, RecordBatch, StringArray, StringViewBuilder, TimestampMillisecondArray};

use super::*;
use crate::model::{ColumnSchema, MetricCombine};

fn schema() -> Arc<SegmentSchema> {
    let columns = [
        ColumnSchema::dimension("page", ColumnType::String),
        ColumnSchema::multi_value_dimension("tags"),
        ColumnSchema::metric("added", ColumnType::Long, MetricCombine::Sum),
        ColumnSchema::metric("absent", ColumnType::Double, MetricCombine::Sum),
    ];
    Arc::new(SegmentSchema::new(columns).expect("valid"))
}

fn batch() -> RecordBatch {
    let mut tags = ListBuilder::new(StringViewBuilder::new());
    tags.append_value([Some("b"), None]);
    tags.append_null();
    tags.append_value([Some("a")]);
    RecordBatch::try_from_iter([
        ("page", Arc::new(StringArray::from(vec![Some("y"), None, Some("x")])) as _),
        ("__time", Arc::new(TimestampMillisecondArray::from(vec![30, 10, 20])) as _),
        ("tags", Arc::new(tags.finish()) as _),
        ("added", Arc::new(Int64Array::from(vec![None, Some(7), Some(i64::MAX)])) as _),
    ])
    .expect("equal lengths")
}

#[test]
fn batches_become_rows_in_the_order_of_time() {
    let segment = MemorySegment::from_batches(schema(), &[batch()]).expect("encodes");
    assert_eq!(segment.time_range(), Some((Timestamp::from_millis(10), Timestamp::from_millis(30))));
    let Ok(Column::String(page)) = segment.column(1) else { panic!("page is a string column") };
    let mut codes = vec![9];
    page.read_codes(0, &mut codes).expect("block 0");
    assert_eq!(codes, [0, 1, 2], "null, x, y");
    assert_eq!(page.dictionary().code_of("y").ok(), Some(Some(2)));
    assert_eq!(page.dictionary().lower_bound("xx").ok(), Some(2));
    assert_eq!(page.dictionary().values_of(&[2, 0]).expect("in range").iter().collect::<Vec<_>>(), [Some("y"), None]);
    assert_eq!(page.code_range(0).ok(), Some((0, 2)));
    let Ok(Column::MultiString(tags)) = segment.column(2) else { panic!("tags is a multi-value column") };
    let (mut offsets, mut codes) = (vec![], vec![]);
    tags.read_codes(0, &mut offsets, &mut codes).expect("block 0");
    assert_eq!((offsets, codes), (vec![0, 0, 1, 3], vec![1, 2, 0]), "none; a; b and null");
}

#[test]
fn block_statistics_leave_out_nulls_and_never_wrap() {
    let segment = MemorySegment::from_batches(schema(), &[batch(), batch()]).expect("encodes");
    let Ok(Column::Long(added)) = segment.column(3) else { panic!("added is a long column") };
    let stats = added.block_stats(0).expect("block 0");
    assert_eq!((stats.rows, stats.nulls, stats.min_max), (6, 2, Some((7, i64::MAX))));
    assert_eq!(stats.sum, 14 + 2 * i128::from(i64::MAX));
    let Ok(Column::Double(absent)) = segment.column(4) else { panic!("absent is a double column") };
    let mut values = vec![];
    let validity = absent.read(0, &mut values).expect("block 0").expect("all null");
    assert_eq!((validity.count_set_bits(), values), (0, vec![0.0; 6]));
}

#[test]
fn a_row_index_knows_the_rows_of_each_code() {
    let values = Arc::new(StringViewArray::from_iter([None, Some("b"), Some("a")]));
    let columns = vec![
        MemoryColumn::Long { values: vec![1, 2, 3], validity: None },
        MemoryColumn::String { values, has_null: true, sorted: false, codes: vec![2, 0, 2] },
    ];
    let schema = SegmentSchema::new([ColumnSchema::dimension("d", ColumnType::String)]).expect("valid");
    let segment = MemorySegment::with_row_index(Arc::new(schema), columns).expect("consistent");
    let Ok(Column::String(d)) = segment.column(1) else { panic!("d is a string column") };
    assert_eq!(d.rows_of(2).ok().flatten(), Some(RoaringBitmap::from_iter([0, 2])));
    assert_eq!(d.row_counts().ok().flatten(), Some(Arc::new(vec![1, 0, 2])));
    assert_eq!(d.dictionary().code_of("a").ok(), Some(Some(2)));
}
