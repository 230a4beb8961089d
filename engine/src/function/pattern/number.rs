//! PostgreSQL's templates of `to_char` and `to_number`: `FM999,990.00`.

mod read;

use crate::error::{Error, Result};

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Nine,
    Zero,
    Point,
    Comma,
    Currency,
    Minus,
    Plus,
    Sign,
    Literal(char),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Anchor {
    #[default]
    None,
    Before,
    After,
}

/// A template that was read.
#[derive(Clone, Debug, Default)]
pub(in crate::function) struct NumberTemplate {
    parts: Vec<Part>,
    /// Digits before and after the point.
    pre: usize,
    post: usize,
    fill: bool,
    decimal: bool,
    brackets: bool,
    minus: bool,
    plus: bool,
    anchor: Anchor,
    anchor_at: usize,
    /// Place of the first zero before the point, and of the last one at all, counted from 1.
    zero_start: usize,
    zero_end: usize,
}

impl NumberTemplate {
    pub(in crate::function) fn parse(template: &str) -> Result<Self> {
        let mut read = Self::default();
        let mut rest = template;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix('"') {
                let (literal, after) = after.split_once('"').unwrap_or((after, ""));
                read.parts.extend(literal.chars().map(Part::Literal));
                rest = after;
                continue;
            }
            let taken = read.keyword(rest, template)?;
            if taken == 0 {
                if first.is_alphabetic() {
                    return Err(unknown(template, rest));
                }
                read.parts.push(Part::Literal(first));
                rest = &rest[first.len_utf8()..];
            } else {
                rest = &rest[taken..];
            }
        }
        Ok(read)
    }

    /// Digits after the point that a number is rounded to.
    pub(in crate::function) fn decimals(&self) -> usize {
        self.post
    }

    /// Reads a keyword, and says how long it is; 0 if there is none.
    fn keyword(&mut self, rest: &str, template: &str) -> Result<usize> {
        let starts = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        for unsupported in ["EEEE", "RN", "TH", "V"] {
            if starts(unsupported) {
                return Err(unknown(template, rest));
            }
        }
        let (part, length) = match () {
            () if starts("FM") => {
                self.fill = true;
                return Ok(2);
            }
            () if starts("PR") => {
                self.brackets = true;
                return Ok(2);
            }
            () if starts("MI") => (Part::Minus, 2),
            () if starts("PL") => (Part::Plus, 2),
            () if starts("SG") => (Part::Sign, 2),
            () if starts("S") => {
                self.anchor_sign();
                return Ok(1);
            }
            () if starts("9") => (Part::Nine, 1),
            () if starts("0") => (Part::Zero, 1),
            () if starts(".") || starts("D") => (Part::Point, 1),
            () if starts(",") || starts("G") => (Part::Comma, 1),
            () if starts("L") => (Part::Currency, 1),
            () => return Ok(0),
        };
        self.count(&part, template)?;
        self.parts.push(part);
        Ok(length)
    }

    fn count(&mut self, part: &Part, template: &str) -> Result<()> {
        match part {
            Part::Zero => {
                if self.zero_start == 0 && !self.decimal {
                    self.zero_start = self.pre + 1;
                }
                self.digit();
                self.zero_end = self.pre + self.post;
            }
            Part::Nine => self.digit(),
            Part::Point if self.decimal => {
                let message = format!("template `{template}` has more than one decimal point");
                return Err(Error::invalid_input(message).with_sqlstate("42601"));
            }
            Part::Point => self.decimal = true,
            Part::Minus => self.minus = true,
            Part::Plus => self.plus = true,
            Part::Sign => (self.minus, self.plus) = (true, true),
            _ => {}
        }
        Ok(())
    }

    fn digit(&mut self) {
        match self.decimal {
            true => self.post += 1,
            false => self.pre += 1,
        }
    }

    fn anchor_sign(&mut self) {
        if !self.decimal {
            (self.anchor, self.anchor_at) = (Anchor::Before, self.pre);
        } else if self.anchor == Anchor::None {
            self.anchor = Anchor::After;
        }
    }

    /// Writes a number: its sign, and its digits with as many decimals as [`Self::decimals`] says.
    pub(in crate::function) fn format(&self, negative: bool, digits: &str) -> String {
        let whole = digits.split('.').next().unwrap_or(digits).len();
        let number = match whole > self.pre {
            true => {
                let point = if self.post > 0 { "." } else { "" };
                format!("{}{point}{}", "#".repeat(self.pre), "#".repeat(self.post))
            }
            false => digits.to_string(),
        };
        Writer::new(self, negative, number.as_bytes(), self.pre.saturating_sub(whole)).write()
    }
}

fn unknown(template: &str, rest: &str) -> Error {
    let word: String = rest.chars().take_while(|letter| letter.is_alphanumeric()).collect();
    Error::unsupported(format!("template `{template}` of a number: `{word}` is not supported"))
        .with_sqlstate("0A000")
        .with_hint("put letters that stand for themselves in double quotes")
}

/// The state of PostgreSQL's way through a template, place by place (`NUM_processor` in its `formatting.c`).
struct Writer<'a> {
    template: &'a NumberTemplate,
    negative: bool,
    number: &'a [u8],
    /// The next character of `number`.
    next: usize,
    /// Places before the first digit.
    spaces: usize,
    /// The place in the template, digits and point counted.
    place: usize,
    count: usize,
    brackets: bool,
    anchor: Anchor,
    sign_written: bool,
    digits_begun: bool,
    /// With FM: the last character that is worth writing.
    last_relevant: Option<usize>,
    out: String,
}

impl<'a> Writer<'a> {
    fn new(template: &'a NumberTemplate, negative: bool, number: &'a [u8], spaces: usize) -> Self {
        let signs = template.plus || template.minus;
        let anchored = template.anchor != Anchor::None;
        let sign_written = match signs {
            true => !template.plus || template.minus,
            false => !negative && template.fill && !anchored,
        };
        let at_end = !signs && template.anchor == Anchor::Before && template.pre == template.anchor_at;
        let anchor = if at_end && template.pre > 0 { Anchor::After } else { template.anchor };
        let mut count = (template.post + template.pre).saturating_sub(1);
        let last_relevant = (template.fill && template.decimal).then(|| {
            let relevant = last_relevant(number);
            match template.zero_end > spaces {
                true => relevant.max((template.zero_end - spaces).min(number.len().saturating_sub(1))),
                false => relevant,
            }
        });
        if !sign_written && spaces == 0 {
            count += 1;
        }
        let brackets = template.brackets && (negative || !template.fill);
        Self {
            template,
            negative,
            number,
            next: 0,
            spaces,
            place: 0,
            count,
            brackets,
            anchor,
            sign_written,
            digits_begun: false,
            last_relevant,
            out: String::new(),
        }
    }

    fn write(mut self) -> String {
        let fill = self.template.fill;
        for part in &self.template.parts {
            match part {
                Part::Nine | Part::Zero | Part::Point => self.digit(*part == Part::Zero),
                Part::Comma if self.digits_begun => self.out.push(','),
                Part::Comma | Part::Currency => self.space(),
                Part::Minus if self.negative => self.out.push('-'),
                Part::Plus if !self.negative => self.out.push('+'),
                Part::Minus | Part::Plus if fill => {}
                Part::Minus | Part::Plus => self.out.push(' '),
                Part::Sign => self.out.push(if self.negative { '-' } else { '+' }),
                Part::Literal(char) => self.out.push(*char),
            }
        }
        self.out
    }

    fn space(&mut self) {
        if !self.template.fill {
            self.out.push(' ');
        }
    }

    /// The zero that stands alone before the point, where nobody asked for one.
    fn is_lone_zero(&self) -> bool {
        let Some(first) = self.number.first() else { return false };
        self.template.zero_start == 0 && self.next == 0 && *first == b'0' && self.template.post != 0
    }

    fn is_point(&self, at: Option<usize>) -> bool {
        at.is_some_and(|at| self.number.get(at) == Some(&b'.'))
    }

    fn zeros_from_here(&self) -> bool {
        self.template.zero_start > 0 && self.template.zero_start - 1 <= self.place
    }

    fn digit(&mut self, is_zero: bool) {
        self.sign();
        let before = self.place < self.spaces;
        if before && !self.zeros_from_here() {
            self.space();
        } else if before {
            self.out.push('0');
            self.digits_begun = true;
        } else {
            self.number_part(is_zero);
            if self.next < self.number.len() {
                self.next += 1;
            }
        }
        self.end_of_number();
        self.place += 1;
    }

    fn sign(&mut self) {
        let reached =
            self.place >= self.spaces || self.template.zero_start > 0 && self.template.zero_start - 1 == self.place;
        if self.sign_written || !reached || self.is_lone_zero() && !self.is_point(self.last_relevant) {
            return;
        }
        if self.anchor != Anchor::None {
            if self.anchor == Anchor::Before {
                self.out.push(if self.negative { '-' } else { '+' });
                self.sign_written = true;
            }
        } else if self.brackets {
            self.out.push(if self.negative { '<' } else { ' ' });
            self.sign_written = true;
        } else if !self.negative {
            self.space();
            self.sign_written = true;
        } else {
            self.out.push('-');
            self.sign_written = true;
        }
    }

    fn number_part(&mut self, is_zero: bool) {
        let Some(&byte) = self.number.get(self.next) else { return };
        if byte == b'.' {
            if !self.is_point(self.last_relevant) || self.template.fill {
                self.out.push('.');
            }
        } else if self.last_relevant.is_some_and(|last| self.next > last) && !is_zero {
            // Zeros at the end, which FM leaves out.
        } else if self.is_lone_zero() {
            match self.template.fill {
                false => self.out.push(' '),
                true if self.is_point(self.last_relevant) => self.out.push('0'),
                true => {}
            }
        } else {
            self.out.push(char::from(byte));
            self.digits_begun = true;
        }
    }

    /// After the last digit come the bracket that closes, and the sign that stands behind.
    fn end_of_number(&mut self) {
        let mut end = self.count + usize::from(self.spaces > 0) + usize::from(self.template.decimal);
        if self.last_relevant == Some(self.next) {
            end = self.place;
        }
        if self.place + 1 != end {
            return;
        }
        if self.sign_written && self.brackets {
            self.out.push(if self.negative { '>' } else { ' ' });
        } else if self.anchor == Anchor::After {
            self.out.push(if self.negative { '-' } else { '+' });
        }
    }
}

fn last_relevant(number: &[u8]) -> usize {
    let Some(point) = number.iter().position(|byte| *byte == b'.') else { return 0 };
    let nonzero = number[point + 1..].iter().rposition(|byte| *byte != b'0');
    nonzero.map_or(point, |at| point + 1 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(template: &str, number: &str) -> String {
        let (negative, digits) = number.strip_prefix('-').map_or((false, number), |digits| (true, digits));
        NumberTemplate::parse(template).unwrap().format(negative, digits)
    }

    #[test]
    fn numbers_are_written_as_the_manual_of_postgresql_shows() {
        for (number, template, expected) in [
            ("12.0", "9990999.9", "    0012.0"),
            ("12.0", "FM9990999.9", "0012."),
            ("485", "999", " 485"),
            ("-485", "999", "-485"),
            ("485", "9 9 9", " 4 8 5"),
            ("1485", "9,999", " 1,485"),
            ("148.500", "999.999", " 148.500"),
            ("148.500", "FM999.999", "148.5"),
            ("148.500", "FM999.990", "148.500"),
            ("-485", "999S", "485-"),
            ("-485", "999MI", "485-"),
            ("485", "999MI", "485 "),
            ("485", "FM999MI", "485"),
            ("485", "PL999", "+ 485"),
            ("485", "SG999", "+485"),
            ("-485", "SG999", "-485"),
            ("-485", "9SG99", "4-85"),
            ("-485", "999PR", "<485>"),
            ("485.8", "\"Pre:\"999\" Post:\" .9", "Pre: 485 Post: .8"),
            ("0.1", "0.9", " 0.1"),
            ("-0.1", "99.9", "  -.1"),
            ("-0.10", "FM9.99", "-.1"),
            ("12345", "999", " ###"),
        ] {
            assert_eq!(written(template, number), expected, "{template} of {number}");
        }
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for template in ["999th", "RN", "9.9EEEE", "9V9", "abc", "9.9.9"] {
            assert!(NumberTemplate::parse(template).is_err(), "{template}");
        }
    }
}
