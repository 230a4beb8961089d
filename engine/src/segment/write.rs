//! Writing a segment file, a column at a time.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::sync::Arc;

use super::BLOCK_ROWS;
use super::column::number::{NumberWriter, StoredNumber};
use super::column::string::{CodesWriter, put_counts};
use super::dictionary::DictionaryWriter;
use super::footer::{self, ColumnEntry, KIND_MULTI_STRING, KIND_NUMBER, KIND_STRING, Sections, Table};
use super::merge::{
    Codes, Fold, Lists, NumberGather, Rollup, RowOrder, Unified, fold_column, gather_codes, gather_lists, output_blocks,
};
use super::page::checksum;
use super::row_index::{RowLists, put_no_index};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, ColumnType, SegmentSchema, Timestamp};

/// Whether a text column gets an index of the rows that have each value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowIndexPolicy {
    /// Where it pays: for values that few rows have, in segments that are not small. Elsewhere reading the column is as
    /// fast.
    #[default]
    Auto,
    /// For every value.
    Always,
    Never,
}

/// How a segment is written. The default is right for most.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    row_index: HashMap<String, RowIndexPolicy>,
    rolled_up: bool,
}

impl WriteOptions {
    /// Says whether a text column gets a row index.
    #[must_use]
    pub fn row_index(mut self, column: impl Into<String>, policy: RowIndexPolicy) -> Self {
        self.row_index.insert(column.into(), policy);
        self
    }

    /// Says that rows which agree in time and all dimensions are combined, so that compaction combines them again.
    #[must_use]
    pub fn rolled_up(mut self, rollup: Rollup) -> Self {
        self.rolled_up = rollup == Rollup::On;
        self
    }

    fn row_index_of(&self, column: &str) -> RowIndexPolicy {
        self.row_index.get(column).copied().unwrap_or_default()
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct SegmentSummary {
    pub num_rows: usize,
    pub size_bytes: u64,
    /// Earliest and latest `__time`; `None` without rows.
    pub time_range: Option<(Timestamp, Timestamp)>,
    pub schema: Arc<SegmentSchema>,
}

/// Writes output rows `rows` of `order` as one segment file. Rows are numbered anew; dictionaries hold the values of
/// these rows only. What was written before an error is of no use.
///
/// Memory: beside the order, the codes and the dictionary of one column, and a block of each input.
/// The same rows in the same order give the same bytes.
pub fn write_segment(
    order: &RowOrder,
    rows: Range<usize>,
    options: &WriteOptions,
    out: &mut dyn Write,
) -> Result<SegmentSummary> {
    if rows.start > rows.end || rows.end > order.num_rows() {
        return Err(Error::defensive("rows to write that the order does not have"));
    }
    let mut buffered = BufWriter::with_capacity(1 << 18, out);
    let mut sink = Sink::new(&mut buffered);
    sink.put(&footer::head())?;
    let schema = order.schema();
    let mut columns = Vec::with_capacity(schema.columns().len());
    for (index, column) in schema.columns().iter().enumerate() {
        let writer = ColumnWriter { order, index, schema: column, rows: rows.clone() };
        let entry = writer.write(options, &mut sink);
        columns.push(entry.map_err(|error| error.context("column", &column.name))?);
    }
    let millis = columns[0].min_max;
    let time_range = millis.map(|(min, max)| (Timestamp::from_millis(min as i64), Timestamp::from_millis(max as i64)));
    let table = Table { num_rows: rows.len(), time_range, rolled_up: options.rolled_up, columns };
    sink.put(&footer::encode(&table, sink.written)?)?;
    let size_bytes = sink.written;
    buffered.flush().map_err(cannot_write)?;
    Ok(SegmentSummary { num_rows: rows.len(), size_bytes, time_range, schema: Arc::clone(schema) })
}

/// Where bytes go, and how many went.
pub(super) struct Sink<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, written: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(cannot_write)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written since the last time it was asked.
    fn since(&self, mark: &mut u64) -> u64 {
        let bytes = self.written - *mark;
        *mark = self.written;
        bytes
    }
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::runtime_failure("cannot write a segment").with_source(error)
}

struct ColumnWriter<'a> {
    order: &'a RowOrder,
    index: usize,
    schema: &'a ColumnSchema,
    rows: Range<usize>,
}

impl ColumnWriter<'_> {
    fn write(self, options: &WriteOptions, sink: &mut Sink<'_>) -> Result<ColumnEntry> {
        let policy = options.row_index_of(&self.schema.name);
        match (self.schema.column_type, self.schema.multi_value) {
            (ColumnType::String, false) => self.write_codes(policy, sink),
            (ColumnType::String, true) => self.write_lists(policy, sink),
            (ColumnType::Long, _) => self.write_numbers::<i64>(sink),
            (ColumnType::Float, _) => self.write_numbers::<f32>(sink),
            (ColumnType::Double, _) => self.write_numbers::<f64>(sink),
        }
    }

    fn write_codes(self, policy: RowIndexPolicy, sink: &mut Sink<'_>) -> Result<ColumnEntry> {
        let Codes { codes, dictionary } = gather_codes(self.order, self.index, self.rows.clone())?;
        let mut strings = StringsWriter::begin(&dictionary, sink)?;
        let mut blocks = CodesWriter::default();
        codes.chunks(BLOCK_ROWS).try_for_each(|block| blocks.push(block, strings.sink))?;
        strings.end_values(blocks)?;
        let pairs = codes.iter().enumerate().map(|(row, &code)| (row as u32, code));
        strings.put_index(&dictionary, self.rows.len(), pairs, policy)?;
        strings.finish(self.schema, KIND_STRING, &dictionary)
    }

    fn write_lists(self, policy: RowIndexPolicy, sink: &mut Sink<'_>) -> Result<ColumnEntry> {
        let Lists { offsets, codes, dictionary } = gather_lists(self.order, self.index, self.rows.clone())?;
        let mut strings = StringsWriter::begin(&dictionary, sink)?;
        let mut blocks = CodesWriter::default();
        for block in output_blocks(0..self.rows.len()) {
            let ends = &offsets[block.start..=block.end];
            let lengths = ends.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
            let codes = &codes[ends[0] as usize..ends[lengths.len()] as usize];
            blocks.push_lists(&lengths, codes, strings.sink)?;
        }
        strings.end_values(blocks)?;
        let pairs = offsets.windows(2).enumerate().flat_map(|(row, ends)| {
            codes[ends[0] as usize..ends[1] as usize].iter().map(move |&code| (row as u32, code))
        });
        strings.put_index(&dictionary, self.rows.len(), pairs, policy)?;
        strings.finish(self.schema, KIND_MULTI_STRING, &dictionary)
    }

    fn write_numbers<T: StoredNumber>(self, sink: &mut Sink<'_>) -> Result<ColumnEntry> {
        let mut mark = sink.written;
        let mut writer = NumberWriter::<T>::new();
        match (self.schema.role, self.order.has_groups()) {
            (ColumnRole::Metric(combine), true) => {
                let fold = Fold { metric: self.index, combine };
                fold_column(
                    self.order,
                    fold,
                    self.rows.clone(),
                    |value: Option<T>, _| value,
                    |values, valid| writer.push(values, valid, sink),
                )?;
            }
            (ColumnRole::EventTime, true) => self.write_event_times(&mut writer, sink)?,
            _ => {
                let mut gather = NumberGather::<T>::new(self.order, self.index)?;
                let mut values = Vec::new();
                for block in output_blocks(self.rows.clone()) {
                    let valid = gather.read(self.order, block, &mut values)?;
                    writer.push(&mut values, valid.as_ref(), sink)?;
                }
            }
        }
        let values = sink.since(&mut mark);
        let mut directory = Vec::new();
        let (nulls, min_max) = writer.finish(&mut directory)?;
        let sections = Sections { values, ..Sections::default() };
        let entry = ColumnEntry {
            schema: self.schema.clone(),
            kind: KIND_NUMBER,
            nulls,
            cardinality: 0,
            min_max,
            sections,
            directory_checksum: 0,
        };
        put_directory(entry, directory, sink)
    }

    /// The times that go with the metric right before this column.
    fn write_event_times<T: StoredNumber>(&self, writer: &mut NumberWriter<T>, sink: &mut Sink<'_>) -> Result<()> {
        let metric = self.index - 1;
        let schema = &self.order.schema().columns()[metric];
        let ColumnRole::Metric(combine) = schema.role else {
            return Err(Error::defensive("an event time that follows no metric"));
        };
        let fold = Fold { metric, combine };
        let push = |values: &mut Vec<T>, valid: Option<&_>| writer.push(values, valid, sink);
        // An event time is a Long, so going by its bits changes nothing.
        let time = |time: Option<i64>| time.map(|time| T::from_bits(time as u64));
        match schema.column_type {
            ColumnType::Long => fold_column(self.order, fold, self.rows.clone(), |_: Option<i64>, at| time(at), push),
            ColumnType::Float => fold_column(self.order, fold, self.rows.clone(), |_: Option<f32>, at| time(at), push),
            ColumnType::Double => fold_column(self.order, fold, self.rows.clone(), |_: Option<f64>, at| time(at), push),
            ColumnType::String => Err(Error::defensive("a metric of texts")),
        }
    }
}

/// Writes what columns of texts have in common.
struct StringsWriter<'a, 'b> {
    sink: &'a mut Sink<'b>,
    mark: u64,
    sections: Sections,
    directory: Vec<u8>,
    nulls: u64,
}

impl<'a, 'b> StringsWriter<'a, 'b> {
    /// Writes the dictionary.
    fn begin(dictionary: &Unified, sink: &'a mut Sink<'b>) -> Result<Self> {
        let mut mark = sink.written;
        let mut directory = vec![u8::from(dictionary.has_null())];
        let mut writer = DictionaryWriter::default();
        dictionary.values().try_for_each(|value| writer.push(value, sink))?;
        writer.finish(sink, &mut directory)?;
        let sections = Sections { dictionary: sink.since(&mut mark), ..Sections::default() };
        Ok(Self { sink, mark, sections, directory, nulls: 0 })
    }

    fn end_values(&mut self, blocks: CodesWriter) -> Result<()> {
        self.sections.values = self.sink.since(&mut self.mark);
        blocks.finish(&mut self.directory)
    }

    /// Writes the row index and the row counts, where they pay.
    fn put_index(
        &mut self,
        dictionary: &Unified,
        num_rows: usize,
        pairs: impl Iterator<Item = (u32, u32)> + Clone,
        policy: RowIndexPolicy,
    ) -> Result<()> {
        let cardinality = dictionary.cardinality();
        let counts = count_rows(cardinality, pairs.clone());
        self.nulls = if dictionary.has_null() { u64::from(counts[0]) } else { 0 };
        match most_indexed_rows(&counts, num_rows, policy) {
            Some(most_rows) => RowLists::new(cardinality, pairs).write(most_rows, self.sink, &mut self.directory)?,
            None => put_no_index(&mut self.directory)?,
        }
        self.sections.index = self.sink.since(&mut self.mark);
        let pays = cardinality * ROWS_A_VALUE <= num_rows;
        put_counts(pays.then_some(&counts), self.sink, &mut self.directory)?;
        self.sections.counts = self.sink.since(&mut self.mark);
        Ok(())
    }

    fn finish(self, schema: &ColumnSchema, kind: u8, dictionary: &Unified) -> Result<ColumnEntry> {
        let entry = ColumnEntry {
            schema: schema.clone(),
            kind,
            nulls: self.nulls,
            cardinality: dictionary.cardinality() as u32,
            min_max: None,
            sections: self.sections,
            directory_checksum: 0,
        };
        put_directory(entry, self.directory, self.sink)
    }
}

fn put_directory(mut entry: ColumnEntry, mut directory: Vec<u8>, sink: &mut Sink<'_>) -> Result<ColumnEntry> {
    // Zeros that a reader would have to skip: the length says where the directory ends, the checksum covers them.
    let padding = directory.len().next_multiple_of(8) - directory.len();
    directory.resize(directory.len() + padding, 0);
    entry.sections.directory = directory.len() as u64;
    entry.directory_checksum = checksum(&directory);
    sink.put(&directory)?;
    Ok(entry)
}

/// Below this many rows to a value, a list of counts is about as large as the column itself.
const ROWS_A_VALUE: usize = 4;

/// Segments with fewer rows are read whole in less time than an index look-up saves.
const INDEX_MIN_ROWS: usize = 32_768;

/// Values that more than one row in this many has are found as fast by reading the column (measured: an index is
/// seven times as fast at one row in a hundred, and slower at one in five).
const INDEX_MAX_SHARE: usize = 64;

/// Codes with at most this many rows are to be indexed; `None` if none are.
fn most_indexed_rows(counts: &[u32], num_rows: usize, policy: RowIndexPolicy) -> Option<usize> {
    match policy {
        RowIndexPolicy::Never => None,
        RowIndexPolicy::Always => (!counts.is_empty()).then_some(usize::MAX),
        RowIndexPolicy::Auto => {
            let most = num_rows / INDEX_MAX_SHARE;
            (num_rows >= INDEX_MIN_ROWS && counts.iter().any(|&count| count as usize <= most)).then_some(most)
        }
    }
}

/// How many rows have each code; a row that has it twice counts once.
fn count_rows(cardinality: usize, pairs: impl Iterator<Item = (u32, u32)>) -> Vec<u32> {
    let mut counts = vec![0u32; cardinality];
    let mut last_rows = vec![u32::MAX; cardinality];
    for (row, code) in pairs {
        let code = code as usize;
        counts[code] += u32::from(last_rows[code] != row);
        last_rows[code] = row;
    }
    counts
}
