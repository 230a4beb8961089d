//! The best rows so far.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use datafusion::error::Result;
use parking_lot::Mutex;

use super::key::{GREATEST, KeyColumn, Place, Rank, TopKey, is_value};
use crate::error::Error;
use crate::exec::ScanSource;
use crate::model::ColumnType;
use crate::segment::Column;

/// So many rows beyond those that are wanted are taken before the worst are dropped, at least.
const SLACK: usize = 256;

/// A row that may be among the first.
#[derive(Debug)]
struct Entry {
    /// Index into the scan's segments.
    segment: u32,
    row: u32,
    ranks: Box<[Rank]>,
    /// By key, once somebody had to know it; none where no key is text.
    texts: Box<[OnceLock<Arc<str>>]>,
}

/// At most so many rows as are wanted and some more, and the worst of those that are wanted.
#[derive(Debug)]
pub(super) struct Best {
    texts: Texts,
    limit: usize,
    /// From the first `limit` on in no order; before [`Best::cut`] in none at all.
    entries: Vec<Entry>,
    /// Whether the entry at `limit - 1` is the worst of those that are wanted, and those behind are still to be compared.
    is_cut: bool,
    /// Of the worst's texts, where they are in the segment at hand, by key.
    places: Vec<Option<Place>>,
}

/// The texts of entries, read where ranks do not tell.
#[derive(Debug)]
struct Texts {
    source: Arc<ScanSource>,
    keys: Vec<TopKey>,
    is_text: Vec<bool>,
    /// By segment: whether the ranks of its texts ascend as the texts do; true of one that was not opened.
    is_ranked: Vec<bool>,
    /// Comparing cannot fail; what failed is told afterwards.
    failed: Mutex<Option<Error>>,
}

impl Texts {
    /// Whether ranks tell the order of values that are not null.
    fn tell(&self, key: usize, a: u32, b: u32) -> bool {
        !self.is_text[key] || (a == b && self.is_ranked[a as usize])
    }

    fn compare(&self, a: &Entry, b: &Entry) -> Ordering {
        for key in 0..self.keys.len() {
            let (of_a, of_b) = (a.ranks[key], b.ranks[key]);
            let order = match self.tell(key, a.segment, b.segment) || !is_value(of_a) || !is_value(of_b) {
                true => of_a.cmp(&of_b),
                false => self.turned(key, self.of(a, key).cmp(self.of(b, key))),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    }

    fn turned(&self, key: usize, order: Ordering) -> Ordering {
        if self.keys[key].descending { order.reverse() } else { order }
    }

    /// The text of an entry, which is not null.
    fn of<'a>(&self, entry: &'a Entry, key: usize) -> &'a str {
        entry.texts[key].get_or_init(|| match self.read(entry, key) {
            Ok(text) => text,
            Err(error) => {
                self.failed.lock().get_or_insert(error);
                "".into()
            }
        })
    }

    fn read(&self, entry: &Entry, key: usize) -> crate::error::Result<Arc<str>> {
        let segment = &self.source.segments[entry.segment as usize].segment;
        let name = self.source.columns.column(self.keys[key].column).map_or("", |column| column.name.as_str());
        let column = segment.schema().index_of(name).map(|index| segment.column(index)).transpose()?;
        match (column, self.keys[key].code(entry.ranks[key])) {
            (Some(Column::String(column)), Some(code)) => Ok(column.dictionary().values_of(&[code])?.value(0).into()),
            _ => Err(Error::defensive(format!("a row of `{name}` has a rank, but no text"))),
        }
    }
}

impl Best {
    /// Of no rows. There is at least one key.
    pub(super) fn new(source: &Arc<ScanSource>, keys: &[TopKey], limit: usize) -> Self {
        let is_text = keys.iter().map(|key| {
            source.columns.column(key.column).is_some_and(|column| column.column_type == ColumnType::String)
        });
        let texts = Texts {
            source: Arc::clone(source),
            keys: keys.to_vec(),
            is_text: is_text.collect(),
            is_ranked: vec![true; source.segments.len()],
            failed: Mutex::default(),
        };
        Self { texts, limit, entries: Vec::new(), is_cut: false, places: vec![None; keys.len()] }
    }

    /// Goes on to a segment, of which these are the keys' columns.
    pub(super) fn open(&mut self, segment: usize, columns: &[KeyColumn]) {
        self.texts.is_ranked[segment] = columns.iter().all(KeyColumn::is_ranked);
        self.places.fill(None);
    }

    /// The greatest rank by the first key that a row of the segment at hand may have to be among the first.
    pub(super) fn bound(&mut self, segment: usize, first: &KeyColumn) -> Result<Rank> {
        let Some(worst) = self.worst() else { return Ok(GREATEST) };
        let rank = worst.ranks[0];
        if self.texts.tell(0, worst.segment, segment as u32) || !is_value(rank) {
            return Ok(rank);
        }
        match first.dictionary() {
            Some(dictionary) if dictionary.is_sorted() => {
                let place = self.place(0, first)?;
                Ok(place.map_or(GREATEST, |place| self.texts.keys[0].bound(place)))
            }
            // Without a dictionary it lacks the column: all rows are null, and their rank is comparable.
            Some(_) => Ok(GREATEST),
            None => Ok(rank),
        }
    }

    /// The same, if ranks are the same in all segments.
    pub(super) fn common_bound(&self) -> Option<Rank> {
        let worst = self.worst().filter(|_| !self.texts.is_text[0])?;
        Some(worst.ranks[0])
    }

    /// The worst of those that are wanted, if there are so many.
    fn worst(&self) -> Option<&Entry> {
        if self.is_cut { self.limit.checked_sub(1).and_then(|last| self.entries.get(last)) } else { None }
    }

    /// Where the worst's text is in the segment at hand.
    fn place(&mut self, key: usize, column: &KeyColumn) -> Result<Option<Place>> {
        if self.places[key].is_none()
            && let (Some(worst), Some(dictionary)) = (self.worst(), column.dictionary())
        {
            self.places[key] = Some(Place::of(self.texts.of(worst, key), dictionary)?);
        }
        Ok(self.places[key])
    }

    /// Takes a row of the block that `columns` have loaded, unless it comes behind so many as are wanted.
    pub(super) fn offer(&mut self, segment: usize, start: usize, row: usize, columns: &[KeyColumn]) -> Result<()> {
        if !self.comes_before(segment as u32, row, columns)? {
            return Ok(());
        }
        let ranks = columns.iter().map(|column| column.rank(row)).collect::<Box<[_]>>();
        let any_text = self.texts.is_text.contains(&true);
        let texts = (0..if any_text { columns.len() } else { 0 }).map(|_| OnceLock::new()).collect();
        // Rows fit 32 bits: a segment with more is refused when it is opened.
        self.entries.push(Entry { segment: segment as u32, row: (start + row) as u32, ranks, texts });
        if self.entries.len() >= self.limit + self.limit.max(SLACK) {
            self.cut()?;
        }
        Ok(())
    }

    /// Whether a row comes before the worst that is wanted.
    fn comes_before(&mut self, segment: u32, row: usize, columns: &[KeyColumn]) -> Result<bool> {
        for (key, column) in columns.iter().enumerate() {
            let Some(worst) = self.worst() else { return Ok(true) };
            let (rank, other) = (column.rank(row), worst.ranks[key]);
            let order = match self.texts.tell(key, worst.segment, segment) || !is_value(rank) || !is_value(other) {
                true => rank.cmp(&other),
                false => self.against_text(key, rank, column)?,
            };
            if order != Ordering::Equal {
                return Ok(order == Ordering::Less);
            }
        }
        Ok(self.worst().is_none())
    }

    /// How a text of the segment at hand stands to the worst's.
    fn against_text(&mut self, key: usize, rank: Rank, column: &KeyColumn) -> Result<Ordering> {
        let (Some(code), Some(dictionary)) = (self.texts.keys[key].code(rank), column.dictionary()) else {
            return Err(Error::defensive("a rank without a text").into());
        };
        let order = match dictionary.is_sorted() {
            true => match self.place(key, column)? {
                Some(place) if place.exact && place.code == code => Ordering::Equal,
                Some(place) if code < place.code => Ordering::Less,
                _ => Ordering::Greater,
            },
            false => match self.worst() {
                Some(worst) => dictionary.values_of(&[code])?.value(0).cmp(self.texts.of(worst, key)),
                None => Ordering::Less,
            },
        };
        Ok(self.texts.turned(key, order))
    }

    /// Drops what comes behind so many as are wanted.
    pub(super) fn cut(&mut self) -> Result<()> {
        if self.limit == 0 {
            self.entries.clear();
        }
        if self.entries.len() >= self.limit.max(1) {
            let texts = &self.texts;
            self.entries.select_nth_unstable_by(self.limit - 1, |a, b| texts.compare(a, b));
            self.entries.truncate(self.limit);
            self.is_cut = true;
            self.places.fill(None);
        }
        match self.texts.failed.lock().take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Whether there are rows that a cut may drop, or of which it may say which is the worst.
    pub(super) fn can_be_cut(&self) -> bool {
        self.entries.len() > self.limit || (!self.is_cut && self.entries.len() == self.limit)
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        let text = |text: &OnceLock<Arc<str>>| text.get().map_or(0, |text| text.len() + 16);
        let held = |entry: &Entry| {
            size_of::<Entry>()
                + size_of_val::<[Rank]>(&entry.ranks)
                + size_of_val::<[OnceLock<Arc<str>>]>(&entry.texts)
                + entry.texts.iter().map(text).sum::<usize>()
        };
        self.entries.iter().map(held).sum::<usize>() + self.texts.is_ranked.len()
    }

    /// The rows, by segment and place.
    pub(super) fn finish(&mut self) -> Result<Vec<(u32, u32)>> {
        self.cut()?;
        let mut rows = self.entries.drain(..).map(|entry| (entry.segment, entry.row)).collect::<Vec<_>>();
        rows.sort_unstable();
        Ok(rows)
    }
}
