//! Rows as plain values, to compare segments by.

use std::sync::Arc;

use arrow::array::StringViewArray;
use arrow::buffer::BooleanBuffer;

use crate::model::{ColumnRole, ColumnSchema, ColumnType, MetricCombine, SegmentSchema};
use crate::segment::memory::{MemoryColumn, MemorySegment};
use crate::segment::{
    Column, MergeInput, Rollup, RowOrder, Segment, SegmentFile, WriteOptions, block_range, write_segment,
};

/// What one column has in one row. Floats as bits, so that NaN equals itself and zero has a sign.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Option<String>>),
    Long(i64),
    Float(u32),
    Double(u64),
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

pub(super) fn double(value: f64) -> Value {
    Value::Double(value.to_bits())
}

pub(super) fn float(value: f32) -> Value {
    Value::Float(value.to_bits())
}

pub(super) fn list(values: &[Option<&str>]) -> Value {
    Value::List(values.iter().map(|value| value.map(str::to_owned)).collect())
}

pub(super) type Row = Vec<Value>;

/// A column of every type and role.
pub(super) fn full_schema() -> Arc<SegmentSchema> {
    let columns = [
        ColumnSchema::dimension("page", ColumnType::String),
        ColumnSchema::multi_value_dimension("tags"),
        ColumnSchema::dimension("size", ColumnType::Long),
        ColumnSchema::dimension("score", ColumnType::Double),
        ColumnSchema::metric("count", ColumnType::Long, MetricCombine::Sum),
        ColumnSchema::metric("least", ColumnType::Float, MetricCombine::Min),
        ColumnSchema::metric("most", ColumnType::Double, MetricCombine::Max),
        ColumnSchema::metric("earliest", ColumnType::Long, MetricCombine::First),
        ColumnSchema::event_time("earliest"),
        ColumnSchema::metric("latest", ColumnType::Double, MetricCombine::Last),
        ColumnSchema::event_time("latest"),
    ];
    Arc::new(SegmentSchema::new(columns).unwrap())
}

/// A segment in memory, its dictionaries sorted.
pub(super) fn memory(schema: &Arc<SegmentSchema>, rows: &[Row]) -> Arc<dyn Segment> {
    let columns = schema.columns().iter().enumerate().map(|(index, column)| {
        let values = rows.iter().map(|row| &row[index]).collect::<Vec<_>>();
        memory_column(column, &values)
    });
    Arc::new(MemorySegment::new(Arc::clone(schema), columns.collect()).unwrap())
}

fn memory_column(column: &ColumnSchema, values: &[&Value]) -> MemoryColumn {
    let validity = || Some(values.iter().map(|value| **value != Value::Null).collect::<BooleanBuffer>());
    match (column.column_type, column.multi_value) {
        (ColumnType::String, _) => text_column(column.multi_value, values),
        (ColumnType::Long, _) => MemoryColumn::Long {
            values: values.iter().map(|value| if let Value::Long(v) = value { *v } else { 0 }).collect(),
            validity: (column.role != ColumnRole::Time).then(validity).flatten(),
        },
        (ColumnType::Float, _) => MemoryColumn::Float {
            values: values.iter().map(|v| if let Value::Float(v) = v { f32::from_bits(*v) } else { 0.0 }).collect(),
            validity: validity(),
        },
        (ColumnType::Double, _) => MemoryColumn::Double {
            values: values.iter().map(|v| if let Value::Double(v) = v { f64::from_bits(*v) } else { 0.0 }).collect(),
            validity: validity(),
        },
    }
}

fn text_column(multi_value: bool, rows: &[&Value]) -> MemoryColumn {
    let lists = rows.iter().map(|value| match value {
        Value::Text(text) => vec![Some(text.clone())],
        Value::List(list) => list.clone(),
        _ if multi_value => vec![],
        _ => vec![None],
    });
    let lists = lists.collect::<Vec<_>>();
    let mut distinct = lists.iter().flatten().cloned().collect::<Vec<_>>();
    distinct.sort();
    distinct.dedup();
    let code = |value: &Option<String>| distinct.binary_search(value).unwrap() as u32;
    let codes = lists.iter().flatten().map(code).collect();
    let values = Arc::new(distinct.iter().map(Option::as_deref).collect::<StringViewArray>());
    let has_null = distinct.first().is_some_and(Option::is_none);
    if !multi_value {
        return MemoryColumn::String { values, has_null, sorted: true, codes };
    }
    let mut offsets = vec![0];
    lists.iter().for_each(|list| offsets.push(offsets[offsets.len() - 1] + list.len() as u32));
    MemoryColumn::MultiString { values, has_null, sorted: true, offsets, codes }
}

/// All rows of a segment.
pub(super) fn rows_of(segment: &dyn Segment) -> Vec<Row> {
    let mut rows = vec![Vec::new(); segment.num_rows()];
    for index in 0..segment.schema().columns().len() {
        let column = segment.column(index).unwrap();
        for block in 0..rows.len().div_ceil(crate::segment::BLOCK_ROWS) {
            let range = block_range(block, rows.len());
            let values = block_of(&column, block);
            assert_eq!(values.len(), range.len());
            rows[range].iter_mut().zip(values).for_each(|(row, value)| row.push(value));
        }
    }
    rows
}

fn block_of(column: &Column, block: usize) -> Vec<Value> {
    match column {
        Column::String(column) => {
            let (mut codes, values) = (Vec::new(), column.dictionary().values().unwrap());
            column.read_codes(block, &mut codes).unwrap();
            let all = values.iter().map(|value| value.map_or(Value::Null, text)).collect::<Vec<_>>();
            codes.iter().map(|&code| all[code as usize].clone()).collect()
        }
        Column::MultiString(column) => {
            let (mut offsets, mut codes) = (Vec::new(), Vec::new());
            let values = column.dictionary().values().unwrap();
            column.read_codes(block, &mut offsets, &mut codes).unwrap();
            let all = values.iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>();
            let list =
                |ends: &[u32]| codes[ends[0] as usize..ends[1] as usize].iter().map(|&c| all[c as usize].clone());
            offsets.windows(2).map(|ends| Value::List(list(ends).collect())).collect()
        }
        Column::Long(column) => numbers(column.as_ref(), block, Value::Long),
        Column::Float(column) => numbers(column.as_ref(), block, float),
        Column::Double(column) => numbers(column.as_ref(), block, double),
    }
}

fn numbers<T: crate::segment::Number>(
    column: &dyn crate::segment::NumericColumn<T>,
    block: usize,
    value: impl Fn(T) -> Value,
) -> Vec<Value> {
    let mut values = Vec::new();
    let valid = column.read(block, &mut values).unwrap();
    let is_valid = |row| valid.as_ref().is_none_or(|valid| valid.value(row));
    values.into_iter().enumerate().map(|(row, v)| if is_valid(row) { value(v) } else { Value::Null }).collect()
}

/// All of some segments as the bytes of one.
pub(super) fn written(
    inputs: &[Arc<dyn Segment>],
    schema: &Arc<SegmentSchema>,
    rollup: Rollup,
    options: &WriteOptions,
) -> Vec<u8> {
    let order = order_of(inputs, schema, rollup);
    let mut bytes = Vec::new();
    let summary = write_segment(&order, 0..order.num_rows(), options, &mut bytes).unwrap();
    assert_eq!(summary.size_bytes, bytes.len() as u64);
    assert_eq!(summary.num_rows, order.num_rows());
    bytes
}

pub(super) fn order_of(inputs: &[Arc<dyn Segment>], schema: &Arc<SegmentSchema>, rollup: Rollup) -> RowOrder {
    let inputs = inputs.iter().map(|segment| MergeInput { segment: Arc::clone(segment), rows: 0..segment.num_rows() });
    RowOrder::of(inputs.collect(), schema, rollup).unwrap()
}

pub(super) fn opened(bytes: Vec<u8>) -> SegmentFile {
    let segment = SegmentFile::from_bytes("test", bytes).unwrap();
    segment.verify().unwrap();
    segment
}
