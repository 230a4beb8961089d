//! Answers on a terminal: as a table, as CSV, as JSON.

use std::io::Write;

use clap::ValueEnum;
use henge_engine::Result;

use super::cannot_write;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns side by side
    Table,
    /// With a header
    Csv,
    /// One object a line
    Json,
}

/// How the values of a column are written in JSON and aligned in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
}

impl Kind {
    /// Of a PostgreSQL type.
    pub(super) fn of(oid: u32) -> Self {
        match oid {
            16 => Self::Bool,
            20 | 21 | 23 | 26 | 700 | 701 | 1700 => Self::Number,
            _ => Self::Text,
        }
    }
}

/// A whole answer; values in PostgreSQL's text form.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) columns: Vec<(String, Kind)>,
    pub(super) rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    pub(super) fn print(&self, format: Format) -> Result<()> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        self.write(format, &mut out).and_then(|()| out.flush()).map_err(cannot_write)
    }

    fn write(&self, format: Format, out: &mut dyn Write) -> std::io::Result<()> {
        match format {
            Format::Table => self.write_table(out),
            Format::Csv => self.write_csv(out),
            Format::Json => self.write_json(out),
        }
    }

    fn write_table(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let width = |(i, (name, _)): (usize, &(String, Kind))| {
            let values = self.rows.iter().filter_map(|row| row[i].as_ref()).map(|value| value.chars().count());
            values.chain([name.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(width).collect();
        let cells = |out: &mut dyn Write, values: &mut dyn Iterator<Item = &str>| -> std::io::Result<()> {
            let mut line = String::new();
            for ((value, width), (_, kind)) in values.zip(&widths).zip(&self.columns) {
                let value = value.replace('\n', " ");
                let padding = " ".repeat(width.saturating_sub(value.chars().count()));
                let (before, after) =
                    if *kind == Kind::Number { (padding.as_str(), "") } else { ("", padding.as_str()) };
                line.push_str(&format!(" {before}{value}{after} |"));
            }
            line.pop();
            writeln!(out, "{}", line.trim_end())
        };
        cells(out, &mut self.columns.iter().map(|(name, _)| name.as_str()))?;
        writeln!(out, "{}", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"))?;
        for row in &self.rows {
            cells(out, &mut row.iter().map(|value| value.as_deref().unwrap_or("")))?;
        }
        writeln!(out, "({} {})", self.rows.len(), if self.rows.len() == 1 { "row" } else { "rows" })
    }

    fn write_csv(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let line = |values: Vec<String>| values.join(",");
        writeln!(out, "{}", line(self.columns.iter().map(|(name, _)| quoted(name)).collect()))?;
        for row in &self.rows {
            let values = row.iter().map(|value| value.as_deref().map_or(String::new(), quoted));
            writeln!(out, "{}", line(values.collect()))?;
        }
        Ok(())
    }

    fn write_json(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for row in &self.rows {
            let field = |((name, kind), value): (&(String, Kind), &Option<String>)| {
                format!("{}:{}", serde_json::Value::from(name.as_str()), json(*kind, value.as_deref()))
            };
            let fields: Vec<String> = self.columns.iter().zip(row).map(field).collect();
            writeln!(out, "{{{}}}", fields.join(","))?;
        }
        Ok(())
    }
}

/// Empty text is quoted, so that it differs from null.
fn quoted(value: &str) -> String {
    if !value.is_empty() && !value.contains([',', '"', '\n', '\r']) {
        return value.to_string();
    }
    format!("\"{}\"", value.replace('"', "\"\""))
}

fn json(kind: Kind, value: Option<&str>) -> String {
    match (kind, value) {
        (_, None) => "null".to_string(),
        (Kind::Bool, Some(value)) => (value == "t").to_string(),
        // NaN and the infinities are no JSON numbers.
        (Kind::Number, Some(value)) if value.parse::<serde_json::Number>().is_ok() => value.to_string(),
        (_, Some(value)) => serde_json::Value::from(value).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let answer = Answer {
            columns: vec![("page".into(), Kind::Text), ("n".into(), Kind::Number)],
            rows: vec![vec![Some("a,\"b\"".into()), Some("7".into())], vec![None, Some("NaN".into())]],
        };
        let mut out = Vec::new();
        answer.write(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right() {
        assert_eq!(written(Format::Table), " page  |   n\n-------+-----\n a,\"b\" |   7\n       | NaN\n(2 rows)\n");
    }

    #[test]
    fn csv_and_json_keep_null_and_text_apart() {
        assert_eq!(written(Format::Csv), "page,n\n\"a,\"\"b\"\"\",7\n,NaN\n");
        assert_eq!(written(Format::Json), "{\"page\":\"a,\\\"b\\\"\",\"n\":7}\n{\"page\":null,\"n\":\"NaN\"}\n");
    }
}
