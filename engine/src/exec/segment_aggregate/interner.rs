//! Small numbers for values and for combinations of codes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Hashes one number by multiplication: keys come from our own codes, nobody chooses them to collide.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Both halves of the product: the table takes its buckets from the low bits, its tags from the high ones.
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

type NumberMap = HashMap<u64, u32, BuildHasherDefault<NumberHasher>>;

/// Numbers distinct keys from 0 in the order of their coming.
#[derive(Debug, Default)]
pub(super) struct Interner {
    ids: NumberMap,
    pub(super) keys: Vec<u64>,
    last: Option<(u64, u32)>,
}

/// What an entry takes, roughly: a key and an id in a table at most seven eighths full, and the key again.
pub(super) const ENTRY_BYTES: usize = 32;

impl Interner {
    pub(super) fn id(&mut self, key: u64) -> u32 {
        if let Some((last, id)) = self.last
            && last == key
        {
            return id;
        }
        let next = self.keys.len() as u32;
        let id = *self.ids.entry(key).or_insert(next);
        if id == next {
            self.keys.push(key);
        }
        self.last = Some((key, id));
        id
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

/// Numbers distinct values, null among them.
#[derive(Debug, Default)]
pub(super) struct ValueInterner {
    null: Option<u32>,
    values: Interner,
    /// By id; `None` for null.
    pub(super) by_id: Vec<Option<i64>>,
}

impl ValueInterner {
    pub(super) fn id(&mut self, value: Option<i64>) -> u32 {
        let next = self.by_id.len() as u32;
        let Some(value) = value else {
            if self.null.is_none() {
                self.null = Some(next);
                self.by_id.push(None);
            }
            return self.null.unwrap_or(next);
        };
        let known = self.values.len();
        let id = self.values.id(value as u64);
        if self.values.len() > known {
            self.by_id.push(Some(value));
        }
        // Ids of values count values only; those after the null are one further on.
        match self.null {
            Some(null) if id >= null => id + 1,
            _ => id,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_distinct_values_and_the_null() {
        let mut interner = ValueInterner::default();
        let ids = [Some(7), Some(-1), None, Some(7), Some(i64::MIN), None, Some(-1), Some(i64::MIN)];
        let ids = ids.map(|value| interner.id(value));
        assert_eq!(ids, [0, 1, 2, 0, 3, 2, 1, 3]);
        assert_eq!(interner.by_id, [Some(7), Some(-1), None, Some(i64::MIN)]);
    }
}
