use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Content, Input, object};
use crate::error::{Error, Result};
use crate::ingest::StoreOptions;
use crate::ingest::spec::{InputFormat, InputSource};

/// The inputs of a source, in a fixed order. Fails when there are none, when one's format cannot be told, or when one
/// is named twice: its rows would count twice.
pub(crate) fn list(
    source: &InputSource,
    format: Option<&InputFormat>,
    store_options: &StoreOptions,
) -> Result<Vec<Input>> {
    let inputs = of_source(source, format, store_options)?;
    let mut seen = HashSet::new();
    for input in &inputs {
        let place = match &input.content {
            Content::File(path) => path.canonicalize().unwrap_or_else(|_| path.clone()),
            Content::Open(_) if input.name.contains("://") => PathBuf::from(&*input.name),
            Content::Open(_) | Content::Batches(_) => continue,
        };
        if !seen.insert(place) {
            return Err(Error::invalid_input(format!("`{}` is to be read twice; name each input once", input.name)));
        }
    }
    Ok(inputs)
}

fn of_source(source: &InputSource, format: Option<&InputFormat>, store_options: &StoreOptions) -> Result<Vec<Input>> {
    match source {
        InputSource::Local { base_dir, filter, files } => local(base_dir.as_deref(), filter.as_deref(), files, format),
        InputSource::Inline { data } => {
            let format = format.cloned().ok_or_else(|| Error::invalid_input("inline data needs an `inputFormat`"))?;
            let data = data.clone().into_bytes();
            let size_bytes = Some(data.len() as u64);
            let open = move || Ok(Box::new(std::io::Cursor::new(data)) as Box<dyn std::io::Read + Send>);
            Ok(vec![Input { name: "inline".into(), format, size_bytes, content: Content::Open(Box::new(open)) }])
        }
        InputSource::Http { uris } => object::list(uris, &[], format, store_options),
        InputSource::S3 { uris, prefixes }
        | InputSource::Google { uris, prefixes }
        | InputSource::AzureStorage { uris, prefixes } => object::list(uris, prefixes, format, store_options),
        InputSource::Combining { delegates } => {
            let inputs = delegates.iter().map(|delegate| of_source(delegate, format, store_options));
            Ok(inputs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
        }
    }
}

/// The format that a file's name tells, apart from an ending that says how it is compressed.
pub(super) fn format_of(name: &str) -> Result<InputFormat> {
    let lower = name.to_ascii_lowercase();
    let lower = lower.split(['?', '#']).next().unwrap_or_default();
    let plain = [".gz", ".zst", ".zstd"].iter().find_map(|ending| lower.strip_suffix(ending)).unwrap_or(lower);
    plain.rsplit_once('.').and_then(|(_, ending)| InputFormat::named(ending).ok()).ok_or_else(|| {
        Error::invalid_input(format!(
            "the format of `{name}` cannot be told from its name; say whether it is `json`, `csv`, `tsv` or `parquet`"
        ))
    })
}

fn local(
    base_dir: Option<&str>,
    filter: Option<&str>,
    files: &[String],
    format: Option<&InputFormat>,
) -> Result<Vec<Input>> {
    let mut paths = Vec::new();
    if let Some(base_dir) = base_dir {
        walk(Path::new(base_dir), filter.unwrap_or("*"), &mut paths)?;
    }
    for file in files {
        let path = Path::new(file);
        let found = paths.len();
        if path.is_dir() {
            walk(path, filter.unwrap_or("*"), &mut paths)?;
        } else if path.exists() {
            paths.push(path.to_owned());
        } else {
            glob(path, &mut paths)?;
        }
        if paths.len() == found {
            return Err(Error::not_found(format!("there is no file `{file}`")));
        }
    }
    if paths.is_empty() {
        let (dir, filter) = (base_dir.unwrap_or("."), filter.unwrap_or("*"));
        return Err(Error::not_found(format!("no file in `{dir}` matches `{filter}`")));
    }
    let input = |path: PathBuf| {
        let name: Arc<str> = path.to_string_lossy().into();
        let format = format.map_or_else(|| format_of(&name), |format| Ok(format.clone()))?;
        let size_bytes = path.metadata().ok().filter(|data| data.is_file()).map(|data| data.len());
        Ok(Input { name, format, size_bytes, content: Content::File(path) })
    };
    paths.into_iter().map(input).collect()
}

/// Adds the files below a directory whose names match, by name. Hidden ones are left out.
fn walk(dir: &Path, pattern: &str, paths: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(['.', '_']) {
            continue;
        }
        if path.is_dir() {
            walk(&path, pattern, paths)?;
        } else if matches(pattern.as_bytes(), name.as_bytes()) {
            paths.push(path);
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::invalid_input(format!("directory `{}` cannot be read", dir.display())).with_source(e);
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Adds the files that match a path whose parts may hold `*` and `?`.
fn glob(pattern: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let mut found = vec![if pattern.is_absolute() { PathBuf::from("/") } else { PathBuf::new() }];
    for part in pattern.components() {
        let std::path::Component::Normal(part) = part else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let part = part.to_string_lossy();
        if !part.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(&*part));
            found.retain(|path| path.exists());
            continue;
        }
        let mut next = Vec::new();
        for dir in found.iter().filter(|dir| dir.as_os_str().is_empty() || dir.is_dir()) {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let fits = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                matches(part.as_bytes(), name.as_bytes())
            };
            next.extend(entries(dir)?.into_iter().filter(fits));
        }
        found = next;
    }
    paths.extend(found.into_iter().filter(|path| path.is_file()));
    Ok(())
}

/// Whether a name matches a pattern of `*`, `?` and plain bytes.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go back to: the last `*`, and the next place of the name it may reach to.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n + 1));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    p = after + 1;
                    n = from;
                    star = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns() {
        for (pattern, name, expected) in [
            ("*", "a.json", true),
            ("wikiticker-*.json.gz", "wikiticker-2015.json.gz", true),
            ("*.json", "a.json.gz", false),
            ("a?c*e", "abcde", true),
            ("a*b*c", "aXbXbXc", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_directories_and_globs_are_found() -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        std::fs::create_dir(path("sub")).unwrap();
        for name in ["b.json", "a.json.gz", "c.csv", "sub/d.json", ".hidden.json"] {
            std::fs::write(path(name), "").unwrap();
        }
        let names = |files: &[String], base: Option<&str>, filter: Option<&str>| -> Result<Vec<String>> {
            let inputs = local(base, filter, files, None)?;
            let short = |input: &Input| Path::new(&*input.name).file_name().unwrap().to_string_lossy().into_owned();
            Ok(inputs.iter().map(short).collect())
        };
        assert_eq!(names(&[path("*.json*")], None, None)?, [".hidden.json", "a.json.gz", "b.json"]);
        assert_eq!(names(&[path("s*/d.json")], None, None)?, ["d.json"]);
        assert_eq!(
            names(&[dir.path().to_string_lossy().into_owned()], None, None)?,
            ["a.json.gz", "b.json", "c.csv", "d.json"]
        );
        assert_eq!(names(&[], dir.path().to_str(), Some("*.csv"))?, ["c.csv"]);
        assert!(names(&[path("none.json")], None, None).is_err_and(|e| e.to_string().contains("none.json")));
        std::fs::write(path("x.dat"), "").unwrap();
        assert!(names(&[path("x.dat")], None, None).is_err_and(|e| e.to_string().contains("cannot be told")));
        Ok(())
    }
}
