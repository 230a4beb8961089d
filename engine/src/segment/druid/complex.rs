//! Part `complex`: sketches and other objects as their bytes in base64, documents as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::blob::Blobs;
use super::columns::Opening;
use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use super::dictionary::Texts;
use super::fields::Fields;
use super::indexed::Indexed;
use super::smile;
use super::texts::TextBuilder;
use crate::error::{Error, Result};

/// The first byte of a column whose objects are compressed.
const COMPRESSED: u8 = 0x7f;
/// The versions of document columns.
const DOCUMENTS: std::ops::RangeInclusive<u8> = 3..=5;
pub(super) const DOCUMENT_TYPE: &str = "json";

/// What such columns say of their files.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Files {
    #[serde(default)]
    byte_order: Option<String>,
    file_name_base: String,
}

impl Files {
    fn read(cursor: &mut Cursor) -> Result<(String, ByteOrder)> {
        let json = cursor.text()?;
        let files: Self = serde_json::from_str(&json)
            .map_err(|error| Error::corrupt("a complex column does not say what its files are").with_source(error))?;
        Ok((files.file_name_base, super::descriptor::byte_order(files.byte_order.as_deref())?))
    }
}

/// The objects of a column whose type is not looked into, in base64. An object of no bytes is null.
pub(super) fn read_objects(cursor: &mut Cursor, files: &Container, order: ByteOrder) -> Result<(TextBuilder, String)> {
    let mut texts = TextBuilder::default();
    let mut encoded = String::new();
    let mut push = |bytes: &[u8]| {
        encoded.clear();
        STANDARD.encode_string(bytes, &mut encoded);
        texts.push((!bytes.is_empty()).then_some(&encoded))
    };
    if cursor.peek().first() == Some(&COMPRESSED) {
        cursor.u8()?;
        match cursor.u8()? {
            0 => {}
            version => return Err(Error::unsupported(format!("version {version} of compressed objects is not known"))),
        }
        let (base, order) = Files::read(cursor)?;
        let blobs = Blobs::open(files, &format!("{base}.__complexColumn"), order)?;
        blobs.for_each(|_, bytes| push(bytes))?;
        let codec = blobs.describe();
        return Ok((texts, format!("objects in {codec} blocks")));
    }
    let list = Indexed::read(cursor, files, order)?;
    for row in 0..list.len() {
        push(list.get(row)?.unwrap_or_default()).map_err(|error| error.context("row", row))?;
    }
    Ok((texts, "objects".to_owned()))
}

/// The documents of a column of type `json`.
pub(super) fn read_documents(cursor: &mut Cursor, files: &Container) -> Result<(TextBuilder, String)> {
    let version = cursor.u8()?;
    if !DOCUMENTS.contains(&version) {
        return Err(Error::unsupported(format!("version {version} of columns of documents is not known, only 3 to 5")));
    }
    let (base, order) = Files::read(cursor)?;
    let fields = Indexed::read(cursor, files, order)?.len();
    let (texts, codec) = read_raw_documents(files, &base, order)?;
    Ok((texts, format!("documents v{version} with {fields} fields in {codec} blocks")))
}

/// The nested kind of the common format, behind its base name. `has_documents` says whether whole documents are stored;
/// where they are not, they are put together from their fields.
pub(super) fn read_common_documents(
    cursor: &mut Cursor,
    opening: &Opening<'_>,
    base: &str,
    has_documents: bool,
) -> Result<(TextBuilder, String)> {
    let paths = Texts::read(cursor, opening.files, opening.order)?;
    let fields = paths.len();
    if !has_documents || opening.files.get(&format!("{base}.__raw"))?.is_none() {
        let texts = Fields::open(opening, base, &paths)?.documents()?;
        return Ok((texts, format!("documents made of {fields} fields")));
    }
    let (texts, codec) = read_raw_documents(opening.files, base, opening.order)?;
    Ok((texts, format!("documents with {fields} fields in {codec} blocks")))
}

fn read_raw_documents(files: &Container, base: &str, order: ByteOrder) -> Result<(TextBuilder, &'static str)> {
    let blobs = Blobs::open(files, &format!("{base}.__raw"), order)?;
    let (mut texts, mut json) = (TextBuilder::default(), Vec::new());
    blobs.for_each(|row, document| {
        if document.is_empty() {
            return texts.push(None);
        }
        smile::to_json(document, &mut json).map_err(|error| error.context("row", row))?;
        let text = std::str::from_utf8(&json);
        texts.push(Some(text.map_err(|error| Error::corrupt("a document is not UTF-8").with_source(error))?))
    })?;
    Ok((texts, blobs.describe()))
}
