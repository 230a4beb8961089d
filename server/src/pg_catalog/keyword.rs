//! PostgreSQL's keywords, as `pg_get_keywords` gives them.

use super::column::Row;

/// A word, its category, and `b` if it can be an alias without `AS`; as PostgreSQL 15 has them.
const KEYWORDS: &str = include_str!("keywords.txt");

pub(super) fn rows() -> Vec<Row> {
    KEYWORDS.lines().filter_map(row).collect()
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
