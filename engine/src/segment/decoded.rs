//! What all dictionaries do with values that were decoded.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, AsArray, StringViewArray, UInt32Array};
use arrow::compute::{TakeOptions, take};

use crate::error::{Error, Result};

/// All values of a dictionary, once somebody asked for them.
#[derive(Debug, Default)]
pub(super) struct Decoded(OnceLock<Arc<StringViewArray>>);

impl Decoded {
    pub(super) fn get(&self) -> Option<&StringViewArray> {
        self.0.get().map(Arc::as_ref)
    }

    /// The values, decoded if they were not yet, and kept.
    pub(super) fn kept(&self, decode: impl FnOnce() -> Result<StringViewArray>) -> Result<Arc<StringViewArray>> {
        if let Some(values) = self.0.get() {
            return Ok(Arc::clone(values));
        }
        // Two threads may both decode them; one result is kept.
        let values = Arc::new(decode()?);
        Ok(Arc::clone(self.0.get_or_init(|| values)))
    }

    /// The same, but what was not decoded yet is not kept.
    pub(super) fn once(&self, decode: impl FnOnce() -> Result<StringViewArray>) -> Result<Arc<StringViewArray>> {
        match self.0.get() {
            Some(values) => Ok(Arc::clone(values)),
            None => Ok(Arc::new(decode()?)),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.get().map_or(0, |values| values.get_array_memory_size())
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
