//! Arrays: one dimension, in text `{a,"b c",NULL}` and in binary.

use bytes::{BufMut, BytesMut};
use henge_engine::Result;

use super::temporal::Zone;
use super::{ListItems, binary, text};

pub(super) fn put_text(items: &ListItems<'_>, row: usize, zone: &Zone, out: &mut BytesMut) -> Result<()> {
    out.put_u8(b'{');
    let mut item = BytesMut::new();
    for (i, index) in items.range(row).enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        if items.values.is_null(index) {
            out.put_slice(b"NULL");
            continue;
        }
        item.clear();
        text::put(&items.values, index, zone, &mut item)?;
        put_quoted(&item, out);
    }
    out.put_u8(b'}');
    Ok(())
}

fn put_quoted(item: &[u8], out: &mut BytesMut) {
    let plain = !item.is_empty()
        && !item.eq_ignore_ascii_case(b"null")
        && !item.iter().any(|byte| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\' | b' ' | 9..=13));
    if plain {
        return out.put_slice(item);
    }
    out.put_u8(b'"');
    for &byte in item {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(byte);
    }
    out.put_u8(b'"');
}

pub(super) fn put_binary(items: &ListItems<'_>, row: usize, out: &mut BytesMut) -> Result<()> {
    let range = items.range(row);
    out.put_i32(i32::from(!range.is_empty()));
    out.put_i32(i32::from(range.clone().any(|index| items.values.is_null(index))));
    out.put_u32(items.element.oid);
    if range.is_empty() {
        return Ok(());
    }
    out.put_i32(range.len() as i32);
    out.put_i32(1);
    for index in range {
        if items.values.is_null(index) {
            out.put_i32(-1);
            continue;
        }
        let start = out.len();
        out.put_i32(0);
        binary::put(&items.values, index, items.element.oid, out)?;
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
