//! Which requests were taken, so that one that comes again adds nothing.

use std::collections::{HashMap, VecDeque};

use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::entry::PushKey;

/// Keys that are remembered, the latest.
const MAX_KEYS: usize = 10_000;
/// Producers that are remembered: those heard of last.
const MAX_PRODUCERS: usize = 1_000;

/// What a request added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Added {
    /// The number of its entry.
    pub(super) number: u64,
    pub(super) rows: u64,
    /// Rows that were passed over as bad, and those that were not wanted.
    pub(super) unparseable: u64,
    pub(super) thrown_away: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    keys: HashMap<String, Added>,
    order: VecDeque<String>,
    producers: HashMap<String, (u64, Added)>,
}

impl Window {
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match bytes {
            [] => Ok(Self::default()),
            _ => serde_json::from_slice(bytes).map_err(|error| {
                Error::corrupt("the beginning of a write-ahead log cannot be read").with_source(error)
            }),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Maps of texts and numbers are always JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a request of this key added, if one was taken. Of a producer, one that is not after the last is known.
    pub(super) fn find(&self, key: &PushKey) -> Option<Added> {
        match key {
            PushKey::Idempotency(key) => self.keys.get(key).copied(),
            PushKey::Producer { producer, sequence } => {
                let (last, added) = self.producers.get(producer)?;
                (sequence <= last).then_some(*added)
            }
        }
    }

    pub(super) fn add(&mut self, key: &PushKey, added: Added) {
        match key {
            PushKey::Idempotency(key) => {
                if self.keys.insert(key.clone(), added).is_none() {
                    self.order.push_back(key.clone());
                }
                if self.order.len() > MAX_KEYS
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.keys.remove(&oldest);
                }
            }
            PushKey::Producer { producer, sequence } => {
                self.producers.insert(producer.clone(), (*sequence, added));
                if self.producers.len() > MAX_PRODUCERS {
                    let quietest = self.producers.iter().min_by_key(|(_, (_, added))| added.number);
                    if let Some(quietest) = quietest.map(|(name, _)| name.clone()) {
                        self.producers.remove(&quietest);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(number: u64) -> Added {
        Added { number, rows: number * 10, unparseable: 0, thrown_away: 0 }
    }

    #[test]
    fn the_latest_keys_and_producers_are_known_also_once_written() {
        let mut window = Window::default();
        for number in 0..MAX_KEYS as u64 + 5 {
            window.add(&PushKey::Idempotency(format!("key {number}")), added(number));
        }
        for number in 0..MAX_PRODUCERS as u64 + 5 {
            let producer = format!("producer {number}");
            window.add(&PushKey::Producer { producer, sequence: 7 }, added(number));
        }
        let window = Window::from_bytes(&window.to_bytes()).unwrap();
        let key = |number: u64| window.find(&PushKey::Idempotency(format!("key {number}")));
        assert_eq!((key(4), key(5), key(10_000)), (None, Some(added(5)), Some(added(10_000))));
        let of = |number: u64, sequence| {
            window.find(&PushKey::Producer { producer: format!("producer {number}"), sequence })
        };
        assert_eq!((of(4, 7), of(5, 7), of(5, 6), of(5, 8)), (None, Some(added(5)), Some(added(5)), None));
    }
}
