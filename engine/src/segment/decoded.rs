//! What all dictionaries do with values that were decoded.

use std::sync::{Arc, OnceLock, Weak};

use arrow::array::{Array, AsArray, StringViewArray, UInt32Array};
use arrow::compute::{TakeOptions, take};
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Larger dictionaries are not kept once decoded: they would take more memory than the codes of their columns, and nobody
/// would account for it.
const MOST_KEPT: usize = 1 << 16;

/// All values of a dictionary, once somebody asked for them; of a large one only as long as somebody holds them.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    kept: OnceLock<Arc<StringViewArray>>,
    held: Mutex<Weak<StringViewArray>>,
}

impl Decoded {
    pub(super) fn get(&self) -> Option<Arc<StringViewArray>> {
        self.kept.get().map(Arc::clone).or_else(|| self.held.lock().upgrade())
    }

    /// The values, decoded if they are not there; those of a small dictionary are kept.
    pub(super) fn kept(&self, decode: impl FnOnce() -> Result<StringViewArray>) -> Result<Arc<StringViewArray>> {
        let values = self.once(decode)?;
        // Two threads may both decode them; one result is kept.
        Ok(match values.len() <= MOST_KEPT {
            true => Arc::clone(self.kept.get_or_init(|| values)),
            false => values,
        })
    }

    /// The same, but what was not decoded yet is not kept.
    pub(super) fn once(&self, decode: impl FnOnce() -> Result<StringViewArray>) -> Result<Arc<StringViewArray>> {
        if let Some(values) = self.get() {
            return Ok(values);
        }
        let values = Arc::new(decode()?);
        *self.held.lock() = Arc::downgrade(&values);
        Ok(values)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.kept.get().map_or(0, |values| values.get_array_memory_size())
    }
}

/// The values of some codes, in their order. Fails if there is no such code.
pub(super) fn pick(values: &StringViewArray, codes: &[u32]) -> Result<StringViewArray> {
    let indices = UInt32Array::from(codes.to_vec());
    let taken = take(values, &indices, Some(TakeOptions { check_bounds: true }))
        .map_err(|error| Error::defensive("a code beyond its dictionary").with_source(error))?;
    let picked = taken.as_string_view_opt().cloned();
    picked.ok_or_else(|| Error::defensive("a dictionary of another type than text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_dictionaries_are_decoded_once_while_somebody_holds_them() {
        for (len, stays) in [(MOST_KEPT, true), (MOST_KEPT + 1, false)] {
            let decoded = Decoded::default();
            let times = std::cell::Cell::new(0);
            let decode = || {
                times.set(times.get() + 1);
                Ok((0..len).map(|_| Some("a")).collect::<StringViewArray>())
            };
            let (first, second) = (decoded.kept(decode).unwrap(), decoded.kept(decode).unwrap());
            assert!(Arc::ptr_eq(&first, &second) && times.get() == 1 && decoded.get().is_some());
            drop((first, second));
            assert_eq!((decoded.get().is_some(), decoded.memory_bytes() > 0), (stays, stays));
            decoded.once(decode).unwrap();
            assert_eq!(times.get(), if stays { 1 } else { 2 });
        }
    }
}
