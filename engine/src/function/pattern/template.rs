//! PostgreSQL's templates of `to_char`, `to_timestamp` and `to_date`.

use super::{Field, Letters, Pattern};
use crate::error::{Error, Result};

/// How a keyword becomes a field: by the letters it is written in and whether `FM` stands before it.
type Make = fn(Letters, bool) -> Field;

/// Longer keywords before those they begin with.
const KEYWORDS: [(&str, Make); 33] = [
    ("YYYY", |_, fm| Field::Year(if fm { 1 } else { 4 })),
    ("IYYY", |_, fm| Field::IsoYear(if fm { 1 } else { 4 })),
    ("YY", |_, _| Field::ShortYear),
    ("MONTH", |letters, fm| Field::MonthName { letters, short: false, pad: !fm }),
    ("MON", |letters, _| Field::MonthName { letters, short: true, pad: false }),
    ("MM", |_, fm| Field::Month(if fm { 1 } else { 2 })),
    ("MI", |_, fm| Field::Minute(if fm { 1 } else { 2 })),
    ("MS", |_, _| Field::Fraction(3)),
    ("US", |_, _| Field::Fraction(6)),
    ("FF1", |_, _| Field::Fraction(1)),
    ("FF2", |_, _| Field::Fraction(2)),
    ("FF3", |_, _| Field::Fraction(3)),
    ("FF4", |_, _| Field::Fraction(4)),
    ("FF5", |_, _| Field::Fraction(5)),
    ("FF6", |_, _| Field::Fraction(6)),
    ("DAY", |letters, fm| Field::WeekdayName { letters, short: false, pad: !fm }),
    ("DDD", |_, fm| Field::DayOfYear(if fm { 1 } else { 3 })),
    ("DD", |_, fm| Field::Day(if fm { 1 } else { 2 })),
    ("DY", |letters, _| Field::WeekdayName { letters, short: true, pad: false }),
    ("D", |_, _| Field::Weekday),
    ("HH24", |_, fm| Field::Hour24(if fm { 1 } else { 2 })),
    ("HH12", |_, fm| Field::Hour12(if fm { 1 } else { 2 })),
    ("HH", |_, fm| Field::Hour12(if fm { 1 } else { 2 })),
    ("SS", |_, fm| Field::Second(if fm { 1 } else { 2 })),
    ("AM", |letters, _| Field::HalfDay(letters)),
    ("PM", |letters, _| Field::HalfDay(letters)),
    ("WW", |_, fm| Field::YearWeek(if fm { 1 } else { 2 })),
    ("IW", |_, fm| Field::Week(if fm { 1 } else { 2 })),
    ("ID", |_, _| Field::IsoWeekday(1)),
    ("Q", |_, _| Field::Quarter),
    ("OF", |_, _| Field::ShortOffset),
    ("TZH:TZM", |_, _| Field::Offset { colon: true, z: false }),
    ("TZHTZM", |_, _| Field::Offset { colon: false, z: false }),
];

impl Pattern {
    /// Reads a template such as `YYYY-MM-DD HH24:MI:SS.MS`.
    pub(in crate::function) fn template(template: &str) -> Result<Self> {
        let mut fields = Vec::new();
        let mut rest = template;
        let mut fill = false;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix('"') {
                let Some((literal, after)) = after.split_once('"') else {
                    let message = format!("template `{template}` has a quote that does not end");
                    return Err(Error::invalid_input(message).with_sqlstate("22007"));
                };
                fields.push(Field::Literal(literal.to_string()));
                rest = after;
            } else if let Some(after) = strip(rest, "FM") {
                fill = true;
                rest = after;
            } else if !first.is_alphabetic() {
                fields.push(Field::Literal(first.to_string()));
                rest = &rest[first.len_utf8()..];
            } else {
                let Some((keyword, make)) = KEYWORDS.iter().find(|(keyword, _)| strip(rest, keyword).is_some()) else {
                    return Err(unknown(template, rest));
                };
                let (written, after) = rest.split_at(keyword.len());
                if strip(after, "TH").is_some() {
                    return Err(unknown(template, after));
                }
                fields.push(make(letters(written), fill));
                fill = false;
                rest = after;
            }
        }
        Ok(Self { fields })
    }
}

fn strip<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    let begins = text.get(..keyword.len()).is_some_and(|start| start.eq_ignore_ascii_case(keyword));
    begins.then(|| &text[keyword.len()..])
}

/// `MONTH`, `Month` or `month`.
fn letters(written: &str) -> Letters {
    let mut letters = written.chars().map(char::is_uppercase);
    match (letters.next(), letters.next()) {
        (Some(true), Some(false)) => Letters::Title,
        (Some(true), _) => Letters::Upper,
        _ => Letters::Lower,
    }
}

fn unknown(template: &str, rest: &str) -> Error {
    let word: String = rest.chars().take_while(|letter| letter.is_alphanumeric()).collect();
    Error::unsupported(format!("template `{template}`: `{word}` is not supported"))
        .with_sqlstate("0A000")
        .with_hint("put letters that stand for themselves in double quotes")
}
