//! What must hold of any bytes that a stranger sends, for fuzz targets and tests. Only there when compiled for either: `fuzz/` in
//! the root compiles this file with what it uses, without the rest of the server.

// Public there.
#![allow(unreachable_pub)]

use bytes::{Bytes, BytesMut};

use super::command;
use super::frontend::{Message, decode, decode_hello, decode_password};

/// The first bytes of a connection.
pub fn hello(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(_)) = decode_hello(&mut buffer) {}
    assert!(buffer.len() <= data.len());
    let _ = decode_password(&mut BytesMut::from(data));
}

/// Messages of a connection that was let in; statements are cut into pieces as they will be.
pub fn message(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    let mut before = buffer.len();
    while let Ok(Some(message)) = decode(&mut buffer) {
        assert!(buffer.len() < before, "a message of no bytes");
        before = buffer.len();
        match message {
            Message::Query(sql) | Message::Parse { sql, .. } => {
                // Wrong SQL is an error, and every piece lies within the text.
                for piece in command::split(&sql).unwrap_or_default() {
                    assert!(sql.contains(&piece.sql));
                }
            }
            Message::Bind { values, .. } => {
                assert!(values.iter().flatten().map(Bytes::len).sum::<usize>() <= data.len())
            }
            _ => {}
        }
    }
    // What is held for a message that has not come is bounded, whatever length it says.
    assert!(buffer.capacity() <= data.len() + (2 << 20), "{} bytes", buffer.capacity());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Buf;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::pgwire::encode::Format;
    use crate::pgwire::parameter;

    const MUTATIONS: u64 = 20_000;

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() > 5);
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// Runs `target` on all files, then on mutations of them; the seed of one that fails is in the panic's words above.
    fn fuzz(name: &str, target: fn(&[u8])) {
        let corpus = corpus(name);
        corpus.iter().for_each(|bytes| target(bytes));
        for seed in 0..MUTATIONS {
            let mut random = StdRng::seed_from_u64(seed);
            let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
            for _ in 0..random.random_range(1..10) {
                mutate(&mut bytes, &corpus, &mut random);
            }
            let run = std::panic::catch_unwind(|| target(&bytes));
            assert!(run.is_ok(), "{name}, seed {seed}: {bytes:?}");
        }
    }

    fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut StdRng) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            2 => {
                let other = &corpus[random.random_range(0..corpus.len())];
                bytes.splice(at..at, other[..random.random_range(0..=other.len())].iter().copied());
            }
            3 if bytes.len() >= at + 4 => {
                let number = [0, 1, 0xff, u32::MAX, i32::MAX as u32, random.random()][random.random_range(0..6)];
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ if at < bytes.len() => bytes[at] = random.random(),
            _ => {}
        }
    }

    #[test]
    fn no_first_bytes_panic() {
        fuzz("hello", hello);
    }

    #[test]
    fn no_messages_panic_or_reserve_without_bound() {
        fuzz("message", message);
    }

    /// A bound value: the number of its type, its format, and its bytes.
    fn value(data: &[u8]) {
        let mut data = Bytes::copy_from_slice(data);
        let (Ok(oid), Ok(format)) = (data.try_get_u32(), data.try_get_u8()) else { return };
        let format = if format % 2 == 0 { Format::Text } else { Format::Binary };
        // Wrong values are errors.
        let _ = parameter::decode(Some(&data), oid, format);
    }

    #[test]
    fn no_bound_values_panic() {
        fuzz("parameter", value);
    }
}
