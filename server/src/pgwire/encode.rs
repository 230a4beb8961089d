//! Arrow batches to PostgreSQL's rows, a batch at a time.
//!
//! Owns the text and the binary form of every type. Columns are downcast once per batch; the loop over rows then only
//! dispatches on an enum. Invariant: what is described is what is sent: both come from [`Columns::new`].

mod array;
mod binary;
mod format;
mod number;
mod temporal;
mod text;

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Schema,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use bytes::{BufMut, BytesMut};
use henge_engine::session::output_label;
use henge_engine::{Error, Result};

use crate::pg_catalog::{PgType, function_name};

pub(crate) use format::{Format, formats};
pub(crate) use temporal::{Zone, days_from_pg, micros_from_pg};

/// The columns of one result: names, types and the form in which they are sent.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    zone: Zone,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    pg_type: PgType,
    format: Format,
}

impl Columns {
    /// Columns of `schema`, all in text; [`Columns::with_formats`] changes that.
    pub(crate) fn new(schema: &Schema, zone: Zone) -> Self {
        let column = |field: &std::sync::Arc<Field>| Column {
            name: output_label(field).to_string(),
            pg_type: PgType::of(field),
            format: Format::Text,
        };
        Self { columns: schema.fields().iter().map(column).collect(), zone }
    }

    pub(crate) fn with_formats(mut self, codes: &[i16]) -> Result<Self> {
        let formats = formats(codes, self.columns.len())?;
        for (column, format) in self.columns.iter_mut().zip(formats) {
            column.format = format;
        }
        Ok(self)
    }

    /// Says of some columns that they are `integer`: all their values are known to fit.
    pub(crate) fn with_integers(mut self, integers: &[bool]) -> Self {
        for (column, _) in self.columns.iter_mut().zip(integers).filter(|(_, is_integer)| **is_integer) {
            column.pg_type = PgType::of_data_type(&DataType::Int32);
        }
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Writes the RowDescription message.
    pub(crate) fn put_description(&self, out: &mut BytesMut) {
        let start = begin_message(out, b'T');
        out.put_i16(self.columns.len() as i16);
        for column in &self.columns {
            put_cstring(out, &column.name);
            out.put_u32(0);
            out.put_i16(0);
            out.put_u32(column.pg_type.oid);
            out.put_i16(column.pg_type.size);
            out.put_i32(column.pg_type.modifier);
            out.put_i16(i16::from(column.format == Format::Binary));
        }
        end_message(out, start);
    }

    /// Writes `rows` of `batch` as DataRow messages.
    pub(crate) fn put_rows(&self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        self.put_tuples(batch, rows, b'D', out)
    }

    /// Writes `rows` of `batch` as messages of type `kind` whose body is a DataRow's.
    pub(crate) fn put_tuples(
        &self,
        batch: &RecordBatch,
        rows: Range<usize>,
        kind: u8,
        out: &mut BytesMut,
    ) -> Result<()> {
        let values: Vec<Values<'_>> = batch.columns().iter().map(|array| Values::of(array)).collect::<Result<_>>()?;
        let reserve = 7 + self.columns.len() * 12;
        for row in rows {
            out.reserve(reserve);
            let start = begin_message(out, kind);
            out.put_i16(self.columns.len() as i16);
            for (column, values) in self.columns.iter().zip(&values) {
                self.put_field(column, values, row, out)?;
            }
            end_message(out, start);
        }
        Ok(())
    }

    fn put_field(&self, column: &Column, values: &Values<'_>, row: usize, out: &mut BytesMut) -> Result<()> {
        if values.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        match column.format {
            Format::Text => match (column.pg_type.oid, values) {
                (REGPROC, Values::Int64(array)) => put_routine(array.value(row), out),
                _ => text::put(values, row, &self.zone, out)?,
            },
            Format::Binary => binary::put(values, row, column.pg_type.oid, out)?,
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Writes one value as text without a length; false when it is null. For COPY.
    pub(crate) fn put_text(&self, values: &Values<'_>, row: usize, out: &mut BytesMut) -> Result<bool> {
        if values.is_null(row) {
            return Ok(false);
        }
        text::put(values, row, &self.zone, out)?;
        Ok(true)
    }
}

/// Sent as a number in binary, and as what it is called in text.
const REGPROC: u32 = 24;

fn put_routine(oid: i64, out: &mut BytesMut) {
    match function_name(oid) {
        Some(name) => out.put_slice(name.as_bytes()),
        None => out.put_slice(oid.to_string().as_bytes()),
    }
}

/// Writes one value, which is not null, as text.
pub(crate) fn put_value(values: &Values<'_>, row: usize, zone: &Zone, out: &mut BytesMut) -> Result<()> {
    text::put(values, row, zone, out)
}

/// Starts a message whose length is not known yet.
pub(crate) fn begin_message(out: &mut BytesMut, kind: u8) -> usize {
    out.put_u8(kind);
    let start = out.len();
    out.put_i32(0);
    start
}

/// Fills in the length left open by [`begin_message`].
pub(crate) fn end_message(out: &mut BytesMut, start: usize) {
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(crate) fn put_cstring(out: &mut BytesMut, text: &str) {
    // A NUL would end the string early on the other side.
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.put_u8(0);
}

const DAY_MICROS: i64 = 86_400_000_000;

/// One column of a batch, downcast once. Instants are microseconds.
pub(crate) enum Values<'a> {
    Null,
    Bool(&'a arrow::array::BooleanArray),
    Int8(&'a arrow::array::Int8Array),
    Int16(&'a arrow::array::Int16Array),
    Int32(&'a arrow::array::Int32Array),
    Int64(&'a arrow::array::Int64Array),
    UInt8(&'a arrow::array::UInt8Array),
    UInt16(&'a arrow::array::UInt16Array),
    UInt32(&'a arrow::array::UInt32Array),
    UInt64(&'a arrow::array::UInt64Array),
    Float32(&'a arrow::array::Float32Array),
    Float64(&'a arrow::array::Float64Array),
    Decimal128(&'a arrow::array::Decimal128Array, i8),
    Decimal256(&'a arrow::array::Decimal256Array, i8),
    Utf8(&'a arrow::array::StringArray),
    LargeUtf8(&'a arrow::array::LargeStringArray),
    Utf8View(&'a arrow::array::StringViewArray),
    Binary(&'a arrow::array::BinaryArray),
    LargeBinary(&'a arrow::array::LargeBinaryArray),
    BinaryView(&'a arrow::array::BinaryViewArray),
    FixedBinary(&'a arrow::array::FixedSizeBinaryArray),
    /// Days since 1970.
    Date(&'a arrow::array::Date32Array),
    Date64(&'a arrow::array::Date64Array),
    Time(Scaled<'a>),
    Timestamp(Scaled<'a>, bool),
    Interval(Spans<'a>),
    List(&'a dyn Array, Box<ListItems<'a>>),
    /// Converted for this batch.
    Owned(ArrayRef),
}

/// An array of whole numbers in some unit, read as microseconds.
pub(crate) struct Scaled<'a> {
    numbers: Numbers<'a>,
    unit: TimeUnit,
}

enum Numbers<'a> {
    Narrow(&'a [i32], &'a dyn Array),
    Wide(&'a [i64], &'a dyn Array),
}

impl Scaled<'_> {
    fn micros(&self, row: usize) -> i64 {
        let number = match &self.numbers {
            Numbers::Narrow(values, _) => i64::from(values[row]),
            Numbers::Wide(values, _) => values[row],
        };
        match self.unit {
            TimeUnit::Second => number.saturating_mul(1_000_000),
            TimeUnit::Millisecond => number.saturating_mul(1_000),
            TimeUnit::Microsecond => number,
            TimeUnit::Nanosecond => number.div_euclid(1_000),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match &self.numbers {
            Numbers::Narrow(_, array) | Numbers::Wide(_, array) => array.is_null(row),
        }
    }
}

/// Arrow's kinds of intervals and durations.
pub(crate) enum Spans<'a> {
    YearMonth(&'a arrow::array::IntervalYearMonthArray),
    DayTime(&'a arrow::array::IntervalDayTimeArray),
    MonthDayNano(&'a arrow::array::IntervalMonthDayNanoArray),
    Duration(Scaled<'a>),
}

/// A PostgreSQL interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) micros: i64,
}

impl Spans<'_> {
    fn get(&self, row: usize) -> Span {
        match self {
            Spans::YearMonth(array) => Span { months: array.value(row), days: 0, micros: 0 },
            Spans::DayTime(array) => {
                let value = array.value(row);
                Span { months: 0, days: value.days, micros: i64::from(value.milliseconds) * 1_000 }
            }
            Spans::MonthDayNano(array) => {
                let value = array.value(row);
                Span { months: value.months, days: value.days, micros: value.nanoseconds / 1_000 }
            }
            // A difference of two times, which PostgreSQL gives in days and hours.
            Spans::Duration(scaled) => {
                let micros = scaled.micros(row);
                Span { months: 0, days: (micros / DAY_MICROS) as i32, micros: micros % DAY_MICROS }
            }
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Spans::YearMonth(array) => array.is_null(row),
            Spans::DayTime(array) => array.is_null(row),
            Spans::MonthDayNano(array) => array.is_null(row),
            Spans::Duration(scaled) => scaled.is_null(row),
        }
    }
}

/// The items of a list column, and where each list begins and ends among them.
pub(crate) struct ListItems<'a> {
    pub(crate) values: Values<'a>,
    pub(crate) element: PgType,
    bounds: Bounds<'a>,
}

enum Bounds<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
    Fixed(usize),
}

impl ListItems<'_> {
    pub(crate) fn range(&self, row: usize) -> Range<usize> {
        match self.bounds {
            Bounds::Small(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Bounds::Large(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Bounds::Fixed(size) => row * size..(row + 1) * size,
        }
    }
}

impl<'a> Values<'a> {
    /// Downcasts a column. What no case knows is cast to text.
    pub(crate) fn of(array: &'a dyn Array) -> Result<Values<'a>> {
        Ok(match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Int8 => Values::Int8(array.as_primitive::<Int8Type>()),
            DataType::Int16 => Values::Int16(array.as_primitive::<Int16Type>()),
            DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>()),
            DataType::UInt8 => Values::UInt8(array.as_primitive::<UInt8Type>()),
            DataType::UInt16 => Values::UInt16(array.as_primitive::<UInt16Type>()),
            DataType::UInt32 => Values::UInt32(array.as_primitive::<UInt32Type>()),
            DataType::UInt64 => Values::UInt64(array.as_primitive::<UInt64Type>()),
            DataType::Float32 => Values::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>()),
            DataType::Decimal128(_, scale) => Values::Decimal128(array.as_primitive::<Decimal128Type>(), *scale),
            DataType::Decimal256(_, scale) => Values::Decimal256(array.as_primitive::<Decimal256Type>(), *scale),
            DataType::Utf8 => Values::Utf8(array.as_string::<i32>()),
            DataType::LargeUtf8 => Values::LargeUtf8(array.as_string::<i64>()),
            DataType::Utf8View => Values::Utf8View(array.as_string_view()),
            DataType::Binary => Values::Binary(array.as_binary::<i32>()),
            DataType::LargeBinary => Values::LargeBinary(array.as_binary::<i64>()),
            DataType::BinaryView => Values::BinaryView(array.as_binary_view()),
            DataType::FixedSizeBinary(_) => Values::FixedBinary(array.as_fixed_size_binary()),
            DataType::Date32 => Values::Date(array.as_primitive::<Date32Type>()),
            DataType::Date64 => Values::Date64(array.as_primitive::<Date64Type>()),
            DataType::Time32(_) | DataType::Time64(_) => Values::Time(Scaled::of(array)?),
            DataType::Timestamp(_, zone) => Values::Timestamp(Scaled::of(array)?, zone.is_some()),
            DataType::Interval(_) | DataType::Duration(_) => Values::Interval(Spans::of(array)?),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
                Values::List(array, Box::new(ListItems::of(array)?))
            }
            other => Values::Owned(converted(array, other)?),
        })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match self {
            Values::Null => true,
            Values::Bool(array) => array.is_null(row),
            Values::Int8(array) => array.is_null(row),
            Values::Int16(array) => array.is_null(row),
            Values::Int32(array) => array.is_null(row),
            Values::Int64(array) => array.is_null(row),
            Values::UInt8(array) => array.is_null(row),
            Values::UInt16(array) => array.is_null(row),
            Values::UInt32(array) => array.is_null(row),
            Values::UInt64(array) => array.is_null(row),
            Values::Float32(array) => array.is_null(row),
            Values::Float64(array) => array.is_null(row),
            Values::Decimal128(array, _) => array.is_null(row),
            Values::Decimal256(array, _) => array.is_null(row),
            Values::Utf8(array) => array.is_null(row),
            Values::LargeUtf8(array) => array.is_null(row),
            Values::Utf8View(array) => array.is_null(row),
            Values::Binary(array) => array.is_null(row),
            Values::LargeBinary(array) => array.is_null(row),
            Values::BinaryView(array) => array.is_null(row),
            Values::FixedBinary(array) => array.is_null(row),
            Values::Date(array) => array.is_null(row),
            Values::Date64(array) => array.is_null(row),
            Values::Time(scaled) | Values::Timestamp(scaled, _) => scaled.is_null(row),
            Values::Interval(spans) => spans.is_null(row),
            Values::List(array, _) => array.is_null(row),
            Values::Owned(array) => array.is_null(row),
        }
    }
}

/// Values of types without a PostgreSQL form of their own: dictionaries unpacked, small decimals widened, half floats
/// widened, all else as text.
fn converted(array: &dyn Array, data_type: &DataType) -> Result<ArrayRef> {
    let target = match data_type {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Float16 => DataType::Float32,
        _ => DataType::Utf8,
    };
    arrow::compute::cast(array, &target).map_err(|error| {
        Error::unsupported(format!("a value of type {data_type} cannot be sent to a client; cast it to text"))
            .with_source(error)
    })
}

impl<'a> Scaled<'a> {
    fn of(array: &'a dyn Array) -> Result<Self> {
        macro_rules! wide {
            ($kind:ty, $unit:expr) => {
                Self { numbers: Numbers::Wide(array.as_primitive::<$kind>().values(), array), unit: $unit }
            };
        }
        macro_rules! narrow {
            ($kind:ty, $unit:expr) => {
                Self { numbers: Numbers::Narrow(array.as_primitive::<$kind>().values(), array), unit: $unit }
            };
        }
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        Ok(match array.data_type() {
            DataType::Timestamp(Second, _) => wide!(TimestampSecondType, Second),
            DataType::Timestamp(Millisecond, _) => wide!(TimestampMillisecondType, Millisecond),
            DataType::Timestamp(Microsecond, _) => wide!(TimestampMicrosecondType, Microsecond),
            DataType::Timestamp(Nanosecond, _) => wide!(TimestampNanosecondType, Nanosecond),
            DataType::Duration(Second) => wide!(DurationSecondType, Second),
            DataType::Duration(Millisecond) => wide!(DurationMillisecondType, Millisecond),
            DataType::Duration(Microsecond) => wide!(DurationMicrosecondType, Microsecond),
            DataType::Duration(Nanosecond) => wide!(DurationNanosecondType, Nanosecond),
            DataType::Time32(Second) => narrow!(Time32SecondType, Second),
            DataType::Time32(_) => narrow!(Time32MillisecondType, Millisecond),
            DataType::Time64(Microsecond) => wide!(Time64MicrosecondType, Microsecond),
            DataType::Time64(_) => wide!(Time64NanosecondType, Nanosecond),
            other => return Err(Error::defensive(format!("{other} is no time"))),
        })
    }
}

impl<'a> Spans<'a> {
    fn of(array: &'a dyn Array) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Interval(IntervalUnit::YearMonth) => {
                Spans::YearMonth(array.as_primitive::<IntervalYearMonthType>())
            }
            DataType::Interval(IntervalUnit::DayTime) => Spans::DayTime(array.as_primitive::<IntervalDayTimeType>()),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Spans::MonthDayNano(array.as_primitive::<IntervalMonthDayNanoType>())
            }
            _ => Spans::Duration(Scaled::of(array)?),
        })
    }
}

impl<'a> ListItems<'a> {
    fn of(array: &'a dyn Array) -> Result<Self> {
        let (values, bounds): (&'a ArrayRef, Bounds<'a>) = match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                (list.values(), Bounds::Small(list.value_offsets()))
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                (list.values(), Bounds::Large(list.value_offsets()))
            }
            _ => {
                let list = array.as_fixed_size_list();
                (list.values(), Bounds::Fixed(list.value_length() as usize))
            }
        };
        // As the list's own description has it.
        let element = match array.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => PgType::of(item),
            _ => PgType::of_data_type(values.data_type()),
        };
        Ok(Self { values: Values::of(values.as_ref())?, element, bounds })
    }
}

#[cfg(test)]
mod tests;
