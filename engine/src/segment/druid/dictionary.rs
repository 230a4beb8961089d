//! Druid's dictionaries of texts: sorted by UTF-16 code units, which is bytewise order but for characters beyond the
//! Basic Multilingual Plane.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{StringViewArray, StringViewBuilder};

use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use super::front_coded::FrontCoded;
use super::indexed::Indexed;
use super::{Nulls, index_of_code};
use crate::error::{Error, Result};
use crate::segment::Dictionary;
use crate::segment::decoded::{Decoded, pick};

/// What a dictionary's texts may take together; front-coding can multiply them.
const MAX_TEXT_BYTES: usize = 2 << 30;

/// The first byte of a dictionary that says how it is encoded.
const WRAPPED: u8 = 0x7f;

/// A list of texts, of which the first may be null.
#[derive(Debug)]
pub(super) enum Texts {
    Plain(Indexed),
    FrontCoded { list: FrontCoded, has_null: bool },
}

impl Texts {
    pub(super) fn read(cursor: &mut Cursor, files: &Container, order: ByteOrder) -> Result<Self> {
        if cursor.peek().first() != Some(&WRAPPED) {
            return Ok(Self::Plain(Indexed::read(cursor, files, order)?));
        }
        cursor.u8()?;
        match cursor.u8()? {
            0 => Ok(Self::Plain(Indexed::read(cursor, files, order)?)),
            1 => {
                let (list, has_null) = FrontCoded::read_texts(cursor, order)?;
                Ok(Self::FrontCoded { list, has_null })
            }
            id => Err(Error::unsupported(format!("encoding {id} of a dictionary is not known"))),
        }
    }

    /// The null and nothing else.
    pub(super) fn only_null() -> Self {
        Self::FrontCoded { list: FrontCoded::empty(), has_null: true }
    }

    /// The null among them.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(list) => list.len(),
            Self::FrontCoded { list, has_null } => list.len() + usize::from(*has_null),
        }
    }

    /// Calls `each` with all entries, in order.
    pub(super) fn for_each(&self, mut each: impl FnMut(Option<&[u8]>) -> Result<()>) -> Result<()> {
        match self {
            Self::Plain(list) => (0..list.len()).try_for_each(|index| each(list.get(index)?)),
            Self::FrontCoded { list, has_null } => {
                if *has_null {
                    each(None)?;
                }
                list.for_each(|value| each(Some(value)))
            }
        }
    }

    /// One entry.
    pub(super) fn get(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>> {
        match self {
            Self::Plain(list) => Ok(list.get(index)?.map(Cow::Borrowed)),
            Self::FrontCoded { has_null: true, .. } if index == 0 => Ok(None),
            Self::FrontCoded { list, has_null } => {
                let mut value = Vec::new();
                list.get(index - usize::from(*has_null), &mut value)?;
                Ok(Some(Cow::Owned(value)))
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Plain(list) if list.is_split() => "plain in several files".to_owned(),
            Self::Plain(_) => "plain".to_owned(),
            Self::FrontCoded { list, .. } => list.describe(),
        }
    }
}

/// Compares as Java compares strings: by UTF-16 code units. Surrogates, which in UTF-8 begin with F0 and up, come before
/// the characters that begin with EE and EF.
pub(super) fn by_utf16(a: &[u8], b: &[u8]) -> Ordering {
    let Some((a, b)) = a.iter().zip(b).find(|(a, b)| a != b) else { return a.len().cmp(&b.len()) };
    let rank = |byte: u8| {
        if byte >= 0xf0 {
            byte - 0xf0 + 0xee
        } else if byte >= 0xee {
            byte + 0x10
        } else {
            byte
        }
    };
    rank(*a).cmp(&rank(*b))
}

/// The dictionary of a column. Opening it has read all of it: its order, and that it is UTF-8.
#[derive(Debug)]
pub(super) struct DruidDictionary {
    texts: Texts,
    /// Whether the first entry stands for null.
    has_null: bool,
    /// Whether the order is bytewise.
    is_sorted: bool,
    text_bytes: usize,
    values: Decoded,
}

impl DruidDictionary {
    pub(super) fn open(texts: Texts, nulls: Nulls) -> Result<Self> {
        if i32::try_from(texts.len()).is_err() {
            return Err(Error::corrupt("a dictionary has more than 2^31 values"));
        }
        let (mut has_null, mut is_sorted, mut text_bytes) = (false, true, 0usize);
        let (mut index, mut previous): (usize, Vec<u8>) = (0, Vec::new());
        texts.for_each(|value| {
            let first = usize::from(has_null);
            match value {
                Some(value) => {
                    std::str::from_utf8(value).map_err(|error| not_utf8(index).with_source(error))?;
                    if index > first && by_utf16(&previous, value) != Ordering::Less {
                        return Err(Error::corrupt(format!("value {index} of the dictionary is out of order")));
                    }
                    is_sorted &= index <= first || *previous < *value;
                    has_null |= index == 0 && value.is_empty() && nulls == Nulls::EmptyIsNull;
                    previous.clear();
                    previous.extend_from_slice(value);
                    text_bytes += value.len();
                }
                None if index == 0 => has_null = true,
                None => return Err(Error::corrupt("a null stands in the midst of a dictionary")),
            }
            index += 1;
            match text_bytes > MAX_TEXT_BYTES {
                true => Err(Error::capacity_exceeded("a dictionary of more than 2 GiB of text is not read")),
                false => Ok(()),
            }
        })?;
        Ok(Self { texts, has_null, is_sorted, text_bytes, values: Decoded::default() })
    }

    pub(super) fn describe(&self) -> String {
        let order = if self.is_sorted { "" } else { ", in the order of UTF-16" };
        let null = if self.has_null { " with null" } else { "" };
        format!("{} values{null}, dictionary {}{order}", self.texts.len(), self.texts.describe())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.values.memory_bytes()
    }

    fn decode(&self) -> Result<StringViewArray> {
        let block = u32::try_from(self.text_bytes.clamp(1, 1 << 30)).unwrap_or(1 << 30);
        let mut values = StringViewBuilder::with_capacity(self.texts.len()).with_fixed_block_size(block);
        let mut is_first = true;
        self.texts.for_each(|value| {
            let value = value.filter(|_| !(is_first && self.has_null));
            is_first = false;
            values.append_option(value.map(text).transpose()?);
            Ok(())
        })?;
        Ok(values.finish())
    }

    /// The first entry that is not less, by Druid's order or bytewise, and whether it is equal.
    fn search(&self, wanted: &str, order: fn(&[u8], &[u8]) -> Ordering) -> Result<(usize, bool)> {
        let (mut low, mut high) = (usize::from(self.has_null), self.texts.len());
        while low < high {
            let middle = low.midpoint(high);
            let value = self.texts.get(middle)?.unwrap_or_default();
            match order(&value, wanted.as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Greater => high = middle,
            }
        }
        Ok((low, false))
    }
}

fn text(value: &[u8]) -> Result<&str> {
    std::str::from_utf8(value).map_err(|error| Error::corrupt("text of a dictionary is not UTF-8").with_source(error))
}

fn not_utf8(index: usize) -> Error {
    Error::corrupt(format!("value {index} of the dictionary is not UTF-8"))
}

impl Dictionary for DruidDictionary {
    fn cardinality(&self) -> usize {
        self.texts.len()
    }

    fn has_null(&self) -> bool {
        self.has_null
    }

    fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    fn code_of(&self, value: &str) -> Result<Option<u32>> {
        let (index, is_equal) = self.search(value, by_utf16)?;
        Ok(is_equal.then_some(index as u32))
    }

    fn lower_bound(&self, value: &str) -> Result<u32> {
        if !self.is_sorted {
            return Err(Error::defensive("a lower bound was asked of a dictionary that is not sorted bytewise"));
        }
        Ok(self.search(value, <[u8]>::cmp)?.0 as u32)
    }

    fn values(&self) -> Result<Arc<StringViewArray>> {
        self.values.kept(|| self.decode())
    }

    fn values_once(&self) -> Result<Arc<StringViewArray>> {
        self.values.once(|| self.decode())
    }

    fn values_of(&self, codes: &[u32]) -> Result<StringViewArray> {
        if let Some(values) = self.values.get() {
            return pick(&values, codes);
        }
        let mut values = StringViewBuilder::with_capacity(codes.len());
        for &code in codes {
            let index = index_of_code(code, self.texts.len())?;
            let value = if index == 0 && self.has_null { None } else { self.texts.get(index)? };
            values.append_option(value.as_deref().map(text).transpose()?);
        }
        Ok(values.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_come_before_the_last_characters_of_the_basic_plane() {
        let mut texts =
            ["", "a", "ab", "é", "\u{d7ff}", "\u{e000}", "\u{ffff}", "\u{10000}", "\u{10ffff}", "a\u{10000}"];
        texts.sort_by(|a, b| by_utf16(a.as_bytes(), b.as_bytes()));
        let mut expected = texts;
        expected.sort_by_key(|text| text.encode_utf16().collect::<Vec<_>>());
        assert_eq!(texts, expected);
        assert_eq!(texts[6..], ["\u{10000}", "\u{10ffff}", "\u{e000}", "\u{ffff}"]);
    }
}
