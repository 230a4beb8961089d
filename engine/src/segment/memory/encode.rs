//! Arrow batches to the columns of a [`MemorySegment`](super::MemorySegment).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, StringViewArray, StringViewBuilder, UInt32Array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, concat, take};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};

use super::MemoryColumn;
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, ColumnType, SegmentSchema};

/// The rows of `batches`, sorted by time, as columns of `schema`.
pub(super) fn columns_of(schema: &SegmentSchema, batches: &[RecordBatch]) -> Result<Vec<MemoryColumn>> {
    let arrays = schema.columns().iter().map(|column| gather(column, batches)).collect::<Result<Vec<_>>>()?;
    let time = arrays[0].as_primitive::<TimestampMillisecondType>();
    if time.null_count() > 0 {
        return Err(Error::invalid_input("`__time` is null or missing in some rows; every row needs a time"));
    }
    let num_rows = u32::try_from(time.len())
        .map_err(|_| Error::invalid_input(format!("{} rows are too many for one segment", time.len())))?;
    let mut order = (0..num_rows).collect::<Vec<_>>();
    order.sort_by_key(|&row| time.value(row as usize));
    let order = UInt32Array::from(order);
    let sorted = arrays.iter().map(|array| take(array.as_ref(), &order, None).map_err(arrow_error));
    let columns = schema.columns().iter().zip(sorted);
    columns.map(|(column, array)| Ok(encode(column, &array?))).collect()
}

/// One column over all batches, in the Arrow type that the column is read as.
fn gather(column: &ColumnSchema, batches: &[RecordBatch]) -> Result<ArrayRef> {
    let wanted = arrow_type(column);
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut parts: Vec<ArrayRef> = vec![new_null_array(&wanted, 0)];
    for batch in batches {
        parts.push(match batch.column_by_name(&column.name) {
            None => new_null_array(&wanted, batch.num_rows()),
            Some(array) => cast_with_options(array, &wanted, &options).map_err(|error| {
                Error::invalid_input(format!("column `{}` cannot be read as {wanted}", column.name)).with_source(error)
            })?,
        });
    }
    concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>()).map_err(arrow_error)
}

fn arrow_type(column: &ColumnSchema) -> DataType {
    match column.column_type {
        ColumnType::String if column.multi_value => {
            DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
        }
        ColumnType::String => DataType::Utf8View,
        ColumnType::Long if column.role == ColumnRole::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
        ColumnType::Long => DataType::Int64,
        ColumnType::Float => DataType::Float32,
        ColumnType::Double => DataType::Float64,
    }
}

fn encode(column: &ColumnSchema, array: &ArrayRef) -> MemoryColumn {
    let validity = array.nulls().map(|nulls| nulls.inner().clone());
    match column.column_type {
        ColumnType::String if column.multi_value => encode_lists(array),
        ColumnType::String => {
            let (values, has_null, codes) = encode_strings(array.as_string_view());
            MemoryColumn::String { values, has_null, sorted: true, codes }
        }
        ColumnType::Long if column.role == ColumnRole::Time => {
            let values = array.as_primitive::<TimestampMillisecondType>().values().to_vec();
            MemoryColumn::Long { values, validity: None }
        }
        ColumnType::Long => {
            MemoryColumn::Long { values: array.as_primitive::<Int64Type>().values().to_vec(), validity }
        }
        ColumnType::Float => {
            MemoryColumn::Float { values: array.as_primitive::<Float32Type>().values().to_vec(), validity }
        }
        ColumnType::Double => {
            MemoryColumn::Double { values: array.as_primitive::<Float64Type>().values().to_vec(), validity }
        }
    }
}

/// A null list is an empty one: a multi-value dimension knows no other nothing.
fn encode_lists(array: &ArrayRef) -> MemoryColumn {
    let lists = array.as_list::<i32>();
    let mut offsets = vec![0];
    let mut rows: Vec<ArrayRef> = vec![new_null_array(&DataType::Utf8View, 0)];
    let mut end = 0;
    for list in lists.iter() {
        if let Some(list) = list {
            end += u32::try_from(list.len()).unwrap_or(u32::MAX);
            rows.push(list);
        }
        offsets.push(end);
    }
    let flat = concat(&rows.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    let flat = flat.unwrap_or_else(|_| new_null_array(&DataType::Utf8View, end as usize));
    let (values, has_null, codes) = encode_strings(flat.as_string_view());
    MemoryColumn::MultiString { values, has_null, sorted: true, offsets, codes }
}

/// A sorted dictionary and the code of every row.
fn encode_strings(array: &StringViewArray) -> (Arc<StringViewArray>, bool, Vec<u32>) {
    let has_null = array.null_count() > 0;
    let mut distinct = array.iter().flatten().collect::<std::collections::HashSet<_>>().into_iter().collect::<Vec<_>>();
    distinct.sort_unstable();
    let first = u32::from(has_null);
    let codes_by_value = distinct.iter().zip(first..).map(|(value, code)| (*value, code)).collect::<HashMap<_, _>>();
    let mut values = StringViewBuilder::with_capacity(distinct.len() + 1);
    if has_null {
        values.append_null();
    }
    distinct.iter().for_each(|value| values.append_value(value));
    let codes = array.iter().map(|value| value.map_or(0, |value| codes_by_value[value])).collect();
    (Arc::new(values.finish()), has_null, codes)
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::runtime_failure("rows could not be put together").with_source(error)
}
