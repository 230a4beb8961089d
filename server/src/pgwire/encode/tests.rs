use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::IntervalMonthDayNano;

use super::*;

/// The first field of the first row.
fn field(array: impl Array + 'static, format: Format) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap();
    let code = i16::from(format == Format::Binary);
    let columns = Columns::new(&batch.schema(), Zone::Utc).with_formats(&[code]).unwrap();
    let mut out = BytesMut::new();
    columns.put_rows(&batch, 0..1, &mut out).unwrap();
    assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len() - 1, "message length");
    assert_eq!(u32::from_be_bytes([out[7], out[8], out[9], out[10]]) as usize, out.len() - 11, "field length");
    out[11..].to_vec()
}

fn text(array: impl Array + 'static) -> String {
    String::from_utf8(field(array, Format::Text)).unwrap()
}

#[test]
fn floats_print_as_in_postgresql_15() {
    let cases = [
        (0.1, "0.1"),
        (1.0, "1"),
        (-0.0, "-0"),
        (1e15, "1e+15"),
        (123456789012345.0, "123456789012345"),
        (1.5e300, "1.5e+300"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
        (100.0, "100"),
        (12.5, "12.5"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
    ];
    for (number, expected) in cases {
        assert_eq!(text(Float64Array::from(vec![number])), expected);
    }
    assert_eq!(text(Float32Array::from(vec![1e6])), "1e+06");
    assert_eq!(text(Float32Array::from(vec![999999.0])), "999999");
}

#[test]
fn integers_print_at_their_limits() {
    assert_eq!(text(Int64Array::from(vec![i64::MIN])), "-9223372036854775808");
    assert_eq!(text(UInt64Array::from(vec![u64::MAX])), "18446744073709551615");
    assert_eq!(text(Int32Array::from(vec![0])), "0");
}

#[test]
fn timestamps_print_with_the_digits_they_need() {
    let millis = |value| TimestampMillisecondArray::from(vec![value]);
    assert_eq!(text(millis(1_442_018_818_771)), "2015-09-12 00:46:58.771");
    assert_eq!(text(millis(0)), "1970-01-01 00:00:00");
    assert_eq!(text(millis(-1)), "1969-12-31 23:59:59.999");
    assert_eq!(text(millis(-62_167_219_200_001)), "0002-12-31 23:59:59.999 BC");
    assert_eq!(text(millis(0).with_timezone("+00:00")), "1970-01-01 00:00:00+00");
    assert_eq!(field(millis(946_684_800_001), Format::Binary), 1_000i64.to_be_bytes());
}

#[test]
fn timestamptz_follows_the_session_zone() {
    let array: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_442_018_818_771]).with_timezone("+00:00"));
    let batch = RecordBatch::try_from_iter([("c", array)]).unwrap();
    for (zone, expected) in
        [("America/New_York", "2015-09-11 20:46:58.771-04"), ("Asia/Kolkata", "2015-09-12 06:16:58.771+05:30")]
    {
        let mut out = BytesMut::new();
        Columns::new(&batch.schema(), Zone::parse(zone).unwrap()).put_rows(&batch, 0..1, &mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out[11..]).unwrap(), expected);
    }
}

#[test]
fn dates_and_times_print_iso() {
    assert_eq!(text(Date32Array::from(vec![16_690])), "2015-09-12");
    assert_eq!(text(Time64MicrosecondArray::from(vec![3_661_000_001])), "01:01:01.000001");
    assert_eq!(field(Date32Array::from(vec![10_958]), Format::Binary), 1i32.to_be_bytes());
}

#[test]
fn intervals_print_in_postgres_style() {
    let span = |months, days, nanos| {
        text(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(months, days, nanos)]))
    };
    assert_eq!(span(0, 1, 7_200_000_000_000), "1 day 02:00:00");
    assert_eq!(span(14, 0, 0), "1 year 2 mons");
    assert_eq!(span(-1, 2, -1_500_000_000), "-1 mons +2 days -00:00:01.5");
    assert_eq!(span(0, 0, 0), "00:00:00");
}

#[test]
fn numerics_print_and_pack_every_digit() {
    let decimal = |value, scale| Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).unwrap();
    assert_eq!(text(decimal(150, 2)), "1.50");
    assert_eq!(text(decimal(-5, 3)), "-0.005");
    assert_eq!(text(decimal(12, -2)), "1200");
    // 12345.678 is 1 · 10000 + 2345 + 6780 / 10000
    let packed = [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c];
    assert_eq!(field(decimal(12_345_678, 3), Format::Binary), packed);
    assert_eq!(field(decimal(0, 2), Format::Binary), [0, 0, 0, 0, 0, 0, 0, 2]);
    // 0.0001: one group of weight -1
    assert_eq!(field(decimal(1, 4), Format::Binary), [0, 1, 0xff, 0xff, 0, 0, 0, 4, 0, 1]);
}

#[test]
fn arrays_quote_what_would_be_misread() {
    let mut list = ListBuilder::new(StringBuilder::new());
    for item in [Some("a"), Some("b c"), Some("NULL"), Some("q\"\\"), Some(""), None] {
        list.values().append_option(item);
    }
    list.append(true);
    assert_eq!(text(list.finish()), r#"{a,"b c","NULL","q\"\\","",NULL}"#);
    let mut list = ListBuilder::new(Int64Builder::new());
    list.values().append_value(7);
    list.append(true);
    let packed = field(list.finish(), Format::Binary);
    assert_eq!(packed, b"\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\x01\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x07");
}

#[test]
fn bytes_print_as_hex_and_booleans_as_letters() {
    assert_eq!(text(BinaryArray::from(vec![&b"\x00\xff"[..]])), "\\x00ff");
    assert_eq!(text(BooleanArray::from(vec![true])), "t");
}

#[test]
fn nulls_have_no_bytes() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1)]));
    let batch = RecordBatch::try_from_iter([("c", array)]).unwrap();
    let mut out = BytesMut::new();
    Columns::new(&batch.schema(), Zone::Utc).put_rows(&batch, 0..1, &mut out).unwrap();
    assert_eq!(&out[7..], (-1i32).to_be_bytes());
}

#[test]
fn dictionaries_are_described_and_sent_as_their_values() {
    let array: DictionaryArray<Int32Type> = ["x", "x"].into_iter().collect();
    assert_eq!(PgType::of_data_type(array.data_type()), PgType::TEXT);
    assert_eq!(text(array), "x");
}

#[test]
fn format_codes_are_none_one_or_one_each() {
    assert_eq!(formats(&[], 2).unwrap(), [Format::Text, Format::Text]);
    assert_eq!(formats(&[1], 2).unwrap(), [Format::Binary, Format::Binary]);
    assert!(formats(&[0, 1, 0], 2).is_err());
    assert!(formats(&[7], 1).is_err());
}
