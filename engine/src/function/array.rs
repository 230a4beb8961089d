//! What stands for PostgreSQL's ways to make and to ask arrays: `ARRAY(SELECT …)` and `mode()`. Not called by name.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;

/// The list that it is given, or an empty one for null.
pub(crate) const OR_EMPTY: &str = "henge_or_empty";
/// Of a sorted list, the item that it has most often; of several, the first.
pub(crate) const MOST_FREQUENT: &str = "henge_most_frequent";

pub(super) fn all() -> [ScalarUDF; 2] {
    let function = |name, kind| {
        ScalarUDF::new_from_impl(OfList { name, kind, signature: Signature::any(1, Volatility::Immutable) })
    };
    [function(OR_EMPTY, Kind::OrEmpty), function(MOST_FREQUENT, Kind::MostFrequent)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    OrEmpty,
    MostFrequent,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfList {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for OfList {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match (self.kind, &arg_types[0]) {
            (Kind::OrEmpty, list) => Ok(list.clone()),
            (Kind::MostFrequent, list) => Ok(item_of(list)?.data_type().clone()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let answer = |lists: &ArrayRef| -> Result<ArrayRef> {
            item_of(lists.data_type())?;
            match self.kind {
                Kind::OrEmpty => or_empty(lists.as_list::<i32>()),
                Kind::MostFrequent => most_frequent(lists.as_list::<i32>()),
            }
        };
        Ok(match &args.args[0] {
            ColumnarValue::Array(lists) => ColumnarValue::Array(answer(lists)?),
            ColumnarValue::Scalar(list) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&answer(&list.to_array()?)?, 0)?)
            }
        })
    }
}

fn item_of(list: &DataType) -> Result<&FieldRef> {
    match list {
        DataType::List(item) => Ok(item),
        other => Err(Error::defensive(format!("a list was expected, not {other}")).into()),
    }
}

fn or_empty(lists: &ListArray) -> Result<ArrayRef> {
    if lists.null_count() == 0 {
        return Ok(Arc::new(lists.clone()));
    }
    let mut items = Vec::new();
    let mut lengths = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let (start, end) = (lists.value_offsets()[row] as u32, lists.value_offsets()[row + 1] as u32);
        let range = if lists.is_valid(row) { start..end } else { 0..0 };
        lengths.push(range.len());
        items.extend(range);
    }
    let values = take(lists.values(), &UInt32Array::from(items), None)?;
    let item = Arc::clone(item_of(lists.data_type())?);
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, None)?))
}

fn most_frequent(lists: &ListArray) -> Result<ArrayRef> {
    let items = lists.values();
    let keys = RowConverter::new(vec![SortField::new(items.data_type().clone())])?;
    let keys = keys.convert_columns(&[Arc::clone(items)])?;
    let chosen = (0..lists.len()).map(|row| {
        let (start, end) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
        let (mut best, mut begun) = (None, start);
        for at in start..end {
            if keys.row(at) != keys.row(begun) {
                begun = at;
            }
            let length = at + 1 - begun;
            if best.is_none_or(|(most, _)| length > most) {
                best = Some((length, begun));
            }
        }
        best.filter(|_| lists.is_valid(row)).map(|(_, first)| first as u32)
    });
    Ok(take(items, &chosen.collect::<UInt32Array>(), None)?)
}
