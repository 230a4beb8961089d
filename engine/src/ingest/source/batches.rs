//! Arrow batches in memory as input.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, GenericListArray, OffsetSizeTrait, RecordBatch, RecordBatchReader,
    StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};

use crate::error::{Error, Result};
use crate::ingest::row::{Row, Slot, Span};

/// A column of a batch, made ready to be read row by row.
#[derive(Debug)]
pub(in crate::ingest) enum Cells {
    Null,
    Bool(ArrayRef),
    Long(ArrayRef),
    Double(ArrayRef),
    Time(ArrayRef),
    Text(StringViewArray),
    /// Offsets into the items.
    List {
        lists: ArrayRef,
        offsets: Vec<usize>,
        items: Box<Cells>,
    },
}

/// The columns of a batch. Fails with a type that has no place in a segment, by column.
pub(in crate::ingest) fn cells_of(batch: &RecordBatch) -> Result<Vec<Cells>> {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields());
    columns.map(|(column, field)| cells(column).map_err(|e| e.context("column", field.name()))).collect()
}

fn cells(column: &ArrayRef) -> Result<Cells> {
    let as_type = |data_type: &DataType| {
        cast(column, data_type).map_err(|e| Error::invalid_input("values cannot be read").with_source(e))
    };
    Ok(match column.data_type() {
        DataType::Null => Cells::Null,
        DataType::Boolean => Cells::Bool(ArrayRef::clone(column)),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Cells::Long(as_type(&DataType::Int64)?),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Cells::Long(as_type(&DataType::Int64)?),
        DataType::UInt64 | DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            Cells::Double(as_type(&DataType::Float64)?)
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Cells::Double(as_type(&DataType::Float64)?)
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            Cells::Time(as_type(&DataType::Timestamp(TimeUnit::Millisecond, None))?)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = as_type(&DataType::Binary)?;
            let bytes: &BinaryArray = bytes.as_binary();
            Cells::Text(bytes.iter().map(|bytes| bytes.map(String::from_utf8_lossy)).collect())
        }
        DataType::List(_) => list::<i32>(column)?,
        DataType::LargeList(_) => list::<i64>(column)?,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            Cells::Text(as_type(&DataType::Utf8View)?.as_string_view().clone())
        }
        other => return Err(Error::unsupported(format!("values of type {other} cannot be ingested"))),
    })
}

fn list<O: OffsetSizeTrait>(column: &ArrayRef) -> Result<Cells> {
    let lists: &GenericListArray<O> = column.as_list();
    let items = cells(lists.values())?;
    let offsets = lists.value_offsets().iter().map(|offset| offset.as_usize()).collect();
    Ok(Cells::List { lists: ArrayRef::clone(column), offsets, items: Box::new(items) })
}

impl Cells {
    /// The value of a row, text kept in the row's scratch.
    pub(in crate::ingest) fn read(&self, at: usize, row: &mut Row) -> Slot {
        match self {
            Self::Null => Slot::Null,
            Self::Bool(array) if array.is_valid(at) => Slot::Bool(array.as_boolean().value(at)),
            Self::Long(array) if array.is_valid(at) => Slot::Long(array.as_primitive::<Int64Type>().value(at)),
            Self::Double(array) if array.is_valid(at) => Slot::Double(array.as_primitive::<Float64Type>().value(at)),
            Self::Time(array) if array.is_valid(at) => {
                Slot::Long(array.as_primitive::<TimestampMillisecondType>().value(at))
            }
            Self::Text(array) if array.is_valid(at) => row.keep(array.value(at)),
            Self::List { lists, offsets, items } if lists.is_valid(at) => {
                let slots = (offsets[at]..offsets[at + 1]).map(|item| items.read(item, row)).collect::<Vec<_>>();
                let start = row.items.len();
                row.items.extend(slots);
                Slot::List(Span { start, end: row.items.len() })
            }
            _ => Slot::Null,
        }
    }

    /// Whether these are times, which have their unit in their type whatever a spec says.
    pub(in crate::ingest) fn is_time(&self) -> bool {
        matches!(self, Self::Time(_))
    }
}

/// Batches of a reader, its errors as ours.
pub fn from_reader(reader: impl RecordBatchReader + Send) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    reader.map(|batch| batch.map_err(|e| Error::runtime_failure("a batch cannot be read").with_source(e)))
}
