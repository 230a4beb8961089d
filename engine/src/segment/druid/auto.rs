//! Part `nestedCommonFormat`, Druid's `auto` columns: scalars, values of several types, lists, and documents.

use super::Nulls;
use super::bitmap::Bitmaps;
use super::columns::{Opened, Opening};
use super::complex::read_common_documents;
use super::cursor::Cursor;
use super::descriptor::{Auto, AutoKind};
use super::dictionary::{DruidDictionary, Texts};
use super::fixed::Fixed;
use super::ids::Ids;
use super::indexed::Indexed;
use super::numbers::{DruidNumber, DruidNumbers, NumberList};
use super::strings::DruidStrings;
use super::texts::TextBuilder;
use super::values::{Values, Within};
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
        AutoKind::Nested => {
            let (texts, what) = read_common_documents(cursor, opening, &files.base, auto.has_documents)?;
            opening.texts(texts, &what)
        }
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
        let values = Values::open(self.opening.files, &self.base, self.opening.order)?;
        let ids = self.ids()?;
        self.opening.check_rows(ids.len())?;
        let mut texts = TextBuilder::default();
        let mut codes: Vec<Option<u32>> = vec![None; values.len()];
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
                        let is_some = values.put(id as usize, Within::Row, &mut text)?;
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
