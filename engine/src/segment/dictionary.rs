//! Sorted dictionaries, front-coded: of each value only what differs from the one before, whole every sixteenth.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, StringViewArray, StringViewBuilder, make_view};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use zstd::bulk::Decompressor;

use super::Dictionary;
use super::decoded::{Decoded, pick};
use super::page::{FileBytes, PageEntry, Pages};
use super::wire::{Reader, put_string, put_varint, to_u32};
use super::write::Sink;
use crate::error::{Error, Result};

/// Every so many values one is written whole, so that a search need not begin at the start of the page.
const RESTART: usize = 16;

/// A page is closed once it holds this many bytes of front-coded values. Small, because a few values of an answer are
/// mostly on as many pages, each of which is decompressed.
const PAGE_BYTES: usize = 8 << 10;

/// Pages are compressed at this level of zstd: smaller is better here, for a page is decompressed once.
const ZSTD_LEVEL: i32 = 3;

/// A page that claims to decompress to more than this many times its size is a lie: such pages are stored plainly.
const MAX_RATIO: usize = 64;

/// Buffers of values are closed before this many bytes, because a view counts in 32 bits.
const BUFFER_BYTES: usize = 1 << 30;

#[derive(Clone, Debug)]
struct DictionaryPage {
    entry: PageEntry,
    /// Bytes after decompression; 0 if the page is not compressed.
    raw_length: u32,
    values: u32,
}

/// Writes the values of a dictionary, and remembers what the column's directory is to say of them.
#[derive(Debug, Default)]
pub(super) struct DictionaryWriter {
    restarts: Vec<u8>,
    body: Vec<u8>,
    values: u32,
    first: String,
    previous: String,
    pages: Vec<(DictionaryPage, String)>,
}

impl DictionaryWriter {
    /// Adds the next value, which must be greater than the one before.
    pub(super) fn push(&mut self, value: &str, sink: &mut Sink<'_>) -> Result<()> {
        debug_assert!(self.values == 0 || *value > *self.previous, "dictionary values ascend");
        if self.values == 0 {
            self.first = value.to_owned();
        }
        if (self.values as usize).is_multiple_of(RESTART) {
            self.restarts.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
            put_string(&mut self.body, value);
        } else {
            let shared = value.bytes().zip(self.previous.bytes()).take_while(|(a, b)| a == b).count();
            put_varint(&mut self.body, shared as u64);
            put_varint(&mut self.body, (value.len() - shared) as u64);
            self.body.extend_from_slice(&value.as_bytes()[shared..]);
        }
        self.values += 1;
        self.previous.clear();
        self.previous.push_str(value);
        if self.body.len() >= PAGE_BYTES { self.close_page(sink) } else { Ok(()) }
    }

    fn close_page(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if self.values == 0 {
            return Ok(());
        }
        let mut raw = std::mem::take(&mut self.restarts);
        raw.append(&mut self.body);
        let raw_length = to_u32(raw.len(), "the bytes of a dictionary page")?;
        let compressed = zstd::bulk::compress(&raw, ZSTD_LEVEL)
            .map_err(|error| Error::runtime_failure("cannot compress a dictionary page").with_source(error))?;
        let pays = compressed.len() * 8 < raw.len() * 7 && raw.len() <= compressed.len() * MAX_RATIO;
        let (mut page, raw_length) = if pays { (compressed, raw_length) } else { (raw, 0) };
        let entry = PageEntry::seal(&mut page)?;
        sink.put(&page)?;
        let page = DictionaryPage { entry, raw_length, values: std::mem::take(&mut self.values) };
        self.pages.push((page, std::mem::take(&mut self.first)));
        Ok(())
    }

    /// Writes what is left, and appends the directory of the dictionary to `directory`.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>, directory: &mut Vec<u8>) -> Result<()> {
        self.close_page(sink)?;
        directory.extend_from_slice(&to_u32(self.pages.len(), "the pages of a dictionary")?.to_le_bytes());
        for (page, first) in &self.pages {
            page.entry.put(directory);
            directory.extend_from_slice(&page.raw_length.to_le_bytes());
            directory.extend_from_slice(&page.values.to_le_bytes());
            put_string(directory, first);
        }
        Ok(())
    }
}

/// The dictionary of a column in a file.
#[derive(Debug)]
pub(super) struct FileDictionary {
    has_null: bool,
    cardinality: u32,
    pages: Pages,
    details: Vec<DictionaryPage>,
    /// The least value of each page.
    firsts: Vec<Box<str>>,
    /// The code of each page's first value.
    first_codes: Vec<u32>,
    values: Decoded,
}

impl FileDictionary {
    /// Reads its part of the column's directory. Returns also the offset in the file behind its pages.
    pub(super) fn open(
        file: &Arc<FileBytes>,
        column: &Arc<str>,
        start: usize,
        has_null: bool,
        directory: &mut Reader<'_>,
    ) -> Result<(Self, usize)> {
        let count = directory.count(PageEntry::BYTES + 9)?;
        let (mut details, mut firsts) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut first_codes, mut codes) = (Vec::with_capacity(count), u32::from(has_null));
        for _ in 0..count {
            let entry = PageEntry::read(directory)?;
            let page = DictionaryPage { entry, raw_length: directory.u32()?, values: directory.u32()? };
            firsts.push(directory.string()?.into());
            let raw_length = if page.raw_length == 0 { page.entry.length } else { page.raw_length };
            let too_long = u64::from(raw_length) > u64::from(page.entry.length) * MAX_RATIO as u64;
            if page.values == 0 || page.values > raw_length || too_long {
                return Err(directory.damaged("describes a dictionary page that cannot be"));
            }
            first_codes.push(codes);
            codes = codes
                .checked_add(page.values)
                .ok_or_else(|| directory.damaged("describes a dictionary of more than 2^32 values"))?;
            details.push(page);
        }
        let entries = details.iter().map(|page| page.entry).collect();
        let (pages, end) = Pages::new(file, column, "dictionary page", start, entries)?;
        let dictionary =
            Self { has_null, cardinality: codes, pages, details, firsts, first_codes, values: Decoded::default() };
        Ok((dictionary, end))
    }

    /// How many pages are compressed.
    pub(super) fn compressed_pages(&self) -> usize {
        self.details.iter().filter(|page| page.raw_length > 0).count()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let decoded = self.values.memory_bytes();
        let firsts = self.firsts.iter().map(|first| first.len() + size_of::<Box<str>>()).sum::<usize>();
        decoded + firsts + self.details.len() * (size_of::<DictionaryPage>() + 4) + self.pages.memory_bytes()
    }

    /// Every value of every page is read, and must ascend.
    pub(super) fn verify(&self) -> Result<()> {
        let values = self.decode()?;
        let from = usize::from(self.has_null);
        for i in from + 1..values.len() {
            if values.value(i - 1) >= values.value(i) {
                return Err(self.pages.locate(0, Error::corrupt("dictionary values do not ascend")));
            }
        }
        Ok(())
    }

    fn raw_page(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let stored = self.pages.get(index)?;
        let raw_length = self.details[index].raw_length as usize;
        if raw_length == 0 {
            return Ok(Cow::Borrowed(stored));
        }
        let raw = decompress(stored, raw_length).map_err(|error| {
            self.pages.locate(index, Error::corrupt("a dictionary page does not decompress").with_source(error))
        })?;
        Ok(Cow::Owned(raw))
    }

    fn with_page<R>(&self, index: usize, read: impl FnOnce(Page<'_>) -> Result<R>) -> Result<R> {
        let raw = self.raw_page(index)?;
        Page::new(&raw, self.details[index].values as usize)
            .and_then(read)
            .map_err(|error| self.pages.locate(index, error))
    }

    fn decode(&self) -> Result<StringViewArray> {
        let mut views = Vec::with_capacity(self.cardinality as usize);
        let mut values = Views { views: &mut views, buffers: Vec::new(), buffer: Vec::new() };
        if self.has_null {
            values.views.push(0);
        }
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for index in 0..self.pages.len() {
            text.clear();
            ends.clear();
            self.with_page(index, |page| {
                page.decode(&mut text, &mut ends)?;
                values.extend(&text, &ends)
            })?;
        }
        values.close();
        let buffers = values.buffers;
        let nulls = self.has_null.then(|| {
            let mut valid = vec![true; views.len()];
            valid[0] = false;
            NullBuffer::from(valid)
        });
        // SAFETY: `Views` made each view from bytes in the buffer it names, and checked that they are UTF-8.
        Ok(unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls) })
    }

    /// The page that would hold `value`: the last that begins with it or with less.
    fn page_of(&self, value: &str) -> Option<usize> {
        self.firsts.partition_point(|first| **first <= *value).checked_sub(1)
    }

    /// The first code whose value is not less than `value`, and whether it is equal.
    fn search(&self, value: &str) -> Result<(u32, bool)> {
        let Some(index) = self.page_of(value) else { return Ok((u32::from(self.has_null), false)) };
        let (position, equal) = self.with_page(index, |page| page.search(value.as_bytes()))?;
        Ok((self.first_codes[index] + position as u32, equal))
    }
}

thread_local! {
    /// What decompressing needs to be set up: as much work as a small page itself.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn decompress(stored: &[u8], raw_length: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(stored, raw_length)
    })
}

impl Dictionary for FileDictionary {
    fn cardinality(&self) -> usize {
        self.cardinality as usize
    }

    fn has_null(&self) -> bool {
        self.has_null
    }

    fn is_sorted(&self) -> bool {
        true
    }

    fn code_of(&self, value: &str) -> Result<Option<u32>> {
        let (code, equal) = self.search(value)?;
        Ok(equal.then_some(code))
    }

    fn lower_bound(&self, value: &str) -> Result<u32> {
        Ok(self.search(value)?.0)
    }

    fn values(&self) -> Result<Arc<StringViewArray>> {
        self.values.kept(|| self.decode())
    }

    fn values_once(&self) -> Result<Arc<StringViewArray>> {
        self.values.once(|| self.decode())
    }

    fn values_of(&self, codes: &[u32]) -> Result<StringViewArray> {
        // From about this many on, decoding everything once is cheaper.
        if self.values.get().is_some() || codes.len() * RESTART > self.cardinality as usize {
            return pick(&*self.values()?, codes);
        }
        let mut order = (0..codes.len()).collect::<Vec<_>>();
        order.sort_unstable_by_key(|&i| codes[i]);
        let (mut text, mut ranges) = (String::new(), vec![None; codes.len()]);
        for same_page in order.chunk_by(|&a, &b| self.page_with(codes[a]) == self.page_with(codes[b])) {
            let Some(index) = self.page_with(codes[same_page[0]]) else {
                self.check_null(codes, same_page)?;
                continue;
            };
            self.with_page(index, |page| {
                for &i in same_page {
                    let start = text.len();
                    text.push_str(page.value((codes[i] - self.first_codes[index]) as usize)?.as_str());
                    ranges[i] = Some(start..text.len());
                }
                Ok(())
            })?;
        }
        let mut values = StringViewBuilder::with_capacity(codes.len());
        ranges.into_iter().for_each(|range| values.append_option(range.map(|range| &text[range])));
        Ok(values.finish())
    }
}

impl FileDictionary {
    fn page_with(&self, code: u32) -> Option<usize> {
        self.first_codes.partition_point(|&first| first <= code).checked_sub(1)
    }

    /// Codes before the first page can only be the null.
    fn check_null(&self, codes: &[u32], which: &[usize]) -> Result<()> {
        match which.iter().all(|&i| self.has_null && codes[i] == 0) {
            true => Ok(()),
            false => Err(Error::defensive("a code beyond its dictionary")),
        }
    }
}

/// Views under construction.
struct Views<'a> {
    views: &'a mut Vec<u128>,
    buffers: Vec<Buffer>,
    buffer: Vec<u8>,
}

impl Views<'_> {
    /// Adds the values that lie in `text` one after the other.
    fn extend(&mut self, text: &[u8], ends: &[usize]) -> Result<()> {
        let text = std::str::from_utf8(text)
            .map_err(|error| Error::corrupt("a dictionary page holds text that is not UTF-8").with_source(error))?;
        let mut start = 0;
        for &end in ends {
            let Some(value) = text.get(start..end) else {
                return Err(Error::corrupt("a dictionary page cuts a character in two"));
            };
            start = end;
            self.push(value.as_bytes());
        }
        Ok(())
    }

    fn push(&mut self, value: &[u8]) {
        if value.len() <= 12 {
            self.views.push(make_view(value, 0, 0));
            return;
        }
        if self.buffer.len() + value.len() > BUFFER_BYTES {
            self.close();
        }
        self.views.push(make_view(value, self.buffers.len() as u32, self.buffer.len() as u32));
        self.buffer.extend_from_slice(value);
    }

    fn close(&mut self) {
        if !self.buffer.is_empty() {
            self.buffers.push(Buffer::from_vec(std::mem::take(&mut self.buffer)));
        }
    }
}

/// A page of values, decompressed.
struct Page<'a> {
    restarts: &'a [u8],
    body: &'a [u8],
    values: usize,
}

impl<'a> Page<'a> {
    fn new(raw: &'a [u8], values: usize) -> Result<Self> {
        let mut reader = Reader::new(raw, "a dictionary page");
        let restarts = reader.take(values.div_ceil(RESTART) * 4)?;
        Ok(Self { restarts, body: reader.rest(), values })
    }

    fn restart(&self, index: usize) -> Result<Reader<'a>> {
        let mut offset = Reader::new(self.restarts.get(index * 4..).unwrap_or_default(), "a dictionary page");
        let offset = offset.u32()? as usize;
        let body = self.body.get(offset..).unwrap_or_default();
        Ok(Reader::new(body, "a dictionary page"))
    }

    /// The values one after the other, and where each ends.
    fn decode(&self, text: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<()> {
        let mut reader = Reader::new(self.body, "a dictionary page");
        let (mut start, mut previous) = (0, 0);
        for i in 0..self.values {
            let shared = if i.is_multiple_of(RESTART) { 0 } else { reader.varint_length()? };
            if shared > previous {
                return Err(reader.damaged("shares more than there is"));
            }
            let suffix = reader.varint_length()?;
            let suffix = reader.take(suffix)?;
            let end = text.len();
            text.extend_from_within(start..start + shared);
            text.extend_from_slice(suffix);
            (start, previous) = (end, text.len() - end);
            ends.push(text.len());
        }
        Ok(())
    }

    fn value(&self, index: usize) -> Result<String> {
        let mut found = Vec::new();
        self.scan(index / RESTART, |position, value| {
            found.clear();
            found.extend_from_slice(value);
            position == index
        })?;
        String::from_utf8(found)
            .map_err(|error| Error::corrupt("a dictionary page holds text that is not UTF-8").with_source(error))
    }

    /// How many values of the page are less than `value`, and whether the next is equal.
    fn search(&self, value: &[u8]) -> Result<(usize, bool)> {
        let (mut low, mut high) = (0, self.values.div_ceil(RESTART));
        while low < high {
            let middle = low.midpoint(high);
            let mut reader = self.restart(middle)?;
            let length = reader.varint_length()?;
            if reader.take(length)? <= value {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(restart) = low.checked_sub(1) else { return Ok((0, false)) };
        let mut found = ((restart + 1) * RESTART, Ordering::Greater);
        self.scan(restart, |position, here| {
            found = (position, here.cmp(value));
            if found.1 == Ordering::Less {
                found.0 = position + 1;
            }
            found.1 != Ordering::Less
        })?;
        Ok((found.0, found.1 == Ordering::Equal))
    }

    /// Shows the values of a restart with their positions until `stop` says so.
    fn scan(&self, restart: usize, mut stop: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
        let mut reader = self.restart(restart)?;
        let mut value = Vec::new();
        for position in restart * RESTART..self.values.min((restart + 1) * RESTART) {
            let shared = if position == restart * RESTART { 0 } else { reader.varint_length()? };
            if shared > value.len() {
                return Err(reader.damaged("shares more than there is"));
            }
            value.truncate(shared);
            let suffix = reader.varint_length()?;
            value.extend_from_slice(reader.take(suffix)?);
            if stop(position, &value) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment::page::Content;

    fn written(values: &[&str], has_null: bool) -> FileDictionary {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        let mut sink = Sink::new(&mut bytes);
        let mut writer = DictionaryWriter::default();
        values.iter().for_each(|value| writer.push(value, &mut sink).unwrap());
        writer.finish(&mut sink, &mut directory).unwrap();
        let length = bytes.len();
        let file = Arc::new(FileBytes { name: "test".to_owned(), content: Content::Owned(bytes.into()) });
        let mut reader = Reader::new(&directory, "test");
        let (dictionary, end) = FileDictionary::open(&file, &"column".into(), 0, has_null, &mut reader).unwrap();
        assert_eq!(end, length);
        dictionary
    }

    fn check(values: &[&str], has_null: bool) {
        let dictionary = written(values, has_null);
        let shift = u32::from(has_null);
        dictionary.verify().unwrap();
        assert_eq!(dictionary.cardinality(), values.len() + shift as usize);
        for (i, value) in values.iter().enumerate() {
            let code = i as u32 + shift;
            assert_eq!(dictionary.code_of(value).unwrap(), Some(code), "{value}");
            assert_eq!(dictionary.lower_bound(value).unwrap(), code);
            assert_eq!(dictionary.values_of(&[code]).unwrap().value(0), *value);
            let after = format!("{value}\0");
            assert_eq!(
                dictionary.lower_bound(&after).unwrap(),
                values.partition_point(|v| **v < *after) as u32 + shift
            );
        }
        let all = dictionary.values().unwrap();
        assert_eq!(all.is_empty(), values.is_empty() && !has_null);
        assert!(all.iter().skip(shift as usize).eq(values.iter().map(|value| Some(*value))));
        assert_eq!(all.null_count(), shift as usize);
    }

    #[test]
    fn values_are_found_in_small_and_large_dictionaries() {
        check(&[], true);
        check(&[], false);
        check(&["", "a", "ab", "zwölf Boxkämpfer jagen Viktor"], true);
        let many = (0..20_000).map(|i| format!("User talk:Somebody with a long name {i:07}/é")).collect::<Vec<_>>();
        check(&many.iter().map(String::as_str).collect::<Vec<_>>(), false);
    }

    #[test]
    fn values_of_some_codes_come_in_the_order_asked() {
        let many = (0..5000).map(|i| format!("value {i:05}")).collect::<Vec<_>>();
        let dictionary = written(&many.iter().map(String::as_str).collect::<Vec<_>>(), true);
        let some = dictionary.values_of(&[4000, 0, 1, 4000, 17]).unwrap();
        let expected = [Some("value 03999"), None, Some("value 00000"), Some("value 03999"), Some("value 00016")];
        assert!(some.iter().eq(expected));
    }

    proptest! {
        #[test]
        fn any_set_of_texts_reads_back(values in prop::collection::btree_set("\\PC{0,20}", 0..80), has_null in any::<bool>()) {
            check(&values.iter().map(String::as_str).collect::<Vec<_>>(), has_null);
        }
    }
}
