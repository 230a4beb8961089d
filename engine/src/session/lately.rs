use std::collections::VecDeque;

/// What was asked once, of which no more is known.
const MOST: usize = 256;

/// The hashes of what was asked lately, the oldest first: so that only what is asked a second time is kept.
#[derive(Debug, Default)]
pub(super) struct AskedLately(VecDeque<u64>);

impl AskedLately {
    /// Whether it was asked lately. From now on it was.
    pub(super) fn was_asked(&mut self, hash: u64) -> bool {
        if self.0.contains(&hash) {
            return true;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(hash);
        false
    }
}
