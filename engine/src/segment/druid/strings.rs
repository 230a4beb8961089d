//! String columns: part `stringDictionary`, and scalar `auto` columns of strings.

use std::ops::Range;
use std::sync::OnceLock;

use roaring::RoaringBitmap;

use super::bitmap::Bitmaps;
use super::dictionary::DruidDictionary;
use super::ids::{IdLists, Ids};
use super::{MemoryUse, block_rows};
use crate::error::{Error, Result};
use crate::segment::{BLOCK_ROWS, Dictionary, MultiStringColumn, StringColumn};

/// A bitmap of more than this part of a byte a row is dearer to unite than the column is to read.
const DEAR_BITMAP_ROWS_PER_BYTE: usize = 32;
/// Smaller ones are always cheap.
const CHEAP_BITMAP_BYTES: usize = 4096;

/// One text a row.
#[derive(Debug)]
pub(super) struct DruidStrings {
    dictionary: DruidDictionary,
    ids: Ids,
    bitmaps: Option<Bitmaps>,
    /// Least and greatest code of each block that was read.
    ranges: Vec<OnceLock<(u32, u32)>>,
}

impl DruidStrings {
    pub(super) fn new(dictionary: DruidDictionary, ids: Ids, bitmaps: Option<Bitmaps>) -> Self {
        let ranges = (0..ids.len().div_ceil(BLOCK_ROWS)).map(|_| OnceLock::new()).collect();
        Self { dictionary, ids, bitmaps, ranges }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn describe(&self) -> String {
        describe(&self.dictionary, &self.ids.describe(), self.bitmaps.as_ref())
    }
}

fn describe(dictionary: &DruidDictionary, ids: &str, bitmaps: Option<&Bitmaps>) -> String {
    let bitmaps = bitmaps.map_or("no", |bitmaps| bitmaps.kind().name());
    format!("{}, {ids}, {bitmaps} bitmaps", dictionary.describe())
}

/// The least and the greatest, if all lie below the cardinality.
fn check_codes(codes: &[u32], cardinality: usize, rows: &Range<usize>) -> Result<(u32, u32)> {
    let range = codes.iter().fold((u32::MAX, 0), |(least, greatest), &code| (least.min(code), greatest.max(code)));
    match codes.is_empty() || (range.1 as usize) < cardinality {
        true => Ok(range),
        false => Err(Error::corrupt(format!(
            "a row of {} to {} has value {} of a dictionary of {cardinality}",
            rows.start, rows.end, range.1
        ))),
    }
}

fn rows_of(bitmaps: Option<&Bitmaps>, code: u32, cardinality: usize, num_rows: usize) -> Result<Option<RoaringBitmap>> {
    let Some(bitmaps) = bitmaps else { return Ok(None) };
    let index = super::index_of_code(code, cardinality)?;
    if bitmaps.bytes_of(index)? > CHEAP_BITMAP_BYTES.max(num_rows / DEAR_BITMAP_ROWS_PER_BYTE) {
        return Ok(None);
    }
    bitmaps.rows_of(index, num_rows).map(Some)
}

impl StringColumn for DruidStrings {
    fn dictionary(&self) -> &dyn Dictionary {
        &self.dictionary
    }

    fn read_codes(&self, block: usize, out: &mut Vec<u32>) -> Result<()> {
        let rows = block_rows(block, self.ids.len())?;
        out.clear();
        self.ids.append(rows.clone(), out).map_err(|error| error.context("block", block))?;
        let range = check_codes(out, self.dictionary.cardinality(), &rows)?;
        self.ranges[block].get_or_init(|| range);
        Ok(())
    }

    fn code_range(&self, block: usize) -> Result<(u32, u32)> {
        if let Some(range) = self.ranges.get(block).and_then(OnceLock::get) {
            return Ok(*range);
        }
        let mut codes = Vec::with_capacity(BLOCK_ROWS);
        self.read_codes(block, &mut codes)?;
        self.ranges[block].get().copied().ok_or_else(|| Error::defensive("a block that was read has no range"))
    }

    fn has_row_index(&self) -> bool {
        self.bitmaps.is_some()
    }

    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        rows_of(self.bitmaps.as_ref(), code, self.dictionary.cardinality(), self.ids.len())
    }

    fn row_counts(&self) -> Result<Option<std::sync::Arc<Vec<u32>>>> {
        Ok(None)
    }
}

impl MemoryUse for DruidStrings {
    fn memory_bytes(&self) -> usize {
        self.dictionary.memory_bytes() + self.ids.memory_bytes() + self.ranges.len() * size_of::<OnceLock<(u32, u32)>>()
    }
}

/// Any number of texts a row.
#[derive(Debug)]
pub(super) struct DruidMultiStrings {
    dictionary: DruidDictionary,
    lists: IdLists,
    bitmaps: Option<Bitmaps>,
    /// Whether value 0 is what Druid calls null: its bitmap has the rows without values too.
    has_null_like: bool,
}

impl DruidMultiStrings {
    pub(super) fn new(dictionary: DruidDictionary, lists: IdLists, bitmaps: Option<Bitmaps>) -> Result<Self> {
        let has_null_like = dictionary.has_null() || dictionary.code_of("")? == Some(0);
        Ok(Self { dictionary, lists, bitmaps, has_null_like })
    }

    pub(super) fn len(&self) -> usize {
        self.lists.len()
    }

    pub(super) fn describe(&self) -> String {
        describe(&self.dictionary, &self.lists.describe(), self.bitmaps.as_ref())
    }
}

impl MultiStringColumn for DruidMultiStrings {
    fn dictionary(&self) -> &dyn Dictionary {
        &self.dictionary
    }

    fn read_codes(&self, block: usize, offsets: &mut Vec<u32>, codes: &mut Vec<u32>) -> Result<()> {
        let rows = block_rows(block, self.lists.len())?;
        self.lists.read(rows.clone(), offsets, codes).map_err(|error| error.context("block", block))?;
        check_codes(codes, self.dictionary.cardinality(), &rows).map(drop)
    }

    fn has_row_index(&self) -> bool {
        self.bitmaps.is_some()
    }

    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        if code == 0 && self.has_null_like {
            return Ok(None);
        }
        rows_of(self.bitmaps.as_ref(), code, self.dictionary.cardinality(), self.lists.len())
    }
}

impl MemoryUse for DruidMultiStrings {
    fn memory_bytes(&self) -> usize {
        self.dictionary.memory_bytes() + self.lists.memory_bytes()
    }
}

/// A column without a value in any row.
#[derive(Debug)]
pub(super) struct NullStrings {
    pub(super) dictionary: DruidDictionary,
    pub(super) num_rows: usize,
}

impl StringColumn for NullStrings {
    fn dictionary(&self) -> &dyn Dictionary {
        &self.dictionary
    }

    fn read_codes(&self, block: usize, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        out.resize(block_rows(block, self.num_rows)?.len(), 0);
        Ok(())
    }

    fn code_range(&self, _block: usize) -> Result<(u32, u32)> {
        Ok((0, 0))
    }

    fn has_row_index(&self) -> bool {
        false
    }

    fn rows_of(&self, _code: u32) -> Result<Option<RoaringBitmap>> {
        Ok(None)
    }

    fn row_counts(&self) -> Result<Option<std::sync::Arc<Vec<u32>>>> {
        Ok(None)
    }
}

impl MemoryUse for NullStrings {
    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
    }
}
