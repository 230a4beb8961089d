//! Answers as PostgreSQL's text, so that they compare whatever door they came by.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// A row as text, a cell for each column.
pub type Row = Vec<String>;

/// How a null is shown.
pub const NULL: &str = "NULL";

/// The rows of `batches` in their order.
pub fn rows(batches: &[RecordBatch]) -> Vec<Row> {
    let rows_of = |batch: &RecordBatch| {
        let columns: Vec<Row> = batch.columns().iter().map(|column| cells(column.as_ref())).collect();
        (0..batch.num_rows()).map(|row| columns.iter().map(|cells| cells[row].clone()).collect()).collect::<Vec<Row>>()
    };
    batches.iter().flat_map(rows_of).collect()
}

fn cells(array: &dyn Array) -> Row {
    let options = FormatOptions::default()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f+00"))
        .with_null(NULL);
    let formatter = ArrayFormatter::try_new(array, &options).expect("answers can be shown");
    let cell = |row: usize| {
        if array.is_null(row) {
            return NULL.to_owned();
        }
        match array.data_type() {
            DataType::Boolean => if array.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
            DataType::Float64 => float(array.as_primitive::<arrow::datatypes::Float64Type>().value(row)),
            DataType::Timestamp(..) => seconds(&formatter.value(row).to_string()),
            DataType::List(_) => list(&cells(array.as_list::<i32>().value(row).as_ref())),
            _ => formatter.value(row).to_string(),
        }
    };
    (0..array.len()).map(cell).collect()
}

/// Six significant digits: sums of floats differ by the order in which they were added.
fn float(value: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().expect("a number that was just written");
    format!("{rounded}")
}

/// Makes a float of any door comparable: see [`float`].
pub fn float_text(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), float)
}

/// Without the zeros that end a fraction.
pub fn seconds(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

fn list(cells: &[String]) -> String {
    format!("{{{}}}", cells.join(","))
}
