use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use crate::ingest::row::{Row, Slot};

/// Numbers and which of them are null; the validity is kept only once there is a null.
#[derive(Debug)]
pub(crate) struct Numbers<T> {
    pub(crate) values: Vec<T>,
    valid: Option<BooleanBufferBuilder>,
}

impl<T: Copy + Default> Numbers<T> {
    /// `nulls` nulls.
    pub(crate) fn nulls(nulls: usize) -> Self {
        let mut numbers = Self { values: Vec::new(), valid: None };
        numbers.pad(nulls);
        numbers
    }

    pub(crate) fn push(&mut self, value: T) {
        self.values.push(value);
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    /// Adds nulls up to a number of rows.
    pub(crate) fn pad(&mut self, rows: usize) {
        let missing = rows.saturating_sub(self.values.len());
        if missing == 0 {
            return;
        }
        let present = self.values.len();
        let valid = self.valid.get_or_insert_with(|| {
            let mut valid = BooleanBufferBuilder::new(rows);
            valid.append_n(present, true);
            valid
        });
        valid.append_n(missing, false);
        self.values.resize(rows, T::default());
    }

    pub(crate) fn get(&self, row: usize) -> Option<T> {
        self.valid.as_ref().is_none_or(|valid| valid.get_bit(row)).then(|| self.values[row])
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.values.capacity() * size_of::<T>() + self.valid.as_ref().map_or(0, |valid| valid.capacity() / 8)
    }

    /// Adds the numbers of another column, so that its first is that of row `at`.
    pub(crate) fn append(&mut self, at: usize, other: &Self) {
        self.pad(at);
        let before = self.values.len();
        self.values.extend_from_slice(&other.values);
        match (&mut self.valid, &other.valid) {
            (None, None) => {}
            (Some(valid), None) => valid.append_n(other.values.len(), true),
            (valid, Some(theirs)) => {
                let valid = valid.get_or_insert_with(|| {
                    let mut valid = BooleanBufferBuilder::new(before + other.values.len());
                    valid.append_n(before, true);
                    valid
                });
                (0..other.values.len()).for_each(|row| valid.append(theirs.get_bit(row)));
            }
        }
    }

    /// A copy of so many rows, in the order of `order` or as they are.
    pub(crate) fn copy(&self, rows: usize, order: Option<&[u32]>) -> (Vec<T>, Option<BooleanBuffer>) {
        let place = |row: usize| order.map_or(row, |order| order[row] as usize);
        let values = match order {
            None => {
                let mut values = self.values.clone();
                values.resize(rows, T::default());
                values
            }
            Some(order) => {
                order.iter().map(|row| self.values.get(*row as usize).copied().unwrap_or_default()).collect()
            }
        };
        let has_nulls = self.valid.is_some() || self.values.len() < rows;
        let is_valid = |row: usize| row < self.values.len() && self.get(row).is_some();
        (values, has_nulls.then(|| BooleanBuffer::collect_bool(rows, |row| is_valid(place(row)))))
    }

    /// The values in the order of `rows`, or as they are.
    pub(crate) fn finish(self, rows: Option<&[u32]>) -> (Vec<T>, Option<BooleanBuffer>) {
        let valid = self.valid.map(|mut valid| valid.finish());
        let Some(rows) = rows else { return (self.values, valid) };
        let values = rows.iter().map(|row| self.values[*row as usize]).collect();
        let valid = valid.map(|valid| BooleanBuffer::collect_bool(rows.len(), |i| valid.value(rows[i] as usize)));
        (values, valid)
    }
}

/// A value that is not the number its column wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotANumber;

/// The long that a value is. Fractions are cut off, as Druid does; what does not fit is not a number.
pub(crate) fn to_long(row: &Row, line: &str, value: Slot) -> Result<Option<i64>, NotANumber> {
    let from_double = |number: f64| {
        // -2^63 and up to but not including 2^63.
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
        if fits { Ok(Some(number as i64)) } else { Err(NotANumber) }
    };
    match value {
        Slot::Missing | Slot::Null => Ok(None),
        Slot::Bool(value) => Ok(Some(i64::from(value))),
        Slot::Long(number) => Ok(Some(number)),
        Slot::Double(number) => from_double(number),
        Slot::Nested(_) | Slot::List(_) => Err(NotANumber),
        Slot::Line(_) | Slot::Scratch(_) => {
            let text = row.text(line, value).unwrap_or_default().trim();
            match (text, text.parse()) {
                ("", _) => Ok(None),
                (_, Ok(number)) => Ok(Some(number)),
                _ => from_double(decimal(text).ok_or(NotANumber)?),
            }
        }
    }
}

/// The double that a value is.
pub(crate) fn to_double(row: &Row, line: &str, value: Slot) -> Result<Option<f64>, NotANumber> {
    match value {
        Slot::Missing | Slot::Null => Ok(None),
        Slot::Bool(value) => Ok(Some(f64::from(u8::from(value)))),
        Slot::Long(number) => Ok(Some(number as f64)),
        Slot::Double(number) => Ok(Some(number)),
        Slot::Nested(_) | Slot::List(_) => Err(NotANumber),
        Slot::Line(_) | Slot::Scratch(_) => match row.text(line, value).unwrap_or_default().trim() {
            "" => Ok(None),
            text => decimal(text).map(Some).ok_or(NotANumber),
        },
    }
}

/// A finite decimal; `inf`, `nan` and hexadecimal are none.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

/// What a text of an untyped format (CSV) stands for. Only what reads back as the same text is a number that may be
/// kept as one: `007` is text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Meaning {
    Long(i64),
    /// A double that is written so by us as well.
    Double(f64),
    /// A double whose text must be kept, should the column turn out to hold texts.
    DoubleAsWritten,
    Text,
}

pub(crate) fn meaning(text: &str) -> Meaning {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.split(['.', 'e', 'E']).next().unwrap_or_default();
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return Meaning::Text;
    }
    if whole.len() == digits.len() {
        return match text.parse() {
            Ok(number) if text != "-0" => Meaning::Long(number),
            _ => Meaning::Text,
        };
    }
    match decimal(text) {
        Some(number) if super::double_text(number) == text => Meaning::Double(number),
        Some(_) if !digits.ends_with('.') => Meaning::DoubleAsWritten,
        _ => Meaning::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_back_the_same_is_a_number() {
        for (text, expected) in [
            ("12", Meaning::Long(12)),
            ("-3", Meaning::Long(-3)),
            ("0", Meaning::Long(0)),
            ("007", Meaning::Text),
            ("-0", Meaning::Text),
            ("99999999999999999999", Meaning::Text),
            ("1.5", Meaning::Double(1.5)),
            ("1.50", Meaning::DoubleAsWritten),
            ("1e3", Meaning::DoubleAsWritten),
            ("1.", Meaning::Text),
            ("1e999", Meaning::Text),
            ("nan", Meaning::Text),
            ("1.2.3", Meaning::Text),
            ("+1", Meaning::Text),
            ("", Meaning::Text),
        ] {
            assert_eq!(meaning(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_from_what_stands_for_them() {
        let mut row = Row::default();
        for (text, long, double) in [
            ("12", Ok(Some(12)), Ok(Some(12.0))),
            (" 3.9 ", Ok(Some(3)), Ok(Some(3.9))),
            ("", Ok(None), Ok(None)),
            ("1,234", Err(NotANumber), Err(NotANumber)),
            ("inf", Err(NotANumber), Err(NotANumber)),
            ("1e300", Err(NotANumber), Ok(Some(1e300))),
        ] {
            let slot = row.keep(text);
            assert_eq!(to_long(&row, "", slot), long, "{text}");
            assert_eq!(to_double(&row, "", slot), double, "{text}");
        }
    }
}
