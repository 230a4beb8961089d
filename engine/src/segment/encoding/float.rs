//! Floats: constant, decimal fractions as integers, compressed bytes, or as they are.

use super::Encoding;
use super::integer::{self, as_words, as_words_mut, padded};
use crate::error::Result;
use crate::segment::wire::{Reader, pad};

/// A type of float as the format writes it.
pub(in crate::segment) trait Float: Copy + Default {
    const BYTES: usize;

    fn to_bits(self) -> u64;

    fn from_bits(bits: u64) -> Self;

    /// The integer that [`Float::from_scaled`] turns back into just these bits, if there is one.
    fn scaled(self, scale: f64) -> Option<i64>;

    fn from_scaled(value: i64, scale: f64) -> Self;
}

/// Beyond this an `f64` no longer tells neighbouring integers apart.
const MAX_SCALED: f64 = (1u64 << 52) as f64;

impl Float for f64 {
    const BYTES: usize = 8;

    fn to_bits(self) -> u64 {
        self.to_bits()
    }

    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits)
    }

    fn scaled(self, scale: f64) -> Option<i64> {
        let scaled = (self * scale).round();
        let value = (scaled.abs() < MAX_SCALED).then_some(scaled as i64)?;
        (Self::from_scaled(value, scale).to_bits() == self.to_bits()).then_some(value)
    }

    fn from_scaled(value: i64, scale: f64) -> Self {
        value as f64 / scale
    }
}

impl Float for f32 {
    const BYTES: usize = 4;

    fn to_bits(self) -> u64 {
        u64::from(self.to_bits())
    }

    fn from_bits(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }

    fn scaled(self, scale: f64) -> Option<i64> {
        let scaled = (f64::from(self) * scale).round();
        let value = (scaled.abs() < MAX_SCALED).then_some(scaled as i64)?;
        (Self::from_scaled(value, scale).to_bits() == self.to_bits()).then_some(value)
    }

    fn from_scaled(value: i64, scale: f64) -> Self {
        (value as f64 / scale) as Self
    }
}

/// Exact as `f64`, and so are the divisions that ALP and we rely on.
const SCALES: [f64; 11] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10];

/// The fastest to decode; higher levels hardly make floats smaller.
const ZSTD_LEVEL: i32 = 1;

/// Appends `values` in the smallest of the encodings; a multiple of eight bytes if `out` was one.
pub(in crate::segment) fn encode<F: Float>(values: &[F], out: &mut Vec<u8>) {
    let first = values.first().copied().unwrap_or_default().to_bits();
    if values.iter().all(|value| value.to_bits() == first) {
        out.extend_from_slice(&[Encoding::Constant as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&first.to_le_bytes());
        return;
    }
    let decimal = encode_decimal(values);
    let planes = byte_planes(values);
    let (encoding, mut body) = match zstd::bulk::compress(&planes, ZSTD_LEVEL) {
        Ok(compressed) if compressed.len() * 10 < planes.len() * 9 => (Encoding::Compressed, compressed),
        _ => (Encoding::Raw, raw_bytes(values)),
    };
    match decimal {
        // The integers decode faster, so they win unless they are much larger.
        Some(mut decimal) if decimal.len() * 4 <= body.len() * 5 => out.append(&mut decimal),
        _ => {
            out.extend_from_slice(&[encoding as u8, 0, 0, 0]);
            out.extend_from_slice(&(body.len() as u32).to_le_bytes());
            out.append(&mut body);
            pad(out);
        }
    }
}

fn encode_decimal<F: Float>(values: &[F]) -> Option<Vec<u8>> {
    let sample = values.iter().step_by((values.len() / 16).max(1));
    let exponent = SCALES.iter().position(|&scale| sample.clone().all(|value| value.scaled(scale).is_some()))?;
    // A later value may have more digits than the sample had.
    let (exponent, scaled) = (exponent..SCALES.len()).find_map(|exponent| {
        let scaled = values.iter().map(|value| value.scaled(SCALES[exponent])).collect::<Option<Vec<i64>>>()?;
        Some((exponent, scaled))
    })?;
    let mut out = vec![Encoding::Decimal as u8, exponent as u8, 0, 0, 0, 0, 0, 0];
    integer::encode(as_words(&scaled), &mut out);
    Some(out)
}

fn raw_bytes<F: Float>(values: &[F]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_bits().to_le_bytes().into_iter().take(F::BYTES)).collect()
}

/// The lowest bytes of all values, then the next ones, …: like bytes stand together, which compresses well.
fn byte_planes<F: Float>(values: &[F]) -> Vec<u8> {
    (0..F::BYTES).flat_map(|plane| values.iter().map(move |value| value.to_bits().to_le_bytes()[plane])).collect()
}

/// Replaces `out` by the `count` values that [`encode`] wrote.
pub(in crate::segment) fn decode<F: Float>(reader: &mut Reader<'_>, count: usize, out: &mut Vec<F>) -> Result<()> {
    let start = reader.remaining();
    decode_body(reader, count, out)?;
    reader.skip_padding(start)
}

fn decode_body<F: Float>(reader: &mut Reader<'_>, count: usize, out: &mut Vec<F>) -> Result<()> {
    let encoding = Encoding::from_byte(reader.u8()?);
    let exponent = reader.u8()?;
    reader.take(2)?;
    let length = reader.u32()? as usize;
    out.clear();
    match encoding {
        Some(Encoding::Constant) => {
            let bits = reader.u64()?;
            out.resize(count, F::from_bits(bits));
        }
        Some(Encoding::Decimal) => {
            let Some(&scale) = SCALES.get(usize::from(exponent)) else {
                return Err(reader.damaged("has an unknown decimal scale"));
            };
            let mut scaled = vec![0; padded(count)];
            integer::decode(reader, count, as_words_mut(&mut scaled))?;
            out.extend(scaled[..count].iter().map(|&value| F::from_scaled(value, scale)));
        }
        Some(Encoding::Raw) if length == count * F::BYTES => {
            out.extend(reader.take(length)?.chunks_exact(F::BYTES).map(|bytes| {
                let mut bits = [0; 8];
                bits[..F::BYTES].copy_from_slice(bytes);
                F::from_bits(u64::from_le_bytes(bits))
            }));
        }
        Some(Encoding::Compressed) => {
            let mut planes = vec![0; count * F::BYTES];
            let written = zstd::bulk::decompress_to_buffer(reader.take(length)?, &mut planes[..]);
            if written.ok() != Some(planes.len()) {
                return Err(reader.damaged("does not decompress"));
            }
            out.extend((0..count).map(|row| {
                let mut bits = [0; 8];
                (0..F::BYTES).for_each(|plane| bits[plane] = planes[plane * count + row]);
                F::from_bits(u64::from_le_bytes(bits))
            }));
        }
        _ => return Err(reader.damaged("has an unknown encoding")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<F: Float>(values: &[F]) -> (Encoding, usize) {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        assert_eq!(bytes.len() % 8, 0);
        let mut out = Vec::<F>::new();
        let mut reader = Reader::new(&bytes, "test");
        decode(&mut reader, values.len(), &mut out).unwrap();
        reader.finish().unwrap();
        let (read, written) = (out.iter().map(|v| v.to_bits()), values.iter().map(|v| v.to_bits()));
        assert!(read.eq(written));
        (Encoding::from_byte(bytes[0]).unwrap(), bytes.len())
    }

    #[test]
    fn prices_are_kept_as_integers() {
        let prices =
            (0..8192u32).map(|i| f64::from((i.wrapping_mul(2_654_435_761) >> 9) % 10_000) / 100.0).collect::<Vec<_>>();
        let (encoding, size) = round_trip(&prices);
        assert_eq!(encoding, Encoding::Decimal);
        assert!(size < 8192 * 15 / 8, "{size}");
        let prices = prices.iter().map(|&price| price as f32).collect::<Vec<_>>();
        assert_eq!(round_trip(&prices).0, Encoding::Decimal);
    }

    #[test]
    fn odd_floats_keep_their_bits() {
        let nan = f64::from_bits(0x7ff8_0000_0000_1234);
        round_trip(&[0.0, -0.0, nan, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE / 2.0, f64::MAX, 0.1 + 0.2]);
        round_trip(&[0.0f32, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, 16_777_217.0]);
        assert_eq!(round_trip(&[f64::NAN; 100]).1, 16);
        assert_eq!(round_trip::<f64>(&[]).1, 16);
    }

    #[test]
    fn repeated_odd_floats_are_compressed() {
        let values = (0..8192).map(|i| f64::from(i % 10).sin()).collect::<Vec<_>>();
        let (encoding, size) = round_trip(&values);
        assert_eq!(encoding, Encoding::Compressed);
        assert!(size < 8192, "{size}");
    }

    proptest! {
        #[test]
        fn doubles_read_back(values in prop::collection::vec(any::<f64>(), 0..300), scale in 0u32..6) {
            round_trip(&values);
            let factor = 10f64.powi(scale as i32);
            let rounded = values.iter().map(|v| (v % 1e6 * factor).round() / factor).collect::<Vec<_>>();
            round_trip(&rounded);
        }

        #[test]
        fn floats_read_back(values in prop::collection::vec(any::<f32>(), 0..300)) {
            round_trip(&values);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 14u8..20, count in 0usize..300) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = decode::<f64>(&mut Reader::new(&bytes, "test"), count, &mut Vec::new());
            let _ = decode::<f32>(&mut Reader::new(&bytes, "test"), count, &mut Vec::new());
        }
    }
}
