//! Numbers beyond 64 bits, as Java writes them.

use num_bigint::BigInt;

use crate::error::{Error, Result};

/// A number of more bytes than this is not read: to write its digits takes the square of them.
const MAX_BYTES: usize = 8 << 10;

/// The digits of an integer in two's complement, the highest byte first.
pub(super) fn integer(bytes: &[u8]) -> Result<String> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::capacity_exceeded("a number of more than 8 KiB is not read"));
    }
    Ok(BigInt::from_signed_bytes_be(bytes).to_string())
}

/// The integer, divided by ten `scale` times: as Java's `BigDecimal.toString` writes it.
pub(super) fn decimal(bytes: &[u8], scale: i32) -> Result<String> {
    let integer = integer(bytes)?;
    let (sign, digits) = match integer.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", integer.as_str()),
    };
    if scale == 0 {
        return Ok(integer);
    }
    let exponent = digits.len() as i64 - 1 - i64::from(scale);
    if scale < 0 || exponent < -6 {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        return Ok(format!("{sign}{first}{point}{rest}E{exponent:+}"));
    }
    // Not above 8 KiB of digits and six zeros.
    let scale = scale as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    Ok(format!("{sign}{whole}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_as_java_writes_them() {
        let decimal = |number: i64, scale| decimal(&number.to_be_bytes(), scale).unwrap();
        for (number, scale, expected) in [
            (123, 0, "123"),
            (-123, 0, "-123"),
            (123, -1, "1.23E+3"),
            (123, -3, "1.23E+5"),
            (123, 1, "12.3"),
            (123, 5, "0.00123"),
            (123, 10, "1.23E-8"),
            (-123, 12, "-1.23E-10"),
            (0, 2, "0.00"),
            (0, -2, "0E+2"),
            (0, 9, "0E-9"),
            (5, -1, "5E+1"),
            (1, i32::MAX, "1E-2147483647"),
            (1, i32::MIN, "1E+2147483648"),
        ] {
            assert_eq!(decimal(number, scale), expected, "{number} {scale}");
        }
    }

    #[test]
    fn integers_of_any_length_are_read() {
        assert_eq!(integer(&[]).unwrap(), "0");
        assert_eq!(integer(&[0xff]).unwrap(), "-1");
        assert_eq!(integer(&[1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "18446744073709551616");
        assert_eq!(integer(&[0x7f; MAX_BYTES]).unwrap().len(), 19728);
        assert!(integer(&[0; MAX_BYTES + 1]).is_err());
    }
}
