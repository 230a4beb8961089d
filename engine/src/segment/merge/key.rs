//! Rows as words that compare as the rows do: the time, then the dimensions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;

use super::gather::ListReader;
use super::unify::{Null, Unified, UsedCodes};
use super::{Input, Rollup};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnType, SegmentSchema};
use crate::segment::{BLOCK_ROWS, Column, Number, NumericColumn, StringColumn, block_range};

/// Goes through the rows of one input.
pub(super) struct KeyCursor {
    parts: Vec<KeyPart>,
    width: usize,
    num_rows: usize,
    row: usize,
    end: usize,
    /// The first row of the block whose keys are at hand.
    block_start: usize,
    keys: Vec<u64>,
}

/// Where some words of a key come from.
enum KeyPart {
    /// The column is missing: null, or the empty list.
    Constant {
        words: usize,
    },
    Codes {
        column: Arc<dyn StringColumn>,
        ranks: Vec<u32>,
    },
    Lists {
        reader: ListReader,
        ranks: HashMap<Vec<u32>, u64>,
        codes: Vec<u32>,
    },
    Time(Arc<dyn NumericColumn<i64>>),
    Long(Arc<dyn NumericColumn<i64>>),
    Float(Arc<dyn NumericColumn<f32>>),
    Double(Arc<dyn NumericColumn<f64>>),
}

/// A cursor for each input. Without rollup keys are times alone.
pub(super) fn cursors(inputs: &[Input], schema: &SegmentSchema, rollup: Rollup) -> Result<Vec<KeyCursor>> {
    let mut parts = inputs.iter().map(|_| Vec::new()).collect::<Vec<_>>();
    for (index, column) in schema.columns().iter().enumerate() {
        let wanted = match column.role {
            ColumnRole::Time => true,
            ColumnRole::Dimension => rollup == Rollup::On,
            ColumnRole::Metric(_) | ColumnRole::EventTime => false,
        };
        if wanted {
            add_parts(inputs, index, column.column_type, column.multi_value, &mut parts)?;
        }
    }
    inputs.iter().zip(parts).map(|(input, parts)| KeyCursor::new(input, parts)).collect()
}

fn add_parts(
    inputs: &[Input],
    index: usize,
    column_type: ColumnType,
    multi_value: bool,
    parts: &mut [Vec<KeyPart>],
) -> Result<()> {
    let columns = inputs.iter().map(|input| input.column(index)).collect::<Result<Vec<_>>>()?;
    match (column_type, multi_value) {
        (ColumnType::String, true) => return add_lists(inputs, columns, parts),
        (ColumnType::String, false) => return add_codes(columns, parts),
        _ => {}
    }
    for (column, parts) in columns.into_iter().zip(parts) {
        parts.push(match column {
            Some(Column::Long(column)) if index == 0 => KeyPart::Time(column),
            Some(Column::Long(column)) => KeyPart::Long(column),
            Some(Column::Float(column)) => KeyPart::Float(column),
            Some(Column::Double(column)) => KeyPart::Double(column),
            Some(_) => return Err(Error::defensive("a column of another type than its schema says")),
            None => KeyPart::Constant { words: 2 },
        });
    }
    Ok(())
}

fn add_codes(columns: Vec<Option<Column>>, parts: &mut [Vec<KeyPart>]) -> Result<()> {
    let used = columns.iter().map(|column| match column {
        Some(Column::String(column)) => UsedCodes::all_of(column.dictionary()).map(Some),
        _ => Ok(None),
    });
    let unified = Unified::of(used.collect::<Result<_>>()?, Null::Always);
    for (input, (column, parts)) in columns.into_iter().zip(parts).enumerate() {
        parts.push(match column {
            Some(Column::String(column)) => KeyPart::Codes { column, ranks: unified.codes_of(input).to_vec() },
            _ => KeyPart::Constant { words: 1 },
        });
    }
    Ok(())
}

/// Lists are ranked among all lists that occur, so that one word tells their order.
fn add_lists(inputs: &[Input], columns: Vec<Option<Column>>, parts: &mut [Vec<KeyPart>]) -> Result<()> {
    let mut readers =
        columns.into_iter().map(|column| column.map(ListReader::new).transpose()).collect::<Result<Vec<_>>>()?;
    let used =
        readers.iter().map(|reader| reader.as_ref().map(|reader| UsedCodes::all_of(reader.dictionary())).transpose());
    let unified = Unified::of(used.collect::<Result<_>>()?, Null::Always);
    let mut lists = BTreeSet::from([Vec::new()]);
    for (index, (input, reader)) in inputs.iter().zip(&mut readers).enumerate() {
        let Some(reader) = reader else { continue };
        reader.each(input.rows.clone(), |list| {
            let list = list.iter().map(|&code| unified.codes_of(index)[code as usize]).collect::<Vec<_>>();
            lists.insert(list);
        })?;
    }
    let ranks = lists.into_iter().zip(0u64..).collect::<HashMap<_, _>>();
    for (input, (reader, parts)) in readers.into_iter().zip(parts).enumerate() {
        parts.push(match reader {
            Some(reader) => KeyPart::Lists { reader, ranks: ranks.clone(), codes: unified.codes_of(input).to_vec() },
            None => KeyPart::Constant { words: 1 },
        });
    }
    Ok(())
}

impl KeyPart {
    fn words(&self) -> usize {
        match self {
            Self::Constant { words } => *words,
            Self::Codes { .. } | Self::Lists { .. } | Self::Time(_) => 1,
            Self::Long(_) | Self::Float(_) | Self::Double(_) => 2,
        }
    }

    /// Puts its words of all rows of a block in `out`, which holds keys of `width` words.
    fn fill(&mut self, block: usize, rows: std::ops::Range<usize>, width: usize, out: &mut [u64]) -> Result<()> {
        match self {
            Self::Constant { .. } => {}
            Self::Codes { column, ranks } => {
                let mut codes = Vec::new();
                column.read_codes(block, &mut codes)?;
                for (slot, code) in out.iter_mut().step_by(width).zip(codes) {
                    *slot = u64::from(ranks[code as usize]);
                }
            }
            Self::Lists { reader, ranks, codes } => {
                let mut slots = out.iter_mut().step_by(width);
                let mut list = Vec::new();
                reader.each(rows, |raw| {
                    list.clear();
                    list.extend(raw.iter().map(|&code| codes[code as usize]));
                    if let Some(slot) = slots.next() {
                        *slot = ranks.get(&list).copied().unwrap_or(0);
                    }
                })?;
            }
            Self::Time(column) => {
                let mut times = Vec::new();
                column.read(block, &mut times)?;
                out.iter_mut().step_by(width).zip(times).for_each(|(slot, time)| *slot = long_word(time));
            }
            Self::Long(column) => fill_numbers(column.as_ref(), block, width, out, long_word)?,
            Self::Float(column) => fill_numbers(column.as_ref(), block, width, out, |v| double_word(v.into()))?,
            Self::Double(column) => fill_numbers(column.as_ref(), block, width, out, double_word)?,
        }
        Ok(())
    }
}

/// Whether there is a value, then the value.
fn fill_numbers<T: Number>(
    column: &dyn NumericColumn<T>,
    block: usize,
    width: usize,
    out: &mut [u64],
    word: impl Fn(T) -> u64,
) -> Result<()> {
    let mut values = Vec::new();
    let valid: Option<BooleanBuffer> = column.read(block, &mut values)?;
    for (row, (slots, value)) in out.chunks_mut(width).zip(values).enumerate() {
        if valid.as_ref().is_none_or(|valid| valid.value(row)) {
            slots[0] = 1;
            slots[1] = word(value);
        }
    }
    Ok(())
}

fn long_word(value: i64) -> u64 {
    value as u64 ^ (1 << 63)
}

/// Ascends as `total_cmp` does.
fn double_word(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 0 { bits | (1 << 63) } else { !bits }
}

impl KeyCursor {
    fn new(input: &Input, parts: Vec<KeyPart>) -> Result<Self> {
        let width = parts.iter().map(KeyPart::words).sum();
        let (row, end) = (input.rows.start, input.rows.end);
        let num_rows = input.segment.num_rows();
        let mut cursor = Self { parts, width, num_rows, row, end, block_start: 0, keys: Vec::new() };
        cursor.load()?;
        Ok(cursor)
    }

    fn load(&mut self) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        let block = self.row / BLOCK_ROWS;
        let rows = block_range(block, self.num_rows);
        self.block_start = rows.start;
        self.keys.clear();
        self.keys.resize(rows.len() * self.width, 0);
        let mut word = 0;
        for part in &mut self.parts {
            part.fill(block, rows.clone(), self.width, &mut self.keys[word..])?;
            word += part.words();
        }
        Ok(())
    }

    pub(super) fn is_done(&self) -> bool {
        self.row >= self.end
    }

    pub(super) fn row(&self) -> u32 {
        self.row as u32
    }

    pub(super) fn key(&self) -> &[u64] {
        let at = (self.row - self.block_start) * self.width;
        &self.keys[at..at + self.width]
    }

    pub(super) fn advance(&mut self) -> Result<()> {
        self.row += 1;
        if self.row.is_multiple_of(BLOCK_ROWS) { self.load() } else { Ok(()) }
    }
}
