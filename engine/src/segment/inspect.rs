//! What a segment file holds and where its bytes go, for people.

use std::fmt;

use super::column::OpenColumn;
use super::file::SegmentFile;
use super::footer::{Sections, VERSION};
use crate::error::Result;
use crate::model::{ColumnRole, ColumnSchema, ColumnType, Timestamp};

/// A segment file looked at from outside. Shown by `henge segment inspect`.
#[derive(Clone, Debug)]
pub struct Inspection {
    name: String,
    size_bytes: u64,
    num_rows: usize,
    time_range: Option<(Timestamp, Timestamp)>,
    columns: Vec<ColumnInspection>,
}

#[derive(Clone, Debug)]
struct ColumnInspection {
    schema: ColumnSchema,
    nulls: u64,
    cardinality: u32,
    encoding: String,
    sections: Sections,
}

impl Inspection {
    pub(super) fn new(segment: &SegmentFile) -> Result<Self> {
        let table = segment.table();
        let columns = table.columns.iter().enumerate().map(|(index, entry)| {
            let column = segment.opened(index)?;
            Ok(ColumnInspection {
                schema: entry.schema.clone(),
                nulls: entry.nulls,
                cardinality: entry.cardinality,
                encoding: encoding_of(column)?,
                sections: entry.sections,
            })
        });
        Ok(Self {
            name: segment.name().to_owned(),
            size_bytes: segment.size_bytes(),
            num_rows: table.num_rows,
            time_range: table.time_range,
            columns: columns.collect::<Result<_>>()?,
        })
    }

    fn total(&self) -> Sections {
        self.columns.iter().fold(Sections::default(), |sum, column| Sections {
            dictionary: sum.dictionary + column.sections.dictionary,
            values: sum.values + column.sections.values,
            index: sum.index + column.sections.index,
            counts: sum.counts + column.sections.counts,
            directory: sum.directory + column.sections.directory,
        })
    }
}

/// `packed`, or `delta 97%, constant 3%`; for text also whether the dictionary is compressed.
fn encoding_of(column: &OpenColumn) -> Result<String> {
    let counts = column.encodings()?;
    let blocks = counts.iter().map(|(_, count)| count).sum::<usize>();
    let parts = counts.iter().map(|(encoding, count)| match *count == blocks {
        true => encoding.to_string(),
        false => format!("{encoding} {}%", (count * 100).div_ceil(blocks)),
    });
    let mut text = parts.collect::<Vec<_>>().join(", ");
    let dictionary = match column {
        OpenColumn::String(column) => column.strings().dictionary(),
        OpenColumn::MultiString(column) => column.strings().dictionary(),
        _ => return Ok(text),
    };
    if dictionary.compressed_pages() > 0 {
        text.push_str("; dictionary zstd");
    }
    Ok(text)
}

fn type_of(schema: &ColumnSchema) -> String {
    let name = match schema.column_type {
        ColumnType::String if schema.multi_value => "strings",
        ColumnType::String => "string",
        ColumnType::Long => "long",
        ColumnType::Float => "float",
        ColumnType::Double => "double",
    };
    match schema.role {
        ColumnRole::Metric(combine) => format!("{name} {combine:?}").to_lowercase(),
        ColumnRole::EventTime => "event time".to_owned(),
        ColumnRole::Time | ColumnRole::Dimension => name.to_owned(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        1..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "segment    {}", self.name)?;
        writeln!(f, "format     {VERSION}")?;
        writeln!(f, "rows       {}", self.num_rows)?;
        match self.time_range {
            Some((min, max)) => writeln!(f, "time       {min} to {max}")?,
            None => writeln!(f, "time       none")?,
        }
        let bits = (self.size_bytes * 8) as f64 / self.num_rows.max(1) as f64;
        writeln!(f, "size       {} ({bits:.1} bits a row)", size(self.size_bytes))?;
        let rows = self.columns.iter().map(|column| self.cells(column)).chain([self.total_cells()]);
        let header = HEADER.map(str::to_owned);
        let rows = std::iter::once(header).chain(rows).collect::<Vec<_>>();
        let mut widths = [0; HEADER.len()];
        for row in &rows {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
        }
        for row in &rows {
            f.write_str("\n")?;
            for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
                match i {
                    0 => write!(f, "{cell:<width$}")?,
                    1 => write!(f, "  {cell:<width$}")?,
                    _ if i == HEADER.len() - 1 => write!(f, "  {cell}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
        }
        writeln!(f)
    }
}

const HEADER: [&str; 11] =
    ["column", "type", "nulls", "values", "dictionary", "codes", "index", "counts", "total", "share", "encoding"];

impl Inspection {
    fn cells(&self, column: &ColumnInspection) -> [String; HEADER.len()] {
        let values = match column.schema.column_type {
            ColumnType::String => column.cardinality.to_string(),
            _ => "-".to_owned(),
        };
        let name = column.schema.name.clone();
        self.row(name, type_of(&column.schema), column.nulls.to_string(), values, &column.sections, &column.encoding)
    }

    fn total_cells(&self) -> [String; HEADER.len()] {
        self.row("total".to_owned(), String::new(), String::new(), String::new(), &self.total(), "")
    }

    fn row(
        &self,
        name: String,
        kind: String,
        nulls: String,
        values: String,
        sections: &Sections,
        encoding: &str,
    ) -> [String; HEADER.len()] {
        let share = sections.total() as f64 * 100.0 / self.size_bytes.max(1) as f64;
        [
            name,
            kind,
            nulls,
            values,
            size(sections.dictionary),
            size(sections.values),
            size(sections.index),
            size(sections.counts),
            size(sections.total()),
            format!("{share:.1}%"),
            encoding.to_owned(),
        ]
    }
}
