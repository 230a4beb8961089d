//! The files of a segment: `version.bin`, `meta.smoosh` and the data files that it divides into named ones.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use memmap2::Mmap;

use crate::error::{Error, Result};

/// The only version of the format that is read.
const VERSION: i32 = 9;
const VERSION_FILE: &str = "version.bin";
const TABLE_FILE: &str = "meta.smoosh";
/// A table of contents names a few files for each column; one of this size is none.
const MAX_TABLE_BYTES: u64 = 256 << 20;

/// The named files inside a segment.
pub(super) struct Container {
    source: Source,
    num_chunks: usize,
    table: HashMap<String, Place>,
    /// By number, opened when first needed.
    chunks: BTreeMap<usize, OnceLock<Bytes>>,
}

struct Place {
    chunk: usize,
    range: Range<usize>,
}

/// Where the files of the segment itself are.
pub(super) enum Source {
    Directory(std::path::PathBuf),
    Memory(BTreeMap<String, Bytes>),
}

impl Source {
    /// A file; `None` if there is no such file.
    fn read(&self, name: &str) -> Result<Option<Bytes>> {
        match self {
            Self::Memory(files) => Ok(files.get(name).cloned()),
            Self::Directory(dir) => map(&dir.join(name)),
        }
    }

    fn size_of(&self, name: &str) -> u64 {
        match self {
            Self::Memory(files) => files.get(name).map_or(0, |file| file.len() as u64),
            Self::Directory(dir) => dir.join(name).metadata().map_or(0, |metadata| metadata.len()),
        }
    }
}

fn map(path: &Path) -> Result<Option<Bytes>> {
    let failed = |error: std::io::Error| {
        Error::runtime_failure("cannot read a file of the segment").context("file", path.display()).with_source(error)
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::corrupt("a file of the segment is no plain file").context("file", path.display()));
    }
    if metadata.len() == 0 {
        return Ok(Some(Bytes::new()));
    }
    // SAFETY: as in `SegmentFile::open`: segments lie in a private directory and are never written again.
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Some(Bytes::from_owner(map)))
}

impl Container {
    /// Reads the version and the table of contents.
    pub(super) fn open(source: Source) -> Result<Self> {
        check_version(&source)?;
        if source.size_of(TABLE_FILE) > MAX_TABLE_BYTES {
            return Err(Error::corrupt("`meta.smoosh` is too large to be a table of contents"));
        }
        let Some(text) = source.read(TABLE_FILE)? else {
            return Err(Error::corrupt("there is no `meta.smoosh`, so this is no Druid segment, or a part of one"));
        };
        let text = std::str::from_utf8(&text)
            .map_err(|error| Error::corrupt("`meta.smoosh` is not UTF-8").with_source(error))?;
        let (num_chunks, table) = parse_table(text)?;
        let chunks = table.values().map(|place| (place.chunk, OnceLock::new())).collect();
        Ok(Self { source, num_chunks, table, chunks })
    }

    /// A named file; `None` if the table of contents has none of that name.
    pub(super) fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let Some(place) = self.table.get(name) else { return Ok(None) };
        let chunk = self.chunk(place.chunk)?;
        if place.range.start > place.range.end || place.range.end > chunk.len() {
            return Err(Error::corrupt(format!(
                "`meta.smoosh` says that `{name}` is at bytes {} to {} of `{}`, which has {} bytes",
                place.range.start,
                place.range.end,
                chunk_name(place.chunk),
                chunk.len()
            )));
        }
        Ok(Some(chunk.slice(place.range.clone())))
    }

    /// A named file that must be there.
    pub(super) fn require(&self, name: &str) -> Result<Bytes> {
        self.get(name)?.ok_or_else(|| Error::corrupt(format!("the segment has no file `{name}`")))
    }

    fn chunk(&self, number: usize) -> Result<&Bytes> {
        let Some(slot) = self.chunks.get(&number).filter(|_| number < self.num_chunks) else {
            return Err(Error::corrupt(format!("`meta.smoosh` names data file {number} of {}", self.num_chunks)));
        };
        if let Some(chunk) = slot.get() {
            return Ok(chunk);
        }
        let name = chunk_name(number);
        let chunk = self.source.read(&name)?;
        let chunk = chunk.ok_or_else(|| Error::corrupt(format!("the segment lacks its file `{name}`")))?;
        Ok(slot.get_or_init(|| chunk))
    }

    /// How many data files there are.
    pub(super) fn num_chunks(&self) -> usize {
        self.num_chunks
    }

    /// Bytes of all named files.
    pub(super) fn size_bytes(&self) -> u64 {
        self.table.values().map(|place| place.range.len() as u64).sum()
    }

    /// Bytes of the file of a column and of those that belong to it alone.
    pub(super) fn column_bytes(&self, column: &str) -> u64 {
        let belongs = |name: &str| name.strip_prefix(column).is_some_and(|rest| rest.is_empty() || is_auxiliary(rest));
        self.table.iter().filter(|(name, _)| belongs(name)).map(|(_, place)| place.range.len() as u64).sum()
    }

    /// Bytes that are kept in memory, rather than mapped.
    pub(super) fn memory_bytes(&self) -> usize {
        let owned = match &self.source {
            Source::Directory(_) => 0,
            Source::Memory(files) => files.values().map(Bytes::len).sum(),
        };
        owned + self.table.keys().map(|name| name.len() + size_of::<Place>() + size_of::<String>()).sum::<usize>()
    }
}

fn is_auxiliary(rest: &str) -> bool {
    rest.starts_with(".__") || rest.starts_with("_.") || rest.ends_with("_header") || rest.contains("_value_")
}

fn chunk_name(number: usize) -> String {
    format!("{number:05}.smoosh")
}

/// Before version 9 the version was the first byte of a loose `index.drd`.
fn check_version(source: &Source) -> Result<()> {
    let version = match source.read(VERSION_FILE)? {
        Some(bytes) => {
            let bytes = <[u8; 4]>::try_from(bytes.as_ref());
            i32::from_be_bytes(bytes.map_err(|_| Error::corrupt("`version.bin` has another length than 4 bytes"))?)
        }
        None => match source.read("index.drd")?.as_deref() {
            Some([version, ..]) => i32::from(*version),
            _ => {
                return Err(Error::corrupt("there is no `version.bin`, so this is no Druid segment, or a part of one"));
            }
        },
    };
    match version {
        VERSION => Ok(()),
        _ => Err(Error::unsupported(format!("version {version} of Druid's segment format is not read, only 9"))),
    }
}

/// The number of data files, and where each named file is. Whether that can be is asked when one is read.
fn parse_table(text: &str) -> Result<(usize, HashMap<String, Place>)> {
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let head = lines.next().unwrap_or_default().split(',').collect::<Vec<_>>();
    let num_chunks = match head[..] {
        ["v1", _, count] => count.trim().parse::<u32>().ok(),
        _ => None,
    };
    let Some(num_chunks) = num_chunks else {
        return Err(Error::corrupt("`meta.smoosh` does not begin with `v1`, a size and a number of files"));
    };
    let mut table = HashMap::new();
    for (line, number) in lines.zip(2..).filter(|(line, _)| !line.is_empty()) {
        let (name, place) = parse_line(line)
            .ok_or_else(|| Error::corrupt(format!("line {number} of `meta.smoosh` is not `name,file,start,end`")))?;
        if table.insert(name.to_owned(), place).is_some() {
            return Err(Error::corrupt(format!("`meta.smoosh` names `{name}` twice")));
        }
    }
    Ok((num_chunks as usize, table))
}

fn parse_line(line: &str) -> Option<(&str, Place)> {
    let mut fields = line.split(',');
    let name = fields.next()?;
    let mut number = || fields.next()?.parse::<u32>().ok().map(|number| number as usize);
    let place = Place { chunk: number()?, range: number()?..number()? };
    fields.next().is_none().then_some((name, place))
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Container({} files in {} data files)", self.table.len(), self.num_chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(table: &str) -> Result<Container> {
        let file = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let files = [
            ("version.bin", file(&[0, 0, 0, 9])),
            ("meta.smoosh", file(table.as_bytes())),
            ("00000.smoosh", file(b"abcdef")),
            ("00001.smoosh", file(b"ghi")),
        ];
        Container::open(Source::Memory(files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()))
    }

    #[test]
    fn named_files_are_found_in_several_data_files() {
        let container = memory("v1,2147483647,2\na.\"x\"[0],0,1,3\nb,1,0,3\nempty,1,3,3\n").unwrap();
        assert_eq!(container.get("a.\"x\"[0]").unwrap().unwrap(), "bc");
        assert_eq!(container.get("b").unwrap().unwrap(), "ghi");
        assert_eq!(container.get("empty").unwrap().unwrap(), "");
        assert!(container.get("c").unwrap().is_none());
        assert_eq!(container.size_bytes(), 5);
    }

    #[test]
    fn what_lies_outside_a_data_file_is_an_error_of_that_name_alone() {
        let container = memory("v1,2147483647,3\na,0,1,7\nb,0,5,2\nc,2,0,0\nd,9,0,0\nok,0,0,6").unwrap();
        for name in ["a", "b", "c", "d"] {
            assert!(container.get(name).is_err(), "{name}");
        }
        assert_eq!(container.get("ok").unwrap().unwrap(), "abcdef");
    }

    #[test]
    fn tables_of_contents_that_cannot_be_are_refused() {
        for table in ["", "v2,1,1", "v1,1", "v1,1,-1", "v1,1,1\na,0,1", "v1,1,1\na,0,1,2,3", "v1,1,1\na,0,-1,2"] {
            assert!(memory(table).is_err(), "{table}");
        }
        assert!(memory("v1,1,1\na,0,1,2\na,0,1,2").is_err());
    }

    #[test]
    fn older_versions_are_named() {
        let files = [("index.drd".to_owned(), Bytes::from_static(&[8, 1]))];
        let error = Container::open(Source::Memory(files.into_iter().collect())).unwrap_err();
        assert!(error.to_string().contains("version 8"), "{error}");
    }
}
