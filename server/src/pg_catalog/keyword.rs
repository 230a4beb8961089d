//! PostgreSQL's keywords, as `pg_get_keywords` gives them.

use super::column::Row;

/// A word, its category, and `b` if it can be an alias without `AS`; as PostgreSQL 15 has them.
const KEYWORDS: &str = include_str!("keywords.txt");

pub(super) fn rows() -> Vec<Row> {
    KEYWORDS.lines().filter_map(row).collect()
}

/// Whether a name has to be quoted because it is a word of the language.
pub(super) fn is_reserved(name: &str) -> bool {
    KEYWORDS.lines().filter_map(|line| line.split_once(' ')).any(|(word, rest)| word == name && !rest.starts_with('U'))
}

fn row(line: &'static str) -> Option<Row> {
    let mut words = line.split(' ');
    let (word, category, label) = (words.next()?, words.next()?, words.next()?);
    let described = match category {
        "U" => "unreserved",
        "C" => "unreserved (cannot be function or type name)",
        "T" => "reserved (can be function or type name)",
        _ => "reserved",
    };
    let is_bare = label == "b";
    Some(vec![
        ("word", word.into()),
        ("catcode", category.into()),
        ("barelabel", is_bare.into()),
        ("catdesc", described.into()),
        ("baredesc", if is_bare { "can be bare label" } else { "requires AS" }.into()),
    ])
}
