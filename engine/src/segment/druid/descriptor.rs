//! What a column says of itself: JSON at the beginning of its file.

use serde::Deserialize;

use super::bitmap::BitmapKind;
use super::cursor::{ByteOrder, Cursor};
use crate::error::{Error, Result};
use crate::model::ColumnType;

/// A column's description, read.
#[derive(Clone, Debug)]
pub(super) struct Descriptor {
    pub(super) part: Part,
    pub(super) order: ByteOrder,
    /// Concise where nothing is said, as it was before there was a choice.
    pub(super) bitmaps: BitmapKind,
}

/// How a column is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `long`, `float`, `double`, and with `may_be_null` their second versions.
    Number {
        column_type: ColumnType,
        may_be_null: bool,
    },
    Strings,
    Complex {
        type_name: String,
    },
    Auto(Auto),
    Null {
        num_rows: usize,
    },
}

/// Part `nestedCommonFormat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Auto {
    pub(super) logical_type: String,
    pub(super) kind: AutoKind,
    /// Whether documents are stored, and not only their fields.
    pub(super) has_documents: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AutoKind {
    String,
    Long,
    Double,
    /// Values of several types, or lists.
    Variant,
    Nested,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    value_type: Option<String>,
    #[serde(default)]
    parts: Vec<RawPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    byte_order: Option<String>,
    #[serde(default)]
    bitmap_serde_factory: Option<RawBitmap>,
    #[serde(default)]
    type_name: Option<String>,
    #[serde(default)]
    num_rows: Option<usize>,
    #[serde(default)]
    logical_type: Option<String>,
    #[serde(default)]
    is_variant_type: bool,
    #[serde(default)]
    column_format_spec: Option<RawFormat>,
}

#[derive(Deserialize)]
pub(super) struct RawBitmap {
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

impl RawBitmap {
    pub(super) fn kind(&self) -> BitmapKind {
        match self.kind.as_deref() {
            Some("concise") => BitmapKind::Concise,
            _ => BitmapKind::Roaring,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFormat {
    #[serde(default)]
    bitmap_encoding: Option<RawBitmap>,
    #[serde(default)]
    object_storage_encoding: Option<String>,
}

pub(super) fn byte_order(name: Option<&str>) -> Result<ByteOrder> {
    match name {
        None | Some("LITTLE_ENDIAN") => Ok(ByteOrder::Little),
        Some("BIG_ENDIAN") => Ok(ByteOrder::Big),
        Some(other) => Err(Error::unsupported(format!("byte order `{other}` is not known"))),
    }
}

/// What a column is for queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) column_type: ColumnType,
    pub(super) is_multi_value: bool,
}

impl Shape {
    pub(super) const TEXT: Self = Self { column_type: ColumnType::String, is_multi_value: false };
}

impl Descriptor {
    /// Reads the description, and leaves the cursor where the column's bytes begin.
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self> {
        let mut raw = read_raw(cursor)?;
        let part = match raw.parts.len() {
            1 => raw.parts.swap_remove(0),
            count => return Err(Error::unsupported(format!("columns of {count} parts are not read, only of one"))),
        };
        let order = byte_order(part.byte_order.as_deref())?;
        let encoding = part.column_format_spec.as_ref().and_then(|format| format.bitmap_encoding.as_ref());
        let bitmaps = encoding.or(part.bitmap_serde_factory.as_ref());
        let bitmaps = bitmaps.map_or(BitmapKind::Concise, RawBitmap::kind);
        Ok(Self { part: part_of(part)?, order, bitmaps })
    }

    /// What the column is for queries; `cursor` is behind the description.
    pub(super) fn shape(&self, cursor: &Cursor) -> Result<Shape> {
        let number = |column_type| Shape { column_type, is_multi_value: false };
        Ok(match &self.part {
            Part::Number { column_type, .. } => number(*column_type),
            Part::Strings => {
                let flags = StringFlags::read(&mut cursor.clone())?;
                Shape { column_type: ColumnType::String, is_multi_value: flags.is_multi_value() }
            }
            Part::Auto(auto) => match auto.kind {
                AutoKind::Long => number(ColumnType::Long),
                AutoKind::Double => number(ColumnType::Double),
                AutoKind::String | AutoKind::Variant | AutoKind::Nested => Shape::TEXT,
            },
            Part::Complex { .. } | Part::Null { .. } => Shape::TEXT,
        })
    }
}

fn read_raw(cursor: &mut Cursor) -> Result<RawDescriptor> {
    let json = cursor.sized()?;
    serde_json::from_slice(&json)
        .map_err(|error| Error::corrupt("a column begins with what is no description").with_source(error))
}

/// What a column that cannot be read is taken for, as far as its description says.
pub(super) fn guess_shape(file: bytes::Bytes) -> Shape {
    let raw = read_raw(&mut Cursor::new(file, "a column"));
    let value_type = raw.ok().and_then(|raw| raw.value_type).unwrap_or_default();
    let column_type = match value_type.as_str() {
        "LONG" => ColumnType::Long,
        "FLOAT" => ColumnType::Float,
        "DOUBLE" => ColumnType::Double,
        _ => ColumnType::String,
    };
    Shape { column_type, is_multi_value: false }
}

fn part_of(part: RawPart) -> Result<Part> {
    let number = |column_type, may_be_null| Part::Number { column_type, may_be_null };
    Ok(match part.kind.as_str() {
        "long" => number(ColumnType::Long, false),
        "float" => number(ColumnType::Float, false),
        "double" => number(ColumnType::Double, false),
        "longV2" => number(ColumnType::Long, true),
        "floatV2" => number(ColumnType::Float, true),
        "doubleV2" => number(ColumnType::Double, true),
        "stringDictionary" => Part::Strings,
        "complex" => Part::Complex { type_name: part.type_name.unwrap_or_default() },
        "null" => match part.num_rows {
            Some(num_rows) => Part::Null { num_rows },
            None => return Err(Error::corrupt("a column of nulls does not say how many")),
        },
        "nestedCommonFormat" => {
            let logical_type = part.logical_type.unwrap_or_default();
            let kind = match logical_type.as_str() {
                _ if part.is_variant_type => AutoKind::Variant,
                text if text.starts_with("ARRAY") => AutoKind::Variant,
                "STRING" => AutoKind::String,
                "LONG" => AutoKind::Long,
                "DOUBLE" => AutoKind::Double,
                _ => AutoKind::Nested,
            };
            let storage = part.column_format_spec.and_then(|format| format.object_storage_encoding);
            let has_documents = storage.is_none_or(|storage| !storage.eq_ignore_ascii_case("none"));
            Part::Auto(Auto { logical_type, kind, has_documents })
        }
        other => return Err(Error::unsupported(format!("columns stored as `{other}` are not known"))),
    })
}

/// The head of part `stringDictionary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringFlags {
    pub(super) version: u8,
    flags: i32,
}

impl StringFlags {
    const MULTI_VALUE: i32 = 1;
    const MULTI_VALUE_V3: i32 = 2;
    const NO_BITMAPS: i32 = 4;

    pub(super) fn read(cursor: &mut Cursor) -> Result<Self> {
        let version = cursor.u8()?;
        let flags = match version {
            0 => 0,
            1 => Self::MULTI_VALUE,
            2 | 3 => cursor.i32()?,
            _ => return Err(Error::unsupported(format!("version {version} of string columns is not known"))),
        };
        let known = Self::MULTI_VALUE | Self::MULTI_VALUE_V3 | Self::NO_BITMAPS;
        if flags & !known != 0 || (version == 3 && flags & Self::MULTI_VALUE_V3 != 0) {
            return Err(Error::unsupported(format!("flags {flags:#x} of string columns are not known")));
        }
        Ok(Self { version, flags })
    }

    pub(super) fn is_multi_value(self) -> bool {
        self.flags & (Self::MULTI_VALUE | Self::MULTI_VALUE_V3) != 0
    }

    pub(super) fn is_compressed(self) -> bool {
        self.version == 2
    }

    /// The version of compressed lists.
    pub(super) fn lists_version(self) -> u8 {
        if self.flags & Self::MULTI_VALUE != 0 { 2 } else { 3 }
    }

    pub(super) fn has_bitmaps(self) -> bool {
        self.flags & Self::NO_BITMAPS == 0
    }
}
