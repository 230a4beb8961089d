//! Head, footer and tail of a file: what it holds, and where.
//!
//! Only lengths are written, no offsets: columns follow each other without gaps, so that no byte is unaccounted for.

use super::page::checksum;
use super::wire::{Reader, put_string, to_u32};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, ColumnType, MetricCombine, SegmentSchema, Timestamp};

pub(super) const MAGIC: [u8; 8] = *b"HENGESEG";
pub(super) const VERSION: u32 = 1;
pub(super) const HEAD_BYTES: usize = 16;
pub(super) const TAIL_BYTES: usize = 32;

/// What a table in a file is: the rows themselves. Projections will have other numbers, which readers may skip.
const TABLE_ROWS: u8 = 0;

/// What [`ColumnEntry::kind`] says: how the column's pages and directory are laid out.
pub(super) const KIND_STRING: u8 = 0;
pub(super) const KIND_MULTI_STRING: u8 = 1;
pub(super) const KIND_NUMBER: u8 = 2;

/// The first bytes of every file.
pub(super) fn head() -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head
}

/// The rows of a segment as its footer describes them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) num_rows: usize,
    pub(super) time_range: Option<(Timestamp, Timestamp)>,
    /// Whether rows that agree in time and all dimensions were combined.
    pub(super) rolled_up: bool,
    pub(super) columns: Vec<ColumnEntry>,
}

/// A column as the footer describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ColumnEntry {
    pub(super) schema: ColumnSchema,
    /// How its bytes are laid out: one of the `KIND_` constants.
    pub(super) kind: u8,
    pub(super) nulls: u64,
    /// Codes of a dictionary, the null among them; 0 for numbers.
    pub(super) cardinality: u32,
    /// Least and greatest number, as bits; neither null nor NaN.
    pub(super) min_max: Option<(u64, u64)>,
    pub(super) sections: Sections,
    pub(super) directory_checksum: u32,
}

/// Bytes of a column by what they are for, in the order in which they lie in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sections {
    pub(super) dictionary: u64,
    pub(super) values: u64,
    pub(super) index: u64,
    pub(super) counts: u64,
    pub(super) directory: u64,
}

impl Sections {
    pub(super) fn total(&self) -> u64 {
        [self.dictionary, self.values, self.index, self.counts, self.directory].into_iter().fold(0, u64::saturating_add)
    }
}

/// The footer and the tail of a file with one table, of which `data_bytes` are written.
pub(super) fn encode(table: &Table, data_bytes: u64) -> Result<Vec<u8>> {
    let mut record = vec![TABLE_ROWS, u8::from(table.time_range.is_some()), u8::from(table.rolled_up), 0];
    record.extend_from_slice(&to_u32(table.columns.len(), "the columns")?.to_le_bytes());
    record.extend_from_slice(&(table.num_rows as u64).to_le_bytes());
    let (min, max) = table.time_range.unwrap_or_default();
    record.extend_from_slice(&min.millis().to_le_bytes());
    record.extend_from_slice(&max.millis().to_le_bytes());
    record.extend_from_slice(&(data_bytes - HEAD_BYTES as u64).to_le_bytes());
    for column in &table.columns {
        let column = encode_column(column);
        record.extend_from_slice(&to_u32(column.len(), "the bytes of a column's entry")?.to_le_bytes());
        record.extend_from_slice(&column);
    }
    let mut footer = Vec::with_capacity(record.len() + 64);
    footer.extend_from_slice(&0u32.to_le_bytes());
    footer.extend_from_slice(&1u32.to_le_bytes());
    footer.extend_from_slice(&to_u32(record.len(), "the bytes of a table's entry")?.to_le_bytes());
    footer.append(&mut record);
    let (footer_bytes, file_bytes) = (footer.len() as u64, data_bytes + (footer.len() + TAIL_BYTES) as u64);
    footer.extend_from_slice(&footer_bytes.to_le_bytes());
    footer.extend_from_slice(&file_bytes.to_le_bytes());
    footer.extend_from_slice(&VERSION.to_le_bytes());
    footer.extend_from_slice(&checksum(&footer).to_le_bytes());
    footer.extend_from_slice(&MAGIC);
    Ok(footer)
}

fn encode_column(column: &ColumnEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    put_string(&mut out, &column.schema.name);
    out.push(column.kind);
    out.push(type_byte(column.schema.column_type));
    out.push(role_byte(column.schema.role));
    out.push(u8::from(column.min_max.is_some()));
    out.extend_from_slice(&column.nulls.to_le_bytes());
    out.extend_from_slice(&column.cardinality.to_le_bytes());
    out.extend_from_slice(&column.directory_checksum.to_le_bytes());
    let (min, max) = column.min_max.unwrap_or_default();
    let sections = &column.sections;
    let sizes = [sections.dictionary, sections.values, sections.index, sections.counts, sections.directory];
    for number in [min, max].into_iter().chain(sizes) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out
}

const TYPES: [ColumnType; 4] = [ColumnType::String, ColumnType::Long, ColumnType::Float, ColumnType::Double];

const ROLES: [ColumnRole; 8] = [
    ColumnRole::Time,
    ColumnRole::Dimension,
    ColumnRole::EventTime,
    ColumnRole::Metric(MetricCombine::Sum),
    ColumnRole::Metric(MetricCombine::Min),
    ColumnRole::Metric(MetricCombine::Max),
    ColumnRole::Metric(MetricCombine::First),
    ColumnRole::Metric(MetricCombine::Last),
];

fn type_byte(column_type: ColumnType) -> u8 {
    TYPES.iter().position(|t| *t == column_type).map_or(u8::MAX, |i| i as u8)
}

fn role_byte(role: ColumnRole) -> u8 {
    ROLES.iter().position(|r| *r == role).map_or(u8::MAX, |i| i as u8)
}

/// Reads head, tail and footer, and checks that they account for every byte of the file.
pub(super) fn decode(file: &[u8]) -> Result<Table> {
    let first = file.first_chunk().copied();
    decode_with(file, first.unwrap_or_default())
}

/// The same without looking at the head, which may not be here.
pub(super) fn decode_end(file: &[u8]) -> Result<Table> {
    decode_with(file, head())
}

fn decode_with(file: &[u8], head: [u8; HEAD_BYTES]) -> Result<Table> {
    let footer = find_footer(file, file.len(), head)?;
    let mut reader = Reader::new(footer, "the footer");
    let features = reader.u32()?;
    if features != 0 {
        return Err(Error::unsupported(format!(
            "the segment was written by a newer Henge and needs what this one lacks (features {features:#x})"
        )));
    }
    let mut data_bytes = HEAD_BYTES as u64;
    let mut rows = None;
    for _ in 0..reader.count(4)? {
        let length = reader.u32()? as usize;
        let (table, bytes) = decode_table(reader.take(length)?, rows.is_none())?;
        // Later tables are projections: nothing is lost by not knowing them.
        rows = rows.or(table);
        data_bytes = data_bytes.saturating_add(bytes);
    }
    reader.finish()?;
    if data_bytes != (file.len() - footer.len() - TAIL_BYTES) as u64 {
        return Err(Error::corrupt("the footer does not account for the bytes of the file"));
    }
    rows.ok_or_else(|| Error::corrupt("the footer lists no rows"))
}

/// Of the last bytes of a file of `length` bytes: how many of them footer and tail take. Fails if they are no tail.
pub(super) fn bytes_of_end(end: &[u8], length: usize) -> Result<usize> {
    if length < HEAD_BYTES + TAIL_BYTES {
        return Err(Error::corrupt(format!("{length} bytes are too few for a segment: it is cut short")));
    }
    let tail = end.last_chunk::<TAIL_BYTES>();
    let mut tail = Reader::new(tail.map_or(&[][..], |tail| tail), "the tail");
    let (footer_bytes, file_bytes) = (tail.length()?, tail.length()?);
    tail.take(8)?;
    if tail.rest() != MAGIC || file_bytes != length {
        return Err(Error::corrupt("the file does not end as a segment does: it is cut short or damaged"));
    }
    let needed = footer_bytes.saturating_add(TAIL_BYTES);
    if needed > length - HEAD_BYTES {
        return Err(Error::corrupt("the footer is said to be longer than the file"));
    }
    Ok(needed)
}

/// Fails unless these last bytes of a file of `length` bytes are a whole footer and tail.
pub(super) fn check_end(end: &[u8], length: usize) -> Result<()> {
    find_footer(end, length, head()).map(drop)
}

/// `file` may lack its beginning, but has `length` bytes in all.
fn find_footer(file: &[u8], length: usize, first: [u8; HEAD_BYTES]) -> Result<&[u8]> {
    if length < HEAD_BYTES + TAIL_BYTES || file.len() < TAIL_BYTES {
        return Err(Error::corrupt(format!("{length} bytes are too few for a segment: it is cut short")));
    }
    if first[..8] != MAGIC {
        return Err(Error::corrupt("not a segment: the first bytes are not `HENGESEG`"));
    }
    let (body, tail_bytes) = file.split_at(file.len() - TAIL_BYTES);
    let mut tail = Reader::new(tail_bytes, "the tail");
    let (footer_bytes, file_bytes) = (tail.length()?, tail.length()?);
    let (version, expected) = (tail.u32()?, tail.u32()?);
    if tail.rest() != MAGIC || file_bytes != length {
        return Err(Error::corrupt("the file does not end as a segment does: it is cut short or damaged"));
    }
    if first != head() || version != VERSION {
        let version = u32::from_le_bytes([first[8], first[9], first[10], first[11]]).max(version);
        return Err(Error::unsupported(format!(
            "the segment has format version {version}, or damaged version bytes; this Henge reads version {VERSION}"
        )));
    }
    let start = body.len().checked_sub(footer_bytes).filter(|start| start + (length - file.len()) >= HEAD_BYTES);
    let Some(start) = start else {
        return Err(Error::corrupt("the footer is said to be longer than the file"));
    };
    if checksum(&file[start..file.len() - 12]) != expected {
        return Err(Error::corrupt("the footer is damaged: its checksum differs"));
    }
    Ok(&body[start..])
}

/// The table if it holds rows, and how many bytes of the file are its own.
fn decode_table(record: &[u8], wanted: bool) -> Result<(Option<Table>, u64)> {
    let mut reader = Reader::new(record, "a table of the footer");
    let (kind, has_time, rolled_up) = (reader.u8()?, reader.u8()? != 0, reader.u8()? != 0);
    reader.take(1)?;
    let num_columns = reader.count(4)?;
    let num_rows = reader.length()?;
    let times = (Timestamp::from_millis(reader.i64()?), Timestamp::from_millis(reader.i64()?));
    let data_bytes = reader.u64()?;
    if kind != TABLE_ROWS || !wanted {
        return Ok((None, data_bytes));
    }
    if num_rows > u32::MAX as usize {
        return Err(reader.damaged("claims more than 2^32 rows"));
    }
    let mut columns = Vec::with_capacity(num_columns);
    let mut column_bytes = 0u64;
    for _ in 0..num_columns {
        let length = reader.u32()? as usize;
        let column = decode_column(reader.take(length)?)?;
        column_bytes = column_bytes.saturating_add(column.sections.total());
        columns.push(column);
    }
    if column_bytes != data_bytes {
        return Err(reader.damaged("does not account for its bytes"));
    }
    Ok((Some(Table { num_rows, time_range: has_time.then_some(times), rolled_up, columns }), data_bytes))
}

fn decode_column(record: &[u8]) -> Result<ColumnEntry> {
    let mut reader = Reader::new(record, "a column of the footer");
    let name = reader.string()?.to_owned();
    let kind = reader.u8()?;
    let (column_type, role) = (reader.u8()?, reader.u8()?);
    let known = (TYPES.get(usize::from(column_type)), ROLES.get(usize::from(role)));
    let (Some(&column_type), Some(&role), KIND_STRING..=KIND_NUMBER) = (known.0, known.1, kind) else {
        return Err(Error::unsupported(format!(
            "column `{name}` is of a kind that this Henge does not know; a newer one wrote the segment"
        )));
    };
    let is_string = column_type == ColumnType::String;
    if is_string != (kind != KIND_NUMBER) {
        return Err(reader.damaged("has a type and a layout that do not fit"));
    }
    let has_min_max = reader.u8()? != 0;
    let (nulls, cardinality, directory_checksum) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let min_max = (reader.u64()?, reader.u64()?);
    let sections = Sections {
        dictionary: reader.u64()?,
        values: reader.u64()?,
        index: reader.u64()?,
        counts: reader.u64()?,
        directory: reader.u64()?,
    };
    let schema = ColumnSchema { name, column_type, role, multi_value: kind == KIND_MULTI_STRING };
    let min_max = has_min_max.then_some(min_max);
    Ok(ColumnEntry { schema, kind, nulls, cardinality, min_max, sections, directory_checksum })
}

impl Table {
    pub(super) fn schema(&self) -> Result<SegmentSchema> {
        SegmentSchema::try_from(self.columns.iter().map(|column| column.schema.clone()).collect::<Vec<_>>())
            .map_err(|error| Error::corrupt("the footer describes columns that cannot be").with_source(error))
    }
}
