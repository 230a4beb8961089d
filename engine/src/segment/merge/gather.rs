//! Reading a column of all inputs in the order of the output.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use super::unify::{Null, Unified, UsedCodes};
use super::{Input, RowOrder};
use crate::error::{Error, Result};
use crate::segment::column::number::StoredNumber;
use crate::segment::{BLOCK_ROWS, Column, Dictionary, MultiStringColumn, NumericColumn, StringColumn, block_range};

/// The codes of a column in the order of the output, and their dictionary.
#[derive(Debug)]
pub(in crate::segment) struct Codes {
    pub(in crate::segment) codes: Vec<u32>,
    pub(in crate::segment) dictionary: Unified,
}

/// The same, of lists: row `i` has `codes[offsets[i]..offsets[i + 1]]`.
#[derive(Debug)]
pub(in crate::segment) struct Lists {
    pub(in crate::segment) offsets: Vec<u32>,
    pub(in crate::segment) codes: Vec<u32>,
    pub(in crate::segment) dictionary: Unified,
}

/// Splits rows where blocks end, and shows them as (block, rows within it).
fn each_block(rows: Range<usize>, mut show: impl FnMut(usize, Range<usize>) -> Result<()>) -> Result<()> {
    let mut start = rows.start;
    while start < rows.end {
        let block = start / BLOCK_ROWS;
        let end = rows.end.min((block + 1) * BLOCK_ROWS);
        show(block, start - block * BLOCK_ROWS..end - block * BLOCK_ROWS)?;
        start = end;
    }
    Ok(())
}

struct CodeCursor {
    column: Arc<dyn StringColumn>,
    block: usize,
    codes: Vec<u32>,
}

impl CodeCursor {
    fn load(&mut self, block: usize) -> Result<()> {
        if self.block != block {
            self.column.read_codes(block, &mut self.codes)?;
            self.block = block;
        }
        Ok(())
    }
}

/// The codes of a column with one text a row.
pub(in crate::segment) fn gather_codes(order: &RowOrder, column: usize, rows: Range<usize>) -> Result<Codes> {
    let mut cursors = Vec::new();
    let mut used = Vec::new();
    for input in order.inputs() {
        let (cursor, codes) = match input.column(column)? {
            Some(Column::String(column)) => {
                let codes = UsedCodes::none_of(column.dictionary())?;
                (Some(CodeCursor { column, block: usize::MAX, codes: Vec::new() }), Some(codes))
            }
            Some(_) => return Err(mistyped()),
            None => (None, None),
        };
        cursors.push(cursor);
        used.push(codes);
    }
    let mut codes = Vec::with_capacity(rows.len());
    let mut null = Null::IfUsed;
    order.each_first(rows.clone(), |input, input_rows| {
        let (Some(cursor), Some(used)) = (&mut cursors[input], &mut used[input]) else {
            codes.resize(codes.len() + input_rows.len(), 0);
            null = Null::Always;
            return Ok(());
        };
        each_block(input_rows, |block, within| {
            cursor.load(block)?;
            used.mark(&cursor.codes[within.clone()]);
            codes.extend_from_slice(&cursor.codes[within]);
            Ok(())
        })
    })?;
    let dictionary = Unified::of(used, null);
    let mut rest = &mut codes[..];
    order.each_first(rows, |input, input_rows| {
        let (here, tail) = std::mem::take(&mut rest).split_at_mut(input_rows.len());
        rest = tail;
        map_codes(here, dictionary.codes_of(input));
        Ok(())
    })?;
    Ok(Codes { codes, dictionary })
}

/// An input without the column has no codes: its rows are null already.
fn map_codes(codes: &mut [u32], merged: &[u32]) {
    if !merged.is_empty() {
        codes.iter_mut().for_each(|code| *code = merged[*code as usize]);
    }
}

/// Reads lists of codes from a column of lists, or of single values: a null is the empty list then.
pub(super) struct ListReader {
    column: ListColumn,
    num_values: usize,
    block: usize,
    offsets: Vec<u32>,
    codes: Vec<u32>,
}

enum ListColumn {
    Multi(Arc<dyn MultiStringColumn>),
    Single(Arc<dyn StringColumn>),
}

impl ListReader {
    pub(super) fn new(column: Column) -> Result<Self> {
        let column = match column {
            Column::MultiString(column) => ListColumn::Multi(column),
            Column::String(column) => ListColumn::Single(column),
            _ => return Err(mistyped()),
        };
        Ok(Self { column, num_values: 0, block: usize::MAX, offsets: Vec::new(), codes: Vec::new() })
    }

    pub(super) fn dictionary(&self) -> &dyn Dictionary {
        match &self.column {
            ListColumn::Multi(column) => column.dictionary(),
            ListColumn::Single(column) => column.dictionary(),
        }
    }

    /// Shows the lists of some rows in order.
    pub(super) fn each(&mut self, rows: Range<usize>, mut show: impl FnMut(&[u32])) -> Result<()> {
        each_block(rows, |block, within| {
            self.load(block)?;
            for row in within {
                let list = &self.codes[self.offsets[row] as usize..self.offsets[row + 1] as usize];
                self.num_values += list.len();
                show(list);
            }
            Ok(())
        })
    }

    fn load(&mut self, block: usize) -> Result<()> {
        if self.block == block {
            return Ok(());
        }
        self.block = block;
        let column = match &self.column {
            ListColumn::Multi(column) => return column.read_codes(block, &mut self.offsets, &mut self.codes),
            ListColumn::Single(column) => column,
        };
        column.read_codes(block, &mut self.codes)?;
        self.offsets.clear();
        self.offsets.push(0);
        let (has_null, mut kept) = (column.dictionary().has_null(), 0);
        for row in 0..self.codes.len() {
            let code = self.codes[row];
            if !(has_null && code == 0) {
                self.codes[kept] = code;
                kept += 1;
            }
            self.offsets.push(kept as u32);
        }
        self.codes.truncate(kept);
        Ok(())
    }
}

/// The codes of a column with a list of texts a row.
pub(in crate::segment) fn gather_lists(order: &RowOrder, column: usize, rows: Range<usize>) -> Result<Lists> {
    let open = |input: &Input| input.column(column)?.map(ListReader::new).transpose();
    let mut readers = order.inputs().iter().map(open).collect::<Result<Vec<_>>>()?;
    let used = readers.iter().map(|reader| reader.as_ref().map(|r| UsedCodes::none_of(r.dictionary())).transpose());
    let mut used = used.collect::<Result<Vec<_>>>()?;
    let (mut offsets, mut codes) = (vec![0], Vec::<u32>::with_capacity(rows.len()));
    order.each_first(rows.clone(), |input, input_rows| {
        let (Some(reader), Some(used)) = (&mut readers[input], &mut used[input]) else {
            offsets.resize(offsets.len() + input_rows.len(), codes.len() as u32);
            return Ok(());
        };
        reader.each(input_rows, |list| {
            used.mark(list);
            codes.extend_from_slice(list);
            offsets.push(codes.len() as u32);
        })?;
        if u32::try_from(codes.len()).is_err() {
            return Err(Error::capacity_exceeded("a segment cannot hold more than 2^32 values of one column"));
        }
        Ok(())
    })?;
    let dictionary = Unified::of(used, Null::IfUsed);
    let mut row = 0;
    order.each_first(rows, |input, input_rows| {
        let end = row + input_rows.len();
        map_codes(&mut codes[offsets[row] as usize..offsets[end] as usize], dictionary.codes_of(input));
        row = end;
        Ok(())
    })?;
    Ok(Lists { offsets, codes, dictionary })
}

/// Reads single rows and stretches of a column of numbers.
pub(super) struct NumberReader<T: StoredNumber> {
    column: Arc<dyn NumericColumn<T>>,
    block: usize,
    values: Vec<T>,
    valid: Option<BooleanBuffer>,
}

impl<T: StoredNumber> NumberReader<T> {
    fn load(&mut self, block: usize) -> Result<()> {
        if self.block != block {
            self.valid = self.column.read(block, &mut self.values)?;
            self.block = block;
        }
        Ok(())
    }

    /// The value of a row; `None` if it is null.
    pub(super) fn get(&mut self, row: usize) -> Result<Option<T>> {
        self.load(row / BLOCK_ROWS)?;
        let within = row % BLOCK_ROWS;
        Ok(self.valid.as_ref().is_none_or(|valid| valid.value(within)).then(|| self.values[within]))
    }
}

/// A column of numbers in the order of the output.
pub(in crate::segment) struct NumberGather<T: StoredNumber> {
    /// Of each input that has the column.
    pub(super) readers: Vec<Option<NumberReader<T>>>,
}

impl<T: StoredNumber> NumberGather<T> {
    pub(in crate::segment) fn new(order: &RowOrder, column: usize) -> Result<Self> {
        let open = |input: &Input| {
            let Some(column) = input.column(column)? else { return Ok(None) };
            let column = T::of(column).ok_or_else(mistyped)?;
            Ok(Some(NumberReader { column, block: usize::MAX, values: Vec::new(), valid: None }))
        };
        Ok(Self { readers: order.inputs().iter().map(open).collect::<Result<_>>()? })
    }

    /// Replaces `out` by the values of some output rows, each that of the first input row behind it.
    pub(in crate::segment) fn read(
        &mut self,
        order: &RowOrder,
        rows: Range<usize>,
        out: &mut Vec<T>,
    ) -> Result<Option<BooleanBuffer>> {
        out.clear();
        let mut valid = BooleanBufferBuilder::new(rows.len());
        order.each_first(rows, |input, input_rows| {
            let Some(reader) = &mut self.readers[input] else {
                out.resize(out.len() + input_rows.len(), T::default());
                valid.append_n(input_rows.len(), false);
                return Ok(());
            };
            each_block(input_rows, |block, within| {
                reader.load(block)?;
                out.extend_from_slice(&reader.values[within.clone()]);
                match &reader.valid {
                    Some(bits) => valid.append_buffer(&bits.slice(within.start, within.len())),
                    None => valid.append_n(within.len(), true),
                }
                Ok(())
            })
        })?;
        let valid = valid.finish();
        Ok((valid.count_set_bits() < valid.len()).then_some(valid))
    }
}

fn mistyped() -> Error {
    Error::defensive("a column of another type than its schema says")
}

/// The rows of the output, block by block.
pub(in crate::segment) fn output_blocks(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (0..rows.len().div_ceil(BLOCK_ROWS)).map(move |block| {
        let within = block_range(block, rows.len());
        rows.start + within.start..rows.start + within.end
    })
}
