//! The values of columns of several types, and of the fields of documents: dictionaries one behind the other.

use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use super::dictionary::Texts;
use super::fixed::Fixed;
use super::front_coded::FrontCoded;
use super::smile::{put_float, put_text};
use crate::error::{Error, Result};

/// The dictionaries of a column of several types: an id counts through all of them.
pub(super) struct Values {
    texts: Texts,
    longs: Fixed,
    doubles: Fixed,
    arrays: FrontCoded,
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// Texts are as they are, lists are JSON.
    Row,
    /// Texts are quoted, lists are JSON.
    Document,
    /// Texts are quoted; there are no lists in lists.
    List,
}

impl Values {
    /// The dictionaries of the column whose files begin with `base`. Not every column has lists.
    pub(super) fn open(files: &Container, base: &str, order: ByteOrder) -> Result<Self> {
        let file = |name: &str| {
            let bytes = files.require(&format!("{base}.{name}"))?;
            Ok::<_, Error>(Cursor::new(bytes, "a dictionary of a column of several types"))
        };
        let arrays = match files.get(&format!("{base}.__arrayDictionary"))? {
            Some(_) => FrontCoded::read_ints(&mut file("__arrayDictionary")?, order)?.0,
            None => FrontCoded::empty(),
        };
        Ok(Self {
            texts: Texts::read(&mut file("__stringDictionary")?, files, order)?,
            longs: Fixed::read(&mut file("__longDictionary")?, order, 8)?,
            doubles: Fixed::read(&mut file("__doubleDictionary")?, order, 8)?,
            arrays,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len() + self.longs.len() + self.doubles.len() + self.arrays.len()
    }

    /// Appends a value as text; false, and nothing appended, for null.
    pub(super) fn put(&self, id: usize, within: Within, out: &mut Vec<u8>) -> Result<bool> {
        if id < self.texts.len() {
            return match self.texts.get(id)? {
                None => Ok(false),
                Some(text) if within != Within::Row => put_text(out, &text).map(|()| true),
                Some(text) => {
                    out.extend_from_slice(&text);
                    Ok(true)
                }
            };
        }
        let id = id - self.texts.len();
        if id < self.longs.len() {
            let bits = self.longs.bits(id)?;
            out.extend_from_slice(bits.map_or(String::new(), |bits| bits.cast_signed().to_string()).as_bytes());
            return Ok(bits.is_some());
        }
        let id = id - self.longs.len();
        if id < self.doubles.len() {
            let bits = self.doubles.bits(id)?;
            bits.map_or(Ok(()), |bits| put_float(out, f64::from_bits(bits)))?;
            return Ok(bits.is_some());
        }
        match within {
            Within::Row | Within::Document => self.put_list(id - self.doubles.len(), out).map(|()| true),
            // Lists hold no lists; so nothing turns in circles.
            Within::List => Err(Error::corrupt("a list of an `auto` column is in another list")),
        }
    }

    fn put_list(&self, index: usize, out: &mut Vec<u8>) -> Result<()> {
        let mut ids = Vec::new();
        self.arrays.get(index, &mut ids)?;
        out.push(b'[');
        for (position, id) in ids.as_chunks::<4>().0.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            let id = self.arrays.order().u32(*id) as usize;
            if !self.put(id, Within::List, out)? {
                out.extend_from_slice(b"null");
            }
        }
        out.push(b']');
        Ok(())
    }
}
