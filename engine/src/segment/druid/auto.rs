//! Part `nestedCommonFormat`, Druid's `auto` columns: scalars, values of several types, lists, and documents.

use super::Nulls;
use super::bitmap::Bitmaps;
use super::columns::{Opened, Opening};
use super::complex::read_common_documents;
use super::cursor::Cursor;
use super::descriptor::{Auto, AutoKind};
use super::dictionary::{DruidDictionary, Texts};
use super::fixed::Fixed;
use super::front_coded::FrontCoded;
use super::ids::Ids;
use super::indexed::Indexed;
use super::numbers::{DruidNumber, DruidNumbers, NumberList};
use super::smile::{put_float, put_text};
use super::strings::DruidStrings;
use super::texts::TextBuilder;
use crate::error::{Error, Result};
use crate::segment::BLOCK_ROWS;

/// Opens such a column; `cursor` is behind its description.
pub(super) fn open(opening: &Opening<'_>, auto: &Auto, cursor: &mut Cursor) -> Result<Opened> {
    match cursor.u8()? {
        0 => {}
        version => return Err(Error::unsupported(format!("version {version} of `auto` columns is not known"))),
    }
    let length = cursor.vbyte()?;
    let base = cursor.take(length)?;
    let base = cursor.utf8(&base)?;
    let files = AutoFiles { opening, base };
    match auto.kind {
        AutoKind::String => files.strings(),
        AutoKind::Long => files.numbers::<i64>("__longDictionary", "__longColumn"),
        AutoKind::Double => files.numbers::<f64>("__doubleDictionary", "__doubleColumn"),
        AutoKind::Variant => files.variants(&auto.logical_type),
        AutoKind::Nested if auto.has_documents => {
            let (texts, what) = read_common_documents(cursor, opening.files, &files.base, opening.order)?;
            opening.texts(texts, &what)
        }
        AutoKind::Nested => Err(Error::unsupported("documents that are stored as their fields alone are not read")),
    }
}

/// The files of one `auto` column.
struct AutoFiles<'a> {
    opening: &'a Opening<'a>,
    base: String,
}

impl AutoFiles<'_> {
    fn file(&self, name: &str) -> Result<Cursor> {
        let bytes = self.opening.files.require(&format!("{}.{name}", self.base))?;
        Ok(Cursor::new(bytes, "a file of an `auto` column"))
    }

    fn texts(&self) -> Result<Texts> {
        Texts::read(&mut self.file("__stringDictionary")?, self.opening.files, self.opening.order)
    }

    fn fixed(&self, name: &str, width: usize) -> Result<Fixed> {
        Fixed::read(&mut self.file(name)?, self.opening.order, width)
    }

    fn ids(&self) -> Result<Ids> {
        Ids::read_blocks(&mut self.file("__encodedColumn")?, self.opening.files, self.opening.order)
    }

    fn bitmaps(&self, cardinality: usize) -> Result<Bitmaps> {
        let list = Indexed::read(&mut self.file("__valueIndexes")?, self.opening.files, self.opening.order)?;
        Bitmaps::new(list, self.opening.bitmaps, cardinality)
    }

    fn strings(&self) -> Result<Opened> {
        let texts = self.texts()?;
        let bitmaps = self.bitmaps(texts.len())?;
        let ids = self.ids()?;
        self.opening.check_rows(ids.len())?;
        let dictionary = DruidDictionary::open(texts, Nulls::AsStored)?;
        Ok(self.opening.strings(DruidStrings::new(dictionary, ids, Some(bitmaps))))
    }

    /// The rows of null are those of the first value's bitmap.
    fn numbers<T: DruidNumber>(&self, dictionary: &str, column: &str) -> Result<Opened> {
        let dictionary = self.fixed(dictionary, 8)?;
        let list = NumberList::read::<T>(&mut self.file(column)?, self.opening.files, self.opening.order)?;
        self.opening.check_rows(list.len())?;
        let nulls = match dictionary.has_null() {
            true => Some(self.bitmaps(dictionary.len())?.rows_of(0, list.len())?),
            false => None,
        };
        self.opening.numbers(DruidNumbers::<T>::new(list, nulls))
    }

    /// Values of several types, and lists, as text: lists as JSON, the others as they are.
    fn variants(&self, logical_type: &str) -> Result<Opened> {
        let dictionaries = Dictionaries {
            texts: self.texts()?,
            longs: self.fixed("__longDictionary", 8)?,
            doubles: self.fixed("__doubleDictionary", 8)?,
            arrays: FrontCoded::read_ints(&mut self.file("__arrayDictionary")?, self.opening.order)?.0,
        };
        let ids = self.ids()?;
        self.opening.check_rows(ids.len())?;
        let mut texts = TextBuilder::default();
        let mut codes: Vec<Option<u32>> = vec![None; dictionaries.len()];
        let (mut block, mut text) = (Vec::new(), Vec::new());
        for start in (0..ids.len()).step_by(BLOCK_ROWS) {
            block.clear();
            ids.append(start..ids.len().min(start + BLOCK_ROWS), &mut block)?;
            for &id in &block {
                let Some(known) = codes.get_mut(id as usize) else { return Err(beyond(id)) };
                let code = match *known {
                    Some(code) => code,
                    None => {
                        text.clear();
                        let is_some = dictionaries.put(id as usize, Within::Row, &mut text)?;
                        let text = std::str::from_utf8(&text)
                            .map_err(|error| Error::corrupt("a value is not UTF-8").with_source(error))?;
                        *known.insert(texts.code_of(is_some.then_some(text))?)
                    }
                };
                texts.push_code(code);
            }
        }
        let what = format!("`{}` values", if logical_type.is_empty() { "variant" } else { logical_type });
        self.opening.texts(texts, &what)
    }
}

fn beyond(id: u32) -> Error {
    Error::corrupt(format!("a row has value {id}, which no dictionary of the column has"))
}

/// The dictionaries of a column of several types: an id counts through all of them.
struct Dictionaries {
    texts: Texts,
    longs: Fixed,
    doubles: Fixed,
    arrays: FrontCoded,
}

/// Whether a value stands for itself, or in a list, where texts are quoted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Row,
    List,
}

impl Dictionaries {
    fn len(&self) -> usize {
        self.texts.len() + self.longs.len() + self.doubles.len() + self.arrays.len()
    }

    /// Appends a value as text; false, and nothing appended, for null.
    fn put(&self, id: usize, within: Within, out: &mut Vec<u8>) -> Result<bool> {
        if id < self.texts.len() {
            return match self.texts.get(id)? {
                None => Ok(false),
                Some(text) if within == Within::List => put_text(out, &text).map(|()| true),
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
            Within::Row => self.put_list(id - self.doubles.len(), out).map(|()| true),
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
