use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, ListArray, RecordBatch, StringViewArray,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::memory::MemorySegment;
use super::{BLOCK_ROWS, Column, MultiStringColumn, Number, NumericColumn, Segment, StringColumn};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, ColumnType, SegmentSchema, TIME_COLUMN, Timestamp};

/// A segment with some columns turned into the types that its data source has: older segments of a data source whose
/// LONG became a DOUBLE or a STRING, or whose single values became lists.
///
/// A turned column is made when first read, as SQL's `CAST` would, and kept: it costs the memory of its values.
#[derive(Debug)]
pub struct PromotedSegment {
    segment: Arc<dyn Segment>,
    schema: Arc<SegmentSchema>,
    /// By index in `schema`: the index in `segment`, and the column if it is turned.
    columns: Vec<(usize, Option<OnceLock<Arc<MemorySegment>>>)>,
}

impl PromotedSegment {
    /// Whether every column that both have is of the same type in both.
    pub fn fits(segment: &Arc<SegmentSchema>, data_source: &Arc<SegmentSchema>) -> bool {
        Arc::ptr_eq(segment, data_source)
            || segment.columns().iter().all(|column| {
                let wanted = data_source.index_of(&column.name).and_then(|index| data_source.column(index));
                wanted.is_none_or(|wanted| is_same_type(column, wanted))
            })
    }

    /// Turns the columns of `segment` into those of `data_source`. Columns that the data source lacks are left out.
    pub fn new(segment: Arc<dyn Segment>, data_source: &SegmentSchema) -> Result<Self> {
        let mut shown = Vec::new();
        let mut columns = vec![(0, None)];
        for wanted in &data_source.columns()[1..] {
            let Some(index) = segment.schema().index_of(&wanted.name) else { continue };
            let present = &segment.schema().columns()[index];
            // Event times belong to a metric that the segment may combine otherwise; queries do not see them.
            if wanted.role == ColumnRole::EventTime {
                continue;
            }
            let role = if wanted.role == ColumnRole::Dimension { ColumnRole::Dimension } else { PLAIN_METRIC };
            shown.push(ColumnSchema { role, ..wanted.clone() });
            columns.push((index, (!is_same_type(present, wanted)).then(OnceLock::new)));
        }
        Ok(Self { schema: Arc::new(SegmentSchema::new(shown)?), segment, columns })
    }

    fn turned(&self, index: usize, from: usize) -> Result<MemorySegment> {
        let wanted = &self.schema.columns()[index];
        let mut values = read(&self.segment.column(from)?, self.segment.num_rows())?;
        if wanted.column_type == ColumnType::String && !matches!(values.data_type(), DataType::List(_)) {
            values = cast(&values, &DataType::Utf8View).map_err(cannot_turn)?;
        }
        if wanted.multi_value {
            values = Arc::new(lists(&values));
        }
        let times = TimestampMillisecondArray::from(vec![0; self.segment.num_rows()]);
        let schema = Schema::new(vec![
            Field::new(TIME_COLUMN, DataType::Timestamp(TimeUnit::Millisecond, None), false),
            Field::new(&wanted.name, values.data_type().clone(), true),
        ]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times), values]).map_err(cannot_turn)?;
        let schema = Arc::new(SegmentSchema::new([wanted.clone()])?);
        MemorySegment::from_batches(schema, &[batch])
    }
}

const PLAIN_METRIC: ColumnRole = ColumnRole::Metric(crate::model::MetricCombine::Sum);

fn is_same_type(a: &ColumnSchema, b: &ColumnSchema) -> bool {
    (a.column_type, a.multi_value) == (b.column_type, b.multi_value)
}

fn cannot_turn(error: arrow::error::ArrowError) -> Error {
    Error::runtime_failure("a column cannot be turned into its data source's type").with_source(error)
}

impl Segment for PromotedSegment {
    fn schema(&self) -> &Arc<SegmentSchema> {
        &self.schema
    }

    fn num_rows(&self) -> usize {
        self.segment.num_rows()
    }

    fn is_final(&self) -> bool {
        self.segment.is_final()
    }

    fn time_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.segment.time_range()
    }

    fn column(&self, index: usize) -> Result<Column> {
        let Some((from, turned)) = self.columns.get(index) else {
            return Err(Error::defensive(format!("there is no column {index}")));
        };
        let Some(slot) = turned else { return self.segment.column(*from) };
        let kept = match slot.get() {
            Some(kept) => kept,
            None => {
                let turned = Arc::new(self.turned(index, *from)?);
                slot.get_or_init(|| turned)
            }
        };
        kept.column(1)
    }

    fn is_passing(&self) -> bool {
        self.segment.is_passing()
    }

    fn kept_by(&self) -> Option<&str> {
        self.segment.kept_by()
    }

    fn memory_bytes(&self) -> usize {
        let turned = self.columns.iter().filter_map(|(_, slot)| slot.as_ref()?.get());
        self.segment.memory_bytes() + turned.map(|segment| segment.memory_bytes()).sum::<usize>()
    }
}

/// All values of a column.
fn read(column: &Column, num_rows: usize) -> Result<ArrayRef> {
    match column {
        Column::String(column) => strings(column.as_ref(), num_rows),
        Column::MultiString(column) => multi_strings(column.as_ref(), num_rows),
        Column::Long(column) => {
            numbers(column.as_ref(), num_rows, |v, n| Arc::new(Int64Array::new(ScalarBuffer::from(v), n)))
        }
        Column::Float(column) => {
            numbers(column.as_ref(), num_rows, |v, n| Arc::new(Float32Array::new(ScalarBuffer::from(v), n)))
        }
        Column::Double(column) => {
            numbers(column.as_ref(), num_rows, |v, n| Arc::new(Float64Array::new(ScalarBuffer::from(v), n)))
        }
    }
}

fn blocks(num_rows: usize) -> std::ops::Range<usize> {
    0..num_rows.div_ceil(BLOCK_ROWS)
}

fn numbers<T: Number>(
    column: &dyn NumericColumn<T>,
    num_rows: usize,
    array: fn(Vec<T>, Option<NullBuffer>) -> ArrayRef,
) -> Result<ArrayRef> {
    let mut parts = Vec::new();
    for block in blocks(num_rows) {
        let mut values = Vec::new();
        let validity = column.read(block, &mut values)?;
        parts.push(array(values, validity.map(|valid: BooleanBuffer| NullBuffer::new(valid))));
    }
    if parts.is_empty() {
        return Ok(array(Vec::new(), None));
    }
    concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>()).map_err(cannot_turn)
}

fn strings(column: &dyn StringColumn, num_rows: usize) -> Result<ArrayRef> {
    let (mut codes, mut block_codes) = (Vec::with_capacity(num_rows), Vec::new());
    for block in blocks(num_rows) {
        column.read_codes(block, &mut block_codes)?;
        codes.extend_from_slice(&block_codes);
    }
    take(column.dictionary().values()?.as_ref(), &UInt32Array::from(codes), None).map_err(cannot_turn)
}

fn multi_strings(column: &dyn MultiStringColumn, num_rows: usize) -> Result<ArrayRef> {
    let (mut lengths, mut codes) = (Vec::with_capacity(num_rows), Vec::new());
    let (mut block_offsets, mut block_codes) = (Vec::new(), Vec::new());
    for block in blocks(num_rows) {
        column.read_codes(block, &mut block_offsets, &mut block_codes)?;
        lengths.extend(block_offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize));
        codes.extend_from_slice(&block_codes);
    }
    let values = take(column.dictionary().values()?.as_ref(), &UInt32Array::from(codes), None).map_err(cannot_turn)?;
    let field = Arc::new(Field::new_list_field(DataType::Utf8View, true));
    Ok(Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, None)))
}

/// Each value as a list of one, a null as the empty list.
fn lists(values: &ArrayRef) -> ListArray {
    if let Some(lists) = values.as_list_opt::<i32>() {
        return lists.clone();
    }
    let field = Arc::new(Field::new_list_field(DataType::Utf8View, true));
    let items: StringViewArray = values.as_string_view().iter().flatten().map(Some).collect();
    let lengths = (0..values.len()).map(|row| usize::from(values.is_valid(row)));
    ListArray::new(field, OffsetBuffer::from_lengths(lengths), Arc::new(items), None)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Builder;

    use super::*;

    fn segment() -> Arc<dyn Segment> {
        let rows = BLOCK_ROWS as i64 + 10;
        let times = TimestampMillisecondArray::from_iter_values(0..rows);
        let mut numbers = Int64Builder::new();
        (0..rows).for_each(|row| numbers.append_option((row % 3 > 0).then_some(row % 3)));
        let strings: StringViewArray = (0..rows).map(|row| (row % 2 > 0).then_some("x")).collect();
        let schema = Schema::new(vec![
            Field::new(TIME_COLUMN, times.data_type().clone(), false),
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Utf8View, true),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(numbers.finish()), Arc::new(strings)];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        let columns =
            [ColumnSchema::dimension("n", ColumnType::Long), ColumnSchema::dimension("s", ColumnType::String)];
        let schema = Arc::new(SegmentSchema::new(columns).unwrap());
        Arc::new(MemorySegment::from_batches(schema, &[batch]).unwrap())
    }

    fn promoted(columns: Vec<ColumnSchema>) -> PromotedSegment {
        PromotedSegment::new(segment(), &SegmentSchema::new(columns).unwrap()).unwrap()
    }

    #[test]
    fn numbers_become_doubles_and_strings_and_the_rest_stays() -> Result<()> {
        let string = ColumnSchema::dimension("s", ColumnType::String);
        let doubles = promoted(vec![string.clone(), ColumnSchema::dimension("n", ColumnType::Double)]);
        assert_eq!(doubles.schema().index_of("n"), Some(2));
        let (Column::String(_), Column::Double(column)) = (doubles.column(1)?, doubles.column(2)?) else {
            panic!("other types")
        };
        let mut values = Vec::new();
        let valid = column.read(1, &mut values)?.expect("has nulls");
        assert_eq!((values[0], valid.value(0), valid.value(1)), (2.0, true, false));

        let texts = promoted(vec![ColumnSchema::dimension("n", ColumnType::String)]);
        let Column::String(column) = texts.column(1)? else { panic!("another type") };
        assert_eq!((column.dictionary().cardinality(), column.dictionary().has_null()), (3, true));
        assert!(column.dictionary().code_of("2")?.is_some());
        Ok(())
    }

    #[test]
    fn single_values_become_lists_and_nulls_empty_ones() -> Result<()> {
        let lists = promoted(vec![ColumnSchema::multi_value_dimension("s"), ColumnSchema::multi_value_dimension("n")]);
        let Column::MultiString(column) = lists.column(1)? else { panic!("another type") };
        let (mut offsets, mut codes) = (Vec::new(), Vec::new());
        column.read_codes(1, &mut offsets, &mut codes)?;
        assert_eq!(offsets, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]);
        assert!(matches!(lists.column(2)?, Column::MultiString(_)));
        Ok(())
    }

    #[test]
    fn equal_types_fit() {
        let segment = segment();
        assert!(PromotedSegment::fits(segment.schema(), segment.schema()));
        let other = SegmentSchema::new([ColumnSchema::dimension("n", ColumnType::String)]).unwrap();
        assert!(!PromotedSegment::fits(segment.schema(), &Arc::new(other)));
    }
}
