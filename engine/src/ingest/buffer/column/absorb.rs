use std::sync::Arc;

use arrow::array::StringViewBuilder;

use super::super::dictionary::{Dictionary, NULL};
use super::super::number::{Meaning, Numbers};
use super::{ColumnBuffer, Stored, Values, Wanted, gather_lists, pad_lists};
use crate::model::ColumnType;
use crate::segment::memory::MemoryColumn;

/// The codes of another dictionary in one's own, found when first needed.
struct Renumbering<'a> {
    theirs: &'a Dictionary,
    known: Vec<u32>,
}

impl<'a> Renumbering<'a> {
    fn new(theirs: &'a Dictionary) -> Self {
        Self { theirs, known: vec![NULL; theirs.len() + 1] }
    }

    fn code(&mut self, ours: &mut Dictionary, theirs: u32) -> u32 {
        if theirs == NULL {
            return NULL;
        }
        let known = &mut self.known[theirs as usize];
        if *known == NULL {
            *known = ours.code(self.theirs.text(theirs));
        }
        *known
    }
}

impl ColumnBuffer {
    /// Adds the values of another column of the same wish: its first row becomes row `at`. The result is the same as if
    /// the values had been pushed one by one.
    pub(crate) fn absorb(&mut self, at: usize, other: &Self) {
        match (&mut self.values, &other.values) {
            (_, Values::Nulls) => {}
            (Values::Long(ours), Values::Long(theirs)) => ours.append(at, theirs),
            (Values::Float(ours), Values::Float(theirs)) => ours.append(at, theirs),
            (Values::Double(ours), Values::Double(theirs)) => ours.append(at, theirs),
            (Values::Nulls, Values::Long(theirs)) => self.values = Values::Long(begun(at, theirs)),
            (Values::Nulls, Values::Float(theirs)) => self.values = Values::Float(begun(at, theirs)),
            (Values::Nulls, Values::Double(theirs)) => self.values = Values::Double(begun(at, theirs)),
            (Values::Nulls, Values::Text { dictionary, codes, all_numbers }) => {
                self.values = Values::Text { dictionary: Dictionary::new(), codes: Vec::new(), all_numbers: true };
                self.absorb_text(at, dictionary, codes, *all_numbers);
            }
            (Values::Text { .. }, Values::Text { dictionary, codes, all_numbers }) => {
                self.absorb_text(at, dictionary, codes, *all_numbers);
            }
            (
                Values::Nulls | Values::Text { .. } | Values::Lists { .. },
                Values::Lists { dictionary, offsets, codes },
            ) => {
                self.absorb_lists(at, dictionary, offsets, codes);
            }
            _ => self.absorb_each(at, other),
        }
    }

    fn absorb_text(&mut self, at: usize, theirs: &Dictionary, their_codes: &[u32], theirs_are_numbers: bool) {
        let Values::Text { dictionary, codes, all_numbers } = &mut self.values else { return };
        *all_numbers &= theirs_are_numbers;
        let mut renumbering = Renumbering::new(theirs);
        codes.resize(at, NULL);
        codes.extend(their_codes.iter().map(|code| renumbering.code(dictionary, *code)));
    }

    fn absorb_lists(&mut self, at: usize, theirs: &Dictionary, their_offsets: &[u32], their_codes: &[u32]) {
        self.make_lists();
        let Values::Lists { dictionary, offsets, codes } = &mut self.values else { return };
        pad_lists(offsets, at);
        let mut renumbering = Renumbering::new(theirs);
        let base = codes.len() as u32;
        codes.extend(their_codes.iter().map(|code| renumbering.code(dictionary, *code)));
        offsets.extend(their_offsets.iter().skip(1).map(|offset| base + offset));
    }

    /// Where the two hold different kinds of values.
    fn absorb_each(&mut self, at: usize, other: &Self) {
        match &other.values {
            Values::Long(theirs) => self.absorb_numbers(at, theirs, Meaning::Long),
            Values::Double(theirs) => self.absorb_numbers(at, theirs, Meaning::Double),
            Values::Text { dictionary, codes, all_numbers } => {
                for (row, code) in codes.iter().enumerate().filter(|(_, code)| **code != NULL) {
                    match all_numbers {
                        true => self.push_numeric_text(at + row, dictionary.text(*code)),
                        false => self.push_text(at + row, dictionary.text(*code)),
                    }
                }
            }
            Values::Lists { dictionary, offsets, codes } => {
                // Numbers become text as they were written first.
                self.make_text();
                self.absorb_lists(at, dictionary, offsets, codes);
            }
            // A column of floats is never anything else.
            Values::Nulls | Values::Float(_) => {}
        }
    }

    fn absorb_numbers<T: Copy + Default>(&mut self, at: usize, theirs: &Numbers<T>, meaning: impl Fn(T) -> Meaning) {
        for row in 0..theirs.values.len() {
            if let Some(number) = theirs.get(row) {
                self.discover_number(at + row, meaning(number), "");
            }
        }
    }

    /// A copy of so many rows, in the order of `order`, with its dictionary as it is: unsorted. `None` when it holds
    /// nothing but nulls and nobody said of which type.
    pub(crate) fn copy(&self, rows: usize, order: Option<&[u32]>) -> Option<MemoryColumn> {
        Some(match &self.values {
            Values::Nulls => match self.wanted {
                Wanted::Text(_) | Wanted::Discovered => return None,
                Wanted::Long => long(&Numbers::nulls(rows), rows, None),
                Wanted::Float => float(&Numbers::nulls(rows), rows, None),
                Wanted::Double => double(&Numbers::nulls(rows), rows, None),
            },
            Values::Long(numbers) => long(numbers, rows, order),
            Values::Float(numbers) => float(numbers, rows, order),
            Values::Double(numbers) => double(numbers, rows, order),
            Values::Text { dictionary, codes, .. } => {
                let code = |row: usize| codes.get(row).copied().unwrap_or(NULL);
                let codes = match order {
                    None => (0..rows).map(code).collect(),
                    Some(order) => order.iter().map(|row| code(*row as usize)).collect(),
                };
                let (values, has_null, codes) = with_values(dictionary, codes);
                MemoryColumn::String { values, has_null, sorted: false, codes }
            }
            Values::Lists { dictionary, offsets, codes } => {
                let mut offsets = offsets.clone();
                pad_lists(&mut offsets, rows);
                let (offsets, codes) = match order {
                    None => (offsets, codes.clone()),
                    Some(order) => gather_lists(&offsets, codes, order),
                };
                let (values, has_null, codes) = with_values(dictionary, codes);
                MemoryColumn::MultiString { values, has_null, sorted: false, offsets, codes }
            }
        })
    }

    /// The type that a copy of this column has in a segment, and whether it is multi-value.
    pub(crate) fn copied_type(&self) -> (ColumnType, bool) {
        match self.stored() {
            // Numbers as text are a string until it is known what they become.
            Stored::NumericText => Stored::Text.column_type(),
            stored => stored.column_type(),
        }
    }
}

fn begun<T: Copy + Default>(at: usize, theirs: &Numbers<T>) -> Numbers<T> {
    let mut numbers = Numbers::nulls(at);
    numbers.append(at, theirs);
    numbers
}

fn long(numbers: &Numbers<i64>, rows: usize, order: Option<&[u32]>) -> MemoryColumn {
    let (values, validity) = numbers.copy(rows, order);
    MemoryColumn::Long { values, validity }
}

fn float(numbers: &Numbers<f32>, rows: usize, order: Option<&[u32]>) -> MemoryColumn {
    let (values, validity) = numbers.copy(rows, order);
    MemoryColumn::Float { values, validity }
}

fn double(numbers: &Numbers<f64>, rows: usize, order: Option<&[u32]>) -> MemoryColumn {
    let (values, validity) = numbers.copy(rows, order);
    MemoryColumn::Double { values, validity }
}

/// The values of a dictionary by code. Where no row is null, code 1 becomes code 0.
fn with_values(dictionary: &Dictionary, mut codes: Vec<u32>) -> (Arc<arrow::array::StringViewArray>, bool, Vec<u32>) {
    let has_null = codes.contains(&NULL);
    let mut values = StringViewBuilder::with_capacity(dictionary.len() + 1);
    match has_null {
        true => values.append_null(),
        false => codes.iter_mut().for_each(|code| *code -= 1),
    }
    (1..=dictionary.len() as u32).for_each(|code| values.append_value(dictionary.text(code)));
    (Arc::new(values.finish()), has_null, codes)
}
