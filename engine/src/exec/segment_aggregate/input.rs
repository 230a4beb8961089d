//! What aggregates read: the values of the rows of one block.

use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::error::Result;

use super::fold::Argument;
use crate::exec::computed::{Computed, Evaluated, Evaluation};
use crate::exec::ordinals::{Numbering, SegmentOrdinals};
use crate::exec::reader::{NumberReader, Reader, Rows};
use crate::model::SegmentSchema;
use crate::segment::{BlockStats, Number, Segment, block_range};

/// An argument of aggregates, of the rows that a filter leaves: its values of the current block.
#[derive(Debug)]
pub(super) struct Input {
    source: Source,
    filter: Option<Evaluation>,
    /// Which values are neither null nor filtered out; `None` if all. Codes that are null count as valid here.
    pub(super) validity: Option<NullBuffer>,
}

#[derive(Debug)]
enum Source {
    /// Rows are counted.
    Rows,
    Column(Box<ColumnSource>),
    Computed(Box<Evaluation>, Evaluated),
}

#[derive(Debug)]
struct ColumnSource {
    column: usize,
    reader: Reader,
    /// For counts of distinct values: what turns codes into ordinals.
    numbering: Option<Numbering>,
    ordinals: Option<Arc<SegmentOrdinals>>,
}

/// The values of the current block.
#[derive(Clone, Copy, Debug)]
pub(super) enum InputValues<'a> {
    /// None are needed, or the segment lacks the column.
    Nothing,
    Codes {
        codes: &'a [u32],
        /// Code 0 is the null.
        has_null: bool,
    },
    Long(&'a [i64]),
    Float(&'a [f32]),
    Double(&'a [f64]),
}

impl Input {
    /// A segment must be opened before rows are loaded. With a `numbering`, codes are ordinals.
    pub(super) fn new(
        argument: Option<&Argument>,
        filter: Option<&Computed>,
        columns: &SegmentSchema,
        numbering: Option<Numbering>,
    ) -> Self {
        let source = match argument {
            None => Source::Rows,
            Some(Argument::Computed(computed)) => {
                Source::Computed(Box::new(Evaluation::new(computed.clone(), columns)), Evaluated::Nothing)
            }
            Some(Argument::Column(column)) => {
                let reader = Reader::Missing(0);
                Source::Column(Box::new(ColumnSource { column: *column, reader, numbering, ordinals: None }))
            }
        };
        let filter = filter.map(|filter| Evaluation::new(filter.clone(), columns));
        Self { source, filter, validity: None }
    }

    /// Goes on to a segment, which is at `place` of those that have ordinals.
    pub(super) fn open(&mut self, segment: &dyn Segment, place: usize, columns: &SegmentSchema) -> Result<()> {
        if let Some(filter) = &mut self.filter {
            filter.open(segment, columns)?;
        }
        match &mut self.source {
            Source::Rows => Ok(()),
            Source::Computed(evaluation, _) => evaluation.open(segment, columns),
            Source::Column(source) => {
                source.reader = Reader::open(segment, columns, source.column)?;
                source.ordinals = source.numbering.as_ref().and_then(|numbers| numbers.codes(place)).map(Arc::clone);
                Ok(())
            }
        }
    }

    /// Reads the values of some rows of a block.
    pub(super) fn load(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        self.validity = match &mut self.source {
            Source::Rows => None,
            Source::Column(source) => source.load(block, rows)?,
            Source::Computed(evaluation, values) => {
                let (evaluated, nulls) = Evaluated::of(&evaluation.evaluate(block, rows)?)?;
                *values = evaluated;
                nulls
            }
        };
        if let Some(filter) = &mut self.filter {
            let left = NullBuffer::new(filter.is_true(block, rows)?);
            self.validity = NullBuffer::union(self.validity.as_ref(), Some(&left));
        }
        Ok(())
    }

    pub(super) fn values(&self) -> InputValues<'_> {
        match &self.source {
            Source::Rows | Source::Computed(_, Evaluated::Nothing) => InputValues::Nothing,
            Source::Computed(_, Evaluated::Long(values)) => InputValues::Long(values),
            Source::Computed(_, Evaluated::Double(values)) => InputValues::Double(values),
            Source::Column(source) => match &source.reader {
                Reader::Missing(_) | Reader::Lists(_) => InputValues::Nothing,
                Reader::Strings(reader) => {
                    InputValues::Codes { codes: &reader.codes, has_null: reader.column.dictionary().has_null() }
                }
                Reader::Long(reader) => InputValues::Long(&reader.values),
                Reader::Float(reader) => InputValues::Float(&reader.values),
                Reader::Double(reader) => InputValues::Double(&reader.values),
            },
        }
    }

    /// Which codes are neither null nor filtered out.
    pub(super) fn valid_codes(&self) -> Option<NullBuffer> {
        let InputValues::Codes { codes, .. } = self.values() else { return self.validity.clone() };
        let not_null = NullBuffer::new(BooleanBuffer::collect_bool(codes.len(), |row| codes[row] != 0));
        NullBuffer::union(self.validity.as_ref(), Some(&not_null))
    }

    /// The least and the greatest value of a block, if all that was loaded of it are valid longs.
    pub(super) fn long_ends(&self, block: usize) -> Result<Option<(i64, i64)>> {
        match &self.source {
            Source::Column(source) if self.validity.is_none() => match &source.reader {
                Reader::Long(reader) => Ok(reader.column.block_stats(block)?.min_max),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    pub(super) fn may_be_null(&self) -> bool {
        self.filter.is_some()
            || match &self.source {
                Source::Rows => false,
                Source::Computed(..) => true,
                Source::Column(source) => source.may_be_null(),
            }
    }

    /// Whether it is of a column of longs, none of which is null or filtered out.
    pub(super) fn is_of_whole_longs(&self) -> bool {
        let is_whole = |source: &ColumnSource| match &source.reader {
            Reader::Long(reader) => !reader.column.has_nulls(),
            _ => false,
        };
        self.filter.is_none() && matches!(&self.source, Source::Column(source) if is_whole(source))
    }

    /// The greatest that a sum of the segment's values can be, either way; `None` if nothing is known of it.
    pub(super) fn greatest_sum(&self, num_rows: usize) -> Result<Option<u128>> {
        match &self.source {
            Source::Rows => Ok(Some(0)),
            Source::Computed(..) => Ok(None),
            Source::Column(source) => match &source.reader {
                Reader::Long(reader) => Ok(Some(greatest_sum(reader, num_rows)?)),
                _ => Ok(Some(0)),
            },
        }
    }

    /// What a whole block amounts to; `None` where its statistics do not say all that an aggregate may need.
    pub(super) fn summary(&self, block: usize) -> Result<Option<Summary>> {
        match &self.source {
            _ if self.filter.is_some() => Ok(None),
            Source::Rows | Source::Computed(..) => Ok(None),
            Source::Column(source) => source.summary(block),
        }
    }
}

impl ColumnSource {
    /// Which values are valid, `None` if all.
    fn load(&mut self, block: usize, rows: Rows<'_>) -> Result<Option<NullBuffer>> {
        match &mut self.reader {
            Reader::Strings(reader) => reader.codes.clear(),
            Reader::Long(reader) => reader.clear(),
            Reader::Float(reader) => reader.clear(),
            Reader::Double(reader) => reader.clear(),
            Reader::Missing(_) | Reader::Lists(_) => {}
        }
        self.reader.append(block, rows)?;
        if let (Some(ordinals), Reader::Strings(reader)) = (&self.ordinals, &mut self.reader) {
            ordinals.apply(&mut reader.codes);
        }
        Ok(match &mut self.reader {
            Reader::Long(reader) => reader.take_validity(),
            Reader::Float(reader) => reader.take_validity(),
            Reader::Double(reader) => reader.take_validity(),
            Reader::Missing(_) => Some(NullBuffer::new_null(rows.len())),
            Reader::Strings(_) | Reader::Lists(_) => None,
        })
    }

    fn may_be_null(&self) -> bool {
        match &self.reader {
            Reader::Missing(_) => true,
            Reader::Strings(reader) => reader.column.dictionary().has_null(),
            Reader::Lists(_) => false,
            Reader::Long(reader) => reader.column.has_nulls(),
            Reader::Float(reader) => reader.column.has_nulls(),
            Reader::Double(reader) => reader.column.has_nulls(),
        }
    }

    fn summary(&self, block: usize) -> Result<Option<Summary>> {
        Ok(match &self.reader {
            Reader::Missing(_) => Some(Summary::default()),
            Reader::Strings(reader) => {
                let (least, _) = reader.column.code_range(block)?;
                let all_valid = !reader.column.dictionary().has_null() || least > 0;
                all_valid.then(|| Summary { all_valid: true, ..Summary::default() })
            }
            Reader::Lists(_) => None,
            Reader::Long(reader) => {
                let stats = reader.column.block_stats(block)?;
                let ends = stats.min_max.map(|(least, greatest)| Ends::Long(least, greatest));
                Some(Summary { valid: valid(&stats), whole: stats.sum, ends, ..Summary::default() })
            }
            Reader::Float(reader) => {
                let stats = reader.column.block_stats(block)?;
                let ends = stats.min_max.map(|(least, greatest)| Ends::Float(least, greatest));
                let summary = Summary { valid: valid(&stats), real: stats.sum, ends, ..Summary::default() };
                (!stats.has_nan).then_some(summary)
            }
            Reader::Double(reader) => {
                let stats = reader.column.block_stats(block)?;
                let ends = stats.min_max.map(|(least, greatest)| Ends::Double(least, greatest));
                let summary = Summary { valid: valid(&stats), real: stats.sum, ends, ..Summary::default() };
                (!stats.has_nan).then_some(summary)
            }
        })
    }
}

fn valid<T: Number>(stats: &BlockStats<T>) -> u64 {
    u64::from(stats.rows - stats.nulls)
}

/// What the values of a block amount to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    pub(super) valid: u64,
    /// Every row is valid, however many there are.
    pub(super) all_valid: bool,
    pub(super) whole: i128,
    pub(super) real: f64,
    pub(super) ends: Option<Ends>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    Long(i64, i64),
    Float(f32, f32),
    Double(f64, f64),
}

/// The greatest that any sum of values of the segment can be, either way.
fn greatest_sum(reader: &NumberReader<i64>, num_rows: usize) -> Result<u128> {
    let mut most = 0_u128;
    let mut block = 0;
    while !block_range(block, num_rows).is_empty() {
        let stats = reader.column.block_stats(block)?;
        if let Some((least, greatest)) = stats.min_max {
            most += u128::from(stats.rows) * u128::from(least.unsigned_abs().max(greatest.unsigned_abs()));
        }
        block += 1;
    }
    Ok(most)
}
