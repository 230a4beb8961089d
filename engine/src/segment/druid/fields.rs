//! Documents that are stored as their fields alone: one column for each path, put together again row by row.
//!
//! What is not in a field is lost where Druid wrote it so: a null in an object, nulls at the end of a list, empty lists
//! and objects below others.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::columns::Opening;
use super::cursor::Cursor;
use super::dictionary::Texts;
use super::fixed::Fixed;
use super::ids::Ids;
use super::smile::{MAX_DEPTH, MAX_JSON_BYTES, put_text};
use super::texts::TextBuilder;
use super::values::{Values, Within};
use crate::error::{Error, Result};
use crate::segment::BLOCK_ROWS;

/// Ids that are read at one time, of all fields together.
const IDS_AT_ONCE: usize = 1 << 20;
/// Lists of more elements are not read: a path can name an element that is far from all others.
const MAX_ELEMENTS: usize = 1 << 20;

/// The fields of a column of documents.
pub(super) struct Fields {
    values: Values,
    fields: Vec<Field>,
    root: Node,
    nulls: RoaringBitmap,
    num_rows: usize,
}

/// One field: ids of its own dictionary, whose entries are ids of all values.
struct Field {
    ids: Ids,
    dictionary: Fixed,
}

/// A place in documents: a field ends here, or others go on from here, in other rows perhaps both.
#[derive(Default)]
struct Node {
    field: Option<usize>,
    names: BTreeMap<String, Node>,
    elements: BTreeMap<usize, Node>,
}

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Name(&'a str),
    Element(usize),
}

impl Fields {
    pub(super) fn open(opening: &Opening<'_>, base: &str, paths: &Texts) -> Result<Self> {
        let (mut fields, mut root, mut num_rows) = (Vec::new(), Node::default(), opening.num_rows);
        paths.for_each(|path| {
            let path = std::str::from_utf8(path.unwrap_or_default())
                .map_err(|error| Error::corrupt("the path of a field is not UTF-8").with_source(error))?;
            let index = fields.len();
            let field = Field::open(opening, &format!("{base}.__field_{index}"));
            let field = field.map_err(|error| error.context("field", path))?;
            let expected = *num_rows.get_or_insert(field.ids.len());
            if field.ids.len() != expected {
                return Err(
                    Error::corrupt(format!("it has {} rows of {expected}", field.ids.len())).context("field", path)
                );
            }
            root.at(&steps(path)?).field = Some(index);
            fields.push(field);
            Ok(())
        })?;
        let num_rows = num_rows.unwrap_or(0);
        let nulls = match opening.files.get(&format!("{base}.__nullIndex"))? {
            Some(file) => opening.bitmaps.decode(&Cursor::new(file, "an index of nulls").sized()?, num_rows)?,
            None => RoaringBitmap::new(),
        };
        let values = Values::open(opening.files, base, opening.order)?;
        Ok(Self { values, fields, root, nulls, num_rows })
    }

    /// One document a row.
    pub(super) fn documents(&self) -> Result<TextBuilder> {
        let (mut texts, mut json) = (TextBuilder::default(), Vec::new());
        let at_once = (IDS_AT_ONCE / self.fields.len().max(1)).clamp(1, BLOCK_ROWS);
        let mut ids = vec![Vec::new(); self.fields.len()];
        for start in (0..self.num_rows).step_by(at_once) {
            let rows = start..self.num_rows.min(start + at_once);
            for (field, ids) in self.fields.iter().zip(&mut ids) {
                ids.clear();
                field.ids.append(rows.clone(), ids)?;
            }
            for (row, position) in rows.zip(0..) {
                json.clear();
                let is_some = self.put(&self.root, &ids, position, &mut json).map_err(|e| e.context("row", row))?;
                match is_some {
                    true => texts.push(Some(text(&json)?))?,
                    false if self.nulls.contains(row as u32) => texts.push(None)?,
                    false => texts.push(Some("{}"))?,
                }
            }
        }
        Ok(texts)
    }

    /// Appends what a row has at a place and below it; false, and nothing appended, where that is nothing.
    fn put(&self, node: &Node, ids: &[Vec<u32>], row: usize, out: &mut Vec<u8>) -> Result<bool> {
        if out.len() > MAX_JSON_BYTES {
            return Err(Error::capacity_exceeded("a document of more than 256 MiB is not read"));
        }
        if let Some(field) = node.field {
            let id = self.fields[field].dictionary.bits(ids[field][row] as usize)?.unwrap_or(0);
            if self.values.put(id as usize, Within::Document, out)? {
                return Ok(true);
            }
        }
        Ok(self.put_elements(node, ids, row, out)? || self.put_names(node, ids, row, out)?)
    }

    fn put_elements(&self, node: &Node, ids: &[Vec<u32>], row: usize, out: &mut Vec<u8>) -> Result<bool> {
        let mut length = 0;
        for (&index, element) in &node.elements {
            let before = out.len();
            out.push(if length == 0 { b'[' } else { b',' });
            if !self.put(element, ids, row, out)? {
                out.truncate(before);
                continue;
            }
            if index >= MAX_ELEMENTS {
                return Err(Error::capacity_exceeded(format!(
                    "lists of more than {MAX_ELEMENTS} elements are not read"
                )));
            }
            let missing = b"null,".repeat(index - length);
            out.splice(before + 1..before + 1, missing);
            length = index + 1;
        }
        if length > 0 {
            out.push(b']');
        }
        Ok(length > 0)
    }

    fn put_names(&self, node: &Node, ids: &[Vec<u32>], row: usize, out: &mut Vec<u8>) -> Result<bool> {
        let start = out.len();
        for (name, below) in &node.names {
            let before = out.len();
            out.push(if before == start { b'{' } else { b',' });
            put_text(out, name.as_bytes())?;
            out.push(b':');
            if !self.put(below, ids, row, out)? {
                out.truncate(before);
            }
        }
        if out.len() > start {
            out.push(b'}');
        }
        Ok(out.len() > start)
    }
}

fn text(json: &[u8]) -> Result<&str> {
    std::str::from_utf8(json).map_err(|error| Error::corrupt("a document is not UTF-8").with_source(error))
}

impl Field {
    fn open(opening: &Opening<'_>, name: &str) -> Result<Self> {
        let order = opening.order;
        let mut cursor = Cursor::new(opening.files.require(name)?, "a field of documents");
        let version = cursor.u8()?;
        // No flag is known.
        cursor.i32()?;
        let dictionary = Fixed::read(&mut cursor, order, 4)?;
        // Fields of one type have their numbers once more.
        let (longs, doubles) = (cursor.length_in(order)?, cursor.length_in(order)?);
        cursor.take(longs)?;
        cursor.take(doubles)?;
        let ids = match version {
            0 => Ids::read_flat(&mut cursor)?,
            2 => Ids::read_blocks(&mut cursor, opening.files, order)?,
            _ => return Err(Error::unsupported(format!("version {version} of a field is not known, only 0 and 2"))),
        };
        Ok(Self { ids, dictionary })
    }
}

impl Node {
    /// The place at the end of a path, made if it was not there.
    fn at(&mut self, steps: &[Step<'_>]) -> &mut Self {
        steps.iter().fold(self, |node, step| match step {
            Step::Element(index) => node.elements.entry(*index).or_default(),
            Step::Name(name) => node.names.entry((*name).to_owned()).or_default(),
        })
    }
}

/// The steps of a path such as `$.a['b.c'][0]`. Druid quotes names that hold one of `.'"[]`, and escapes nothing in them.
fn steps(path: &str) -> Result<Vec<Step<'_>>> {
    let wrong = || Error::unsupported(format!("the path `{path}` of a field is not understood"));
    let mut rest = path.strip_prefix('$').ok_or_else(wrong)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, behind) = next_step(rest).ok_or_else(wrong)?;
        steps.push(step);
        rest = behind;
    }
    match steps.len() > MAX_DEPTH {
        true => Err(Error::unsupported(format!("documents nested deeper than {MAX_DEPTH} are not read"))),
        false => Ok(steps),
    }
}

fn next_step(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(quoted) = path.strip_prefix("['") {
        // The quote that ends the name is the first behind which a path ends or goes on.
        let ends = quoted.match_indices("']").map(|(at, _)| at);
        let end = ends.into_iter().find(|at| matches!(quoted.as_bytes().get(at + 2), None | Some(b'.' | b'[')))?;
        return Some((Step::Name(&quoted[..end]), &quoted[end + 2..]));
    }
    if let Some(index) = path.strip_prefix('[') {
        let (index, rest) = index.split_once(']')?;
        return Some((Step::Element(index.parse::<u32>().ok()? as usize), rest));
    }
    let name = path.strip_prefix('.')?;
    let end = name.find(['.', '[']).unwrap_or(name.len());
    Some((Step::Name(&name[..end]), &name[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_druid_writes_them() {
        let name = Step::Name;
        assert_eq!(steps("$").unwrap(), []);
        assert_eq!(steps("$.a.b[12].c").unwrap(), [name("a"), name("b"), Step::Element(12), name("c")]);
        assert_eq!(steps("$['a.b'][0]['it's']").unwrap(), [name("a.b"), Step::Element(0), name("it's")]);
        assert_eq!(steps("$[0][1]").unwrap(), [Step::Element(0), Step::Element(1)]);
        assert_eq!(steps("$.").unwrap(), [name("")]);
        for wrong in ["", "a", "$a", "$[", "$[x]", "$[-1]", "$['a", "$[99999999999]"] {
            assert!(steps(wrong).is_err(), "{wrong}");
        }
        assert!(steps(&format!("${}", "[0]".repeat(1000))).is_err());
    }
}
