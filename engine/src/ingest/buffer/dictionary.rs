use std::hash::{BuildHasher, RandomState};

/// The code of null, whether or not a row has it.
pub(crate) const NULL: u32 = 0;

/// Distinct texts in the order they came, each with a code from 1 on.
///
/// A table of codes with linear probing beside one string of all texts: no allocation per text, and its memory can be
/// told exactly.
#[derive(Debug)]
pub(crate) struct Dictionary {
    texts: String,
    /// Where each text ends in `texts`.
    ends: Vec<usize>,
    hashes: Vec<u32>,
    /// Codes by hash; 0 is free. Its length is a power of two.
    table: Vec<u32>,
    seed: u64,
}

impl Dictionary {
    pub(crate) fn new() -> Self {
        Self {
            texts: String::new(),
            ends: Vec::new(),
            hashes: Vec::new(),
            table: vec![0; 16],
            // Another one each time, so that no input can be made that collides.
            seed: RandomState::new().hash_one(0_u64),
        }
    }

    /// Distinct texts.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn text(&self, code: u32) -> &str {
        let index = code as usize - 1;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.texts[start..self.ends[index]]
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.texts.capacity() + self.ends.capacity() * 8 + (self.hashes.capacity() + self.table.len()) * 4
    }

    /// The code of a text, new if it has not been seen.
    pub(crate) fn code(&mut self, text: &str) -> u32 {
        let hash = hash(text.as_bytes(), self.seed);
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.table[at] {
                0 => break,
                code if self.hashes[code as usize - 1] == hash && self.text(code) == text => return code,
                _ => at = (at + 1) & mask,
            }
        }
        self.texts.push_str(text);
        self.ends.push(self.texts.len());
        self.hashes.push(hash);
        let code = self.ends.len() as u32;
        self.table[at] = code;
        if self.ends.len() * 8 > self.table.len() * 5 {
            self.grow();
        }
        code
    }

    fn grow(&mut self) {
        let mask = self.table.len() * 2 - 1;
        self.table = vec![0; mask + 1];
        for (index, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & mask;
            while self.table[at] != 0 {
                at = (at + 1) & mask;
            }
            self.table[at] = index as u32 + 1;
        }
    }

    /// All codes in the order of their texts, bytewise.
    pub(crate) fn sorted_codes(&self) -> Vec<u32> {
        let prefix = |code: u32| {
            let bytes = self.text(code).as_bytes();
            let mut first = [0; 8];
            let length = bytes.len().min(8);
            first[..length].copy_from_slice(&bytes[..length]);
            u64::from_be_bytes(first)
        };
        let mut codes = (1..=self.len() as u32).map(|code| (prefix(code), code)).collect::<Vec<_>>();
        codes.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| self.text(a.1).cmp(self.text(b.1))));
        codes.into_iter().map(|(_, code)| code).collect()
    }
}

/// Folded multiplication, eight bytes at a time, after wyhash.
fn hash(bytes: &[u8], seed: u64) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product >> 64) as u64 ^ product as u64
    };
    let mut state = seed ^ (bytes.len() as u64).wrapping_mul(K);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        state = fold(state ^ word, K);
    }
    let mut last = [0; 8];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    let mixed = fold(state ^ u64::from_le_bytes(last), K ^ seed);
    (mixed ^ (mixed >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_texts_have_equal_codes(texts in prop::collection::vec("[a-c]{0,10}|.{0,20}", 0..200)) {
            let mut dictionary = Dictionary::new();
            let codes = texts.iter().map(|text| dictionary.code(text)).collect::<Vec<_>>();
            for (text, code) in texts.iter().zip(&codes) {
                prop_assert_eq!(dictionary.text(*code), text);
                prop_assert_eq!(dictionary.code(text), *code);
            }
            let distinct = texts.iter().collect::<std::collections::BTreeSet<_>>();
            let sorted = dictionary.sorted_codes();
            let sorted = sorted.iter().map(|code| dictionary.text(*code)).collect::<Vec<_>>();
            prop_assert_eq!(sorted, distinct.into_iter().collect::<Vec<_>>());
        }
    }
}
