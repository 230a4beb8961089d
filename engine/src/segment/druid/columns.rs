//! Opening a column: from its description to something that queries read.

use std::sync::Arc;

use super::bitmap::{BitmapKind, Bitmaps};
use super::complex::{DOCUMENT_TYPE, read_documents, read_objects};
use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use super::descriptor::{Descriptor, Part, Shape, StringFlags};
use super::dictionary::{DruidDictionary, Texts};
use super::ids::{IdLists, Ids};
use super::indexed::Indexed;
use super::numbers::{DruidNumber, DruidNumbers, NumberList};
use super::strings::{DruidMultiStrings, DruidStrings, NullStrings};
use super::texts::TextBuilder;
use super::{MemoryUse, Nulls, auto};
use crate::error::{Error, Result};
use crate::model::ColumnType;
use crate::segment::Column;

/// A column that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) column: Column,
    pub(super) num_rows: usize,
    pub(super) memory: Arc<dyn MemoryUse>,
    /// How it is stored, for people.
    pub(super) encoding: String,
}

/// What opening a column needs.
pub(super) struct Opening<'a> {
    pub(super) files: &'a Container,
    pub(super) order: ByteOrder,
    pub(super) bitmaps: BitmapKind,
    pub(super) nulls: Nulls,
    /// What the column must have; `None` for `__time`, which says it.
    pub(super) num_rows: Option<usize>,
}

/// What a column is for queries, without its values being looked at. A column without a file has no values.
pub(super) fn shape_of(files: &Container, name: &str) -> Result<Shape> {
    let Some(file) = files.get(name)? else { return Ok(Shape::TEXT) };
    let mut cursor = Cursor::new(file, "a column");
    Descriptor::read(&mut cursor)?.shape(&cursor)
}

/// Opens column `name`.
pub(super) fn open(files: &Container, name: &str, nulls: Nulls, num_rows: Option<usize>) -> Result<Opened> {
    let (order, bitmaps) = (ByteOrder::Little, BitmapKind::Concise);
    let mut opening = Opening { files, order, bitmaps, nulls, num_rows };
    let Some(file) = files.get(name)? else { return opening.null_strings(num_rows.unwrap_or(0), "not stored") };
    let mut cursor = Cursor::new(file, "a column");
    let descriptor = Descriptor::read(&mut cursor)?;
    opening.order = descriptor.order;
    opening.bitmaps = descriptor.bitmaps;
    let opened = opening.part(&descriptor.part, &mut cursor);
    opened.map_err(|error| error.context("stored as", stored_as(&descriptor.part)))
}

fn stored_as(part: &Part) -> String {
    match part {
        Part::Number { column_type, may_be_null } => {
            let name = match column_type {
                ColumnType::Long => "long",
                ColumnType::Float => "float",
                ColumnType::Double => "double",
                ColumnType::String => "string",
            };
            format!("{name}{}", if *may_be_null { "V2" } else { "" })
        }
        Part::Strings => "stringDictionary".to_owned(),
        Part::Complex { type_name } => format!("complex<{type_name}>"),
        Part::Auto(auto) => format!("nestedCommonFormat<{}>", auto.logical_type),
        Part::Null { .. } => "null".to_owned(),
    }
}

impl Opening<'_> {
    fn part(&self, part: &Part, cursor: &mut Cursor) -> Result<Opened> {
        match part {
            Part::Number { column_type, may_be_null } => match column_type {
                ColumnType::Long => self.number::<i64>(cursor, *may_be_null),
                ColumnType::Float => self.number::<f32>(cursor, *may_be_null),
                ColumnType::Double => self.number::<f64>(cursor, *may_be_null),
                ColumnType::String => Err(Error::defensive("a string is no number")),
            },
            Part::Strings => self.string_dictionary(cursor),
            Part::Complex { type_name } if type_name == DOCUMENT_TYPE => {
                let (texts, what) = read_documents(cursor, self.files)?;
                self.texts(texts, &what)
            }
            Part::Complex { type_name } => {
                let (texts, what) = read_objects(cursor, self.files, self.order)?;
                self.texts(texts, &format!("`{type_name}` {what} in base64"))
            }
            Part::Auto(auto) => auto::open(self, auto, cursor),
            Part::Null { num_rows } => self.null_strings(*num_rows, "null"),
        }
    }

    /// Fails where a column has another number of rows than the segment.
    pub(super) fn check_rows(&self, rows: usize) -> Result<()> {
        match self.num_rows {
            Some(num_rows) if num_rows != rows => {
                Err(Error::corrupt(format!("the column has {rows} rows, the segment {num_rows}")))
            }
            _ => Ok(()),
        }
    }

    fn number<T: DruidNumber>(&self, cursor: &mut Cursor, may_be_null: bool) -> Result<Opened> {
        if !may_be_null {
            let list = NumberList::read::<T>(cursor, self.files, self.order)?;
            self.check_rows(list.len())?;
            return self.numbers(DruidNumbers::<T>::new(list, None));
        }
        let values = cursor.sized()?;
        let list = NumberList::read::<T>(&mut Cursor::new(values, "a list of numbers"), self.files, self.order)?;
        self.check_rows(list.len())?;
        let nulls = match cursor.remaining() {
            0 => None,
            _ => Some(self.bitmaps.decode(&cursor.sized()?, list.len())?),
        };
        self.numbers(DruidNumbers::<T>::new(list, nulls))
    }

    /// `T` says which kind of column it is.
    pub(super) fn numbers<T: DruidNumber>(&self, numbers: DruidNumbers<T>) -> Result<Opened> {
        let (encoding, num_rows) = (numbers.describe(), numbers.len());
        let numbers = Arc::new(numbers);
        Ok(Opened { column: T::column(Arc::clone(&numbers)), num_rows, memory: numbers, encoding })
    }

    fn string_dictionary(&self, cursor: &mut Cursor) -> Result<Opened> {
        let flags = StringFlags::read(cursor)?;
        let texts = Texts::read(cursor, self.files, self.order)?;
        let cardinality = texts.len();
        if flags.is_multi_value() {
            let lists = match flags.is_compressed() {
                true => IdLists::read_blocks(cursor, self.files, self.order, flags.lists_version())?,
                false => IdLists::read_flat(cursor)?,
            };
            self.check_rows(lists.len())?;
            let bitmaps = self.read_bitmaps(cursor, flags, cardinality)?;
            let strings = DruidMultiStrings::new(DruidDictionary::open(texts, self.nulls)?, lists, bitmaps)?;
            let (encoding, num_rows) = (strings.describe(), strings.len());
            let strings = Arc::new(strings);
            let column = Column::MultiString(Arc::clone(&strings) as _);
            return Ok(Opened { column, num_rows, memory: strings, encoding });
        }
        let ids = match flags.is_compressed() {
            true => Ids::read_blocks(cursor, self.files, self.order)?,
            false => Ids::read_flat(cursor)?,
        };
        self.check_rows(ids.len())?;
        let bitmaps = self.read_bitmaps(cursor, flags, cardinality)?;
        Ok(self.strings(DruidStrings::new(DruidDictionary::open(texts, self.nulls)?, ids, bitmaps)))
    }

    /// What may follow, an index of places, is not read.
    fn read_bitmaps(&self, cursor: &mut Cursor, flags: StringFlags, cardinality: usize) -> Result<Option<Bitmaps>> {
        if !flags.has_bitmaps() {
            return Ok(None);
        }
        let list = Indexed::read(cursor, self.files, self.order)?;
        Bitmaps::new(list, self.bitmaps, cardinality).map(Some)
    }

    pub(super) fn strings(&self, strings: DruidStrings) -> Opened {
        let (encoding, num_rows) = (strings.describe(), strings.len());
        let strings = Arc::new(strings);
        Opened { column: Column::String(Arc::clone(&strings) as _), num_rows, memory: strings, encoding }
    }

    /// Fails unless there is a text for each row.
    pub(super) fn texts(&self, texts: TextBuilder, what: &str) -> Result<Opened> {
        let (encoding, num_rows) = (format!("{what}, {}", texts.describe()), texts.len());
        self.check_rows(num_rows)?;
        let (column, memory) = texts.finish();
        Ok(Opened { column, num_rows, memory: Arc::new(memory), encoding })
    }

    fn null_strings(&self, num_rows: usize, encoding: &str) -> Result<Opened> {
        self.check_rows(num_rows)?;
        let dictionary = DruidDictionary::open(Texts::only_null(), Nulls::AsStored)?;
        let strings = Arc::new(NullStrings { dictionary, num_rows });
        let column = Column::String(Arc::clone(&strings) as _);
        Ok(Opened { column, num_rows, memory: strings, encoding: encoding.to_owned() })
    }
}
