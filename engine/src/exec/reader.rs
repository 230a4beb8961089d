//! Selected rows of a segment's columns, gathered block by block and given out as Arrow arrays. Strings stay codes
//! until then.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, NullBufferBuilder, StringViewArray,
    TimestampMillisecondArray, new_empty_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::Result;

use crate::error::Error;
use crate::model::{ColumnRole, ColumnSchema, ColumnType, SegmentSchema};
use crate::segment::{Column, Dictionary, MultiStringColumn, Number, NumericColumn, Segment, StringColumn};

/// How a column of a data source looks in SQL.
pub fn arrow_field(column: &ColumnSchema) -> Field {
    let data_type = match column.column_type {
        ColumnType::String if column.multi_value => {
            DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
        }
        ColumnType::String => DataType::Utf8View,
        ColumnType::Long if column.role == ColumnRole::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
        ColumnType::Long => DataType::Int64,
        ColumnType::Float => DataType::Float32,
        ColumnType::Double => DataType::Float64,
    };
    Field::new(&column.name, data_type, column.role != ColumnRole::Time)
}

/// A segment's column is of another type than the data source's.
pub(super) fn wrong_type(name: &str) -> Error {
    Error::unsupported(format!(
        "column `{name}` has one type in the data source and another in one of its segments; reingest the older one"
    ))
}

/// Which rows of a block to read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rows<'a> {
    /// All of the block's, which are this many.
    All(usize),
    /// Offsets within the block, ascending.
    Some(&'a [u32]),
}

impl Rows<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::All(len) => *len,
            Self::Some(rows) => rows.len(),
        }
    }
}

/// The rows gathered from one column.
#[derive(Debug)]
pub(super) enum Reader {
    /// The segment lacks the column: so many nulls.
    Missing(usize),
    Strings(StringReader),
    Lists(ListReader),
    Long(NumberReader<i64>),
    Float(NumberReader<f32>),
    Double(NumberReader<f64>),
}

impl Reader {
    /// Opens column `index` of the data source's `columns` in `segment`.
    pub(super) fn open(segment: &dyn Segment, columns: &SegmentSchema, index: usize) -> Result<Self> {
        let Some(wanted) = columns.column(index) else {
            return Err(Error::defensive(format!("a data source has no column {index}")).into());
        };
        let Some(found) = segment.schema().index_of(&wanted.name) else { return Ok(Self::Missing(0)) };
        match (segment.column(found)?, wanted.column_type, wanted.multi_value) {
            (Column::String(column), ColumnType::String, false) => Ok(Self::Strings(StringReader::new(column))),
            (Column::MultiString(column), ColumnType::String, true) => Ok(Self::Lists(ListReader::new(column))),
            (Column::Long(column), ColumnType::Long, _) => Ok(Self::Long(NumberReader::new(column))),
            (Column::Float(column), ColumnType::Float, _) => Ok(Self::Float(NumberReader::new(column))),
            (Column::Double(column), ColumnType::Double, _) => Ok(Self::Double(NumberReader::new(column))),
            _ => Err(wrong_type(&wanted.name).into()),
        }
    }

    /// Appends rows of a block.
    pub(super) fn append(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        match self {
            Self::Missing(len) => *len += rows.len(),
            Self::Strings(reader) => reader.append(block, rows)?,
            Self::Lists(reader) => reader.append(block, rows)?,
            Self::Long(reader) => reader.append(block, rows)?,
            Self::Float(reader) => reader.append(block, rows)?,
            Self::Double(reader) => reader.append(block, rows)?,
        }
        Ok(())
    }

    /// Gives out what was appended, as `field` says, and starts anew.
    pub(super) fn finish(&mut self, field: &Field) -> Result<ArrayRef> {
        Ok(match self {
            Self::Missing(len) => nothing(field, std::mem::take(len))?,
            Self::Strings(reader) => Arc::new(reader.finish()?),
            Self::Lists(reader) => Arc::new(reader.finish(field)?),
            Self::Long(reader) => {
                let (values, nulls) = reader.finish();
                match field.data_type() {
                    DataType::Timestamp(TimeUnit::Millisecond, None) => {
                        Arc::new(TimestampMillisecondArray::new(values, nulls))
                    }
                    _ => Arc::new(Int64Array::new(values, nulls)),
                }
            }
            Self::Float(reader) => {
                let (values, nulls) = reader.finish();
                Arc::new(Float32Array::new(values, nulls))
            }
            Self::Double(reader) => {
                let (values, nulls) = reader.finish();
                Arc::new(Float64Array::new(values, nulls))
            }
        })
    }
}

/// What rows hold in a column that their segment lacks: nulls, but lists are never null, they are empty.
fn nothing(field: &Field, num_rows: usize) -> Result<ArrayRef> {
    let DataType::List(item) = field.data_type() else { return Ok(new_null_array(field.data_type(), num_rows)) };
    let offsets = OffsetBuffer::new_zeroed(num_rows);
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, new_empty_array(item.data_type()), None)?))
}

/// Codes gathered from a string column.
#[derive(Debug)]
pub(super) struct StringReader {
    pub(super) column: Arc<dyn StringColumn>,
    pub(super) codes: Vec<u32>,
    scratch: Vec<u32>,
    values: Values,
}

impl StringReader {
    fn new(column: Arc<dyn StringColumn>) -> Self {
        Self { column, codes: Vec::new(), scratch: Vec::new(), values: Values::default() }
    }

    pub(super) fn append(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        match rows {
            Rows::All(_) if self.codes.is_empty() => self.column.read_codes(block, &mut self.codes)?,
            Rows::All(_) => {
                self.column.read_codes(block, &mut self.scratch)?;
                self.codes.extend_from_slice(&self.scratch);
            }
            Rows::Some(rows) => {
                self.column.read_codes(block, &mut self.scratch)?;
                self.codes.extend(rows.iter().map(|&row| self.scratch[row as usize]));
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<StringViewArray> {
        let strings = self.values.of(self.column.dictionary(), &self.codes)?;
        self.codes.clear();
        Ok(strings)
    }

    /// The same for who drops the strings before the reader: they may lie in the dictionary, however large it is.
    pub(super) fn finish_passing(&mut self) -> Result<StringViewArray> {
        let strings = self.values.shared(self.column.dictionary(), &self.codes)?;
        self.codes.clear();
        Ok(strings)
    }
}

/// Turns codes of one dictionary into strings.
#[derive(Debug, Default)]
pub(super) struct Values {
    asked: usize,
    /// The whole dictionary, once it is worth while.
    decoded: Option<Arc<StringViewArray>>,
}

/// Dictionaries with fewer bytes of text than this are shared by the arrays made from them. Of greater ones an array
/// gets a copy of its own few values: whoever buffers it would otherwise account for, and keep, the whole dictionary.
const SHARED_BYTES: usize = 256 * 1024;

impl Values {
    /// The values of `codes`. A dictionary is decoded whole only once a good part of it was asked for.
    pub(super) fn of(&mut self, dictionary: &dyn Dictionary, codes: &[u32]) -> Result<StringViewArray> {
        let strings = self.shared(dictionary, codes)?;
        let text_bytes: usize = strings.data_buffers().iter().map(|buffer| buffer.len()).sum();
        Ok(if self.decoded.is_some() && text_bytes > SHARED_BYTES { strings.gc() } else { strings })
    }

    /// The same; the text may be the dictionary's.
    fn shared(&mut self, dictionary: &dyn Dictionary, codes: &[u32]) -> Result<StringViewArray> {
        self.asked += codes.len();
        if self.asked < dictionary.cardinality() / 8 {
            return Ok(dictionary.values_of(codes)?);
        }
        let values = match &self.decoded {
            Some(values) => values,
            None => &*self.decoded.insert(dictionary.values()?),
        };
        let views = values.views();
        let gathered = codes.iter().map(|&code| views[code as usize]).collect::<ScalarBuffer<u128>>();
        let nulls = dictionary
            .has_null()
            .then(|| NullBuffer::new(BooleanBuffer::collect_bool(codes.len(), |i| codes[i] != 0)))
            .filter(|nulls| nulls.null_count() > 0);
        // SAFETY: the views come from an array over the same buffers.
        Ok(unsafe { StringViewArray::new_unchecked(gathered, values.data_buffers().to_vec(), nulls) })
    }
}

/// Lists of codes gathered from a multi-value column.
#[derive(Debug)]
pub(super) struct ListReader {
    column: Arc<dyn MultiStringColumn>,
    offsets: Vec<i32>,
    codes: Vec<u32>,
    scratch: (Vec<u32>, Vec<u32>),
    values: Values,
}

impl ListReader {
    fn new(column: Arc<dyn MultiStringColumn>) -> Self {
        let scratch = (Vec::new(), Vec::new());
        Self { column, offsets: vec![0], codes: Vec::new(), scratch, values: Values::default() }
    }

    fn append(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        let (offsets, codes) = &mut self.scratch;
        self.column.read_codes(block, offsets, codes)?;
        let mut append_row = |row: usize| {
            self.codes.extend_from_slice(&codes[offsets[row] as usize..offsets[row + 1] as usize]);
            let end = i32::try_from(self.codes.len());
            self.offsets.push(end.map_err(|_| Error::capacity_exceeded("a batch holds more than 2^31 values"))?);
            Ok::<_, Error>(())
        };
        match rows {
            Rows::All(len) => (0..len).try_for_each(&mut append_row)?,
            Rows::Some(rows) => rows.iter().try_for_each(|&row| append_row(row as usize))?,
        }
        Ok(())
    }

    fn finish(&mut self, field: &Field) -> Result<ListArray> {
        let item: FieldRef = match field.data_type() {
            DataType::List(item) => Arc::clone(item),
            _ => Arc::new(Field::new_list_field(DataType::Utf8View, true)),
        };
        let values = self.values.of(self.column.dictionary(), &self.codes)?;
        self.codes.clear();
        let offsets = OffsetBuffer::new(std::mem::replace(&mut self.offsets, vec![0]).into());
        Ok(ListArray::try_new(item, offsets, Arc::new(values), None)?)
    }
}

/// Values gathered from a numeric column; where a row is null, zero.
#[derive(Debug)]
pub(super) struct NumberReader<T: Number> {
    pub(super) column: Arc<dyn NumericColumn<T>>,
    pub(super) values: Vec<T>,
    nulls: Option<NullBufferBuilder>,
    scratch: Vec<T>,
}

impl<T: Number> NumberReader<T> {
    pub(super) fn new(column: Arc<dyn NumericColumn<T>>) -> Self {
        let nulls = column.has_nulls().then(|| NullBufferBuilder::new(0));
        Self { column, values: Vec::new(), nulls, scratch: Vec::new() }
    }

    pub(super) fn append(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        let validity = match rows {
            Rows::All(_) if self.values.is_empty() => self.column.read(block, &mut self.values)?,
            Rows::All(_) => {
                let validity = self.column.read(block, &mut self.scratch)?;
                self.values.extend_from_slice(&self.scratch);
                validity
            }
            Rows::Some(rows) => {
                let validity = self.column.read(block, &mut self.scratch)?;
                self.values.extend(rows.iter().map(|&row| self.scratch[row as usize]));
                validity
            }
        };
        let Some(nulls) = &mut self.nulls else { return Ok(()) };
        match (validity, rows) {
            (None, rows) => nulls.append_n_non_nulls(rows.len()),
            (Some(validity), Rows::All(_)) => nulls.append_buffer(&NullBuffer::new(validity)),
            (Some(validity), Rows::Some(rows)) => {
                rows.iter().for_each(|&row| nulls.append(validity.value(row as usize)))
            }
        }
        Ok(())
    }

    /// Which of the gathered rows are valid, `None` if all; then starts anew, but for the values, which stay until
    /// [`NumberReader::clear`].
    pub(super) fn take_validity(&mut self) -> Option<NullBuffer> {
        self.nulls.as_mut().and_then(NullBufferBuilder::finish).filter(|nulls| nulls.null_count() > 0)
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
    }

    fn finish(&mut self) -> (ScalarBuffer<T>, Option<NullBuffer>)
    where
        T: arrow::datatypes::ArrowNativeType,
    {
        let nulls = self.take_validity();
        (std::mem::take(&mut self.values).into(), nulls)
    }
}
