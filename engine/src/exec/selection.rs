//! Which rows of a segment a predicate selects: the predicate bound to the segment's dictionaries and indexes, and
//! asked block by block.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::physical_expr::PhysicalExpr;
use roaring::{MultiOps, RoaringBitmap};

use super::code_set::CodeSet;
use super::kernel;
use super::predicate::{DimensionPredicate, Predicate, TimeRanges};
use super::predicate_cache::{Asked, FEW_VALUES, PredicateCache};
use crate::error::Error;
use crate::model::SegmentSchema;
use crate::segment::{BLOCK_ROWS, Column, Dictionary, Segment, StringColumn, block_range};

const WORDS: usize = BLOCK_ROWS / 64;

/// Values of a dictionary that are evaluated between two yields to the scheduler.
const VALUES_AT_ONCE: usize = 16 * 1024;

/// What selecting costs, in nanoseconds, as measured (engine-findings section 4): uniting the rows of one code, one row
/// that comes out of it, and looking at the code of one row.
const UNITE_CODE_NS: f64 = 300.0;
const UNITE_ROW_NS: f64 = 20.0;
const SCAN_ROW_NS: f64 = 1.0;

/// Values that people ask for are more frequent than others: so many times the average.
const SLACK: f64 = 16.0;

/// The selected rows of one block.
#[derive(Clone, Debug)]
pub(super) enum Selected {
    Nothing,
    All,
    /// One bit a row.
    Some(Box<[u64; WORDS]>),
}

impl Selected {
    /// Offsets within the block, ascending, into `rows`.
    pub(super) fn rows_into(bits: &[u64; WORDS], rows: &mut Vec<u32>) {
        kernel::places(bits, rows);
    }
}

/// A predicate bound to one segment.
#[derive(Debug)]
pub(super) enum Bound {
    Nothing,
    Everything,
    /// Row ranges, ascending and disjoint.
    Ranges(Vec<Range<usize>>),
    Listed(RoaringBitmap),
    Codes {
        column: Arc<dyn StringColumn>,
        codes: Arc<CodeSet>,
    },
    And(Vec<Bound>),
    Or(Vec<Bound>),
}

impl Bound {
    /// Binds `predicate` and the instants that count at all to a segment. Yields while it evaluates large dictionaries.
    pub(super) async fn of(
        predicate: Option<&Predicate>,
        clip: &TimeRanges,
        segment: &Arc<dyn Segment>,
        columns: &SegmentSchema,
        remembered: &Remembering,
    ) -> Result<Self> {
        let clip = rows_at(clip, segment.as_ref())?;
        if clip.is_nothing() {
            return Ok(Self::Nothing);
        }
        match predicate {
            None => Ok(clip),
            Some(predicate) => Ok(Self::and(vec![clip, bind(predicate, segment, columns, remembered).await?])),
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// How dear it is to ask of one block, roughly; what is cheap is asked first.
    fn cost(&self) -> usize {
        match self {
            Self::Nothing | Self::Everything => 0,
            Self::Ranges(_) => 1,
            Self::Listed(_) => 2,
            Self::Codes { .. } => 3,
            Self::And(parts) | Self::Or(parts) => 4 + parts.len(),
        }
    }

    fn and(parts: Vec<Self>) -> Self {
        if parts.iter().any(Self::is_nothing) {
            return Self::Nothing;
        }
        let mut parts = parts.into_iter().filter(|part| !matches!(part, Self::Everything)).collect::<Vec<_>>();
        parts.sort_by_key(Self::cost);
        match parts.len() {
            0 => Self::Everything,
            1 => parts.remove(0),
            _ => Self::And(parts),
        }
    }

    fn or(parts: Vec<Self>) -> Self {
        if parts.iter().any(|part| matches!(part, Self::Everything)) {
            return Self::Everything;
        }
        let mut parts = parts.into_iter().filter(|part| !part.is_nothing()).collect::<Vec<_>>();
        parts.sort_by_key(Self::cost);
        match parts.len() {
            0 => Self::Nothing,
            1 => parts.remove(0),
            _ => Self::Or(parts),
        }
    }

    /// Bytes held for sets of codes and of rows.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Nothing | Self::Everything => 0,
            Self::Ranges(ranges) => ranges.len() * size_of::<Range<usize>>(),
            Self::Listed(rows) => rows.serialized_size(),
            Self::Codes { codes, .. } => codes.memory_bytes(),
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::memory_bytes).sum(),
        }
    }

    /// At most how many rows it selects of `num_rows`.
    pub(super) fn at_most(&self, num_rows: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Everything | Self::Codes { .. } => num_rows,
            Self::Ranges(ranges) => ranges.iter().map(Range::len).sum(),
            Self::Listed(rows) => rows.len() as usize,
            Self::And(parts) => parts.iter().map(|part| part.at_most(num_rows)).min().unwrap_or(num_rows),
            Self::Or(parts) => parts.iter().map(|part| part.at_most(num_rows)).sum::<usize>().min(num_rows),
        }
    }

    /// About how many rows it selects of `num_rows`, if all values are about as frequent; not fewer than a thousand
    /// where that is not known.
    pub(super) fn about(&self, num_rows: usize) -> usize {
        match self {
            Self::Codes { column, codes } => {
                let cardinality = column.dictionary().cardinality().max(1);
                let share = num_rows as f64 * codes.len() as f64 / cardinality as f64;
                ((share * SLACK) as usize).saturating_add(BLOCK_ROWS / 8).min(num_rows)
            }
            Self::And(parts) => parts.iter().map(|part| part.about(num_rows)).min().unwrap_or(num_rows),
            Self::Or(parts) => parts.iter().map(|part| part.about(num_rows)).sum::<usize>().min(num_rows),
            Self::Nothing | Self::Everything | Self::Ranges(_) | Self::Listed(_) => self.at_most(num_rows),
        }
    }

    /// The selected rows of a block of a segment with `num_rows` rows. `read` keeps the codes that were read for it last.
    pub(super) fn select(&self, block: usize, num_rows: usize, read: &mut ReadCodes) -> Result<Selected> {
        let rows = block_range(block, num_rows);
        match self {
            Self::Nothing => Ok(Selected::Nothing),
            Self::Everything => Ok(Selected::All),
            Self::Ranges(ranges) => Ok(select_ranges(ranges, rows)),
            Self::Listed(listed) => Ok(select_listed(listed, rows)),
            Self::Codes { column, codes } => select_codes(column, codes, block, read),
            Self::And(parts) => {
                let mut selected = Selected::All;
                for part in parts {
                    selected = both(selected, part.select(block, num_rows, read)?);
                    if matches!(selected, Selected::Nothing) {
                        break;
                    }
                }
                Ok(selected)
            }
            Self::Or(parts) => {
                let mut selected = Selected::Nothing;
                for part in parts {
                    selected = either(selected, part.select(block, num_rows, read)?);
                    if matches!(selected, Selected::All) {
                        break;
                    }
                }
                Ok(full_as_all(selected, rows.len()))
            }
        }
    }
}

fn both(a: Selected, b: Selected) -> Selected {
    match (a, b) {
        (Selected::Nothing, _) | (_, Selected::Nothing) => Selected::Nothing,
        (Selected::All, other) | (other, Selected::All) => other,
        (Selected::Some(mut a), Selected::Some(b)) => {
            let mut any = 0;
            for (a, b) in a.iter_mut().zip(b.iter()) {
                *a &= b;
                any |= *a;
            }
            if any == 0 { Selected::Nothing } else { Selected::Some(a) }
        }
    }
}

fn either(a: Selected, b: Selected) -> Selected {
    match (a, b) {
        (Selected::All, _) | (_, Selected::All) => Selected::All,
        (Selected::Nothing, other) | (other, Selected::Nothing) => other,
        (Selected::Some(mut a), Selected::Some(b)) => {
            a.iter_mut().zip(b.iter()).for_each(|(a, b)| *a |= b);
            Selected::Some(a)
        }
    }
}

/// Says `All` where every one of the block's `rows` is set, which is cheaper to work on.
fn full_as_all(selected: Selected, rows: usize) -> Selected {
    match selected {
        Selected::Some(bits) if bits.iter().map(|word| word.count_ones() as usize).sum::<usize>() == rows => {
            Selected::All
        }
        other => other,
    }
}

fn select_ranges(ranges: &[Range<usize>], rows: Range<usize>) -> Selected {
    let mut bits = Box::new([0; WORDS]);
    let mut any = false;
    let first = ranges.partition_point(|range| range.end <= rows.start);
    for range in ranges[first..].iter().take_while(|range| range.start < rows.end) {
        if range.start <= rows.start && rows.end <= range.end {
            return Selected::All;
        }
        any = true;
        set_bits(&mut bits, range.start.max(rows.start) - rows.start..range.end.min(rows.end) - rows.start);
    }
    if any { Selected::Some(bits) } else { Selected::Nothing }
}

fn set_bits(bits: &mut [u64; WORDS], range: Range<usize>) {
    let words = range.start / 64..range.end.div_ceil(64);
    for (word, first) in bits[words.clone()].iter_mut().zip((words.start * 64..).step_by(64)) {
        let from = range.start.saturating_sub(first);
        let to = (range.end - first).min(64);
        *word |= (u64::MAX >> (64 - (to - from))) << from;
    }
}

fn select_listed(listed: &RoaringBitmap, rows: Range<usize>) -> Selected {
    let mut bits = Box::new([0; WORDS]);
    let mut count = 0;
    // Rows fit 32 bits: a segment with more is refused when it is opened.
    for row in listed.range(rows.start as u32..rows.end as u32) {
        let offset = row as usize - rows.start;
        bits[offset / 64] |= 1 << (offset % 64);
        count += 1;
    }
    match count {
        0 => Selected::Nothing,
        _ if count == rows.len() => Selected::All,
        _ => Selected::Some(bits),
    }
}

/// The codes of one block of one column, for whoever needs them next.
#[derive(Debug, Default)]
pub(super) struct ReadCodes {
    codes: Vec<u32>,
    of: Option<(Arc<dyn StringColumn>, usize)>,
}

impl ReadCodes {
    fn read(&mut self, column: &Arc<dyn StringColumn>, block: usize) -> Result<&[u32]> {
        if self.of(column, block).is_none() {
            self.of = None;
            column.read_codes(block, &mut self.codes)?;
            self.of = Some((Arc::clone(column), block));
        }
        Ok(&self.codes)
    }

    /// The codes of this block of this column, if they are what was read.
    pub(super) fn of(&self, column: &Arc<dyn StringColumn>, block: usize) -> Option<&[u32]> {
        let (known, at) = self.of.as_ref()?;
        (*at == block && Arc::ptr_eq(known, column)).then_some(&self.codes)
    }
}

fn select_codes(
    column: &Arc<dyn StringColumn>,
    codes: &CodeSet,
    block: usize,
    read: &mut ReadCodes,
) -> Result<Selected> {
    let (least, greatest) = column.code_range(block)?;
    match codes.within(least, greatest) {
        Some(true) => return Ok(Selected::All),
        Some(false) => return Ok(Selected::Nothing),
        None => {}
    }
    let rows = read.read(column, block)?;
    let mut bits = Box::new([0; WORDS]);
    let count = codes.mark(rows, bits.as_mut_slice());
    match count {
        0 => Ok(Selected::Nothing),
        _ if count == rows.len() => Ok(Selected::All),
        _ => Ok(Selected::Some(bits)),
    }
}

async fn bind(
    predicate: &Predicate,
    segment: &Arc<dyn Segment>,
    columns: &SegmentSchema,
    remembered: &Remembering,
) -> Result<Bound> {
    match predicate {
        Predicate::Time(times) => rows_at(times, segment.as_ref()),
        Predicate::Dimension(dimension) => bind_dimension(dimension, segment, columns, remembered).await,
        Predicate::And(parts) => {
            let mut bound = Vec::with_capacity(parts.len());
            for part in parts {
                bound.push(Box::pin(bind(part, segment, columns, remembered)).await?);
                // What follows may need a large dictionary, and cannot matter any more.
                if bound.last().is_some_and(Bound::is_nothing) {
                    return Ok(Bound::Nothing);
                }
            }
            Ok(Bound::and(bound))
        }
        Predicate::Or(parts) => {
            let mut bound = Vec::with_capacity(parts.len());
            for part in parts {
                bound.push(Box::pin(bind(part, segment, columns, remembered)).await?);
            }
            Ok(Bound::or(bound))
        }
    }
}

/// The rows whose time lies in `times`, found by binary search.
fn rows_at(times: &TimeRanges, segment: &dyn Segment) -> Result<Bound> {
    let Some((first, last)) = segment.time_range() else { return Ok(Bound::Nothing) };
    let (first, last) = (first.millis(), last.millis());
    if times.covers(first, last.saturating_add(1)) {
        return Ok(Bound::Everything);
    }
    if !times.overlaps(first, last.saturating_add(1)) {
        return Ok(Bound::Nothing);
    }
    let Column::Long(time) = segment.column(0)? else {
        return Err(Error::corrupt("the first column of a segment is not its time").into());
    };
    let mut ranges = Vec::new();
    for &(start, end) in times.ranges() {
        let rows = time.lower_bound(start)?..time.lower_bound(end)?;
        if !rows.is_empty() {
            ranges.push(rows);
        }
    }
    Ok(if ranges.is_empty() { Bound::Nothing } else { Bound::Ranges(ranges) })
}

async fn bind_dimension(
    dimension: &DimensionPredicate,
    segment: &Arc<dyn Segment>,
    columns: &SegmentSchema,
    remembered: &Remembering,
) -> Result<Bound> {
    let name = columns.column(dimension.column).map_or("", |column| column.name.as_str());
    let Some(index) = segment.schema().index_of(name) else {
        // A segment that lacks the column holds nulls in it.
        let nulls = StringViewArray::new_null(1);
        return Ok(if evaluate(&dimension.condition, nulls)?[0] { Bound::Everything } else { Bound::Nothing });
    };
    let Column::String(column) = segment.column(index)? else {
        return Err(super::reader::wrong_type(name).into());
    };
    let codes = match CodeSet::by_look_up(dimension.condition.as_ref(), column.dictionary())? {
        Some(codes) => Arc::new(codes),
        None => {
            let asked = Asked { segment, column: index, cardinality: column.dictionary().cardinality() };
            remembered.by_evaluation(asked, &dimension.condition, column.dictionary()).await?
        }
    };
    if codes.is_empty() {
        return Ok(Bound::Nothing);
    }
    if codes.len() == column.dictionary().cardinality() {
        return Ok(Bound::Everything);
    }
    if let Some(rows) = by_index(column.as_ref(), &codes, segment.num_rows())? {
        return Ok(Bound::Listed(rows));
    }
    Ok(Bound::Codes { column, codes })
}

/// What was found out before, and where memory for more comes from.
#[derive(Debug)]
pub(super) struct Remembering {
    pub(super) cache: Arc<PredicateCache>,
    pub(super) pool: Arc<dyn MemoryPool>,
}

impl Remembering {
    async fn by_evaluation(
        &self,
        asked: Asked<'_>,
        condition: &Arc<dyn PhysicalExpr>,
        dictionary: &dyn Dictionary,
    ) -> Result<Arc<CodeSet>> {
        if let Some(codes) = self.cache.get(asked, condition) {
            return Ok(codes);
        }
        let codes = Arc::new(by_evaluation(condition, dictionary).await?);
        self.cache.put(asked, condition, &codes, &self.pool);
        Ok(codes)
    }
}

async fn by_evaluation(condition: &Arc<dyn PhysicalExpr>, dictionary: &dyn Dictionary) -> Result<CodeSet> {
    // Of a large dictionary the result is remembered, so it need not stay decoded.
    let values = match dictionary.cardinality() < FEW_VALUES {
        true => dictionary.values()?,
        false => dictionary.values_once()?,
    };
    let mut mask = Vec::with_capacity(values.len());
    while mask.len() < values.len() {
        let next = VALUES_AT_ONCE.min(values.len() - mask.len());
        mask.extend(evaluate(condition, values.slice(mask.len(), next))?);
        if mask.len() < values.len() {
            tokio::task::yield_now().await;
        }
    }
    Ok(CodeSet::of_mask(mask))
}

/// Whether the condition is true, for each value.
fn evaluate(condition: &Arc<dyn PhysicalExpr>, values: StringViewArray) -> Result<Vec<bool>> {
    let num_rows = values.len();
    let schema = Schema::new(vec![Field::new("value", DataType::Utf8View, true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)])?;
    let truths = condition.evaluate(&batch)?.into_array(num_rows)?;
    let truths = truths.as_boolean();
    Ok((0..num_rows).map(|i| truths.is_valid(i) && truths.value(i)).collect())
}

/// The rows of the codes from the row index, where that is there and cheaper than looking at every row.
fn by_index(column: &dyn StringColumn, codes: &CodeSet, num_rows: usize) -> Result<Option<RoaringBitmap>> {
    if !column.has_row_index() || codes.len() as f64 * UNITE_CODE_NS > num_rows as f64 * SCAN_ROW_NS {
        return Ok(None);
    }
    let expected = match column.row_counts()? {
        Some(counts) => codes.iter().filter_map(|code| counts.get(code as usize)).map(|&count| f64::from(count)).sum(),
        None => num_rows as f64 * codes.len() as f64 / column.dictionary().cardinality() as f64,
    };
    if codes.len() as f64 * UNITE_CODE_NS + expected * UNITE_ROW_NS > num_rows as f64 * SCAN_ROW_NS {
        return Ok(None);
    }
    let mut parts = Vec::with_capacity(codes.len());
    for code in codes.iter() {
        let Some(rows) = column.rows_of(code)? else { return Ok(None) };
        parts.push(rows);
    }
    Ok(Some(parts.union()))
}
