//! One row between its format and the buffer: fields by number, values that point into the input line.
//!
//! Invariant: parsing a row allocates nothing once its fields are known and its scratch has grown.

use std::borrow::Cow;
use std::collections::HashMap;

/// A part of the input line, or of a row's scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Slot {
    /// The row does not have the field.
    Missing,
    Null,
    Bool(bool),
    Long(i64),
    Double(f64),
    /// Text as it stands in the line.
    Line(Span),
    /// Text that had to be unescaped or computed.
    Scratch(Span),
    /// JSON text of an object, or of a list that holds more than scalars, as it stands in the line.
    Nested(Span),
    /// A list of scalars, in the row's items.
    List(Span),
}

/// The names of fields seen so far; a field's number is its place.
#[derive(Debug, Default)]
pub(super) struct Fields {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, usize>,
}

impl Fields {
    /// The number of a field, new if it has not been seen.
    pub(super) fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len();
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// The number of a field that has been seen.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: usize) -> &str {
        &self.names[number]
    }
}

/// The row being read. Used again for every row.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) fields: Fields,
    slots: Vec<Slot>,
    /// Fields of this row in their order.
    order: Vec<usize>,
    /// Fields of the row before, a guess at those of the next.
    previous: Vec<usize>,
    pub(super) scratch: String,
    pub(super) items: Vec<Slot>,
    /// Texts may stand for numbers, as in CSV.
    pub(super) untyped_text: bool,
}

impl Row {
    /// Forgets the values, not the fields.
    pub(super) fn clear(&mut self) {
        std::mem::swap(&mut self.order, &mut self.previous);
        for field in self.previous.iter() {
            self.slots[*field] = Slot::Missing;
        }
        self.order.clear();
        self.scratch.clear();
        self.items.clear();
    }

    /// Sets a field; the last value wins.
    pub(super) fn set(&mut self, field: usize, value: Slot) {
        if self.slots.len() <= field {
            self.slots.resize(field + 1, Slot::Missing);
        }
        if self.slots[field] == Slot::Missing {
            self.order.push(field);
        }
        self.slots[field] = value;
    }

    /// Takes fields out of this row.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize, Slot) -> bool) {
        let slots = &mut self.slots;
        self.order.retain(|field| {
            let kept = keep(*field, slots[*field]);
            if !kept {
                slots[*field] = Slot::Missing;
            }
            kept
        });
    }

    pub(super) fn get(&self, field: usize) -> Slot {
        self.slots.get(field).copied().unwrap_or(Slot::Missing)
    }

    /// The fields of this row in their order.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// The field that stood at this place in the row before.
    pub(super) fn guess(&self, place: usize) -> Option<usize> {
        self.previous.get(place).copied()
    }

    /// How many fields this row has so far.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Adds text to the scratch.
    pub(super) fn keep(&mut self, text: &str) -> Slot {
        let start = self.scratch.len();
        self.scratch.push_str(text);
        Slot::Scratch(Span { start, end: self.scratch.len() })
    }

    /// The text of a value that is text.
    pub(super) fn text<'a>(&'a self, line: &'a str, value: Slot) -> Option<&'a str> {
        match value {
            Slot::Line(span) | Slot::Nested(span) => line.get(span.start..span.end),
            Slot::Scratch(span) => self.scratch.get(span.start..span.end),
            Slot::Bool(true) => Some("true"),
            Slot::Bool(false) => Some("false"),
            _ => None,
        }
    }

    pub(super) fn list(&self, span: Span) -> &[Slot] {
        self.items.get(span.start..span.end).unwrap_or_default()
    }

    /// The value as an expression or a filter sees it.
    pub(super) fn value<'a>(&'a self, line: &'a str, value: Slot) -> Value<'a> {
        match value {
            Slot::Missing | Slot::Null => Value::Null,
            Slot::Long(number) => Value::Long(number),
            Slot::Double(number) => Value::Double(number),
            Slot::List(span) => Value::List(self.list(span).iter().map(|item| self.value(line, *item)).collect()),
            _ => self.text(line, value).map_or(Value::Null, |text| Value::Text(Cow::Borrowed(text))),
        }
    }

    /// Sets a field to a computed value.
    pub(super) fn set_value(&mut self, field: usize, value: &Value<'_>) {
        let slot = match value {
            Value::List(values) => {
                let slots = values.iter().map(|value| self.scalar(value)).collect::<Vec<_>>();
                let start = self.items.len();
                self.items.extend(slots);
                Slot::List(Span { start, end: self.items.len() })
            }
            _ => self.scalar(value),
        };
        self.set(field, slot);
    }

    fn scalar(&mut self, value: &Value<'_>) -> Slot {
        match value {
            Value::Null | Value::List(_) => Slot::Null,
            Value::Long(number) => Slot::Long(*number),
            Value::Double(number) => Slot::Double(*number),
            Value::Text(text) => self.keep(text),
        }
    }
}

/// A value in an expression or a filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Long(i64),
    Double(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
}

/// A double as text: `1.0`, `0.5`, `1e20`.
pub(super) fn double_text(number: f64) -> String {
    format!("{number:?}")
}
