//! Rows of a segment as Arrow batches, block by block, for who reads all of it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Schema};

use super::{Column, Number, NumericColumn, Segment};
use crate::error::{Error, Result};

/// The rows of one block in some of a segment's columns. Times are milliseconds.
pub fn read_block(segment: &dyn Segment, columns: &[usize], block: usize) -> Result<RecordBatch> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for &index in columns {
        let Some(schema) = segment.schema().column(index) else {
            return Err(Error::defensive(format!("there is no column {index}")));
        };
        let array = segment.column(index).and_then(|column| read(&column, block));
        let array = array.map_err(|error| {
            let is_located = error.contexts().any(|(key, _)| key == "column");
            if is_located { error } else { error.context("column", &schema.name) }
        })?;
        fields.push(Field::new(&schema.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|error| Error::corrupt("columns of a segment have blocks of different lengths").with_source(error))
}

fn read(column: &Column, block: usize) -> Result<ArrayRef> {
    match column {
        Column::Long(column) => {
            let (values, nulls) = numbers(column.as_ref(), block)?;
            Ok(Arc::new(Int64Array::new(values, nulls)))
        }
        Column::Float(column) => {
            let (values, nulls) = numbers(column.as_ref(), block)?;
            Ok(Arc::new(Float32Array::new(values, nulls)))
        }
        Column::Double(column) => {
            let (values, nulls) = numbers(column.as_ref(), block)?;
            Ok(Arc::new(Float64Array::new(values, nulls)))
        }
        Column::String(column) => {
            let mut codes = Vec::new();
            column.read_codes(block, &mut codes)?;
            Ok(Arc::new(column.dictionary().values_of(&codes)?))
        }
        Column::MultiString(column) => {
            let (mut offsets, mut codes) = (Vec::new(), Vec::new());
            column.read_codes(block, &mut offsets, &mut codes)?;
            let values = column.dictionary().values_of(&codes)?;
            let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            let lengths = offsets.windows(2).map(|ends| (ends[1] - ends[0]) as usize);
            Ok(Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(values), None)))
        }
    }
}

fn numbers<T>(column: &dyn NumericColumn<T>, block: usize) -> Result<(ScalarBuffer<T>, Option<NullBuffer>)>
where
    T: Number + arrow::datatypes::ArrowNativeType,
{
    let mut values = Vec::new();
    let valid = column.read(block, &mut values)?;
    Ok((values.into(), valid.map(NullBuffer::new)))
}
