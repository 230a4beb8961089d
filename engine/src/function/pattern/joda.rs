//! Joda-Time's patterns (`DateTimeFormat`), English names.

use super::{Field, Letters, Pattern};
use crate::error::{Error, Result};

impl Pattern {
    /// Reads a pattern such as `yyyy-MM-dd'T'HH:mm:ss.SSSZZ`.
    pub(in crate::function) fn joda(pattern: &str) -> Result<Self> {
        let mut fields = Vec::new();
        let letters: Vec<char> = pattern.chars().collect();
        let mut i = 0;
        while i < letters.len() {
            let letter = letters[i];
            let length = letters[i..].iter().take_while(|other| **other == letter).count();
            if letter == '\'' {
                let (literal, next) = quoted(&letters, i, pattern)?;
                fields.push(Field::Literal(literal));
                i = next;
                continue;
            }
            fields.push(field(letter, length, pattern)?);
            i += length;
        }
        Ok(Self { fields })
    }
}

/// The text between quotes, where two quotes are one; and where it ends.
fn quoted(letters: &[char], start: usize, pattern: &str) -> Result<(String, usize)> {
    if letters.get(start + 1) == Some(&'\'') {
        return Ok(("'".to_string(), start + 2));
    }
    let mut text = String::new();
    let mut i = start + 1;
    while i < letters.len() {
        match (letters[i], letters.get(i + 1)) {
            ('\'', Some('\'')) => {
                text.push('\'');
                i += 2;
            }
            ('\'', _) => return Ok((text, i + 1)),
            (letter, _) => {
                text.push(letter);
                i += 1;
            }
        }
    }
    Err(Error::invalid_input(format!("pattern `{pattern}` has a quote that does not end")).with_sqlstate("22007"))
}

fn field(letter: char, length: usize, pattern: &str) -> Result<Field> {
    let (letters, pad) = (Letters::Title, false);
    Ok(match letter {
        'y' | 'Y' if length == 2 => Field::ShortYear,
        'y' | 'Y' => Field::Year(length),
        'x' => Field::IsoYear(length),
        'M' if length >= 3 => Field::MonthName { letters, short: length == 3, pad },
        'M' => Field::Month(length),
        'w' => Field::Week(length),
        'd' => Field::Day(length),
        'D' => Field::DayOfYear(length),
        'e' => Field::IsoWeekday(length),
        'E' => Field::WeekdayName { letters, short: length <= 3, pad },
        'a' => Field::HalfDay(Letters::Upper),
        'H' => Field::Hour24(length),
        'k' => Field::ClockHour24(length),
        'h' => Field::Hour12(length),
        'K' => Field::HalfDayHour(length),
        'm' => Field::Minute(length),
        's' => Field::Second(length),
        'S' => Field::Fraction(length),
        'Z' if length == 1 => Field::Offset { colon: false, z: false },
        // Druid's own default pattern ends in `ZZ` and prints UTC as `Z`.
        'Z' if length == 2 => Field::Offset { colon: true, z: true },
        letter if letter.is_alphabetic() => {
            let message = format!("pattern `{pattern}`: `{}` is not known", String::from(letter).repeat(length));
            return Err(Error::invalid_input(message)
                .with_sqlstate("22007")
                .with_hint("put letters that stand for themselves in quotes: `''T''`"));
        }
        letter => Field::Literal(String::from(letter).repeat(length)),
    })
}
