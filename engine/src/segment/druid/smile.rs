//! Documents in Smile, Jackson's binary JSON, turned into JSON text.

mod number;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};

/// Documents nested deeper than this are not read.
pub(super) const MAX_DEPTH: usize = 512;
/// Names and short texts are referred back to, up to as many at a time.
const MAX_SHARED: usize = 1024;
/// Back references can multiply a document.
pub(super) const MAX_JSON_BYTES: usize = 256 << 20;

const END_OF_TEXT: u8 = 0xfc;

/// Replaces `out` with the document as JSON, keys in their order.
pub(super) fn to_json(document: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    let [b':', b')', b'\n', flags, body @ ..] = document else {
        return Err(Error::corrupt("a document does not begin as Smile does"));
    };
    let mut smile = Smile {
        rest: body,
        shares_names: flags & 1 != 0,
        shares_texts: flags & 2 != 0,
        names: Vec::new(),
        texts: Vec::new(),
    };
    smile.value(0, out)
}

struct Smile<'a> {
    rest: &'a [u8],
    shares_names: bool,
    shares_texts: bool,
    names: Vec<&'a [u8]>,
    texts: Vec<&'a [u8]>,
}

fn damaged() -> Error {
    Error::corrupt("a document in Smile is damaged")
}

impl<'a> Smile<'a> {
    fn byte(&mut self) -> Result<u8> {
        let (byte, rest) = self.rest.split_first().ok_or_else(damaged)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(head)
    }

    /// What comes before the byte that ends a long text.
    fn until_end(&mut self) -> Result<&'a [u8]> {
        let length = self.rest.iter().position(|byte| *byte == END_OF_TEXT).ok_or_else(damaged)?;
        let text = self.take(length)?;
        self.byte()?;
        Ok(text)
    }

    fn value(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::unsupported(format!("documents nested deeper than {MAX_DEPTH} are not read")));
        }
        if out.len() > MAX_JSON_BYTES {
            return Err(Error::capacity_exceeded("a document of more than 256 MiB is not read"));
        }
        let token = self.byte()?;
        match token {
            0x01..=0x1f => self.shared_text(usize::from(token) - 1, out)?,
            0xec..=0xef => {
                let low = self.byte()?;
                self.shared_text(usize::from(token & 3) << 8 | usize::from(low), out)?;
            }
            0x20 => out.extend_from_slice(b"\"\""),
            0x21 => out.extend_from_slice(b"null"),
            0x22 => out.extend_from_slice(b"false"),
            0x23 => out.extend_from_slice(b"true"),
            0x24 | 0x25 => put(out, &self.integer()?)?,
            0x28 => put_float(out, f64::from(f32::from_bits(self.seven_bits(5)? as u32)))?,
            0x29 => put_float(out, f64::from_bits(self.seven_bits(10)?))?,
            0x40..=0x7f => self.text(usize::from(token - 0x40) + 1, out)?,
            0x80..=0xbf => self.text(usize::from(token - 0x80) + 2, out)?,
            0xc0..=0xdf => put(out, &zigzag(u64::from(token & 0x1f)))?,
            0xe0 | 0xe4 => put_text(out, self.until_end()?)?,
            0xf8 => self.list(depth, out)?,
            0xfa => self.object(depth, out)?,
            0x26 => {
                let number = number::integer(&self.packed_bytes()?)?;
                out.extend_from_slice(number.as_bytes());
            }
            0x2a => {
                let scale = i32::try_from(self.integer()?).map_err(|_| damaged())?;
                let number = number::decimal(&self.packed_bytes()?, scale)?;
                out.extend_from_slice(number.as_bytes());
            }
            // Bytes, as JSON has them from Jackson.
            0xe8 => put(out, &STANDARD.encode(self.packed_bytes()?))?,
            0xfd => {
                let length = self.unsigned()?;
                put(out, &STANDARD.encode(self.take(length)?))?;
            }
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn list(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<()> {
        out.push(b'[');
        let mut is_first = true;
        while self.rest.first() != Some(&0xf9) {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            self.value(depth + 1, out)?;
        }
        self.byte()?;
        out.push(b']');
        Ok(())
    }

    fn object(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<()> {
        out.push(b'{');
        let mut is_first = true;
        while self.rest.first() != Some(&0xfb) {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            let name = self.name()?;
            put_text(out, name)?;
            out.push(b':');
            self.value(depth + 1, out)?;
        }
        self.byte()?;
        out.push(b'}');
        Ok(())
    }

    fn name(&mut self) -> Result<&'a [u8]> {
        let token = self.byte()?;
        let length = match token {
            0x20 => return Ok(b""),
            0x30..=0x33 => {
                let low = self.byte()?;
                return self.shared_name(usize::from(token & 3) << 8 | usize::from(low));
            }
            0x34 => return self.until_end(),
            0x40..=0x7f => return self.shared_name(usize::from(token - 0x40)),
            0x80..=0xbf => usize::from(token - 0x80) + 1,
            0xc0..=0xf7 => usize::from(token - 0xc0) + 2,
            _ => return Err(damaged()),
        };
        let name = self.take(length)?;
        if self.shares_names {
            remember(&mut self.names, name);
        }
        Ok(name)
    }

    fn shared_name(&self, index: usize) -> Result<&'a [u8]> {
        self.names.get(index).copied().ok_or_else(damaged)
    }

    fn text(&mut self, length: usize, out: &mut Vec<u8>) -> Result<()> {
        let text = self.take(length)?;
        if self.shares_texts {
            remember(&mut self.texts, text);
        }
        put_text(out, text)
    }

    fn shared_text(&self, index: usize, out: &mut Vec<u8>) -> Result<()> {
        put_text(out, self.texts.get(index).copied().ok_or_else(damaged)?)
    }

    /// Seven bits a byte, the highest first; the last byte has its top bit set and six bits.
    fn integer(&mut self) -> Result<i64> {
        let mut bits = 0u64;
        for _ in 0..11 {
            let byte = self.byte()?;
            if byte & 0x80 != 0 {
                return Ok(zigzag(bits << 6 | u64::from(byte & 0x3f)));
            }
            bits = bits << 7 | u64::from(byte);
        }
        Err(damaged())
    }

    /// The same without a sign, for lengths.
    fn unsigned(&mut self) -> Result<usize> {
        let mut bits = 0u64;
        for _ in 0..5 {
            let byte = self.byte()?;
            if byte & 0x80 != 0 {
                return usize::try_from(bits << 6 | u64::from(byte & 0x3f)).map_err(|_| damaged());
            }
            bits = bits << 7 | u64::from(byte);
        }
        Err(damaged())
    }

    /// Bytes that are stored as groups of seven bits, behind their number. The last group is not filled up.
    fn packed_bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.unsigned()?;
        let groups = self.take(length.checked_mul(8).ok_or_else(damaged)?.div_ceil(7))?;
        let (mut bytes, mut bits, mut have) = (Vec::with_capacity(length), 0u32, 0);
        for (index, group) in groups.iter().enumerate() {
            let width = if index + 1 == groups.len() { length * 8 - index * 7 } else { 7 };
            bits = bits << width | u32::from(*group) & ((1 << width) - 1);
            have += width;
            if have >= 8 {
                have -= 8;
                bytes.push((bits >> have) as u8);
            }
        }
        Ok(bytes)
    }

    /// Bits in so many bytes of seven each, the highest first.
    fn seven_bits(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |bits, byte| bits << 7 | u64::from(byte & 0x7f)))
    }
}

fn remember<'a>(seen: &mut Vec<&'a [u8]>, text: &'a [u8]) {
    if seen.len() == MAX_SHARED {
        seen.clear();
    }
    seen.push(text);
}

fn zigzag(bits: u64) -> i64 {
    (bits >> 1).cast_signed() ^ -((bits & 1).cast_signed())
}

fn put(out: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(out, value).map_err(|error| damaged().with_source(error))
}

/// What JSON has no number for becomes a text, as in Java's own output.
pub(super) fn put_float(out: &mut Vec<u8>, value: f64) -> Result<()> {
    match value {
        _ if value.is_finite() => put(out, &value),
        _ if value.is_nan() => put(out, &"NaN"),
        _ => put(out, &if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Error::corrupt("a document holds text that is not UTF-8").with_source(error))?;
    put(out, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &[u8]) -> Result<String> {
        let mut out = Vec::new();
        to_json(&[b":)\n\x05", body].concat(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn documents_become_json() {
        // The document of Druid's own segment (specification 19.10).
        let body = b"\xfa\x84color\x43plum\x84price\x29\x00\x40\x22\x00\x00\x00\x00\x00\x00\x00\xfb";
        assert_eq!(json(body).unwrap(), r#"{"color":"plum","price":40.0}"#);
        assert_eq!(
            json(b"\xf8\xc0\xc1\xc2\x24\x01\xbf\x20\x21\x22\x23\xf9").unwrap(),
            r#"[0,-1,1,-64,"",null,false,true]"#
        );
        // A name that refers back to the first.
        assert_eq!(json(b"\xfa\x80a\xc2\x40\xc4\xfb").unwrap(), r#"{"a":1,"a":2}"#);
        assert_eq!(json(b"\xe0long text\xfc").unwrap(), r#""long text""#);
    }

    /// The bytes are those of another encoder, the crate serde-smile 0.2.2.
    #[test]
    fn large_numbers_and_bytes_become_what_jackson_makes_of_them() {
        for (body, expected) in [
            (&b"\x26\x89\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00"[..], "18446744073709551616"),
            (b"\x26\x89\x7f\x40\x00\x00\x00\x00\x00\x00\x00\x00\x01", "-18446744073709551615"),
            (b"\x2a\x86\x82\x18\x0e\x01", "12.345"),
            (b"\x2a\x83\x82\x67\x71\x03", "-1.2345E+6"),
            (b"\xe8\x8c\x34\x19\x2d\x46\x63\x3c\x58\x20\x3b\x5b\x6e\x26\x63\x04", "\"aGVsbG8sIHdvcmxk\""),
            (b"\xfd\x8chello, world", "\"aGVsbG8sIHdvcmxk\""),
            (b"\xe8\x80", "\"\""),
        ] {
            assert_eq!(json(body).unwrap(), expected);
        }
        for body in
            [&b"\x26\x89\x00"[..], b"\x2a\x86", b"\xe8\x00\x00\x00\x00\x00", b"\xfd\x7f\x7f\x7f\xbf", b"\x26\x02\x80"]
        {
            assert!(json(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn damaged_documents_are_refused() {
        for body in
            [&b""[..], b"\xfa", b"\xf8\xc0", b"\x43plu", b"\x01", b"\xfa\x40", b"\x29\x00", b"\xe0abc", b"\x41\xff\xff"]
        {
            assert!(json(body).is_err(), "{body:?}");
        }
        assert!(json(&[0xf8; 2000]).is_err());
        let mut out = Vec::new();
        assert!(to_json(b"{}", &mut out).is_err());
    }
}
