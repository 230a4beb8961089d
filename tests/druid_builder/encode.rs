//! Test encoders, one for each structure of the format, written from the specification. What they write was not written
//! by Druid; they prove that the reader reads what the specification says.
//!
//! The engine's unit tests and the benchmarks include this file, so it uses public names alone.

use std::collections::HashMap;

use roaring::RoaringBitmap;

/// The order of bytes where Druid calls it native.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

pub(crate) const LZF: u8 = 0x00;
pub(crate) const LZ4: u8 = 0x01;
pub(crate) const ZSTD: u8 = 0x02;
pub(crate) const UNCOMPRESSED: u8 = 0xff;
pub(crate) const NONE: u8 = 0xfe;
pub(crate) const CODECS: [u8; 5] = [LZF, LZ4, ZSTD, UNCOMPRESSED, NONE];

pub(crate) fn put_i32(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&i32::try_from(value).unwrap().to_be_bytes());
}

/// In the byte order of the column.
pub(crate) fn native(order: ByteOrder, value: u32) -> [u8; 4] {
    if order == ByteOrder::Little { value.to_le_bytes() } else { value.to_be_bytes() }
}

pub(crate) fn native64(order: ByteOrder, value: u64) -> [u8; 8] {
    if order == ByteOrder::Little { value.to_le_bytes() } else { value.to_be_bytes() }
}

pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_i32(&mut out, bytes.len());
    out.extend_from_slice(bytes);
    out
}

pub(crate) fn vbyte(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(value as u8 & 0x7f);
        value >>= 7;
    }
    out.push(value as u8 | 0x80);
}

/// Lists that go into files of their own, by name.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// A list of byte strings: in place, or with `split`, in files of `2^shift` entries whose names begin with a base.
pub(crate) fn indexed(
    entries: &[Option<Vec<u8>>],
    split: Option<(u32, &str)>,
    order: ByteOrder,
    files: &mut Files,
) -> Vec<u8> {
    let entry = |entry: &Option<Vec<u8>>| match entry {
        None => (-1i32).to_be_bytes().to_vec(),
        Some(value) => [&0i32.to_be_bytes()[..], value].concat(),
    };
    let mut out = Vec::new();
    let Some((shift, base)) = split else {
        let (mut ends, mut values) = (Vec::new(), Vec::new());
        for value in entries {
            values.extend(entry(value));
            put_i32(&mut ends, values.len());
        }
        out.extend([1, 0]);
        put_i32(&mut out, 4 + ends.len() + values.len());
        put_i32(&mut out, entries.len());
        return [out, ends, values].concat();
    };
    let mut header = Vec::new();
    for (number, chunk) in entries.chunks(1 << shift).enumerate() {
        let mut values = Vec::new();
        for value in chunk {
            values.extend(entry(value));
            header.extend(native(order, values.len() as u32));
        }
        files.push((format!("{base}_value_{number}"), values));
    }
    files.push((format!("{base}_header"), header));
    out.extend([2, 0]);
    put_i32(&mut out, shift as usize);
    put_i32(&mut out, entries.len());
    out.extend(sized(base.as_bytes()));
    out
}

/// A front-coded list of byte strings, whose lengths count `unit`s of bytes.
pub(crate) fn front_coded(
    values: &[Option<Vec<u8>>],
    (version, of_previous, unit): (u8, bool, usize),
    bucket: usize,
    order: ByteOrder,
) -> Vec<u8> {
    let has_null = values.first().is_some_and(Option::is_none);
    let stored = values.iter().flatten().collect::<Vec<_>>();
    let (mut ends, mut body) = (Vec::new(), Vec::new());
    for values in stored.chunks(bucket) {
        if !body.is_empty() {
            ends.extend(native(order, body.len() as u32));
        }
        for (position, value) in values.iter().enumerate() {
            let mut kept = 0;
            if position > 0 {
                let of = if of_previous { values[position - 1] } else { values[0] };
                kept = value.iter().zip(of.iter()).take_while(|(a, b)| a == b).count() / unit;
                vbyte(&mut body, kept);
            }
            vbyte(&mut body, value.len() / unit - kept);
            body.extend_from_slice(&value[kept * unit..]);
        }
    }
    let mut out = vec![version, bucket as u8, u8::from(has_null)];
    vbyte(&mut out, stored.len());
    vbyte(&mut out, ends.len() + body.len());
    [out, ends, body].concat()
}

pub(crate) fn fixed(values: &[u64], has_null: bool, width: usize, order: ByteOrder) -> Vec<u8> {
    let mut out = vec![0, u8::from(has_null) | 2];
    out.extend(native(order, values.len() as u32));
    for value in values {
        match width {
            4 => out.extend(native(order, *value as u32)),
            _ => out.extend(native64(order, *value)),
        }
    }
    out
}

pub(crate) fn compress(codec: u8, bytes: &[u8]) -> Vec<u8> {
    match codec {
        LZF => lzf(bytes),
        LZ4 => lz4_flex::block::compress(bytes),
        ZSTD => zstd::bulk::compress(bytes, 3).unwrap(),
        _ => bytes.to_vec(),
    }
}

/// Chunks of at most 65535 bytes; every second one as it is.
fn lzf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, chunk) in bytes.chunks(65535).enumerate() {
        let packed = lzf_chunk(chunk);
        out.extend(b"ZV");
        if number % 2 == 1 || packed.len() > 65535 {
            out.push(0);
            out.extend((chunk.len() as u16).to_be_bytes());
            out.extend(chunk);
        } else {
            out.push(1);
            out.extend((packed.len() as u16).to_be_bytes());
            out.extend((chunk.len() as u16).to_be_bytes());
            out.extend(packed);
        }
    }
    out
}

fn lzf_chunk(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut literal, mut at) = (Vec::new(), Vec::new(), 0);
    let mut seen: HashMap<[u8; 3], usize> = HashMap::new();
    let flush = |literal: &mut Vec<u8>, out: &mut Vec<u8>| {
        for part in literal.chunks(32) {
            out.push(part.len() as u8 - 1);
            out.extend(part);
        }
        literal.clear();
    };
    while at < bytes.len() {
        let key = bytes.get(at..at + 3).map(|key| <[u8; 3]>::try_from(key).unwrap());
        let found = key.and_then(|key| seen.insert(key, at)).filter(|from| at - from <= 8192);
        let Some(from) = found else {
            literal.push(bytes[at]);
            at += 1;
            continue;
        };
        flush(&mut literal, &mut out);
        let same = bytes[at..].iter().zip(&bytes[from..]).take_while(|(a, b)| a == b).count().min(264);
        let (distance, length) = (at - from - 1, same - 2);
        out.push((length.min(7) << 5 | distance >> 8) as u8);
        if length >= 7 {
            out.push((length - 7) as u8);
        }
        out.push(distance as u8);
        at += same;
    }
    flush(&mut literal, &mut out);
    out
}

/// Blocks of values that are written already; `block` cuts them.
fn blocks(bytes: &[u8], block_bytes: usize, codec: u8, tail: &[u8]) -> Vec<Option<Vec<u8>>> {
    bytes.chunks(block_bytes.max(1)).map(|block| Some(compress(codec, &[block, tail].concat()))).collect()
}

pub(crate) fn width_of(cardinality: usize) -> usize {
    match cardinality {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x10000..=0xff_ffff => 3,
        _ => 4,
    }
}

fn put_int(out: &mut Vec<u8>, value: u32, width: usize, order: ByteOrder) {
    match order {
        ByteOrder::Little => out.extend(&value.to_le_bytes()[..width]),
        ByteOrder::Big => out.extend(&value.to_be_bytes()[4 - width..]),
    }
}

/// Uncompressed integers.
pub(crate) fn flat_ints(values: &[u32], width: usize) -> Vec<u8> {
    let mut body = Vec::new();
    values.iter().for_each(|value| put_int(&mut body, *value, width, ByteOrder::Big));
    body.resize(body.len() + 4 - width, 0);
    let mut out = vec![0, width as u8];
    out.extend(sized(&body));
    out
}

/// Uncompressed lists of integers.
pub(crate) fn flat_int_lists(rows: &[Vec<u32>], width: usize) -> Vec<u8> {
    let (mut ends, mut values) = (Vec::new(), Vec::new());
    for row in rows {
        row.iter().for_each(|value| put_int(&mut values, *value, width, ByteOrder::Big));
        put_i32(&mut ends, values.len());
    }
    values.resize(values.len() + 4 - width, 0);
    let mut body = Vec::new();
    put_i32(&mut body, rows.len());
    let mut out = vec![1, width as u8];
    out.extend(sized(&[body, ends, values].concat()));
    out
}

/// How blocks are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocking<'a> {
    pub(crate) codec: u8,
    pub(crate) order: ByteOrder,
    /// Values a block, instead of what Druid takes.
    pub(crate) per: Option<usize>,
    pub(crate) split: Option<(u32, &'a str)>,
}

/// Compressed integers; with `is_wide`, without their width.
pub(crate) fn ints(values: &[u32], width: usize, is_wide: bool, blocking: Blocking<'_>, files: &mut Files) -> Vec<u8> {
    let per = blocking.per.unwrap_or([65536, 32768, 16384, 16384][width - 1]);
    let mut body = Vec::new();
    values.iter().for_each(|value| put_int(&mut body, *value, width, blocking.order));
    let blocks = blocks(&body, per * width, blocking.codec, &[]);
    let mut out = if is_wide { vec![2] } else { vec![2, width as u8] };
    put_i32(&mut out, values.len());
    put_i32(&mut out, per);
    out.push(blocking.codec);
    out.extend(indexed(&blocks, blocking.split, blocking.order, files));
    out
}

/// Compressed lists of integers, version 2 or 3.
pub(crate) fn int_lists(
    rows: &[Vec<u32>],
    width: usize,
    version: u8,
    blocking: Blocking<'_>,
    files: &mut Files,
) -> Vec<u8> {
    let mut offsets = vec![0u32];
    rows.iter().for_each(|row| offsets.push(offsets[offsets.len() - 1] + row.len() as u32));
    let values = rows.concat();
    let mut out = vec![version];
    let in_place = Blocking { split: None, ..blocking };
    let offset_width = if version == 3 { 4 } else { width_of(values.len()) };
    out.extend(ints(&offsets, offset_width, version == 3, in_place, files));
    out.extend(ints(&values, width, false, blocking, files));
    out
}

/// How longs are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Longs {
    /// Version 1: LZF.
    Old,
    Plain,
    /// Plain, but with a byte that says so.
    Marked,
    Delta,
    /// Where there are few enough.
    Table,
}

const BITS: [usize; 13] = [1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64];

fn bits_for(values: u128) -> usize {
    BITS.into_iter().find(|bits| *bits < 64 && values <= 1 << bits).unwrap_or(64)
}

fn pack(values: &[u64], bits: usize) -> Vec<u8> {
    let mut out = vec![0; (values.len() * bits).div_ceil(8)];
    for (index, value) in values.iter().enumerate() {
        for bit in 0..bits {
            if value >> (bits - 1 - bit) & 1 == 1 {
                out[(index * bits + bit) / 8] |= 0x80 >> ((index * bits + bit) % 8);
            }
        }
    }
    out
}

pub(crate) fn longs(values: &[i64], how: Longs, blocking: Blocking<'_>, files: &mut Files) -> Vec<u8> {
    let table = values.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let how = if how == Longs::Table && (table.len() > 256 || table.is_empty()) { Longs::Delta } else { how };
    let (base, most) = (table.first().copied().unwrap_or(0), table.last().copied().unwrap_or(0));
    let (header, bits, packed): (Vec<u8>, usize, Vec<u64>) = match how {
        Longs::Old | Longs::Plain | Longs::Marked => (Vec::new(), 0, Vec::new()),
        Longs::Delta => {
            let bits = bits_for((i128::from(most) - i128::from(base) + 1).cast_unsigned());
            let mut header = vec![0, 1];
            header.extend(base.to_be_bytes());
            put_i32(&mut header, bits);
            (header, bits, values.iter().map(|value| value.wrapping_sub(base).cast_unsigned()).collect())
        }
        Longs::Table => {
            let mut header = vec![1, 1];
            put_i32(&mut header, table.len());
            table.iter().for_each(|value| header.extend(value.to_be_bytes()));
            let packed = values.iter().map(|value| table.binary_search(value).unwrap() as u64).collect();
            (header, bits_for(table.len() as u128), packed)
        }
    };
    let codec = if how == Longs::Old { LZF } else { blocking.codec };
    let mark = codec.wrapping_sub(126);
    let head: Vec<u8> = match how {
        Longs::Old => Vec::new(),
        Longs::Plain => vec![codec],
        Longs::Marked => vec![mark, 0xff],
        Longs::Delta | Longs::Table => [&[mark][..], &header].concat(),
    };
    let mut out = vec![if how == Longs::Old { 1 } else { 2 }];
    put_i32(&mut out, values.len());
    let plain = values.iter().flat_map(|value| native64(blocking.order, value.cast_unsigned())).collect::<Vec<_>>();
    let per = blocking.per.unwrap_or((65532 * 8usize).checked_div(bits).map_or(8192, |per| per / 8 * 8)).max(8);
    if codec == NONE {
        put_i32(&mut out, 0);
        out.extend(head);
        out.extend(if bits == 0 { plain } else { [pack(&packed, bits), vec![0; 4]].concat() });
        return out;
    }
    put_i32(&mut out, per);
    out.extend(head);
    let blocks = match bits {
        0 => blocks(&plain, per * 8, codec, &[]),
        _ => packed.chunks(per).map(|part| Some(compress(codec, &[&pack(part, bits)[..], &[0; 4]].concat()))).collect(),
    };
    out.extend(indexed(&blocks, blocking.split, blocking.order, files));
    out
}

/// Floats (`width` 4) or doubles (8), as bits. With `is_old`, version 1.
pub(crate) fn floats(bits: &[u64], width: usize, is_old: bool, blocking: Blocking<'_>, files: &mut Files) -> Vec<u8> {
    let codec = if is_old { LZF } else { blocking.codec };
    let mut body = Vec::new();
    for value in bits {
        match width {
            4 => body.extend(native(blocking.order, *value as u32)),
            _ => body.extend(native64(blocking.order, *value)),
        }
    }
    let mut out = vec![if is_old { 1 } else { 2 }];
    put_i32(&mut out, bits.len());
    let per = if codec == NONE { 0 } else { blocking.per.unwrap_or(65536 / width) };
    put_i32(&mut out, per);
    if !is_old {
        out.push(codec);
    }
    match codec {
        NONE => out.extend(body),
        _ => out.extend(indexed(&blocks(&body, per * width, codec, &[]), blocking.split, blocking.order, files)),
    }
    out
}

/// A concise bitmap, with fills wherever there can be some.
pub(crate) fn concise(rows: &RoaringBitmap) -> Vec<u8> {
    const ONES: u32 = 0x7fff_ffff;
    let num_blocks = rows.max().map_or(0, |last| last / 31 + 1);
    let literal =
        |block: u32| (0..31).filter(|bit| rows.contains(block * 31 + bit)).fold(0u32, |bits, bit| bits | 1 << bit);
    let (mut words, mut block) = (Vec::<u32>::new(), 0);
    while block < num_blocks {
        let first = literal(block);
        let count = |of: u32, from: u32| (from..num_blocks).take_while(|b| literal(*b) == of).count() as u32;
        let fill = [(0, 0), (ONES, 1)].into_iter().find_map(|(of, kind)| {
            let odd = first ^ of;
            let position = if odd == 0 { 0 } else { odd.trailing_zeros() + 1 };
            let more = count(of, block + 1);
            (odd.count_ones() <= 1 && more > 0).then_some((kind << 30 | position << 25 | more, more + 1))
        });
        let (word, blocks) = fill.unwrap_or((0x8000_0000 | first, 1));
        words.push(word);
        block += blocks;
    }
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

pub(crate) fn roaring(rows: &RoaringBitmap) -> Vec<u8> {
    let mut rows = rows.clone();
    rows.optimize();
    let mut out = Vec::new();
    rows.serialize_into(&mut out).unwrap();
    out
}

/// The three files of a column of byte strings.
pub(crate) fn blobs(base: &str, values: &[Vec<u8>], codec: u8, order: ByteOrder) -> Files {
    let mut head = vec![1];
    put_i32(&mut head, values.len());
    let (mut ends, mut end) = (Vec::new(), 0u64);
    for value in values {
        end += value.len() as u64;
        ends.extend(native64(order, end));
    }
    let block_file = |bytes: &[u8]| {
        let blocks = bytes.chunks(65536).map(|block| compress(codec, block)).collect::<Vec<_>>();
        let mut out = vec![1, codec];
        put_i32(&mut out, 65536);
        put_i32(&mut out, blocks.len());
        let mut end = 0;
        for block in &blocks {
            end += block.len() as u32;
            out.extend(native(order, end));
        }
        out.extend(blocks.concat());
        out
    };
    vec![
        (format!("{base}_offsets"), block_file(&ends)),
        (format!("{base}_compressed"), block_file(&values.concat())),
        (base.to_owned(), head),
    ]
}
