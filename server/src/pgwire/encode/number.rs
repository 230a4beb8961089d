//! Numbers as PostgreSQL prints and packs them.

use std::io::Write;

use bytes::{BufMut, BytesMut};

/// Appends a whole number in decimal.
pub(crate) fn put_decimal_integer(number: i128, out: &mut BytesMut) {
    let mut digits = [0u8; 40];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    while rest > u128::from(u64::MAX) {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // Division by a constant is far cheaper on 64 bits, and nearly every number fits.
    let mut rest = rest as u64;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[start..]);
}

/// Appends `number` padded with zeros to `width` digits (at most 20).
pub(super) fn put_padded(number: u64, width: usize, out: &mut BytesMut) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    let mut rest = number;
    while rest > 0 {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.put_slice(&digits[start.min(20 - width)..]);
}

/// Shortest digits that read back as the same number, in the layout of PostgreSQL 12 and later.
pub(super) fn put_float64(number: f64, out: &mut BytesMut) {
    put_float(number.is_nan(), number.is_infinite(), number < 0.0, format_args!("{number:e}"), 15, out);
}

pub(super) fn put_float32(number: f32, out: &mut BytesMut) {
    put_float(number.is_nan(), number.is_infinite(), number < 0.0, format_args!("{number:e}"), 6, out);
}

/// `scientific` is Rust's `{:e}`; numbers of `limit` digits and more before the point keep an exponent.
fn put_float(
    nan: bool,
    infinite: bool,
    negative: bool,
    scientific: std::fmt::Arguments<'_>,
    limit: i32,
    out: &mut BytesMut,
) {
    if nan {
        return out.put_slice(b"NaN");
    }
    if infinite {
        return out.put_slice(if negative { b"-Infinity" } else { b"Infinity" });
    }
    let mut text = [0u8; 40];
    let length = {
        let mut rest = &mut text[..];
        // 17 digits, a sign, a point and a short exponent always fit in 40 bytes.
        let _ = rest.write_fmt(scientific);
        40 - rest.len()
    };
    let text = &text[..length];
    let (sign, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let split = text.iter().position(|byte| *byte == b'e').unwrap_or(text.len());
    let exponent: i32 =
        std::str::from_utf8(text.get(split + 1..).unwrap_or(b"0")).ok().and_then(|e| e.parse().ok()).unwrap_or(0);
    let mut digits = [0u8; 20];
    let mut count = 0;
    for &byte in text[..split].iter().filter(|byte| **byte != b'.').take(20) {
        digits[count] = byte;
        count += 1;
    }
    if sign {
        out.put_u8(b'-');
    }
    lay_out(&digits[..count], exponent, limit, out);
}

/// Lays out `d.ddd × 10^exponent`.
fn lay_out(digits: &[u8], exponent: i32, limit: i32, out: &mut BytesMut) {
    if exponent < -4 || exponent >= limit {
        out.put_u8(digits[0]);
        if digits.len() > 1 {
            out.put_u8(b'.');
            out.put_slice(&digits[1..]);
        }
        out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
        return put_padded(u64::from(exponent.unsigned_abs()), 2, out);
    }
    if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        return out.put_slice(digits);
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        out.put_slice(digits);
        out.put_bytes(b'0', whole - digits.len());
    } else {
        out.put_slice(&digits[..whole]);
        out.put_u8(b'.');
        out.put_slice(&digits[whole..]);
    }
}

/// Appends a decimal given as its digits (with sign) and scale: `("-5", 2)` is `-0.05`.
pub(super) fn put_decimal(digits: &str, scale: i8, out: &mut BytesMut) {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    out.put_slice(sign.as_bytes());
    if scale <= 0 {
        out.put_slice(digits.as_bytes());
        if digits != "0" {
            out.put_bytes(b'0', usize::from(scale.unsigned_abs()));
        }
        return;
    }
    let scale = scale as usize;
    if digits.len() <= scale {
        out.put_slice(b"0.");
        out.put_bytes(b'0', scale - digits.len());
        return out.put_slice(digits.as_bytes());
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    out.put_slice(whole.as_bytes());
    out.put_u8(b'.');
    out.put_slice(fraction.as_bytes());
}

/// PostgreSQL's binary `numeric`: groups of four decimal digits around the point.
pub(super) fn put_numeric_binary(digits: &str, scale: i8, out: &mut BytesMut) {
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |digits| (true, digits));
    let mut digits = digits.as_bytes().to_vec();
    if scale < 0 && digits != b"0" {
        digits.resize(digits.len() + usize::from(scale.unsigned_abs()), b'0');
    }
    let scale = usize::from(scale.max(0).unsigned_abs());
    if digits.len() <= scale {
        digits.splice(0..0, std::iter::repeat_n(b'0', scale + 1 - digits.len()));
    }
    // Pad both sides so that groups of four meet the point.
    let whole = digits.len() - scale;
    digits.splice(0..0, std::iter::repeat_n(b'0', (4 - whole % 4) % 4));
    digits.resize(digits.len() + (4 - scale % 4) % 4, b'0');
    let mut weight = (whole.div_ceil(4) as i16) - 1;
    let groups: Vec<u16> =
        digits.chunks(4).map(|group| group.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let mut groups = &groups[leading..];
    weight -= leading as i16;
    while let [rest @ .., 0] = groups {
        groups = rest;
    }
    out.put_i16(groups.len() as i16);
    out.put_i16(if groups.is_empty() { 0 } else { weight });
    out.put_u16(if negative && !groups.is_empty() { 0x4000 } else { 0 });
    out.put_i16(scale as i16);
    groups.iter().for_each(|group| out.put_u16(*group));
}
