//! One sorted dictionary out of several.

use std::sync::Arc;

use arrow::array::{Array, StringViewArray};

use crate::error::{Error, Result};
use crate::segment::Dictionary;

/// Which codes of an input's dictionary occur in the rows at hand.
#[derive(Debug)]
pub(super) struct UsedCodes {
    values: Arc<StringViewArray>,
    has_null: bool,
    used: Vec<bool>,
}

impl UsedCodes {
    pub(super) fn none_of(dictionary: &dyn Dictionary) -> Result<Self> {
        let values = dictionary.values_once()?;
        if values.len() != dictionary.cardinality() {
            return Err(Error::defensive("a dictionary of another length than it says"));
        }
        Ok(Self { used: vec![false; values.len()], values, has_null: dictionary.has_null() })
    }

    pub(super) fn all_of(dictionary: &dyn Dictionary) -> Result<Self> {
        let mut codes = Self::none_of(dictionary)?;
        codes.used.fill(true);
        Ok(codes)
    }

    pub(super) fn mark(&mut self, codes: &[u32]) {
        for &code in codes {
            self.used[code as usize] = true;
        }
    }

    fn uses_null(&self) -> bool {
        self.has_null && self.used.first().is_some_and(|used| *used)
    }
}

/// Whether a merged dictionary begins with the null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Null {
    /// Where an input uses it.
    IfUsed,
    /// In any case: a column is missing somewhere, or codes are to be compared.
    Always,
}

/// The values that occur, merged and sorted.
#[derive(Debug)]
pub(in crate::segment) struct Unified {
    inputs: Vec<Option<UsedCodes>>,
    has_null: bool,
    /// Where the text of each code is found, as (input, code there); without the null.
    values: Vec<(u32, u32)>,
    /// For each input, the merged code of each of its codes; 0 for those not used.
    codes: Vec<Vec<u32>>,
}

impl Unified {
    /// An input without the column is `None`.
    pub(super) fn of(inputs: Vec<Option<UsedCodes>>, null: Null) -> Self {
        let has_null = null == Null::Always || inputs.iter().flatten().any(UsedCodes::uses_null);
        let mut codes =
            inputs.iter().map(|input| vec![0; input.as_ref().map_or(0, |input| input.used.len())]).collect::<Vec<_>>();
        let mut values = Vec::<(u32, u32)>::new();
        let mut previous: Option<&str> = None;
        for entry in sorted_entries(&inputs) {
            if previous != Some(entry.text) {
                values.push((entry.input, entry.code));
                previous = Some(entry.text);
            }
            codes[entry.input as usize][entry.code as usize] = (values.len() - 1) as u32 + u32::from(has_null);
        }
        Self { inputs, has_null, values, codes }
    }

    pub(in crate::segment) fn has_null(&self) -> bool {
        self.has_null
    }

    /// Codes, the null among them.
    pub(in crate::segment) fn cardinality(&self) -> usize {
        self.values.len() + usize::from(self.has_null)
    }

    /// The values in their order, without the null.
    pub(in crate::segment) fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().filter_map(|&(input, code)| {
            self.inputs[input as usize].as_ref().map(|input| input.values.value(code as usize))
        })
    }

    /// The merged codes of an input's codes.
    pub(super) fn codes_of(&self, input: usize) -> &[u32] {
        &self.codes[input]
    }
}

struct Entry<'a> {
    /// The first bytes of the text, so that most comparisons need no more.
    prefix: u64,
    text: &'a str,
    input: u32,
    code: u32,
}

fn sorted_entries(inputs: &[Option<UsedCodes>]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let Some(input) = input else { continue };
        for code in usize::from(input.has_null)..input.used.len() {
            if input.used[code] {
                let text = input.values.value(code);
                entries.push(Entry { prefix: prefix_of(text), text, input: index as u32, code: code as u32 });
            }
        }
    }
    // The stable sort finds the runs that are sorted already, and merges them.
    entries.sort_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| a.text.cmp(b.text)));
    entries
}

fn prefix_of(text: &str) -> u64 {
    let mut prefix = [0; 8];
    let length = text.len().min(8);
    prefix[..length].copy_from_slice(&text.as_bytes()[..length]);
    u64::from_be_bytes(prefix)
}
