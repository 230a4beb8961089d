//! The types that columns here can have, as PostgreSQL 15 numbers and describes them.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use super::oid;

/// One line a type: oid, name, length, type, category, preferred, by value, alignment, storage, element, array,
/// SQL name (blanks as `~`), collation, input, output, receive and send functions.
const TYPES: &str = include_str!("types.txt");

#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    pub(super) oid: i64,
    pub(super) name: &'static str,
    /// The other fields of the line, from `length` on.
    fields: [&'static str; 15],
}

impl Type {
    pub(super) fn length(&self) -> i64 {
        self.fields[0].parse().unwrap_or(-1)
    }

    pub(super) fn kind(&self) -> &'static str {
        self.fields[1]
    }

    pub(super) fn category(&self) -> &'static str {
        self.fields[2]
    }

    pub(super) fn is_preferred(&self) -> bool {
        self.fields[3] == "t"
    }

    pub(super) fn is_by_value(&self) -> bool {
        self.fields[4] == "t"
    }

    pub(super) fn alignment(&self) -> &'static str {
        self.fields[5]
    }

    pub(super) fn storage(&self) -> &'static str {
        self.fields[6]
    }

    pub(super) fn element(&self) -> i64 {
        self.fields[7].parse().unwrap_or(0)
    }

    pub(super) fn array(&self) -> i64 {
        self.fields[8].parse().unwrap_or(0)
    }

    /// As `format_type` gives it.
    pub(super) fn sql_name(&self) -> String {
        self.fields[9].replace('~', " ")
    }

    pub(super) fn collation(&self) -> i64 {
        self.fields[10].parse().unwrap_or(0)
    }

    /// Input, output, receive and send.
    pub(super) fn functions(&self) -> [&'static str; 4] {
        [self.fields[11], self.fields[12], self.fields[13], self.fields[14]]
    }
}

pub(super) fn all() -> impl Iterator<Item = Type> {
    TYPES.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (oid, name) = (words.next()?.parse().ok()?, words.next()?);
        let mut fields = [""; 15];
        fields.iter_mut().zip(words).for_each(|(field, word)| *field = word);
        Some(Type { oid, name, fields })
    })
}

/// The functions by which types are read and written, each once.
pub(super) fn function_names() -> impl Iterator<Item = &'static str> {
    static NAMES: LazyLock<BTreeSet<&'static str>> =
        LazyLock::new(|| all().flat_map(|known| known.functions()).collect());
    NAMES.iter().copied()
}

/// The name of such a function; `-` of none, as `regproc` shows it.
pub(crate) fn function_name(oid: i64) -> Option<&'static str> {
    static NAMES: LazyLock<HashMap<i64, &'static str>> =
        LazyLock::new(|| function_names().map(|name| (oid::of_function(name), name)).collect());
    if oid == 0 { Some("-") } else { NAMES.get(&oid).copied() }
}

pub(super) fn find(oid: i64) -> Option<Type> {
    all().find(|known| known.oid == oid)
}

/// The type of a name that a person writes: `text`, `int8`, `timestamp without time zone`.
pub(super) fn named(name: &str) -> Option<Type> {
    let name = name.trim().trim_start_matches("pg_catalog.").trim_matches('"').to_lowercase();
    all().find(|known| known.name == name || known.sql_name() == name)
}

/// `format_type(oid, modifier)`.
pub(super) fn format(oid: i64, modifier: i64) -> String {
    let Some(found) = find(oid) else { return "???".to_string() };
    match (found.oid, modifier) {
        (1700, modifier) if modifier >= 4 => {
            format!("numeric({},{})", (modifier - 4) >> 16, (modifier - 4) & 0x7ff)
        }
        (1114, modifier) if modifier >= 0 => format!("timestamp({modifier}) without time zone"),
        (1184, modifier) if modifier >= 0 => format!("timestamp({modifier}) with time zone"),
        (1043, modifier) if modifier >= 4 => format!("character varying({})", modifier - 4),
        _ => found.sql_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_in_postgresql() {
        assert_eq!(format(25, -1), "text");
        assert_eq!(format(1114, -1), "timestamp without time zone");
        assert_eq!(format(1114, 3), "timestamp(3) without time zone");
        assert_eq!(format(1700, 655366), "numeric(10,2)");
        assert_eq!(format(1009, -1), "text[]");
        assert_eq!(format(999_999, -1), "???");
        assert_eq!(named("int8").map(|found| found.oid), Some(20));
        assert_eq!(named("timestamp without time zone").map(|found| found.oid), Some(1114));
    }

    #[test]
    fn every_line_of_the_table_is_whole() {
        assert!(all().count() > 50);
        assert!(all().all(|known| known.functions().iter().all(|function| !function.is_empty())));
    }
}
