//! Row indexes: for each value of a column that is rare enough, the rows that have it.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::page::{FileBytes, PageEntry, Pages};
use super::wire::{Reader, put_varint, to_u32};
use super::write::Sink;
use crate::error::{Error, Result};

/// One offset leads to this many codes.
const GROUP: usize = 16;

/// A page is closed at the end of a group once it has this many bytes.
const PAGE_BYTES: usize = 32 << 10;

/// The rows of each code, ascending.
#[derive(Debug)]
pub(super) struct RowLists {
    /// Rows of code `c` are `rows[starts[c]..starts[c + 1]]`.
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl RowLists {
    /// `rows` yields (row, code) with ascending rows; it is gone through twice.
    pub(super) fn new(cardinality: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut starts = vec![0u32; cardinality + 2];
        pairs.clone().for_each(|(_, code)| starts[code as usize + 2] += 1);
        for code in 2..starts.len() {
            starts[code] += starts[code - 1];
        }
        // `starts[c + 1]` is where the next row of `c` goes; in the end it is where those of `c + 1` begin.
        let mut rows = vec![0; starts.last().copied().unwrap_or(0) as usize];
        for (row, code) in pairs {
            let next = &mut starts[code as usize + 1];
            rows[*next as usize] = row;
            *next += 1;
        }
        Self { starts, rows }
    }

    fn cardinality(&self) -> usize {
        self.starts.len() - 2
    }

    fn rows_of(&self, code: usize) -> &[u32] {
        &self.rows[self.starts[code] as usize..self.starts[code + 1] as usize]
    }

    /// Writes the rows of those codes that have at most `most_rows`, and appends the directory.
    pub(super) fn write(&self, most_rows: usize, sink: &mut Sink<'_>, directory: &mut Vec<u8>) -> Result<()> {
        let (mut pages, mut offsets, mut body) = (Vec::new(), Vec::<u32>::new(), Vec::new());
        let mut first_code = 0;
        for group in (0..self.cardinality()).step_by(GROUP) {
            offsets.push(to_u32(body.len(), "the bytes of an index page")?);
            let next = (group + GROUP).min(self.cardinality());
            (group..next).for_each(|code| put_rows(self.rows_of(code), most_rows, &mut body));
            if body.len() >= PAGE_BYTES || next == self.cardinality() {
                let mut page = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<_>>();
                page.append(&mut body);
                let entry = PageEntry::seal(&mut page)?;
                sink.put(&page)?;
                pages.push((entry, first_code));
                first_code = next as u32;
                offsets.clear();
            }
        }
        put_directory(&pages, directory)
    }
}

/// The directory of a column without a row index.
pub(super) fn put_no_index(directory: &mut Vec<u8>) -> Result<()> {
    put_directory(&[], directory)
}

fn put_directory(pages: &[(PageEntry, u32)], directory: &mut Vec<u8>) -> Result<()> {
    directory.extend_from_slice(&to_u32(pages.len(), "the pages of an index")?.to_le_bytes());
    for (entry, first_code) in pages {
        entry.put(directory);
        directory.extend_from_slice(&first_code.to_le_bytes());
    }
    Ok(())
}

/// One entry: its length and kind, then gaps or a roaring bitmap. Nothing but a zero for a code that is not indexed.
fn put_rows(rows: &[u32], most_rows: usize, out: &mut Vec<u8>) {
    if rows.is_empty() || rows.len() > most_rows {
        return out.push(0);
    }
    let mut gaps = Vec::with_capacity(rows.len() + 4);
    let mut next = 0;
    for &row in rows {
        // A row that has the code twice is there twice, one after the other.
        if row >= next {
            put_varint(&mut gaps, u64::from(row - next));
            next = row + 1;
        }
    }
    // Many rows: the bitmap is ready for use, so it may be a little larger than the gaps.
    if rows.len() >= 4096 {
        let bitmap = rows.iter().copied().collect::<RoaringBitmap>();
        if bitmap.serialized_size() * 4 <= gaps.len() * 5 {
            put_varint(out, (bitmap.serialized_size() as u64) << 1 | 1);
            bitmap.serialize_into(out).expect("writing to memory cannot fail");
            return;
        }
    }
    put_varint(out, (gaps.len() as u64) << 1);
    out.append(&mut gaps);
}

/// The row index of a column in a file.
#[derive(Debug)]
pub(super) struct FileRowIndex {
    pages: Pages,
    first_codes: Vec<u32>,
    cardinality: u32,
    num_rows: usize,
}

impl FileRowIndex {
    /// Reads its part of the column's directory: `None` if there is no index. Returns also the offset behind its pages.
    pub(super) fn open(
        file: &Arc<FileBytes>,
        column: &Arc<str>,
        start: usize,
        cardinality: usize,
        num_rows: usize,
        directory: &mut Reader<'_>,
    ) -> Result<(Option<Self>, usize)> {
        let count = directory.count(PageEntry::BYTES + 4)?;
        let (mut entries, mut first_codes) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            entries.push(PageEntry::read(directory)?);
            first_codes.push(directory.u32()?);
        }
        let (pages, end) = Pages::new(file, column, "index page", start, entries)?;
        if count == 0 {
            return Ok((None, end));
        }
        let ascending = first_codes.windows(2).all(|pair| pair[0] < pair[1]);
        let whole_groups = first_codes.iter().all(|first| (*first as usize).is_multiple_of(GROUP));
        let cardinality = to_u32(cardinality, "the codes of a column")?;
        if !ascending || !whole_groups || first_codes[0] != 0 || first_codes[count - 1] >= cardinality {
            return Err(directory.damaged("describes index pages that cannot be"));
        }
        Ok((Some(Self { pages, first_codes, cardinality, num_rows }), end))
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The rows that have `code`; `None` where the code is too common to be indexed.
    pub(super) fn rows_of(&self, code: u32) -> Result<Option<RoaringBitmap>> {
        if code >= self.cardinality {
            return Err(Error::defensive("a code beyond its dictionary"));
        }
        let index = self.first_codes.partition_point(|&first| first <= code) - 1;
        self.entry(index, code).map_err(|error| self.pages.locate(index, error))
    }

    fn entry(&self, index: usize, code: u32) -> Result<Option<RoaringBitmap>> {
        let first = self.first_codes[index];
        let next = self.first_codes.get(index + 1).copied().unwrap_or(self.cardinality);
        let (group, position) = ((code - first) as usize / GROUP, (code - first) as usize % GROUP);
        let page = self.pages.get(index)?;
        let mut offsets = Reader::new(page, "an index page");
        let groups = offsets.take(((next - first) as usize).div_ceil(GROUP) * 4)?;
        let body = offsets.rest();
        let offset = Reader::new(&groups[group * 4..], "an index page").u32()? as usize;
        let mut reader = Reader::new(body.get(offset..).unwrap_or_default(), "an index page");
        for _ in 0..position {
            let skipped = reader.varint_length()? >> 1;
            reader.take(skipped)?;
        }
        let header = reader.varint_length()?;
        if header == 0 {
            return Ok(None);
        }
        let bytes = reader.take(header >> 1)?;
        let rows = if header & 1 == 1 { read_bitmap(bytes)? } else { read_gaps(bytes)? };
        match rows.max() {
            Some(last) if (last as usize) < self.num_rows => Ok(Some(rows)),
            _ => Err(reader.damaged("lists rows that the segment does not have")),
        }
    }

    /// Reads every entry.
    pub(super) fn verify(&self) -> Result<()> {
        (0..self.cardinality).try_for_each(|code| self.rows_of(code).map(drop))
    }
}

fn read_bitmap(bytes: &[u8]) -> Result<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes)
        .map_err(|error| Error::corrupt("an index page holds a damaged bitmap").with_source(error))
}

fn read_gaps(bytes: &[u8]) -> Result<RoaringBitmap> {
    let mut reader = Reader::new(bytes, "an index page");
    let mut rows = Vec::with_capacity(bytes.len());
    let mut next = 0u64;
    while reader.remaining() > 0 {
        let row = next.saturating_add(reader.varint()?);
        rows.push(u32::try_from(row).map_err(|_| reader.damaged("lists rows that the segment does not have"))?);
        next = row + 1;
    }
    RoaringBitmap::from_sorted_iter(rows).map_err(|_| reader.damaged("lists rows out of order"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::page::Content;

    #[test]
    fn rows_are_found_for_rare_and_common_values() {
        // Code 0: one row in two; 1: one in three of the rest, too many; from 2 on: a few rows each.
        let other = |row: u32| 1 + (u64::from(row) * u64::from(row) % 20_011) as u32;
        let codes = (0..200_000u32).map(|row| if row % 2 == 0 { 0 } else { other(row) }).collect::<Vec<_>>();
        let lists = RowLists::new(20_012, codes.iter().enumerate().map(|(row, &code)| (row as u32, code)));
        for most_rows in [50, usize::MAX] {
            let (mut bytes, mut directory) = (Vec::new(), Vec::new());
            lists.write(most_rows, &mut Sink::new(&mut bytes), &mut directory).unwrap();
            let file = Arc::new(FileBytes { name: "test".to_owned(), content: Content::Owned(bytes.into()) });
            let mut reader = Reader::new(&directory, "test");
            let (index, _) = FileRowIndex::open(&file, &"column".into(), 0, 20_012, codes.len(), &mut reader).unwrap();
            let index = index.unwrap();
            assert!(index.pages().len() > 1);
            index.verify().unwrap();
            for code in (0..20_012).step_by(501) {
                let expected = codes.iter().enumerate().filter(|(_, c)| **c == code).map(|(row, _)| row as u32);
                let expected = expected.collect::<RoaringBitmap>();
                let expected = (!expected.is_empty() && expected.len() <= most_rows as u64).then_some(expected);
                assert_eq!(index.rows_of(code).unwrap(), expected, "{code}");
            }
        }
    }

    #[test]
    fn a_row_that_has_a_value_twice_is_listed_once() {
        let lists = RowLists::new(1, [(3, 0), (3, 0), (9, 0)].into_iter());
        let mut bytes = Vec::new();
        put_rows(lists.rows_of(0), 10, &mut bytes);
        assert_eq!(bytes, [2 << 1, 3, 5]);
    }
}
