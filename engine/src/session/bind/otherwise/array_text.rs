//! PostgreSQL's text of an array: `{a,"b c",NULL}`.

use datafusion::sql::sqlparser::ast::{Expr, Value};

use super::{null, string};

/// The items of `ANY ('{a,b}')`, which PostgreSQL reads as an array.
pub(super) fn items_of_literal(expr: &Expr) -> Option<Vec<Expr>> {
    let expr = if let Expr::Nested(inner) = expr { inner.as_ref() } else { expr };
    let Expr::Value(value) = expr else { return None };
    let Value::SingleQuotedString(text) = &value.value else { return None };
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (item, after) = item_of_literal(rest)?;
        items.push(item);
        rest = match after.trim_start().strip_prefix(',') {
            // Something must follow.
            Some(next) if next.trim().is_empty() => return None,
            Some(next) => next.trim_start(),
            None if after.trim().is_empty() => "",
            None => return None,
        };
    }
    Some(items)
}

/// The first item of the inside of an array's text, and what follows it. Arrays of arrays are not read.
fn item_of_literal(text: &str) -> Option<(Expr, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (item, after) = text.split_at(text.find(',').unwrap_or(text.len()));
        let item = item.trim_end();
        if item.is_empty() || item.contains(['"', '\\', '{', '}']) {
            return None;
        }
        return Some((if item.eq_ignore_ascii_case("null") { null() } else { string(item) }, after));
    };
    let mut item = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((string(&item), &quoted[at + 1..])),
            '\\' => item.push(chars.next()?.1),
            char => item.push(char),
        }
    }
    None
}
