//! Numbers read by a template, place by place, as leniently as PostgreSQL does: a place that finds nothing of its kind passes on.

use super::{Anchor, NumberTemplate, Part};

impl NumberTemplate {
    /// Whether a text says a negative number by this template, and its digits before and after the point.
    pub(in crate::function) fn read(&self, text: &str) -> (bool, String, String) {
        let mut reader = Reader {
            template: self,
            text: text.chars().collect(),
            at: 0,
            negative: None,
            whole: String::new(),
            fraction: String::new(),
            after_point: false,
        };
        for part in &self.parts {
            if reader.here().is_none() {
                break;
            }
            if reader.takes(part) {
                reader.at += 1;
            }
        }
        (reader.negative == Some(true), reader.whole, reader.fraction)
    }
}

struct Reader<'a> {
    template: &'a NumberTemplate,
    text: Vec<char>,
    at: usize,
    /// Once a sign was read.
    negative: Option<bool>,
    whole: String,
    fraction: String,
    after_point: bool,
}

impl Reader<'_> {
    fn here(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    /// Reads what a part of the template stands for. Says whether the character here was it.
    fn takes(&mut self, part: &Part) -> bool {
        let has_digits = !self.whole.is_empty() || !self.fraction.is_empty();
        match part {
            Part::Nine | Part::Zero => self.place(true),
            Part::Point => self.place(false),
            Part::Comma => (has_digits || !self.template.fill) && self.here() == Some(','),
            Part::Minus => self.sign_or_skip(&['-']),
            Part::Plus => self.sign_or_skip(&['+']),
            Part::Sign => self.sign_or_skip(&['-', '+']),
            Part::Currency => {
                self.skip();
                false
            }
            // One of anything.
            Part::Literal(_) => true,
        }
    }

    /// A sign, or something that is no part of a number and is passed over.
    fn sign_or_skip(&mut self, signs: &[char]) -> bool {
        match self.here() {
            Some(sign) if signs.contains(&sign) => {
                self.negative = Some(sign == '-');
                true
            }
            _ => {
                self.skip();
                false
            }
        }
    }

    fn skip(&mut self) {
        if self.here().is_some_and(|char| !char.is_ascii_digit() && !matches!(char, '.' | ',' | '+' | '-')) {
            self.at += 1;
        }
    }

    fn has_sign_of_its_own(&self) -> bool {
        self.template.anchor != Anchor::None
    }

    /// A digit or the point, a sign before the first of them and one behind the last. What is here is used up in any case, but
    /// for a digit too many after the point.
    fn place(&mut self, is_digit: bool) -> bool {
        if self.here() == Some(' ') {
            self.at += 1;
        }
        let begun = |reader: &Self| !reader.whole.is_empty() || !reader.fraction.is_empty();
        if self.negative.is_none() && is_digit && !begun(self) {
            match self.here() {
                Some('-') => self.sign(true),
                Some('<') if self.template.brackets => self.sign(true),
                Some('+') => self.sign(false),
                _ => {}
            }
        }
        let mut is_read = false;
        match self.here() {
            None => return true,
            Some(digit) if digit.is_ascii_digit() => {
                if self.after_point && self.fraction.len() == self.template.post {
                    return true;
                }
                let digits = if self.after_point { &mut self.fraction } else { &mut self.whole };
                digits.push(digit);
                is_read = true;
            }
            Some('.') if self.template.decimal && !self.after_point => {
                self.after_point = true;
                is_read = true;
            }
            _ => {}
        }
        if self.negative.is_none() && begun(self) {
            self.sign_behind(is_read);
        }
        true
    }

    fn sign(&mut self, negative: bool) {
        self.negative = Some(negative);
        self.at += 1;
    }

    fn sign_behind(&mut self, is_read: bool) {
        let sign = |char: Option<&char>| match char {
            Some('-') => Some(true),
            Some('+') => Some(false),
            _ => None,
        };
        if self.has_sign_of_its_own() {
            if is_read && let Some(negative) = sign(self.text.get(self.at + 1)) {
                self.sign(negative);
            }
        } else if !is_read && (self.template.plus || self.template.minus) {
            self.negative = sign(self.text.get(self.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, template: &str) -> String {
        let (negative, whole, fraction) = NumberTemplate::parse(template).unwrap().read(text);
        format!("{}{whole}.{fraction}", if negative { "-" } else { "" })
    }

    /// What PostgreSQL 15 gives.
    #[test]
    fn numbers_are_read_as_postgresql_reads_them() {
        for (text, template, expected) in [
            ("12,454.8-", "99G999D9S", "-12454.8"),
            ("12", "99D99", "12."),
            ("12.567", "99D9", "12.5"),
            ("1234", "9,999", "1234."),
            ("-34,338,492", "99G999G999", "-34338492."),
            ("$1234.5", "L9999.99", "1234.5"),
            ("<564646.654564>", "999999.999999PR", "-564646.654564"),
            ("0.00001-", "9.999999S", "-0.00001"),
            ("5.01-", "FM9.999999MI", "-5.01"),
            ("5 4 4 4 4 8 . 7 8", "9 9 9 9 9 9 . 9 9", "544448.78"),
            (".01", "FM9.99", ".01"),
            (".-01", "S99.99", "-.01"),
            (".01-", "99.99S", "-.01"),
            (" . 0 1-", " 9 9 . 9 9 S", "-.01"),
            ("34,50", "999,99", "3450."),
            ("123,000", "999G", "123."),
            ("$1,234.56", "L99,999.99", "1234.56"),
            ("$1234.56", "L99,999.99", "1234.56"),
            ("12abc", "99999", "12."),
            ("  12", "99", "1."),
            ("+12", "S99", "12."),
            ("-12", "PL99", "-12."),
            ("123", "9", "1."),
            ("1e3", "9999", "13."),
            ("abc", "999", "."),
        ] {
            assert_eq!(read(text, template), expected, "{text} by {template}");
        }
    }
}
