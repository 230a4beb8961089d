//! Arguments of functions: constants, and columns of time.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, PrimitiveArray, StringViewArray, TimestampMillisecondArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, TimeUnit, TimestampMillisecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, Signature, Volatility};

use crate::error::Error;
use crate::model::{TimeZone, Timestamp};

/// The type of `__time`, and of what functions make of it.
pub(super) const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// A signature that says its own types, of a function that depends on its arguments alone.
pub(super) fn signature() -> Signature {
    Signature::user_defined(Volatility::Immutable)
}

/// Checks how many arguments there are and answers the types they are brought to: those of `wanted`, as many as given.
pub(super) fn coerce(
    function: &str,
    given: &[DataType],
    required: usize,
    wanted: &[DataType],
) -> Result<Vec<DataType>> {
    if given.len() < required || given.len() > wanted.len() {
        let expected = match required == wanted.len() {
            true => format!("{required}"),
            false => format!("{required} to {}", wanted.len()),
        };
        let message = format!("`{function}` takes {expected} arguments, not {}", given.len());
        return Err(Error::invalid_input(message).with_sqlstate("42883").into());
    }
    for (given, wanted) in given.iter().zip(wanted) {
        if *wanted == TIME && !(given.is_temporal() || given.is_null() || is_string(given)) {
            let message = format!("`{function}` takes a timestamp first, not {given}; see `MILLIS_TO_TIMESTAMP`");
            return Err(Error::invalid_input(message).with_sqlstate("42883").into());
        }
    }
    Ok(wanted[..given.len()].to_vec())
}

pub(super) fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The constant string at `index`; `None` if it is null or not there.
pub(super) fn constant<'a>(function: &str, args: &'a [ColumnarValue], index: usize) -> Result<Option<&'a str>> {
    match args.get(index) {
        None => Ok(None),
        Some(ColumnarValue::Scalar(value)) => Ok(value.try_as_str().flatten()),
        Some(ColumnarValue::Array(_)) => {
            let message = format!("argument {} of `{function}` must be a constant", index + 1);
            Err(Error::invalid_input(message).with_sqlstate("0A000").into())
        }
    }
}

/// The string literal at `index` of a call that is being planned.
pub(super) fn literal(args: &[Expr], index: usize) -> Option<&str> {
    args.get(index).and_then(Expr::as_literal).and_then(|value| value.try_as_str().flatten())
}

/// The time zone at `index`, UTC if there is none.
pub(super) fn zone(function: &str, args: &[ColumnarValue], index: usize) -> Result<TimeZone> {
    match constant(function, args, index)? {
        Some(name) => Ok(TimeZone::from_str(name)?),
        None => Ok(TimeZone::Utc),
    }
}

/// The constant instant at `index`, of type [`TIME`].
pub(super) fn instant(args: &[ColumnarValue], index: usize) -> Option<Timestamp> {
    match args.get(index) {
        Some(ColumnarValue::Scalar(ScalarValue::TimestampMillisecond(Some(millis), _))) => {
            Some(Timestamp::from_millis(*millis))
        }
        _ => None,
    }
}

/// Whether the argument at `index` is there and null: a function of it is null.
pub(super) fn is_null(args: &[ColumnarValue], index: usize) -> bool {
    matches!(args.get(index), Some(ColumnarValue::Scalar(value)) if value.is_null())
}

/// `f` of every time of the first argument that is not null, as times.
pub(super) fn map_time(
    args: &ScalarFunctionArgs,
    mut f: impl FnMut(Timestamp) -> Result<Timestamp>,
) -> Result<ColumnarValue> {
    map(args, |times| {
        let mapped = times
            .iter()
            .map(|millis| millis.map(|millis| Ok(f(Timestamp::from_millis(millis))?.millis())).transpose())
            .collect::<Result<TimestampMillisecondArray>>()?;
        Ok(Arc::new(mapped))
    })
}

/// `f` of every time of the first argument that is not null, as integers.
pub(super) fn map_long(args: &ScalarFunctionArgs, f: impl Fn(Timestamp) -> Result<i64>) -> Result<ColumnarValue> {
    map(args, |times| {
        let values = times.iter().map(|millis| millis.map(|millis| f(Timestamp::from_millis(millis))).transpose());
        Ok(Arc::new(values.collect::<Result<Int64Array>>()?))
    })
}

/// `f` of every time of the first argument that is not null, as strings.
pub(super) fn map_string(args: &ScalarFunctionArgs, f: impl Fn(Timestamp) -> Result<String>) -> Result<ColumnarValue> {
    map(args, |times| {
        let values = times.iter().map(|millis| millis.map(|millis| f(Timestamp::from_millis(millis))).transpose());
        Ok(Arc::new(values.collect::<Result<StringViewArray>>()?))
    })
}

fn map(
    args: &ScalarFunctionArgs,
    f: impl FnOnce(&TimestampMillisecondArray) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    map_primitive::<TimestampMillisecondType>(&args.args[0], f)
}

/// `f` of the values of one argument; a constant gives a constant.
pub(super) fn map_primitive<T: ArrowPrimitiveType>(
    arg: &ColumnarValue,
    f: impl FnOnce(&PrimitiveArray<T>) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    match arg {
        ColumnarValue::Array(values) => Ok(ColumnarValue::Array(f(values.as_primitive())?)),
        ColumnarValue::Scalar(value) => {
            let result = f(value.to_array()?.as_primitive())?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
        }
    }
}

/// A null for every row.
pub(super) fn null(data_type: &DataType) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Scalar(ScalarValue::try_new_null(data_type)?))
}

/// The zone's calendar at an instant. Fails for instants without a calendar date.
pub(super) fn local(instant: Timestamp, zone: TimeZone) -> Result<chrono::NaiveDateTime> {
    let Some(local) = zone.to_local(instant) else {
        return Err(Error::invalid_input(format!("timestamp out of range: {instant}")).with_sqlstate("22008").into());
    };
    Ok(local)
}
