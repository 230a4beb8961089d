//! What names mean at one place of a statement.

use datafusion::sql::sqlparser::ast::Ident;

use super::{Match, at, find, nearest};
use crate::error::{Error, Result};

/// One entry of a `FROM` list.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    /// What its columns are qualified with, its alias or its table's name; empty for a subquery without an alias.
    pub(super) names: Vec<String>,
    /// Its columns, if they are known.
    pub(super) columns: Option<Vec<String>>,
}

/// The relations of one `FROM` clause.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) relations: Vec<Relation>,
    /// Columns that `USING` made one of two.
    pub(super) merged: Vec<String>,
}

/// A column that was found: its qualifier, empty if it must not have one, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) qualifier: Vec<String>,
    pub(super) column: String,
}

impl Scope {
    /// The column that an unqualified name means here. Fails if it may mean several.
    pub(super) fn column(&self, wanted: &Ident) -> Result<Option<Found>> {
        let candidates = self
            .relations
            .iter()
            .flat_map(|relation| relation.columns.iter().flatten().map(move |column| (relation, column)));
        match find(&wanted.value, candidates, |(_, column)| column.as_str()) {
            Match::None => Ok(None),
            Match::One((relation, column)) => Ok(Some(self.found(relation, column))),
            Match::Many(found) => {
                let first = found[0].1;
                if self.merged.contains(first) && found.iter().all(|(_, column)| *column == first) {
                    return Ok(Some(Found { qualifier: Vec::new(), column: first.clone() }));
                }
                Err(ambiguous(wanted, &found))
            }
        }
    }

    fn found(&self, relation: &Relation, column: &str) -> Found {
        let merged = self.merged.iter().any(|merged| merged == column);
        let qualifier = if merged { Vec::new() } else { relation.names.clone() };
        Found { qualifier, column: column.to_string() }
    }

    /// The relation that a qualifier means here.
    pub(super) fn relation(&self, wanted: &[Ident]) -> Option<&Relation> {
        let matches = |same: fn(&str, &str) -> bool| {
            self.relations.iter().find(|relation| {
                let (names, wanted) = (relation.names.iter().rev(), wanted.iter().rev());
                !relation.names.is_empty() && names.zip(wanted).all(|(name, wanted)| same(name, &wanted.value))
            })
        };
        matches(|name, wanted| name == wanted)
            .or_else(|| matches(|name, wanted| name.to_lowercase() == wanted.to_lowercase()))
    }

    /// Whether a name that was not found may still be a column of a relation whose columns are not known.
    pub(super) fn is_open(&self) -> bool {
        self.relations.iter().any(|relation| relation.columns.is_none())
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.relations.iter().flat_map(|relation| relation.columns.iter().flatten()).map(String::as_str)
    }
}

impl Relation {
    /// The column that a qualified name means; `None` if the columns are not known.
    pub(super) fn column(&self, wanted: &Ident) -> Result<Option<String>> {
        let Some(columns) = &self.columns else { return Ok(None) };
        match find(&wanted.value, columns.iter(), |column| column.as_str()) {
            Match::One(column) => Ok(Some(column.clone())),
            Match::Many(found) => {
                let found: Vec<_> = found.into_iter().map(|column| (self, column)).collect();
                Err(ambiguous(wanted, &found))
            }
            Match::None => {
                let name = format!("{}.{}", self.names.join("."), wanted.value);
                Err(unknown(&name, wanted, columns.iter().map(String::as_str)))
            }
        }
    }
}

pub(super) fn unknown<'a>(name: &str, wanted: &Ident, columns: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::invalid_input(format!("column `{name}` does not exist")).with_sqlstate("42703");
    let error = match nearest(&wanted.value, columns) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error,
    };
    at(error, wanted)
}

fn ambiguous(wanted: &Ident, found: &[(&Relation, &String)]) -> Error {
    let names: Vec<String> = found
        .iter()
        .map(|(relation, column)| {
            let path: Vec<String> = relation.names.iter().chain([*column]).map(|name| quote(name)).collect();
            format!("`{}`", path.join("."))
        })
        .collect();
    let message = format!("column `{}` is ambiguous: it could be {}", wanted.value, names.join(" or "));
    at(Error::invalid_input(message).with_sqlstate("42702"), wanted)
}

/// A name as it must be written to mean just this one.
fn quote(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_string() } else { format!("\"{name}\"") }
}
