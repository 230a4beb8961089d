use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{StringViewArray, StringViewBuilder};

use super::dictionary::{Dictionary, NULL};
use super::double_text;
use super::number::{Meaning, NotANumber, Numbers, meaning, to_double, to_long};
use crate::ingest::row::{Row, Slot, Value};
use crate::model::{ColumnType, MultiValueHandling};
use crate::segment::memory::MemoryColumn;

mod absorb;

/// What a column's values are made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Text(MultiValueHandling),
    Long,
    Float,
    Double,
    /// The narrowest type that holds all values.
    Discovered,
}

impl Wanted {
    pub(crate) fn of(column_type: Option<ColumnType>, handling: MultiValueHandling) -> Self {
        match column_type {
            Some(ColumnType::String) => Self::Text(handling),
            Some(ColumnType::Long) => Self::Long,
            Some(ColumnType::Float) => Self::Float,
            Some(ColumnType::Double) => Self::Double,
            None => Self::Discovered,
        }
    }
}

/// What a column of a run holds, from least to greatest: a column of several runs has the greatest that is needed.
///
/// The order makes the result independent of the order of the rows: no value is turned into another before it is
/// known that it must be, and a number that has to become text still knows how it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stored {
    /// Nothing but nulls.
    Nulls,
    Long,
    Float,
    Double,
    /// Numbers as text: longs and doubles mixed, or doubles not written as we write them.
    NumericText,
    Text,
    Lists,
}

impl Stored {
    /// What holds the values of both.
    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            // A long that is to become text is written differently from one that became a double before.
            (Self::Long, Self::Double) | (Self::Double, Self::Long) => Self::Double,
            _ => self.max(other),
        }
    }

    /// The type of the column in a segment, and whether it is multi-value.
    pub(crate) fn column_type(self) -> (ColumnType, bool) {
        match self {
            Self::Nulls | Self::Text => (ColumnType::String, false),
            Self::Lists => (ColumnType::String, true),
            Self::Long => (ColumnType::Long, false),
            Self::Float => (ColumnType::Float, false),
            Self::Double | Self::NumericText => (ColumnType::Double, false),
        }
    }
}

#[derive(Debug)]
enum Values {
    Nulls,
    Text { dictionary: Dictionary, codes: Vec<u32>, all_numbers: bool },
    Lists { dictionary: Dictionary, offsets: Vec<u32>, codes: Vec<u32> },
    Long(Numbers<i64>),
    Float(Numbers<f32>),
    Double(Numbers<f64>),
}

/// One column of rows being collected. Rows without a value are filled in with nulls when the next value comes.
#[derive(Debug)]
pub(crate) struct ColumnBuffer {
    wanted: Wanted,
    values: Values,
}

impl ColumnBuffer {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self { wanted, values: Values::Nulls }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted
    }

    pub(crate) fn stored(&self) -> Stored {
        match &self.values {
            Values::Nulls => match self.wanted {
                Wanted::Text(_) | Wanted::Discovered => Stored::Nulls,
                Wanted::Long => Stored::Long,
                Wanted::Float => Stored::Float,
                Wanted::Double => Stored::Double,
            },
            Values::Text { all_numbers: true, .. } => Stored::NumericText,
            Values::Text { .. } => Stored::Text,
            Values::Lists { .. } => Stored::Lists,
            Values::Long(_) => Stored::Long,
            Values::Float(_) => Stored::Float,
            Values::Double(_) => Stored::Double,
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.values {
            Values::Nulls => 0,
            Values::Text { dictionary, codes, .. } => dictionary.memory_bytes() + codes.capacity() * 4,
            Values::Lists { dictionary, offsets, codes } => {
                dictionary.memory_bytes() + (offsets.capacity() + codes.capacity()) * 4
            }
            Values::Long(numbers) => numbers.memory_bytes(),
            Values::Float(numbers) => numbers.memory_bytes(),
            Values::Double(numbers) => numbers.memory_bytes(),
        }
    }

    /// Sets the value of row `at`, which must be past all rows set before. Not a number leaves the row null.
    pub(crate) fn push(&mut self, at: usize, row: &Row, line: &str, value: Slot) -> Result<(), NotANumber> {
        if matches!(value, Slot::Missing | Slot::Null) {
            return Ok(());
        }
        match self.wanted {
            Wanted::Text(_) => self.push_any_text(at, row, line, value),
            Wanted::Discovered => self.discover(at, row, line, value),
            Wanted::Long => {
                if let Some(number) = to_long(row, line, value)? {
                    self.push_long(at, number);
                }
            }
            Wanted::Double => {
                if let Some(number) = to_double(row, line, value)? {
                    self.push_double(at, number);
                }
            }
            Wanted::Float => {
                if let Some(number) = to_double(row, line, value)? {
                    self.push_float(at, number as f32)?;
                }
            }
        }
        Ok(())
    }

    fn discover(&mut self, at: usize, row: &Row, line: &str, value: Slot) {
        match value {
            Slot::Long(number) => self.discover_number(at, Meaning::Long(number), ""),
            Slot::Double(number) => self.discover_number(at, Meaning::Double(number), ""),
            Slot::Line(_) | Slot::Scratch(_) if row.untyped_text => {
                let text = row.text(line, value).unwrap_or_default();
                self.discover_number(at, meaning(text), text);
            }
            _ => self.push_any_text(at, row, line, value),
        }
    }

    fn discover_number(&mut self, at: usize, meaning: Meaning, text: &str) {
        match (meaning, &self.values) {
            (Meaning::Text, _) => self.push_text(at, text),
            (Meaning::Long(number), Values::Nulls | Values::Long(_)) => self.push_long(at, number),
            (Meaning::Double(number), Values::Nulls | Values::Double(_)) => self.push_double(at, number),
            (Meaning::Long(number), _) => self.push_numeric_text(at, &number.to_string()),
            (Meaning::Double(number), _) => self.push_numeric_text(at, &double_text(number)),
            (Meaning::DoubleAsWritten, _) => self.push_numeric_text(at, text),
        }
    }

    pub(crate) fn push_long(&mut self, at: usize, number: i64) {
        if let Values::Nulls = self.values {
            self.values = Values::Long(Numbers::nulls(at));
        }
        if let Values::Long(numbers) = &mut self.values {
            numbers.pad(at);
            numbers.push(number);
        }
    }

    fn push_double(&mut self, at: usize, number: f64) {
        if let Values::Nulls = self.values {
            self.values = Values::Double(Numbers::nulls(at));
        }
        if let Values::Double(numbers) = &mut self.values {
            numbers.pad(at);
            numbers.push(number);
        }
    }

    fn push_float(&mut self, at: usize, number: f32) -> Result<(), NotANumber> {
        if !number.is_finite() {
            return Err(NotANumber);
        }
        if let Values::Nulls = self.values {
            self.values = Values::Float(Numbers::nulls(at));
        }
        if let Values::Float(numbers) = &mut self.values {
            numbers.pad(at);
            numbers.push(number);
        }
        Ok(())
    }

    fn push_any_text(&mut self, at: usize, row: &Row, line: &str, value: Slot) {
        if let Some(text) = row.text(line, value) {
            return self.push_text(at, text);
        }
        match row.value(line, value) {
            Value::Long(number) => self.push_text(at, &number.to_string()),
            Value::Double(number) => self.push_text(at, &double_text(number)),
            Value::List(values) => self.push_list(at, &values),
            Value::Null | Value::Text(_) => {}
        }
    }

    fn push_text(&mut self, at: usize, text: &str) {
        self.make_text();
        match &mut self.values {
            Values::Text { dictionary, codes, all_numbers } => {
                *all_numbers = false;
                codes.resize(at, NULL);
                let code = dictionary.code(text);
                codes.push(code);
            }
            Values::Lists { dictionary, offsets, codes } => {
                pad_lists(offsets, at);
                codes.push(dictionary.code(text));
                offsets.push(codes.len() as u32);
            }
            _ => {}
        }
    }

    fn push_numeric_text(&mut self, at: usize, text: &str) {
        let were_numbers = !matches!(self.stored(), Stored::Text | Stored::Lists);
        self.push_text(at, text);
        if let Values::Text { all_numbers, .. } = &mut self.values {
            *all_numbers = were_numbers;
        }
    }

    /// A list of one value is that value, and an empty list is null, as in Druid.
    fn push_list(&mut self, at: usize, values: &[Value<'_>]) {
        match values {
            [] | [Value::Null] => return,
            [Value::Text(text)] => return self.push_text(at, text),
            [Value::Long(number)] => return self.push_text(at, &number.to_string()),
            [Value::Double(number)] => return self.push_text(at, &double_text(*number)),
            _ => {}
        }
        let handling = match self.wanted {
            Wanted::Text(handling) => handling,
            _ => MultiValueHandling::Array,
        };
        let mut texts = values.iter().map(text_of).collect::<Vec<_>>();
        if handling != MultiValueHandling::Array {
            texts.sort_unstable();
        }
        if handling == MultiValueHandling::SortedSet {
            texts.dedup();
        }
        self.make_lists();
        if let Values::Lists { dictionary, offsets, codes } = &mut self.values {
            pad_lists(offsets, at);
            codes.extend(texts.iter().map(|text| text.as_ref().map_or(NULL, |text| dictionary.code(text))));
            offsets.push(codes.len() as u32);
        }
    }

    /// Turns numbers into text as they were written.
    fn make_text(&mut self) {
        // The usual case, for each value: nothing is made.
        if matches!(self.values, Values::Text { .. } | Values::Lists { .. } | Values::Float(_)) {
            return;
        }
        let written = |text: Option<String>, dictionary: &mut Dictionary| match text {
            Some(text) => dictionary.code(&text),
            None => NULL,
        };
        let mut dictionary = Dictionary::new();
        let codes = match &self.values {
            Values::Nulls => Vec::new(),
            Values::Long(numbers) => (0..numbers.values.len())
                .map(|row| written(numbers.get(row).map(|number| number.to_string()), &mut dictionary))
                .collect(),
            Values::Double(numbers) => (0..numbers.values.len())
                .map(|row| written(numbers.get(row).map(double_text), &mut dictionary))
                .collect(),
            Values::Text { .. } | Values::Lists { .. } | Values::Float(_) => return,
        };
        self.values = Values::Text { dictionary, codes, all_numbers: true };
    }

    fn make_lists(&mut self) {
        self.make_text();
        if let Values::Text { dictionary, codes, .. } = &mut self.values {
            let dictionary = std::mem::replace(dictionary, Dictionary::new());
            let (offsets, codes) = lists_of(codes);
            self.values = Values::Lists { dictionary, offsets, codes };
        }
    }

    /// Fills up with nulls, and gives codes the order of their texts. Returns the values by code.
    pub(crate) fn sort_dictionary(&mut self, rows: usize) -> Option<SortedDictionary> {
        match &mut self.values {
            Values::Nulls => match self.wanted {
                Wanted::Text(_) | Wanted::Discovered => {}
                Wanted::Long => self.values = Values::Long(Numbers::nulls(rows)),
                Wanted::Float => self.values = Values::Float(Numbers::nulls(rows)),
                Wanted::Double => self.values = Values::Double(Numbers::nulls(rows)),
            },
            Values::Long(numbers) => numbers.pad(rows),
            Values::Float(numbers) => numbers.pad(rows),
            Values::Double(numbers) => numbers.pad(rows),
            Values::Text { dictionary, codes, .. } => {
                codes.resize(rows, NULL);
                return Some(SortedDictionary::new(dictionary, codes));
            }
            Values::Lists { dictionary, offsets, codes } => {
                pad_lists(offsets, rows);
                return Some(SortedDictionary::new(dictionary, codes));
            }
        }
        None
    }

    /// Compares two rows once the dictionary is sorted: null first, lists item by item.
    pub(crate) fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        match &self.values {
            Values::Nulls => Ordering::Equal,
            Values::Text { codes, .. } => codes[a].cmp(&codes[b]),
            Values::Lists { offsets, codes, .. } => {
                let list = |row: usize| &codes[offsets[row] as usize..offsets[row + 1] as usize];
                list(a).cmp(list(b))
            }
            Values::Long(numbers) => numbers.get(a).cmp(&numbers.get(b)),
            Values::Float(numbers) => compare_numbers(numbers.get(a), numbers.get(b), f32::total_cmp),
            Values::Double(numbers) => compare_numbers(numbers.get(a), numbers.get(b), f64::total_cmp),
        }
    }

    /// The column in the order of `rows`; `None` when it holds nothing but nulls.
    pub(crate) fn finish(self, sorted: Option<SortedDictionary>, rows: Option<&[u32]>) -> Option<MemoryColumn> {
        Some(match self.values {
            Values::Nulls => return None,
            Values::Long(numbers) => {
                let (values, validity) = numbers.finish(rows);
                MemoryColumn::Long { values, validity }
            }
            Values::Float(numbers) => {
                let (values, validity) = numbers.finish(rows);
                MemoryColumn::Float { values, validity }
            }
            Values::Double(numbers) => {
                let (values, validity) = numbers.finish(rows);
                MemoryColumn::Double { values, validity }
            }
            Values::Text { codes, .. } => {
                let SortedDictionary { values, has_null } = sorted?;
                let codes = match rows {
                    Some(rows) => rows.iter().map(|row| codes[*row as usize]).collect(),
                    None => codes,
                };
                MemoryColumn::String { values, has_null, sorted: true, codes }
            }
            Values::Lists { offsets, codes, .. } => {
                let SortedDictionary { values, has_null } = sorted?;
                let (offsets, codes) = match rows {
                    Some(rows) => gather_lists(&offsets, &codes, rows),
                    None => (offsets, codes),
                };
                MemoryColumn::MultiString { values, has_null, sorted: true, offsets, codes }
            }
        })
    }
}

/// The values of a column in the order of its codes.
#[derive(Debug)]
pub(crate) struct SortedDictionary {
    values: Arc<StringViewArray>,
    has_null: bool,
}

impl SortedDictionary {
    /// Renumbers `codes`, and takes the dictionary's memory.
    fn new(dictionary: &mut Dictionary, codes: &mut [u32]) -> Self {
        let dictionary = std::mem::replace(dictionary, Dictionary::new());
        let has_null = codes.contains(&NULL);
        let sorted = dictionary.sorted_codes();
        let mut renumbered = vec![0; dictionary.len() + 1];
        let mut values = StringViewBuilder::with_capacity(sorted.len() + usize::from(has_null));
        if has_null {
            values.append_null();
        }
        for (place, code) in sorted.iter().enumerate() {
            renumbered[*code as usize] = place as u32 + u32::from(has_null);
            values.append_value(dictionary.text(*code));
        }
        for code in codes {
            *code = renumbered[*code as usize];
        }
        Self { values: Arc::new(values.finish()), has_null }
    }
}

fn text_of(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Null | Value::List(_) => None,
        Value::Long(number) => Some(number.to_string()),
        Value::Double(number) => Some(double_text(*number)),
        Value::Text(text) => Some(text.to_string()),
    }
}

/// One text a row as lists: null is the empty list.
fn lists_of(codes: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut offsets = vec![0];
    let mut items = Vec::with_capacity(codes.len());
    for code in codes {
        items.extend((*code != NULL).then_some(*code));
        offsets.push(items.len() as u32);
    }
    (offsets, items)
}

fn pad_lists(offsets: &mut Vec<u32>, rows: usize) {
    let end = offsets.last().copied().unwrap_or(0);
    offsets.resize(rows + 1, end);
}

fn gather_lists(offsets: &[u32], codes: &[u32], rows: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut gathered = Vec::with_capacity(codes.len());
    let mut ends = Vec::with_capacity(offsets.len());
    ends.push(0);
    for row in rows {
        let row = *row as usize;
        gathered.extend_from_slice(&codes[offsets[row] as usize..offsets[row + 1] as usize]);
        ends.push(gathered.len() as u32);
    }
    (ends, gathered)
}

fn compare_numbers<T>(a: Option<T>, b: Option<T>, compare: impl Fn(&T, &T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(&a, &b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}
