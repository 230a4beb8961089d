//! Columns of text: codes into a dictionary, one a row or any number of them.

use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;

use super::{ColumnSource, count_encodings};
use crate::error::{Error, Result};
use crate::segment::dictionary::FileDictionary;
use crate::segment::encoding::{Encoding, integer};
use crate::segment::page::{PageEntry, Pages};
use crate::segment::row_index::FileRowIndex;
use crate::segment::wire::{Reader, to_u32};
use crate::segment::write::Sink;
use crate::segment::{BLOCK_ROWS, Dictionary, MultiStringColumn, StringColumn, block_range};

/// Counts of rows are kept in pages of this many codes.
const COUNTS_PAGE: usize = 8192;

/// A block of lists may hold this many values in all, so that no damaged number makes a reader allocate without end.
pub(in crate::segment) const MAX_BLOCK_VALUES: usize = 1 << 26;

/// What the directory says of a block.
#[derive(Clone, Copy, Debug)]
struct Block {
    least: u32,
    greatest: u32,
    /// Values in all of its lists; for single values 0.
    values: u32,
}

const RECORD_BYTES: usize = PageEntry::BYTES + 12;

/// Writes the codes of a column block by block.
#[derive(Debug, Default)]
pub(in crate::segment) struct CodesWriter {
    blocks: Vec<(PageEntry, Block)>,
}

impl CodesWriter {
    /// Adds a block of single values.
    pub(in crate::segment) fn push(&mut self, codes: &[u32], sink: &mut Sink<'_>) -> Result<()> {
        let mut page = Vec::new();
        integer::encode(codes, &mut page);
        self.put(page, codes, 0, sink)
    }

    /// Adds a block of lists: their lengths, and all their codes.
    pub(in crate::segment) fn push_lists(&mut self, lengths: &[u32], codes: &[u32], sink: &mut Sink<'_>) -> Result<()> {
        if codes.len() > MAX_BLOCK_VALUES {
            return Err(Error::capacity_exceeded(format!(
                "{BLOCK_ROWS} rows hold {} values of one column, more than the {MAX_BLOCK_VALUES} that a segment allows",
                codes.len()
            )));
        }
        let mut page = Vec::new();
        integer::encode(lengths, &mut page);
        integer::encode(codes, &mut page);
        self.put(page, codes, codes.len() as u32, sink)
    }

    fn put(&mut self, mut page: Vec<u8>, codes: &[u32], values: u32, sink: &mut Sink<'_>) -> Result<()> {
        let entry = PageEntry::seal(&mut page)?;
        sink.put(&page)?;
        let least = codes.iter().copied().min().unwrap_or(0);
        let greatest = codes.iter().copied().max().unwrap_or(0);
        self.blocks.push((entry, Block { least, greatest, values }));
        Ok(())
    }

    /// Appends the directory of the blocks.
    pub(in crate::segment) fn finish(self, directory: &mut Vec<u8>) -> Result<()> {
        directory.extend_from_slice(&to_u32(self.blocks.len(), "the blocks of a column")?.to_le_bytes());
        for (entry, block) in &self.blocks {
            entry.put(directory);
            for number in [block.least, block.greatest, block.values] {
                directory.extend_from_slice(&number.to_le_bytes());
            }
        }
        Ok(())
    }
}

/// Writes how many rows have each code, and appends the directory. `None`: it is not recorded.
pub(in crate::segment) fn put_counts(
    counts: Option<&[u32]>,
    sink: &mut Sink<'_>,
    directory: &mut Vec<u8>,
) -> Result<()> {
    let mut entries = Vec::new();
    for counts in counts.unwrap_or_default().chunks(COUNTS_PAGE) {
        let mut page = Vec::new();
        integer::encode(counts, &mut page);
        entries.push(PageEntry::seal(&mut page)?);
        sink.put(&page)?;
    }
    directory.extend_from_slice(&to_u32(entries.len(), "the pages of row counts")?.to_le_bytes());
    entries.iter().for_each(|entry| entry.put(directory));
    Ok(())
}

/// What both kinds of text columns have.
#[derive(Debug)]
pub(in crate::segment) struct FileStrings {
    dictionary: FileDictionary,
    pages: Pages,
    blocks: Vec<Block>,
    index: Option<FileRowIndex>,
    counts: Pages,
    row_counts: OnceLock<Arc<Vec<u32>>>,
    num_rows: usize,
}

impl FileStrings {
    fn open(source: ColumnSource<'_>) -> Result<Self> {
        let mut directory = source.directory()?;
        let (file, name, num_rows) = (source.file, source.name(), source.num_rows);
        let has_null = directory.u8()? != 0;
        let (dictionary, end) = FileDictionary::open(file, &name, source.start, has_null, &mut directory)?;
        let cardinality = dictionary.cardinality();
        let (pages, blocks, end) = open_blocks(source, end, cardinality, &mut directory)?;
        let (index, end) = FileRowIndex::open(file, &name, end, cardinality, num_rows, &mut directory)?;
        let entries = (0..directory.count(PageEntry::BYTES)?)
            .map(|_| PageEntry::read(&mut directory))
            .collect::<Result<Vec<_>>>()?;
        let (counts, end) = Pages::new(file, &name, "page of row counts", end, entries)?;
        if counts.len() > 0 && counts.len() != cardinality.div_ceil(COUNTS_PAGE) {
            return Err(directory.damaged("lists another number of row counts than there are values"));
        }
        if cardinality != source.entry.cardinality as usize {
            return Err(directory.damaged("has another number of values than the footer says"));
        }
        directory.finish_padded()?;
        source.check_end(end)?;
        Ok(Self { dictionary, pages, blocks, index, counts, row_counts: OnceLock::new(), num_rows })
    }

    pub(in crate::segment) fn dictionary(&self) -> &FileDictionary {
        &self.dictionary
    }

    pub(in crate::segment) fn memory_bytes(&self) -> usize {
        let counts = self.row_counts.get().map_or(0, |counts| counts.len() * 4);
        let pages = [Some(&self.pages), Some(&self.counts), self.index.as_ref().map(FileRowIndex::pages)];
        let pages = pages.into_iter().flatten().map(Pages::memory_bytes).sum::<usize>();
        self.dictionary.memory_bytes() + self.blocks.len() * size_of::<Block>() + pages + counts
    }

    pub(in crate::segment) fn encodings(&self) -> Result<Vec<(Encoding, usize)>> {
        count_encodings(&self.pages, |page| page.first().copied())
    }

    /// Replaces `out` by `count` numbers, each at most `greatest`.
    fn decode(&self, reader: &mut Reader<'_>, count: usize, greatest: u32, out: &mut Vec<u32>) -> Result<()> {
        // Not cleared: whole blocks of the same length are then not filled with zeros first.
        out.resize(integer::padded(count), 0);
        let read = integer::decode(reader, count, out);
        out.truncate(count);
        read?;
        // A code beyond the dictionary would be somebody's index out of bounds.
        if integer::greatest(out) > greatest {
            return Err(reader.damaged("holds a number that its directory rules out"));
        }
        Ok(())
    }

    fn block(&self, block: usize) -> Result<Block> {
        self.blocks.get(block).copied().ok_or_else(|| Error::defensive(format!("there is no block {block}")))
    }

    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        self.index.as_ref().map_or(Ok(None), |index| index.rows_of(code))
    }

    fn row_counts(&self) -> Result<Option<Arc<Vec<u32>>>> {
        if self.counts.len() == 0 {
            return Ok(None);
        }
        if let Some(counts) = self.row_counts.get() {
            return Ok(Some(Arc::clone(counts)));
        }
        let mut all = Vec::with_capacity(self.dictionary.cardinality());
        let mut counts = Vec::new();
        for page in 0..self.counts.len() {
            let count = (self.dictionary.cardinality() - all.len()).min(COUNTS_PAGE);
            let mut reader = Reader::new(self.counts.get(page)?, "the row counts");
            self.decode(&mut reader, count, self.num_rows as u32, &mut counts)
                .and_then(|()| reader.finish())
                .map_err(|error| self.counts.locate(page, error))?;
            all.extend_from_slice(&counts);
        }
        Ok(Some(Arc::clone(self.row_counts.get_or_init(|| Arc::new(all)))))
    }

    /// Checks dictionary, index and counts against the codes, given as (row, code).
    fn verify(&self, each: impl FnOnce(&mut dyn FnMut(u32, u32)) -> Result<()>) -> Result<()> {
        self.dictionary.verify()?;
        let mut last_rows = vec![None; self.dictionary.cardinality()];
        let mut found = vec![0u32; self.dictionary.cardinality()];
        each(&mut |row, code| {
            if last_rows[code as usize] != Some(row) {
                found[code as usize] += 1;
                last_rows[code as usize] = Some(row);
            }
        })?;
        if self.row_counts()?.is_some_and(|counts| *counts != found) {
            return Err(self.counts.locate(0, Error::corrupt("row counts differ from the rows")));
        }
        let Some(index) = &self.index else { return Ok(()) };
        index.verify()?;
        for (code, &count) in found.iter().enumerate() {
            if index.rows_of(code as u32)?.is_some_and(|rows| rows.len() != u64::from(count)) {
                return Err(index.pages().locate(0, Error::corrupt("the row index differs from the rows")));
            }
        }
        Ok(())
    }
}

fn open_blocks(
    source: ColumnSource<'_>,
    start: usize,
    cardinality: usize,
    directory: &mut Reader<'_>,
) -> Result<(Pages, Vec<Block>, usize)> {
    let count = directory.count(RECORD_BYTES)?;
    if count != source.num_rows.div_ceil(BLOCK_ROWS) {
        return Err(directory.damaged("lists another number of blocks than the rows make"));
    }
    let (mut entries, mut blocks) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        entries.push(PageEntry::read(directory)?);
        let block = Block { least: directory.u32()?, greatest: directory.u32()?, values: directory.u32()? };
        // A block of empty lists has no codes at all, and then there need not be a dictionary.
        let within = (block.greatest as usize) < cardinality.max(1);
        if block.least > block.greatest || !within || block.values as usize > MAX_BLOCK_VALUES {
            return Err(directory.damaged("describes a block that cannot be"));
        }
        blocks.push(block);
    }
    let (pages, end) = Pages::new(source.file, &source.name(), "block", start, entries)?;
    Ok((pages, blocks, end))
}

/// A column with one text a row.
#[derive(Debug)]
pub(in crate::segment) struct FileStringColumn(FileStrings);

impl FileStringColumn {
    pub(in crate::segment) fn open(source: ColumnSource<'_>) -> Result<Self> {
        let strings = FileStrings::open(source)?;
        if source.num_rows > 0 && strings.dictionary.cardinality() == 0 {
            return Err(Error::corrupt("the column has rows but no values"));
        }
        Ok(Self(strings))
    }

    pub(in crate::segment) fn strings(&self) -> &FileStrings {
        &self.0
    }

    pub(in crate::segment) fn verify(&self) -> Result<()> {
        self.0.verify(|each| {
            let mut codes = Vec::new();
            for block in 0..self.0.pages.len() {
                self.read_codes(block, &mut codes)?;
                let least = codes.iter().copied().min();
                if least.is_some_and(|least| least < self.0.blocks[block].least) {
                    return Err(self.0.pages.locate(block, Error::corrupt("a code lies below the block's range")));
                }
                let rows = block_range(block, self.0.num_rows);
                rows.zip(&codes).for_each(|(row, &code)| each(row as u32, code));
            }
            Ok(())
        })
    }
}

impl StringColumn for FileStringColumn {
    fn dictionary(&self) -> &dyn Dictionary {
        &self.0.dictionary
    }

    fn read_codes(&self, block: usize, out: &mut Vec<u32>) -> Result<()> {
        let mut reader = Reader::new(self.0.pages.get(block)?, "a block");
        let rows = block_range(block, self.0.num_rows).len();
        self.0
            .decode(&mut reader, rows, self.0.blocks[block].greatest, out)
            .and_then(|()| reader.finish())
            .map_err(|error| self.0.pages.locate(block, error))
    }

    fn code_range(&self, block: usize) -> Result<(u32, u32)> {
        self.0.block(block).map(|block| (block.least, block.greatest))
    }

    fn has_row_index(&self) -> bool {
        self.0.index.is_some()
    }

    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        self.0.rows_of(code)
    }

    fn row_counts(&self) -> Result<Option<Arc<Vec<u32>>>> {
        self.0.row_counts()
    }
}

/// A column with a list of texts a row.
#[derive(Debug)]
pub(in crate::segment) struct FileMultiStringColumn(FileStrings);

impl FileMultiStringColumn {
    pub(in crate::segment) fn open(source: ColumnSource<'_>) -> Result<Self> {
        let strings = FileStrings::open(source)?;
        if strings.dictionary.cardinality() == 0 && strings.blocks.iter().any(|block| block.values > 0) {
            return Err(Error::corrupt("the column has codes but no values"));
        }
        Ok(Self(strings))
    }

    pub(in crate::segment) fn strings(&self) -> &FileStrings {
        &self.0
    }

    pub(in crate::segment) fn verify(&self) -> Result<()> {
        self.0.verify(|each| {
            let (mut offsets, mut codes) = (Vec::new(), Vec::new());
            for block in 0..self.0.pages.len() {
                self.read_codes(block, &mut offsets, &mut codes)?;
                for (row, ends) in block_range(block, self.0.num_rows).zip(offsets.windows(2)) {
                    codes[ends[0] as usize..ends[1] as usize].iter().for_each(|&code| each(row as u32, code));
                }
            }
            Ok(())
        })
    }

    fn read(&self, block: usize, offsets: &mut Vec<u32>, codes: &mut Vec<u32>) -> Result<()> {
        let mut reader = Reader::new(self.0.pages.get(block)?, "a block");
        let described = self.0.block(block)?;
        let rows = block_range(block, self.0.num_rows).len();
        self.0.decode(&mut reader, rows, described.values, offsets)?;
        let mut end = 0u64;
        for length in offsets.iter_mut() {
            let start = end;
            end += u64::from(*length);
            *length = start as u32;
        }
        if end != u64::from(described.values) {
            return Err(reader.damaged("holds another number of values than its directory says"));
        }
        offsets.push(end as u32);
        self.0.decode(&mut reader, end as usize, described.greatest, codes)?;
        reader.finish()
    }
}

impl MultiStringColumn for FileMultiStringColumn {
    fn dictionary(&self) -> &dyn Dictionary {
        &self.0.dictionary
    }

    fn read_codes(&self, block: usize, offsets: &mut Vec<u32>, codes: &mut Vec<u32>) -> Result<()> {
        self.read(block, offsets, codes).map_err(|error| self.0.pages.locate(block, error))
    }

    fn has_row_index(&self) -> bool {
        self.0.index.is_some()
    }

    fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        self.0.rows_of(code)
    }
}
