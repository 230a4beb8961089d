//! What rows are ordered by, as integers.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use datafusion::error::Result;

use crate::error::Error;
use crate::exec::reader::{Reader, Rows};
use crate::model::SegmentSchema;
use crate::segment::{BlockStats, Dictionary, Number, NumericColumn, Segment, StringColumn};
use crate::widened::widened;

/// A column that rows are ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopKey {
    /// Index into the data source's columns: one with one value a row.
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

/// A value: the lesser comes first. Of text, only among those of one segment.
///
/// The upper half tells nulls from values, the lower half one value from another.
pub(super) type Rank = u128;

const FIRST: Rank = 0;
const VALUE: Rank = 1 << 64;
const LAST: Rank = 2 << 64;

/// Every rank is at most this.
pub(super) const GREATEST: Rank = Rank::MAX;

/// The sign of a two's complement, which is turned round where such numbers are compared as words.
const SIGN: u64 = 1 << 63;

impl TopKey {
    /// For people.
    pub(super) fn describe(&self, columns: Option<&SegmentSchema>) -> String {
        let column = columns.and_then(|columns| columns.column(self.column));
        let name = column.map_or_else(|| self.column.to_string(), |column| column.name.clone());
        let direction = if self.descending { " DESC" } else { "" };
        let nulls = if self.nulls_first { " NULLS FIRST" } else { "" };
        format!("{name}{direction}{nulls}")
    }

    fn null(&self) -> Rank {
        if self.nulls_first { FIRST } else { LAST }
    }

    /// What turns words that ascend as their values into words that ascend in this order.
    fn turned(&self) -> u64 {
        if self.descending { u64::MAX } else { 0 }
    }

    /// The rank of a value, from a word that ascends as values do.
    fn rank(&self, word: u64) -> Rank {
        VALUE | Rank::from(word ^ self.turned())
    }

    /// The rank of a long that is not null.
    pub(super) fn rank_of_long(&self, value: i64) -> Rank {
        self.rank(long_word(value))
    }

    /// The code of a text's rank; `None` of the null.
    pub(super) fn code(&self, rank: Rank) -> Option<u32> {
        is_value(rank).then_some((rank as u64 ^ self.turned()) as u32)
    }

    /// The greatest rank that a segment's text may have that does not come behind a text of which `place` is known there.
    pub(super) fn bound(&self, place: Place) -> Rank {
        let rank = self.rank(u64::from(place.code));
        // Otherwise the one before; of the first, what comes before all values.
        if self.descending || place.exact { rank } else { rank - 1 }
    }
}

pub(super) fn is_value(rank: Rank) -> bool {
    rank >> 64 == 1
}

/// Where a text is, or would be, in a sorted dictionary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first code whose text is not less.
    pub(super) code: u32,
    /// Whether its text is equal.
    pub(super) exact: bool,
}

impl Place {
    pub(super) fn of(text: &str, dictionary: &dyn Dictionary) -> Result<Self> {
        let code = dictionary.lower_bound(text)?;
        Ok(Self { code, exact: dictionary.code_of(text)? == Some(code) })
    }
}

/// A key's column of one segment, read block by block.
#[derive(Debug)]
pub(super) struct KeyColumn {
    key: TopKey,
    values: Values,
    /// Which rows of the block that was read last are valid; `None` if all.
    valid: Option<BooleanBuffer>,
    block: Option<usize>,
}

#[derive(Debug)]
enum Values {
    /// The segment lacks the column.
    Missing,
    Long(Numbers<i64>),
    Float(Numbers<f32>),
    Double(Numbers<f64>),
    Text(Arc<dyn StringColumn>, Vec<u32>),
}

#[derive(Debug)]
struct Numbers<T: Number> {
    column: Arc<dyn NumericColumn<T>>,
    values: Vec<T>,
}

impl<T: Number> Numbers<T> {
    fn of(column: Arc<dyn NumericColumn<T>>) -> Self {
        Self { column, values: Vec::new() }
    }
}

fn long_word(value: i64) -> u64 {
    value as u64 ^ SIGN
}

/// In the total order of floats.
fn float_word(value: f32) -> u64 {
    let bits = value.to_bits() as i32;
    u64::from((bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32 ^ 1 << 31)
}

fn double_word(value: f64) -> u64 {
    let bits = value.to_bits() as i64;
    long_word(bits ^ ((bits >> 63) as u64 >> 1) as i64)
}

impl KeyColumn {
    pub(super) fn open(key: &TopKey, segment: &dyn Segment, columns: &SegmentSchema) -> Result<Self> {
        let values = match Reader::open(segment, columns, key.column)? {
            Reader::Missing(_) => Values::Missing,
            Reader::Strings(reader) => Values::Text(reader.column, Vec::new()),
            Reader::Long(reader) => Values::Long(Numbers::of(reader.column)),
            Reader::Float(reader) => Values::Float(Numbers::of(reader.column)),
            Reader::Double(reader) => Values::Double(Numbers::of(reader.column)),
            Reader::Lists(_) => return Err(Error::defensive("rows are not ordered by lists here").into()),
        };
        Ok(Self { key: key.clone(), values, valid: None, block: None })
    }

    /// The dictionary, of text.
    pub(super) fn dictionary(&self) -> Option<&dyn Dictionary> {
        match &self.values {
            Values::Text(column, _) => Some(column.dictionary()),
            _ => None,
        }
    }

    /// Whether ranks ascend as values do in this order.
    pub(super) fn is_ranked(&self) -> bool {
        self.dictionary().is_none_or(Dictionary::is_sorted)
    }

    /// Reads a block, unless it is the one that was read last.
    pub(super) fn load(&mut self, block: usize) -> Result<()> {
        if self.block == Some(block) {
            return Ok(());
        }
        self.block = None;
        self.valid = match &mut self.values {
            Values::Missing => None,
            Values::Long(numbers) => numbers.column.read(block, &mut numbers.values)?,
            Values::Float(numbers) => numbers.column.read(block, &mut numbers.values)?,
            Values::Double(numbers) => numbers.column.read(block, &mut numbers.values)?,
            Values::Text(column, codes) => {
                column.read_codes(block, codes)?;
                None
            }
        };
        self.block = Some(block);
        Ok(())
    }

    /// The rank of a row of the block.
    pub(super) fn rank(&self, row: usize) -> Rank {
        if self.valid.as_ref().is_some_and(|valid| !valid.value(row)) {
            return self.key.null();
        }
        self.key.rank(match &self.values {
            Values::Missing => return self.key.null(),
            Values::Long(numbers) => long_word(numbers.values[row]),
            Values::Float(numbers) => float_word(numbers.values[row]),
            Values::Double(numbers) => double_word(numbers.values[row]),
            Values::Text(column, codes) => match codes[row] {
                0 if column.dictionary().has_null() => return self.key.null(),
                code => u64::from(code),
            },
        })
    }

    /// A rank that no row of a block comes before, from what the block says of itself.
    pub(super) fn best(&self, block: usize) -> Result<Rank> {
        Ok(match &self.values {
            Values::Missing => self.key.null(),
            Values::Long(numbers) => self.best_of(&numbers.column.block_stats(block)?, long_word),
            Values::Float(numbers) => self.best_of(&numbers.column.block_stats(block)?, float_word),
            Values::Double(numbers) => self.best_of(&numbers.column.block_stats(block)?, double_word),
            Values::Text(column, _) => {
                let (least, greatest) = column.code_range(block)?;
                let may_be_null = least == 0 && column.dictionary().has_null();
                match (self.key.descending, may_be_null) {
                    _ if !self.is_ranked() => FIRST,
                    (_, true) if self.key.nulls_first => FIRST,
                    (true, _) => self.key.rank(u64::from(greatest)),
                    (false, _) => self.key.rank(u64::from(least)),
                }
            }
        })
    }

    fn best_of<T: Number>(&self, stats: &BlockStats<T>, word: impl Fn(T) -> u64) -> Rank {
        if stats.has_nan || (stats.nulls > 0 && self.key.nulls_first) {
            return FIRST;
        }
        let ends = stats.min_max.map(|(least, greatest)| if self.key.descending { greatest } else { least });
        ends.map_or(self.key.null(), |end| self.key.rank(word(end)))
    }

    /// Of some rows of the block those whose rank is at most `bound`, into `left`, in their order.
    pub(super) fn within(&self, rows: Rows<'_>, bound: Rank, left: &mut Vec<u32>) {
        left.clear();
        match (&self.values, rows) {
            (_, Rows::Some(rows)) => left.extend(rows.iter().filter(|row| self.rank(**row as usize) <= bound)),
            (_, Rows::All(len)) if bound == GREATEST => left.extend(0..len as u32),
            (Values::Long(numbers), Rows::All(_)) if self.valid.is_none() && is_value(bound) => {
                places_within(&numbers.values, SIGN ^ self.key.turned(), bound as u64, left);
            }
            (_, Rows::All(len)) => left.extend((0..len as u32).filter(|row| self.rank(*row as usize) <= bound)),
        }
    }
}

/// The places of the values that, turned, are at most `bound`. There are mostly few.
fn places_within(values: &[i64], turned: u64, bound: u64, places: &mut Vec<u32>) {
    const STRETCH: usize = 64;
    for (index, stretch) in values.chunks(STRETCH).enumerate() {
        if least_turned(stretch, turned) > bound {
            continue;
        }
        let start = (index * STRETCH) as u32;
        let within = stretch.iter().zip(start..).filter(|(value, _)| **value as u64 ^ turned <= bound);
        places.extend(within.map(|(_, place)| place));
    }
}

widened! {
    fn least_turned(values: &[i64], turned: u64) -> u64 {
        values.iter().fold(u64::MAX, |least, &value| least.min(value as u64 ^ turned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(descending: bool, nulls_first: bool) -> TopKey {
        TopKey { column: 0, descending, nulls_first }
    }

    #[test]
    fn words_ascend_as_numbers_do() {
        let longs = [i64::MIN, -1, 0, 1, i64::MAX].map(long_word);
        assert!(longs.is_sorted_by(|a, b| a < b));
        let doubles = [-f64::NAN, f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN];
        assert!(doubles.map(double_word).is_sorted_by(|a, b| a < b));
        let floats = [-f32::NAN, f32::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-30, 2.0, f32::INFINITY, f32::NAN];
        assert!(floats.map(float_word).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn nulls_come_where_they_are_wanted() {
        for descending in [false, true] {
            let (first, last) = (key(descending, true), key(descending, false));
            for word in [0, 1, u64::MAX] {
                assert!(first.null() < first.rank(word) && last.rank(word) < last.null());
                assert!(is_value(first.rank(word)) && last.rank(word) < GREATEST);
            }
            assert!(!is_value(first.null()) && !is_value(last.null()));
        }
        assert!(key(true, false).rank(7) < key(true, false).rank(6));
        assert_eq!(key(true, false).code(key(true, false).rank(7)), Some(7));
    }

    #[test]
    fn bounds_let_through_what_does_not_come_behind() {
        let through = |descending, exact, code| {
            let key = key(descending, true);
            let bound = key.bound(Place { code, exact });
            (0..5).filter(|code| key.rank(*code) <= bound).collect::<Vec<_>>()
        };
        assert_eq!(through(false, true, 2), [0, 1, 2]);
        assert_eq!(through(false, false, 2), [0, 1]);
        assert_eq!(through(false, false, 0), [] as [u64; 0]);
        assert_eq!(through(true, true, 2), [2, 3, 4]);
        assert_eq!(through(true, false, 2), [2, 3, 4]);
        assert!(key(false, true).null() <= key(false, true).bound(Place { code: 0, exact: false }));
    }

    #[test]
    fn places_are_found_in_stretches() {
        let values = (0..200).map(|i| (i * 37) % 101 - 50).collect::<Vec<i64>>();
        for (descending, end) in [(false, -45), (true, 44)] {
            let key = key(descending, false);
            let mut places = Vec::new();
            places_within(&values, SIGN ^ key.turned(), key.rank(long_word(end)) as u64, &mut places);
            let expected = (0..200).filter(|&i| {
                let value = values[i as usize];
                if descending { value >= end } else { value <= end }
            });
            assert_eq!(places, expected.collect::<Vec<u32>>());
        }
    }
}
