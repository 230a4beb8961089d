//! Tests of the reader. `encode` and `builder` are test encoders written from the specification; `genuine` has segments
//! that Druid wrote.

#[path = "../../../../tests/druid_builder/builder.rs"]
pub(crate) mod builder;
mod columns;
mod corpora;
mod damage;
#[path = "../../../../tests/druid_builder/encode.rs"]
mod encode;
pub(crate) mod genuine;
mod round_trip;
mod zips;

use serde_json::{Map, Value};

use super::DruidSegment;
use crate::error::Result;
use crate::segment::{BLOCK_ROWS, Column, Segment};

/// All values of a column as JSON: a text that is not JSON already, a number, a list, null.
pub(crate) fn values_of(column: &Column, num_rows: usize) -> Result<Vec<Value>> {
    let mut out = Vec::with_capacity(num_rows);
    for block in 0..num_rows.div_ceil(BLOCK_ROWS) {
        match column {
            Column::Long(column) => numbers(column.as_ref(), block, &mut out)?,
            Column::Float(column) => numbers(column.as_ref(), block, &mut out)?,
            Column::Double(column) => numbers(column.as_ref(), block, &mut out)?,
            Column::String(column) => {
                let mut codes = Vec::new();
                column.read_codes(block, &mut codes)?;
                let values = column.dictionary().values_of(&codes)?;
                out.extend(values.iter().map(Value::from));
            }
            Column::MultiString(column) => {
                let (mut offsets, mut codes) = (Vec::new(), Vec::new());
                column.read_codes(block, &mut offsets, &mut codes)?;
                let values = column.dictionary().values_of(&codes)?;
                for ends in offsets.windows(2) {
                    let row = (ends[0]..ends[1]).map(|at| {
                        let is_null = arrow::array::Array::is_null(&values, at as usize);
                        if is_null { Value::Null } else { Value::from(values.value(at as usize)) }
                    });
                    out.push(Value::Array(row.collect()));
                }
            }
        }
    }
    Ok(out)
}

fn numbers<T: crate::segment::Number + Into<Value>>(
    column: &dyn crate::segment::NumericColumn<T>,
    block: usize,
    out: &mut Vec<Value>,
) -> Result<()> {
    let mut values = Vec::new();
    let valid = column.read(block, &mut values)?;
    let is_valid = |row| valid.as_ref().is_none_or(|valid| valid.value(row));
    out.extend(
        values.into_iter().enumerate().map(|(row, value)| if is_valid(row) { value.into() } else { Value::Null }),
    );
    Ok(())
}

/// The rows of a segment as JSON objects, without the columns that cannot be read, and the errors of those.
fn rows_of(segment: &DruidSegment) -> (Vec<Map<String, Value>>, Vec<String>) {
    let (mut rows, mut errors) = (vec![Map::new(); segment.num_rows()], Vec::new());
    for (index, schema) in segment.schema().columns().iter().enumerate() {
        match segment.column(index).and_then(|column| values_of(&column, segment.num_rows())) {
            Ok(values) => {
                rows.iter_mut().zip(values).for_each(|(row, value)| drop(row.insert(schema.name.clone(), value)));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    (rows, errors)
}
