//! One group key: the codes of rows, and what the codes stand for.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, new_null_array};
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;

use super::GroupKey;
use super::derived::DerivedCodes;
use super::interner::ValueInterner;
use super::time_key::{TimeRuns, from_integers};
use crate::exec::ordinals::{Numbering, SegmentOrdinals};
use crate::exec::reader::{NumberReader, Reader, Rows, StringReader, Values, wrong_type};
use crate::exec::selection::ReadCodes;
use crate::model::{ColumnType, SegmentSchema};
use crate::segment::{Column, Segment};

/// What a table's codes of a string column are.
#[derive(Clone, Debug)]
pub(super) enum CodeSpace {
    /// Those of the dictionary of the only segment that the table will see.
    Segment,
    /// Ordinals, which all segments share.
    Ordinals(Numbering),
    /// Those of a function of the values.
    Derived(Numbering, Arc<DerivedCodes>),
}

/// One key, over one segment after another.
#[derive(Debug)]
pub(super) enum Key {
    Strings(Strings),
    Time(Box<TimeRuns>),
    Long(Longs),
}

impl Key {
    pub(super) fn new(key: &GroupKey, columns: &SegmentSchema, space: CodeSpace) -> Result<Self> {
        let index = match key {
            GroupKey::Time(key) => return Ok(Self::Time(Box::new(TimeRuns::new(key.clone())))),
            GroupKey::Column(index) => *index,
            GroupKey::Derived(computed) => computed.columns.first().copied().unwrap_or(usize::MAX),
        };
        match columns.column(index).map(|column| column.column_type) {
            Some(ColumnType::String) => Ok(Self::Strings(Strings::new(index, space))),
            Some(ColumnType::Long) => Ok(Self::Long(Longs::new(index))),
            _ => Err(wrong_type(columns.column(index).map_or("", |column| column.name.as_str())).into()),
        }
    }

    /// Goes on to a segment, which is at `place` of those that have ordinals.
    pub(super) fn open(&mut self, segment: &dyn Segment, place: usize, columns: &SegmentSchema) -> Result<()> {
        match self {
            Self::Strings(strings) => strings.open(segment, place, columns),
            Self::Long(longs) => longs.open(segment, columns),
            Self::Time(runs) => match segment.column(0)? {
                Column::Long(time) => {
                    runs.open(NumberReader::new(time));
                    Ok(())
                }
                _ => Err(wrong_type(crate::model::TIME_COLUMN).into()),
            },
        }
    }

    /// How many different codes there may be; `None` where that shows only as rows are read.
    pub(super) fn cardinality(&self) -> Option<usize> {
        match self {
            Self::Strings(strings) => Some(strings.cardinality),
            Self::Time(_) | Self::Long(_) => None,
        }
    }

    /// Reads the codes of some rows of a block, unless `read` has them.
    pub(super) fn load(&mut self, block: usize, rows: Rows<'_>, read: &ReadCodes) -> Result<()> {
        match self {
            Self::Strings(strings) => strings.load(block, rows, read),
            Self::Time(runs) => runs.load(block, rows),
            Self::Long(longs) => longs.load(block, rows),
        }
    }

    /// The codes of the rows last loaded: one a row, or runs of rows.
    pub(super) fn codes(&self) -> Codes<'_> {
        match self {
            Self::Strings(strings) => Codes::Each(strings.codes()),
            Self::Long(longs) => Codes::Each(&longs.ids),
            Self::Time(runs) => Codes::Runs(&runs.runs),
        }
    }

    /// How many values were numbered so far.
    pub(super) fn numbered(&self) -> usize {
        self.numbers().map_or(0, ValueInterner::len)
    }

    fn numbers(&self) -> Option<&ValueInterner> {
        match self {
            Self::Strings(_) => None,
            Self::Time(runs) => Some(&runs.values),
            Self::Long(longs) => Some(&longs.values),
        }
    }

    /// This key's codes of another table's codes of the same key, by code; `None` where they are the same. `place` as in
    /// [`super::table::Table::adopt`].
    pub(super) fn adopt(&mut self, other: &Self, place: Option<usize>) -> Option<Vec<u32>> {
        let numbers = match self {
            Self::Strings(strings) => return place.map(|place| strings.codes_of_segment(other, place)),
            Self::Time(runs) => &mut runs.values,
            Self::Long(longs) => &mut longs.values,
        };
        Some(other.numbers()?.by_id.iter().map(|&value| numbers.id(value)).collect())
    }

    pub(super) fn reset(&mut self) {
        match self {
            Self::Strings(_) => {}
            Self::Time(runs) => runs.reset(),
            Self::Long(longs) => longs.values = ValueInterner::default(),
        }
    }

    /// What the codes stand for.
    pub(super) fn decode(&self, codes: &[u32], values: &mut Values, field: &Field) -> Result<ArrayRef> {
        let numbers = match self {
            Self::Strings(strings) => return strings.decode(codes, values, field),
            Self::Time(runs) => &runs.values.by_id,
            Self::Long(longs) => &longs.values.by_id,
        };
        let integers = codes.iter().map(|&code| numbers[code as usize]).collect::<Int64Array>();
        if *field.data_type() == DataType::Int64 {
            return Ok(Arc::new(integers));
        }
        from_integers(Arc::new(integers), field.data_type())
    }
}

/// The codes of some rows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Codes<'a> {
    Each(&'a [u32]),
    /// A code, and where its run ends.
    Runs(&'a [(u32, usize)]),
}

#[derive(Debug)]
pub(super) struct Strings {
    column: usize,
    space: CodeSpace,
    cardinality: usize,
    /// `None` where the segment lacks the column: all rows have the null.
    reader: Option<Box<StringReader>>,
    ordinals: Option<Arc<SegmentOrdinals>>,
    /// For a segment that lacks the column.
    nulls: Vec<u32>,
}

impl Strings {
    fn new(column: usize, space: CodeSpace) -> Self {
        let cardinality = match &space {
            CodeSpace::Segment => 1,
            CodeSpace::Ordinals(numbering) => numbering.limit().max(1),
            CodeSpace::Derived(_, derived) => derived.cardinality().max(1),
        };
        Self { column, space, cardinality, reader: None, ordinals: None, nulls: Vec::new() }
    }

    fn open(&mut self, segment: &dyn Segment, place: usize, columns: &SegmentSchema) -> Result<()> {
        self.reader = match Reader::open(segment, columns, self.column)? {
            Reader::Missing(_) => None,
            Reader::Strings(reader) => Some(Box::new(reader)),
            _ => return Err(wrong_type(columns.column(self.column).map_or("", |c| c.name.as_str())).into()),
        };
        match &self.space {
            CodeSpace::Segment => {
                let dictionary = self.reader.as_ref().map(|reader| reader.column.dictionary().cardinality());
                self.cardinality = dictionary.unwrap_or(0).max(1);
            }
            CodeSpace::Ordinals(numbering) | CodeSpace::Derived(numbering, _) => {
                self.ordinals = numbering.codes(place).map(Arc::clone);
            }
        }
        Ok(())
    }

    fn load(&mut self, block: usize, rows: Rows<'_>, read: &ReadCodes) -> Result<()> {
        let Some(reader) = &mut self.reader else {
            self.nulls.clear();
            self.nulls.resize(rows.len(), 0);
            if let CodeSpace::Derived(_, derived) = &self.space {
                derived.apply(&mut self.nulls);
            }
            return Ok(());
        };
        reader.codes.clear();
        match (rows, read.of(&reader.column, block)) {
            (Rows::Some(rows), Some(codes)) => reader.codes.extend(rows.iter().map(|&row| codes[row as usize])),
            _ => reader.append(block, rows)?,
        }
        if let Some(ordinals) = &self.ordinals {
            ordinals.apply(&mut reader.codes);
        }
        if let CodeSpace::Derived(_, derived) = &self.space {
            derived.apply(&mut reader.codes);
        }
        Ok(())
    }

    /// The codes here of the codes of the segment at `place`, which are those of `other`.
    fn codes_of_segment(&self, other: &Key, place: usize) -> Vec<u32> {
        let mut codes = (0..other.cardinality().unwrap_or(1) as u32).collect::<Vec<_>>();
        let (CodeSpace::Ordinals(numbering) | CodeSpace::Derived(numbering, _)) = &self.space else { return codes };
        if let Some(ordinals) = numbering.codes(place) {
            ordinals.apply(&mut codes);
        }
        if let CodeSpace::Derived(_, derived) = &self.space {
            derived.apply(&mut codes);
        }
        codes
    }

    fn codes(&self) -> &[u32] {
        self.reader.as_ref().map_or(&self.nulls, |reader| &reader.codes)
    }

    fn decode(&self, codes: &[u32], values: &mut Values, field: &Field) -> Result<ArrayRef> {
        match &self.space {
            CodeSpace::Segment => {}
            CodeSpace::Ordinals(numbering) => return Ok(Arc::new(numbering.values_of(codes))),
            CodeSpace::Derived(_, derived) => return derived.decode(codes),
        }
        match &self.reader {
            Some(reader) => Ok(Arc::new(values.of(reader.column.dictionary(), codes)?)),
            None => Ok(new_null_array(field.data_type(), codes.len())),
        }
    }
}

#[derive(Debug)]
pub(super) struct Longs {
    column: usize,
    /// `None` where the segment lacks the column.
    reader: Option<Box<NumberReader<i64>>>,
    values: ValueInterner,
    ids: Vec<u32>,
}

impl Longs {
    fn new(column: usize) -> Self {
        Self { column, reader: None, values: ValueInterner::default(), ids: Vec::new() }
    }

    fn open(&mut self, segment: &dyn Segment, columns: &SegmentSchema) -> Result<()> {
        self.reader = match Reader::open(segment, columns, self.column)? {
            Reader::Missing(_) => None,
            Reader::Long(reader) => Some(Box::new(reader)),
            _ => return Err(wrong_type(columns.column(self.column).map_or("", |c| c.name.as_str())).into()),
        };
        Ok(())
    }

    fn load(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        self.ids.clear();
        let Some(reader) = &mut self.reader else {
            let null = self.values.id(None);
            self.ids.resize(rows.len(), null);
            return Ok(());
        };
        reader.clear();
        reader.append(block, rows)?;
        let validity = reader.take_validity();
        let values = &mut self.values;
        match validity {
            None => self.ids.extend(reader.values.iter().map(|&value| values.id(Some(value)))),
            Some(validity) => {
                let rows = reader.values.iter().zip(validity.iter());
                self.ids.extend(rows.map(|(&value, is_valid)| values.id(is_valid.then_some(value))));
            }
        }
        Ok(())
    }
}
